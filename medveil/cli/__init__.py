"""The command line: one tree, parts imported when used."""
