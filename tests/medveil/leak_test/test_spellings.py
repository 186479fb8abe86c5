"""What is planted is recognisable, and found however it is written."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import secrets
import struct
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from connectors.dataset import read_layout
from connectors.files import read_csv
from connectors.quality import prepare
from medveil.leak_test import search as searching
from medveil.leak_test.patients import Marker, identity_number, plant, write_broken, write_tables
from medveil.leak_test.search import PIECE, Search
from medveil.leak_test.spellings import SHORTEST, spellings
from wire.errors import DecodeError

TEXT = Marker("identity number", "hospital-1", 1, "11010119900307775X")
NAME = Marker("name", "hospital-1", 1, "欧阳曦翀")
FEN = 734_519_264_017
AMOUNT = Marker("cost", "hospital-1", 1, number=FEN)

_WRITTEN: list[tuple[Marker, Callable[[], bytes]]] = [
    (NAME, lambda: NAME.text.encode()),
    (NAME, lambda: NAME.text.encode("utf-16")),
    (NAME, lambda: NAME.text.encode("utf-16-be")),
    (NAME, lambda: NAME.text.encode("gb18030")),
    (NAME, lambda: json.dumps({"name": NAME.text}).encode()),
    (NAME, lambda: urllib.parse.urlencode({"name": NAME.text}).encode()),
    (NAME, lambda: repr(NAME.text.encode()).encode()),
    (NAME, lambda: NAME.text[::-1].encode()),
    (NAME, lambda: msgspec.msgpack.encode([1, {"a": NAME.text}])),
    (TEXT, lambda: TEXT.text.encode().hex().upper().encode()),
    (TEXT, lambda: base64.b64encode(b"a" + TEXT.text.encode() + b"bc")),
    (TEXT, lambda: base64.b64encode(b"ab" + TEXT.text.encode() + b"c")),
    (TEXT, lambda: base64.urlsafe_b64encode(b"abc" + TEXT.text.encode())),
    (TEXT, lambda: TEXT.text.lower().encode()),
    (TEXT, lambda: hashlib.sha256(TEXT.text.encode()).digest()),
    (TEXT, lambda: hashlib.sha256(TEXT.text.encode()).hexdigest().encode()),
    (TEXT, lambda: hashlib.new("sm3", TEXT.text.encode()).digest()[:16]),
    (TEXT, lambda: hashlib.sha1(TEXT.text.encode(), usedforsecurity=False).hexdigest().upper().encode()),
    (TEXT, lambda: base64.b64encode(hashlib.sha256(TEXT.text.encode()).digest())),
    (TEXT, lambda: base64.urlsafe_b64encode(b"a" + hashlib.sha256(TEXT.text.encode()).digest())),
    (TEXT, lambda: base64.b64encode(TEXT.text.encode("utf-16-le"))),
    (NAME, lambda: NAME.text.encode("gb18030").hex().encode()),
    (AMOUNT, lambda: str(FEN).encode()),
    (AMOUNT, lambda: b"7345192640.17"),
    (AMOUNT, lambda: b"7,345,192,640.17"),
    (AMOUNT, lambda: b'{"cost": 7345192640.17}'),
    (AMOUNT, lambda: msgspec.msgpack.encode(FEN)),
    (AMOUNT, lambda: msgspec.msgpack.encode(FEN / 100)),
    (AMOUNT, lambda: struct.pack("<q", FEN)),
    (AMOUNT, lambda: FEN.to_bytes(32, "big")),
    (AMOUNT, lambda: FEN.to_bytes(32, "little")),
    (AMOUNT, lambda: FEN.to_bytes(6, "big")),
    (AMOUNT, lambda: (1000 * FEN).to_bytes(8, "big")),
    (AMOUNT, lambda: base64.b64encode(b"x" + struct.pack(">q", FEN))),
    (AMOUNT, lambda: pa.array([1.5, FEN / 100]).buffers()[1].to_pybytes()),
    (AMOUNT, lambda: str(FEN).encode("utf-16-le")),
]


@pytest.mark.parametrize(("marker", "written"), _WRITTEN, ids=range(len(_WRITTEN)))
def test_found_however_it_is_written(marker: Marker, written: Callable[[], bytes]) -> None:
    search = Search([TEXT, NAME, AMOUNT])
    for before in range(5):
        data = secrets.token_bytes(before) + written() + secrets.token_bytes(7)
        assert {one.marker for one in search.find(data)} == {marker}


def test_every_spelling_is_found_where_it_stands_and_nothing_elsewhere() -> None:
    markers = [marker for number in range(3) for marker in plant(f"hospital-{number}", secrets.token_bytes).markers()]
    search = Search(markers)
    assert len(markers) > 100 and search.spellings > 2500
    for marker in markers:
        found = spellings(marker)
        assert len(found) >= 8 and min(map(len, found)) >= SHORTEST
        for data in found:
            before = secrets.randbelow(9)
            hits = list(search.find(secrets.token_bytes(before) + data + secrets.token_bytes(3), 1000))
            assert any(one.marker == marker and one.offset == 1000 + before for one in hits)
    assert list(search.find_in(secrets.token_bytes(PIECE) for _ in range(8))) == []


@pytest.mark.parametrize("enough", [1, 700, searching.ENOUGH])
@pytest.mark.parametrize("seed", range(20))
def test_found_across_pieces_once(monkeypatch: pytest.MonkeyPatch, seed: int, enough: int) -> None:
    monkeypatch.setattr(searching, "ENOUGH", enough)
    chance = random.Random(seed)
    search = Search([TEXT, NAME, AMOUNT])
    places = sorted(chance.sample(range(0, 3000, 100), 3))
    data = bytearray(chance.randbytes(3200))
    for place, marker in zip(places, (TEXT, NAME, AMOUNT), strict=True):
        raw = marker.text.encode() or str(marker.number).encode()
        data[place : place + len(raw)] = raw
    pieces, at = [], 0
    while at < len(data):
        size = chance.choice((1, 3, 17, 64, 500))
        pieces.append(bytes(data[at : at + size]))
        at += size
    found = sorted((one.offset, one.marker.kind) for one in search.find_in(pieces))
    assert found == list(zip(places, ("identity number", "name", "cost"), strict=True))


def test_small_pieces_are_searched_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of each of a table's rows would cost as much as one of a megabyte."""
    search, searched = Search([TEXT]), []
    find = search.find
    monkeypatch.setattr(search, "find", lambda data, base=0: searched.append(len(data)) or find(data, base))
    rows = [secrets.token_bytes(100) for _ in range(30_000)]
    (found,) = search.find_in([*rows, TEXT.text.encode()])
    assert found.offset == 3_000_000
    assert len(searched) == 3


def test_the_tables_hold_the_patients(tmp_path: Path) -> None:
    """And load, but for the one with a fault, whose refusal names no cell."""
    planted = [plant(f"hospital-{number}", secrets.token_bytes) for number in range(1, 4)]
    folder = tmp_path / "tables"
    write_tables(folder, planted)
    layout = read_layout(folder / "dataset.toml")
    for site, one in enumerate(planted, 1):
        path = folder / f"site-{site}.csv"
        prepared = prepare(read_csv(path, layout), layout)
        assert prepared.report.rows == 153 and prepared.report.columns[-1].out_of_range == 3
        assert {patient.visit for patient in one.patients} <= set(prepared.record_ids or ())
        costs = {round(100 * cell) for cell in prepared.table["cost"].to_pylist()}
        assert {patient.cost for patient in one.patients} <= costs
        hits = {found.marker.kind for found in Search(one.markers()).find(path.read_bytes())}
        assert hits == {marker.kind for marker in one.markers()} - {
            *("wallet", "bill's amount", "faulty cell", "filter of a grant"),
        }
    write_broken(folder / "broken", planted[0])
    with pytest.raises(DecodeError) as caught:
        read_csv(folder / "broken" / "rows.csv", read_layout(folder / "broken" / "dataset.toml"))
    said = caught.value.text("en") + caught.value.text("zh")
    assert not list(Search(planted[0].markers()).find(said.encode()))
    assert list(Search(planted[0].markers()).find((folder / "broken" / "rows.csv").read_bytes()))


def test_patients_are_new_each_time_and_never_shown() -> None:
    one, other = (plant("hospital-1", secrets.token_bytes) for _ in range(2))
    assert not {(marker.text, marker.number) for marker in one.markers()} & {
        (marker.text, marker.number) for marker in other.markers()
    }
    shown = repr(one) + repr([*one.markers()]) + "".join(marker.named() for marker in one.markers())
    assert not list(Search(one.markers()).find(shown.encode()))


def test_identity_numbers_have_their_check_digit() -> None:
    """GB 11643 (ISO 7064, MOD 11-2)."""
    for _ in range(50):
        number = identity_number(secrets.token_bytes)
        total = sum(int(digit) * 2 ** (17 - place) for place, digit in enumerate(number[:17]))
        assert (total + (10 if number[17] == "X" else int(number[17]))) % 11 == 1
