"""From a vault in which each spelling of an identifier was a person of its own to one id for each person.

Vaults were made so at first: a row stood under the keyed id of the identifier as its table wrote it. What a row says of
its person can be read back: the record id, or the cell of the person column, whose keyed id is the one that the row is
bound to. Where that is not the person's one spelling (`privacy.vault.person_names`), the row is bound to the person
anew, under the same data key, so that the salts of what was committed to stay what they are.

    scanned    every row's person; nothing is written
    noted      earlier id -> id of the person: documents of the vault, for what names a person elsewhere (audit trail,
               erasures, receipts)
    brought    one transaction: data keys, rows, large documents and notes under the ids, copies of tables dropped, and
               the vault's header, by which it is done

Cut short before that transaction, it begins again when the vault is next opened to write. Only what a row says makes an
id an earlier one: rows whose person stands in no cell stay where they are. An opt-out, which was noted under one
spelling and pointed to from others, is noted under each of them. Holds and notes on ids that no row has are awaited
(`privacy.vault.awaited`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from privacy.grants.opt_outs import MOST_OF_ONE, NOTE, note_of, opt_outs_in
from privacy.keys import NONCE_BYTES
from privacy.legal_holds import KIND as HOLD
from privacy.legal_holds import HoldKeeper, all_holds
from privacy.store import bulk
from privacy.suites import AES_256_GCM, SM4_GCM, data_cipher
from privacy.vault import awaited, tables
from privacy.vault.data_keys import KeyRow, Loads
from privacy.vault.descriptions import DatasetInfo, Descriptions
from privacy.vault.documents import Documents
from privacy.vault.opened import Opened, blob, current_epoch, number
from privacy.vault.person_notes import PersonNotes
from privacy.vault.places import APART, MAIN, NOBODY, ONE_NAME, VaultHeader, where_row
from privacy.vault.rows import unpad
from privacy.vault.streams import Streams
from privacy.vault.unsealing import ALTERED, Run, Unsealing
from wire.canonical import decode, encode
from wire.errors import Unavailable, VerificationError

_PAIRS = 10_000
_ALIKE = "opt-out-alike"
"""The kind of note that said, under the id of one spelling, under which id the person's opt-outs are noted."""
_COPY = "snapshot"
"""The kind of document without which a table's encrypted copy (`privacy.copies`) is made anew: it holds ids too."""
_KEYS = 1_000
_ALTERED = (*ALTERED, msgspec.MsgspecError, VerificationError)

Renamed = Mapping[bytes, bytes]


def rename_holds(vault: HoldKeeper, renamed: Renamed) -> None:
    """Have the legal holds of a vault name the persons by the ids that they have."""
    for hold in all_holds(vault) if renamed else ():
        if hold.person in renamed:
            present = msgspec.structs.replace(hold, person=renamed[hold.person])
            vault.put_document(HOLD, hold.hold, encode(present))


def look_again(opened: Opened, ids: awaited.Awaited) -> bool:
    """Whether somebody opened to write meanwhile what this process opened to read as a vault of before; then `opened`
    has the header and the ids of now. Raises VerificationError (altered)."""
    with opened.database.reading() as connection:
        found: Any = connection.execute(sa.select(tables.vault)).one()
    header = decode(VaultHeader, blob(found.header))
    if header.version != ONE_NAME:
        return False
    place = encode(opened.index_place(header))
    if opened.provider.unwrap(number(found.epoch), blob(found.wrapped), place) != opened.index_key:
        raise VerificationError("privacy.vault_keys", path=opened.database.place)
    opened.renamed = ids.known()
    opened.header = header
    return True


class Respelling:
    """Brings an open vault of before to one id for each person."""

    def __init__(
        self,
        opened: Opened,
        descriptions: Descriptions,
        documents: Documents,
        streams: Streams,
        ids: awaited.Awaited,
    ) -> None:
        self._opened, self._descriptions = opened, descriptions
        self._documents, self._streams, self._awaited = documents, streams, ids
        self._notes = PersonNotes(opened)

    def run(self) -> int:
        """See the module; returns how many ids changed. Raises Unavailable, Refused (an epoch is gone)."""
        opened = self._opened
        renamed = self._scanned()
        pairs = [old + new for old, new in sorted(renamed.items())]
        for at, start in enumerate(range(0, len(pairs), _PAIRS)):
            self._documents.put(awaited.EARLIER, str(at), b"".join(pairs[start : start + _PAIRS]))
        opened.fault("respell:noted")
        header = msgspec.structs.replace(opened.header, version=ONE_NAME)
        with opened.database.transaction() as connection:
            if renamed:
                for info in self._descriptions.all(connection):
                    self._dataset(connection, info, renamed)
                self._streams.rename(connection, renamed)
                copies = tables.documents
                connection.execute(copies.delete().where(copies.c.kind == _COPY))
            self._note_each_spelling(connection, renamed)
            self._notes.rename(connection, renamed)
            opened.renamed = renamed
            self._awaited.look(connection)
            epoch = current_epoch(opened.provider)
            wrapped = opened.provider.wrap(epoch, opened.index_key, encode(opened.index_place(header)))
            connection.execute(tables.vault.update().values(header=encode(header), epoch=epoch, wrapped=wrapped))
            opened.fault("respell:written")
        opened.header, opened.renamed = header, renamed
        if renamed and opened.database.path is not None:
            with suppress(Unavailable):  # it is done all the same
                opened.database.cut_log()
        return len(renamed)

    # ---- scanned

    def _scanned(self) -> dict[bytes, bytes]:
        """Ids under which rows are, and are not to be, each with the person's."""
        renamed: dict[bytes, bytes] = {}
        with self._opened.database.reading() as connection:
            for info in self._descriptions.all(connection):
                with self._opened.provider.batch(f"bring together the persons of {info.name}", info.keys):
                    for found, name in self._named(connection, info):
                        person = self._opened.person_id(name)
                        if person != found:
                            renamed[found] = person
        return renamed

    def _named(self, connection: sa.Connection, info: DatasetInfo) -> Iterator[tuple[bytes, str]]:
        """(keyed id, identifier) of each data key of a dataset, as far as a row of it says that."""
        if not info.has_persons and not info.has_record_ids:
            return
        unsealing, rows, at = Unsealing(self._opened, info), tables.rows, -1
        for claimed in self._keys(connection, info):
            firsts = [key.first for key in claimed]
            statement = sa.select(rows).where(rows.c.row.in_(firsts)).order_by(rows.c.row)
            first = bulk.fetch(connection, statement)
            for person, main, apart in _opened(unsealing, claimed, first):
                cells = main[1:] + apart[1:] if info.has_persons else main[:1]
                at = self._place_of(person, cells, at)
                if at >= 0:
                    yield person, cells[at]

    def _place_of(self, person: bytes, cells: Sequence[Any], before: int) -> int:
        """Which cell is the identifier of this person: most often the one that it was before; -1 for none."""
        if before >= 0 and self._is(person, cells[before]):
            return before
        return next((at for at, cell in enumerate(cells) if self._is(person, cell)), -1)

    def _is(self, person: bytes, cell: Any) -> bool:
        if not isinstance(cell, str):
            return False
        found = self._opened.spelling_id(cell)
        return found == person or self._opened.person_id(cell) == person

    def _keys(self, connection: sa.Connection, info: DatasetInfo) -> Iterator[list[KeyRow]]:
        """The data keys of a dataset that are of persons, some at a time."""
        keys, after = tables.keys, tables.numbered(info.number)[0] - 1
        while True:
            mine = keys.c.first.between(after + 1, info.next_row - 1) & keys.c.person.isnot(None)
            found = bulk.fetch(connection, sa.select(keys).where(mine).order_by(keys.c.first).limit(_KEYS))
            if not found:
                return
            yield [KeyRow(*row) for row in found]
            after = found[-1][0]

    # ---- notes and holds

    def _note_each_spelling(self, connection: sa.Connection, renamed: Renamed) -> None:
        """An opt-out stood under one spelling: note it under each that pointed there. Whose they are is not known: what
        was taken for an identity number may be none."""
        every = list(self._notes.every(connection))
        noted = {person: content for kind, person, content in every if kind == NOTE}
        for other, under in [(person, content) for kind, person, content in every if kind == _ALIKE]:
            if under in noted and renamed.get(other, other) != renamed.get(under, under):
                self._notes.write(connection, NOTE, other, _together([noted[under], noted.get(other, noted[under])]))
        notes = tables.person_notes
        connection.execute(notes.delete().where(notes.c.kind == _ALIKE))

    # ---- brought together

    def _dataset(self, connection: sa.Connection, info: DatasetInfo, renamed: Renamed) -> None:
        places, epoch = Loads(self._opened, info), current_epoch(self._opened.provider)
        keys, rows, changed = tables.keys, tables.rows, 0
        of_key = keys.update().where(keys.c.first == sa.bindparam("at"))
        of_key = of_key.values(person=sa.bindparam("whose"), epoch=epoch, wrapped=sa.bindparam("wrap"))
        of_row = rows.update().where(rows.c.row == sa.bindparam("at"))
        of_row = of_row.values(sealed=sa.bindparam("main"), apart=sa.bindparam("other"))
        unsealing = Unsealing(self._opened, info)
        for claimed in self._keys(connection, info):
            moving = [key for key in claimed if key.person in renamed]
            if not moving:
                continue
            with self._opened.provider.batch(f"bring together the persons of {info.name}", len(moving)):
                masters = unsealing.masters(moving)
            span = rows.c.row.between(moving[0].first, moving[-1].first + moving[-1].rows - 1)
            there = {row[0]: row for row in bulk.fetch(connection, sa.select(rows).where(span))}
            bound: list[dict[str, Any]] = []
            wraps: list[tuple[KeyRow, tuple[bytes, bytes]]] = []
            for key, master in zip(moving, masters, strict=True):
                if master is not None and key.person is not None:
                    load, whose = places.of(key.load), key._replace(person=renamed[key.person])
                    mine = [there[at] for at in range(key.first, key.first + key.rows) if at in there]
                    bound += self._bound(info, mine, master, load + key.person, load + renamed[key.person])
                    wraps.append((whose, (master, whose.place(load))))
            new = self._opened.provider.wrap_many(epoch, [wrap for _, wrap in wraps])
            of_keys = [
                {"at": whose.first, "whose": whose.person, "wrap": wrap}
                for (whose, _), wrap in zip(wraps, new, strict=True)
            ]
            bulk.run_many(connection, of_row, bound)
            bulk.run_many(connection, of_key, of_keys)
            changed += len(of_keys)
        if changed:
            self._descriptions.change(connection, info)

    def _bound(
        self, info: DatasetInfo, rows: Sequence[bulk.Row], master: bytes, before: bytes, after: bytes
    ) -> Iterator[dict[str, Any]]:
        """The rows of a data key, which are bound to `before`, bound to `after`. One that was altered is passed by."""
        other = SM4_GCM if info.suite == AES_256_GCM else AES_256_GCM
        ciphers = {MAIN: data_cipher(info.suite, master), APART: data_cipher(other, master)}

        def again(row: bulk.Row, sealed: bytes | None, part: bytes) -> bytes | None:
            if sealed is None:
                return None
            where, nonce = (row[2] or NOBODY) + where_row(row[0], row[1], part), self._opened.rand(NONCE_BYTES)
            plain = ciphers[part].decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], before + where)
            return nonce + ciphers[part].encrypt(nonce, plain, after + where)

        for row in rows:
            with suppress(InvalidTag, *ALTERED):
                yield {"at": row[0], "main": again(row, row[3], MAIN), "other": again(row, row[4], APART)}


def _together(contents: Iterable[bytes]) -> bytes:
    """The opt-outs of several notes as one; of too many those that last longest."""
    said = dict.fromkeys(one for content in contents for one in opt_outs_in(content))
    return note_of(sorted(said, key=lambda one: one.until, reverse=True)[:MOST_OF_ONE])


def _opened(
    unsealing: Unsealing, claimed: Sequence[KeyRow], rows: Sequence[bulk.Row]
) -> Iterator[tuple[bytes, list[Any], list[Any]]]:
    """(person, cells of the main part, cells of the other) of the first row of each key; what was altered is passed by:
    whoever reads the table is told."""
    masters = unsealing.masters(claimed)
    try:
        yield from _decoded(unsealing.opened(claimed, masters, rows))
    except _ALTERED:
        first = {row[0]: row for row in rows}
        for key, master in zip(claimed, masters, strict=True):
            if key.first in first:
                with suppress(*_ALTERED):
                    yield from _decoded(unsealing.opened([key], [master], [first[key.first]]))


def _decoded(run: Run) -> list[tuple[bytes, list[Any], list[Any]]]:
    decode = msgspec.msgpack.Decoder(list[Any]).decode
    main = [decode(unpad(part)) for part in run.main]
    apart = [decode(unpad(part)) for part in run.apart] or [[]] * len(main)
    return list(zip(run.persons, main, apart, strict=True))
