"""Erasure of one person's data, legal holds, and who used or gets at one person's data.

A person is named as the organisation's own tables name them (private): sent in bodies, and kept nowhere by a client.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from medveil.client.exchange import Exchange, M, Part, Work, verb
from medveil.client.frames import Instant, Rows
from medveil.client.grants import Sights
from medveil.client.jobs import Progress, begin, wait
from medveil.client.line import fetch, get, octets, post, same
from wire.errors import VerificationError

if TYPE_CHECKING:
    from wire.checkpoint import TrustFile


class ErasedRows(msgspec.Struct, frozen=True):
    """Rows of one data key."""

    dataset: str
    rows: int


class RestrictedRows(msgspec.Struct, frozen=True):
    """Rows that must be kept, out of every use. until: the last day of that, None for no end."""

    dataset: str
    rows: int
    until: str | None
    why: tuple[str, ...]


class GivenExtract(msgspec.Struct, frozen=True):
    """An extract that its recipient has to delete. told, deleted: instants; 0 for not yet."""

    recipient: str
    dataset: str
    grant: str
    told: int
    deleted: int


class Erasure(msgspec.Struct, frozen=True):
    """An erasure: what goes, what is restricted, how far it came. Instants are 0 for not yet.

    state: "planned", "under way", "done, epoch not rotated", "done".
    """

    erasure: str
    ground: str
    reference: str
    state: str
    requested: Instant
    erase: tuple[ErasedRows, ...]
    restrict: tuple[RestrictedRows, ...]
    destroyed: int
    done: int
    rotate_by: int
    rotated: int
    unplanned: int | None
    extracts: tuple[GivenExtract, ...]


class ErasureList(Rows, frozen=True):
    """Erasures, the oldest first. rotate_by: when the key epoch has to be rotated for them; 0 for no need."""

    erasures: tuple[Erasure, ...]
    rotate_by: int

    def rows(self) -> tuple[Erasure, ...]:
        """The erasures."""
        return self.erasures


class Due(msgspec.Struct, frozen=True):
    """What an earlier erasure (`follows`) restricted, and nothing keeps any more."""

    follows: str
    reference: str
    erase: tuple[ErasedRows, ...]


class DueList(Rows, frozen=True):
    """What may be erased by now."""

    due: tuple[Due, ...]

    def rows(self) -> tuple[Due, ...]:
        """What is due."""
        return self.due


class Leftover(msgspec.Struct, frozen=True):
    """Something that should be gone and is not."""

    code: str
    facts: dict[str, str]
    words: str


class ErasureCheck(msgspec.Struct, frozen=True):
    """What a check saw. leftovers: empty if all is gone; beyond: what an erasure at home does not reach.

    unread, links: files that could not be read, and links to elsewhere that were not followed; server: the vault is in
    a database server, whose own files were not seen.
    """

    erasure: str
    at: Instant
    keys: int
    files: int
    bytes: int
    unread: tuple[str, ...]
    links: tuple[str, ...]
    snapshots: int
    server: bool
    leftovers: tuple[Leftover, ...]
    beyond: tuple[str, ...]


class Hold(msgspec.Struct, frozen=True):
    """A legal hold. of: "one person" or "everybody". until: None as long as it is not lifted."""

    hold: str
    of: str
    dataset: str
    since: str | None
    until: str | None
    reference: str


class HoldList(Rows, frozen=True):
    """Legal holds, ended ones too."""

    holds: tuple[Hold, ...]

    def rows(self) -> tuple[Hold, ...]:
        """The holds."""
        return self.holds


class PersonUse(msgspec.Struct, frozen=True):
    """A use from intent to outcome. entry: its number in the trail; outcome: empty while it is under way."""

    entry: int
    time: Instant
    recipient: str
    dataset: str
    kind: str
    purpose: str
    grant: str
    allowed: bool
    outcome: str


class PossibleUse(msgspec.Struct, frozen=True):
    """A use of a table with rows of the person. reached: whether the grant's row filter lets one through, None where
    that is not known."""

    entry: int
    time: Instant
    recipient: str
    dataset: str
    kind: str
    purpose: str
    grant: str
    allowed: bool
    outcome: str
    reached: bool | None


class PersonUses(msgspec.Struct, frozen=True):
    """Who used one person's data. noted: what looked at their own record; possible: what may have reached it.

    known: whether anything is or was kept of a person of this identifier; if not, it may be mistyped.
    """

    noted: tuple[PersonUse, ...]
    possible: tuple[PossibleUse, ...]
    known: bool = True


Told = Callable[[Progress], None]


class Erasures(Part[M]):
    """``/v1/erasures``."""

    @verb
    def plan(
        self, person: str, *, ground: str = "request", reference: str = "", rotate_days: int = 30
    ) -> Exchange[Erasure]:
        """Plan the erasure of a person. Nothing is erased yet. ground: "request" or "consent-withdrawn"."""
        body = {"person": person, "ground": ground, "reference": reference, "rotate_days": rotate_days}
        return (yield from fetch(self._line, post("erasures", body=body), Erasure))

    @verb
    def list(self) -> Exchange[ErasureList]:
        """Every erasure."""
        return (yield from fetch(self._line, get("erasures"), ErasureList))

    @verb
    def get(self, erasure: str) -> Exchange[Erasure]:
        """One of them, by its id."""
        return same((yield from fetch(self._line, get("erasures", erasure), Erasure)), erasure=erasure)

    @verb
    def due(self) -> Exchange[DueList]:
        """What may be erased by now of what was restricted before. Nothing is planned by asking."""
        return (yield from fetch(self._line, get("erasures", "due"), DueList))

    @verb
    def plan_due(self, *, rotate_days: int = 30) -> Exchange[ErasureList]:
        """Plan the erasure of what is due."""
        return (yield from fetch(self._line, post("erasures", "due", body={"rotate_days": rotate_days}), ErasureList))

    @verb
    def apply(self, erasure: str, *, key: str = "", told: Told | None = None) -> Exchange[Erasure]:
        """Carry out a plan, for good; returns the erasure as it is then."""
        job = yield from begin(self._line, post("erasures", erasure, "apply"), key)
        yield from wait(self._line, job.job, told)
        return same((yield from fetch(self._line, get("erasures", erasure), Erasure)), erasure=erasure)

    @verb
    def rotate(self, *, key: str = "", told: Told | None = None) -> Exchange[ErasureList]:
        """Rotate the key epoch of the gateway's vault; returns every erasure as it is then."""
        job = yield from begin(self._line, post("erasures", "rotate"), key)
        yield from wait(self._line, job.job, told)
        return (yield from fetch(self._line, get("erasures"), ErasureList))

    @verb
    def receipt(self, erasure: str) -> Exchange[bytes]:
        """The receipt as it stands now, in its canonical bytes: checked to be signed by the gateway's organisation.

        Raises VerificationError for one that is not, or of another erasure.
        """
        data = yield from octets(self._line, post("erasures", erasure, "receipt"))
        trust = self._line.pinned.needed()
        yield Work(partial(_check_receipt, data, erasure, trust))
        return data

    @verb
    def check(
        self, receipt: bytes, markers: Sequence[str] = (), *, key: str = "", told: Told | None = None
    ) -> Exchange[ErasureCheck]:
        """Look for what a receipt says is gone, at the gateway. markers: texts of the person's (private)."""
        body = {"receipt": base64.b64encode(receipt).decode("ascii"), "markers": [*markers]}
        job = yield from begin(self._line, post("erasures", "check", body=body), key)
        done = yield from wait(self._line, job.job, told)
        erasure = (done.result or "").removesuffix("/check").rpartition("/")[2]
        return (yield from fetch(self._line, get("erasures", erasure, "check"), ErasureCheck))


class Holds(Part[M]):
    """``/v1/holds``."""

    @verb
    def list(self) -> Exchange[HoldList]:
        """Every legal hold, ended ones too."""
        return (yield from fetch(self._line, get("holds"), HoldList))

    @verb
    def place(
        self,
        hold: str,
        reference: str,
        *,
        person: str | None = None,
        dataset: str = "",
        until: str | None = None,
        not_here_yet: bool = False,
    ) -> Exchange[Hold]:
        """Place a hold from today on. person: None for everybody; dataset: "" for all; until: YYYY-MM-DD.

        not_here_yet: nothing is kept of the person so far; without it, such a hold is refused.
        """
        body = {
            "hold": hold,
            "reference": reference,
            "dataset": dataset,
            "until": until,
            "not_here_yet": not_here_yet,
        }
        whom = {"everybody": True} if person is None else {"person": person}
        return same((yield from fetch(self._line, post("holds", body=body | whom), Hold)), hold=hold)

    @verb
    def lift(self, hold: str) -> Exchange[Hold]:
        """Lift a hold: it ends with yesterday."""
        return same((yield from fetch(self._line, post("holds", hold, "lift"), Hold)), hold=hold)


class Persons(Part[M]):
    """``/v1/persons``."""

    @verb
    def uses(self, person: str) -> Exchange[PersonUses]:
        """Who used one person's data, and what may have reached it."""
        return (yield from fetch(self._line, post("persons", "uses", body={"person": person}), PersonUses))

    @verb
    def sights(self, person: str, dataset: str, column: str) -> Exchange[Sights]:
        """By whom, how and for what a column of one person's rows can be used now."""
        body = {"person": person, "dataset": dataset, "column": column}
        return (yield from fetch(self._line, post("persons", "sights", body=body), Sights))


def _check_receipt(data: bytes, erasure: str, trust: TrustFile) -> None:
    """Check that the receipt is of this erasure, and signed with an envelope key that its organisation has or had."""
    from privacy.erasure.receipt import ErasureReceipt, verify_receipt
    from wire.canonical import decode

    receipt = decode(ErasureReceipt, data)
    if receipt.erasure.hex() != erasure:
        raise VerificationError("client.other_answer", field="erasure")
    for epoch in reversed(trust.epochs):
        member = epoch.find(receipt.organisation)
        if member is not None and member.keys.envelope.key.key_id() == receipt.signature.key_id:
            verify_receipt(receipt, member.keys.envelope.key)
            return
    raise VerificationError("privacy.erasure_signature", organisation=receipt.organisation)
