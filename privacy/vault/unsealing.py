"""Rows of some data keys, held against them and decrypted: what reading a vault spends its time on.

The work is done in lists as long as the rows, without a call of ours for a single one. Where anything does not fit, all
of it is gone through once more, row by row, to name the first that was altered or is missing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain, compress, repeat
from operator import add
from typing import NamedTuple, TypeVar

from cryptography.exceptions import InvalidTag

from privacy.keys import NONCE_BYTES
from privacy.store import bulk
from privacy.suites import data_ciphers
from privacy.vault.data_keys import Loads
from privacy.vault.descriptions import DatasetInfo
from privacy.vault.opened import Opened, unwrap_all
from privacy.vault.places import APART, MAIN, NOBODY, key_places, where_row
from privacy.vault.tables import ACTIVE, ROW_BITS
from wire.errors import VerificationError

ALTERED = (InvalidTag, TypeError, ValueError, OverflowError, AttributeError, struct.error)
"""What altered rows raise: those that do not open, and cells of other kinds."""

T = TypeVar("T")

Masters = Sequence[bytes | None]


class Run(NamedTuple):
    """Rows of some keys, decrypted but not decoded, each list in the same order. Secret.

    main, apart: their parts; positions: their places in the table as loaded; persons: keyed ids; keys: ids.
    """

    main: list[bytes]
    apart: list[bytes]
    positions: list[int]
    persons: list[bytes]
    keys: list[bytes]


class Unsealing:
    """Decrypts the rows of one dataset, as one state of the vault has it.

    Keys are rows of their table, in the order of `privacy.vault.data_keys.KeyRow`.
    """

    def __init__(self, opened: Opened, info: DatasetInfo) -> None:
        self._provider, self._info = opened.provider, info
        self._places = Loads(opened, info).of
        self._other = next((column.suite for column in info.columns if column.suite != info.suite), None)

    def run(self, claimed: Sequence[bulk.Row], rows: Sequence[bulk.Row], only: bytes | None = None) -> Run:
        """`rows`, which are all that there are between the first and the last of the keys `claimed`, decrypted.

        Restricted keys are passed by. only: a record's id; rows of others are passed by as well. Raises
        VerificationError naming the first row that was altered, is missing or is nobody's.
        """
        masters = self.masters(claimed)
        try:
            if None in masters:  # also of those that are passed by: whose they are and until when they are kept
                raise InvalidTag
            _check_whole(claimed, rows)
            shown = [key[6] == ACTIVE for key in claimed]
            if all(shown):
                return self.opened(claimed, masters, rows, only)
            mine = _these(rows, _each(shown, [key[3] for key in claimed]))
            return self.opened(_these(claimed, shown), _these(masters, shown), mine, only)
        except ALTERED:
            number = self._first_altered(claimed, masters, rows, only)
        raise altered(self._info, number)

    def masters(self, claimed: Sequence[bulk.Row]) -> list[bytes | None]:
        """The data keys (secret) of `claimed`; None for one that was altered."""
        wraps = list(zip([key[8] for key in claimed], key_places(self._places, claimed), strict=True))
        return unwrap_all(self._provider, [key[7] for key in claimed], wraps)

    def opened(
        self, claimed: Sequence[bulk.Row], masters: Masters, rows: Sequence[bulk.Row], only: bytes | None = None
    ) -> Run:
        """Rows of these keys, in whichever state: as many as they have, or one of each. Raises one of `ALTERED`."""
        opening = [master for master in masters if master is not None]
        if len(opening) != len(claimed):
            raise InvalidTag
        place = {load: self._places(load) for load in {key[4] for key in claimed}}
        ids: list[bytes] = [key[1] for key in claimed]
        persons: list[bytes] = [key[2] or key[1] for key in claimed]
        prefixes = [place[key[4]] + person for key, person in zip(claimed, persons, strict=True)]
        decrypts = [cipher.decrypt for cipher in data_ciphers(self._info.suite, opening)]
        seconds = [] if self._other is None else [cipher.decrypt for cipher in data_ciphers(self._other, opening)]
        if len(rows) != len(claimed):
            counts = [key[3] for key in claimed]
            ids, persons, prefixes = _each(ids, counts), _each(persons, counts), _each(prefixes, counts)
            decrypts, seconds = _each(decrypts, counts), _each(seconds, counts)
        if only is not None:
            wanted = [row[2] == only for row in rows]
            ids, persons, prefixes = _these(ids, wanted), _these(persons, wanted), _these(prefixes, wanted)
            decrypts, seconds, rows = _these(decrypts, wanted), _these(seconds, wanted), _these(rows, wanted)
        main = [
            decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], prefix + (record or NOBODY) + where_row(number, at, MAIN)
            )
            for decrypt, prefix, (number, at, record, sealed, _) in zip(decrypts, prefixes, rows, strict=True)
        ]
        apart = [
            decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], prefix + (record or NOBODY) + where_row(number, at, APART)
            )
            for decrypt, prefix, (number, at, record, _, sealed) in zip(seconds, prefixes, rows, strict=False)
        ]
        return Run(main, apart, [row[1] for row in rows], persons, ids)

    def _first_altered(
        self, claimed: Sequence[bulk.Row], masters: Masters, rows: Sequence[bulk.Row], only: bytes | None
    ) -> int:
        """The number of the first row that was altered, is missing or is nobody's."""
        end = 0
        for key, master in zip(claimed, masters, strict=True):
            number, count = key[0], key[3]
            mine = rows[end : end + count]
            end += count
            if mine and mine[0][0] < number:  # nobody's
                return int(mine[0][0])
            try:
                _check_whole([key], mine)
                if master is None:
                    raise InvalidTag
                if key[6] == ACTIVE:
                    for row in mine:
                        number = row[0]
                        self.opened([key], [master], [row], only)
            except ALTERED:
                return int(number)
        return int(rows[end][0])


def _each(items: Sequence[T], counts: Sequence[int]) -> list[T]:
    """Each item as often as it counts."""
    return list(chain.from_iterable(map(repeat, items, counts)))


def _these(items: Sequence[T], wanted: Sequence[bool]) -> list[T]:
    return list(compress(items, wanted))


def altered(info: DatasetInfo, number: int) -> VerificationError:
    """The error that names a row by its number."""
    return VerificationError("privacy.vault_row", dataset=info.name, position=number & ((1 << ROW_BITS) - 1))


def _check_whole(claimed: Sequence[bulk.Row], rows: Sequence[bulk.Row]) -> None:
    """Raises InvalidTag unless `rows` are those of the keys, every one, and nobody else's."""
    counts = [key[3] for key in claimed]
    if sum(counts) != len(rows) or min(counts, default=1) < 1:
        raise InvalidTag
    numbers = [key[0] for key in claimed]
    if len(rows) != len(claimed):
        numbers = list(chain.from_iterable(map(range, numbers, map(add, numbers, counts))))
    if numbers != [row[0] for row in rows]:
        raise InvalidTag
