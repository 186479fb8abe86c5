"""Grants: their terms, purposes, levels of data, patients' opt-outs, the book of them, receipts."""
