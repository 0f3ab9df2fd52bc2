"""Policies in Cedar beside the built-in rules: read, checked against the tools, asked about each call. Needs the extra `cedar`."""
