"""A leak in each kind of place is seen, however it is packed; what is meant to be there is told apart."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import secrets
import sqlite3
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medveil.leak_test import places
from medveil.leak_test.patients import Planted, plant, typed
from medveil.leak_test.places import files
from medveil.leak_test.run import told
from medveil.leak_test.search import Search
from medveil.leak_test.verdict import MOST_TOLD, Count, Verdict


@pytest.fixture
def planted() -> Planted:
    return plant("hospital-1", secrets.token_bytes)


def judged(planted: Planted, folder: Path) -> Verdict:
    markers = [*planted.markers(), typed("hospital-1", lambda count: bytes(count))]
    count = Count(Search(markers), markers)
    count.folder(files(folder))
    return count.verdict()


def _sqlite(data: bytes, path: Path) -> None:
    """Spread over pages: no page of the file holds it whole."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA page_size = 512")
    database.execute("CREATE TABLE t (a, b)")
    database.executemany("INSERT INTO t VALUES (1, ?)", [(bytes(40 * n % 700) + data + bytes(900),) for n in range(30)])
    database.commit()
    database.close()


def _parquet(data: bytes, path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2], "b": [data.decode(), None]}), path, compression="zstd")


def _zip(data: bytes, path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("deep/er.txt", gzip.compress(b"x" * 1000 + data))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inner.zip", inner.getvalue())


def _zstd(data: bytes, path: Path) -> None:
    with pa.output_stream(path, compression="zstd") as stream:
        stream.write(b"y" * 5000 + data)


_PACKED: dict[str, Callable[[bytes, Path], object]] = {
    "as it is": lambda data, path: path.write_bytes(b"z" * 777 + data),
    "gzip": lambda data, path: path.write_bytes(gzip.compress(b"z" * 777 + data)),
    "zlib": lambda data, path: path.write_bytes(zlib.compress(b"z" * 777 + data)),
    "bzip2": lambda data, path: path.write_bytes(bz2.compress(b"z" * 777 + data)),
    "xz": lambda data, path: path.write_bytes(lzma.compress(b"z" * 777 + data)),
    "two streams": lambda data, path: path.write_bytes(gzip.compress(b"z") + gzip.compress(data)),
    "zip": _zip,
    "zstd": _zstd,
    "parquet": _parquet,
    "sqlite": _sqlite,
}


@pytest.mark.parametrize("how", _PACKED)
def test_packed(tmp_path: Path, planted: Planted, how: str) -> None:
    path = tmp_path / "evidence" / "hospital-9" / "some.file"
    path.parent.mkdir(parents=True)
    word = planted.patients[1].identity
    _PACKED[how](word.encode(), path)
    verdict = judged(planted, tmp_path)
    assert {(leak.what, leak.file) for leak in verdict.leaks} == {
        ("identity number of patient 2 of hospital-1", "evidence/hospital-9/some.file")
    }
    if how == "as it is":
        assert verdict.leaks[0].offset == 777
    said = "\n".join(told(verdict))
    assert said and word not in said and "identity number of patient 2 of hospital-1" in said


@pytest.mark.parametrize("how", ["gzip", "zlib", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("end", ["cut short", "goes on"])
def test_packed_and_not_whole(tmp_path: Path, planted: Planted, how: str, end: str) -> None:
    """As of a process that was killed while it wrote: what can be unpacked is searched."""
    path = tmp_path / "temp" / "left"
    path.parent.mkdir()
    noise = secrets.token_bytes(2_000_000)
    _PACKED[how](planted.patients[1].identity.encode() + noise, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-60_000] if end == "cut short" else whole + b"and more")
    assert {leak.what for leak in judged(planted, tmp_path).leaks} == {"identity number of patient 2 of hospital-1"}


_FILES = {
    "consortium/homes/hospital-2/ledger.sqlite-wal": places.LEDGER,
    "consortium/homes/bureau/blocks.sqlite": places.LEDGER,
    "consortium/homes/hospital-1/vault/vault.sqlite": places.VAULTS,
    "consortium/homes/hospital-1/wallets/wallet-1/keys": places.VAULTS,
    "consortium/homes/hospital-1/service.sqlite-journal": places.HOMES,
    "consortium/homes/hospital-1/audit.sqlite": places.HOMES,
    "consortium/homes/hospital-1/evidence/e-1/manifest.json": places.EVIDENCE,
    "consortium/backups/hospital-1-then/home/vault/vault.sqlite": places.BACKUPS,
    "consortium/logs/hospital-1.log": places.LOGS,
    "consortium/people.json": places.OTHER,
    "answers/insurer-1/00017-200-GET-scores": places.ANSWERS,
    "answers/hospital-1/00018-200-GET-grants/": places.ANSWERS,
    "answers/hospital-1/00019-422-POST-grants": places.ERRORS,
    "printed/003-erasure-plan": places.PRINTED,
    "restored/home/vault/vault.sqlite": places.BACKUPS,
    "evidence/regulator/ledger.evidence": places.EVIDENCE,
    "temp/tmp1": places.TEMPORARY,
    "kept/12345": places.TEMPORARY,
    "work/core.123": places.CORES,
}


@pytest.mark.parametrize("name", _FILES)
def test_in_each_place(tmp_path: Path, planted: Planted, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{" + planted.patients[0].name.encode() + b"," + planted.patients[0].visit.encode())
    verdict = judged(planted, tmp_path)
    found = {leak.what for leak in verdict.leaks}
    assert found == {"name of patient 1 of hospital-1", "record id of patient 1 of hospital-1"}
    assert [row.place for row in verdict.rows if row.leaks] == [_FILES[name]] and not verdict.good


def test_a_name_of_a_file_is_searched_and_not_told(tmp_path: Path, planted: Planted) -> None:
    path = tmp_path / "consortium" / "homes" / "hospital-1" / "wallets" / planted.patients[2].wallet / "keys"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    verdict = judged(planted, tmp_path)
    (leak,) = verdict.leaks
    assert leak.view == "its name" and leak.file == "consortium/homes/hospital-1/wallets/(a marker)/keys"


def test_what_is_meant_to_be_there(tmp_path: Path, planted: Planted) -> None:
    """The owner's staff may see own record ids where records are scored; nobody else, nowhere else."""
    allowed = tmp_path / "answers" / "hospital-1" / "00001-200-GET-scores"
    elsewhere = tmp_path / "answers" / "hospital-2" / "00002-200-GET-scores"
    otherwise = tmp_path / "answers" / "hospital-1" / "00003-200-GET-bills"
    for path in (allowed, elsewhere, otherwise):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(planted.patients[0].visit.encode())
    verdict = judged(planted, tmp_path)
    assert {leak.file for leak in verdict.leaks} == {
        "answers/hospital-2/00002-200-GET-scores",
        "answers/hospital-1/00003-200-GET-bills",
    }
    assert [(one.place, one.found) for one in verdict.allowed] == [(places.ANSWERS, 1)]
    allowed.write_bytes(planted.patients[0].name.encode())
    assert any(leak.file == "answers/hospital-1/00001-200-GET-scores" for leak in judged(planted, tmp_path).leaks)


def test_a_search_that_finds_nothing_counts_for_nothing(tmp_path: Path, planted: Planted) -> None:
    (tmp_path / "tables").mkdir()
    verdict = judged(planted, tmp_path)
    assert not verdict.leaks and not verdict.good and len(verdict.faults) == 8


def test_many_leaks_are_counted_and_not_all_told(tmp_path: Path, planted: Planted) -> None:
    (tmp_path / "temp").mkdir()
    (tmp_path / "temp" / "much").write_bytes(planted.patients[0].phone.encode() * 200)
    verdict = judged(planted, tmp_path)
    assert len(verdict.leaks) == 200 and len(told(verdict)) == MOST_TOLD + 1
