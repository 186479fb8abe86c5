"""Prove a fact without the record: groups, transcript, Pedersen commitments, range proofs.

`zkp.bill_limit` is what organisations use; the others are what it stands on. Protocols here do no
I/O: randomness is an argument, verification returns None or raises. Take names from the modules.
"""
