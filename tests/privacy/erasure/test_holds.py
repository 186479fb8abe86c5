"""Legal holds are placed, lifted and never lost."""

from __future__ import annotations

import msgspec
import pytest

from privacy.legal_holds import LegalHold, all_holds, held_until, lift_hold, place_hold
from tests.privacy.erasure.conftest import Home
from wire.dates import NO_END
from wire.errors import DecodeError, Refused

HOLD = LegalHold("case-7", b"p" * 16, "visits", "court/2026/7", 46_000, NO_END)


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
    held = msgspec.structs.replace(HOLD, dataset="document.scan")
    place_hold(home.vault, held)
    assert all_holds(home.vault) == (held,)


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
