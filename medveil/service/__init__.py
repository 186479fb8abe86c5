"""One organisation's running process: its store, its people and programs, its API and its health."""
