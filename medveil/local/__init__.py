"""A whole consortium on one machine, a process for each organisation: what `medveil up` runs.

One person plays every organisation here, and holds every passphrase: it is for trying, teaching and testing.
"""
