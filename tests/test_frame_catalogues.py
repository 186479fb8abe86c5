"""The message catalogues are complete, in both languages, and hold nothing dead.

The source is read, not run: every error that is constructed anywhere names its code as a text, so
that codes and the facts given with them can be compared with the catalogues.
"""

from __future__ import annotations

import ast
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from wire import errors, messages

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("medveil", "ledger", "mpc", "connectors", "zkp", "privacy", "wire")
KINDS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.MedveilError)
}
GIVEN = {"ProtocolAbort": {"round", "parties"}}
"""Facts that a kind's own arguments become."""


class Raised(NamedTuple):
    """One construction of an error: where, which codes, which facts; `open_ended` if facts come by ``**``."""

    place: str
    codes: tuple[str, ...]
    facts: frozenset[str]
    open_ended: bool


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def _constants(node: ast.expr) -> Iterator[str]:
    """The texts that an argument may be: a constant, or either arm of a condition."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _constants(node.body)
        yield from _constants(node.orelse)


def _raised() -> Iterator[Raised]:
    for path, tree in _trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name not in KINDS:
                continue
            facts = {keyword.arg for keyword in node.keywords if keyword.arg} - {"retry_after"}
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            open_ended = any(keyword.arg is None for keyword in node.keywords)
            yield Raised(place, tuple(_constants(node.args[0])), frozenset(facts | GIVEN.get(name, set())), open_ended)


def _texts() -> tuple[set[str], set[str]]:
    """Every text of the source, and the fixed beginnings of formatted ones."""
    whole: set[str] = set()
    beginnings: set[str] = set()
    for _, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                whole.add(node.value)
            elif isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
                beginnings.add(str(node.values[0].value))
    return whole, {text for text in beginnings if "." in text}


def _facts_of(entry: object) -> set[str]:
    assert isinstance(entry, dict)
    return {
        name
        for part in ("message", "fix")
        for _, name, _, _ in string.Formatter().parse(entry[part])
        if name is not None
    }


EN, ZH = messages.catalogue("en"), messages.catalogue("zh")


def test_both_languages_hold_the_same_codes() -> None:
    assert set(EN) == set(ZH)


@pytest.mark.parametrize("code", sorted(EN))
def test_an_entry_is_whole_and_asks_for_the_same_facts(code: str) -> None:
    for entry in (EN[code], ZH[code]):
        assert set(entry) == {"message", "fix"}
        assert all(text.strip() == text and text for text in entry.values())
    assert _facts_of(EN[code]) == _facts_of(ZH[code])
    assert all(name.isidentifier() for name in _facts_of(EN[code]))
    assert EN[code]["message"][-1] in ".!?}" and EN[code]["fix"][-1] in ".!?"  # }: another sentence stands there
    assert any("\u4e00" <= character <= "\u9fff" for character in ZH[code]["message"] + ZH[code]["fix"])


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_no_code_stands_in_two_files(language: str) -> None:
    seen: dict[str, str] = {}
    for path in sorted((ROOT / "wire" / "messages" / language).glob("*.toml")):
        for code in tomllib.loads(path.read_text(encoding="utf-8")):
            assert code not in seen, f"{code} stands in {seen[code]} and {path.name}"
            seen[code] = path.name


def test_files_are_the_same_in_both_languages() -> None:
    names = [{path.name for path in (ROOT / "wire" / "messages" / language).iterdir()} for language in ("en", "zh")]
    assert names[0] == names[1]


def test_every_error_raised_is_in_the_catalogues() -> None:
    lost = [(error.place, code) for error in _raised() for code in error.codes if code not in EN]
    assert not lost


def test_every_error_gives_the_facts_its_sentence_names() -> None:
    lost = [
        (error.place, code, sorted(_facts_of(EN[code]) - error.facts))
        for error in _raised()
        for code in error.codes
        if code in EN and not error.open_ended and _facts_of(EN[code]) - error.facts
    ]
    assert not lost


def test_no_entry_is_dead() -> None:
    whole, beginnings = _texts()
    dead = [code for code in EN if code not in whole and not any(code.startswith(start) for start in beginnings)]
    assert not dead


def test_the_scan_sees_something() -> None:
    """A scan that finds nothing would pass every test above."""
    found = list(_raised())
    assert len(found) > 50
    assert any(error.codes == ("wire.bad_opening",) for error in found)
