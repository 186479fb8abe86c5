"""Handovers: how anybody comes to believe that the members or their keys changed.

The members of a time vouch for those who come after. A change that holds from block `h` on stands in the state of
block `h - 1` at the latest, and the head over that block, of size `h`, is still signed by the members before. A
handover is evidence of just that, a proven value:

    organisations/changes/<h> --state tree--> block h - 1 --last leaf--> head of size h, cosigned by k of those before

The engine makes no block `h` before it has it. Without this rule two histories could both become final, each with
members that the other never had: k of the old members must sign the one history in which the new ones stand, and
they sign no other. Heights with changes are chained, so none can be left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ledger.contracts.membership import changes_key
from ledger.receipts import ProvenValue, verify_value
from wire.canonical import decode
from wire.checkpoint import TrustFile
from wire.errors import DecodeError, VerificationError
from wire.keyset import MembershipChanges


def extend(trust: TrustFile, handovers: Iterable[ProvenValue]) -> TrustFile:
    """The trust file with the changes that `handovers`, in order, show; those it knows already must be the same.

    Raises VerificationError or QuorumNotMet for the first one that does not hold.
    """
    for proven in handovers:
        changes = _changes(proven)
        height = changes.from_height
        if height <= trust.latest.from_height:
            if changes not in trust.changes:
                raise VerificationError("ledger.bad_handover", height=height)
            continue
        checkpoint = verify_value(proven, trust)
        if not height == checkpoint.size == proven.block.height + 1:
            raise VerificationError("ledger.bad_handover", height=height)
        try:
            trust = trust.with_changes((changes,))
        except DecodeError:
            raise VerificationError("ledger.bad_handover", height=height) from None
    return trust


def _changes(proven: ProvenValue) -> MembershipChanges:
    try:
        changes = decode(MembershipChanges, proven.value or b"")
    except DecodeError:
        raise VerificationError("ledger.bad_handover", height=proven.block.height + 1) from None
    if proven.key != changes_key(changes.from_height):
        raise VerificationError("ledger.bad_handover", height=changes.from_height)
    return changes


def extend_by(trust: TrustFile, handovers: Sequence[ProvenValue], height: int) -> TrustFile:
    """`extend` by the handovers of one piece of evidence that reaches block `height`: in order, each once.

    Those that `trust` knows already are checked too; that of the block that follows may be there.
    Raises VerificationError or QuorumNotMet.
    """
    last = 0
    for proven in handovers:
        changes = _changes(proven)
        if not last < changes.from_height <= height + 1:
            raise VerificationError("ledger.bad_handover", height=changes.from_height)
        last = changes.from_height
        if last <= trust.latest.from_height and verify_value(proven, trust).size != last:
            raise VerificationError("ledger.bad_handover", height=last)
        trust = extend(trust, (proven,))
    return trust


def check_members(trust: TrustFile, replayed: TrustFile, height: int) -> None:
    """Check that `trust` knows exactly the changes up to block `height` that a replay came to.

    Raises VerificationError: a handover is missing, or the trust file is of another history.
    """
    if trust.until(height).changes != replayed.changes:
        raise VerificationError("ledger.other_members", height=height)
