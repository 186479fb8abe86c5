"""Bring outside data in: declared tables, files, layouts, quality."""
