"""Safeguards: what a vault keeps to protect persons, noted in a log beside the register before its tables have it.

    legal holds, erasures, recalls      documents of the kinds in `KINDS`
    opt-outs                            notes about persons, of every kind
    restrictions                        states of data keys
    rotations                           the epoch that every key was wrapped under

    write     the tables, the log, the tables' mark (number of the log's last entry, and when it was noted): in one
              transaction, the log durable before it ends
    open      what the log has beyond the mark goes into the tables; where the mark is beyond the log (it was lost, or
              an older copy of it lies there) the log gets what the tables have, as of the mark's instant: a log that
              is found again has later words (`take_over`)

So a vault that comes back from a backup takes over what protected somebody since, as it does with the register of
erasures. A write that failed after the log had it takes effect with the next one, or at the next opening.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from privacy.vault.awaited import Awaited
from privacy.vault.data_keys import DataKeys
from privacy.vault.documents import Documents
from privacy.vault.opened import Opened
from privacy.vault.person_notes import PersonNotes
from privacy.vault.safeguard_log import Safeguard, SafeguardLog, What, latest
from privacy.vault.tables import documents

FILE = "safeguards"
"""The log's file, beside the register of erasures."""
KINDS = frozenset(("legal-hold", "erasure", "erasure-begun", "extract-recall", "delete-notice", "limits-answered"))
"""Kinds of documents that protect persons: `privacy.legal_holds`, `privacy.erasure`, `medveil.gateway.recalling` and
`medveil.gateway.limits_asked`."""

_MARK = "safeguards"
"""Kind and name of the document that says how far the tables are: number, instant (ms UTC), 8 bytes each. Marks of
before have no instant: `_BEFORE`."""
_TOGETHER = 1_000
_BEFORE = 0
"""The instant of what tables had before there was a log, or a mark with an instant: nobody knows since when, and any
later word counts more."""


class Safeguards:
    """What protects persons in an open vault. folder: where its register lies. awaited: is told when tables get what
    a log had, which may name persons by earlier ids."""

    def __init__(
        self,
        opened: Opened,
        folder: Path,
        documents: Documents,
        notes: PersonNotes,
        data_keys: DataKeys,
        awaited: Awaited,
    ) -> None:
        self.log = SafeguardLog(folder / FILE, opened.index_key, opened.rand)
        self._opened = opened
        self._documents, self._notes, self._keys = documents, notes, data_keys
        self._awaited = awaited
        self._marked, self._number, self._since = b"", 0, _BEFORE  # the mark as this process stored or read it last

    # ---- what is kept

    def put_document(self, kind: str, name: str, content: bytes) -> None:
        """See `Vault.put_document`."""
        if kind not in KINDS:
            self._documents.put(kind, name, content)
            return
        with self._noting() as (connection, note):
            self._documents.write(connection, kind, name, content)
            note(self._safeguard("document", kind, name.encode(), content))
        self._documents.revised(kind)

    def remove_document(self, kind: str, name: str) -> bool:
        """See `Vault.remove_document`."""
        if kind not in KINDS:
            return self._documents.remove(kind, name)
        with self._noting() as (connection, note):
            gone = self._documents.delete(connection, kind, name)
            if gone:
                note(self._safeguard("document", kind, name.encode(), gone=True))
        self._forget(gone)
        self._documents.revised(kind)
        return gone

    def put_note(self, kind: str, person: bytes, content: bytes) -> None:
        """See `Vault.put_person_note`."""
        try:
            with self._noting() as (connection, note):
                self._notes.write(connection, kind, person, content)
                note(self._safeguard("note", kind, person, content), *self._gone(kind, self._notes.earlier(person)))
        finally:
            self._notes.revised(kind)

    def remove_note(self, kind: str, person: bytes) -> bool:
        """See `Vault.remove_person_note`."""
        try:
            with self._noting() as (connection, note):
                gone = self._notes.delete(connection, kind, person)
                if gone:
                    note(*self._gone(kind, [person, *self._notes.earlier(person)]))
        finally:
            self._notes.revised(kind)
        self._forget(gone)
        return gone

    def restrict(self, keys: Sequence[bytes], restricted: bool) -> int:
        """See `Vault.restrict`, `Vault.unrestrict`."""
        with self._noting() as (connection, note):
            turned = self._keys.turn(connection, keys, restricted)
            if turned:
                note(*(self._safeguard("key", "", key, gone=not restricted) for key in dict.fromkeys(keys)))
        return turned

    def rotated(self, epoch: int) -> None:
        """Every key is wrapped under `epoch`, and what is older was destroyed."""
        with self._noting() as (_, note):
            note(self._safeguard("epoch", "", b"", epoch.to_bytes(4, "big")))

    def epochs_are_back(self) -> bool:
        """See `Vault.epochs_are_back`."""
        found = latest(self.log.entries()).get(("epoch", "", b""))
        return found is not None and min(self._opened.provider.epochs()) < int.from_bytes(found[1].content, "big")

    # ---- log and tables

    def settle(self) -> None:
        """Bring tables and log to one state."""
        self._opened.check_writes()
        with self._opened.database.transaction() as connection:
            found = self._catch_up(connection)
        self._came(found)

    def take_over(self, other: Path) -> int:
        """See `Vault.take_over`."""
        theirs = latest(self.log.entries(other))
        with self._noting() as (connection, note):
            mine = latest(self.log.entries())
            new = [
                (one.at, number, one)
                for about, (number, one) in theirs.items()
                if about not in mine or _later(one, number, mine[about][1], mine[about][0])
            ]
            said = [one for _, _, one in sorted(new, key=lambda each: each[:2])]
            if said:
                self._apply(connection, said)
                self._awaited.look(connection)
                note(*said)
        self._came(said)
        return len(said)

    @contextmanager
    def _noting(self) -> Iterator[tuple[sa.Connection, Callable[..., None]]]:
        """A writing transaction whose last act is to note what it changed."""
        self._opened.check_writes()
        with self._opened.database.transaction() as connection:
            found = self._catch_up(connection)

            def note(*together: Safeguard) -> None:
                self._opened.fault("safeguards:written")
                number = self.log.append(together)
                self._opened.fault("safeguards:noted")
                self._mark(connection, number, self._opened.clock())

            yield connection, note
            self._opened.fault("safeguards:marked")
        self._came(found)

    def _catch_up(self, connection: sa.Connection) -> list[Safeguard]:
        """Bring both to one state; returns what the log had and the tables had not."""
        mine = (documents.c.kind == _MARK) & (documents.c.document == self._opened.document_id(_MARK, _MARK))
        stored = connection.execute(sa.select(documents.c.sealed).where(mine)).scalar_one_or_none()
        mark, number = self._marked_number(connection, stored), self.log.number()
        if mark == number:
            return []
        said = latest(self.log.entries())
        newer = [one for at, one in said.values() if at > (mark or 0)]
        if newer:
            self._apply(connection, newer)
            self._awaited.look(connection)
        since = _BEFORE if mark is None else self._since
        if mark is None or number < mark:
            number = self._write_log(connection, {about: one for about, (_, one) in said.items()}, mark, since)
        self._mark(connection, number, max([since, *(one.at for one in newer)]))
        return newer

    def _marked_number(self, connection: sa.Connection, stored: bytes | None) -> int | None:
        """How far the tables are; None for those of before there was a log."""
        if stored is None:
            return None
        if stored != self._marked or not self._marked:
            content = self._documents.content(connection, _MARK, _MARK)
            self._number = int.from_bytes(content[:8], "big")
            self._since = int.from_bytes(content[8:], "big")
            self._marked = stored
        return self._number

    def _mark(self, connection: sa.Connection, number: int, since: int) -> None:
        self._number, self._since = number, since
        content = number.to_bytes(8, "big") + since.to_bytes(8, "big")
        self._marked = self._documents.write(connection, _MARK, _MARK, content)

    def _apply(self, connection: sa.Connection, said: Sequence[Safeguard]) -> None:
        """Put into the tables what a log says, in its order."""
        for one in said:
            match one.what, one.gone:
                case "document", False:
                    self._documents.write(connection, one.kind, one.item.decode(), one.content)
                case "document", True:
                    self._documents.delete(connection, one.kind, one.item.decode())
                case "note", False:
                    self._notes.write(connection, one.kind, one.item, one.content)
                case "note", True:
                    self._notes.delete(connection, one.kind, one.item)
        for restricted in (True, False):
            keys = [one.item for one in said if one.what == "key" and one.gone is not restricted]
            there = self._keys.there(connection, keys)
            with self._opened.provider.batch("restrict again", len(there)):
                self._keys.turn(connection, there, restricted)

    def _came(self, said: Sequence[Safeguard]) -> None:
        """What was put into the tables is there for whoever reads them from now on: the transaction has ended."""
        for one in said:
            if one.what == "document":
                self._documents.revised(one.kind)
            elif one.what == "note":
                self._notes.revised(one.kind)
        if said:
            self._awaited.came()

    def _write_log(
        self, connection: sa.Connection, said: dict[tuple[str, str, bytes], Safeguard], mark: int | None, since: int
    ) -> int:
        """Note what the tables have and the log has not, as of `since`. Returns the number of its last entry."""
        have = {one.about: one for one in self._have(connection, since)}
        missing = [
            one
            for about, one in have.items()
            if about not in said or (said[about].content, said[about].gone) != (one.content, False)
        ]
        if mark is not None:  # the tables are ahead: what they have no more was removed
            gone = [one for about, one in said.items() if about not in have and not one.gone and one.what != "epoch"]
            missing += [Safeguard(one.what, one.kind, one.item, b"", gone=True, at=since) for one in gone]
        number = max(self.log.number(), mark or 0)
        for start in range(0, len(missing), _TOGETHER):
            number = self.log.append(missing[start : start + _TOGETHER], above=number)
        return number

    def _have(self, connection: sa.Connection, at: int) -> Iterator[Safeguard]:
        """What the tables have."""
        for kind, name, content in self._documents.every(connection, KINDS):
            yield Safeguard("document", kind, name.encode(), content, False, at)
        for kind, person, content in self._notes.every(connection):
            yield Safeguard("note", kind, person, content, False, at)
        for key in self._keys.restricted(connection):
            yield Safeguard("key", "", key, b"", False, at)

    def _gone(self, kind: str, persons: Sequence[bytes]) -> list[Safeguard]:
        return [self._safeguard("note", kind, person, gone=True) for person in persons]

    def _safeguard(self, what: What, kind: str, item: bytes, content: bytes = b"", *, gone: bool = False) -> Safeguard:
        return Safeguard(what, kind, item, content, gone, self._opened.clock())

    def _forget(self, gone: bool) -> None:
        if gone and self._opened.database.path is not None:
            self._opened.database.cut_log()


def _later(theirs: Safeguard, number: int, mine: Safeguard, own: int) -> bool:
    """Whether what another log says of the same thing is later; of what neither knows the instant, theirs is."""
    return theirs != mine and (theirs.at == mine.at == _BEFORE or (theirs.at, number) > (mine.at, own))
