"""The register and the log of safeguards: an append is in them whole or not at all, whatever a disk kept of it."""

from __future__ import annotations

import base64
import errno
import itertools
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from privacy.keys import FileKeyProvider
from privacy.vault import Erasure, Register, Vault, growing_file
from privacy.vault.safeguard_log import Safeguard, SafeguardLog
from privacy.vault.safeguards import FILE
from wire.errors import DecodeError, Unavailable

INDEX_KEY = b"i" * 32
PAGE = 4096
LONG = 60
"""Things noted together that take up several pages, in either file."""

OF_BEFORE = {
    "register": (
        "bWVkdmVpbCBlcmFzZWQgMQAAAAAAAAAAAAAAAAAAAABycnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycgAAAAAAAAPonLhlC4XLq2Qu"
        "3be82nuyHAAAAAAAAAAAAAAAAAAAAAFycnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycoAAAAAAAAPpdFIPfUnjz5dtRTFiX7wh5wAA"
        "AAAAAAAAAAAAAAAAAAJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycgAAAAAAAAPqyTVGkr9NFURcX2TwSDVF7g=="
    ),
    "log": (
        "bWVkdmVpbCBndWFyZHMgMQAAAGoAAAAAAAAAAdwo97XleTI2BCs45cr54bve2J1MAEBsGoAsoPLn0tPmiSdklpC57YgQXI66ZA+Vwl9x9mkL"
        "nPouy96BPM/CsU04fyxv5QWLhs2s+2FtrSuEV9114y08UiF2vwtalufpuh3eM/2s5DQVvG/55HtoAAAAagAAAAAAAAACXZoHOykVcXckKTW2"
        "v87ipuz/1pdJFixA9ICV/abpdFdUZGxsq1gytwedawUaWj0a6gaYWuFJRlBWC6I5tg+703khWVps68MkND9OKCRzzeubx14mpP7lrz+lCEsD"
        "C2cNxGvr9sBwqhAESh8qGZY="
    ),
}
"""Files that the version before wrote, under INDEX_KEY: things 0 | 1, 2 of the register, and 1 | 2 of the log."""


class Noted:
    """One of the two files; things that are noted in it go by numbers."""

    def __init__(self, path: Path, which: str) -> None:
        self.path, self.which = path, which

    def append(self, *numbers: int) -> None:
        if self.which == "register":
            Register(self.path, INDEX_KEY).append(
                Erasure(bytes(12) + number.to_bytes(4, "big"), b"r" * 32, 1_000 + number) for number in numbers
            )
            return
        SafeguardLog(self.path, INDEX_KEY, os.urandom).append(
            [
                Safeguard("document", "legal-hold", b"hold-%d" % number, b"said %d" % number * 30, False, number)
                for number in numbers
            ]
        )

    def numbers(self) -> list[int]:
        if self.which == "register":
            return [int.from_bytes(one.key, "big") for one in Register(self.path, INDEX_KEY).entries()]
        found = SafeguardLog(self.path, INDEX_KEY, os.urandom).entries()
        return [int(one.item.removeprefix(b"hold-")) for _, one in found]


@pytest.fixture(params=["register", "log"])
def noted(request: pytest.FixtureRequest, tmp_path: Path) -> Noted:
    return Noted(tmp_path / "file", request.param)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def at_each_flush(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` with the flush's number after what was written is on disk."""
    flush, numbers = os.fsync, itertools.count(1)

    def flushing(descriptor: int) -> None:
        flush(descriptor)
        act(next(numbers))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", flushing)
        yield


def none_of_it(noted: Noted, content: bytes, before: list[int]) -> None:
    """The last append never was, and another takes its place."""
    noted.path.write_bytes(content)
    assert noted.numbers() == before
    noted.append(7, 8)
    assert noted.numbers() == [*before, 7, 8]


def test_any_pages_that_a_power_cut_takes_of_the_last_append(noted: Noted) -> None:
    """Whatever was not flushed yet is on disk or not, page by page, in any order."""
    noted.append(1, 2)
    states = [noted.path.read_bytes()]
    with at_each_flush(lambda _: states.append(noted.path.read_bytes())):
        noted.append(*range(100, 100 + LONG))
    seen = 0
    for old, new in itertools.pairwise(states):
        pages = range(len(old) // PAGE, (len(new) - 1) // PAGE + 1)
        for lost in itertools.chain.from_iterable(itertools.combinations(pages, n) for n in range(1, len(pages) + 1)):
            content = bytearray(new)
            for page in lost:
                start, end = max(page * PAGE, len(old)), min((page + 1) * PAGE, len(new))
                content[start:end] = bytes(end - start)
            none_of_it(noted, bytes(content), [1, 2])
            seen += 1
    assert seen > 3
    noted.path.write_bytes(states[-1])
    assert noted.numbers() == [1, 2, *range(100, 100 + LONG)]


def test_what_is_cut_off_anywhere_in_the_last_append(noted: Noted) -> None:
    noted.append(1, 2)
    start = noted.path.stat().st_size
    noted.append(3, 4, 5)
    whole = noted.path.read_bytes()
    for length in range(start, len(whole)):
        none_of_it(noted, whole[:length], [1, 2])
        noted.path.write_bytes(whole[:length] + bytes(len(whole) - length))  # room was made, and no more
        if whole[length:].strip(b"\0"):
            assert noted.numbers() == [1, 2], length


@pytest.mark.parametrize("flush", [1, 2])
def test_killed_between_the_two_steps_of_an_append(noted: Noted, flush: int) -> None:
    noted.append(1, 2)
    child = os.fork()
    if child == 0:
        with at_each_flush(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == flush else None):
            noted.append(*range(100, 100 + LONG))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    after = [1, 2] if flush == 1 else [1, 2, *range(100, 100 + LONG)]
    assert noted.numbers() == after, "it is there when its mark is"
    noted.append(7)
    assert noted.numbers() == [*after, 7]


def test_a_disk_that_is_full_anywhere_in_an_append(noted: Noted) -> None:
    noted.append(1, 2)
    start, before = noted.path.stat().st_size, noted.path.read_bytes()
    noted.append(3)
    end = noted.path.stat().st_size
    for size in range(start, end, 5):
        noted.path.write_bytes(before)
        with room_for(size), pytest.raises(Unavailable):
            noted.append(3)
        assert noted.numbers() == [1, 2], size
    noted.append(3)
    assert noted.numbers() == [1, 2, 3]


def test_what_is_damaged_before_the_end_or_within_its_mark_is_damage(noted: Noted) -> None:
    noted.append(1, 2)
    first = noted.path.stat().st_size
    noted.append(*range(100, 100 + LONG))
    whole = noted.path.read_bytes()
    for at in (3, 20, 50, first - 3, first + 3, first + PAGE, len(whole) - 40, len(whole) - 9, len(whole) - 1):
        content = bytearray(whole)
        content[at] ^= 0x41
        noted.path.write_bytes(content)
        with pytest.raises(DecodeError):
            noted.numbers()
    for page in range(len(whole) // PAGE):  # the mark says that it was on disk
        noted.path.write_bytes(whole[: page * PAGE] + bytes(PAGE) + whole[(page + 1) * PAGE :])
        with pytest.raises(DecodeError):
            noted.numbers()
    noted.path.write_bytes(whole + b"x" * 9 + whole[-16:])
    with pytest.raises(DecodeError):
        noted.append(5)


def test_files_of_before_are_read_and_written_anew_with_the_next(noted: Noted) -> None:
    old = base64.b64decode(OF_BEFORE[noted.which])
    before = [0, 1, 2] if noted.which == "register" else [1, 2]
    noted.path.write_bytes(old)
    assert noted.numbers() == before and noted.path.read_bytes() == old
    with room_for(len(old) - 1), pytest.raises(Unavailable):
        noted.append(9)
    assert noted.numbers() == before and noted.path.read_bytes() == old, "a full disk leaves it as it was"
    assert [path.name for path in noted.path.parent.iterdir()] == [noted.path.name]
    noted.append(9)
    assert noted.numbers() == [*before, 9] and not noted.path.read_bytes().startswith(old[:16])
    for length in (5, 16, len(old) - 9):  # what it meant in its time
        noted.path.write_bytes(old[:length])
        assert noted.numbers() == ([] if length < 17 else [1] if noted.which == "log" else [0])
        noted.append(9)
        assert noted.numbers()[-1] == 9
    noted.path.write_bytes(old[:30] + b"x" + old[31:])
    with pytest.raises(DecodeError):
        noted.numbers()


def test_a_file_of_before_that_cannot_be_written_anew_stays_as_it_is(
    noted: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is appended to it either: behind what has no marks it would be damage."""
    old = base64.b64decode(OF_BEFORE[noted.which])
    noted.path.write_bytes(old)
    with monkeypatch.context() as patch:
        patch.setattr(growing_file, "put_in_place", failing)
        with pytest.raises(Unavailable):
            noted.append(7)
    assert noted.path.read_bytes() == old and list(noted.path.parent.iterdir()) == [noted.path]
    noted.append(7)
    assert noted.numbers()[-1] == 7


def failing(*_: object) -> None:
    raise OSError(errno.EIO, "I/O")


@pytest.mark.parametrize("sector", range(1, 6))
def test_a_register_of_before_with_a_hole_in_its_last_erasure_alone(tmp_path: Path, sector: int) -> None:
    """An erasure that came later was appended to a whole one: then the hole is damage, and nothing is forgotten."""
    register = Register(tmp_path / "erased", INDEX_KEY)
    old = base64.b64decode(OF_BEFORE["register"])
    long = register._together([Erasure(bytes([at]) * 16, b"r" * 32, 1) for at in range(40)])
    later = register._together([Erasure(b"l" * 16, b"r" * 32, 1), Erasure(b"m" * 16, b"r" * 32, 1)])
    for content, damaged in ((old + long, False), (old + long + later + later, True)):
        register.path.write_bytes(content[: sector * 512] + bytes(512) + content[sector * 512 + 512 :])
        if not damaged:
            assert len(register.entries()) == 3
            continue
        with pytest.raises(DecodeError):
            register.entries()


@pytest.mark.parametrize("flush", range(1, 5))
def test_killed_while_a_file_of_before_is_written_anew(noted: Noted, flush: int) -> None:
    noted.path.write_bytes(base64.b64decode(OF_BEFORE[noted.which]))
    before = [0, 1, 2] if noted.which == "register" else [1, 2]
    child = os.fork()
    if child == 0:
        with at_each_flush(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == flush else None):
            noted.append(9)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert noted.numbers() == (before if flush < 4 else [*before, 9])
    noted.append(10)
    assert noted.numbers() == [*before, *([] if flush < 4 else [9]), 10]


def test_a_home_opens_after_a_power_cut_in_either_file(vault: Vault, provider: FileKeyProvider) -> None:
    vault.put_person_note("opt-out", "li", b"all")
    vault.register.append([Erasure(b"k" * 16, b"r" * 32, 1)])
    files = {path: path.read_bytes() for path in (vault.register.path, vault.path.parent / FILE)}
    after: dict[Path, list[bytes]] = {path: [] for path in files}

    def keep(_: int) -> None:
        for path, states in after.items():
            states.append(path.read_bytes())

    with at_each_flush(keep):
        vault.register.append(Erasure(bytes([at]) * 16, b"r" * 32, 2) for at in range(200))
        vault._safeguards.log.append(
            [Safeguard("document", "legal-hold", b"h-%d" % at, b"x" * 90, False, 2) for at in range(200)]
        )
    vault.close()
    for path, before in files.items():
        entry = next(state for state in after[path] if len(state) > len(before))
        lost = PAGE * (len(before) // PAGE + 1)
        path.write_bytes(entry[:lost] + bytes(PAGE) + entry[lost + PAGE :])
    with Vault.open(vault.path, provider, "hospital-1") as again:
        assert len(dict(again.person_notes("opt-out"))) == 1 and again.documents("legal-hold") == ()
        assert [one.key for one in again.register.entries()] == [b"k" * 16]
        again.put_document("legal-hold", "h", b"a reference")
    with Vault.open(vault.path, provider, "hospital-1") as again:
        assert tuple(again.documents("legal-hold")) == ("h",)
