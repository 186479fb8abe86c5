"""Encrypted columnar copies of a dataset: snapshots for analysis at home, extracts made for one grant."""
