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
_REASON, _WORDS, _BECAUSE = "reason", "words", "because_"


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


def told(code: str, words: str, facts: Mapping[str, str]) -> dict[str, str]:
    """Facts by which a message repeats what somebody else said: {reason} and {words}, in the reader's language.

    code, facts: what was said, for the catalogues; words: its sentence, for a code that this program does not know.
    """
    return {_REASON: code, _WORDS: words} | {_BECAUSE + name: fact for name, fact in facts.items()}


def _retold(facts: Mapping[str, object], language: str) -> Mapping[str, object]:
    """`facts` with the words of `told` in `language`, where its code is known and its facts are all there."""
    code = facts.get(_REASON)
    if not isinstance(code, str) or _WORDS not in facts or code not in catalogue(language):
        return facts
    because = {name.removeprefix(_BECAUSE): fact for name, fact in facts.items() if name.startswith(_BECAUSE)}
    because = dict(_retold(because, language))
    gap = "" if language == "zh" else " "
    try:
        entry = catalogue(language)[code]
        words = gap.join(entry[part].format_map(because) for part in ("message", "fix"))
    except KeyError:
        return facts
    return {**facts, _WORDS: words.strip()}


def _fill(code: str, part: str, facts: Mapping[str, object], language: str) -> str:
    entry = catalogue(language).get(code)
    if entry is None:
        return code if part == "message" else ""
    try:
        return entry[part].format_map(_retold(facts, language))
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
