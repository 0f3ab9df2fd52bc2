"""What a process begins with: its store, its agents bound to code and clients, the policies' files, the secrets it knows."""
