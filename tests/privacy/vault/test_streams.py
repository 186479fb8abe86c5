"""Large documents in the vault: streamed, bound to their place, whole after any crash, erased with their person."""

from __future__ import annotations

import io
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from privacy.keys import FileKeyProvider
from privacy.suites import SM4_GCM
from privacy.vault import Vault
from privacy.vault.sealed_stream import CHUNK
from wire.errors import MedveilError, Refused, Unavailable, VerificationError

MARKER = b"a planted marker of wang-wu's scan"
SCAN = MARKER + random.Random(1).randbytes(3 * CHUNK + 5)


def text_in(vault: Vault, kind: str, name: str) -> bytes:
    with vault.open_stream(kind, name) as opened:
        return opened.read()


def put(vault: Vault, name: str = "scan-1", text: bytes = SCAN, **more: object) -> None:
    vault.put_stream("scan", name, io.BytesIO(text), **more)  # type: ignore[arg-type]


def blobs_in(folder: Path) -> list[Path]:
    return sorted((folder / "blobs").rglob("*.blob"))


def test_put_opened_listed_removed(vault: Vault, provider: FileKeyProvider) -> None:
    put(vault)
    put(vault, "empty", b"")
    put(vault, "small", b"abc", suite=SM4_GCM)
    info = vault.stream("scan", "scan-1")
    assert (info.name, info.length, info.sealed_length) == ("scan-1", len(SCAN), len(SCAN) + 4 * 16)
    assert vault.streams("scan") == ("empty", "scan-1", "small") and vault.streams("letter") == ()
    vault.close()
    with Vault.open(vault.path, provider, "hospital-1") as again:
        assert text_in(again, "scan", "scan-1") == SCAN
        assert text_in(again, "scan", "empty") == b""
        assert text_in(again, "scan", "small") == b"abc"
        again.remove_stream("scan", "scan-1")
        assert again.streams("scan") == ("empty", "small") and len(blobs_in(vault.path)) == 2
        for call in (again.open_stream, again.stream, again.remove_stream):
            with pytest.raises(Refused) as raised:
                call("scan", "scan-1")
            assert raised.value.code == "privacy.no_document"


def test_nothing_of_it_is_in_the_clear(vault: Vault) -> None:
    put(vault, person="wang-wu")
    vault.close()
    for path in vault.path.parent.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert MARKER not in data and b"scan-1" not in data and b"wang-wu" not in data


def test_replacing_leaves_the_new_one_alone(vault: Vault) -> None:
    put(vault)
    (old,) = blobs_in(vault.path)
    put(vault, text=b"new")
    assert text_in(vault, "scan", "scan-1") == b"new"
    assert len(blobs_in(vault.path)) == 1 and not old.exists()


def test_whoever_reads_goes_on_while_it_is_replaced(vault: Vault) -> None:
    put(vault)
    with vault.open_stream("scan", "scan-1") as opened:
        first = opened.read(1000)
        put(vault, text=b"new")
        assert first + opened.read() == SCAN


def test_a_source_that_fails_leaves_what_was(vault: Vault) -> None:
    put(vault, text=b"old")

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > CHUNK:
                raise ConnectionResetError
            return super().read(size)

    for name in ("scan-1", "scan-2"):
        with pytest.raises(ConnectionResetError):
            vault.put_stream("scan", name, Broken(SCAN))
    assert vault.streams("scan") == ("scan-1",) and text_in(vault, "scan", "scan-1") == b"old"
    assert len(blobs_in(vault.path)) == 1


def test_rotation_meanwhile(vault: Vault, provider: FileKeyProvider) -> None:
    put(vault)
    opened = vault.open_stream("scan", "scan-1")
    started, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            started.set()
            assert go_on.wait(30)
            return super().read(size)

    writing = threading.Thread(target=vault.put_stream, args=("scan", "scan-2", Slow(SCAN)))
    writing.start()
    assert started.wait(30)
    assert vault.rotate() == 2 and provider.epochs() == (2,)
    go_on.set()
    writing.join()
    with opened:
        assert opened.read() == SCAN
    assert text_in(vault, "scan", "scan-1") == text_in(vault, "scan", "scan-2") == SCAN
    vault.close()
    with Vault.open(vault.path, provider, "hospital-1") as again:
        assert text_in(again, "scan", "scan-2") == SCAN


# ---- altered


def alterations(path: Path, other: Path) -> dict[str, Callable[[], object]]:
    data = path.read_bytes()
    return {
        "a bit": lambda: path.write_bytes(bytes([data[0] ^ 1]) + data[1:]),
        "cut": lambda: path.write_bytes(data[: CHUNK + 16]),
        "longer": lambda: path.write_bytes(data + b"x"),
        "empty": lambda: path.write_bytes(b""),
        "gone": path.unlink,
        "of another": lambda: path.write_bytes(other.read_bytes()),
    }


@pytest.mark.parametrize("how", ["a bit", "cut", "longer", "empty", "gone", "of another"])
def test_altered_blobs_are_caught(vault: Vault, how: str) -> None:
    put(vault)
    (path,) = blobs_in(vault.path)
    put(vault, "scan-2")
    (other,) = (one for one in blobs_in(vault.path) if one != path)
    alterations(path, other)[how]()
    with pytest.raises(VerificationError) as raised:
        text_in(vault, "scan", "scan-1")
    assert raised.value.code == "privacy.vault_document"
    assert text_in(vault, "scan", "scan-2") == SCAN


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE streams SET blob = (SELECT blob FROM streams WHERE version = 2) WHERE version = 1",
        "UPDATE streams SET version = 3 WHERE version = 1",
        "UPDATE streams SET state = 1 - state",
        "UPDATE streams SET retain_until = 7",
        "UPDATE streams SET person = x'00000000000000000000000000000000'",
        "UPDATE streams SET key = x'00000000000000000000000000000000' WHERE version = 1",
        "UPDATE streams SET wrapped = (SELECT wrapped FROM streams WHERE version = 2) WHERE version = 1",
        "UPDATE streams SET sealed = (SELECT sealed FROM streams WHERE version = 2) WHERE version = 1",
        "UPDATE streams SET kind = 'letter' WHERE version = 1",
    ],
)
def test_an_edited_index_is_caught(vault: Vault, provider: FileKeyProvider, edit: str) -> None:
    put(vault, "scan-2")
    put(vault, "scan-2", person="li-si")  # version 2
    put(vault)
    vault.close()
    database = sqlite3.connect(vault.path / "vault.sqlite")
    assert database.execute(edit).rowcount > 0
    database.commit()
    database.close()
    with Vault.open(vault.path, provider, "hospital-1") as again, pytest.raises((VerificationError, Refused)):
        text_in(again, "scan", "scan-1")


def test_a_blob_of_another_vault_does_not_open(vault: Vault, provider: FileKeyProvider, tmp_path: Path) -> None:
    put(vault)
    with Vault.create(tmp_path / "second" / "vault", provider, "hospital-1") as second:
        put(second)
        (mine,), (theirs,) = blobs_in(vault.path), blobs_in(second.path)
        mine.write_bytes(theirs.read_bytes())
    with pytest.raises(VerificationError):
        text_in(vault, "scan", "scan-1")


# ---- erased with the person


def test_a_persons_documents_are_among_its_keys(vault: Vault, provider: FileKeyProvider, table: pa.Table) -> None:
    vault.ingest("claims-1", table, ["wang-wu", "li-si"] * 3)
    put(vault, person="wang-wu", retain_until=50_000)
    put(vault, "scan-2", person=vault.person_id("li-si"))
    keys = vault.keys_of("wang-wu")
    assert [(key.dataset, key.rows, key.state, key.retain_until) for key in keys] == [
        ("claims-1", 3, "active", None),
        ("document.scan", 1, "active", 50_000),
    ]
    assert set(vault.marks([key.key for key in keys])) == {key.key for key in keys}
    assert len(list(vault.data_keys())) == 4 and len(list(vault.data_keys("claims-1"))) == 2
    assert vault.restrict([key.key for key in keys]) == 2
    with pytest.raises(Refused) as raised:
        vault.open_stream("scan", "scan-1")
    assert raised.value.code == "privacy.document_restricted"
    assert {key.state for key in vault.keys_of("wang-wu")} == {"restricted"}
    assert vault.unrestrict([key.key for key in keys]) == 2
    assert text_in(vault, "scan", "scan-1") == SCAN
    assert vault.destroy([key.key for key in keys], b"r" * 32) == 2
    assert vault.keys_of("wang-wu") == () and vault.streams("scan") == ("scan-2",)
    assert len(blobs_in(vault.path)) == 1 and text_in(vault, "scan", "scan-2") == SCAN
    assert {erasure.key for erasure in vault.erasures()} == {key.key for key in keys}
    assert vault.destroy([key.key for key in keys], b"r" * 32) == 0
    vault.close()
    with Vault.open(vault.path, provider, "hospital-1") as again:
        assert again.streams("scan") == ("scan-2",)


def test_a_persons_usable_documents(vault: Vault) -> None:
    """By name, without those that are restricted; what is there shows without a key."""
    me = vault.person_id("wang-wu")
    put(vault, "b", person="wang-wu")
    put(vault, "a", person=me)
    put(vault, "other", person="li-si")
    vault.put_stream("letter", "c", io.BytesIO(b"c"), person=me)
    assert [info.name for info in vault.streams_of("scan", me)] == ["a", "b"]
    assert vault.streams_of("scan", "nobody") == ()
    vault.restrict([vault.stream("scan", "a").key])
    assert [info.name for info in vault.streams_of("scan", "wang-wu")] == ["b"]
    assert vault.streams_there("scan", ["a", "b", "c", "d"]) == {"a": False, "b": True}
    assert vault.streams_there("letter", ["c"]) == {"c": True} and vault.streams_there("none", ["c"]) == {}


def test_blobs_are_for_their_owner_alone(vault: Vault) -> None:
    before = os.umask(0o022)
    try:
        put(vault)
    finally:
        os.umask(before)
    for path in (vault.path / "blobs").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (vault.path / "blobs").stat().st_mode & 0o077 == 0


def test_the_register_removes_what_a_backup_brought_back(vault: Vault, provider: FileKeyProvider) -> None:
    put(vault, person="wang-wu")
    vault.close()
    before = {path: path.read_bytes() for path in vault.path.rglob("*") if path.is_file()}
    with Vault.open(vault.path, provider, "hospital-1") as again:
        again.destroy([key.key for key in again.keys_of("wang-wu")], b"r" * 32)
    for path, data in before.items():
        path.write_bytes(data)
    with Vault.open(vault.path, provider, "hospital-1") as again:
        assert again.streams("scan") == () and again.keys_of("wang-wu") == ()
    assert blobs_in(vault.path) == []


# ---- any store; crashes; memory


def test_in_another_store(tmp_path: Path, provider: FileKeyProvider) -> None:
    store, _ = fs.FileSystem.from_uri("mock:///")
    place = fs.SubTreeFileSystem("vaults/hospital-1", store)
    with Vault.create(tmp_path / "vault", provider, "hospital-1", blobs=place) as vault:
        put(vault)
    assert not (tmp_path / "vault" / "blobs").exists()
    with Vault.reader(tmp_path / "vault", provider, "hospital-1", blobs=place) as reader:
        assert text_in(reader, "scan", "scan-1") == SCAN
        with pytest.raises(ValueError, match="to read"):
            put(reader)
    with Vault.open(tmp_path / "vault", provider, "hospital-1") as without, pytest.raises(VerificationError):
        text_in(without, "scan", "scan-1")


KILLED = """
import io, os, sys
from pathlib import Path
from privacy.keys import FileKeyProvider
from privacy.vault import Vault

def fault(place):
    if place == sys.argv[3]:
        os._exit(9)

provider = FileKeyProvider(Path(sys.argv[2]), "correct horse")
vault = Vault.open(Path(sys.argv[1]), provider, "hospital-1", fault=fault)
if sys.argv[4] == "put":
    vault.put_stream("scan", "scan-1", io.BytesIO(b"new" * 100_000), person="wang-wu")
else:
    vault.destroy([key.key for key in vault.keys_of("wang-wu")], b"r" * 32)
os._exit(0)
"""


def killed(vault: Vault, provider: FileKeyProvider, place: str, what: str) -> None:
    command = [sys.executable, "-c", KILLED, str(vault.path), str(provider.path), place, what]
    assert subprocess.run(command, check=False).returncode == 9


@pytest.mark.parametrize("place", ["stream:blob", "stream:written", "stream:committed"])
def test_killed_while_it_is_put(vault: Vault, provider: FileKeyProvider, place: str) -> None:
    put(vault, person="wang-wu")
    vault.close()
    killed(vault, provider, place, "put")
    with Vault.open(vault.path, provider, "hospital-1") as again:
        expected = b"new" * 100_000 if place == "stream:committed" else SCAN
        assert text_in(again, "scan", "scan-1") == expected
        assert len(blobs_in(vault.path)) == 2
        assert again.tidy_blobs() == 1 and again.tidy_blobs() == 0
        assert text_in(again, "scan", "scan-1") == expected


@pytest.mark.parametrize(
    "place", ["destroy:registered", "destroy:begun", "destroy:documents", "destroy:keys", "destroy:committed"]
)
def test_killed_while_a_person_is_erased(vault: Vault, provider: FileKeyProvider, place: str, table: pa.Table) -> None:
    vault.ingest("claims-1", table, ["wang-wu", "li-si"] * 3)
    put(vault, person="wang-wu")
    vault.close()
    killed(vault, provider, place, "destroy")
    with Vault.open(vault.path, provider, "hospital-1") as again:
        assert again.keys_of("wang-wu") == () and again.streams("scan") == ()
        assert again.read("claims-1").num_rows == 3
        again.tidy_blobs()
    assert blobs_in(vault.path) == []


def test_tidying_spares_what_is_under_way(vault: Vault) -> None:
    class Tidying(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert vault.tidy_blobs() == 0
            return super().read(size)

    vault.put_stream("scan", "scan-1", Tidying(SCAN))
    assert vault.tidy_blobs() == 0
    assert text_in(vault, "scan", "scan-1") == SCAN


def test_a_full_store_loses_nothing(vault: Vault) -> None:
    put(vault)
    (path,) = blobs_in(vault.path)
    resource_before = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, resource_before[1]))
    try:
        with pytest.raises(Unavailable):
            put(vault, "scan-2", bytes(8_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, resource_before)
        signal.signal(signal.SIGXFSZ, before)
    assert blobs_in(vault.path) == [path] and vault.streams("scan") == ("scan-1",)


MEASURED = """
import resource, sys
from pathlib import Path
from privacy.keys import FileKeyProvider
from privacy.vault import Vault

class Zeros:
    left = int(sys.argv[3])
    def read(self, size):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

with Vault.open(Path(sys.argv[1]), FileKeyProvider(Path(sys.argv[2]), "correct horse"), "hospital-1") as vault:
    for name, length in (("warm", 1_000_000), ("large", Zeros.left)):
        source = Zeros()
        source.left = length
        before = peak()
        vault.put_stream("scan", name, source)
        with vault.open_stream("scan", name) as opened:
            read = 0
            while piece := opened.read(1 << 20):
                read += len(piece)
        assert read == length
    print(peak() - before)
    vault.remove_stream("scan", "large")
"""


def measured(vault: Vault, provider: FileKeyProvider, length: int) -> int:
    vault.close()
    command = [sys.executable, "-c", MEASURED, str(vault.path), str(provider.path), str(length)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_memory_does_not_grow_with_the_document(vault: Vault, provider: FileKeyProvider) -> None:
    assert measured(vault, provider, 200_000_000) < 20_000  # KiB more at the peak than a document of 1 MB took


@pytest.mark.long
def test_memory_does_not_grow_with_a_document_of_a_gigabyte(vault: Vault, provider: FileKeyProvider) -> None:
    assert measured(vault, provider, 1_000_000_000) < 20_000


def mutate(vault: Vault, count: int, seed: int) -> None:
    chance = random.Random(seed)
    put(vault, text=SCAN[: CHUNK + 100])
    (path,) = blobs_in(vault.path)
    whole = path.read_bytes()
    for _ in range(count):
        at = chance.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1 :])
        with pytest.raises(MedveilError):
            text_in(vault, "scan", "scan-1")


def test_no_flipped_bit_passes(vault: Vault) -> None:
    mutate(vault, 200, 1)


@pytest.mark.long
def test_no_flipped_bit_passes_in_a_long_run(vault: Vault) -> None:
    mutate(vault, 5_000, 2)


def test_unknown_suites_and_ids_are_refused(vault: Vault) -> None:
    with pytest.raises(Refused):
        put(vault, suite=3)
    with pytest.raises(ValueError, match="16 bytes"):
        put(vault, person=b"short")
    assert blobs_in(vault.path) == []
