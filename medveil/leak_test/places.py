"""The places that are searched, and how one reads them.

A file is read as its bytes, and once more as what it holds where that is packed: rows of SQLite databases, members of
archives, compressed data, columns of Parquet files. Of a process: its command line and environment, files that it has
open elsewhere, whether it would dump a core, and the memory of every organisation that is not at home with a marker.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from medveil.leak_test.search import PIECE

LEDGER = "ledger and blocks"
VAULTS = "vaults and wallets"
HOMES = "the rest of the homes"
EVIDENCE = "evidence"
BACKUPS = "backups"
LOGS = "logs"
ANSWERS = "answers"
ERRORS = "answers with an error"
PRINTED = "what commands print"
CREDENTIALS = "credentials and proofs on files"
OWN = "what an insured person and her issuers see"
TEMPORARY = "temporary files"
CORES = "working folder, cores"
PROCESS = "command lines, environments"
ELSEWHERE = "files open elsewhere"
MEMORY = "memory of outsiders"
OTHER = "the consortium's own files"
INPUT = "tables to load"
"""Where every marker of a table stands: a search that does not find them is no search."""

PLACES = (LEDGER, VAULTS, HOMES, EVIDENCE, BACKUPS, LOGS, ANSWERS, ERRORS, PRINTED, CREDENTIALS, TEMPORARY, CORES,
          PROCESS, ELSEWHERE, MEMORY, OTHER, OWN, INPUT)  # fmt: skip
_LEDGER = ("ledger.sqlite", "blocks.sqlite", "cosigned.note", "consortium.json")
_SQLITE = b"SQLite format 3\x00"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_INFLATE = partial(zlib.decompressobj, 32 + zlib.MAX_WBITS)
_STREAMS: dict[bytes, tuple[str, Callable[[], Any]]] = {
    b"\x1f\x8b": ("gzip", _INFLATE),
    b"x\x9c": ("zlib", _INFLATE),
    b"x\x01": ("zlib", _INFLATE),
    b"x\xda": ("zlib", _INFLATE),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMADecompressor),
}
"""By their first bytes: what they are called, and what unpacks them."""
_STEP = 1 << 16
_DEEPEST = 3
_CLOSED = 1 << 30
"""Bytes that one packed thing may hold when it is opened."""


class Place(NamedTuple):
    """Something to search. place: of PLACES; organisation: whose, or empty; name: where it is, below the folder."""

    place: str
    organisation: str
    name: str
    path: Path


class View(NamedTuple):
    """One reading of something. name: how it was read, empty for its bytes as they are."""

    name: str
    pieces: Iterator[bytes]


def place_of(folder: Path, path: Path) -> Place:
    """Which place a file below the scene's folder belongs to."""
    name = path.relative_to(folder).as_posix()
    top, *rest = name.split("/")
    if top == "consortium" and len(rest) > 1:
        inner, *rest = rest
        if inner == "homes":
            return Place(_in_home(rest[1:]), rest[0], name, path)
        if inner == "data":
            return Place(INPUT, rest[0], name, path)
        if inner == "logs":
            return Place(LOGS, Path(rest[0]).stem, name, path)
        return Place({"backups": BACKUPS}.get(inner, OTHER), "", name, path)
    if top == "answers":
        status = path.name.split("-")[1]
        return Place(ERRORS if status >= "400" else ANSWERS, rest[0], name, path)
    if top == "credentials":
        return Place(OWN if rest[0] == "own" else CREDENTIALS, "", name, path)
    if top == "restored":
        return Place(BACKUPS, "", name, path)
    places = {
        "evidence": EVIDENCE,
        "printed": PRINTED,
        "temp": TEMPORARY,
        "kept": TEMPORARY,
        "work": CORES,
        "tables": INPUT,
    }
    return Place(places.get(top, OTHER), "", name, path)


def _in_home(parts: list[str]) -> str:
    if parts[0] in ("vault", "wallets"):
        return VAULTS
    if parts[0] == "evidence":
        return EVIDENCE
    return LEDGER if parts[0].startswith(_LEDGER) else HOMES


def files(folder: Path) -> Iterator[Place]:
    """Every file below the scene's folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield place_of(folder, path)


def views(path: Path) -> Iterator[View]:
    """A file's bytes, then what it holds."""
    yield View("", _pieces(path))
    with contextlib.suppress(FileNotFoundError):
        with path.open("rb") as file:
            head = file.read(16)
        if head == _SQLITE:
            yield View("rows", _rows(path))
        else:
            yield from _unpacked("", path.read_bytes() if _is_packed(head) else b"", 1)


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except FileNotFoundError:  # a running process has removed it since it was listed
        return


def _is_packed(head: bytes) -> bool:
    return head.startswith((b"PK\x03\x04", b"PAR1", _ZSTANDARD, *_STREAMS))


def _unpacked(name: str, data: bytes, depth: int) -> Iterator[View]:
    """What packed bytes hold, and what is packed in that. What cannot be opened was searched as it is."""
    if depth > _DEEPEST:
        return
    inner: list[tuple[str, bytes]] = []
    with contextlib.suppress(OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, NotImplementedError):
        if data.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(data)) as packed:
                inner += [(info.filename, packed.read(info)) for info in packed.infolist() if info.file_size < _CLOSED]
        elif data.startswith(b"PAR1"):
            inner.append(("columns", _columns(data)))
        elif data.startswith(_ZSTANDARD):
            inner.append(("zstd", _of_zstandard(data)))
    for head, (what, begin) in _STREAMS.items():
        if data.startswith(head):
            inner.append((what, _unpacked_stream(begin, data)))
    for what, found in inner:
        whole = f"{name}/{what}" if name else what
        yield View(whole, iter((found,)))
        yield from _unpacked(whole, found, depth + 1)


def _unpacked_stream(begin: Callable[[], Any], data: bytes) -> bytes:
    """What packed data hold, one stream after another; of one that was cut short, or goes on as something else, what
    comes before that."""
    found = bytearray()
    while data and len(found) < _CLOSED:
        stream, at = begin(), 0
        with contextlib.suppress(OSError, EOFError, zlib.error, lzma.LZMAError):
            while at < len(data) and not stream.eof:
                found += stream.decompress(data[at : at + _STEP])
                at += _STEP
        if not stream.eof:
            break
        data = stream.unused_data + data[at:]
    return bytes(found)


def _of_zstandard(data: bytes) -> bytes:
    import pyarrow as pa

    found = bytearray()
    with contextlib.suppress(OSError), pa.input_stream(io.BytesIO(data), compression="zstd") as stream:
        while len(found) < _CLOSED and (piece := stream.read(_STEP)):
            found += piece
    return bytes(found)


def _columns(data: bytes) -> bytes:
    """The cells of a Parquet file that is not encrypted, as text. Raises ValueError or OSError, as pyarrow does."""
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    return "\n".join(str(cell) for column in table.columns for cell in column.to_pylist()).encode()


def _rows(path: Path) -> Iterator[bytes]:
    """Every cell of every table of a SQLite database: of a copy, so that the original is left alone."""
    with tempfile.TemporaryDirectory() as beside:
        copy = Path(beside) / "copy.sqlite"
        shutil.copyfile(path, copy)
        for tail in ("-wal",):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path.with_name(path.name + tail), copy.with_name(copy.name + tail))
        with contextlib.closing(sqlite3.connect(copy)) as database, contextlib.suppress(sqlite3.DatabaseError):
            database.text_factory = bytes
            names = [row[0].decode() for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in names:
                quoted = name.replace('"', '""')
                for row in database.execute(f'SELECT * FROM "{quoted}"'):
                    yield b"\x1f".join(_cell(cell) for cell in row) + b"\x1e"


def _cell(cell: object) -> bytes:
    return cell if isinstance(cell, bytes) else str(cell).encode()
