"""The audit trail: who used what, for which purpose, under which grant. No log, no release.

What is written is `privacy.audit.entries`; how it is kept, `privacy.audit.file`.

Adversary: someone who edits the file later. What was anchored cannot be changed, left out or reordered
without `verify_batch` or the ledger noticing; the tail since the last batch can be rewritten by whoever
controls the machine, so batches are sent every ten seconds or thousand entries.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import RLock
from types import TracebackType

from privacy.audit.entries import (
    BATCH_HEADER,
    LARGEST_BATCH,
    START,
    VERSION,
    AccessBatch,
    Entry,
    EntryId,
    Outcome,
    Use,
    may_end,
    verify_batch,
)
from privacy.audit.file import PERSON_BYTES, Pruned, TrailFile
from wire.canonical import encode
from wire.checkpoint import leaf_hash, tree_root
from wire.errors import MedveilError, Refused
from wire.identifiers import check_name


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
        self._store = TrailFile(path, self.organisation)
        try:
            self._store.check_batches()
            self._last, _ = self._store.check_from(max(self._store.anchored(), 1))
            self._open = self._store.unfinished()
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

    def intent(self, use: Use, nonce: bytes | None = None, *, persons: Sequence[bytes] = ()) -> EntryId:
        """Write that `use` is about to happen: on disk when this returns. Denied uses are written too.

        nonce: the entry's own 16 random bytes, from whoever may be killed before hearing of this call's return and
        calls again: an intent of that nonce which no outcome ended is not written twice. persons: the vault's keyed ids
        (16 bytes each, private) of those whose own record the use looks at; noted beside the chain, at once with it.
        Raises Unavailable where it cannot be written, and what `hold` says, then nothing may be released; ValueError
        for another use under the same nonce.
        """
        if any(len(person) != PERSON_BYTES for person in persons):
            raise ValueError("a keyed person has 16 bytes")
        with self._guard:
            for entry in self._open.values() if nonce is not None else ():
                if entry.nonce == nonce:
                    if entry.use != use:
                        raise ValueError("one nonce for two uses")
                    return entry.sequence
            entry = self._append(use, 0, "", nonce, persons)
            self._open[entry.sequence] = entry
            return entry.sequence

    def outcome(self, intent: EntryId, outcome: Outcome) -> EntryId:
        """Write how the use ended, once: "released", "denied", "aborted" or "failed".

        Raises Refused for an unknown or ended intent; what was denied ends as "denied" and nothing else
        does. What the organisation does at home ("erasure", "pruning") ends as "done" or "failed".
        """
        with self._guard:
            entry = self._open.get(intent)
            if entry is None or not may_end(entry.use, outcome):
                raise Refused("privacy.audit_outcome", sequence=intent, outcome=outcome)
            ended = self._append(entry.use, intent, outcome)
            del self._open[intent]
            return ended.sequence

    @property
    def last(self) -> int:
        """Number of the last entry; 0 for none."""
        return 0 if self._last is None else self._last.sequence

    def ending(self, intent: EntryId) -> Outcome:
        """How the use of an intent ended, "" if it has not. Raises Refused for what is no intent that is there."""
        found = self._store.ending(intent)
        if found is not None:
            return found.outcome
        if intent not in self._open:
            raise Refused("privacy.audit_outcome", sequence=intent, outcome="-")
        return ""

    def unfinished(self) -> tuple[EntryId, ...]:
        """Intents without an outcome, such as those of a process that was killed."""
        return tuple(sorted(self._open))

    def begun(self, nonce: bytes) -> EntryId | None:
        """The intent of this nonce that no outcome ended; None where there is none."""
        with self._guard:
            return next((entry.sequence for entry in self._open.values() if entry.nonce == nonce), None)

    def waiting(self) -> int:
        """How many entries no anchored batch holds yet."""
        return (self._last.sequence if self._last else 0) - self._store.anchored()

    def entries(self, first: int = 1, last: int = 2**62) -> tuple[Entry, ...]:
        """Entries `first` .. `last`, in order, those that are not pruned."""
        return self._store.entries(first, last)

    def intents(self, column: str, value: str | bytes, first: int = 1, limit: int = 1000) -> tuple[Entry, ...]:
        """Up to `limit` intents from number `first` on: of one recipient, dataset, grant_id, nonce, (keyed) person."""
        return self._store.intents(column, value, first, limit)

    def end(self, intent: EntryId) -> Entry | None:
        """The entry that ended an intent; None where there is none."""
        return self._store.ending(intent)

    def verify(self) -> bytes:
        """Check the whole chain on disk, from where it was pruned, and that every batch is there; returns the head."""
        self._store.check_batches()
        return self._store.check_from(1)[1]

    def batch(self) -> AccessBatch | None:
        """The next batch to anchor (at most a thousand entries), or None if all entries are anchored.

        The same batch, byte for byte, until `anchored` is called for it, also after a restart: a batch
        whose anchoring was interrupted is sent again.
        """
        with self._guard, self._store.transaction() as database:
            found = database.execute("SELECT first, last FROM batches WHERE anchored = 0").fetchone()
            if found is None:
                first = self._store.anchored() + 1
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
            done = self._store.anchored()
            if batch.last <= done:
                return 0
            fits = batch.organisation == self.organisation and batch.first == done + 1
            head = self._last.head() if self._last else START
            new = batch.entries[len(own) :]
            fits = fits and own == batch.entries[: len(own)]
            if not fits or (new and (new[0].sequence, new[0].previous) != (self.last + 1, head)):
                raise self._store.broken(batch.first)
            for entry in new:
                self._store.insert(database, entry)
            database.execute("DELETE FROM batches WHERE anchored = 0")
            database.execute("INSERT INTO batches VALUES (?, ?, 1)", (batch.first, batch.last))
            if new:
                self._last = new[-1]
            self._open = self._store.unfinished()
        return len(new)

    def batches(self) -> tuple[AccessBatch, ...]:
        """The anchored batches that are not pruned, for evidence."""
        return tuple(self.each_batch())

    def each_batch(self) -> Iterator[AccessBatch]:
        """`batches`, one after the other, the oldest first."""
        for first, last in self._store.batches():
            yield self._batch(first, last)

    def anchored_batches(self) -> list[tuple[int, int]]:
        """First and last entry of every anchored batch that is not pruned, in order."""
        return self._store.batches()

    @property
    def pruned(self) -> Pruned:
        """How far the chain was cut off at its old end, for evidence; all zeros where it was not."""
        return self._store.pruned()

    def cut(self, last: int, at: int) -> int:
        """Drop the entries up to `last`, where an anchored batch ends that is not the newest; returns how many.

        For `privacy.audit.pruning`, which knows from when on the law lets them go. at: the instant, kept beside the
        head from which the rest goes on. Raises ValueError where no such batch ends there.
        """
        with self._guard, self._store.transaction() as database:
            anchored = self._store.batches()
            found = [first for first, end in anchored[:-1] if end == last]
            if not found:
                raise ValueError("the trail is cut where an anchored batch ends, and never after the newest")
            head = self.entries(last, last)[0].head()
            gone = self._store.cut(database, Pruned(found[0], last, head, at))
        self._store.cut_log()
        return gone

    # ---- inside

    def _batch(self, first: int, last: int) -> AccessBatch:
        entries = self.entries(first, last)
        if len(entries) != last - first + 1:
            raise self._store.broken(first + len(entries))
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

    def _append(
        self, use: Use, intent: int, outcome: Outcome, nonce: bytes | None = None, persons: Sequence[bytes] = ()
    ) -> Entry:
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
            self._store.insert(database, entry, persons)
        self._last = entry
        return entry
