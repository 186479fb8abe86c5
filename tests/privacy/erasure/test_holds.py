"""Legal holds are placed, lifted and never lost."""

from __future__ import annotations

import io

import msgspec
import pytest

from privacy.legal_holds import LegalHold, all_holds, held_until, lift_hold, place_hold
from tests.privacy.erasure.conftest import WANG, Home
from wire.dates import NO_END
from wire.errors import DecodeError, Refused

HOLD = LegalHold("case-7", b"", "visits", "court/2026/7", 46_000, NO_END)


def of_person(home: Home, person: str, dataset: str = "") -> LegalHold:
    return msgspec.structs.replace(HOLD, person=home.vault.person_id(person), dataset=dataset)


def test_a_hold_stands_until_it_is_lifted(home: Home) -> None:
    place_hold(home.vault, HOLD)
    place_hold(home.vault, HOLD)
    assert all_holds(home.vault) == (HOLD,)
    assert held_until(all_holds(home.vault), HOLD.person, "visits", 46_000) == NO_END
    lifted = lift_hold(home.vault, "case-7", 46_010)
    assert lifted.until == 46_009 and lift_hold(home.vault, "case-7", 46_020) == lifted
    assert all_holds(home.vault) == (lifted,)
    assert held_until((lifted,), HOLD.person, "visits", 46_009) == 46_009
    assert held_until((lifted,), HOLD.person, "visits", 46_010) is None
    with pytest.raises(Refused) as raised:
        place_hold(home.vault, HOLD)
    assert raised.value.code == "privacy.hold_exists"


def test_one_placed_and_lifted_on_a_day_stood_on_none(home: Home) -> None:
    place_hold(home.vault, HOLD)
    lifted = lift_hold(home.vault, "case-7", HOLD.since)
    assert held_until((lifted,), HOLD.person, "visits", HOLD.since) is None


def test_large_documents_are_held_by_their_kind(home: Home) -> None:
    home.vault.put_stream("scan", "1", io.BytesIO(b"scan"), person=WANG)
    held = of_person(home, WANG, "document.scan")
    place_hold(home.vault, held)
    assert all_holds(home.vault) == (held,)


@pytest.mark.parametrize("person", [WANG, f" {WANG}", WANG.replace("w", "ｗ")])
def test_a_hold_of_one_person_in_any_spelling(home: Home, person: str) -> None:
    place_hold(home.vault, of_person(home, person))
    assert {one.why for one in home.plan().plan.restrict} == {("hold",), ("retention", "hold")}


@pytest.mark.parametrize(("person", "dataset"), [("wang-wu", ""), ("WANG-WU-110101", ""), (WANG, "document.scan")])
def test_a_hold_that_would_hold_nothing_is_refused_unless_it_is_for_what_will_come(
    home: Home, person: str, dataset: str
) -> None:
    hold = of_person(home, person, dataset)
    with pytest.raises(Refused) as raised:
        place_hold(home.vault, hold)
    assert raised.value.code == "privacy.hold_nobody" and all_holds(home.vault) == ()
    assert raised.value.facts["dataset"] == (dataset or "*")
    place_hold(home.vault, hold, not_here_yet=True)
    place_hold(home.vault, hold)  # again: it stands
    assert all_holds(home.vault) == (hold,)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"person": b"wang-wu"}, Refused),
        ({"reference": ""}, Refused),
        ({"reference": "court " * 40}, Refused),
        ({"reference": "court/\udcff"}, Refused),
        ({"until": NO_END + 1}, Refused),
        ({"since": -1}, Refused),
        ({"until": 45_999}, Refused),
        ({"hold": "Case 7"}, DecodeError),
        ({"dataset": "Visits!"}, DecodeError),
        ({"dataset": "visit"}, Refused),  # mistyped, it would hold nothing
    ],
)
def test_what_is_no_hold(changes: dict[str, object], kind: type[Exception], home: Home) -> None:
    with pytest.raises(kind):
        place_hold(home.vault, msgspec.structs.replace(HOLD, **changes))
    assert all_holds(home.vault) == ()
    with pytest.raises(Refused) as raised:
        lift_hold(home.vault, "case-8", 46_000)
    assert raised.value.code == "privacy.no_hold"
