"""The audit trail: who used what, for which purpose, under which grant. No log, no release.

Every use leaves two entries: an intent, on disk before anything is released, and an outcome. Entries
form a hash chain; batches of them are anchored on the ledger by the root of an RFC 9162 tree:

    head_0   = 32 zero bytes
    head_n   = H(ACCESS_ENTRY, canonical entry n), the entry holding head_{n-1}
    root     = tree root over the leaves `canonical entry`, first .. last

An entry is made to be shown to outsiders: organisations, dataset, purpose, grant id, salted query
hash, time; nothing about a person, no field, no row count. A random nonce keeps the ledger's root from
confirming a guess at it.

Adversary: someone who edits the file later. What was anchored cannot be changed, left out or reordered
without `verify_batch` or the ledger noticing; the tail since the last batch can be rewritten by whoever
controls the machine, so batches are sent every ten seconds or thousand entries.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Annotated, Any, Literal

import msgspec

from privacy.decide import Decision, UseRequest
from privacy.grants import Code, UseKind
from privacy.purposes import PURPOSES
from privacy.store import Store
from wire import evidence
from wire.canonical import Wire, decode, encode
from wire.checkpoint import inclusion_proof, leaf_hash, tree_root, verify_inclusion
from wire.dates import Instant
from wire.domains import ACCESS_ENTRY, digest
from wire.errors import DecodeError, MedveilError, Refused, VerificationError
from wire.evidence import Header
from wire.identifiers import Handle, Hash, Name, check_name

APPLICATION = b"mvau"
VERSION = 1
START = bytes(32)
"""The head before the first entry."""
LARGEST_BATCH = 1000
"""Most entries in a batch."""

UNKNOWN = "UNKNOWN"
"""Stands for a purpose that is no known code: text that a requester made up is not published."""

EntryId = int
"""Sequence number of an intent: 1, 2, ..."""

AccessKind = UseKind | Literal["evidence"]
"""What was asked for: a use of data, or this organisation's evidence."""

Outcome = Literal["", "released", "denied", "aborted", "failed"]

_SCHEMA = """
CREATE TABLE entries (sequence INTEGER PRIMARY KEY, intent INTEGER, entry BLOB, head BLOB) STRICT;
CREATE INDEX entries_by_intent ON entries (intent);
CREATE TABLE batches (first INTEGER PRIMARY KEY, last INTEGER, anchored INTEGER) STRICT
"""


class Use(Wire, frozen=True, tag="privacy.use"):
    """A use about to happen, or one that was asked for and denied.

    purpose: a known code, or `UNKNOWN`. query: salted hash of the query or statement, or empty.
    """

    recipient: Name
    dataset: Name
    kind: AccessKind
    purpose: Code
    grant: Annotated[str, msgspec.Meta(max_length=64)]
    query: Annotated[bytes, msgspec.Meta(max_length=32)]
    allowed: bool
    rule: Annotated[str, msgspec.Meta(max_length=32)]


def use_of(request: UseRequest, decision: Decision, query: bytes = b"") -> Use:
    """The use that `request` and its decision describe. query: salted hash (32 bytes), or empty."""
    if len(query) not in (0, 32):
        raise ValueError("a salted query hash has 32 bytes")
    return Use(
        request.recipient,
        request.dataset,
        request.kind,
        request.purpose if request.purpose in PURPOSES else UNKNOWN,
        decision.grant,
        query,
        decision.allowed,
        decision.rule,
    )


class Entry(Wire, frozen=True, tag="privacy.audit_entry"):
    """One entry of the chain; public once shown.

    organisation: who keeps the trail and the data. intent: 0 in an intent, otherwise the sequence of
    the intent that this outcome ends. outcome: "" in an intent. previous: the head before it.
    """

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    sequence: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    time: Instant
    organisation: Name
    use: Use
    intent: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    outcome: Outcome
    nonce: Handle
    previous: Hash

    def head(self) -> bytes:
        """The chain's head after this entry."""
        return digest(ACCESS_ENTRY, encode(self))


class AccessBatch(Wire, frozen=True, tag="privacy.access_batch"):
    """Consecutive entries with what is anchored of them; an evidence kind ("access-batch").

    first, last: sequence numbers; previous_head, head: of the chain before and after; root: over the
    entries. `verify_batch` checks it; the ledger says whether this root was anchored.
    """

    header: Header
    organisation: Name
    first: int
    last: int
    previous_head: Hash
    head: Hash
    root: Hash
    entries: tuple[Entry, ...]

    def proof(self, sequence: int) -> EntryProof:
        """One entry with its inclusion proof, to be shown alone."""
        if not self.first <= sequence <= self.last:
            raise ValueError("the entry is not in this batch")
        leaves = [leaf_hash(encode(entry)) for entry in self.entries]
        index = sequence - self.first
        path = inclusion_proof(leaves, index)
        return EntryProof(ENTRY_HEADER, self.root, len(leaves), index, self.entries[index], path)


class EntryProof(Wire, frozen=True, tag="privacy.entry_proof"):
    """One entry and its place under an anchored root; an evidence kind ("access-entry")."""

    header: Header
    root: Hash
    size: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_BATCH)]
    index: Annotated[int, msgspec.Meta(ge=0, lt=LARGEST_BATCH)]
    entry: Entry
    proof: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=16)]


BATCH_HEADER = evidence.register("access-batch", 1, AccessBatch)
ENTRY_HEADER = evidence.register("access-entry", 1, EntryProof)


def _may_end(use: Use, outcome: Outcome) -> bool:
    """A denied use ends as denied; an allowed one in any other way."""
    return outcome != "" and (outcome == "denied") == (not use.allowed)


def verify_chain(entries: Sequence[Entry], previous_head: bytes = START, first: int = 1) -> bytes:
    """Check that `entries` are the chain from number `first` on, after `previous_head`; returns the head.

    Outcomes must end an intent among `entries`, once, or one before them. Raises VerificationError
    naming the first entry that does not fit.
    """
    head = previous_head
    before: Entry | None = None
    begun: dict[int, Use] = {}
    for expected, entry in enumerate(entries, start=first):
        fits = entry.sequence == expected and entry.previous == head and entry.version == VERSION
        if before is not None:
            fits = fits and entry.organisation == before.organisation and entry.time >= before.time
        if entry.intent == 0:
            fits = fits and entry.outcome == ""
            begun[entry.sequence] = entry.use
        else:
            fits = fits and entry.intent < entry.sequence and _may_end(entry.use, entry.outcome)
            fits = fits and (entry.intent < first or begun.pop(entry.intent, None) == entry.use)
        if not fits:
            raise VerificationError("privacy.audit_chain", sequence=expected, organisation=entry.organisation)
        head, before = entry.head(), entry
    return head


def verify_batch(batch: AccessBatch) -> None:
    """Check entries, chain, head and root of a batch. Raises VerificationError naming the first wrong entry."""
    whole = 1 <= batch.first <= batch.last and len(batch.entries) == batch.last - batch.first + 1 <= LARGEST_BATCH
    if not whole or any(entry.organisation != batch.organisation for entry in batch.entries):
        raise VerificationError("privacy.audit_chain", sequence=batch.first, organisation=batch.organisation)
    head = verify_chain(batch.entries, batch.previous_head, batch.first)
    root = tree_root([leaf_hash(encode(entry)) for entry in batch.entries])
    if head != batch.head or root != batch.root or (batch.first == 1 and batch.previous_head != START):
        raise VerificationError("privacy.audit_chain", sequence=batch.last, organisation=batch.organisation)


def verify_entry(shown: EntryProof) -> None:
    """Check one entry's inclusion under its root. Raises VerificationError."""
    verify_inclusion(shown.root, shown.size, shown.index, leaf_hash(encode(shown.entry)), shown.proof)


class AuditTrail:
    """The trail of one organisation, in one SQLite file of its own.

    path: the file; made where there is none. clock: instants (milliseconds UTC); a clock that goes
    back is held at the last entry's time. Raises Unavailable (in use, disk full), DecodeError or
    VerificationError (altered since the last anchored batch; `verify` checks all of it).
    """

    def __init__(
        self,
        path: Path,
        organisation: str,
        *,
        rand: Callable[[int], bytes] = secrets.token_bytes,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.organisation = check_name(organisation, "organisation")
        self._rand = rand
        self._clock = clock
        self._guard = RLock()
        self._held: Callable[[], MedveilError] | None = None
        self._store = Store(path, APPLICATION, _SCHEMA, VERSION, create=None)
        try:
            anchored = self._last_anchored()
            entries = self._check_from(max(anchored, 1))
            self._last = entries[-1] if entries else None
            self._open = self._unfinished()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and let others open it."""
        self._store.close()

    def __enter__(self) -> AuditTrail:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def hold(self, why: Callable[[], MedveilError] | None) -> None:
        """Write no more entries, but raise what `why` gives, until `hold(None)`.

        For a trail that is, or may be, shorter than what the ledger has anchored: another entry would fork the chain.
        """
        with self._guard:
            self._held = why

    def intent(self, use: Use, nonce: bytes | None = None) -> EntryId:
        """Write that `use` is about to happen: on disk when this returns. Denied uses are written too.

        nonce: the entry's own 16 random bytes, from whoever may be killed before hearing of this call's return and
        calls again: an intent of that nonce which no outcome ended is not written twice. Raises Unavailable where it
        cannot be written, and what `hold` says, then nothing may be released; ValueError for another use under the same
        nonce.
        """
        with self._guard:
            for entry in self._open.values() if nonce is not None else ():
                if entry.nonce == nonce:
                    if entry.use != use:
                        raise ValueError("one nonce for two uses")
                    return entry.sequence
            entry = self._append(use, 0, "", nonce)
            self._open[entry.sequence] = entry
            return entry.sequence

    def outcome(self, intent: EntryId, outcome: Outcome) -> EntryId:
        """Write how the use ended, once: "released", "denied", "aborted" or "failed".

        Raises Refused for an unknown or ended intent; what was denied ends as "denied" and nothing else
        does.
        """
        with self._guard:
            entry = self._open.get(intent)
            if entry is None or not _may_end(entry.use, outcome):
                raise Refused("privacy.audit_outcome", sequence=intent, outcome=outcome)
            ended = self._append(entry.use, intent, outcome)
            del self._open[intent]
            return ended.sequence

    @property
    def last(self) -> int:
        """Number of the last entry; 0 for none."""
        return 0 if self._last is None else self._last.sequence

    def ending(self, intent: EntryId) -> Outcome:
        """How the use of an intent ended, "" if it has not. Raises Refused for what is no intent."""
        found = self._store.rows("SELECT entry FROM entries WHERE intent = ?", intent) if intent else []
        if found:
            return decode(Entry, _blob(found[0][0])).outcome
        if intent not in self._open:
            raise Refused("privacy.audit_outcome", sequence=intent, outcome="-")
        return ""

    def unfinished(self) -> tuple[EntryId, ...]:
        """Intents without an outcome, such as those of a process that was killed."""
        return tuple(sorted(self._open))

    def waiting(self) -> int:
        """How many entries no anchored batch holds yet."""
        anchored = self._store.rows("SELECT MAX(last) FROM batches WHERE anchored = 1")[0][0] or 0
        return (self._last.sequence if self._last else 0) - anchored

    def entries(self, first: int = 1, last: int = 2**62) -> tuple[Entry, ...]:
        """Entries `first` .. `last`, in order."""
        rows = self._store.rows(
            "SELECT entry FROM entries WHERE sequence BETWEEN ? AND ? ORDER BY sequence", first, last
        )
        return tuple(decode(Entry, _blob(entry)) for (entry,) in rows)

    def verify(self) -> bytes:
        """Check the whole chain on disk and that every batch is there; returns the head."""
        self._check_batches()
        return self._check_from(1)[-1].head() if self._last else START

    def batch(self) -> AccessBatch | None:
        """The next batch to anchor (at most a thousand entries), or None if all entries are anchored.

        The same batch, byte for byte, until `anchored` is called for it, also after a restart: a batch
        whose anchoring was interrupted is sent again.
        """
        with self._guard, self._store.transaction() as database:
            found = database.execute("SELECT first, last FROM batches WHERE anchored = 0").fetchone()
            if found is None:
                first = (database.execute("SELECT MAX(last) FROM batches").fetchone()[0] or 0) + 1
                last = min(self._last.sequence if self._last else 0, first + LARGEST_BATCH - 1)
                if last < first:
                    return None
                database.execute("INSERT INTO batches VALUES (?, ?, 0)", (first, last))
            else:
                first, last = found
        return self._batch(first, last)

    def anchored(self, batch: AccessBatch) -> None:
        """Note that the ledger holds `batch` for good. Raises Refused if it is not the pending one."""
        with self._store.transaction() as database:
            found = database.execute("SELECT first, last FROM batches WHERE anchored = 0").fetchone()
            if found != (batch.first, batch.last):
                raise Refused("privacy.audit_batch", first=batch.first, last=batch.last)
            database.execute("UPDATE batches SET anchored = 1 WHERE first = ?", (batch.first,))

    def take_back(self, batch: AccessBatch) -> int:
        """Take in entries that this trail has lost, from an anchored batch that others hold; returns how many are new.

        For a trail that was restored from a backup. The caller knows that the ledger holds the batch; that it continues
        this very chain is checked here. Raises VerificationError naming the first entry that does not fit.
        """
        verify_batch(batch)
        with self._guard, self._store.transaction() as database:
            own = self.entries(batch.first, batch.last)
            done = database.execute("SELECT MAX(last) FROM batches WHERE anchored = 1").fetchone()[0] or 0
            if batch.last <= done:
                return 0
            fits = batch.organisation == self.organisation and batch.first == done + 1
            head = self._last.head() if self._last else START
            new = batch.entries[len(own) :]
            fits = fits and own == batch.entries[: len(own)]
            if not fits or (new and (new[0].sequence, new[0].previous) != (self.last + 1, head)):
                raise VerificationError("privacy.audit_chain", sequence=batch.first, organisation=self.organisation)
            rows = [(entry.sequence, entry.intent, encode(entry), entry.head()) for entry in new]
            database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)
            database.execute("DELETE FROM batches WHERE anchored = 0")
            database.execute("INSERT INTO batches VALUES (?, ?, 1)", (batch.first, batch.last))
            if new:
                self._last = new[-1]
            self._open = self._unfinished()
        return len(new)

    def batches(self) -> tuple[AccessBatch, ...]:
        """The anchored batches, for evidence."""
        rows = self._store.rows("SELECT first, last FROM batches WHERE anchored = 1 ORDER BY first")
        return tuple(self._batch(first, last) for first, last in rows)

    # ---- inside

    def _batch(self, first: int, last: int) -> AccessBatch:
        entries = self.entries(first, last)
        if len(entries) != last - first + 1:
            raise VerificationError(
                "privacy.audit_chain", sequence=first + len(entries), organisation=self.organisation
            )
        batch = AccessBatch(
            BATCH_HEADER,
            self.organisation,
            first,
            last,
            entries[0].previous,
            entries[-1].head(),
            tree_root([leaf_hash(encode(entry)) for entry in entries]),
            entries,
        )
        verify_batch(batch)
        return batch

    def _append(self, use: Use, intent: int, outcome: Outcome, nonce: bytes | None = None) -> Entry:
        if self._held is not None:
            raise self._held()
        with self._store.transaction() as database:
            last = self._last
            entry = Entry(
                VERSION,
                1 if last is None else last.sequence + 1,
                self._clock() if last is None else max(self._clock(), last.time),
                self.organisation,
                use,
                intent,
                outcome,
                self._rand(16) if nonce is None else nonce,
                START if last is None else last.head(),
            )
            data = encode(entry)
            decode(Entry, data)  # an entry that could not be read back is never written
            database.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (entry.sequence, intent, data, entry.head()))
        self._last = entry
        return entry

    def _last_anchored(self) -> int:
        self._check_batches()
        rows = self._store.rows("SELECT MAX(last) FROM batches WHERE anchored = 1")
        return rows[0][0] or 0

    def _check_batches(self) -> None:
        expected = 1
        for first, last, anchored in self._store.rows("SELECT first, last, anchored FROM batches ORDER BY first"):
            if first != expected or not first <= last < first + LARGEST_BATCH or anchored not in (0, 1):
                raise VerificationError("privacy.audit_chain", sequence=expected, organisation=self.organisation)
            expected = last + 1
        count = self._store.rows("SELECT COUNT(*) FROM entries WHERE sequence < ?", expected)[0][0]
        if count != expected - 1:
            raise VerificationError("privacy.audit_chain", sequence=expected - 1, organisation=self.organisation)

    def _check_from(self, first: int) -> tuple[Entry, ...]:
        """Entries from `first` on, chained and equal to the heads stored beside them."""
        rows = self._store.rows("SELECT entry, intent, head FROM entries WHERE sequence >= ? ORDER BY sequence", first)
        before = self._store.rows("SELECT head FROM entries WHERE sequence = ?", first - 1)
        entries: list[Entry] = []
        for offset, (entry, intent, head) in enumerate(rows):
            try:
                entries.append(decode(Entry, _blob(entry)))
            except DecodeError:
                entries.clear()
            last = entries[-1] if entries else None
            mine = last is not None and (last.organisation, last.intent) == (self.organisation, intent)
            if last is None or not mine or last.head() != head:
                raise VerificationError("privacy.audit_chain", sequence=first + offset, organisation=self.organisation)
        verify_chain(entries, before[0][0] if before else START, first)
        return tuple(entries)

    def _unfinished(self) -> dict[int, Entry]:
        """Intents that no outcome ends."""
        rows = self._store.rows(
            "SELECT entry FROM entries WHERE intent = 0"
            " AND sequence NOT IN (SELECT intent FROM entries) ORDER BY sequence"
        )
        entries = [decode(Entry, _blob(entry)) for (entry,) in rows]
        return {entry.sequence: entry for entry in entries if entry.intent == 0}


def _blob(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise DecodeError("wire.not_canonical", kind="Entry")
    return value
