"""A granted purpose covers itself and what is below it, and never anything else."""

from __future__ import annotations

import re

import pytest

from privacy.purposes import PURPOSES, ancestors, covers, purpose
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
