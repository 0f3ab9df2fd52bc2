"""The command line: every command in the file of its group, nothing heavy imported before it is needed."""
