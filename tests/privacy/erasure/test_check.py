"""What a check looks for, it finds: every kind of leftover is planted once."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unicodedata import normalize

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from privacy.erasure import steps as erasure
from privacy.erasure.check import CheckReport, check_erasure, files_below
from privacy.erasure.receipt import ErasureReceipt
from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from tests.privacy.erasure.conftest import MARKERS, WANG, Home, opened
from wire.errors import Refused
from wire.signing import Signer


def receipt_of(home: Home, name: str) -> ErasureReceipt:
    return erasure.receipt(home.vault, name, Signer(b"o" * 32), home.clock())


def check(home: Home, receipt: ErasureReceipt, **more: object) -> CheckReport:
    settings = {"markers": MARKERS, "root": home.folder} | more
    return check_erasure(receipt, home.vault, files_below(home.folder), **settings)  # type: ignore[arg-type]


def codes(report: CheckReport) -> list[str]:
    return sorted(one.code for one in report.leftovers)


@pytest.fixture
def before(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files as they are before anything is erased, elsewhere."""
    copy = tmp_path_factory.mktemp("before") / "home"
    home.vault.tidy()
    return Path(shutil.copytree(home.folder, copy))


@pytest.fixture
def receipt(before: Path, home: Home) -> ErasureReceipt:
    return receipt_of(home, home.apply(home.plan().name).name)


def test_after_an_erasure_nothing_is_left(home: Home, receipt: ErasureReceipt) -> None:
    """In live files, the write-ahead log and pages that were freed; while everything is open."""
    names = {path.name for path in files_below(home.folder)}
    assert {"vault.sqlite", "vault.sqlite-wal", "audit.sqlite", "erased", "keys"} <= names
    report = check(home, receipt)
    assert report.leftovers == () and report.unread == ()
    assert (report.keys, report.files) == (2, len(names)) and report.bytes > 50_000


def test_before_an_erasure_the_check_would_have_found_it(before: Path, home: Home, receipt: ErasureReceipt) -> None:
    """The marks are those of the wraps: in the older file they stand, and so do the keys."""
    found = check_erasure(receipt, home.vault, files_below(before), root=before)
    assert codes(found) == ["privacy.leftover_copy", "privacy.leftover_wrap"]
    assert {one.facts["file"] for one in found.leftovers} == {"vault/vault.sqlite"}


def test_a_wrap_that_survives_in_any_file(home: Home, receipt: ErasureReceipt) -> None:
    mark = receipt.keys[1].mark
    for name, content in (("page", b"\x00" * 5000 + mark + b"\x01"), ("edge", b"\x00" * ((1 << 20) - 7) + mark)):
        (home.folder / name).write_bytes(content)
        report = check(home, receipt)
        assert [(one.code, one.facts) for one in report.leftovers] == [("privacy.leftover_wrap", {"file": name})]
        (home.folder / name).unlink()


@pytest.mark.parametrize("spelled", [bytes.hex, lambda mark: mark.hex().upper()])
def test_a_wrap_in_a_dump(home: Home, receipt: ErasureReceipt, spelled: Callable[[bytes], str]) -> None:
    """Of PostgreSQL or SQLite, as text: a copy of the vault all the same."""
    for before in ("COPY keys FROM stdin;\n7\t\\\\x00", "\n" * ((1 << 20) - 9)):
        (home.folder / "dump.sql").write_text(before + spelled(receipt.keys[0].mark) + "ff\n")
        report = check(home, receipt)
        assert len(report.leftovers) == 1
    assert [(one.code, one.facts) for one in report.leftovers] == [("privacy.leftover_wrap", {"file": "dump.sql"})]


@pytest.mark.parametrize("code", ["utf-8", "utf-16-le", "utf-16-be"])
def test_plaintext_that_lies_about(code: str, home: Home, receipt: ErasureReceipt) -> None:
    (home.folder / "tmp").mkdir()
    (home.folder / "tmp" / "spill").write_bytes(b"x" * 999 + MARKERS[1].encode(code))
    report = check(home, receipt)
    assert [(one.code, one.facts) for one in report.leftovers] == [("privacy.leftover_text", {"file": "tmp/spill"})]
    assert all(
        marker not in one.text(language) for one in report.leftovers for marker in MARKERS for language in ("en", "zh")
    )
    with pytest.raises(ValueError, match="4 characters"):
        check(home, receipt, markers=["abc"])


@pytest.mark.parametrize(
    "written",
    [
        "王小明-复诊".encode("gb18030"),
        json.dumps("王小明-复诊").encode(),
        rb"\u738B\u5C0F\u660E-\u590D\u8BCA",
        normalize("NFD", "Zoé Müller").encode(),
        "zoé müller".encode(),
        "ZOÉ MÜLLER".encode("utf-16-le"),
        b"11010119900101123x",
    ],
)
def test_plaintext_in_another_spelling(written: bytes, home: Home, receipt: ErasureReceipt) -> None:
    (home.folder / "spill").write_bytes(b"x" * 999 + written + b"\n")
    markers = ["王小明-复诊", "Zoé Müller", "１１010119900101123X"]
    report = check(home, receipt, markers=markers)
    assert [(one.code, one.facts) for one in report.leftovers] == [("privacy.leftover_text", {"file": "spill"})]
    (home.folder / "spill").write_bytes(b"x" * 999)
    assert check(home, receipt, markers=[*markers, "\ud800" * 4]).leftovers == ()


def test_a_text_in_the_name_of_a_file_or_folder(home: Home, receipt: ErasureReceipt) -> None:
    (home.folder / f"letters to {WANG.upper()}").mkdir()
    (home.folder / f"letters to {WANG.upper()}" / "first.txt").write_bytes(b"nothing in it")
    report = check(home, receipt)
    assert [(one.code, one.facts) for one in report.leftovers] == [("privacy.leftover_name", {"file": "*/first.txt"})]
    assert all(WANG not in one.text(language).lower() for one in report.leftovers for language in ("en", "zh"))


def _zip(data: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("vault.sqlite", data)
    return made.getvalue()


def _columns(data: bytes) -> bytes:
    made = io.BytesIO()
    parquet.write_table(pa.table({"name": [data]}), made, compression="zstd")
    return made.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, _zip, _columns])
def test_a_packed_copy_is_not_taken_for_nothing(
    pack: Callable[[bytes], bytes], before: Path, home: Home, receipt: ErasureReceipt
) -> None:
    (home.folder / "copy").write_bytes(pack((before / "vault" / "vault.sqlite").read_bytes()))
    report = check(home, receipt)
    assert [(one.code, one.facts) for one in report.leftovers] == [("privacy.leftover_packed", {"file": "copy"})]


def test_an_older_copy_that_was_put_back_without_its_register(
    before: Path, home: Home, receipt: ErasureReceipt, provider: FileKeyProvider
) -> None:
    old = opened(before, provider)
    try:
        found = codes(check(old, receipt, markers=()))
        assert found.count("privacy.leftover_key") == 2 and "privacy.leftover_wrap" in found
        assert "privacy.leftover_rows" not in found, "all of these rows are in the receipt"
    finally:
        old.vault.close()
        old.trail.close()


def test_an_older_copy_with_its_register_brings_nothing_back(
    before: Path, home: Home, receipt: ErasureReceipt, provider: FileKeyProvider
) -> None:
    shutil.copy(home.folder / "erased", before / "erased")
    old = opened(before, provider)
    try:
        assert not {"privacy.leftover_key", "privacy.leftover_wrap"} & set(codes(check(old, receipt, markers=())))
        assert {key.key for key in receipt.keys} == {one.key for one in old.vault.erasures()}
        # What was restricted since is in use again: the register knows of destroyed keys alone.
        assert codes(check(old, receipt, markers=())) == ["privacy.leftover_restricted"] * len(receipt.restricted)
    finally:
        old.vault.close()
        old.trail.close()


def test_another_vault_knows_nothing_of_it(home: Home, receipt: ErasureReceipt, provider: FileKeyProvider) -> None:
    with Vault.create(home.folder / "other" / "vault", provider, "hospital-1") as other:
        found = check_erasure(receipt, other, ())
    assert codes(found) == ["privacy.leftover_tombstone"] * 2


def test_rows_that_came_back_from_a_source(home: Home, receipt: ErasureReceipt) -> None:
    table = pa.table({"cost": pa.array([9.0]), "note": pa.array(["again"])})
    home.vault.ingest("visits", table, persons=[WANG], append=True)
    report = check(home, receipt)
    assert codes(report) == ["privacy.leftover_rows"]
    (key,) = [one.key for one in home.vault.keys_of(WANG) if one.state == "active"]
    assert report.leftovers[0].facts == {"dataset": "visits", "key": key.hex()}


def test_snapshots_are_looked_into(home: Home, receipt: ErasureReceipt) -> None:
    def broken() -> frozenset[bytes]:
        raise Refused("privacy.no_dataset", dataset="bills")

    inside = {
        "visits": lambda: frozenset([receipt.keys[1].key, b"l" * 16]),
        "kept": lambda: frozenset([receipt.restricted[0].key]),
        "clean": lambda: frozenset([b"l" * 16]),
        "bills": broken,
    }
    report = check(home, receipt, snapshots=inside)
    assert codes(report) == [*["privacy.leftover_snapshot"] * 2, "privacy.leftover_unknown"] and report.snapshots == 3
    assert [one.facts["dataset"] for one in report.leftovers] == ["visits", "kept", "bills"]


def test_a_file_that_cannot_be_read_is_reported(home: Home, receipt: ErasureReceipt) -> None:
    missing = home.folder / "gone"
    report = check_erasure(receipt, home.vault, [missing], root=home.folder)
    assert (report.unread, report.leftovers, report.files) == (("gone",), (), 0)
    assert check_erasure(receipt, home.vault, [], server=True).server


def test_a_link_is_not_followed(home: Home, receipt: ErasureReceipt, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    elsewhere.write_bytes(receipt.keys[0].mark)
    (home.folder / "link").symlink_to(elsewhere)
    report = check(home, receipt)
    assert (report.leftovers, report.links) == ((), ("link",)), "and that it was not is said"
    (home.folder / "inside").symlink_to(home.folder / "vault")
    assert check(home, receipt).links == ("link",), "what it leads to is read where it lies"


def test_a_folder_that_cannot_be_listed_is_reported(home: Home, receipt: ErasureReceipt) -> None:
    """As one that belongs to somebody else: a search that passes it by in silence would find nothing in it."""
    assert list(files_below(home.folder / "nowhere")) == [home.folder / "nowhere"]
    report = check_erasure(receipt, home.vault, files_below(home.folder / "nowhere"), root=home.folder)
    assert report.unread == ("nowhere",)


def test_an_older_copy_whose_wraps_are_others(home: Home, provider: FileKeyProvider) -> None:
    """Restricting wraps a key again: the mark of its last wrap does not stand in a copy of before."""
    home.vault.back_up(home.folder / "backup")
    home.vault.restrict([key.key for key in home.vault.keys_of(WANG)])
    made = receipt_of(home, home.apply(home.plan().name).name)
    report = check(home, made)
    assert [(one.code, one.facts) for one in report.leftovers] == [
        ("privacy.leftover_copy", {"file": "backup/vault.sqlite"})
    ]
    home.vault.rotate()
    assert check(home, made).leftovers == (), "its epoch is gone: it is noise"


def test_a_copy_of_the_vault_that_is_damaged_is_not_taken_for_clean(home: Home, receipt: ErasureReceipt) -> None:
    home.vault.back_up(home.folder / "backup")
    copy = home.folder / "backup" / "vault.sqlite"
    assert check(home, receipt).leftovers == (), "it was made after the erasure"
    copy.write_bytes(copy.read_bytes()[:20_000])
    assert codes(check(home, receipt)) == ["privacy.leftover_copy"]


def test_an_older_key_file(home: Home, receipt: ErasureReceipt, provider: FileKeyProvider) -> None:
    """With it a rotation ended nothing."""
    shutil.copy(provider.path, home.folder / "keys.bak")
    assert check(home, receipt).leftovers == (), "its epochs are all in use"
    home.vault.rotate()
    report = check(home, receipt)
    assert [(one.code, one.facts) for one in report.leftovers] == [("privacy.leftover_epochs", {"file": "keys.bak"})]
    FileKeyProvider.create(home.folder / "wallet-keys", "another", cost=provider._file.cost).destroy(1)
    (home.folder / "keys.bak").unlink()
    assert check(home, receipt).leftovers == (), "another set of keys is none of its copies"


def test_the_tombstones_of_another_receipt_do_not_count(home: Home, receipt: ErasureReceipt) -> None:
    other = tuple(msgspec.structs.replace(key, key=bytes(15) + bytes([n])) for n, key in enumerate(receipt.keys))
    report = check(home, msgspec.structs.replace(receipt, keys=other))
    assert codes(report) == ["privacy.leftover_tombstone"] * 2


def test_what_sqlite_itself_sees_is_gone(home: Home, receipt: ErasureReceipt) -> None:
    """Not only by our own search: no key row, no row of data, and the freed pages hold no byte of the wraps."""

    @contextlib.contextmanager
    def reading() -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(f"file:{home.vault.path / 'vault.sqlite'}?mode=ro", uri=True)) as made:
            yield made

    with reading() as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for key in receipt.keys:
            assert database.execute("SELECT COUNT(*) FROM keys WHERE key = ?", (key.key,)).fetchone() == (0,)
        assert database.execute("SELECT COUNT(*) FROM keys").fetchone() == (4,)
        assert database.execute("SELECT COUNT(*) FROM rows").fetchone() == (5,)
