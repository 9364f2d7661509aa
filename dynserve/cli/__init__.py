"""The command line: one file a verb. The library does the work, this parses and prints."""
