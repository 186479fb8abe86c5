"""Regions of mainland China by the code of GB/T 2260, or by how an address begins; nothing finer than a county.

Names come from the gazetteer of python-stdnum (codes as they were over time, after the public tables of administrative
division codes): an address never passes any of its own characters on, it only chooses an entry. What the gazetteer does
not know, or an address that leaves open which of several counties is meant, gives the next wider region, or none.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, cast

RegionLevel = Literal["province", "prefecture", "county"]
REGION_LEVELS: tuple[RegionLevel, ...] = ("province", "prefecture", "county")

_MUNICIPALITIES = frozenset({"11", "12", "31", "50"})
_HEADINGS = re.compile(r"^(?:市辖区|县|市)$|直辖")
"""Entries that only head a list of counties."""
_ENDINGS = ("特别行政区", "特別行政區", "维吾尔自治区", "壮族自治区", "回族自治区", "自治区", "省", "市")
_STILL = 9999
_FIRST_NUMBERS = 1984
"""When identity numbers began: trial regulations on resident identity cards, 6 April 1984."""
_LONGEST_NAME = 15
_COUNTRY = re.compile(r"^(?:中华人民共和国|中国)")


class Region(NamedTuple):
    """province, prefecture, county: names, the finer ones "" where not known. A municipality is its own prefecture."""

    province: str
    prefecture: str
    county: str

    def at(self, level: RegionLevel) -> str:
        """The region in words, no finer than `level`: "浙江省杭州市西湖区" for a county."""
        prefecture = "" if self.prefecture == self.province else self.prefecture
        parts = (self.province, prefecture, self.county)
        return "".join(parts[: REGION_LEVELS.index(level) + 1])


class _Spell(NamedTuple):
    """A name and the years in which its code meant it."""

    first: int
    last: int
    name: str


def region_of_code(code: str, year: int) -> Region | None:
    """The region whose six-digit `code` stands in an identity number of somebody who was born in `year`.

    It was in use in that year, or when numbers were first given out, to those who had been born before. None where
    nobody had that code then.
    """
    year = max(year, _FIRST_NUMBERS)
    if len(code) != 6 or not code.isascii() or not code.isdigit():
        return None
    province, name = _provinces().get(code[:2]), _name_in(code, year)
    if province is None or name is None:
        return None
    prefecture = _name_in(code[:4] + "00", year) or ""
    if code[:2] in _MUNICIPALITIES:
        prefecture = province
    elif _HEADINGS.search(prefecture):
        prefecture = ""
    county = "" if code.endswith("00") or _HEADINGS.search(name) else name
    return Region(province, prefecture, county)


def region_in(address: str) -> Region | None:
    """The region that `address` (secret) begins with, as fine as it can be told; None where it begins with none.

    "浙江省杭州市西湖区文三路 1 号", "杭州西湖区..." and "慈溪市..." (only if one county has that name) are understood.
    """
    text = _COUNTRY.sub("", "".join(unicodedata.normalize("NFKC", address).split()))
    names = _names()
    province = _longest(text, names.provinces)
    prefecture = _longest(text, names.prefectures)
    county = _longest(text, names.counties)
    if len(county) > max(len(province), len(prefecture)):
        return _only(names.counties[county])
    if len(prefecture) > len(province):
        found = names.prefectures[prefecture]
        return _within(text[len(prefecture) :], found) if len({code[:2] for code in found}) == 1 else None
    if not province:
        return None
    code, rest = names.provinces[province], text[len(province) :]
    while (again := _longest(rest, names.provinces)) and names.provinces[again] == code and code in _MUNICIPALITIES:
        rest = rest[len(again) :]  # a municipality is often written as province and as city
    rest = rest.removeprefix("市辖区")
    prefecture = _longest(rest, names.prefectures, (code,))
    if len(prefecture) > len(_longest(rest, names.counties, (code,))):
        found = frozenset(entry for entry in names.prefectures[prefecture] if entry.startswith(code))
        return _within(rest[len(prefecture) :], found)
    return _within(rest, frozenset({code + "0000"}))


def _within(rest: str, wider: frozenset[str]) -> Region | None:
    """The county that `rest` begins with among those of `wider` (codes of prefectures or one province), or `wider`."""
    names = _names()
    prefixes = tuple(code.rstrip("0").ljust(2, "0") if code.endswith("0000") else code[:4] for code in wider)
    county = _longest(rest, names.counties, prefixes)
    found = frozenset(code for code in names.counties.get(county, ()) if code.startswith(prefixes))
    return _only(found) or _only(wider)


def _only(codes: frozenset[str]) -> Region | None:
    """The region of the one code, as it is called today."""
    if len(codes) != 1:
        return None
    code = next(iter(codes))
    province = _provinces()[code[:2]]
    latest = _codes().get(code[:4] + "00")
    prefecture = latest[-1].name if latest and code[2:4] != "00" else ""
    if code[:2] in _MUNICIPALITIES:
        prefecture = province
    elif _HEADINGS.search(prefecture):
        prefecture = ""
    return Region(province, prefecture, "" if code.endswith("00") else _codes()[code][-1].name)


class _Names(NamedTuple):
    """Codes by every name and short name."""

    provinces: dict[str, str]
    prefectures: dict[str, frozenset[str]]
    counties: dict[str, frozenset[str]]


@cache
def _provinces() -> dict[str, str]:
    return {low: unicodedata.normalize("NFKC", props["province"]) for _, low, _, props, _ in _gazetteer()}


@cache
def _codes() -> dict[str, tuple[_Spell, ...]]:
    """What each six-digit code meant, in the order of time."""
    found = {}
    for _, province, _, _, children in _gazetteer():
        for _, code, _, props, _ in children:
            spells = [_spell(entry) for entry in props["county"].split(",")]
            found[province + code] = tuple(sorted(spells))
    return found


def _spell(entry: str) -> _Spell:
    """One entry of the gazetteer: "[1998-]万州区", or a name alone."""
    years, _, name = entry.rpartition("]")
    first, _, last = years.removeprefix("[").partition("-")
    return _Spell(int(first or 0), int(last or _STILL), name)


@cache
def _names() -> _Names:
    provinces = {}
    for code, name in _provinces().items():
        provinces[name] = provinces[_short(name)] = code
    prefectures: dict[str, set[str]] = defaultdict(set)
    counties: dict[str, set[str]] = defaultdict(set)
    for code, spells in _codes().items():
        for spell in spells:
            if code.endswith("0000") or _HEADINGS.search(spell.name):
                continue
            if spell.last != _STILL:  # an address is written today
                continue
            (prefectures if code.endswith("00") else counties)[spell.name].add(code)
            if code.endswith("00") and spell.name.endswith("市"):
                prefectures[spell.name[:-1]].add(code)
    return _Names(provinces, _frozen(prefectures), _frozen(counties))


def _frozen(names: dict[str, set[str]]) -> dict[str, frozenset[str]]:
    return {name: frozenset(codes) for name, codes in names.items()}


def _short(name: str) -> str:
    return next((name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending)), name)


def _longest(text: str, names: Mapping[str, str | frozenset[str]], prefixes: tuple[str, ...] = ("",)) -> str:
    """The longest of `names`, with a code that begins with one of `prefixes`, that `text` begins with; or ""."""
    for length in range(min(len(text), _LONGEST_NAME), 1, -1):
        codes = names.get(text[:length])
        if codes and any(code.startswith(prefixes) for code in ((codes,) if isinstance(codes, str) else codes)):
            return text[:length]
    return ""


def _name_in(code: str, year: int) -> str | None:
    return next((spell.name for spell in _codes().get(code, ()) if spell.first <= year <= spell.last), None)


_Entry = tuple[int, str, str, dict[str, str], list[Any]]


def _gazetteer() -> list[_Entry]:
    from stdnum import numdb  # a table of 7,000 lines, read when the first region is asked for

    return cast("list[_Entry]", numdb.get("cn/loc").prefixes)
