"""What patients do not want is left out, of all uses it reaches and of no other."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.grants.opt_outs import (
    ALL,
    MOST_OF_ONE,
    NO_END,
    OptOut,
    OptOutRegister,
    OptOutState,
    PersonScopes,
    check_opt_out,
    matching,
    note_of,
    opt_outs_in,
    withdrawn,
)
from wire.errors import DecodeError, MedveilError, Refused

WANG, LI = b"w" * 16, b"l" * 16


def test_a_note_says_what_was_put_in() -> None:
    said = (OptOut("all", "", 5), OptOut("purpose", "HRESCH", 5, 9), OptOut("recipient", "insurer-1", 0))
    note = note_of((*said, said[0]))
    assert opt_outs_in(note) == said
    assert "insurer" not in repr(opt_outs_in) + repr(OptOutRegister([(WANG, note)]))


@pytest.mark.parametrize(
    "wrong",
    [
        OptOut("all", "x", 0),
        OptOut("purpose", "", 0),
        OptOut("purpose", "NOPE", 0),
        OptOut("recipient", "Not A Name", 0),
        OptOut("use", "stroll", 0),
        OptOut("use", "query", 5, 5),
    ],
)
def test_what_is_no_opt_out_is_refused(wrong: OptOut) -> None:
    with pytest.raises(MedveilError):
        check_opt_out(wrong)
    with pytest.raises(MedveilError):
        note_of([wrong])


def test_a_person_has_so_many() -> None:
    with pytest.raises(Refused) as refused:
        note_of(OptOut("use", "query", number) for number in range(MOST_OF_ONE + 1))
    assert refused.value.code == "privacy.opt_outs_many"


@given(st.data())
def test_a_changed_note_is_never_fewer_opt_outs(data: st.DataObject) -> None:
    """A note comes out of a sealed vault; whatever is wrong with one is said, and nobody is left in for it."""
    note = note_of([OptOut("all", "", 5), OptOut("recipient", "insurer-1", 0)])
    at = data.draw(st.integers(0, len(note) - 1))
    changed = note[:at] + bytes([note[at] ^ data.draw(st.integers(1, 255))]) + note[at + 1 :]
    try:
        register = OptOutRegister([(WANG, changed)])
    except MedveilError:
        return
    assert sum(len(one) for one in register.opt_outs.values()) == 2


def test_broken_notes_stop_everything() -> None:
    with pytest.raises(DecodeError):
        OptOutRegister([(WANG, b""), (LI, note_of([OptOut("all", "", 0)]))])


SCOPES = ("all", "purpose:HRESCH", "purpose:DS", "recipient:university", "use:extract", "purpose:HMARKT")


@pytest.mark.parametrize(
    ("asked", "recipient", "kind", "basis", "reached"),
    [
        ("DS", "university", "query", "consent", ("all", "purpose:DS", "purpose:HRESCH", "recipient:university")),
        ("HRESCH", "university", "query", "consent", ("all", "purpose:HRESCH", "recipient:university")),
        ("HRESCH", "insurer", "extract", "contract", ("all", "purpose:HRESCH", "use:extract")),
        ("HMARKT", "insurer", "query", "separate-consent", ("all", "purpose:HMARKT")),
        ("ELIGVER", "university", "proof", "consent", ("recipient:university",)),
        ("TREAT", "insurer", "extract", "consent", ("use:extract",)),
        ("FRAUD", "insurer", "score", "contract", ("all",)),
        ("FRAUD", "insurer", "score", "statutory-duty", ()),
        ("PUBHLTH", "university", "extract", "public-health-emergency", ()),
        ("PUBHLTH", "bureau", "query", "public-record", ("all",)),
        ("unknown", "bureau", "query", "consent", ("all",)),
    ],
)
def test_which_scopes_reach_a_use(asked: str, recipient: str, kind: str, basis: str, reached: tuple[str, ...]) -> None:
    for order in itertools.islice(itertools.permutations(SCOPES), 5):
        assert matching(order, asked, recipient, kind, basis) == tuple(sorted(reached))


def test_the_register_knows_who_is_behind_a_scope_and_when() -> None:
    register = OptOutRegister(
        [
            (WANG, note_of([OptOut("all", "", 10), OptOut("recipient", "insurer-1", 0, 5)])),
            (LI, note_of([OptOut("recipient", "insurer-1", 3)])),
        ]
    )
    assert register.state(4) == OptOutState(("recipient:insurer-1",))
    assert register.persons(["recipient:insurer-1"], 4) == {WANG, LI}
    assert register.persons(["recipient:insurer-1"], 5) == {LI}
    assert register.persons([ALL], 9) == frozenset()
    assert register.persons([ALL, "recipient:insurer-1", "use:view"], 10) == {WANG, LI}
    assert register.state(10, [WANG, b"n" * 16]) == OptOutState(
        ("all", "recipient:insurer-1"), (PersonScopes(WANG, ("all",)), PersonScopes(b"n" * 16, ()))
    )
    assert register.scopes_of(LI, NO_END - 1) == ("recipient:insurer-1",)


def test_withdrawing_ends_it_and_keeps_what_was() -> None:
    said = (OptOut("all", "", 5), OptOut("all", "", 90), OptOut("use", "query", 5))
    left = withdrawn(said, "all", 50)
    assert left == (OptOut("all", "", 5, 50), OptOut("use", "query", 5))
    assert withdrawn(left, "all", 60) == withdrawn(left, "all", 50) == left
    assert withdrawn((OptOut("all", "", 50),), "all", 50) == (), "it stood at no instant"
    assert withdrawn((OptOut("all", "", 49),), "all", 50) == (OptOut("all", "", 49, 50),)


@pytest.mark.parametrize(
    ("refused", "asked", "reached"),
    [
        ("DS", "DSRCH", True),  # GA4GH's and HL7's code of disease-specific research
        ("DSRCH", "DS", True),
        ("POA", "POARCH", True),
        ("POARCH", "POA", True),
        ("DS", "POARCH", False),
        ("DSRCH", "HRESCH", False),  # a wider purpose is not it
        ("HRESCH", "DS", True),
    ],
)
def test_a_purpose_is_refused_by_whichever_name_it_has(refused: str, asked: str, reached: bool) -> None:
    found = matching([f"purpose:{refused}"], asked, "university", "query", "consent")
    assert found == ((f"purpose:{refused}",) if reached else ())


def test_several_notes_of_one_person_count_together() -> None:
    notes = [(WANG, note_of([OptOut("all", "", 5)])), (WANG, note_of([OptOut("use", "query", 0)]))]
    register = OptOutRegister(notes)
    assert register.scopes_of(WANG, 5) == ("all", "use:query") and register.persons([ALL], 5) == {WANG}
    assert list(register.opt_outs) == [WANG]
