"""Agree on what happened: envelopes, machine, contracts, trees, engines, receipts."""
