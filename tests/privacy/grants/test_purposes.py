"""A granted purpose covers itself and what is below it, and never anything else."""

from __future__ import annotations

import re

import pytest

from privacy.grants.purposes import CONDITIONS, PURPOSES, ancestors, covered, covering, covers, purpose
from wire.errors import Refused


def test_the_table_is_a_forest_of_unique_codes_with_titles_in_both_languages() -> None:
    for code, entry in PURPOSES.items():
        assert entry.code == code
        assert re.fullmatch("[A-Z][A-Z0-9]{0,31}", code)
        assert entry.parent == "" or entry.parent in PURPOSES
        assert len(set(ancestors(code))) == len(ancestors(code)) <= 5
        assert entry.title() != entry.title("zh")
        assert re.fullmatch(r"v3-ActReason#[A-Z]+|DUO:\d{7}", entry.standard)
    assert len({entry.standard for entry in PURPOSES.values()}) == len(PURPOSES)


@pytest.mark.parametrize(
    ("granted", "asked"),
    [("HRESCH", "HRESCH"), ("HRESCH", "DS"), ("HRESCH", "CLINTRCH"), ("GRU", "HMB"), ("HPAYMT", "ELIGVER")],
)
def test_wider_covers_narrower(granted: str, asked: str) -> None:
    assert covers(granted, asked)
    assert granted == asked or not covers(asked, granted)


@pytest.mark.parametrize(
    ("granted", "asked"),
    [("HMB", "POA"), ("HRESCH", "HMARKT"), ("HPAYMT", "FRAUD"), ("HOPERAT", "HPAYMT"), ("TREAT", "HRESCH")],
)
def test_unrelated_purposes_do_not_cover(granted: str, asked: str) -> None:
    assert not covers(granted, asked)


@pytest.mark.parametrize("unknown", ["", "hresch", "RES", "HRESCH ", "ANYTHING"])
def test_unknown_codes_cover_nothing(unknown: str) -> None:
    assert not covers(unknown, unknown)
    assert not covers("HRESCH", unknown)
    assert not covers(unknown, "HRESCH")
    with pytest.raises(Refused):
        purpose(unknown)
    with pytest.raises(Refused):
        ancestors(unknown)


def test_the_branch_is_whole() -> None:
    """62 concepts stand below PurposeOfUse in ActReason 3.1.0, by parent as many as here."""
    reasons = [entry for entry in PURPOSES.values() if entry.standard.startswith("v3-")]
    assert len(reasons) == 62
    below: dict[str, int] = {}
    for entry in reasons:
        below[entry.parent] = below.get(entry.parent, 0) + 1
    assert below == {
        "": 7,
        "TREAT": 5,
        "ETREAT": 2,
        "HPAYMT": 5,
        "COVERAGE": 4,
        "HOPERAT": 23,
        "HSYSADMIN": 2,
        "SYSDEV": 1,
        "HRESCH": 5,
        "CLINTRCH": 3,
        "PUBHLTH": 2,
        "PATRQT": 3,
    }


def test_conditions_are_duos_modifiers() -> None:
    """All 18 of them but clinical care use, which widens and is a purpose here."""
    numbers = {entry.standard for entry in CONDITIONS.values()} | {PURPOSES["CC"].standard}
    assert numbers == {f"DUO:00000{n}" for n in (12, 15, 16, 18, 19, 20, 21, 22, *range(24, 30), *range(43, 47))}
    for code, entry in CONDITIONS.items():
        assert entry.code == code and code not in PURPOSES
        assert entry.title() != entry.title("zh")


def test_covering_and_covered_are_one_relation() -> None:
    for granted in PURPOSES:
        assert granted in covering(granted)
        for asked in PURPOSES:
            assert covers(granted, asked) == (granted in covering(asked)) == (asked in covered(granted))
    assert covering("NOPE") == frozenset() and covered("NOPE") == ()
