"""Associated data: what everything in the vault is, and where it belongs, bound to its ciphertext.

Documents and descriptions carry the canonical encoding of a `Place`. Rows and data keys, of which there are millions,
carry bytes of fixed length: one hash for the load, then the few fields that differ.

    load   = H(ROW_PLACE, vault, organisation, dataset, H(columns, types, suites, schema hash), suite, load)
    row    = load || person or key (16) || record or zeros (16) || number (8) || position (8) || part (1)
    key    = load || "K" || key (16) || person or zeros (16) || rows (4) || retain until (4) || state (1)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wire.canonical import Wire
from wire.domains import ROW_PLACE, SCHEMA, digest
from wire.errors import VerificationError
from wire.identifiers import Name

if TYPE_CHECKING:
    from privacy.vault.rows import StoredColumn

ID_BYTES = 16
NOBODY = bytes(ID_BYTES)
"""In the place of a person or record that has no id."""

MAIN, APART = b"\x00", b"\x01"
"""Parts of a row: the cells under the dataset's own suite, and those under the other one."""

_NO_DUTY = 0xFFFF_FFFF
_TAIL = struct.Struct(">IIB").pack

where_row = struct.Struct(">QQc").pack
"""Number and position of a row, 8 bytes each, and part. Raises struct.error for what is neither."""


ONE_NAME = 3
"""Version of the header of a vault in which a person has one id for all spellings (`privacy.vault.respelling`)."""


class VaultHeader(Wire, frozen=True, tag="privacy.vault_header"):
    """Whose vault this is. version: `ONE_NAME`, or what it was before. vault: its random 16-byte id."""

    version: int
    vault: bytes
    organisation: Name


class Place(Wire, frozen=True, tag="privacy.place"):
    """What is encrypted and where it belongs, for what is few: descriptions, documents, notes, their keys."""

    suite: int
    vault: bytes
    organisation: str
    what: str
    name: str
    schema_hash: bytes
    version: int
    record: bytes
    position: int


def bound_schema(columns: Sequence[StoredColumn], schema_hash: bytes) -> bytes:
    """Names, types and suites of the columns, and the hash of the declaration that the table was checked against."""
    texts = (text.encode() for column in columns for text in (column.name, column.kind, str(column.suite)))
    return digest(SCHEMA, digest(SCHEMA, *texts), schema_hash)


def load_place(header: VaultHeader, dataset: str, bound: bytes, suite: int, load: int) -> bytes:
    """What all rows and keys of one load have in common: 32 bytes. Raises VerificationError for a number of no load."""
    try:
        numbers = suite.to_bytes(2, "big") + load.to_bytes(8, "big")
    except OverflowError:
        raise VerificationError("privacy.vault_cell") from None
    return digest(ROW_PLACE, header.vault, header.organisation.encode(), dataset.encode(), bound, numbers)


def key_place(load: bytes, key: bytes, person: bytes | None, rows: int, retain_until: int | None, state: int) -> bytes:
    """Associated data of a wrapped data key. Raises VerificationError for numbers that no key has."""
    duty = _NO_DUTY if retain_until is None else retain_until
    try:
        return load + b"K" + key + (person or NOBODY) + _TAIL(rows, duty, state)
    except struct.error:
        raise VerificationError("privacy.vault_cell") from None


def key_places(loads: Callable[[int], bytes], keys: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """`key_place` of each of many keys. loads: `load_place` by load; keys: as `privacy.vault.data_keys.KeyRow`."""
    try:
        known = {load: loads(load) + b"K" for load in {key[4] for key in keys}}
        return [
            known[load]
            + key
            + (person or NOBODY)
            + _TAIL(rows, _NO_DUTY if retain_until is None else retain_until, state)
            for _, key, person, rows, load, retain_until, state, _, _ in keys
        ]
    except (struct.error, OverflowError, TypeError):
        raise VerificationError("privacy.vault_cell") from None
