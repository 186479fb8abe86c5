"""The home of a stopped gateway as the verbs about persons use it: like the client of one that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from medveil.cli.calling import calling

if TYPE_CHECKING:
    from medveil.client import Client
    from medveil.client.erasures import Erasure, ErasureCheck, ErasureList, Hold, HoldList, PersonUses
    from medveil.client.jobs import Progress
    from medveil.service.home.home import Home

T = TypeVar("T")

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        readable=False,
        help="Work on the files of this home, whose gateway is stopped; else the gateway is called.",
    ),
]
PERSON = "Identifier of the person"


def now() -> int:
    """The time, ms UTC."""
    import time

    return time.time_ns() // 1_000_000


def opened(home: Path) -> Home:
    """The home, this process's alone. The passphrase comes from MEDVEIL_PASSPHRASE_FILE or gateway.toml."""
    import secrets

    from medveil.service.home.config import FILE, passphrase, read_config
    from medveil.service.home.home import Home

    return Home.open(home, passphrase(read_config(home / FILE)), secrets.token_bytes, now)


@contextmanager
def at(home: Path | None) -> Iterator[Client | OnFiles]:
    """The gateway that one is signed in to, or the files of a stopped one's home. Raises as `calling` and `opened`."""
    if home is None:
        with calling() as client:
            yield client
    else:
        with opened(home) as found:
            yield OnFiles(found)


class OnFiles:
    """A home. Its parts have the methods of the client's, as far as they need no running gateway."""

    def __init__(self, home: Home) -> None:
        self.erasures = ErasuresOnFiles(home)
        self.holds = HoldsOnFiles(home)
        self.persons = PersonsOnFiles(home)


def _as(told: dict[str, Any], kind: type[T]) -> T:
    import msgspec

    return msgspec.convert(told, kind)


class ErasuresOnFiles:
    """See `medveil.client.erasures.Erasures`."""

    def __init__(self, home: Home) -> None:
        self._home, self._organisation = home, home.organisation

    def plan(self, person: str, *, ground: Any = "request", reference: str = "", rotate_days: int = 30) -> Erasure:
        """Plan the erasure of a person."""
        from medveil.gateway import erasing
        from privacy.erasure.steps import DAY_MS

        within = rotate_days * DAY_MS
        made = erasing.plan(self._organisation, person, now(), ground=ground, reference=reference, rotate_within=within)
        return self.get(made.name)

    def list(self) -> ErasureList:
        """Every erasure."""
        from medveil.client.erasures import ErasureList
        from medveil.gateway import erasing
        from medveil.gateway.erasure_told import erasure_told
        from privacy.erasure import steps

        vault = self._organisation.vault
        under_way = steps.under_way(vault)
        told = [erasure_told(one, under_way) for one in steps.erasures(vault)]
        return _as({"erasures": told, "rotate_by": erasing.rotation_due(self._organisation)}, ErasureList)

    def get(self, erasure: str) -> Erasure:
        """One of them."""
        from medveil.client.erasures import Erasure
        from medveil.gateway.erasure_told import erasure_told
        from privacy.erasure import steps

        vault = self._organisation.vault
        one = steps.erasure(vault, erasure)
        return _as(erasure_told(one, steps.under_way(vault), steps.unplanned(vault, one)), Erasure)

    def plan_due(self, *, rotate_days: int = 30) -> ErasureList:
        """Plan the erasure of what is due."""
        from medveil.client.erasures import ErasureList
        from medveil.gateway import erasing
        from medveil.gateway.erasure_told import erasure_told
        from privacy.erasure.steps import DAY_MS

        made = erasing.plan_due(self._organisation, now(), rotate_within=rotate_days * DAY_MS)
        return _as({"erasures": [erasure_told(one) for one in made], "rotate_by": 0}, ErasureList)

    def apply(self, erasure: str, *, told: Callable[[Progress], None] | None = None) -> Erasure:
        """Carry out a plan."""
        from medveil.gateway import erasing

        erasing.apply(self._organisation, erasure, now)
        return self.get(erasure)

    def rotate(self, *, told: Callable[[Progress], None] | None = None) -> ErasureList:
        """Rotate the key epoch of the vault."""
        from medveil.gateway import erasing

        erasing.rotate(self._organisation, now)
        return self.list()

    def receipt(self, erasure: str) -> bytes:
        """The signed receipt as it stands now."""
        from medveil.gateway import erasing
        from wire.canonical import encode

        return encode(erasing.receipt_of(self._organisation, erasure, now()))

    def check(
        self,
        receipt: bytes,
        markers: Sequence[str] = (),
        *,
        besides: Path | None = None,
        told: Callable[[Progress], None] | None = None,
    ) -> ErasureCheck:
        """Look for what a receipt says is gone. besides: the receipt's own file."""
        from medveil.cli import language
        from medveil.client.erasures import ErasureCheck
        from medveil.gateway import erasing
        from medveil.gateway.erasure_checks import CheckKept, read_receipt
        from medveil.gateway.erasure_told import check_told

        read = read_receipt(receipt, str(besides or "receipt"))
        skipped = [] if besides is None else [besides]
        report = erasing.check(self._organisation, read, self._home.folder, markers=markers, besides=skipped)
        return _as(check_told(CheckKept.of(read, report, now()), language()), ErasureCheck)


class HoldsOnFiles:
    """See `medveil.client.erasures.Holds`."""

    def __init__(self, home: Home) -> None:
        self._vault = home.organisation.vault

    def list(self) -> HoldList:
        """Every hold."""
        from medveil.client.erasures import HoldList
        from medveil.gateway.erasure_told import hold_told
        from privacy.legal_holds import all_holds

        return _as({"holds": [hold_told(one) for one in all_holds(self._vault)]}, HoldList)

    def place(
        self,
        hold: str,
        reference: str,
        *,
        person: str | None = None,
        dataset: str = "",
        until: str | None = None,
        not_here_yet: bool = False,
    ) -> Hold:
        """Place a hold from today on."""
        from datetime import date

        from medveil.client.erasures import Hold
        from medveil.gateway.erasure_told import hold_told
        from privacy.legal_holds import LegalHold, place_hold
        from wire.dates import NO_END, day_of

        keyed = b"" if person is None else self._vault.person_id(person)
        last = NO_END if until is None else day_of(date.fromisoformat(until))
        placed = LegalHold(hold, keyed, dataset, reference, _today(), last)
        place_hold(self._vault, placed, not_here_yet=not_here_yet)
        return _as(hold_told(placed), Hold)

    def lift(self, hold: str) -> Hold:
        """Lift a hold."""
        from medveil.client.erasures import Hold
        from medveil.gateway.erasure_told import hold_told
        from privacy.legal_holds import lift_hold

        return _as(hold_told(lift_hold(self._vault, hold, _today())), Hold)


class PersonsOnFiles:
    """See `medveil.client.erasures.Persons`."""

    def __init__(self, home: Home) -> None:
        self._organisation = home.organisation

    def uses(self, person: str) -> PersonUses:
        """Who used one person's data."""
        from medveil.client.erasures import PersonUses
        from medveil.gateway.erasure_told import uses_told
        from medveil.gateway.person_view import person_view

        return _as(uses_told(person_view(self._organisation, person)), PersonUses)


def _today() -> int:
    from privacy.retention import ZONE
    from wire.dates import day_at

    return day_at(now(), ZONE)
