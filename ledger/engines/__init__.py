"""What orders blocks: the embedded engine on SQLite."""
