"""A name is on disk when it was given, and a new one is taken from nobody."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from wire import durable
from wire.durable import put_as_new, put_in_place
from wire.errors import Refused


def without_links(source: Any, target: Any) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.fixture(params=["links", "no links"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "no links":
        monkeypatch.setattr(os, "link", without_links)
    return str(request.param)


def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Each folder that was flushed from here on, and what was in it then."""
    seen: list[tuple[str, list[str]]] = []
    flush = os.fsync

    def flushing(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            seen.append((str(path), sorted(one.name for one in path.iterdir())))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flushing)
    return seen


def test_a_new_name_is_taken_from_nobody(disk: str, tmp_path: Path) -> None:
    part, path = tmp_path / ".part", tmp_path / "rows"
    part.write_bytes(b"mine")
    path.write_bytes(b"of somebody else")
    with pytest.raises(FileExistsError):
        put_as_new(part, path)
    assert path.read_bytes() == b"of somebody else" and part.read_bytes() == b"mine"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        put_as_new(part, path)


def test_a_new_name_is_on_disk(disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, path = tmp_path / ".part", tmp_path / "rows"
    part.write_bytes(b"mine")
    seen = flushed(monkeypatch)
    put_as_new(part, path)
    assert path.read_bytes() == b"mine" and "rows" in seen[-1][1] and seen[-1][0] == str(tmp_path)


def test_a_name_that_is_taken_over_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, path = tmp_path / ".part", tmp_path / "rows"
    part.write_bytes(b"newer")
    path.write_bytes(b"older")
    seen = flushed(monkeypatch)
    put_in_place(part, path)
    assert path.read_bytes() == b"newer" and seen == [(str(tmp_path), ["rows"])]


@pytest.mark.parametrize("library", [None, "refuses"])
def test_a_disk_that_could_only_replace_is_refused(
    library: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refuses:
        @staticmethod
        def renameat2(*given: Any) -> int:
            durable.ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(durable, "_library", lambda: None if library is None else Refuses)
    part, path = tmp_path / ".part", tmp_path / "rows"
    part.write_bytes(b"mine")
    with pytest.raises(Refused) as raised:
        put_as_new(part, path)
    assert raised.value.code == "wire.no_new_name" and not path.exists()


def test_what_ails_the_disk_is_said(disk: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        put_as_new(tmp_path / "gone", tmp_path / "rows")
