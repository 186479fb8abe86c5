"""Loading over a dataset: refused while a duty or a legal hold keeps anything of what it would destroy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from privacy.keys import FileKeyProvider
from privacy.legal_holds import LegalHold, lift_hold, place_hold
from privacy.vault import Vault
from wire.dates import NO_END, day_of
from wire.errors import Refused

TODAY = day_of(date(2026, 6, 15))
LATE = int(datetime(2026, 6, 15, 15, 59, 59, tzinfo=UTC).timestamp() * 1000)
"""A second before that day ends in Shanghai."""
ROWS = pa.table({"cost": pa.array([1, 2, 3])})
PEOPLE = ["wang", "li", "wang"]


class Opened:
    """A vault whose clock and faults a test sets."""

    def __init__(self, path: Path, provider: FileKeyProvider, database: str) -> None:
        self.now = LATE
        self.at: Callable[[str], None] = lambda place: None
        more = {"clock": lambda: self.now, "fault": lambda place: self.at(place), "database": database}
        self.vault = Vault.create(path, provider, "hospital-1", **more)

    def refused(self, code: str) -> Refused:
        before = self.vault.read("d")
        with pytest.raises(Refused) as raised:
            self.vault.ingest("d", ROWS.slice(1), replace=True)
        assert raised.value.code == code
        assert self.vault.read("d").equals(before) and self.vault.count("d") == before.num_rows
        return raised.value

    def replace(self) -> None:
        assert self.vault.ingest("d", ROWS.slice(1), replace=True).rows == 2


@pytest.fixture
def opened(tmp_path: Path, provider: FileKeyProvider, vault_url: str) -> Iterator[Opened]:
    made = Opened(tmp_path / "vault", provider, vault_url)
    yield made
    made.vault.close()


def test_what_a_duty_keeps_is_not_loaded_over(opened: Opened) -> None:
    opened.vault.ingest("d", ROWS, persons=PEOPLE, retain_until=[TODAY, TODAY - 1, None])
    error = opened.refused("privacy.replace_retained")
    assert (error.facts["rows"], error.facts["until"]) == (1, "2026-06-15")
    opened.now += 1000  # the day is over
    opened.replace()


def test_nor_what_was_restricted_until_then(opened: Opened) -> None:
    opened.vault.ingest("d", ROWS, persons=PEOPLE, retain_until=[NO_END, None, None])
    key = next(key for key in opened.vault.keys_of("wang") if key.retain_until is not None)
    opened.vault.restrict([key.key])
    opened.now += 10 * 365 * 86_400_000
    error = opened.refused("privacy.replace_retained")
    assert error.facts["until"] == "2079-06-05"


@pytest.mark.parametrize("person", ["", "li"])
@pytest.mark.parametrize("dataset", ["", "d"])
def test_what_a_hold_names_is_not_loaded_over(opened: Opened, person: str, dataset: str) -> None:
    keyed = opened.vault.person_id(person) if person else b""
    opened.vault.ingest("d", ROWS, persons=PEOPLE)
    place_hold(opened.vault, LegalHold("case-7", keyed, dataset, "court/7", TODAY, TODAY))
    assert opened.refused("privacy.replace_held").facts["hold"] == "case-7"
    lift_hold(opened.vault, "case-7", TODAY)
    opened.replace()


def test_a_hold_of_others_is_no_reason(opened: Opened) -> None:
    opened.vault.ingest("d", ROWS, persons=PEOPLE)
    opened.vault.ingest("e", ROWS)
    for number, (person, dataset, since) in enumerate(
        [(b"p" * 16, "", 0), (b"", "e", 0), (opened.vault.person_id("li"), "e", 0), (b"", "", TODAY + 1)]
    ):
        place_hold(
            opened.vault, LegalHold(f"case-{number}", person, dataset, "court/7", since, NO_END), not_here_yet=True
        )
    opened.replace()


def test_a_row_that_is_its_own_person_can_be_held(opened: Opened) -> None:
    opened.vault.ingest("d", ROWS)
    own = next(opened.vault.data_keys("d")).person
    place_hold(opened.vault, LegalHold("case-7", own, "", "court/7", 0, NO_END))
    opened.refused("privacy.replace_held")


def test_a_hold_that_is_placed_while_it_loads(opened: Opened) -> None:
    opened.vault.ingest("d", ROWS, persons=PEOPLE)
    hold = LegalHold("case-7", b"", "d", "court/7", 0, NO_END)
    opened.at = lambda place: place_hold(opened.vault, hold) if place == "ingest:part" else None
    opened.refused("privacy.replace_held")
    opened.at = lambda place: None
    lift_hold(opened.vault, "case-7", 0)
    opened.replace()


def test_adding_rows_asks_nobody(opened: Opened) -> None:
    opened.vault.ingest("d", ROWS, persons=PEOPLE, retain_until=NO_END)
    place_hold(opened.vault, LegalHold("case-7", b"", "", "court/7", 0, NO_END))
    assert opened.vault.ingest("d", ROWS, persons=PEOPLE, append=True).rows == 6
