"""Private documents: small files such as grant terms, wallets and secret keys, each under a key of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from privacy.vault.opened import Opened, number
from privacy.vault.rows import pad, unpad
from privacy.vault.tables import documents
from wire.domains import SALT, keyed
from wire.errors import Refused, VerificationError
from wire.identifiers import check_name

_KEY, _DOCUMENT = "document key", "document"
_STEP = 256


class Documents:
    """The documents of an open vault."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._revisions: Counter[str] = Counter()

    def put(self, kind: str, name: str, content: bytes) -> None:
        """See `Vault.put_document`."""
        self._opened.check_writes()
        with self._opened.database.transaction() as connection:
            self.write(connection, kind, name, content)
        self.revised(kind)

    def write(self, connection: sa.Connection, kind: str, name: str, content: bytes) -> bytes:
        """The same in a transaction of the caller's, who calls `revised` when it is done. Returns what is stored."""
        item = self._opened.document_id(check_name(kind, "document kind"), name)
        plaintext = pad(msgspec.msgpack.encode((name, content)), _STEP)
        mine = (documents.c.kind == kind) & (documents.c.document == item)
        found = connection.execute(sa.select(documents).where(mine)).one_or_none()
        if found is None:
            key, epoch, wrapped = self._opened.new_key(_KEY, kind, item)
            row = {"kind": kind, "document": item, "version": 1, "epoch": epoch, "wrapped": wrapped}
            sealed = self._opened.seal(key, plaintext, self._place(kind, item, 1))
            connection.execute(documents.insert().values(**row, sealed=sealed))
        else:
            version = number(found.version) + 1
            sealed = self._opened.seal(self._key(found), plaintext, self._place(kind, item, version))
            connection.execute(documents.update().where(mine).values(version=version, sealed=sealed))
        self._opened.fault("document:written")
        return sealed

    def get(self, kind: str, name: str) -> bytes:
        """See `Vault.document`."""

        return self._opened.reading(lambda connection: self.content(connection, kind, name))

    def find(self, kind: str, name: str) -> bytes | None:
        """See `Vault.find_document`."""

        def read(connection: sa.Connection) -> bytes | None:
            row = self._found(connection, kind, name)
            return None if row is None else self._content(row)[1]

        return self._opened.reading(read)

    def content(self, connection: sa.Connection, kind: str, name: str) -> bytes:
        """The same in a transaction of the caller's."""
        return self._content(self._row(connection, kind, name))[1]

    def names(self, kind: str) -> tuple[str, ...]:
        """See `Vault.documents`."""

        def read(connection: sa.Connection) -> tuple[str, ...]:
            found = connection.execute(sa.select(documents).where(documents.c.kind == kind)).all()
            with self._opened.provider.batch(f"list {kind}", len(found)):
                return tuple(sorted(self._content(row)[0] for row in found))

        return self._opened.reading(read)

    def every(self, connection: sa.Connection, kinds: Collection[str]) -> Iterator[tuple[str, str, bytes]]:
        """(kind, name, content) of every document of these kinds, in a transaction of the caller's."""
        found = connection.execute(sa.select(documents).where(documents.c.kind.in_(sorted(kinds)))).all()
        with self._opened.provider.batch("list documents", len(found)):
            for row in found:
                yield (row.kind, *self._content(row))

    def remove(self, kind: str, name: str) -> bool:
        """See `Vault.remove_document`."""
        self._opened.check_writes()
        with self._opened.database.transaction() as connection:
            gone = self.delete(connection, kind, name)
        if gone and self._opened.database.path is not None:
            self._opened.database.cut_log()
        self.revised(kind)
        return gone

    def delete(self, connection: sa.Connection, kind: str, name: str) -> bool:
        """The same in a transaction of the caller's."""
        mine = (documents.c.kind == kind) & (documents.c.document == self._opened.document_id(kind, name))
        gone = connection.execute(documents.delete().where(mine)).rowcount > 0
        self._opened.fault("document:removed")
        return gone

    def revised(self, kind: str) -> None:
        """Documents of this kind are others than before."""
        self._revisions[kind] += 1

    def revision(self, kind: str) -> int:
        """See `Vault.revision`."""
        return self._revisions[kind]

    def salt_key(self, kind: str, name: str) -> bytes:
        """See `Vault.document_salt_key`."""

        def read(connection: sa.Connection) -> bytes:
            return keyed(self._key(self._row(connection, kind, name)), SALT)

        return self._opened.reading(read)

    def _row(self, connection: sa.Connection, kind: str, name: str) -> Any:
        row = self._found(connection, kind, name)
        if row is None:
            raise Refused("privacy.no_document", kind=kind)
        return row

    def _found(self, connection: sa.Connection, kind: str, name: str) -> Any:
        mine = (documents.c.kind == kind) & (documents.c.document == self._opened.document_id(kind, name))
        return connection.execute(sa.select(documents).where(mine)).one_or_none()

    def _place(self, kind: str, item: bytes, version: int) -> Any:
        return self._opened.place(_DOCUMENT, kind, version=version, item=item)

    def _key(self, row: Any) -> bytes:
        try:
            return self._opened.own_key(row.epoch, row.wrapped, _KEY, row.kind, row.document)
        except VerificationError:
            raise VerificationError("privacy.vault_document", kind=row.kind) from None

    def _content(self, row: Any) -> tuple[str, bytes]:
        try:
            place = self._place(row.kind, row.document, number(row.version))
            plaintext = self._opened.unseal(self._key(row), row.sealed, place)
        except InvalidTag:
            raise VerificationError("privacy.vault_document", kind=row.kind) from None
        name, content = msgspec.msgpack.decode(unpad(plaintext), type=tuple[str, bytes])
        return name, content
