"""The message catalogues: one TOML file a part and language (``en/`` and ``zh/``).

An entry is ``["part.what"]`` with ``message`` (what was wrong, where) and ``fix`` (what to do
next); ``{name}`` stands for a fact. Both languages hold the same codes and the same facts: a test
compares them, and checks that every code raised anywhere is in both.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources

LANGUAGES = ("en", "zh")


@cache
def catalogue(language: str) -> Mapping[str, Mapping[str, str]]:
    """All entries of one language, by code."""
    if language not in LANGUAGES:
        raise ValueError(f"no catalogue for language {language!r}; there are {', '.join(LANGUAGES)}")
    entries: dict[str, Mapping[str, str]] = {}
    folder = resources.files(__package__).joinpath(language)
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            entries.update(tomllib.loads(file.read_text(encoding="utf-8")))
    return entries


def _fill(code: str, part: str, facts: Mapping[str, object], language: str) -> str:
    entry = catalogue(language).get(code)
    if entry is None:
        return code if part == "message" else ""
    try:
        return entry[part].format_map(facts)
    except KeyError:
        return entry[part]


def sentence(code: str, facts: Mapping[str, object], language: str = "en") -> str:
    """What was wrong."""
    return _fill(code, "message", facts, language)


def fix(code: str, facts: Mapping[str, object], language: str = "en") -> str:
    """What to do next."""
    return _fill(code, "fix", facts, language)


def text(code: str, facts: Mapping[str, object], language: str = "en") -> str:
    """Sentence and fix, one after the other."""
    gap = "" if language == "zh" else " "
    return (sentence(code, facts, language) + gap + fix(code, facts, language)).strip()
