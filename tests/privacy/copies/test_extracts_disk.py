"""An extract's file on a disk that is taken, full, broken or without hard links, and a release that is called again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from privacy.copies import extracts
from privacy.copies.extracts import open_extract
from privacy.grants.terms import GrantTerms
from tests.privacy.copies.extracting import Issuer, extract_terms, issuer_in
from wire import durable
from wire.canonical import encode
from wire.errors import Refused, Unavailable
from wire.sealing import OpenKey


@pytest.fixture
def issuer(tmp_path: Path, terms: GrantTerms) -> Iterator[Issuer]:
    with issuer_in(tmp_path, extract_terms(terms)) as made:
        yield made


@pytest.fixture
def own() -> OpenKey:
    return OpenKey.generate(os.urandom)


def test_a_file_is_never_replaced(issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "a.extract"
    path.write_text("mine")
    with pytest.raises(Refused) as raised:
        issuer.stage(path, table, issuer.wanted(own.key))
    assert raised.value.code == "extracts.exists" and issuer.outcomes() == []
    path.unlink()
    wanted = issuer.wanted(own.key)
    staged = issuer.stage(path, table, wanted)
    issuer.anchor()
    path.write_text("mine")
    with pytest.raises(Refused):
        issuer.release(staged, wanted)
    assert path.read_text() == "mine" and issuer.outcomes() == ["", "failed"]
    assert [entry.name for entry in tmp_path.glob("*extract*")] == ["a.extract"]


def test_two_extracts_of_one_name_do_not_disturb_each_other(
    issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path
) -> None:
    first, second = issuer.wanted(own.key), issuer.wanted(own.key)
    one = issuer.stage(tmp_path / "a.extract", table, first)
    two = issuer.stage(tmp_path / "a.extract", table, second)
    issuer.anchor()
    facts = issuer.release(two, second)
    with pytest.raises(Refused):
        issuer.release(one, first)
    seen, _ = open_extract(tmp_path / "a.extract", [own], [issuer.signer.key], "university", issuer.now)
    assert seen == facts


LIMITED = """
import os, resource, signal, sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from privacy.grants.terms import GrantTerms
from tests.privacy.copies.extracting import issuer_in
from wire.canonical import decode
from wire.errors import Unavailable
from wire.sealing import OpenKey

folder = Path(sys.argv[1])
with issuer_in(folder, decode(GrantTerms, (folder / "terms").read_bytes())) as issuer:
    wanted = issuer.wanted(OpenKey.generate(os.urandom).key, 50_000)
    noise = np.random.default_rng(1).integers(0, 2**62, 50_000)
    table = pa.table({"visits": noise, "cost": noise / 7, "health": [str(one) for one in noise]})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, 2**17))
    try:
        issuer.stage(folder / "a.extract", table, wanted)
    except Unavailable as error:
        print(error.code, issuer.outcomes(), list(folder.glob("*.extract*")))
"""


def test_a_full_disk_leaves_no_file_and_a_noted_failure(terms: GrantTerms, tmp_path: Path) -> None:
    (tmp_path / "terms").write_bytes(encode(extract_terms(terms)))
    answer = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert answer.stderr == ""
    assert answer.stdout.strip() == "privacy.store_failed ['', 'failed'] []"


# ---- a release that is called again


def _revoked(issuer: Issuer) -> None:
    (entry,) = issuer.state.anchored
    issuer.state = msgspec.structs.replace(issuer.state, anchored=(msgspec.structs.replace(entry, revoked=True),))


def test_what_has_left_is_never_noted_as_kept(
    issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file stands, the trail's disk is full; meanwhile the grant is revoked. It has left all the same."""
    wanted = issuer.wanted(own.key)
    staged = issuer.stage(tmp_path / "a.extract", table, wanted)
    issuer.anchor()

    def full(*_: Any) -> None:
        raise Unavailable("privacy.store_failed", path="audit", reason="full")

    monkeypatch.setattr(issuer.trail, "outcome", full)
    with pytest.raises(Unavailable):
        issuer.release(staged, wanted)
    monkeypatch.undo()
    assert (tmp_path / "a.extract").exists() and issuer.outcomes() == [""]
    _revoked(issuer)
    assert issuer.release(staged, wanted) == staged.facts
    assert issuer.outcomes() == ["", "released"]
    assert issuer.release(staged, wanted) == staged.facts  # and again: nothing more is written
    assert issuer.outcomes() == ["", "released"]


@pytest.mark.parametrize("step", ["name", "flush", "unlink"])
def test_a_disk_that_fails_after_the_file_appeared(
    issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    wanted = issuer.wanted(own.key)
    staged = issuer.stage(tmp_path / "a.extract", table, wanted)
    issuer.anchor()

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(5, "I/O error")

    if step == "name":
        monkeypatch.setattr(durable, "flush", broken)
    elif step == "flush":
        monkeypatch.setattr(extracts, "flush", broken)
    else:
        monkeypatch.setattr(Path, "unlink", broken)
    with pytest.raises(Unavailable):
        issuer.release(staged, wanted)
    monkeypatch.undo()
    whole = (tmp_path / "a.extract").read_bytes()
    assert issuer.release(staged, wanted) == staged.facts
    assert (tmp_path / "a.extract").read_bytes() == whole  # not sealed a second time under the first one's name
    assert issuer.outcomes() == ["", "released"]
    assert [path.name for path in tmp_path.glob("*extract*")] == ["a.extract"]


def test_what_was_given_up_is_not_released_later(issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path) -> None:
    wanted = issuer.wanted(own.key)
    staged = issuer.stage(tmp_path / "a.extract", table, wanted)
    issuer.anchor()
    staged.abandon(issuer.trail)
    with pytest.raises((Refused, Unavailable)):
        issuer.release(staged, wanted)
    assert issuer.outcomes() == ["", "aborted"] and not list(tmp_path.glob("*extract*"))


def test_a_disk_that_can_give_it_no_name(
    issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_links(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    wanted = issuer.wanted(own.key)
    staged = issuer.stage(tmp_path / "a.extract", table, wanted)
    issuer.anchor()
    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(durable, "_library", lambda: None)
    with pytest.raises(Refused) as raised:
        issuer.release(staged, wanted)
    assert raised.value.code == "wire.no_new_name" and issuer.outcomes() == ["", "failed"]
    assert not list(tmp_path.glob("*extract*"))
    monkeypatch.undo()
    monkeypatch.setattr(os, "link", without_links)
    staged = issuer.stage(tmp_path / "a.extract", table, wanted)
    issuer.anchor()
    assert issuer.release(staged, wanted) == staged.facts
    assert [path.name for path in tmp_path.glob("*extract*")] == ["a.extract"]
