"""Prove a fact without the record: groups, transcript, Pedersen commitments, range proofs."""
