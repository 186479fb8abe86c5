"""The register of erasures: an erasure stands in it whole or not at all, whatever became of the disk or the process."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from privacy.keys import FileKeyProvider
from privacy.vault import Erasure, Register, Vault
from privacy.vault import register as registers
from wire.errors import DecodeError, Unavailable

INDEX_KEY = b"i" * 32
ENTRY = 72
MARK = 16
HEAD = 16 + MARK


def noted(count: int, first: int = 0) -> list[Erasure]:
    return [Erasure(bytes(15) + bytes([first + n]), b"r" * 32, 1_000 + n) for n in range(count)]


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "erased", INDEX_KEY)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes: what a full disk does to a write in the middle of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def loaded(vault: Vault, loads: int) -> None:
    """One person's rows, under as many keys."""
    for number in range(loads):
        vault.ingest("d", pa.table({"n": [number]}), persons=["wang-wu"], append=number > 0)


def test_a_disk_that_fills_up_half_way_erases_nobody_by_half(vault: Vault, provider: FileKeyProvider) -> None:
    loaded(vault, 40)
    keys = [key.key for key in vault.keys_of("wang-wu")]
    with room_for(HEAD + 15 * ENTRY + 9), pytest.raises(Unavailable):
        vault.destroy(keys, b"r" * 32)
    assert vault.register.path.stat().st_size == HEAD + 15 * ENTRY + 9, "the disk took some of it"
    assert vault.register.entries() == () and len(vault.keys_of("wang-wu")) == 40
    vault.close()
    with Vault.open(vault.path, provider, "hospital-1") as again:
        assert len(again.keys_of("wang-wu")) == 40 and again.read("d").num_rows == 40
        assert again.destroy(keys, b"r" * 32) == 40
        assert {one.key for one in again.register.entries()} == set(keys)
        assert again.keys_of("wang-wu") == () and again.read("d").num_rows == 0


@pytest.mark.parametrize("length", range(HEAD + 2 * ENTRY + MARK, HEAD + 5 * ENTRY + 2 * MARK, 7))
def test_an_erasure_that_was_cut_short_is_none(length: int, register: Register) -> None:
    register.append(noted(2))
    register.append(noted(3, first=2))
    os.truncate(register.path, length)
    assert register.entries() == tuple(noted(2))
    register.append(noted(1, first=9))
    assert register.entries() == (*noted(2), *noted(1, first=9))
    assert register.path.stat().st_size == HEAD + 3 * ENTRY + 2 * MARK, "what was cut short is written over"


def test_room_that_was_made_and_never_written_is_no_damage(register: Register) -> None:
    """A file system may keep the new length and lose the content when power goes."""
    register.append(noted(2))
    whole = register.path.read_bytes()
    register.path.write_bytes(whole + bytes(3 * ENTRY + 5))
    assert register.entries() == tuple(noted(2))
    register.append(noted(1, first=5))
    assert register.entries() == (*noted(2), *noted(1, first=5))
    register.path.write_bytes(whole + bytes(ENTRY) + b"x" + bytes(ENTRY))
    assert register.entries() == tuple(noted(2)), "a page of it was written: it has no mark"
    register.path.write_bytes(whole + bytes(ENTRY) + whole[-MARK:])
    with pytest.raises(DecodeError):
        register.entries()


@pytest.mark.parametrize("first", range(1, 5))
@pytest.mark.parametrize("sectors", [1, 2, 4])
def test_sectors_of_an_append_that_were_never_written_are_no_damage(
    register: Register, first: int, sectors: int
) -> None:
    """Power may go with any of them on the disk: the erasure is none, as a whole."""
    register.append(noted(2))
    register.append(noted(40, first=2))
    content = bytearray(register.path.read_bytes()[:-MARK])
    end = min((first + sectors) * 512, len(content))
    content[first * 512 : end] = bytes(end - first * 512)
    register.path.write_bytes(content)
    assert register.entries() == tuple(noted(2))
    register.append(noted(1, first=90))
    assert register.entries() == (*noted(2), *noted(1, first=90))


def test_two_threads_lose_no_entry(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks where the file ends before it writes there."""
    look, both = registers.content_of, threading.Barrier(2)

    def slowly(path: Path) -> bytes:
        found = look(path)
        try:
            both.wait(0.3)  # the other one has looked too, if nothing keeps it from that
        except threading.BrokenBarrierError:
            both.reset()
        return found

    monkeypatch.setattr(registers, "content_of", slowly)
    threads = [threading.Thread(target=register.append, args=(noted(2, first=at),)) for at in (0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    assert sorted(one.key for one in register.entries()) == [one.key for one in noted(4)]


def test_a_register_to_join_must_be_there(register: Register, tmp_path: Path) -> None:
    """A mistyped path is no empty register: what was erased would come back without a word."""
    register.append(noted(1))
    with pytest.raises(Unavailable) as raised:
        register.join(tmp_path / "elsewhere" / "erased")
    assert raised.value.code == "privacy.no_register"
    (tmp_path / "empty").touch()
    (tmp_path / "cut").write_bytes(registers.MAGIC[:7])
    Register(tmp_path / "foreign", b"o" * 32).append(noted(1))
    for name, kind in (("empty", Unavailable), ("cut", DecodeError), ("foreign", DecodeError)):
        with pytest.raises(kind) as told:
            register.join(tmp_path / name)
        assert told.value.facts["path"] == str(tmp_path / name), "the file that is wrong is named"
    newer = Register(tmp_path / "newer", INDEX_KEY)
    newer.append(noted(3))
    assert register.join(newer.path) == 2 and register.join(newer.path) == 0
    assert register.entries() == tuple(noted(3))


def test_where_nothing_can_be_written_nothing_is_destroyed(
    tmp_path: Path, provider: FileKeyProvider, table: pa.Table, people: list[str]
) -> None:
    register = tmp_path / "kept" / "erased"
    with Vault.create(tmp_path / "vault", provider, "hospital-1", register=register) as vault:
        vault.ingest("d", table, people)
        with pytest.raises(Unavailable):
            vault.destroy([key.key for key in vault.keys_of("li-si")], b"r" * 32)
        assert vault.person("d", "li-si").num_rows == 2 and vault.erasures() == ()
        register.parent.mkdir()
        assert vault.destroy([key.key for key in vault.keys_of("li-si")], b"r" * 32) == 1
