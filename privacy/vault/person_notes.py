"""Notes about persons beside their records, such as opt-outs and legal holds: sealed, each under a key of its own.

A person is named by the keyed id that the data keys carry, so that a note outlives the records and says nothing of whom
it is about to somebody without the vault's keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from privacy.vault.opened import Opened
from privacy.vault.places import ID_BYTES
from privacy.vault.rows import pad, unpad
from privacy.vault.tables import person_notes
from wire.errors import VerificationError
from wire.identifiers import check_name

_KEY, _NOTE = "note key", "note"
_STEP = 256


class PersonNotes:
    """The notes of an open vault: one of each kind for a person. What writes is in a transaction of the caller's."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._revisions: Counter[str] = Counter()

    def revised(self, kind: str) -> None:
        """Notes of this kind are others than before."""
        self._revisions[kind] += 1

    def revision(self, kind: str) -> int:
        """See `Vault.revision`."""
        return self._revisions[kind]

    def write(self, connection: sa.Connection, kind: str, person: bytes, content: bytes) -> None:
        """See `Vault.put_person_note`."""
        if len(person) != ID_BYTES:
            raise ValueError("a keyed person id has 16 bytes")
        check_name(kind, "kind of note")
        connection.execute(person_notes.delete().where(self._mine(kind, person)))
        self._insert(connection, kind, person, content)

    def _insert(self, connection: sa.Connection, kind: str, person: bytes, content: bytes) -> None:
        key, epoch, wrapped = self._opened.new_key(_KEY, kind, person)
        sealed = self._opened.seal(key, pad(content, _STEP), self._opened.place(_NOTE, kind, item=person))
        row = {"kind": kind, "person": person, "epoch": epoch, "wrapped": wrapped, "sealed": sealed}
        connection.execute(person_notes.insert().values(**row))

    def all(self, kind: str) -> Iterator[tuple[bytes, bytes]]:
        """See `Vault.person_notes`."""
        statement = sa.select(person_notes).where(person_notes.c.kind == kind).order_by(person_notes.c.person)

        def read(connection: sa.Connection) -> list[tuple[bytes, bytes]]:
            rows = connection.execute(statement).all()
            with self._opened.provider.batch(f"list {kind}", len(rows)):
                renamed = self._opened.renamed
                return [(renamed.get(row.person, row.person), self._content(row)) for row in rows]

        yield from self._opened.reading(read)

    def _content(self, row: Any) -> bytes:
        try:
            key = self._opened.own_key(row.epoch, row.wrapped, _KEY, row.kind, row.person)
            return unpad(self._opened.unseal(key, row.sealed, self._opened.place(_NOTE, row.kind, item=row.person)))
        except (InvalidTag, VerificationError):
            raise VerificationError("privacy.vault_document", kind=row.kind) from None

    def every(self, connection: sa.Connection) -> Iterator[tuple[str, bytes, bytes]]:
        """(kind, keyed person, content) of every note of any kind."""
        rows = connection.execute(sa.select(person_notes)).all()
        with self._opened.provider.batch("list notes", len(rows)):
            for row in rows:
                yield row.kind, row.person, self._content(row)

    def delete(self, connection: sa.Connection, kind: str, person: bytes) -> bool:
        """See `Vault.remove_person_note`."""
        return connection.execute(person_notes.delete().where(self._mine(kind, person))).rowcount > 0

    def earlier(self, person: bytes) -> list[bytes]:
        """The ids that a person had before."""
        return [old for old, now in self._opened.renamed.items() if now == person]

    def rename(self, connection: sa.Connection, renamed: Mapping[bytes, bytes]) -> None:
        """Bring notes to other persons' ids (`privacy.vault.respelling`), in the caller's transaction.

        Where the person has a note of that kind already, both stay, and are listed as of the same person.
        """
        rows = connection.execute(sa.select(person_notes)).all()
        there = {(row.kind, row.person) for row in rows}
        for row in rows:
            person = renamed.get(row.person)
            if person is not None and (row.kind, person) not in there:
                content = self._content(row)
                mine = (person_notes.c.kind == row.kind) & (person_notes.c.person == row.person)
                connection.execute(person_notes.delete().where(mine))
                self._insert(connection, row.kind, person, content)
                there.add((row.kind, person))

    def _mine(self, kind: str, person: bytes) -> sa.ColumnElement[bool]:
        """Of a person, by the ids that it had before, too."""
        return (person_notes.c.kind == kind) & person_notes.c.person.in_([person, *self.earlier(person)])
