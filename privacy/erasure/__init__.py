"""Erasure of a person at home: planned, carried out in steps, receipted, checked."""
