"""Files that a gateway hands out: whole, new, or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from medveil.client.downloads import download
from medveil.client.exchange import Answer, Listen, Next, Work
from medveil.client.line import OCTETS, Line, get
from medveil.client.pinned import Pinned
from wire.errors import Refused, Unavailable

CHUNKS = (b"first ", b"second ", b"third")


def taken(out: Path, meanwhile: Any = lambda: None) -> Path:
    """Play what a gateway answers, chunk by chunk. meanwhile: what somebody else does before the last one."""
    line = Line("http://localhost:8000", None, Pinned(None), language="en", clock=lambda: 1, rand=bytes)
    chunks = list(CHUNKS)
    work = download(line, get("extracts", "1", "file")._replace(accept=OCTETS), out)
    given: Any = None
    raised: OSError | None = None
    while True:
        try:
            step = work.send(given) if raised is None else work.throw(raised)
        except StopIteration as ended:
            return Path(ended.value)
        match step:
            case Listen():
                given = Answer(200, {}, b"")
            case Next():
                if len(chunks) == 1:
                    meanwhile()
                given = chunks.pop(0) if chunks else None
            case Work(task):
                try:
                    given = task()
                except OSError as error:
                    raised = error
            case _:
                raise AssertionError(step)


def without_links(source: Any, target: Any) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("linked", [True, False], ids=["links", "no links"])
def test_a_file_that_came_meanwhile_stays(linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the rows of another extract, fetched to the same name at the same time."""
    if not linked:
        monkeypatch.setattr(os, "link", without_links)
    out = tmp_path / "rows.csv"
    with pytest.raises(Refused) as raised:
        taken(out, lambda: out.write_bytes(b"of somebody else"))
    assert raised.value.code == "client.file_exists"
    assert out.read_bytes() == b"of somebody else"
    assert list(tmp_path.iterdir()) == [tmp_path / "rows.csv"]


@pytest.mark.parametrize("linked", [True, False], ids=["links", "no links"])
def test_a_file_is_its_callers_alone_and_nothing_is_beside_it(
    linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not linked:
        monkeypatch.setattr(os, "link", without_links)
    out = taken(tmp_path / "rows.csv")
    assert out.read_bytes() == b"".join(CHUNKS)
    assert out.stat().st_mode & 0o777 == 0o600 and list(tmp_path.iterdir()) == [tmp_path / "rows.csv"]


def test_a_disk_that_fails_when_it_has_to_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable) as raised:
        taken(tmp_path / "rows.csv")
    assert raised.value.code == "client.unwritable"
    assert list(tmp_path.iterdir()) == []
