"""People and programs of one organisation: accounts, signing in, tokens, signatures, and who may do what."""
