"""Notes about persons beside their records, such as opt-outs and legal holds: sealed, each under a key of its own.

A person is named by the keyed id that the data keys carry, so that a note outlives the records and says nothing of whom
it is about to somebody without the vault's keys.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """The notes of an open vault: one of each kind for a person."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def put(self, kind: str, person: bytes, content: bytes) -> None:
        """See `Vault.put_person_note`."""
        self._opened.check_writes()
        if len(person) != ID_BYTES:
            raise ValueError("a keyed person id has 16 bytes")
        check_name(kind, "kind of note")
        with self._opened.database.transaction() as connection:
            key, epoch, wrapped = self._opened.new_key(_KEY, kind, person)
            sealed = self._opened.seal(key, pad(content, _STEP), self._opened.place(_NOTE, kind, item=person))
            connection.execute(person_notes.delete().where(_mine(kind, person)))
            row = {"kind": kind, "person": person, "epoch": epoch, "wrapped": wrapped, "sealed": sealed}
            connection.execute(person_notes.insert().values(**row))

    def all(self, kind: str) -> Iterator[tuple[bytes, bytes]]:
        """See `Vault.person_notes`."""
        statement = sa.select(person_notes).where(person_notes.c.kind == kind).order_by(person_notes.c.person)

        def read(connection: sa.Connection) -> list[tuple[bytes, bytes]]:
            rows = connection.execute(statement).all()
            with self._opened.provider.batch(f"list {kind}", len(rows)):
                return [(row.person, self._content(row)) for row in rows]

        yield from self._opened.reading(read)

    def _content(self, row: Any) -> bytes:
        try:
            key = self._opened.own_key(row.epoch, row.wrapped, _KEY, row.kind, row.person)
            return unpad(self._opened.unseal(key, row.sealed, self._opened.place(_NOTE, row.kind, item=row.person)))
        except (InvalidTag, VerificationError):
            raise VerificationError("privacy.vault_document", kind=row.kind) from None

    def remove(self, kind: str, person: bytes) -> bool:
        """See `Vault.remove_person_note`."""
        self._opened.check_writes()
        with self._opened.database.transaction() as connection:
            gone = connection.execute(person_notes.delete().where(_mine(kind, person))).rowcount > 0
        if gone and self._opened.database.path is not None:
            self._opened.database.cut_log()
        return gone


def _mine(kind: str, person: bytes) -> sa.ColumnElement[bool]:
    return (person_notes.c.kind == kind) & (person_notes.c.person == person)
