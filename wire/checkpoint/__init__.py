"""Signed heads of the log: written by the ledger, checked by everybody else, offline."""

from wire.checkpoint.log_proofs import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from wire.checkpoint.note import Checkpoint, Note, SignatureLine, cosign_checkpoint, parse_note, sign_checkpoint
from wire.checkpoint.quorum import verify_checkpoint
from wire.checkpoint.trust import TrustFile, founding_hash, trust_of
from wire.checkpoint.trust_file import read_trust, write_trust

__all__ = [
    "Checkpoint",
    "Note",
    "SignatureLine",
    "TrustFile",
    "consistency_proof",
    "cosign_checkpoint",
    "founding_hash",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "parse_note",
    "read_trust",
    "sign_checkpoint",
    "tree_root",
    "trust_of",
    "verify_checkpoint",
    "verify_consistency",
    "verify_inclusion",
    "write_trust",
]
