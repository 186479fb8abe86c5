"""An organisation's home on disk: its settings, its files, its backup and the way back."""
