"""Receipts and proven values: what an organisation keeps, and anybody checks offline.

A receipt leads from an envelope to a final head of the log:

    envelope --hash--> result --inclusion--> results_root of the block --inclusion--> cosigned checkpoint

It proves that the envelope stands in final history and what became of it there; `result.code` is empty
if it took effect. A refusal for its nonce, its expiry or a suspension uses no nonce up: until it has
expired, the sequencer may put the same envelope into a later block, where it may take effect. A proven
value leads from one state key (or its absence) to a final head the same way.
"""

from __future__ import annotations

from ledger.envelope import check_chain, check_signature, envelope_id, open_envelope
from ledger.machine import BlockHeader, Result
from ledger.trees.state import StateProof, verify_state
from wire.canonical import Wire, encode
from wire.checkpoint import Checkpoint, TrustFile, leaf_hash, verify_checkpoint, verify_inclusion
from wire.dates import Instant, format_instant
from wire.errors import DecodeError, VerificationError
from wire.evidence import Header, register
from wire.identifiers import Hash

Path = tuple[Hash, ...]


class Receipt(Wire, frozen=True, tag="ledger.receipt"):
    """Evidence of one envelope. envelope: its signed bytes; note: a final checkpoint that covers `block`."""

    header: Header
    envelope: bytes
    result: Result
    result_path: Path
    block: BlockHeader
    block_path: Path
    note: bytes


class ProvenValue(Wire, frozen=True, tag="ledger.proven_value"):
    """Evidence of one state key. value: its canonical bytes, None for absence; block: whose state it is."""

    header: Header
    key: bytes
    value: bytes | None
    proof: StateProof
    block: BlockHeader
    block_path: Path
    note: bytes


RECEIPT = register("receipt", 1, Receipt)
PROVEN_VALUE = register("proven-value", 1, ProvenValue)


def _verify_block(block: BlockHeader, path: Path, note: bytes, trust: TrustFile) -> Checkpoint:
    checkpoint = verify_checkpoint(note, trust)
    verify_inclusion(checkpoint.root, checkpoint.size, block.height, leaf_hash(encode(block)), path)
    return checkpoint


def verify_receipt(receipt: Receipt, trust: TrustFile) -> None:
    """Check a receipt against a pinned trust file. Returns None or raises VerificationError or QuorumNotMet.

    The sender's key is that of the block's height, the cosigners are those of the head's: a receipt stays
    verifiable when keys and members change, as long as the trust file knows the changes before its head.
    """
    if receipt.header != RECEIPT:
        raise VerificationError("ledger.bad_receipt", part="header")
    try:
        signed = open_envelope(receipt.envelope)
    except DecodeError:
        raise VerificationError("ledger.bad_receipt", part="envelope") from None
    check_chain(signed, trust.genesis_hash)
    result, block = receipt.result, receipt.block
    check_signature(signed, trust.at(block.height).member(signed.envelope.sender).keys.envelope.key)
    stated = (result.height, result.envelope, result.sender, result.nonce)
    if stated != (block.height, envelope_id(receipt.envelope), signed.envelope.sender, signed.envelope.nonce):
        raise VerificationError("ledger.bad_receipt", part="result")
    verify_inclusion(block.results_root, block.count, result.entry, leaf_hash(encode(result)), receipt.result_path)
    _verify_block(block, receipt.block_path, receipt.note, trust)


def verify_value(proven: ProvenValue, trust: TrustFile, newer_than: Instant | None = None) -> Checkpoint:
    """Check a proven value, or an absence; returns the checkpoint, whose time and size say how fresh it can be.

    newer_than: ms UTC; what is shown must be of the latest block of a head that k members cosigned at that
    time or later, to the second. Without it the value, or that there was none, is of block
    `proven.block.height` and may have changed since: ask for it wherever "not revoked" or "not there" counts.

    Raises VerificationError or QuorumNotMet.
    """
    if proven.header != PROVEN_VALUE:
        raise VerificationError("ledger.bad_receipt", part="header")
    verify_state(proven.block.state_root, proven.key, proven.value, proven.proof)
    checkpoint = _verify_block(proven.block, proven.block_path, proven.note, trust)
    if newer_than is not None:
        if checkpoint.size != proven.block.height + 1:
            raise VerificationError("ledger.older_block", height=proven.block.height, size=checkpoint.size)
        check_age(checkpoint.time, newer_than)
    return checkpoint


def check_age(cosigned: Instant, newer_than: Instant) -> None:
    """Check that a head that k members cosigned at `cosigned` is not older than `newer_than`, to the second.

    Raises VerificationError.
    """
    if cosigned < newer_than // 1000 * 1000:
        raise VerificationError("ledger.stale", time=format_instant(cosigned))
