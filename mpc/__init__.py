"""Compute together without sharing: secure sums, private release, statistics, encrypted scoring."""
