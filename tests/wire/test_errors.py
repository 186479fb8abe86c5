"""Errors carry a code, a sentence and a fix in two languages, and nothing private."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import errors, messages
from wire.errors import (
    BudgetExhausted,
    ConsentDenied,
    DecodeError,
    MedveilError,
    ProtocolAbort,
    QuorumNotMet,
    Refused,
    Unavailable,
    VerificationError,
)


def test_there_is_one_root_and_refusals_are_one_family() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, MedveilError) for kind in kinds)
    for refusal in (ConsentDenied, BudgetExhausted, QuorumNotMet):
        assert issubclass(refusal, Refused)
    for other in (DecodeError, VerificationError, ProtocolAbort, Unavailable):
        assert not issubclass(other, Refused)
    assert not issubclass(MedveilError, ValueError)


def test_sentence_and_fix_in_both_languages() -> None:
    error = DecodeError("wire.too_long", kind="Envelope", length=10, limit=5)
    assert error.message == "This Envelope has 10 bytes; at most 5 are read."
    assert error.fix.startswith("Check")
    assert str(error) == error.text("en") == f"{error.message} {error.fix}"
    assert "最多读取 5 字节" in error.text("zh")
    with pytest.raises(ValueError, match="no catalogue"):
        error.text("fr")


def test_repr_shows_the_code_alone() -> None:
    error = DecodeError("wire.bad_name", what="hospital")
    assert repr(error) == "DecodeError('wire.bad_name')"
    assert error.args == ("wire.bad_name",)


@pytest.mark.parametrize("fact", [b"key", 1.5, None, ["record"], {"name": 1}], ids=repr)
def test_facts_are_text_or_integers(fact: object) -> None:
    with pytest.raises(ValueError, match="must be text or an integer"):
        DecodeError("wire.bad_name", what=fact)  # type: ignore[arg-type]


def test_a_long_fact_is_cut() -> None:
    error = DecodeError("wire.bad_name", what="x" * 5000)
    assert len(str(error)) < 700


def test_a_long_list_is_cut_between_two_items() -> None:
    names = [f"right.{number}" for number in range(300)]
    some = Refused("wire.test", names=", ".join(names[:60])).facts["names"]
    assert isinstance(some, str) and len(some) > 300 and some.split(", ") == names[:60]
    many = Refused("wire.test", names=", ".join(names)).facts["names"]
    assert isinstance(many, str) and len(many) <= 2003
    *whole, last = many.split(", ")
    assert last == "..." and whole == names[: len(whole)] and len(whole) > 100


@given(st.text(max_size=50))
def test_a_fact_is_never_read_as_a_pattern(fact: str) -> None:
    error = DecodeError("wire.bad_name", what=fact)
    shown = "".join(character if character.isprintable() else "\ufffd" for character in fact)
    assert shown in error.message
    assert error.text().isprintable(), "no control character reaches a terminal"


def test_braces_in_facts_stay_braces() -> None:
    assert "{0.__class__}" in str(DecodeError("wire.bad_name", what="{0.__class__}"))


def test_an_uncatalogued_code_still_says_itself() -> None:
    error = Refused("part.nowhere", number=3)
    assert (error.message, error.fix, str(error)) == ("part.nowhere", "", "part.nowhere")


def test_a_missing_fact_leaves_the_sentence_readable() -> None:
    assert DecodeError("wire.bad_name").message.startswith("The {what} must be")


def test_an_abort_names_round_and_parties() -> None:
    abort = ProtocolAbort("part.nowhere", round="announce", parties=["hospital-1", "hospital-2"])
    assert (abort.round, abort.parties) == ("announce", ("hospital-1", "hospital-2"))
    assert abort.facts == {"round": "announce", "parties": "hospital-1, hospital-2"}
    assert ProtocolAbort("part.nowhere", round="announce").facts["parties"] == "-"


def test_unavailable_says_when_to_come_back() -> None:
    assert Unavailable("part.nowhere", retry_after=7).retry_after == 7
    assert Unavailable("part.nowhere").retry_after == 0


def test_catalogue_is_read_once_and_per_language() -> None:
    assert messages.catalogue("en") is messages.catalogue("en")
    assert messages.catalogue("en") is not messages.catalogue("zh")
