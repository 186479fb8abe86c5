"""Extracts from the command line, at the gateways' own services."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from client.world import World, running, terms

from medveil.client import ColumnClass
from wire.checkpoint import write_trust
from wire.dates import format_instant
from wire.errors import MedveilError

from .conftest import Person

HOLDER, RECIPIENT = "hospital-1", "researcher-1"
SENSITIVE = ("--sensitive", "cost")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp, RECIPIENT) as made:
        made.file = tmp_path_factory.getbasetemp() / "pinned-extracts.json"  # type: ignore[attr-defined]
        write_trust(made.file, made.trust)  # type: ignore[attr-defined]
        with made.client(HOLDER, "officer") as officer:
            columns = (ColumnClass("cost", 3), ColumnClass("age", 3), ColumnClass("ward", 2))
            officer.datasets.classify("stays-hospital-1", columns, minors=False)
            fields = ("cost", "ward", "age")
            officer.grants.issue(terms(HOLDER, grant="copies", fields=fields, uses=("extract",), min_group=3))
        yield made


class At(Person):
    """Somebody at the command line who is signed in to one organisation's gateway."""

    def __init__(self, world: World, name: str, role: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        super().__init__(folder, monkeypatch)
        self.sign_in(world.services[name].address, role, "--trust", world.file)  # type: ignore[attr-defined]

    def run(self, *arguments: object, typed: str = "", code: int | None = 0) -> Any:
        self._monkeypatch.setenv("MEDVEIL_CONFIG", str(self.config))  # there are two of them in this process
        return super().run(*arguments, typed=typed, code=code)

    def json(self, *arguments: object, code: int = 0) -> Any:
        return json.loads(self.run("extract", *arguments, "--json", code=code).stdout)

    def says(self, *arguments: object, code: int = 0) -> str:
        return str(self.run("extract", *arguments, code=code).output)

    def refused(self, *arguments: object) -> str:
        error = self.run("extract", *arguments, code=1).exception
        assert isinstance(error, MedveilError), error
        return error.code


@pytest.fixture
def at(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], At]:
    return lambda name, role: At(world, name, role, tmp_path / f"{name}-{role}", monkeypatch)


def until(look: Callable[[], Any]) -> Any:
    """What `look` finds at last."""
    end = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < end
    return found


def test_the_whole_way_of_an_extract(at: Callable[[str, str], At], tmp_path: Path) -> None:
    researcher, officer = at(RECIPIENT, "researcher"), at(HOLDER, "officer")
    want = ("--from", HOLDER, "--dataset", "stays-hospital-1", "--column", "ward", "--column", "cost")
    adults = ("--filter", '{"column": "age", "at_least": 18}')
    ask = researcher.json("ask", *want, "--purpose", "HMB", *adults)["ask"]
    until(lambda: ask in officer.says("wanted"))
    assert ask in researcher.says("asked") and "waiting" in researcher.says("asked")
    bare = officer.says("preview", "--ask", ask, code=1)
    assert "break a limit" in bare and "Without these groups" in bare and "diversity" not in bare.split("rows")[0]
    assert "--sensitive COLUMN" in bare
    assert "(class 100)" in officer.says("preview", "--ask", ask, *SENSITIVE)
    seen = officer.json("preview", "--ask", ask, *SENSITIVE)
    assert seen["leaves"] and seen["risk"]["known"] == ["ward"] and seen["offends"] == []
    assert officer.refused("make", "--ask", ask) == "extracts.risk"
    made = officer.json("make", "--ask", ask, *SENSITIVE)
    assert made["state"] == "delivered" and made["rows"] == seen["rows"]
    extract = made["extract"]
    assert extract in officer.says("list") and extract in researcher.says("list")
    out = tmp_path / "rows.parquet"
    (held,) = (one for one in researcher.json("list")["held"] if one["extract"] == extract)
    by = f"not encrypted. Guard it, and delete it by {format_instant(held['delete_by'])}"
    assert by in researcher.says("rows", extract, "--out", out)
    assert pyarrow.parquet.read_table(out).column_names == ["ward", "cost"]
    assert researcher.json("get", extract, "--out", tmp_path / "copy.extract")["extract"] == extract
    cover = researcher.json("inspect", tmp_path / "copy.extract")
    assert (cover["issuer"], cover["recipient"], cover["extract"]) == (HOLDER, RECIPIENT, extract)
    assert "is deleted here" in researcher.says("delete", extract)
    assert researcher.refused("rows", extract, "--out", tmp_path / "again.csv") == "gateway.extract_deleted"
    assert "person" in researcher.says("list")


def test_what_is_wrong_is_said_before_anything_is_asked(at: Callable[[str, str], At], tmp_path: Path) -> None:
    officer = at(HOLDER, "officer")
    assert "--ask or --grant" in officer.says("preview", code=2)
    assert "--ask or --grant" in officer.says("make", "--ask", "0" * 32, "--grant", "copies", code=2)
    assert "no JSON object" in officer.says("preview", "--grant", "copies", "--filter", "age > 18", code=2)
    assert "32 digits" in officer.says("delete", "abc", code=2)
    assert ".parquet" in officer.says("rows", "0" * 32, "--out", tmp_path / "rows.txt", code=2)
    assert "32 digits" in officer.says("preview", "--ask", "12", code=2)
    researcher = at(RECIPIENT, "researcher")
    want = ("ask", "--from", HOLDER, "--dataset", "stays-hospital-1", "--column", "ward", "--purpose")
    assert "two letters" in researcher.says(*want, "HMB", "--jurisdiction", "China", code=2)
    assert researcher.refused(*want, "RESEARCH") == "privacy.unknown_purpose"
    error = researcher.run("extract", *want, "HMB", "--filter", '{"column": "age"}', code=1).exception
    assert "COMPARISON" in str(error) and "filter_form" not in str(error)
    assert officer.refused("preview", "--grant", "nobodys") == "grants.unknown"
    assert officer.refused("preview", "--ask", "0" * 32) == "extracts.unknown"
    assert officer.refused("preview", "--grant", "copies", "--sensitive", "nothing") == "privacy.risk_column"
    assert officer.refused("withdraw", "0" * 32) == "extracts.unknown"
    assert officer.refused("rows", "0" * 32, "--out", tmp_path / "rows.csv") == "rights.not_yours"
    assert officer.refused("decline", "0" * 32) == "extracts.unknown"
    denied = officer.says("preview", "--grant", "copies", "--purpose", "CLINTRCH", code=1)
    assert "copies" in denied


def test_a_preview_says_that_another_cut_stands_in_the_way(at: Callable[[str, str], At], world: World) -> None:
    with world.client(HOLDER, "officer") as signed_in:
        signed_in.grants.issue(
            terms(HOLDER, grant="once", fields=("cost", "ward", "age"), uses=("extract",), min_group=3)
        )
    officer = at(HOLDER, "officer")
    one = ("--grant", "once", "--column", "ward", "--column", "cost", *SENSITIVE)
    other = ("--grant", "once", "--column", "ward")
    assert officer.json("preview", *other)["leaves"]
    extract = officer.json("make", *one)["extract"]
    seen = officer.json("preview", *other, code=1)
    assert seen["other_cut"] == extract and seen["allowed"] and not seen["leaves"]
    said = officer.says("preview", *other, code=1)
    assert extract in said and "a grant of its own" in said
    assert officer.refused("make", *other) == "gateway.extract_other_cut"
    assert officer.json("preview", *one)["other_cut"] == ""


def test_a_no_from_the_command_line(at: Callable[[str, str], At]) -> None:
    researcher, officer = at(RECIPIENT, "researcher"), at(HOLDER, "officer")
    want = ("--from", HOLDER, "--dataset", "stays-hospital-1", "--column", "ward", "--purpose", "HMB")
    ask = researcher.json("ask", *want)["ask"]
    until(lambda: ask in officer.says("wanted"))
    assert "is declined" in officer.says("decline", ask)
    until(lambda: "The data officer declined the request." in researcher.says("asked"))
    assert officer.refused("make", "--ask", ask) == "gateway.extract_answered"
