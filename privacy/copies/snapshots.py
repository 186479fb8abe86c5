"""Snapshots: an encrypted columnar copy of a dataset at home, for local analysis, re-cut when rows are erased.

    part    encrypted Parquet (`encrypted_parquet`) of at most `PART_ROWS` rows under a fresh key, in a file of a random
            name
    index   what the parts are and their keys, the dataset's number, version and changes, when made, until when: a
            private document of the vault, so that its key is wrapped by the provider's epochs and rotates with them

A part holds the columns as loaded and four more: record id, keyed person id and data key's id, by which a re-cut goes,
and the row's position in the dataset, which it keeps whatever is erased. A snapshot is a copy and nothing but that:
what is missing, altered, expired or no longer of the dataset is made anew from the vault. What it says is what
`Vault.read` says, in the same order:

    fresh     number, version and changes are those of the dataset's description
    added     later loads become parts of their own; many small parts become one
    re-cut    rows whose data key was destroyed or restricted, or whose person objects to all secondary use, are left
              out; the part is written anew under a new key, and the old key goes with the old index. It then serves
              uses that leave these persons out, and no others: those read the vault
    built     everything else: another load in its place, rows let go again, an objection withdrawn, an end of life

After each of them the rows must be as many as the sealed description says. Decrypted in memory only; no temporary
files. What a thief of the files sees: about how many rows there are. A copy of an old part together with an old copy of
the vault's database and its key epoch brings erased rows back: epochs are destroyed by rotation.

Tables that lie in a site's own SQL engine have no snapshot: erasing there is for that engine.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Annotated

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from privacy.copies.encrypted_parquet import KEY_BYTES, KINDS, ROW_GROUP, parse_parquet, read_checked, write_parquet
from privacy.grants.opt_outs import ALL, ScopeId
from privacy.suites import AES_256_GCM
from privacy.vault import DatasetInfo, Vault
from privacy.vault.rows import StoredColumn
from wire.canonical import Wire, decode, encode
from wire.dates import Instant, format_instant
from wire.domains import SNAPSHOT_PLACE, digest
from wire.errors import Refused, Unavailable, VerificationError
from wire.identifiers import Handle, Hash, Name

VERSION = 2
"""Of version 1 were those without positions: they are made anew when they are needed."""
PARQUET_AES_256_GCM = 1
KIND = "snapshot"
"""The kind of document that holds an index, under the dataset's name."""

DAY = 86_400_000
LIFETIME = 30 * DAY
"""How long a snapshot may be used before it is made anew, in ms."""
PART_ROWS = ROW_GROUP
"""Most rows of a part: what a re-cut holds in memory at once."""
MOST_PARTS = 16
"""More of them are merged where they are small."""

RECORD, PERSON, KEY, POSITION = "medveil:record", "medveil:person", "medveil:key", "medveil:position"
"""Columns of a part beside the dataset's own."""

_BESIDE = (
    StoredColumn(RECORD, "string"),
    StoredColumn(PERSON, "fixed_size_binary[16]"),
    StoredColumn(KEY, "fixed_size_binary[16]"),
    StoredColumn(POSITION, "int64"),
)
_SUFFIX = ".snapshot"
_TRIES = 8

Nobody = frozenset[bytes]
OptedOut = Callable[[tuple[ScopeId, ...]], Nobody]
"""The persons, by keyed id, behind scopes of opt-outs as of now: `privacy.grants.opt_outs.OptOutRegister.persons`."""


def _nobody(_scopes: tuple[ScopeId, ...]) -> Nobody:
    return frozenset()


class SnapshotPart(Wire, frozen=True, tag="privacy.snapshot_part"):
    """One file. key: secret; digest: SHA-256 of the file."""

    file: Handle
    key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    rows: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    length: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    digest: Hash

    def __repr__(self) -> str:
        return f"SnapshotPart(rows={self.rows})"


class SnapshotIndex(Wire, frozen=True, tag="privacy.snapshot_index"):
    """What a dataset's snapshot is. Secret.

    number, loads, changes: of the description that it is a copy of. left_out: persons that object to all secondary use,
    by keyed id; left_rows: how many rows they have. made, expires: instants.
    """

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    suite: Annotated[int, msgspec.Meta(ge=1, le=255)]
    dataset: Name
    number: int
    loads: int
    changes: int
    columns: tuple[StoredColumn, ...]
    left_out: tuple[Handle, ...]
    left_rows: int
    made: Instant
    expires: Instant
    parts: tuple[SnapshotPart, ...]

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    def __repr__(self) -> str:
        return f"SnapshotIndex({self.dataset!r}, parts={len(self.parts)})"


class SnapshotInfo(msgspec.Struct, frozen=True):
    """What a data officer sees of a snapshot. loads: the version of the dataset that it has reached."""

    dataset: str
    loads: int
    rows: int
    parts: int
    bytes: int
    made: int
    expires: int


class Snapshots:
    """The snapshots of one vault, in a folder of their own. Threads may share it; one process at a time.

    opted_out: who is behind scopes of opt-outs now; nobody by default. lifetime in ms. damaged: told the name of a
    dataset whose snapshot was altered or lost outside medveil and is made anew.
    """

    def __init__(
        self,
        vault: Vault,
        folder: Path,
        *,
        opted_out: OptedOut = _nobody,
        lifetime: int = LIFETIME,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rand: Callable[[int], bytes] = secrets.token_bytes,
        damaged: Callable[[str], None] = lambda dataset: None,
    ) -> None:
        self._vault, self._folder = vault, folder
        self._opted_out, self._lifetime = opted_out, lifetime
        self._clock, self._rand, self._damaged = clock, rand, damaged
        self._guard = RLock()

    # ---- using them

    def table(
        self,
        dataset: str,
        record_id_column: str | None = None,
        person_column: str | None = None,
        position_column: str | None = None,
        *,
        excluded: Iterable[ScopeId] = (),
    ) -> pa.Table:
        """The dataset (secret) as `Vault.read` has it, without the persons behind `excluded`, as of now.

        excluded: the scopes of opt-outs that the use leaves out (`privacy.decide.Decision.excluded`); none: everybody's
        rows. A use that leaves out whoever objects to all secondary use is answered from a snapshot that is up to date;
        any other one, too, as long as nobody objects so, and from the vault where somebody does. The snapshot is made,
        or brought up to date, first; one that was altered is made anew. A dataset with columns under SM4 has none,
        since Parquet knows AES alone: it is read from the vault. Raises what the vault raises, Unavailable (disk).
        """
        scopes = tuple(excluded)
        info = self._vault.info(dataset)
        if _has_none(info):
            return self._straight(info, record_id_column, person_column, position_column, scopes)
        with self._guard:
            try:
                self.refresh(dataset)
                found = self._serving(dataset, record_id_column, person_column, position_column, scopes)
            except VerificationError as error:
                if error.code != "parquet.altered":
                    raise
                self._damaged(dataset)
                self.drop(dataset)
                self.refresh(dataset)
                found = self._serving(dataset, record_id_column, person_column, position_column, scopes)
        if found is None:
            return self._straight(info, record_id_column, person_column, position_column, scopes)
        return found

    def _serving(
        self,
        dataset: str,
        record_id_column: str | None,
        person_column: str | None,
        position_column: str | None,
        scopes: tuple[ScopeId, ...],
    ) -> pa.Table | None:
        """The snapshot, as far as a use that leaves out `scopes` may see it; None where it shows fewer than that."""
        index = self._index(dataset)
        if ALL not in scopes and index is not None and index.left_out:
            return None
        out = self._opted_out(scopes) if scopes else frozenset()
        named = PERSON if out and person_column is None else person_column
        return _shown(self.read(dataset, record_id_column, named, position_column), out, named, person_column)

    def _straight(
        self,
        info: DatasetInfo,
        record_id_column: str | None,
        person_column: str | None,
        position_column: str | None,
        scopes: tuple[ScopeId, ...],
    ) -> pa.Table:
        out = self._opted_out(scopes) if scopes else frozenset()
        named = PERSON if out and person_column is None else person_column
        table = self._vault.read(info.name, record_id_column, person_column=named, position_column=position_column)
        return _shown(table, out, named, person_column)

    def read(
        self,
        dataset: str,
        record_id_column: str | None = None,
        person_column: str | None = None,
        position_column: str | None = None,
    ) -> pa.Table:
        """The dataset (secret) as of its snapshot's last refresh, without whoever objected to all secondary use then.

        Raises Refused (there is none, or its life is over), VerificationError (altered), Unavailable (file, memory).
        """
        with self._guard:
            index = self._index(dataset)
            if index is None or index.version != VERSION:
                raise Refused("snapshots.none", dataset=dataset)
            if self._clock() >= index.expires:
                raise Refused("snapshots.expired", dataset=dataset, expires=format_instant(index.expires))
            beside = {RECORD: record_id_column, PERSON: person_column, POSITION: position_column}
            names = {name: to for name, to in beside.items() if to is not None}
            own = [column.name for column in index.columns]
            if set(own) & set(names.values()):
                raise ValueError("the table has a column of that name")
            wanted = [*own, *names]
            tables = [self._part(index, part, wanted) for part in index.parts]
            empty = _schema(index.columns).empty_table().select(wanted)
            return pa.concat_tables([empty, *tables]).rename_columns([*own, *names.values()])

    def info(self, dataset: str) -> SnapshotInfo | None:
        """What there is of a dataset; None for nothing."""
        index = self._index(dataset)
        if index is None:
            return None
        size = sum(part.length for part in index.parts)
        return SnapshotInfo(dataset, index.loads, index.rows, len(index.parts), size, index.made, index.expires)

    def data_keys(self, dataset: str) -> frozenset[bytes]:
        """The ids of the data keys whose rows the snapshot holds: for whoever checks an erasure.

        A part that is not there holds nothing: a backup brings the index back, and no parts.
        """
        index = self._index(dataset)
        found: set[bytes] = set()
        for part in index.parts if index is not None else ():
            assert index is not None
            if self._path(part).exists():
                found.update(pc.unique(self._part(index, part, [KEY])[KEY]).to_pylist())
        return frozenset(found)

    # ---- keeping them

    def refresh(self, dataset: str) -> None:
        """Make the snapshot, or bring it up to date: what `refreshing` does, all of it."""
        with self._guard:
            for _ in self.refreshing(dataset):
                pass

    def refreshing(self, dataset: str) -> Iterator[int]:
        """The steps of a refresh, each of which writes one part and can be the last one for now: rows that were read.

        To be used by one caller at a time. Raises Unavailable where the dataset changes faster than it is copied,
        Refused for a dataset that is to have no snapshot, VerificationError for an altered one.
        """
        for _ in range(_TRIES):
            info, out = self._vault.info(dataset), self._opted_out((ALL,))
            if _has_none(info):
                raise Refused("snapshots.suite", dataset=dataset)
            index = self._index(dataset)
            if index is None or self._is_past(index, info, out):
                yield from self._build(info, out)
                continue
            if info.version > index.loads:
                yield from self._add(index, info, out)
                continue
            if info.changes != index.changes or not out <= set(index.left_out):
                yield from self._recut(index, info, out)
                continue
            return
        raise Unavailable("snapshots.busy", dataset=dataset, retry_after=1)

    def drop(self, dataset: str) -> None:
        """Delete a snapshot: its index with the keys, then its parts."""
        with self._guard:
            self._vault.remove_document(KIND, dataset)
            self.clear_leftovers()

    def clear_leftovers(self) -> int:
        """Delete the files that no index names, such as those of an interrupted refresh; returns how many."""
        with self._guard:
            named = set()
            for dataset in self._vault.documents(KIND):
                index = self._index(dataset)
                named |= {self._path(part).name for part in index.parts} if index is not None else set()
            left = [path for path in self._folder.glob(f"*{_SUFFIX}") if path.name not in named]
            for path in left:
                path.unlink(missing_ok=True)
            return len(left)

    # ---- the steps

    def _is_past(self, index: SnapshotIndex, info: DatasetInfo, out: Nobody) -> bool:
        """Whether nothing of it can be gone on with."""
        known = (index.version, index.suite) == (VERSION, PARQUET_AES_256_GCM)
        same = (index.number, index.columns) == (info.number, info.columns)
        ahead = index.loads > info.version or index.changes > info.changes  # of a vault from a backup
        withdrawn = not set(index.left_out) <= out
        short = (index.loads, index.changes) == (info.version, info.changes) and not self._whole(index, info)
        return not known or not same or ahead or withdrawn or short or not index.made <= self._clock() < index.expires

    @staticmethod
    def _whole(index: SnapshotIndex, info: DatasetInfo) -> bool:
        """Whether rows are as many as the vault's sealed description says."""
        return index.rows + index.left_rows == info.active

    def _build(self, info: DatasetInfo, out: Nobody) -> Iterator[int]:
        now = self._clock()
        table, left = _without(self._read(info, 0), out)
        if self._vault.info(info.name) != info:  # what was read may be of either state
            return
        parts = []
        for part in self._written(info.name, table):
            parts.append(part)
            yield part.rows
        index = SnapshotIndex(
            VERSION,
            PARQUET_AES_256_GCM,
            info.name,
            info.number,
            info.version,
            info.changes,
            info.columns,
            tuple(sorted(out)),
            left,
            now,
            now + self._lifetime,
            tuple(parts),
        )
        self._put(index, info, fresh_key=True)

    def _add(self, index: SnapshotIndex, info: DatasetInfo, out: Nobody) -> Iterator[int]:
        """The loads since; before them one part of neighbours that are small, where there are many."""
        table, left = _without(self._read(info, index.loads), frozenset(index.left_out))
        if self._vault.info(info.name) != info:
            return
        parts = list(index.parts)
        if len(parts) >= MOST_PARTS:
            parts = list(self._merged(index, parts))
        for part in self._written(info.name, table):
            parts.append(part)
            yield part.rows
        more = {"loads": info.version, "left_rows": index.left_rows + left, "parts": tuple(parts)}
        self._put(msgspec.structs.replace(index, **more), info, fresh_key=False)

    def _merged(self, index: SnapshotIndex, parts: list[SnapshotPart]) -> Iterator[SnapshotPart]:
        run: list[SnapshotPart] = []
        for part in [*parts, None]:
            if part is not None and sum(one.rows for one in run) + part.rows <= PART_ROWS:
                run.append(part)
                continue
            if len(run) > 1:
                whole = pa.concat_tables([self._part(index, one) for one in run])
                yield from self._written(index.dataset, whole)
            else:
                yield from run
            run = [part] if part is not None else []

    def _recut(self, index: SnapshotIndex, info: DatasetInfo, out: Nobody) -> Iterator[int]:
        """Every part without what must not be there, one after the other; the old keys go with each old index."""
        gone = {erasure.key for erasure in self._vault.erasures()}
        if info.restricted:
            gone |= {key.key for key in self._vault.data_keys(info.name) if key.state == "restricted"}
        gone_keys, objecting = _ids(gone), _ids(out)
        # Said before the first row goes: who withdraws an objection in the middle of this must not stay left out.
        index = msgspec.structs.replace(index, left_out=tuple(sorted(out)), changes=_CUTTING)
        self._put(index, info, fresh_key=False)
        for at, part in enumerate(index.parts):
            ids = self._part(index, part, [PERSON, KEY])
            erased = pc.is_in(ids[KEY], value_set=gone_keys)
            objects = pc.is_in(ids[PERSON], value_set=objecting)
            stays = pc.invert(pc.or_(erased, objects))
            if not pc.all(stays, min_count=0).as_py():
                kept = self._part(index, part).filter(stays)
                left = pc.sum(pc.and_not(objects, erased), min_count=0).as_py()
                parts = (*index.parts[:at], *self._written(info.name, kept), *index.parts[at + 1 :])
                # A part of no rows stays in its place until the end, so that the others keep theirs.
                parts = (
                    parts if len(parts) == len(index.parts) else (*index.parts[:at], _NOTHING, *index.parts[at + 1 :])
                )
                index = msgspec.structs.replace(index, parts=parts, left_rows=index.left_rows + left)
                self._put(index, info, fresh_key=True)
            yield part.rows
        parts = tuple(part for part in index.parts if part.rows)
        # Counted anew: some of those who object may have been erased, or restricted, since their rows were left out.
        keys = self._vault.data_keys(info.name) if out else iter(())
        mine = (key for key in keys if key.person in out and key.load <= index.loads and key.state == "active")
        left_rows = sum(key.rows for key in mine)
        done = {"parts": parts, "changes": info.changes, "left_rows": left_rows}
        self._put(msgspec.structs.replace(index, **done), info, fresh_key=True)

    # ---- files

    def _read(self, info: DatasetInfo, since: int) -> pa.Table:
        return self._vault.read(
            info.name, RECORD, person_column=PERSON, key_column=KEY, position_column=POSITION, since=since
        )

    def _written(self, dataset: str, table: pa.Table) -> Iterator[SnapshotPart]:
        columns = [*_stored(table), *_BESIDE]
        for first in range(0, table.num_rows, PART_ROWS):
            file, key = self._rand(16), self._rand(KEY_BYTES)
            path = self._folder / f"{file.hex()}{_SUFFIX}"
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as opened:
                    rows = table.slice(first, PART_ROWS)
                    written = write_parquet(opened, columns, [rows], key, self._place(dataset, file))
                    opened.flush()
                    os.fsync(opened.fileno())
            except OSError as error:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                reason = error.strerror or "I/O"
                raise Unavailable("privacy.store_failed", path=str(path), reason=reason) from None
            yield SnapshotPart(file, key, written.rows, written.length, written.digest)

    def _part(self, index: SnapshotIndex, part: SnapshotPart, only: list[str] | None = None) -> pa.Table:
        columns = [*index.columns, *(_BESIDE if index.version > 1 else _BESIDE[:3])]
        if part.file == _NOTHING.file:
            empty = _schema(index.columns).empty_table()
            return empty if only is None else empty.select(only)
        path = self._path(part)
        if not path.exists():
            raise VerificationError("parquet.altered", file=path.name)
        data = read_checked(path, part.length, part.digest)
        place = self._place(index.dataset, part.file)
        table = parse_parquet(data, columns, part.rows, part.key, place, path.name, only)
        return table if only is None else table.select(only)

    def _path(self, part: SnapshotPart) -> Path:
        return self._folder / f"{part.file.hex()}{_SUFFIX}"

    def _place(self, dataset: str, file: bytes) -> bytes:
        return digest(SNAPSHOT_PLACE, self._vault.organisation.encode(), dataset.encode(), file)

    def _index(self, dataset: str) -> SnapshotIndex | None:
        try:
            return decode(SnapshotIndex, self._vault.document(KIND, dataset))
        except Refused as error:
            if error.code != "privacy.no_document":
                raise
            return None

    def _put(self, index: SnapshotIndex, info: DatasetInfo, *, fresh_key: bool) -> None:
        """Keep the index, then delete the files it no longer names.

        fresh_key: under a new document key, so that the keys in the one before are gone with it. A crash in between
        leaves no index: the snapshot is made anew.
        """
        before = self._index(index.dataset)
        if fresh_key:
            self._vault.remove_document(KIND, index.dataset)
        self._vault.put_document(KIND, index.dataset, encode(index))
        kept = {part.file for part in index.parts}
        for part in before.parts if before is not None else ():
            if part.file not in kept:
                with suppress(OSError):
                    self._path(part).unlink(missing_ok=True)


_CUTTING = -1
"""Stands for `changes` until a re-cut is through."""
_NOTHING = SnapshotPart(bytes(16), bytes(KEY_BYTES), 0, 1, bytes(32))
"""Stands where a part had rows and has none, until a re-cut is through."""


def _has_none(info: DatasetInfo) -> bool:
    """Whether cells of it may be kept under SM4 only."""
    return any(suite != AES_256_GCM for suite in (info.suite, *(column.suite for column in info.columns)))


def _stored(table: pa.Table) -> list[StoredColumn]:
    return [
        StoredColumn(field.name, str(field.type))
        for field in table.schema
        if field.name not in (RECORD, PERSON, KEY, POSITION)
    ]


def _schema(columns: Iterable[StoredColumn]) -> pa.Schema:
    return pa.schema([pa.field(column.name, KINDS[column.kind]) for column in (*columns, *_BESIDE)])


def _ids(ids: Iterable[bytes]) -> pa.Array:
    return pa.array(sorted(ids), pa.binary(16))


def _without(table: pa.Table, out: Nobody) -> tuple[pa.Table, int]:
    """The rows of those who do not object, and how many the others have."""
    if not out:
        return table, 0
    kept = table.filter(pc.invert(pc.is_in(table[PERSON], value_set=_ids(out))))
    return kept, table.num_rows - kept.num_rows


def _shown(table: pa.Table, out: Nobody, named: str | None, wanted: str | None) -> pa.Table:
    """The rows of all but `out`, whom column `named` tells; it stays if it is `wanted`. A row of nobody known stays."""
    if out:
        table = table.filter(pc.invert(pc.is_in(table[named], value_set=_ids(out))))
    return table if named == wanted else table.drop_columns([named])
