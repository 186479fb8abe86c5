"""What one organisation runs: its keys, vault, audit trail, ledger account, and its side of each use."""
