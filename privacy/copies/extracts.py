"""Extracts: a copy made for one grant, filtered, masked, encrypted, sealed to its recipient. No log, no extract.

    stage_extract          decide -> intent, durable -> filter, choose columns, mask -> encrypted body, without its key
    the gateway            the batch with the intent is anchored on the ledger
    StagedExtract.release  decide again -> end with the sealed key, durable -> the file appears -> outcome

    open_extract           the end opened, its signature checked -> the body's hash checked -> decrypted in memory

Killed at any step there is either the whole file and an anchored intent, or no key outside this process: what lies
about then is noise, and `clear_leftovers` removes it. An extract is outside differential privacy: it holds rows of
single persons. What protects them are the filter, the masks and the limits of the risk report, which is measured
before; its hash is signed with the extract.

Adversary: whoever carries or alters the file learns nothing and is found out before a byte of it is parsed. Not
promised: a recipient that has opened an extract has its content; an issuer can put into it what it likes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from privacy.audit import AuditTrail, EntryId, Outcome, use_of
from privacy.copies.encrypted_parquet import (
    KEY_BYTES,
    ROW_GROUP,
    parse_parquet,
    read_checked,
    stored_columns,
    write_parquet,
)
from privacy.copies.extract_file import (
    PARQUET_AES_256_GCM,
    VERSION,
    ExtractColumn,
    ExtractCover,
    ExtractFacts,
    OpenedEnd,
    key_hash,
    open_end,
    read_end,
    seal_end,
)
from privacy.decide import ColumnUse, Decision, UseRequest, require
from privacy.grants.levels import mask_text
from privacy.grants.opt_outs import ScopeId
from privacy.grants.terms import CheckedGrant
from privacy.local import bind
from privacy.masking.disclosure_risk import RiskReport, measure
from privacy.masking.masks import apply_plan, gives, quasi_identifiers
from privacy.predicate import Predicate, to_arrow
from privacy.vault.rows import StoredColumn
from wire.canonical import encode
from wire.dates import format_instant
from wire.domains import RISK_REPORT, digest
from wire.durable import flush, put_as_new
from wire.errors import ConsentDenied, MedveilError, Refused, Unavailable, VerificationError
from wire.sealing import OpenKey, SealKey
from wire.signing import Signer, VerifyKey

SUFFIX = ".extract"
_PART = ".part"


PersonsOf = Callable[[tuple[ScopeId, ...]], frozenset[bytes]]
"""The persons (keyed ids) behind scopes of opt-outs, as it is now: `privacy.grants.opt_outs.OptOutRegister.persons`."""


class ExtractWanted(msgspec.Struct, frozen=True):
    """What is to be extracted, and for whom.

    extract: 16 random bytes, its id for good: a step that is done again after a crash goes on with the same. grant:
    under which. request: the use; its fields become the columns, in this order. kinds: "number" or "category" by
    column of the dataset. recipient: the recipient's sealing key (public). risk: what was measured on these very rows,
    masked. mask_key: 32 secret bytes of the grant. on: civil day on which ages are taken, the same in all extracts of a
    grant: who turns thirty between two of them would show the birthday. person_column: the column
    with the keyed id of each row's person, which does not leave; "" where rows have none. query: salted hash of the
    request for the audit entry, or b"".
    """

    extract: bytes
    grant: CheckedGrant
    request: UseRequest
    kinds: Mapping[str, str]
    recipient: SealKey
    risk: RiskReport
    mask_key: bytes
    on: int
    person_column: str = ""
    query: bytes = b""

    def __repr__(self) -> str:
        return f"ExtractWanted({self.grant.terms.grant!r})"


def _nobody(scopes: tuple[ScopeId, ...]) -> frozenset[bytes]:
    if scopes:
        raise ValueError("opt-outs are in force: say who the persons are")
    return frozenset()


class StagedExtract:
    """An extract whose body is on disk and whose key is in this process alone. `stage_extract` makes one."""

    def __init__(
        self, wanted: ExtractWanted, path: Path, part: Path, key: bytes, facts: ExtractFacts, rests_on: _RestsOn
    ) -> None:
        self._wanted, self._path, self._part, self._key = wanted, path, part, key
        self._rests_on = rests_on
        self.facts = facts

    @property
    def intent(self) -> EntryId:
        """The audit entry that must be anchored before the release."""
        return self.facts.audit

    def release(
        self, trail: AuditTrail, signer: Signer, decide: Callable[[], Decision], persons_of: PersonsOf = _nobody
    ) -> ExtractFacts:
        """Issuer: seal the key to the recipient and let the file appear; returns what it says.

        To be called once the ledger holds the intent: the trail is asked whether it does. decide, persons_of: as they
        are now. signer: the envelope key. Raises Unavailable (the intent is not anchored, or the disk: call again),
        ConsentDenied (the grant was revoked in between), Refused (masks, filter or opt-outs have changed, or another
        file stands there): then nothing is released, and the use has ended as aborted or failed.
        """
        if trail.last - trail.waiting() < self.intent:
            raise Unavailable("extracts.not_anchored", intent=self.intent, retry_after=10)
        if self._stands():  # called again: what has left has left, whatever would be decided now
            return self._left(trail)
        try:
            decision = decide()
            _allowed(self._wanted, decision)
            if not self._rests_on.still(decision, persons_of):
                raise Refused("extracts.changed", grant=self.facts.grant)
        except Refused:
            self.abandon(trail, "aborted")
            raise
        end = seal_end(self.facts, self._key, self._wanted.recipient, signer)
        try:
            with self._part.open("r+b") as file:
                file.truncate(self.facts.length)  # of an end that a full disk cut short
                file.seek(self.facts.length)
                file.write(end.bytes())
                file.flush()
                os.fsync(file.fileno())
            put_as_new(self._part, self._path)
        except FileExistsError:
            self.abandon(trail, "failed")
            raise Refused("extracts.exists", path=str(self._path)) from None
        except Refused:  # this disk can give it no name
            self.abandon(trail, "failed")
            raise
        except OSError as error:
            raise Unavailable("privacy.store_failed", path=str(self._path), reason=error.strerror or "I/O") from None
        return self._left(trail)

    def _stands(self) -> bool:
        """Whether this extract's file has appeared."""
        try:
            return self._path.exists() and read_end(self._path).cover == self.facts.cover
        except MedveilError:
            return False

    def _left(self, trail: AuditTrail) -> ExtractFacts:
        """What remains once the file has appeared. Raises Unavailable: to be called again."""
        try:
            flush(self._path.parent)
            self._part.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable("privacy.store_failed", path=str(self._path), reason=error.strerror or "I/O") from None
        if trail.ending(self.intent) != "released":
            trail.outcome(self.intent, "released")
        return self.facts

    def abandon(self, trail: AuditTrail, outcome: Outcome = "aborted") -> None:
        """Remove the body and note that nothing was released. Raises what the trail raises."""
        with suppress(OSError):
            self._part.unlink(missing_ok=True)
        trail.outcome(self.intent, outcome)

    def __repr__(self) -> str:
        return f"StagedExtract({self.facts.grant!r})"


def stage_extract(
    path: Path,
    rows: pa.Table,
    wanted: ExtractWanted,
    decide: Callable[[], Decision],
    trail: AuditTrail,
    at: int,
    *,
    persons_of: PersonsOf = _nobody,
    rand: Callable[[int], bytes] = secrets.token_bytes,
) -> StagedExtract:
    """Issuer: write the intent, then the encrypted body beside `path`, a row group at a time.

    rows: the dataset (secret). decide, persons_of: as they are now; `release` asks again. at: instant. What the
    decision says is done: rows of its filter and the request's alone, without those who opted out, every column under
    its mask. A denied use is noted in the trail and raised as ConsentDenied. Also raises Refused (a file stands there,
    columns, filter or masks that do not fit, a risk report that is not within its policy or not of these rows),
    Unavailable (trail or disk). Whatever goes wrong after the intent is noted as failed.
    """
    decision = decide()
    try:
        _allowed(wanted, decision)
    except ConsentDenied:
        if not decision.allowed:
            trail.outcome(trail.intent(use_of(wanted.request, decision, wanted.query)), "denied")
        raise
    if path.exists():
        raise Refused("extracts.exists", path=str(path))
    intent = trail.intent(use_of(wanted.request, decision, wanted.query), wanted.extract)
    part = path.with_name(f".{path.name}.{wanted.extract.hex()}{_PART}")
    issuer, recipient, seal_key = wanted.request.holder, wanted.request.recipient, wanted.recipient.key_id()
    cover = ExtractCover(VERSION, PARQUET_AES_256_GCM, wanted.extract, issuer, recipient, seal_key)
    key = rand(KEY_BYTES)
    try:
        rests_on = _RestsOn(decision.rows, decision.columns, persons_of(decision.excluded))
        _check_risk(wanted.risk, decision)
        mask_key, on, person_column = wanted.mask_key, wanted.on, wanted.person_column
        cut = Cut(wanted.request, wanted.kinds, decision, mask_key, on, person_column, rests_on.left_out)
        columns = cut.columns(rows.schema)
        descriptor = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file, ThreadPoolExecutor(1) as beside:
            stored = tuple(StoredColumn(column.name, column.kind) for column in columns)
            seen = _Seen(cut, wanted.risk, rows.schema)
            checked: list[Future[None]] = []

            def leaving() -> Iterator[pa.Table]:
                yield from map(seen.leaving, cut.groups(rows, rand))
                checked.append(beside.submit(seen.check))  # while the last group is written

            written = write_parquet(file, stored, leaving(), key, cover.place(), pieces=True)
            file.flush()
            os.fsync(file.fileno())
        for one in checked:
            one.result()
        facts = ExtractFacts(
            cover,
            wanted.grant.terms.grant,
            wanted.grant.commitment,
            wanted.request.dataset,
            wanted.request.purpose,
            intent,
            at,
            decision.delete_by,
            columns,
            written.rows,
            report_hash(wanted.risk),
            "outside-differential-privacy",
            written.length,
            written.digest,
            key_hash(key, cover),
        )
        msgspec.convert(msgspec.to_builtins(facts), ExtractFacts)  # what could not be read back is never written
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        trail.outcome(intent, "failed")
        if isinstance(error, OSError):
            raise Unavailable("privacy.store_failed", path=str(path), reason=error.strerror or "I/O") from None
        raise
    return StagedExtract(wanted, path, part, key, facts, rests_on)


def report_hash(risk: RiskReport) -> bytes:
    """What the facts say of a risk report: 32 bytes."""
    return digest(RISK_REPORT, encode(risk))


def _allowed(wanted: ExtractWanted, decision: Decision) -> None:
    """Raises ConsentDenied unless this decision, for this request, rests on this grant."""
    require(decision)
    request, terms = wanted.request, wanted.grant.terms
    same = (decision.grant, decision.recipient, decision.dataset) == (terms.grant, request.recipient, request.dataset)
    masked = tuple(column.field for column in decision.columns) == tuple(dict.fromkeys(request.fields))
    if not (same and masked) or request.kind != "extract" or not request.all_fields() <= set(terms.fields):
        raise ConsentDenied("privacy.deny_error", **decision.facts())


class _RestsOn(msgspec.Struct, frozen=True):
    """What a body was made by. left_out: who opted out of such a use, by keyed id. Secret."""

    rows: Predicate | None
    columns: tuple[ColumnUse, ...]
    left_out: frozenset[bytes]

    def still(self, decision: Decision, persons_of: PersonsOf) -> bool:
        """Whether the body is one that could be made now: nobody objects who is in it, and masks and rows are those."""
        same = (self.rows, self.columns) == (decision.rows, decision.columns)
        return same and persons_of(decision.excluded) <= self.left_out


class Leaving(NamedTuple):
    """A group of rows on their way out. persons: keyed ids, beside them; None where the rows say of nobody."""

    masked: pa.Table
    persons: pa.ChunkedArray | None


class Cut:
    """What leaves of a table: which rows, which columns, under which masks.

    decision: an allowed one. mask_key, on, person_column: as in `ExtractWanted`. left_out: who opted out of such a
    use, by keyed id (secret). A use of one person's record lets out that person's rows alone. Raises Refused where it
    matters whose rows they are and they do not say, where the column that says so is to leave, and for a filter that
    does not fit.
    """

    def __init__(
        self,
        request: UseRequest,
        kinds: Mapping[str, str],
        decision: Decision,
        mask_key: bytes,
        on: int,
        person_column: str,
        left_out: frozenset[bytes],
    ) -> None:
        if (decision.excluded or request.person) and not person_column:
            raise Refused("extracts.no_persons", dataset=request.dataset)
        if person_column in request.fields:
            raise Refused("extracts.column", dataset=request.dataset, column=person_column)
        self._request, self._mask_key, self._person_column = request, mask_key, person_column
        self._rows = bind(kinds, decision.rows, request.predicate)
        self._fields = list(dict.fromkeys(request.fields))
        self._plan = decision.mask_plan(on)
        self._hides = decision.min_group > 1 or any(mask.kind != "keep" for mask in self._plan.masks)
        self._left_out = pa.array(sorted(left_out), pa.binary(16))

    def columns(self, schema: pa.Schema) -> tuple[ExtractColumn, ...]:
        """The columns that leave. Raises Refused where a column is not there, or a mask does not fit."""
        beside = [self._person_column] if self._person_column else []
        for name in (*self._fields, *beside):
            if name not in schema.names:
                raise Refused("extracts.column", dataset=self._request.dataset, column=name)
        done = {name: mask_text(mask) for mask in self._plan.masks if mask.kind != "keep" for name in gives(mask)}
        masked = self.masked(schema.empty_table())
        return tuple(
            ExtractColumn(column.name, column.kind, done.get(column.name, ""))
            for column in stored_columns(masked.schema, self._request.dataset)
        )

    def quasi_identifiers(self, schema: pa.Schema) -> tuple[str, ...]:
        """The masked columns that a risk report must count as known to others, at least."""
        return quasi_identifiers(self._plan, schema)

    def groups(self, rows: pa.Table, rand: Callable[[int], bytes]) -> Iterator[Leaving]:
        """The rows that leave, `ROW_GROUP` of the table's at a time.

        Each group in an order of its own, drawn by `rand`, where anything is masked or persons are to hide in groups:
        the order of loading would tell when something was, whatever its date says, and two extracts of other columns
        could be laid side by side.
        """
        for first in range(0, rows.num_rows, ROW_GROUP):
            chosen = self.chosen(rows.slice(first, ROW_GROUP))
            if self._hides:
                drawn = np.frombuffer(rand(8 * chosen.num_rows), np.uint64)
                chosen = chosen.take(pa.array(np.argsort(drawn)))
            yield Leaving(self.masked(chosen), chosen[self._person_column] if self._person_column else None)

    def chosen(self, rows: pa.Table) -> pa.Table:
        """The rows that leave, as they are, every column of them (secret)."""
        if self._request.person:
            rows = rows.filter(pc.equal(rows[self._person_column], pa.scalar(self._request.person, pa.binary(16))))
        if len(self._left_out):
            rows = rows.filter(pc.invert(pc.is_in(rows[self._person_column], value_set=self._left_out)))
        if self._rows.predicate is not None:
            rows = rows.filter(to_arrow(self._rows.predicate))
        return rows

    def masked(self, rows: pa.Table) -> pa.Table:
        """Of chosen rows what leaves of them: only the columns that leave, masked."""
        persons = rows[self._person_column] if self._person_column else None
        return apply_plan(rows.select(self._fields), self._plan, self._mask_key, persons).table


class _Seen:
    """Holds a risk report against the rows that leave: what was measured may have been others, or of other columns."""

    def __init__(self, cut: Cut, risk: RiskReport, schema: pa.Schema) -> None:
        named = set(risk.columns.quasi)
        if missing := [name for name in cut.quasi_identifiers(schema) if name not in named]:
            raise Refused("extracts.risk_columns", columns=", ".join(missing))
        institution = (risk.columns.institution,) if risk.columns.institution else ()
        self._names = [*risk.columns.quasi, *risk.columns.sensitive, *institution, *risk.columns.amounts]
        self._risk, empty = risk, cut.masked(schema.empty_table())
        if missing := [name for name in self._names if name not in empty.column_names]:
            raise Refused("privacy.risk_column", field=missing[0])
        self._columns = [empty.select(self._names)]
        self._persons: list[pa.ChunkedArray] = []
        self._rows = 0

    def leaving(self, group: Leaving) -> pa.Table:
        """A masked group, once it was looked at."""
        self._columns.append(group.masked.select(self._names))
        self._rows += group.masked.num_rows
        if group.persons is not None:
            self._persons.append(group.persons)
        return group.masked

    def check(self) -> None:
        """Raises Refused where the report says anything else than what is measured now."""
        chunks = [chunk for one in self._persons for chunk in one.chunks]
        known = any(chunk.null_count < len(chunk) for chunk in chunks)  # else each row counts as its own person's
        whole = pa.concat_tables(self._columns)
        if not self._names:  # a table without columns has lost its rows
            whole = pa.table({"": pa.nulls(self._rows)})
        persons = pa.chunked_array(chunks) if known else None
        found = measure(whole, self._risk.columns, self._risk.policy, persons).report
        if found != self._risk:
            raise Refused("extracts.risk_rows", measured=self._risk.rows, rows=self._rows)


def _check_risk(risk: RiskReport, decision: Decision) -> None:
    """Raises Refused unless the report is within its policy, and that no weaker than the decision."""
    if not risk.within or risk.policy.persons < decision.min_group:
        raise Refused("extracts.risk", persons=risk.persons, least=decision.min_group)


def was_released(path: Path, extract: bytes) -> bool:
    """Whether the file that stands at `path` is this extract: for whoever was killed before noting the outcome.

    Raises as `read_end`; False where there is no file.
    """
    return path.exists() and read_end(path).cover.extract == extract


def clear_leftovers(folder: Path) -> int:
    """Remove what makers of extracts left in this folder when they were killed, while none is at work; how many."""
    left = [path for path in folder.glob(f".*{_PART}") if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


# ---- the recipient


def inspect_extract(path: Path, keys: Iterable[OpenKey], issuer_keys: Iterable[VerifyKey], recipient: str) -> OpenedEnd:
    """Recipient: what the issuer signed of an extract, without its rows. Arguments and errors as `open_extract`."""
    end = read_end(path)
    opened = open_end(end, keys, issuer_keys, recipient)
    if _size(path) != opened.facts.length + len(end.bytes()):
        raise VerificationError("parquet.altered", file=path.name)
    return opened


def open_extract(
    path: Path, keys: Iterable[OpenKey], issuer_keys: Iterable[VerifyKey], recipient: str, at: int
) -> tuple[ExtractFacts, pa.Table]:
    """Recipient: check everything, then decrypt in memory; returns what the issuer signed, and the rows (secret).

    keys: the recipient's own sealing keys. issuer_keys: envelope keys of the issuer. recipient: this organisation.
    at: instant. Raises Unavailable (file, memory), DecodeError (not an extract), VerificationError (altered, not the
    issuer's), Refused (newer format, somebody else's, or past the day by which it must be deleted).
    """
    opened = inspect_extract(path, keys, issuer_keys, recipient)
    facts = opened.facts
    if at >= facts.delete_by:
        raise Refused("extracts.due", grant=facts.grant, delete_by=format_instant(facts.delete_by))
    data = read_checked(path, facts.length, facts.body, pieces=True)
    columns = tuple(StoredColumn(column.name, column.kind) for column in facts.columns)
    return facts, parse_parquet(data, columns, facts.rows, opened.key, facts.cover.place(), path.name)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(path), reason=error.strerror or "I/O") from None
