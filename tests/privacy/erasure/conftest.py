"""A vault with two people's rows under several duties, a trail, and what an erasure is given beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from privacy.audit import AuditTrail, Use
from privacy.erasure import steps as erasure
from privacy.erasure.plan import Ground, plan_erasure
from privacy.erasure.steps import Erasure, Given
from privacy.keys import FileKeyProvider
from privacy.legal_holds import all_holds
from privacy.vault import Vault
from wire.dates import day_of

TODAY = day_of(date(2026, 6, 15))
NOON = int(datetime(2026, 6, 15, 4, tzinfo=UTC).timestamp() * 1000)
PAST, SOON = day_of(date(2026, 6, 14)), day_of(date(2026, 12, 31))
WANG, LI = "wang-wu-110101", "li-si-220202"
MARKERS = (WANG, "planted-diagnosis-of-wang")


class Clock:
    """Instants in milliseconds; every reading is 10 later."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 10
        return self.now


class Home(NamedTuple):
    """What an erasure works on. cuts: the (dataset, person) of every re-cut."""

    folder: Path
    vault: Vault
    trail: AuditTrail
    clock: Clock
    cuts: list[tuple[str, bytes]]

    def plan(self, person: str = WANG, ground: Ground = "request", number: int = 1) -> Erasure:
        keyed = self.vault.person_id(person)
        keys, holds = self.vault.keys_of(keyed), all_holds(self.vault)
        made = plan_erasure(bytes([number]) * 16, "hospital-1", keyed, keys, holds, TODAY, ground)
        return erasure.begin(self.vault, made, self.clock(), "requests/7")

    def apply(self, name: str, fault: Callable[[str], None] = lambda step: None) -> Erasure:
        return erasure.apply(self.vault, self.trail, name, self.clock, recut=self.recut, given=self.given, fault=fault)

    def recut(self, dataset: str, persons: Sequence[bytes]) -> None:
        self.cuts.extend((dataset, person) for person in persons)

    def given(self, datasets: Sequence[str]) -> list[Given]:
        return [Given("university", "visits", "grant-1", 5, NOON - 1000)] if "visits" in datasets else []

    def rows(self, person: str) -> dict[str, int]:
        """How many rows of a person reads show, by dataset."""
        found = {}
        for dataset in ("visits", "bills"):
            table = self.vault.read(dataset, person_column="who")
            found[dataset] = table["who"].to_pylist().count(self.vault.person_id(person))
        return found


def opened(folder: Path, provider: FileKeyProvider, database: str = "") -> Home:
    clock = Clock()
    return Home(
        folder,
        Vault.open(folder / "vault", provider, "hospital-1", clock=clock, database=database),
        AuditTrail(folder / "audit.sqlite", "hospital-1", clock=clock),
        clock,
        [],
    )


def fill(vault: Vault) -> None:
    """Visits: Wang 3 without a duty, 2 whose duty is over, 1 whose duty runs; Li 1. Bills: Wang 2, kept; Li 1."""
    notes = ["planted-diagnosis-of-wang"] * 6 + ["li"]
    visits = pa.table({"cost": pa.array([1.0, 2, 3, 4, 5, 6, 7]), "note": pa.array(notes)})
    until = [None, None, None, PAST, PAST, SOON, None]
    vault.ingest("visits", visits, persons=[WANG] * 6 + [LI], retain_until=until)
    bills = pa.table({"amount": pa.array([10, 20, 30])})
    vault.ingest("bills", bills, persons=[WANG, WANG, LI], retain_until=SOON)


@pytest.fixture
def home(tmp_path: Path, provider: FileKeyProvider) -> Iterator[Home]:
    Vault.create(tmp_path / "vault", provider, "hospital-1").close()
    made = opened(tmp_path, provider)
    fill(made.vault)
    yield made
    made.vault.close()
    made.trail.close()


@pytest.fixture
def use() -> Use:
    return Use("university", "visits", "extract", "HRESCH", "grant-1", b"", True, "granted")
