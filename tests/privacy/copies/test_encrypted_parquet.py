"""Encrypted Parquet: one key over all of it, given directly: Arrow neither aborts on a column nor keeps the key.

With a key for each column Arrow ended the process when a filter or the statistics of a denied one were asked for,
and its key factory keeps what it unwrapped: neither is to come back unnoticed.
"""

from __future__ import annotations

import ast
import hashlib
import io
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from privacy.copies import encrypted_parquet
from privacy.copies.encrypted_parquet import (
    KEY_BYTES,
    check_file,
    parse_parquet,
    read_checked,
    stored_columns,
    write_parquet,
)
from wire.domains import PARQUET_PIECES
from wire.errors import VerificationError

ROOT = Path(__file__).resolve().parents[3]
KEY, PLACE = bytes(range(KEY_BYTES)), b"extract 1"
TABLE = pa.table({"cost": [1, 2, 3], "name": ["wang-wu", "li-si", None], "denied": ["a", "b", "c"]})
COLUMNS = stored_columns(TABLE.schema, "d")


def written(key: bytes = KEY, place: bytes = PLACE) -> bytes:
    file = io.BytesIO()
    write_parquet(file, COLUMNS, [TABLE], key, place)
    return file.getvalue()


def test_footer_schema_and_pages_are_encrypted() -> None:
    data = written()
    assert data[:4] == data[-4:] == b"PARE", "an encrypted footer, not a plain one with encrypted columns"
    for planted in (b"cost", b"name", b"denied", b"wang-wu", PLACE, KEY):
        assert planted not in data
    assert parse_parquet(pa.py_buffer(data), COLUMNS, 3, KEY, PLACE, "f").equals(TABLE)


def test_one_key_opens_every_column_and_no_other_any() -> None:
    """Uniform: whoever has the key has all of the file, so what may not leave must not be in it."""
    properties = encryption.create_decryption_properties(KEY, aad_prefix=PLACE)
    with pq.ParquetFile(pa.BufferReader(written()), decryption_properties=properties) as file:
        for name in TABLE.column_names:
            assert file.read([name]).equals(TABLE.select([name]))
    for key, place in ((bytes(KEY_BYTES), PLACE), (KEY, b"extract 2")):
        with pytest.raises(VerificationError):
            parse_parquet(pa.py_buffer(written()), COLUMNS, 3, key, place, "f")


ASKED: dict[str, Callable[[ds.Dataset], object]] = {
    "a column that is not in it": lambda found: found.to_table(columns=["nothing"]),
    "a filter on it": lambda found: found.to_table(filter=pc.field("nothing") > 3),
    "statistics": lambda found: [
        group.statistics for fragment in found.get_fragments() for group in fragment.row_groups
    ],
    "a filter on one that is": lambda found: found.to_table(filter=pc.field("denied") == "b").num_rows,
}
ASKING = """
import sys
from pathlib import Path
import pyarrow as pa, pyarrow.dataset as ds, pyarrow.fs as fs
from pyarrow.parquet import encryption
from tests.privacy.copies.test_encrypted_parquet import ASKED, KEY, PLACE

properties = encryption.create_decryption_properties(KEY, aad_prefix=PLACE)
options = ds.ParquetFragmentScanOptions(decryption_properties=properties)
found = ds.dataset(sys.argv[1], format=ds.ParquetFileFormat(default_fragment_scan_options=options))
for name, ask in ASKED.items():
    try:
        ask(found)
    except (pa.ArrowException, KeyError, ValueError) as error:
        print(name, "|", type(error).__name__)
    else:
        print(name, "| answered")
"""


def test_no_question_about_a_column_ends_the_process(tmp_path: Path) -> None:
    """In a process of its own: it is Arrow's C++ that aborted, or hung."""
    path = tmp_path / "f.parquet"
    path.write_bytes(written())
    done = subprocess.run(
        [sys.executable, "-c", ASKING, str(path)], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    said = dict(line.split(" | ") for line in done.stdout.splitlines())
    assert done.returncode == 0, done.stderr
    assert said.keys() == ASKED.keys() and said["a filter on one that is"] == said["statistics"] == "answered"
    assert "answered" not in (said["a column that is not in it"], said["a filter on it"])


def test_no_code_of_the_product_uses_arrows_key_factory() -> None:
    """It keeps unwrapped keys in a cache of the process, also after they were destroyed."""
    asked = []
    for part in ("privacy", "medveil", "mpc", "connectors", "ledger", "zkp", "wire"):
        for path in sorted((ROOT / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
                if name in ("CryptoFactory", "KmsClient", "KmsConnectionConfig", "EncryptionConfiguration"):
                    asked.append((str(path), name))
    assert asked == []


def test_two_files_of_one_key_are_not_alike() -> None:
    """Each has a random id of its own, which its associated data bind, and its own nonces."""
    assert written()[100:200] != written()[100:200]


def test_what_was_altered_is_never_given_out_to_be_parsed(tmp_path: Path) -> None:
    """Lengths and offsets stand outside of the encryption: the hash is compared first, over every byte."""
    data = written()
    path = tmp_path / "f"
    path.write_bytes(data + b"an end that is not hashed")
    length, digest = len(data), hashlib.sha256(data).digest()
    assert read_checked(path, length, digest).to_pybytes() == data
    for at in range(0, length, 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(VerificationError) as raised:
            read_checked(path, length, digest)
        assert raised.value.code == "parquet.altered"
    path.write_bytes(data[:-1])
    with pytest.raises(VerificationError):
        read_checked(path, length, digest)


def by_the_book(data: bytes) -> bytes:
    """The hash in pieces, as the module's head has it."""
    domain, framed = PARQUET_PIECES, [len(data).to_bytes(8, "big")]
    framed += [hashlib.sha256(data[at : at + 2**23]).digest() for at in range(0, len(data), 2**23)]
    whole = bytes([len(domain)]) + domain + b"".join(len(part).to_bytes(8, "big") + part for part in framed)
    return hashlib.sha256(whole).digest()


@pytest.mark.parametrize("length", [0, 1, 2**22 + 1, 2**23 - 1, 2**23, 2**23 + 1, 3 * 2**23 + 12_345])
def test_in_pieces_every_byte_and_their_order_count(length: int, tmp_path: Path) -> None:
    data = random.Random(length).randbytes(length)
    path, right = tmp_path / "f", by_the_book(data)
    path.write_bytes(data + b"an end that is not hashed")
    assert read_checked(path, length, right, pieces=True).to_pybytes() == data
    check_file(path, length, right)
    wrong = [(data, length + 1), (data[:-1], length), (data[1:] + data[:1], length), (data + data, 2 * length)]
    wrong += [(data[2**23 : 2**24] + data[: 2**23] + data[2**24 :], length)] if length > 2**24 else []
    wrong += [(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], length) for at in range(0, length, 2**22)]
    for content, said in wrong:
        if (content, said) == (data, length):  # an empty file twice is itself
            continue
        path.write_bytes(content + b"!")
        for check in (partial(read_checked, pieces=True), check_file):
            with pytest.raises(VerificationError) as raised:
                check(path, said, right)
            assert raised.value.code == "parquet.altered"
    with pytest.raises(VerificationError):
        check_file(path, length, hashlib.sha256(data).digest())


@pytest.mark.parametrize("pieces", [True, False])
def test_what_is_written_says_the_hash_that_reading_checks(
    pieces: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = pa.table({"n": pa.array(np.random.default_rng(1).integers(0, 2**62, 1_500_000))})
    columns = stored_columns(many.schema, "d")
    monkeypatch.setattr(encrypted_parquet, "_WAITING", 2**20)
    with (tmp_path / "f").open("wb") as file:
        said = write_parquet(file, columns, [many], KEY, PLACE, pieces=pieces)
    data = (tmp_path / "f").read_bytes()
    assert said.length == len(data) > 2**23
    assert said.digest == (by_the_book(data) if pieces else hashlib.sha256(data).digest())
    found = read_checked(tmp_path / "f", said.length, said.digest, pieces=pieces)
    assert parse_parquet(found, columns, said.rows, KEY, PLACE, "f").equals(many)


def test_short_pages_are_written_together(tmp_path: Path) -> None:
    """Each write waits for the interpreter, and is a task for the thread that hashes."""

    class Counted(io.BytesIO):
        writes = 0

        def write(self, data: object) -> int:
            self.writes += 1
            return super().write(data)  # type: ignore[arg-type]

    wide = pa.table({f"c{number}": pa.array(range(1000)) for number in range(50)})
    file = Counted()
    said = write_parquet(file, stored_columns(wide.schema, "d"), [wide], KEY, PLACE, pieces=True)
    assert file.writes <= 2
    data = file.getvalue()
    assert said.length == len(data) and said.digest == by_the_book(data)
