"""What the search found, counted by place; what of it is meant to be there, and what leaks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from medveil.leak_test.expected import SEEN, Rule, expected
from medveil.leak_test.patients import Marker
from medveil.leak_test.places import INPUT, PLACES, Place, views
from medveil.leak_test.search import Search

MOST_TOLD = 50
"""Leaks of one place that are told one by one; all are counted."""


class Leak(msgspec.Struct, frozen=True):
    """A marker where it must not be. what: kind and whose, never the marker; view: how `file` was read, empty for its
    bytes; offset: there, in bytes."""

    place: str
    file: str
    view: str
    offset: int
    what: str
    spelling: str

    def line(self) -> str:
        """For a person."""
        view = f" ({self.view})" if self.view else ""
        return f"{self.place}: {self.file}{view} at byte {self.offset}: {self.what}, as {self.spelling}"


class Row(msgspec.Struct, frozen=True):
    """A place. items: files or processes; bytes: searched, what packed files hold included; closed: items that this
    user may not read."""

    place: str
    items: int
    bytes: int
    expected: int
    leaks: int
    closed: int = 0


class Allowed(msgspec.Struct, frozen=True):
    """What was found and is meant to be there."""

    place: str
    reason: str
    found: int


class Verdict(msgspec.Struct, frozen=True):
    """The whole result. faults: why the test counts for nothing, in words."""

    markers: int
    spellings: int
    rows: tuple[Row, ...]
    allowed: tuple[Allowed, ...]
    leaks: tuple[Leak, ...]
    faults: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether nothing leaks, and the test counts."""
        return not self.leaks and not self.faults


class Count:
    """Counts what is found while one searches. search: for all markers; markers: those it searches for."""

    def __init__(self, search: Search, markers: Iterable[Marker]) -> None:
        self._search = search
        self._markers = tuple(markers)
        self._items: dict[str, set[str]] = {place: set() for place in PLACES}
        self._bytes = dict.fromkeys(PLACES, 0)
        self._expected = dict.fromkeys(PLACES, 0)
        self._closed = dict.fromkeys(PLACES, 0)
        self._leaks: dict[tuple[str, str, str, int, str], Leak] = {}
        self._allowed: dict[Rule, set[tuple[str, str, int]]] = {}
        self._seen_input: set[Marker] = set()
        self._faults: list[str] = []

    def folder(self, folder: Iterable[Place]) -> None:
        """Search files."""
        for place in folder:
            self.data(place, [place.name.encode()], "its name")
            for view in views(place.path):
                self.data(place, view.pieces, view.name)

    def data(self, place: Place, pieces: Iterable[bytes], view: str = "", outsider: str = "") -> None:
        """Search one thing. outsider: whose process it is; then its own markers are not looked for."""
        self._items[place.place].add(place.name)
        for one in self._search.find_in(self._counted(place, pieces)):
            marker = one.marker
            if outsider and marker.owner == outsider:
                continue
            rule = expected(place, marker)
            if rule is None:
                leak = Leak(place.place, self._told(place.name), view, one.offset, marker.named(), one.how)
                self._leaks[place.place, place.name, view, one.offset, leak.what] = leak
                continue
            self._expected[place.place] += 1
            self._allowed.setdefault(rule, set()).add((place.name, view, one.offset))
            if place.place == INPUT:
                self._seen_input.add(marker)

    def _told(self, name: str) -> str:
        """A file's name, without a part that a marker stands in."""
        parts = name.split("/")
        return "/".join("(a marker)" if any(self._search.find(part.encode())) else part for part in parts)

    def closed(self, place: str) -> None:
        """Something that this user may not read."""
        self._closed[place] += 1

    def leak(self, place: Place, what: str, how: str) -> None:
        """Something else that must not be: a core, say."""
        self._items[place.place].add(place.name)
        self._leaks[place.place, place.name, how, 0, what] = Leak(place.place, place.name, "", 0, what, how)

    def fault(self, words: str) -> None:
        """Why the test counts for nothing."""
        self._faults.append(words)

    def _counted(self, place: Place, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._bytes[place.place] += len(piece)
            yield piece

    def verdict(self) -> Verdict:
        """The result so far, with a fault for everything that had to be found and was not."""
        faults = list(self._faults)
        for rule in SEEN:
            if rule not in self._allowed:
                faults.append(f"Not found in {rule.place}, where it must be: {rule.reason}.")
        wanted = {marker for marker in self._markers if marker.kind in SEEN[0].kinds}
        if missed := wanted - self._seen_input:
            faults.append(f"{len(missed)} of {len(wanted)} markers were not found in {INPUT}, where they stand.")
        rows = tuple(
            Row(
                place,
                len(self._items[place]),
                self._bytes[place],
                self._expected[place],
                sum(leak.place == place for leak in self._leaks.values()),
                self._closed[place],
            )
            for place in PLACES
        )
        allowed = tuple(Allowed(rule.place, rule.reason, len(found)) for rule, found in self._allowed.items())
        return Verdict(
            len(self._markers), self._search.spellings, rows, allowed, tuple(self._leaks.values()), tuple(faults)
        )
