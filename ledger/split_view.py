"""Evidence that the sequencer signed two heads of one log that cannot both be true.

Two signed heads of one size with two roots are a split view by themselves. For two sizes, a consistency
proof shows which root the larger log has at the smaller size; if that is not the root of the smaller head,
the larger log does not continue it:

    larger.root --consistency proof--> prefix_root at smaller.size, and prefix_root != smaller.root

The proof is binding, so nobody can frame an honest sequencer, and anybody with the trust file can check
it. Cosignatures under both heads are kept: a member whose name stands under both broke its promise too.
"""

from __future__ import annotations

from ledger.trees.log import Log
from wire.canonical import Wire
from wire.checkpoint import Note, TrustFile, parse_note, verify_consistency
from wire.checkpoint.note import verify_cosignature, verify_log_signature
from wire.errors import DecodeError, VerificationError
from wire.evidence import Header, register
from wire.identifiers import Hash


class SplitView(Wire, frozen=True, tag="ledger.split_view"):
    """smaller, larger: the two signed notes, in the order of size, then root; proof: from prefix_root to the larger.

    For heads of one size prefix_root is the larger's own root, and the proof is empty.
    """

    header: Header
    smaller: bytes
    larger: bytes
    prefix_root: Hash
    proof: tuple[Hash, ...]


SPLIT_VIEW = register("split-view", 1, SplitView)


def find_split(one: Note, other: Note, log: Log) -> SplitView | None:
    """Evidence that two signed heads contradict each other; None if they do not, or `log` cannot show it.

    log: that of the larger head, or one that continues it; needed only where the sizes differ. The notes'
    signatures are not checked here.
    """
    smaller, larger = sorted((one, other), key=_place)
    size, root = _place(smaller)
    last, last_root = _place(larger)
    if size == last:
        return None if root == last_root else SplitView(SPLIT_VIEW, smaller.format(), larger.format(), last_root, ())
    if not 1 <= size < last <= log.size or log.root(last) != last_root or log.root(size) == root:
        return None
    proof = log.consistency_proof(size, last)
    return SplitView(SPLIT_VIEW, smaller.format(), larger.format(), log.root(size), proof)


def compare_heads(one: bytes, other: bytes, trust: TrustFile, log: Log) -> SplitView | None:
    """What an auditor asks of two heads that it was shown, by whomever: `find_split`, with all signatures checked.

    Raises VerificationError if one of them is no head that this chain's sequencer signed.
    """
    return find_split(_checked(one, trust), _checked(other, trust), log)


def verify_split_view(split: SplitView, trust: TrustFile) -> tuple[str, ...]:
    """Check the evidence against a pinned trust file; returns the members that cosigned both heads.

    Raises VerificationError if the heads are not both signed by the sequencer, or do not contradict each other.
    """
    if split.header != SPLIT_VIEW:
        raise VerificationError("ledger.no_split_view", part="header")
    smaller, larger = _checked(split.smaller, trust), _checked(split.larger, trust)
    size, root = _place(smaller)
    if not _place(smaller) < _place(larger):
        raise VerificationError("ledger.no_split_view", part="order")
    verify_consistency(size, split.prefix_root, *_place(larger), split.proof)
    if split.prefix_root == root:
        raise VerificationError("ledger.no_split_view", part="root")
    names = {line.name for line in smaller.lines[1:]}
    return tuple(line.name for line in larger.lines[1:] if line.name in names)


def _place(note: Note) -> tuple[int, bytes]:
    return note.checkpoint.size, note.checkpoint.root


def _checked(data: bytes, trust: TrustFile) -> Note:
    """The note, signed by the sequencer first and then only by members, each once."""
    try:
        note = parse_note(data)
    except DecodeError:
        raise VerificationError("checkpoint.bad_note") from None
    if note.checkpoint.origin != trust.origin:
        raise VerificationError("checkpoint.wrong_log", origin=note.checkpoint.origin, expected=trust.origin)
    first, *others = note.lines
    if first.name != trust.origin:
        raise VerificationError("checkpoint.no_sequencer", sequencer=trust.sequencer)
    if len({line.name for line in note.lines}) != len(note.lines):
        raise VerificationError("checkpoint.duplicate_signer")
    members = trust.at(note.checkpoint.size - 1)
    verify_log_signature(members.member(trust.sequencer).keys.cosign.key, note, first)
    for line in others:
        verify_cosignature(members.member(line.name).keys.cosign.key, note, line)
    return note
