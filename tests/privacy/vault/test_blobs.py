"""Blobs in a folder and in another store: whole or not there, and errors in words."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from privacy.vault.blobs import Blobs
from wire.errors import Refused, Unavailable

ONE, TWO = b"1" * 16, b"\xff" * 16


@pytest.fixture(params=["folder", "subtree", "store"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "folder":
        return Blobs(tmp_path / "blobs")
    if request.param == "subtree":
        (tmp_path / "mounted").mkdir()
        return Blobs(tmp_path / "unused", fs.SubTreeFileSystem(str(tmp_path / "mounted"), fs.LocalFileSystem()))
    store, _ = fs.FileSystem.from_uri("mock:///")  # pyarrow's own store in memory
    return Blobs(tmp_path / "unused", fs.SubTreeFileSystem("vaults/hospital-1", store))


def content(blobs: Blobs, name: bytes) -> bytes | None:
    file = blobs.read(name)
    if file is None:
        return None
    with file:
        return bytes(file.read(1 << 20))


def test_written_read_listed_removed(blobs: Blobs) -> None:
    assert list(blobs.names()) == []
    assert blobs.write(ONE, [b"some ", b"chunks", b""]) == 11
    assert blobs.write(TWO, []) == 0
    assert content(blobs, ONE) == b"some chunks" and content(blobs, TWO) == b""
    assert sorted(blobs.names()) == [ONE, TWO]
    assert content(blobs, b"3" * 16) is None
    for _ in range(2):
        blobs.remove(ONE)
    assert list(blobs.names()) == [TWO]


def test_nothing_stays_of_what_failed(blobs: Blobs) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionResetError("the source")

    with pytest.raises(ConnectionResetError, match="the source"):
        blobs.write(ONE, broken())
    assert list(blobs.names()) == [] and content(blobs, ONE) is None


def test_other_files_are_no_blobs(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    blobs.write(ONE, [b"x"])
    folder = tmp_path / "blobs" / ONE.hex()[:2]
    (folder / "notes.txt").write_text("x")
    (folder / f"{TWO.hex()}.blob").write_text("of another folder")
    (tmp_path / "blobs" / f"{ONE.hex()}.blob").write_text("x")
    assert list(blobs.names()) == [ONE]


def test_a_folder_is_private_to_its_vault(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir(mode=0o700)
    Blobs(tmp_path / "vault" / "blobs").write(ONE, [b"x"])
    assert stat.S_IMODE((tmp_path / "vault").stat().st_mode) == 0o700


@pytest.mark.parametrize("gone", ["a file in the way", "full"])
def test_a_store_that_does_not_work(tmp_path: Path, gone: str) -> None:
    if gone == "full":
        blobs = Blobs(tmp_path / "blobs")
        (tmp_path / "blobs" / ONE.hex()[:2]).mkdir(parents=True)
        (tmp_path / "blobs" / ONE.hex()[:2] / f"{ONE.hex()}.blob").symlink_to("/dev/full")
    else:
        (tmp_path / "blobs").write_text("a file")
        blobs = Blobs(tmp_path / "blobs")
    with pytest.raises(Unavailable) as raised:
        blobs.write(ONE, [b"x" * 10_000_000])
    assert raised.value.code == "privacy.store_failed" and raised.value.retry_after > 0
    assert raised.value.facts["path"] == str(tmp_path / "blobs")


class BreakingOff:
    """A store whose files break off after 70,000 bytes, as one over a network may."""

    def __init__(self, store: fs.FileSystem) -> None:
        self._store = store

    def open_input_stream(self, path: str, **more: Any) -> Any:
        with self._store.open_input_stream(path, **more) as file:
            data = file.read()

        class Breaking(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() >= 70_000:
                    raise OSError(5, "Input/output error")
                return super().read(min(size or 0, 10_000))

        return pa.PythonFile(Breaking(data), "r")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_store_that_breaks_off_while_a_document_is_read(tmp_path: Path, provider: FileKeyProvider) -> None:
    with Vault.create(tmp_path / "vault", provider, "hospital-1") as vault:
        vault.put_stream("scan", "s", io.BytesIO(bytes(200_000)))
        vault._blobs._filesystem = BreakingOff(vault._blobs._filesystem)
        with pytest.raises(Unavailable) as raised, vault.open_stream("scan", "s") as opened:
            opened.read()
        assert raised.value.code == "privacy.store_failed"
        with pytest.raises(Unavailable):
            vault.back_up(tmp_path / "copy")
        assert not (tmp_path / "copy").exists()


def test_a_store_is_one_vaults(blobs: Blobs) -> None:
    if blobs._folder is not None and not blobs._named:
        assert not blobs.claim(ONE) and not blobs.claim(TWO), "its own folder needs no mark"
        return
    assert blobs.claim(ONE) and not blobs.claim(ONE)
    with pytest.raises(Refused) as raised:
        blobs.claim(TWO)
    assert raised.value.code == "privacy.blobs_of_other" and blobs.place in raised.value.text()
    assert list(blobs.names()) == []
    blobs.let_go()
    blobs.let_go()
    assert blobs.claim(TWO)


def test_another_vaults_blobs_are_not_tidied(tmp_path: Path, provider: FileKeyProvider) -> None:
    store = fs.SubTreeFileSystem(str(tmp_path / "store"), fs.LocalFileSystem())
    with Vault.create(tmp_path / "one" / "vault", provider, "hospital-1", blobs=store) as first:
        first.put_stream("scan", "scan-1", io.BytesIO(b"text"))
        with pytest.raises(Refused):
            Vault.create(tmp_path / "two" / "vault", provider, "hospital-1", blobs=store)
        Vault.create(tmp_path / "three" / "vault", provider, "hospital-1").close()
        other = Vault.open(tmp_path / "three" / "vault", provider, "hospital-1", blobs=store)
        with other, pytest.raises(Refused):
            other.tidy_blobs()
        assert first.tidy_blobs() == 0
        with first.open_stream("scan", "scan-1") as file:
            assert file.read() == b"text"
