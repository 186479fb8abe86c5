"""Prove a fact without the record: credentials, eligibility, settlement, and what they stand on.

What is proved: `zkp.eligibility`, `zkp.settlement`, `zkp.reversal`, `zkp.bill_limit`. Held: `zkp.credentials`,
`zkp.wallet`. Below: groups, transcript, sigma proofs, range proofs, BBS signatures, signed sets, batches.
Protocols here do no I/O: randomness is an argument, verification returns None or raises. Take names from the modules.
"""
