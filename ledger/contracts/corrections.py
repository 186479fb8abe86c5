"""`corrections`: a fact that was wrong is amended by reference; what was written stays as it is.

Nothing on the ledger is overwritten. A correction names the fact (its contract, its state key, the height at
which it was written), says why, and commits to what should stand instead; the parties concerned hold the
opening. The contract itself looks up who is *liable*: the organisation that signed the fact. It corrects
its own facts; a regulator may correct anybody's, and the liable signer is named all the same. Once a regulator
has, only a regulator corrects that fact again. Whoever reads a fact reads its corrections beside it (`of`): the
latest one counts. They are of the fact as that height wrote it: an earlier epoch of a grant keeps its own, and the
next one begins without.

State keys: ``corrections/<key in hex>/<fact height>`` -> Corrected;
``corrections/<key in hex>/<fact height>/<number>`` -> Correction.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ledger.contracts.access import BatchState
from ledger.contracts.bills import BillState
from ledger.contracts.contract import Context, Contract, Event, View, state_key
from ledger.contracts.datasets import DatasetState
from ledger.contracts.grants import GrantState
from ledger.contracts.membership import member
from ledger.contracts.models import ModelState
from ledger.contracts.queries import QueryState, ReleaseState, query
from wire.canonical import Wire
from wire.dates import Instant
from wire.errors import Refused
from wire.identifiers import Hash, Name
from wire.keyset import Height

NAME = "corrections"

FactKey = Annotated[bytes, msgspec.Meta(min_length=1, max_length=256)]
Reason = Literal["wrong-value", "wrong-subject", "withdrawn"]
Number = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]


class Correct(Wire, frozen=True, tag="corrections.correct"):
    """Amend a fact. contract, key: where it stands; height: of the block that wrote it, as the fact itself says.

    commitment: salted, to what should stand instead and why.
    """

    contract: Name
    key: FactKey
    height: Height
    reason: Reason
    commitment: Hash


class Corrected(Wire, frozen=True, tag="corrections.corrected"):
    """A fact with corrections: how many. by_regulator: whether the latest is a regulator's."""

    key: FactKey
    fact_height: Height
    corrections: Number
    by_regulator: bool


class Correction(Wire, frozen=True, tag="corrections.correction"):
    """One correction. fact_height: of the fact; liable: who signed the fact; by: who corrects it, when."""

    key: FactKey
    number: Number
    fact_height: Height
    liable: Name
    by: Name
    reason: Reason
    commitment: Hash
    height: Height
    time: Instant


def corrected_key(key: bytes, height: int) -> bytes:
    """State key of how often the fact that block `height` wrote under `key` was corrected."""
    return state_key(NAME, key, height)


def correction_key(key: bytes, height: int, number: int) -> bytes:
    """State key of one correction."""
    return state_key(NAME, key, height, number)


def of(view: View, key: bytes, height: int) -> tuple[Correction, ...]:
    """The corrections of the fact that block `height` wrote under state key `key`, in order; the last one counts."""
    corrected = view.get(corrected_key(key, height), Corrected)
    count = corrected.corrections if corrected else 0
    found = (view.get(correction_key(key, height, number), Correction) for number in range(1, count + 1))
    return tuple(correction for correction in found if correction is not None)


def signer_of(view: View, key: bytes, height: int) -> str | None:
    """Who signed the fact that block `height` wrote under `key`; None where no such fact can be corrected."""
    signed = _signed(view, key)
    return signed[0] if signed is not None and height in signed[1] else None


def _signed(view: View, key: bytes) -> tuple[str, tuple[int, ...]] | None:
    """Who signed the fact under `key`, and at which heights: of each of its epochs, where it has them."""
    match key.split(b"/"):
        case [b"bills", _]:
            bill = view.get(key, BillState)
            return (bill.hospital, (bill.height,)) if bill else None
        case [b"datasets", b"dataset", _]:
            dataset = view.get(key, DatasetState)
            return (dataset.owner, (dataset.height,)) if dataset else None
        case [b"grants", _]:
            grant = view.get(key, GrantState)
            return (grant.issuer, (*(past.height for past in grant.past), grant.height)) if grant else None
        case [b"access", _, _]:
            batch = view.get(key, BatchState)
            return (batch.organisation, (batch.height,)) if batch else None
        case [b"models", _]:
            model = view.get(key, ModelState)
            return (model.owner, (model.height,)) if model else None
        case [b"queries", b"query", _]:
            asked = view.get(key, QueryState)
            return (asked.researcher, (asked.height,)) if asked else None
        case [b"queries", b"release", _, _]:
            released = view.get(key, ReleaseState)
            return (query(view, released.query).researcher, (released.height,)) if released else None
    return None


def correct(op: Correct, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Record a correction beside the fact."""
    liable = signer_of(view, op.key, op.height) if op.key.startswith(state_key(op.contract, "")) else None
    if liable is None:
        raise Refused("corrections.no_fact", contract=op.contract, height=op.height)
    regulator = "regulator" in member(view, sender).roles
    if sender != liable and not regulator:
        raise Refused("corrections.not_liable", organisation=sender, liable=liable)
    corrected = view.get(corrected_key(op.key, op.height), Corrected)
    if corrected is not None and corrected.by_regulator and not regulator:
        raise Refused("corrections.by_regulator", organisation=sender)
    number = corrected.corrections + 1 if corrected else 1
    correction = Correction(
        key=op.key,
        number=number,
        fact_height=op.height,
        liable=liable,
        by=sender,
        reason=op.reason,
        commitment=op.commitment,
        height=context.height,
        time=context.time,
    )
    view.put(correction_key(op.key, op.height, number), correction)
    view.put(corrected_key(op.key, op.height), Corrected(op.key, op.height, number, by_regulator=regulator))
    return (Event("corrections.corrected", liable, (op.height, number)),)


CONTRACT = Contract(NAME, 1, {Correct: correct})
