"""Extracts: copies of granted rows. Asked for, looked at by the holder's data officer, made, delivered, opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from medveil.client.downloads import download
from medveil.client.exchange import Exchange, M, Part, verb
from medveil.client.filters import AnyFilter, as_json
from medveil.client.frames import Instant, Rows
from medveil.client.jobs import Job, Progress, begin, wait
from medveil.client.line import OCTETS, fetch, get, post, same


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """What the data officer says of the columns that leave, by the names that they have when masked; and the limits.

    sensitive: what nobody may learn of a person. institution: the column that names institutions; amounts: their trade
    secrets. unknown: what nobody else can know of a person. Every other column counts as known to others; so do masked
    identifiers and dates. persons: fewest in a group that looks alike (or the grant's, if more); diversity: fewest
    different sensitive values; closeness: in millionths; institutions: fewest; dominance: percent. withhold: leave out
    the rows of groups that break a limit.
    """

    sensitive: tuple[str, ...] = ()
    institution: str = ""
    amounts: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    persons: int = 5
    diversity: int = 2
    closeness: int = 1_000_000
    institutions: int = 3
    dominance: int = 10
    withhold: bool = False


class Ask(msgspec.Struct, frozen=True):
    """A request for an extract. state: waiting, making, released (made, and not delivered yet), declined or delivered.

    code: why it was declined, or empty. extract: what came of it, or empty.
    """

    ask: str
    holder: str
    recipient: str
    dataset: str
    columns: tuple[str, ...]
    filter: dict[str, Any] | None
    purpose: str
    commercial: bool
    jurisdiction: str
    at: Instant
    state: str
    code: str
    extract: str


class AskList(Rows, frozen=True):
    """Requests, the oldest first."""

    asks: tuple[Ask, ...]

    def rows(self) -> tuple[Ask, ...]:
        """The requests."""
        return self.asks


class LeavingColumn(msgspec.Struct, frozen=True):
    """A column that would leave. mask: what becomes of its cells, or keep."""

    column: str
    level: int
    mask: str

    def __str__(self) -> str:
        return self.column if self.mask == "keep" else f"{self.column} ({self.mask})"


class Measured(msgspec.Struct, frozen=True):
    """What was measured of the masked rows. within: whether no group breaks the limits.

    known: columns that count as known to others. persons, diversity, institutions: the fewest in a group; closeness:
    the furthest, in millionths; offending, offending_rows: groups that break a limit, and their rows.
    """

    within: bool
    known: tuple[str, ...]
    rows: int
    groups: int
    offending: int
    offending_rows: int
    persons: int
    diversity: int
    closeness: int
    institutions: int
    dominated: int


class Group(msgspec.Struct, frozen=True):
    """A group that breaks a limit. values: its cells in the known columns; reasons: which limits."""

    values: tuple[str | None, ...]
    rows: int
    persons: int
    diversity: int
    closeness: int
    institutions: int
    dominated: int
    reasons: tuple[str, ...]


class Withheld(msgspec.Struct, frozen=True):
    """What is left without the groups that break a limit. lost: rows that would not leave."""

    rows: int
    lost: int


class Preview(msgspec.Struct, frozen=True):
    """What would be decided, in words, and what would leave. leaves: whether it could be made as it is wished.

    rule: which decided; missing: what is not met. row_class: the rows, rounded up as on the ledger. excluded: scopes
    of opt-outs that are left out. offends: groups that break a limit, at most 200. withheld: what withholding leaves.
    earlier: extracts of this dataset that this recipient has had or is to have; together they may show more.
    other_cut: one of them with other columns or rows under the same grant, which stands in the way of this one, or "".
    """

    decision: str
    allowed: bool
    rule: str
    missing: str
    grant: str
    rows: int
    row_class: int
    columns: tuple[LeavingColumn, ...]
    excluded: tuple[str, ...]
    delete_by: Instant
    risk: Measured | None
    offends: tuple[Group, ...]
    withheld: Withheld | None
    leaves: bool
    earlier: tuple[str, ...] = ()
    other_cut: str = ""


class Made(msgspec.Struct, frozen=True):
    """An extract that this organisation made. at: since when it is in its state.

    state: staged, released, leaving (its recipient may have it), delivered, withdrawn (it never left) or
    recalled (it was taken back when it may have left). audit: number of the entry that announced it. columns: with what
    was done to each, or "as it is". rows: exact for whoever makes extracts or audits; else rounded up as on the ledger.
    risk: hash of the report that was measured.
    """

    extract: str
    ask: str
    recipient: str
    grant: str
    dataset: str
    purpose: str
    columns: dict[str, str]
    rows: int
    made: Instant
    delete_by: Instant
    audit: int
    risk: str
    state: str
    at: Instant
    code: str


class Held(msgspec.Struct, frozen=True):
    """An extract that came here. here: whether its file is. deleted: when, or 0; why: person, due, or a code."""

    extract: str
    issuer: str
    grant: str
    dataset: str
    purpose: str
    columns: dict[str, str]
    rows: int
    made: Instant
    arrived: Instant
    delete_by: Instant
    here: bool
    deleted: int
    why: str


class ExtractList(Rows, frozen=True):
    """Extracts, the oldest first: those that this organisation made, and those that it holds or held."""

    made: tuple[Made, ...]
    held: tuple[Held, ...]

    def rows(self) -> tuple[Held, ...]:
        """Those that came here."""
        return self.held


class Recall(msgspec.Struct, frozen=True):
    """An extract that its recipient has to delete, or deleted. Instants are 0 for not yet.

    why: erasure; consent-revoked; withdrawn (taken back when it may have left); due or chosen where the recipient did
    so unasked. told: when the notice was first sent. answer: deleted, not-held (it never came there), or "" for none
    yet; answered: when, by the recipient's clock. beyond: what that does not reach, in words. deletion: the
    recipient's signed word in base64, or "".
    """

    extract: str
    recipient: str
    dataset: str
    grant: str
    released: Instant
    why: str
    since: Instant
    delete_by: Instant
    told: Instant
    answer: str
    answered: Instant
    beyond: tuple[str, ...]
    deletion: str


class RecallList(Rows, frozen=True):
    """Recalls, the oldest first."""

    recalls: tuple[Recall, ...]

    def rows(self) -> tuple[Recall, ...]:
        """The recalls."""
        return self.recalls


class Extracts(Part[M]):
    """``/v1/extracts``."""

    @verb
    def ask(
        self,
        holder: str,
        dataset: str,
        columns: tuple[str, ...],
        purpose: str,
        *,
        filter: AnyFilter = None,
        commercial: bool = False,
        jurisdiction: str = "CN",
        key: str = "",
        told: Callable[[Progress], None] | None = None,
    ) -> Exchange[Ask]:
        """Ask another organisation for an extract; its data officer answers. filter: which rows, None for all."""
        asked = {"holder": holder, "dataset": dataset, "columns": list(columns), "purpose": purpose}
        body = asked | {"filter": as_json(filter), "commercial": commercial, "jurisdiction": jurisdiction}
        job = yield from begin(self._line, post("extracts", "asked", body=body), key)
        done = yield from wait(self._line, job.job, told)
        one = yield from fetch(self._line, get("extracts", "asked", done.name), Ask)
        return same(one, ask=done.name, holder=holder, dataset=dataset, purpose=purpose)

    @verb
    def asked(self) -> Exchange[AskList]:
        """What this organisation asked others for, and what they answered."""
        return (yield from fetch(self._line, get("extracts", "asked"), AskList))

    @verb
    def wanted(self) -> Exchange[AskList]:
        """What others asked this organisation for."""
        return (yield from fetch(self._line, get("extracts", "wanted"), AskList))

    @verb
    def preview(
        self,
        *,
        ask: str = "",
        grant: str = "",
        columns: tuple[str, ...] = (),
        filter: AnyFilter = None,
        purpose: str = "",
        commercial: bool = False,
        risk: Risk | None = None,
    ) -> Exchange[Preview]:
        """What an extract would be, of what somebody asked for (`ask`) or under a grant. Nothing is written."""
        body = _body(ask, grant, columns, filter, purpose, commercial, risk)
        return (yield from fetch(self._line, post("extracts", "preview", body=body), Preview))

    @verb
    def make(
        self,
        *,
        ask: str = "",
        grant: str = "",
        columns: tuple[str, ...] = (),
        filter: AnyFilter = None,
        purpose: str = "",
        commercial: bool = False,
        risk: Risk | None = None,
        key: str = "",
        told: Callable[[Progress], None] | None = None,
    ) -> Exchange[Made]:
        """Make an extract, anchor its announcement, deliver it; returns how it stands.

        Raises what says no to it; one that was made and could not be delivered is in `list`, as "released".
        """
        body = _body(ask, grant, columns, filter, purpose, commercial, risk)
        job = yield from begin(self._line, post("extracts", body=body), key)
        done = yield from wait(self._line, job.job, told)
        return (yield from _made(self, done.name))

    @verb
    def decline(self, ask: str, *, key: str = "", told: Callable[[Progress], None] | None = None) -> Exchange[Job]:
        """Say no to a request; whoever asked learns that, and nothing else."""
        job = yield from begin(self._line, post("extracts", "wanted", ask, "decline"), key)
        return (yield from wait(self._line, job.job, told))

    @verb
    def deliver(self, extract: str, *, key: str = "", told: Callable[[Progress], None] | None = None) -> Exchange[Made]:
        """Deliver an extract that was made and did not reach its recipient."""
        job = yield from begin(self._line, post("extracts", extract, "deliver"), key)
        yield from wait(self._line, job.job, told)
        return (yield from _made(self, extract))

    @verb
    def withdraw(self, extract: str) -> Exchange[Made]:
        """Take back an extract that was not delivered. Where it may have left, its recipient is told to delete it."""
        return same((yield from fetch(self._line, post("extracts", extract, "withdraw"), Made)), extract=extract)

    @verb
    def list(self) -> Exchange[ExtractList]:
        """Those that this organisation made, and those that it holds or held."""
        return (yield from fetch(self._line, get("extracts"), ExtractList))

    @verb
    def recalled(self) -> Exchange[RecallList]:
        """Extracts of yours that recipients have to delete after an erasure or a revoked consent, or have deleted."""
        return (yield from fetch(self._line, get("extracts", "recalled"), RecallList))

    @verb
    def fetch(self, extract: str, out: Path | str) -> Exchange[Path]:
        """Fetch a held extract, sealed as it came, to the new file `out`."""
        call = get("extracts", extract, "file")._replace(accept=OCTETS)
        return (yield from download(self._line, call, Path(out)))

    @verb
    def open(self, extract: str, out: Path | str) -> Exchange[Path]:
        """Open a held extract: its rows in the clear, to the new file `out`, which ends in .parquet, .arrow or .csv.

        The gateway decrypts it and notes that in its audit trail. Guard the file, and delete it in time.
        """
        form = Path(out).suffix.removeprefix(".")
        if form not in ("parquet", "arrow", "csv"):
            raise ValueError("rows are written as .parquet, .arrow or .csv")
        call = post("extracts", extract, "rows", body={"format": form})._replace(accept=OCTETS)
        return (yield from download(self._line, call, Path(out)))

    @verb
    def delete(self, extract: str) -> Exchange[Held]:
        """Delete a held extract's file at the gateway. Files that somebody opened it to are not reached."""
        return same((yield from fetch(self._line, post("extracts", extract, "delete"), Held)), extract=extract)


def _made(part: Extracts[Any], extract: str) -> Exchange[Made]:
    found = yield from fetch(part._line, get("extracts", "made", extract), Made)
    return same(found, extract=extract)


def _body(
    ask: str,
    grant: str,
    columns: tuple[str, ...],
    filter: AnyFilter,
    purpose: str,
    commercial: bool,
    risk: Risk | None,
) -> dict[str, Any]:
    """What is sent of an extract that is wished for."""
    return {
        "ask": ask,
        "grant": grant,
        "columns": list(columns),
        "filter": as_json(filter),
        "purpose": purpose,
        "commercial": commercial,
        "risk": None if risk is None else msgspec.to_builtins(risk),
    }
