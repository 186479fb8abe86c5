"""A book says what a list says, whatever is in it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.decide import AnchoredGrant, GrantBook, GrantState, StateBook, UseRequest, decide
from privacy.grants.terms import CheckedGrant, grant_commitment, plain_terms

Issue = Callable[..., tuple[CheckedGrant, GrantState]]
NOW = 15


def made(number: int, **changes: object) -> tuple[CheckedGrant, AnchoredGrant]:
    terms = plain_terms(
        f"g{number}",
        "hospital-1",
        "university",
        "claims",
        ("visits", "plan"),
        purposes=("HRESCH",),
        uses=("query",),
        legal_basis="consent",
        not_before=10,
        expires=20,
        consent_ref="filed",
        pia_ref="filed",
        delete_by=30,
    )
    terms = msgspec.structs.replace(terms, **changes)
    commitment = grant_commitment(terms, bytes(32))
    return CheckedGrant(terms, commitment), AnchoredGrant(
        terms.grant, terms.issuer, commitment, terms.not_before, terms.expires, terms.epoch, False
    )


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "issuer": st.just("hospital-2"),
        "recipient": st.just("insurer"),
        "dataset": st.just("bills"),
        "fields": st.just(("visits",)),
        "purposes": st.sampled_from([("GRU", "FRAUD"), ("NOPE",), ("DS",), ("HPAYMT", "HRESCH")]),
        "uses": st.sampled_from([("score",), ("query", "extract"), ("query", "query")]),
        "expires": st.just(12),
        "pia_ref": st.just(""),
        "review": st.just(12),
        "level_ceiling": st.sampled_from([3, 9]),
    },
)
USES = [
    UseRequest("hospital-1", "university", "claims", ("visits", "plan"), "query", purpose)
    for purpose in ("HRESCH", "DS", "FRAUD", "NOPE")
] + [
    UseRequest("hospital-1", "insurer", "claims", ("visits",), "score", "DS"),
    UseRequest("hospital-1", "nobody", "claims", ("visits",), "query", "DS"),
]


@settings(max_examples=150, deadline=None)
@given(st.lists(CHANGES, max_size=12), st.data())
def test_the_book_decides_as_the_list(changes: list[dict[str, object]], data: st.DataObject) -> None:
    grants, anchors = [], []
    for number, change in enumerate(changes):
        grant, anchor = made(data.draw(st.sampled_from([number, 0])), **change)
        grants.append(grant)
        if data.draw(st.booleans()):
            anchors.append(msgspec.structs.replace(anchor, revoked=data.draw(st.sampled_from([False, False, True]))))
    state = GrantState(tuple(anchors))
    for request in USES:
        said = decide(request, grants, state, NOW)
        assert decide(request, list(reversed(grants)), StateBook(state), NOW) == said
        assert decide(request, GrantBook(grants), state, NOW) == said
        assert decide(request, GrantBook(reversed(grants)), StateBook(state), NOW) == said


def test_a_revocation_counts_on_the_next_call() -> None:
    grant, anchor = made(1)
    book = GrantBook([grant])
    assert decide(USES[0], book, GrantState((anchor,)), NOW).allowed
    revoked = GrantState((msgspec.structs.replace(anchor, revoked=True),))
    assert decide(USES[0], book, revoked, NOW).rule == "revocation"
    assert decide(USES[0], book, StateBook(revoked), NOW).rule == "revocation"
    assert decide(USES[0], book, GrantState(()), NOW).rule == "anchor"
    assert decide(USES[0], book, GrantState((anchor, anchor)), NOW).rule == "anchor"


def test_malformed_terms_are_kept_and_allow_nothing() -> None:
    grant, anchor = made(1, fields=("visits", "plan", "plan"))
    denied = decide(USES[0], GrantBook([grant]), GrantState((anchor,)), NOW)
    assert (denied.rule, denied.missing) == ("form", "fields")


def test_rubbish_makes_no_book() -> None:
    with pytest.raises(AttributeError):
        GrantBook([None])  # type: ignore[list-item]
    assert "visits" not in repr(GrantBook([made(1)[0]]))
    assert len(GrantBook([made(1)[0], made(2)[0]])) == 2
