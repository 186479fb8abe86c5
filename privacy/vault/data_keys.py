"""Data keys: one for the rows of one person in one dataset that came together and are kept equally long.

    key id     8 random bytes of the part of a load it came with || number of its first row (8)
    K          32 random bytes, wrapped under the provider's current epoch
    K -> data  the key that encrypts the rows          K -> salt  the key of the salts of ledger commitments

Associated data of the wrap binds dataset, load, person, number of rows, `retain_until` and state: none of them can be
changed in the file. Destroying a key deletes its row of the table and its data rows, and with it ciphertext and salts;
what the vault holds in all is sealed in the dataset's description, which the same transaction rewrites.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import sqlalchemy as sa

from privacy.store import bulk
from privacy.vault import tables
from privacy.vault.descriptions import DatasetInfo, Descriptions
from privacy.vault.opened import Opened, current_epoch, unwrap_all
from privacy.vault.places import ID_BYTES, bound_schema, key_place, load_place
from privacy.vault.register import RECEIPT_BYTES, Erasure, Register
from privacy.vault.streams import StreamRow, Streams
from privacy.vault.tables import ACTIVE, RESTRICTED, ROW_BITS, keys
from wire.errors import Refused, VerificationError

State = Literal["active", "restricted"]

_STATES: tuple[State, State] = ("active", "restricted")
MARK_BYTES = 16
_READERS = 2.0
"""Seconds that an erasure waits for those who read an older state; `Vault.tidy` does the rest."""
_ASKED = 500
"""Keys that one statement asks for."""


class DataKey(NamedTuple):
    """A data key, as the vault's tables show it: nothing of it is secret towards whoever may open the vault.

    key: id, 16 bytes. dataset: or "document.KIND" for the key of a large document of that kind. person: keyed id, 16
    bytes; the key's own id where a row is its own person. rows: 1 of a document. retain_until: civil
    day, or None without a duty to keep. load: the dataset's version that brought it.
    """

    key: bytes
    dataset: str
    person: bytes
    rows: int
    retain_until: int | None
    state: State
    load: int


class KeyRow(NamedTuple):
    """A row of the table, in the order of its columns."""

    first: int
    key: bytes
    person: bytes | None
    rows: int
    load: int
    retain_until: int | None
    state: int
    epoch: int
    wrapped: bytes

    def place(self, load: bytes, state: int | None = None) -> bytes:
        """Associated data of its wrap. load: `privacy.vault.places.load_place` of its load."""
        state = self.state if state is None else state
        return key_place(load, self.key, self.person, self.rows, self.retain_until, state)


def key_id(batch: bytes, first: int) -> bytes:
    """The id of the key whose first row is `first`. batch: 8 random bytes of the part of the load."""
    return batch + first.to_bytes(8, "big")


class Loads:
    """Associated data of a dataset's loads, as far as it was asked for."""

    def __init__(self, opened: Opened, info: DatasetInfo) -> None:
        bound = bound_schema(info.columns, info.schema_hash)
        self._place: Callable[[int], bytes] = lambda load: load_place(opened.header, info.name, bound, info.suite, load)
        self._known: dict[int, bytes] = {}

    def of(self, load: int) -> bytes:
        """`load_place` of one."""
        found = self._known.get(load)
        if found is None:
            found = self._known[load] = self._place(load)
        return found


class Known:
    """The datasets of one state of the vault by number, described when they are asked for."""

    def __init__(self, descriptions: Descriptions, connection: sa.Connection) -> None:
        self._descriptions, self._connection = descriptions, connection
        self._names = descriptions.numbers(connection)
        self._infos: dict[int, DatasetInfo] = {}

    def of(self, row: KeyRow) -> DatasetInfo | None:
        """The dataset of a key; None for a key that no dataset in use has: of a load that is not finished.

        Raises VerificationError (altered).
        """
        number = row.first >> ROW_BITS
        if number not in self._infos and number in self._names:
            self._infos[number] = self._descriptions.of(self._connection, self._names[number])
        info = self._infos.get(number)
        return None if info is None or row.first >= info.next_row else info


class DataKeys:
    """The data keys of an open vault."""

    def __init__(self, opened: Opened, descriptions: Descriptions, register: Register, streams: Streams) -> None:
        self._opened = opened
        self._streams = streams
        self._descriptions = descriptions
        self._register = register

    def of_person(self, person: bytes) -> tuple[DataKey, ...]:
        """The keys of one person, over all datasets, each held against its wrap: what is said of it was not altered.

        person: keyed id, or the id of a key whose row is its own. Raises VerificationError.
        """

        def read(connection: sa.Connection) -> tuple[DataKey, ...]:
            found = bulk.fetch(connection, sa.select(keys).where(keys.c.person == person).order_by(keys.c.first))
            own = not found and len(person) == ID_BYTES
            rows = self._found(connection, [person]) if own else [KeyRow(*row) for row in found]
            known = Known(self._descriptions, connection)
            own_rows = [(row, info) for row in rows if (info := known.of(row)) is not None]
            self._check(own_rows)
            shown = [_shown(row, info) for row, info in own_rows]
            large = self._streams.of_person(connection, person)
            self._streams.check(connection, large)
            return (*shown, *map(_document, large))

        return self._opened.reading(read)

    def every(self, dataset: str = "") -> Iterator[DataKey]:
        """Every data key, or those of one dataset, in the order of their rows; one state of the vault."""
        with self._opened.database.reading() as connection:
            known = Known(self._descriptions, connection)
            statement = sa.select(keys).order_by(keys.c.first)
            if dataset:
                info = self._descriptions.of(connection, dataset)
                statement = statement.where(keys.c.first.between(*tables.numbered(info.number)))
            for some in bulk.stream(connection, statement):
                for row in map(KeyRow._make, some):
                    if (of := known.of(row)) is not None:
                        yield _shown(row, of)
            if not dataset:
                yield from map(_document, self._streams.every(connection))

    def erasures(self, since: int = 0) -> tuple[Erasure, ...]:
        """Tombstones from `since` (ms UTC) on, in the order of their time."""
        erased = tables.erased
        statement = sa.select(erased.c.key, erased.c.receipt, erased.c.at).where(erased.c.at >= since)
        with self._opened.database.reading() as connection:
            found = bulk.fetch(connection, statement.order_by(erased.c.at, erased.c.key))
        if any((len(key), len(receipt)) != (ID_BYTES, RECEIPT_BYTES) or at < 0 for key, receipt, at in found):
            raise VerificationError("privacy.vault_cell")
        return tuple(map(Erasure._make, found))

    def marks(self, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """By key, of those that are there: the first 16 bytes of its wrap, which are random and tell nothing of it."""
        with self._opened.database.reading() as connection:
            there = [(row.key, row.wrapped) for row in self._found(connection, ids)]
            there += [(row.key, row.wrapped) for row in self._streams.found(connection, ids)]
            return {key: wrapped[:MARK_BYTES] for key, wrapped in there}

    # ---- active <-> restricted

    def turn(self, connection: sa.Connection, ids: Sequence[bytes], restricted: bool) -> int:
        """See `Vault.restrict`; in a transaction of the caller's."""
        before, after = (ACTIVE, RESTRICTED) if restricted else (RESTRICTED, ACTIVE)
        rows, large = self._found(connection, ids), self._streams.found(connection, ids)
        if len(rows) + len(large) != len(set(ids)):
            raise Refused("privacy.no_key")
        turned = self._streams.turn(connection, large, before, after)
        known = Known(self._descriptions, connection)
        changing = [row for row in rows if row.state == before]
        epoch = current_epoch(self._opened.provider)
        by_dataset = defaultdict[str, list[KeyRow]](list)
        for row in changing:
            of = known.of(row)
            if of is None:
                raise Refused("privacy.no_key")
            by_dataset[of.name].append(row)
        for name, some in by_dataset.items():
            info = self._descriptions.of(connection, name)
            places = Loads(self._opened, info)
            wraps = [(row.wrapped, row.place(places.of(row.load))) for row in some]
            masters = unwrap_all(self._opened.provider, [row.epoch for row in some], wraps)
            if None in masters:
                raise VerificationError("privacy.vault_dataset", dataset=info.name)
            again = self._opened.provider.wrap_many(
                epoch,
                [
                    (key, row.place(places.of(row.load), after))
                    for key, row in zip(masters, some, strict=True)
                    if key is not None
                ],
            )
            bulk.run_many(
                connection,
                keys.update()
                .where(keys.c.first == sa.bindparam("at"))
                .values(state=after, epoch=epoch, wrapped=sa.bindparam("wrap")),
                [{"at": row.first, "wrap": wrap} for row, wrap in zip(some, again, strict=True)],
            )
            hidden = sum(row.rows for row in some) * (1 if restricted else -1)
            self._descriptions.change(connection, info, restricted=info.restricted + hidden)
        return len(changing) + turned

    def there(self, connection: sa.Connection, ids: Sequence[bytes]) -> list[bytes]:
        """Those of these keys that the tables have."""
        found = [row.key for row in self._found(connection, ids)]
        return found + [row.key for row in self._streams.found(connection, ids)]

    def restricted(self, connection: sa.Connection) -> list[bytes]:
        """The ids of all restricted keys, unchecked."""
        found = bulk.fetch(connection, sa.select(keys.c.key).where(keys.c.state == RESTRICTED))
        large = sa.select(tables.streams.c.key).where(tables.streams.c.state == RESTRICTED)
        return [key for (key,) in (*found, *bulk.fetch(connection, large))]

    # ---- erased

    def destroy(self, ids: Sequence[bytes], receipt: bytes) -> int:
        """Destroy keys and delete their rows; returns how many were there.

        As the one that writes: the register first, then the tables. Raises Unavailable; where the register names the
        keys already, they are gone when the vault is opened the next time.
        """
        self._opened.check_writes()
        at = self._opened.clock()
        return self._remove([Erasure(key, receipt, at) for key in dict.fromkeys(ids)], noted=False)

    def settle(self) -> int:
        """Remove what the register names and is there; note in the register what it lost. Returns how many went."""
        noted = self._register.entries()
        done = self.erasures()
        names = {erasure.key for erasure in noted}
        self._register.append(erasure for erasure in done if erasure.key not in names)
        left = {erasure.key for erasure in noted}.difference(erasure.key for erasure in done)
        return self._remove([erasure for erasure in noted if erasure.key in left]) if left else 0

    def pending(self) -> bool:
        """Whether the register names a key that is there."""
        left = {erasure.key for erasure in self._register.entries()}
        left.difference_update(erasure.key for erasure in self.erasures())
        with self._opened.database.reading() as connection:
            return bool(self._found(connection, left) or self._streams.found(connection, left))

    def _remove(self, erasures: Sequence[Erasure], noted: bool = True) -> int:
        """noted: the register names them; else those that are there are noted now."""
        opened, erased = self._opened, tables.erased
        with opened.database.transaction() as connection:
            named = [erasure.key for erasure in erasures]
            rows, large = self._found(connection, named), self._streams.found(connection, named)
            if not noted:
                named = [row.key for row in rows] + [row.key for row in large]
                there = set(named)
                erasures = [erasure for erasure in erasures if erasure.key in there]
                self._register.append(erasures)
                opened.fault("destroy:registered")
            opened.fault("destroy:begun")
            self._streams.delete(connection, large)
            opened.fault("destroy:documents")
            spans = [{"low": row.first, "high": row.first + row.rows - 1} for row in rows]
            between = tables.rows.c.row.between(sa.bindparam("low"), sa.bindparam("high"))
            bulk.run_many(connection, tables.rows.delete().where(between), spans)
            opened.fault("destroy:rows")
            firsts = [{"low": row.first} for row in rows]
            bulk.run_many(connection, keys.delete().where(keys.c.first == sa.bindparam("low")), firsts)
            opened.fault("destroy:keys")
            stones = self._stones(connection, named)
            bulk.insert(connection, erased, [(e.key, e.at, e.receipt) for e in erasures if e.key not in stones])
            self._subtract(connection, rows)
            opened.fault("destroy:written")
        opened.fault("destroy:committed")
        if opened.database.path is not None:
            self._cut_log()
        self._streams.forget([row.blob for row in large])
        return len(rows) + len(large)

    # ---- inside

    def _cut_log(self) -> None:
        """Have the journal forget what was deleted; whoever reads an older state keeps it from that, for a while."""
        until = time.monotonic() + _READERS
        while not self._opened.database.cut_log() and time.monotonic() < until:
            time.sleep(0.05)

    def _check(self, rows: Sequence[tuple[KeyRow, DatasetInfo]]) -> None:
        """Raises VerificationError naming the dataset of a key that was altered."""
        wraps = [(row.wrapped, row.place(Loads(self._opened, info).of(row.load))) for row, info in rows]
        found = unwrap_all(self._opened.provider, [row.epoch for row, _ in rows], wraps)
        for (_, info), key in zip(rows, found, strict=True):
            if key is None:
                raise VerificationError("privacy.vault_dataset", dataset=info.name)

    def _subtract(self, connection: sa.Connection, rows: Sequence[KeyRow]) -> None:
        """Take keys that are gone out of the totals of their datasets."""
        known = Known(self._descriptions, connection)
        lost = defaultdict[str, list[KeyRow]](list)
        for row in rows:
            # A dataset that was altered keeps its description: it is unreadable, and no reason to keep a key.
            with contextlib.suppress(VerificationError):
                if (of := known.of(row)) is not None:
                    lost[of.name].append(row)
        for name, some in lost.items():
            info = self._descriptions.of(connection, name)
            count = sum(row.rows for row in some)
            hidden = sum(row.rows for row in some if row.state == RESTRICTED)
            totals = {"rows": info.rows - count, "keys": info.keys - len(some), "restricted": info.restricted - hidden}
            if min(totals.values()) >= 0:
                self._descriptions.change(connection, info, **totals)

    def _found(self, connection: sa.Connection, ids: Iterable[bytes]) -> list[KeyRow]:
        """The keys of these ids that are there."""
        wanted = {key for key in ids if len(key) == ID_BYTES}
        # Two ids of one first row can only be of two histories of a vault: one goes on from a backup of the other.
        asked = sorted({first for key in wanted if (first := int.from_bytes(key[8:], "big")) < 2**63})
        found: list[KeyRow] = []
        for start in range(0, len(asked), _ASKED):
            some = asked[start : start + _ASKED]
            rows = bulk.fetch(connection, sa.select(keys).where(keys.c.first.in_(some)).order_by(keys.c.first))
            found += [row for row in map(KeyRow._make, rows) if row.key in wanted]
        return found

    def _stones(self, connection: sa.Connection, ids: Sequence[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        column = tables.erased.c.key
        for start in range(0, len(ids), _ASKED):
            statement = sa.select(column).where(column.in_(ids[start : start + _ASKED]))
            found |= {key for (key,) in bulk.fetch(connection, statement)}
        return found


def _shown(row: KeyRow, info: DatasetInfo) -> DataKey:
    if row.state not in (ACTIVE, RESTRICTED):
        raise VerificationError("privacy.vault_cell")
    state = _STATES[row.state]
    return DataKey(row.key, info.name, row.person or row.key, row.rows, row.retain_until, state, row.load)


def _document(row: StreamRow) -> DataKey:
    if row.state not in (ACTIVE, RESTRICTED):
        raise VerificationError("privacy.vault_document", kind=row.kind)
    state = _STATES[row.state]
    return DataKey(row.key, f"document.{row.kind}", row.person or row.key, 1, row.retain_until, state, row.version)
