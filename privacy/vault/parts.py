"""A part of a load: rows of a table, encrypted under the data keys of their persons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

import pyarrow as pa

from privacy.keys import KEY_BYTES, NONCE_BYTES
from privacy.store import bulk
from privacy.suites import AES_256_GCM, SM4_GCM, data_cipher
from privacy.vault.data_keys import key_id
from privacy.vault.descriptions import DatasetInfo
from privacy.vault.opened import Opened, current_epoch
from privacy.vault.places import APART, MAIN, NOBODY, key_place, where_row
from privacy.vault.rows import encode_rows
from privacy.vault.tables import ACTIVE
from wire.dates import NO_END


class Owners(NamedTuple):
    """Whose the rows of a load are; each sequence has one item per row. Secret.

    record_ids: of the rows; without `persons` they name the persons. retain_until: civil day, None: no duty.
    """

    record_ids: Sequence[str] | None = None
    persons: Sequence[str] | None = None
    retain_until: Sequence[int | None] | int | None = None

    def check(self, rows: int) -> None:
        """Raises ValueError where there is not one item per row, or a day is none."""
        for each in self:
            if each is not None and not isinstance(each, int) and len(each) != rows:
                raise ValueError("one record id, person and day per row")
        days = [self.retain_until] if isinstance(self.retain_until, int) else self.retain_until or ()
        if any(day is not None and not 0 <= day <= NO_END for day in days):
            raise ValueError("retain_until is a civil day")

    def part(self, start: int, end: int) -> Owners:
        """Those of the rows from `start` to before `end`."""
        records, persons, days = self
        return Owners(
            None if records is None else records[start:end],
            None if persons is None else persons[start:end],
            days if days is None or isinstance(days, int) else days[start:end],
        )


def seal_part(
    opened: Opened,
    info: DatasetInfo,
    place: bytes,
    batch: pa.RecordBatch,
    owners: Owners,
    at: tuple[int, int],
    width: int = 0,
    masters_of_rows: Sequence[bytes] | None = None,
) -> tuple[list[bulk.Row], list[bulk.Row], int]:
    """The keys and rows of a part, and how long its rows are.

    place: of the load. at: number and position of the first row. width: how long rows were before, at least.
    masters_of_rows: the data key (secret) of each row, instead of fresh ones.
    """
    count = batch.num_rows
    row, start = at
    suites = [column.suite for column in info.columns]
    main = [batch.column(index) for index, suite in enumerate(suites) if suite == info.suite]
    apart = [batch.column(index) for index, suite in enumerate(suites) if suite != info.suite]
    plain = encode_rows(main, count, owners.record_ids, width)
    width = min(map(len, plain), default=width)
    other = encode_rows(apart, count, None) if apart else []
    other_suite = SM4_GCM if info.suite == AES_256_GCM else AES_256_GCM
    names = owners.persons if owners.persons is not None else owners.record_ids
    groups = _grouped(names, owners.retain_until, count)
    if masters_of_rows is None:
        masters = _cut(opened.rand(KEY_BYTES * len(groups)), KEY_BYTES)
    else:
        masters = [masters_of_rows[members[0]] for _, _, members in groups]
    nonces = iter(_cut(opened.rand(NONCE_BYTES * count * (2 if apart else 1)), NONCE_BYTES))
    batch_id = opened.rand(8)
    epoch = current_epoch(opened.provider)
    keys: list[bulk.Row] = []
    wrapping: list[tuple[bytes, bytes]] = []
    rows: list[bulk.Row] = []
    records = owners.record_ids if owners.persons is not None else None
    ids: dict[str, bytes] = {}
    suite, load, record = info.suite, info.version, None
    for (name, retain_until, members), master in zip(groups, masters, strict=True):
        if name is None:
            person = None
        else:
            person = ids.get(name)
            if person is None:
                person = ids[name] = opened.person_id(name)
        key = key_id(batch_id, row)
        many = len(members)
        keys.append((row, key, person, many, load, retain_until, ACTIVE, epoch))
        wrapping.append((master, key_place(place, key, person, many, retain_until, ACTIVE)))
        prefix = place + (person or key)
        cipher = data_cipher(suite, master)
        second = data_cipher(other_suite, master) if apart else None
        for index in members:
            if records is not None:
                record = opened.record_id(info.name, records[index])
            where = prefix + (record or NOBODY)
            nonce = next(nonces)
            sealed = nonce + cipher.encrypt(nonce, plain[index], where + where_row(row, start + index, MAIN))
            sealed_apart = None
            if second is not None:
                nonce = next(nonces)
                sealed_apart = nonce + second.encrypt(nonce, other[index], where + where_row(row, start + index, APART))
            rows.append((row, start + index, record, sealed, sealed_apart))
            row += 1
    wraps = opened.provider.wrap_many(epoch, wrapping)
    return [(*key, wrap) for key, wrap in zip(keys, wraps, strict=True)], rows, width


def _grouped(
    names: Sequence[str] | None, retain_until: Sequence[int | None] | int | None, count: int
) -> list[tuple[str | None, int | None, Sequence[int]]]:
    """(person, day, places of its rows) of each data key of a part, in the order of the first row of each."""
    days = repeat(retain_until, count) if retain_until is None or isinstance(retain_until, int) else retain_until
    if names is None:
        return [(None, day, (index,)) for index, day in enumerate(days)]
    groups: dict[tuple[str, int | None], list[int]] = {}
    for index, owner in enumerate(zip(names, days, strict=True)):
        if (members := groups.get(owner)) is None:
            groups[owner] = [index]
        else:
            members.append(index)
    return [(name, day, members) for (name, day), members in groups.items()]


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
