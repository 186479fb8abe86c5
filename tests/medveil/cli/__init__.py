"""The command line against services as they run."""
