"""The contracts: typed ops and their transitions. Pure, no I/O."""
