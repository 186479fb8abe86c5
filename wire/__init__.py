"""What every part says the same way: bytes, errors, signatures, seals, dates, money, evidence.

The lowest floor of the house: `wire` imports nothing of medveil. See docs/architecture.md.
"""
