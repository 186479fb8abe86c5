"""Errors that travel between gateways: the same on the other side, and nothing that a hostile gateway invents."""

from __future__ import annotations

from typing import Any

import pytest

from medveil.network.answers import Told, ToldFact, read_answer, tell, told, write_answer
from medveil.network.ledger_door import Done, Number
from wire.canonical import encode
from wire.errors import (
    BudgetExhausted,
    DecodeError,
    MedveilError,
    ProtocolAbort,
    Refused,
    Unavailable,
    VerificationError,
)


@pytest.mark.parametrize(
    "error",
    [
        Refused("grants.unknown", grant="g"),
        BudgetExhausted("datasets.budget_exhausted", population="heart", asked=7, available=3),
        VerificationError("ledger.block_height", height=4, expected=5),
        ProtocolAbort("gateway.query_closed", round="survivors", parties=("a", "b"), query="00"),
        Unavailable("ledger.busy", retry_after=3, organisation="insurer"),
    ],
    ids=lambda error: error.code,
)
def test_an_error_arrives_as_it_left(error: MedveilError) -> None:
    with pytest.raises(type(error)) as caught:
        read_answer(write_answer(error), Done, "bureau")
    arrived: Any = caught.value
    assert (arrived.code, arrived.facts, arrived.text("zh")) == (error.code, error.facts, error.text("zh"))
    if isinstance(error, Unavailable):
        assert arrived.retry_after == error.retry_after
    if isinstance(error, ProtocolAbort):
        assert (arrived.round, arrived.parties) == (error.round, error.parties)


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("ledger.storage", path="/srv/medveil/ledger.sqlite"),
        Unavailable("database.busy", place="/srv/medveil/gateway.sqlite", retry_after=1),
        Unavailable("database.unreachable", place="/srv.within:5432/medveil"),
        DecodeError("database.damaged", place="/srv/medveil/gateway.sqlite"),
    ],
    ids=lambda error: error.code,
)
def test_places_of_this_machine_do_not_leave_it(error: MedveilError) -> None:
    said = tell(error)
    assert said.code == "network.trouble" and "/srv" not in repr(said)


@pytest.mark.parametrize(
    "said",
    [
        Told("Refused", "no.such_code", (), 0),
        Told("SystemExit", "grants.unknown", (), 0),
        Told("MedveilError", "grants.unknown", (), 0),
        Told("Refused", "grants.unknown", (ToldFact("grant", "1e9", True),), 0),
        Told("Refused", "grants.unknown", (ToldFact("code", "x", False), ToldFact("self", "x", False)), 0),
    ],
    ids=range(5),
)
def test_what_nobody_says(said: Told) -> None:
    error = told(said, "bureau")
    assert isinstance(error, Unavailable) and error.code == "network.bad_answer"


def test_text_of_others_reaches_no_terminal_raw() -> None:
    error = told(Told("Refused", "grants.unknown", (ToldFact("grant", "\x1b[2K", False),), 0), "bureau")
    assert error.text().isprintable()


@pytest.mark.parametrize("data", [b"", b"<html>", encode(Number(1)), encode(Done()) + b"\x00"])
def test_answers_of_another_kind(data: bytes) -> None:
    with pytest.raises(Unavailable) as caught:
        read_answer(data, Done, "bureau")
    assert caught.value.code == "network.bad_answer"
