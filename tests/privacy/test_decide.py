"""The one gate: what a grant says is allowed, everything else is denied in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import decide as gate
from privacy.decide import (
    RULES,
    AnchoredGrant,
    Decision,
    GrantBook,
    GrantState,
    StateBook,
    UseRequest,
    decide,
    require,
)
from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.opt_outs import OptOutState, PersonScopes
from privacy.grants.terms import DAY, CheckedGrant, GrantTerms, check_grant, plain_terms, records_until, sign_grant
from privacy.masking.masks import Mask
from privacy.predicate import Compare, IsNull
from wire import messages
from wire.errors import ConsentDenied, VerificationError
from wire.signing import Signer

Issue = Callable[..., tuple[CheckedGrant, GrantState]]
NOW, EXPIRES = 2_000_000, 3_000_000


def test_a_covered_use_is_allowed(terms: GrantTerms, request_: UseRequest, issue: Issue) -> None:
    grant, state = issue(terms)
    decision = require(decide(request_, [grant], state, NOW))
    assert (decision.allowed, decision.rule, decision.grant, decision.missing) == (True, "granted", "grant-1", "")
    assert decision.rows == terms.predicate
    assert "grant-1" in decision.text()
    assert "grant-1" in decision.text("zh")


# Every field of the terms, changed after signing: the signature no longer covers it.
CHANGES: dict[str, Any] = {
    "version": 3,
    "grant": "grant-2",
    "issuer": "hospital-2",
    "recipient": "insurer",
    "recipient_contact": "someone else",
    "dataset": "claims-2",
    "fields": ("visits", "health", "plan", "income"),
    "predicate": None,
    "purposes": ("HRESCH", "HMARKT"),
    "conditions": ("NCU",),
    "uses": ("query", "extract"),
    "commercial": True,
    "legal_basis": "statutory-duty",
    "consent_ref": "",
    "guardian_ref": "guardians/1",
    "pia_ref": "",
    "jurisdiction": "US",
    "transfer_ref": "contract/1",
    "level_ceiling": 5,
    "class_ceiling": "core",
    "masks": (Mask("health", "keep"),),
    "min_group": 1,
    "keep_days": 366,
    "not_before": 0,
    "review": EXPIRES - 1,
    "expires": 2**60,
    "delete_by": 2**60,
    "records_until": 2**60,
    "epoch": 1,
}


def test_the_changes_name_every_field() -> None:
    assert CHANGES.keys() == set(GrantTerms.__struct_fields__)


@pytest.mark.parametrize("field", CHANGES)
def test_no_changed_field_survives_the_signature(
    field: str, terms: GrantTerms, signer: Signer, salt_key: bytes
) -> None:
    signed = sign_grant(terms, signer, salt_key)
    changed = msgspec.structs.replace(signed, terms=msgspec.structs.replace(terms, **{field: CHANGES[field]}))
    with pytest.raises(VerificationError):
        check_grant(changed, signer.key)


@pytest.mark.parametrize("field", CHANGES)
def test_no_changed_field_survives_the_ledger(
    field: str, terms: GrantTerms, request_: UseRequest, issue: Issue
) -> None:
    """Even with a signature (a colluding issuer), terms other than the anchored ones give nothing."""
    grant, state = issue(terms)
    changed = msgspec.structs.replace(terms, **{field: CHANGES[field]})
    try:
        other, _ = issue(changed)
    except Exception:
        other = CheckedGrant(changed, grant.commitment[::-1])
    assert not decide(request_, [other], state, NOW).allowed


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"recipient": "insurer"}, "no-grant"),
        ({"holder": "hospital-2"}, "no-grant"),
        ({"dataset": "claims-2"}, "no-grant"),
        ({"fields": ("visits", "income")}, "fields"),
        ({"fields": (), "predicate": None}, "fields"),
        ({"predicate": IsNull("income")}, "fields"),
        ({"kind": "extract"}, "use-kind"),
        ({"kind": "stroll"}, "known-use"),
        ({"purpose": "HMARKT"}, "purpose"),
        ({"purpose": "FRAUD"}, "purpose"),
        ({"purpose": "anything"}, "known-use"),
        ({"commercial": True}, "commercial"),
        ({"jurisdiction": "US"}, "jurisdiction"),
        ({"fields": None}, "error"),
        ({"fields": (["visits"],)}, "error"),
        ({"purpose": ["HRESCH"]}, "error"),
    ],
)
def test_a_use_beyond_the_grant_is_denied(
    change: dict[str, Any], rule: str, terms: GrantTerms, request_: UseRequest, issue: Issue
) -> None:
    grant, state = issue(terms)
    decision = decide(msgspec.structs.replace(request_, **change), [grant], state, NOW)
    assert (decision.allowed, decision.rule) == (False, rule)
    assert decision.missing
    with pytest.raises(ConsentDenied) as raised:
        require(decision)
    assert raised.value.facts["rule"] == rule


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"revoked": True}, "revocation"),
        ({"epoch": 1}, "revocation"),
        ({"commitment": bytes(32)}, "anchor"),
        ({"issuer": "hospital-2"}, "anchor"),
        ({"not_before": 0}, "anchor"),
        ({"expires": 2**60}, "anchor"),
        ({"grant": "grant-2"}, "anchor"),
        ({"epoch": None}, "revocation"),
    ],
)
def test_the_ledger_must_stand_behind_the_grant(
    change: dict[str, Any], rule: str, terms: GrantTerms, request_: UseRequest, issue: Issue
) -> None:
    grant, state = issue(terms, **change)
    assert decide(request_, [grant], state, NOW).rule == rule


def test_two_ledger_entries_of_one_grant_are_none(terms: GrantTerms, request_: UseRequest, issue: Issue) -> None:
    grant, state = issue(terms)
    doubled = GrantState(state.anchored * 2)
    assert decide(request_, [grant], doubled, NOW).rule == "anchor"


@pytest.mark.parametrize(
    ("at", "allowed"), [(999_999, False), (1_000_000, True), (EXPIRES - 1, True), (EXPIRES, False), (-(2**63), False)]
)
def test_the_period_is_half_open(at: int, allowed: bool, terms: GrantTerms, request_: UseRequest, issue: Issue) -> None:
    grant, state = issue(terms)
    decision = decide(request_, [grant], state, at)
    assert decision.allowed is allowed
    if not allowed:
        assert decision.rule == "period"
        assert "1970-01-01" in decision.text()


@pytest.mark.parametrize(
    ("change", "asked", "rule"),
    [
        ({"legal_basis": "consent", "consent_ref": ""}, {}, "legal-basis"),
        ({"legal_basis": "separate-consent", "consent_ref": ""}, {}, "legal-basis"),
        ({"legal_basis": "statutory-duty", "consent_ref": ""}, {}, "granted"),
        ({"pia_ref": ""}, {}, "impact-assessment"),
        ({"commercial": True}, {"commercial": True}, "commercial"),
        ({"commercial": True, "legal_basis": "separate-consent"}, {"commercial": True}, "granted"),
        ({"purposes": ("HMARKT",)}, {"purpose": "HMARKT"}, "commercial"),
        ({"jurisdiction": "US"}, {"jurisdiction": "US"}, "jurisdiction"),
        ({"jurisdiction": "US", "transfer_ref": "contract/1"}, {"jurisdiction": "US"}, "granted"),
        ({"jurisdiction": "US", "transfer_ref": "contract/1"}, {"jurisdiction": "CN"}, "jurisdiction"),
        ({"purposes": ("GRU",)}, {"purpose": "HRESCH"}, "purpose"),
        ({"purposes": ("GRU",)}, {"purpose": "DS"}, "granted"),
        ({"purposes": ("EVERYTHING",)}, {}, "purpose"),
    ],
)
def test_the_law_on_top_of_the_grant(
    change: dict[str, Any], asked: dict[str, Any], rule: str, terms: GrantTerms, request_: UseRequest, issue: Issue
) -> None:
    grant, state = issue(msgspec.structs.replace(terms, **change))
    assert decide(msgspec.structs.replace(request_, **asked), [grant], state, NOW).rule == rule


def _within(request: UseRequest, terms: GrantTerms, at: int, facts: DatasetFacts | None, opted_out: bool) -> bool:
    """An independent reading of what the terms permit, for the values drawn below."""
    classified = {} if facts is None else {column.name: column.level for column in facts.columns}
    used = set(request.fields) | ({"plan"} if request.predicate else set())
    level = max((classified.get(name, 5) if classified else 4 for name in used), default=0)
    if facts is not None and facts.minors and terms.legal_basis != "statutory-duty" and not terms.guardian_ref:
        return False
    if facts is not None and facts.statutory_class == "important" and terms.class_ceiling == "general":
        return False
    known = {"HRESCH": {"HRESCH"}, "DS": {"DS", "HMB", "GRU", "HRESCH"}, "HMARKT": {"HMARKT"}, "XX": set()}
    commercial = request.commercial or request.purpose == "HMARKT"
    return (
        (terms.issuer, terms.recipient, terms.dataset) == (request.holder, request.recipient, request.dataset)
        and terms.not_before <= at < terms.review <= terms.expires <= terms.delete_by
        and terms.records_until >= at + 1096 * DAY
        and level <= terms.level_ceiling
        and not (commercial and terms.conditions == ("NCU",))
        and (not opted_out or terms.legal_basis == "statutory-duty")
        and request.kind in terms.uses
        and bool(known[request.purpose] & set(terms.purposes))
        and bool(used)
        and used <= set(terms.fields)
        and (terms.consent_ref != "" or terms.legal_basis == "statutory-duty")
        and terms.pia_ref != ""
        and (not commercial or (terms.commercial and terms.legal_basis == "separate-consent"))
        and request.jurisdiction == terms.jurisdiction
        and (terms.jurisdiction == "CN" or terms.transfer_ref != "")
    )


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_combination_is_allowed_without_authority(data: st.DataObject) -> None:
    """Several fields of grant, request and ledger changed at once, judged against an independent reading."""
    pick = data.draw
    terms = plain_terms(
        grant="grant-1",
        issuer=pick(st.sampled_from(["hospital-1"] * 9 + ["hospital-2"])),
        recipient=pick(st.sampled_from(["university"] * 9 + ["insurer"])),
        dataset=pick(st.sampled_from(["claims-1"] * 9 + ["claims-2"])),
        fields=pick(st.sampled_from([("visits", "plan"), ("visits", "plan", "health"), ("visits",)])),
        purposes=pick(st.sampled_from([("HRESCH",), ("GRU", "HMARKT"), ("HRESCH", "HMARKT"), ("DS",)])),
        conditions=pick(st.sampled_from([(), (), ("PUB",), ("NCU",)])),
        uses=pick(st.sampled_from([("query",), ("query", "score"), ("score",)])),
        commercial=pick(st.booleans()),
        legal_basis=pick(st.sampled_from(["consent", "separate-consent", "statutory-duty"])),
        consent_ref=pick(st.sampled_from(["filed", "filed", "filed", ""])),
        guardian_ref=pick(st.sampled_from(["", "filed"])),
        pia_ref=pick(st.sampled_from(["filed", "filed", "filed", ""])),
        jurisdiction=pick(st.sampled_from(["CN", "CN", "CN", "US"])),
        transfer_ref=pick(st.sampled_from(["", "filed"])),
        level_ceiling=pick(st.sampled_from([4, 4, 5, 3])),
        class_ceiling=pick(st.sampled_from(["general", "important"])),
        keep_days=1,
        not_before=10,
        review=pick(st.sampled_from([20, 20, 15])),
        expires=20,
        delete_by=30,
        records_until=pick(st.sampled_from([records_until(20), records_until(20), 20])),
    )
    asked = UseRequest(
        holder="hospital-1",
        recipient="university",
        dataset="claims-1",
        fields=pick(st.sampled_from([("visits",), ("visits", "health"), ()])),
        kind=pick(st.sampled_from(["query", "query", "score"])),
        purpose=pick(st.sampled_from(["HRESCH", "DS", "DS", "HMARKT", "XX"])),
        predicate=pick(st.sampled_from([None, Compare("plan", "eq", "yes")])),
        commercial=pick(st.sampled_from([False, False, True])),
        jurisdiction=pick(st.sampled_from(["CN", "CN", "CN", "US"])),
        person=pick(st.sampled_from([b"", b"p" * 16])),
    )
    facts = pick(
        st.sampled_from(
            [
                None,
                DatasetFacts("claims-1", (ColumnFacts("visits", 3), ColumnFacts("plan", 2), ColumnFacts("health", 5))),
                DatasetFacts("claims-1", (ColumnFacts("visits", 3), ColumnFacts("plan", 2)), minors=True),
                DatasetFacts("claims-1", (ColumnFacts("visits", 3), ColumnFacts("plan", 2)), False, "", "important"),
            ]
        )
    )
    scopes = pick(st.sampled_from([(), ("purpose:HRESCH",), ("recipient:university",), ("use:extract",)]))
    reached = "recipient:university" in scopes or ("purpose:HRESCH" in scopes and asked.purpose in ("HRESCH", "DS"))
    opted_out = asked.person != b"" and reached
    at = pick(st.sampled_from([15, 15, 15, 10, 19, 20, 9]))
    revoked = pick(st.sampled_from([False, False, False, True]))
    signer = Signer(b"s" * 32)
    checked = check_grant(sign_grant(terms, signer, b"k" * 32), signer.key)
    state = GrantState(
        (AnchoredGrant("grant-1", terms.issuer, checked.commitment, 10, 20, 0, revoked),),
        datasets=() if facts is None else (facts,),
        opt_outs=OptOutState(scopes, (PersonScopes(b"p" * 16, scopes),)),
    )
    allowed = _within(asked, terms, at, facts, opted_out) and not revoked
    decision = decide(asked, [checked], state, at)
    assert decision.allowed == allowed
    assert decide(asked, GrantBook([checked]), StateBook(state), at) == decision
    if allowed and asked.person == b"" and terms.legal_basis != "statutory-duty":
        assert decision.excluded == (scopes if reached else ())


def test_several_grants_are_never_put_together(terms: GrantTerms, request_: UseRequest, issue: Issue) -> None:
    a, state_a = issue(msgspec.structs.replace(terms, grant="a", fields=("visits", "plan")))
    b, state_b = issue(msgspec.structs.replace(terms, grant="b", fields=("health", "plan"), predicate=None))
    state = GrantState(state_a.anchored + state_b.anchored)
    assert decide(request_, [a, b], state, NOW).rule == "fields"
    c, state_c = issue(msgspec.structs.replace(terms, grant="c"))
    whole = GrantState(state.anchored + state_c.anchored)
    assert decide(request_, [a, b, c], whole, NOW).grant == "c"
    assert decide(request_, [c, b, a], whole, NOW) == decide(request_, [a, b, c], whole, NOW)


def test_a_denial_names_the_closest_grant(terms: GrantTerms, request_: UseRequest, issue: Issue) -> None:
    far, state_far = issue(msgspec.structs.replace(terms, grant="a-far", uses=("score",)))
    near, state_near = issue(msgspec.structs.replace(terms, grant="z-near", fields=("visits", "plan")))
    decision = decide(request_, [far, near], GrantState(state_far.anchored + state_near.anchored), NOW)
    assert (decision.rule, decision.grant, decision.missing) == ("fields", "z-near", "health")


def test_another_partys_grant_is_not_named(terms: GrantTerms, request_: UseRequest, issue: Issue) -> None:
    grant, state = issue(msgspec.structs.replace(terms, grant="private-matter", recipient="insurer"))
    decision = decide(request_, [grant], state, NOW)
    assert decision.rule == "no-grant"
    assert "private-matter" not in decision.text()
    assert decide(request_, [], GrantState(()), NOW).rule == "no-grant"


def test_a_rule_that_errors_denies(
    terms: GrantTerms, request_: UseRequest, issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cedar skips a rule that errors and goes on to Allow."""
    grant, state = issue(terms)

    def broken(case: object) -> str:
        raise KeyError("absent")

    for position, (name, _) in enumerate(RULES):
        rules = (*RULES[:position], (name, broken), *RULES[position + 1 :])
        monkeypatch.setattr(gate, "RULES", rules)
        decision = decide(request_, [grant], state, NOW)
        assert (decision.allowed, decision.rule, decision.missing) == (False, "error", name)


@pytest.mark.parametrize("rubbish", [None, 7, "grant", object()])
def test_rubbish_in_place_of_grants_or_state_denies(
    rubbish: Any, terms: GrantTerms, request_: UseRequest, issue: Issue
) -> None:
    grant, state = issue(terms)
    assert decide(request_, [rubbish], state, NOW).rule == "error"
    assert decide(request_, rubbish, state, NOW).rule == "error"
    assert decide(request_, [grant], rubbish, NOW).rule == "error"
    assert decide(request_, [grant], state, rubbish if rubbish != 7 else "7").allowed is False  # type: ignore[arg-type]


def test_every_rule_speaks_both_languages(terms: GrantTerms, request_: UseRequest) -> None:
    for rule in [name for name, _ in RULES if name != "parties"] + ["no-grant", "error"]:
        decision = Decision(False, rule, "grant-9", "income", "university", "claims-1")
        for language in messages.LANGUAGES:
            text = decision.text(language)
            assert rule in text
            assert "grant-9" in text
            assert "income" in text
            assert "{" not in text
        assert decision.fix
        with pytest.raises(ConsentDenied) as raised:
            require(decision)
        assert raised.value.text("zh") == decision.text("zh")
        assert raised.value.fix == decision.fix


def test_require_takes_nothing_for_granted() -> None:
    for forged in (
        Decision(True, "purpose", "grant-1", "", "university", "claims-1"),
        Decision(True, "granted", "", "", "university", "claims-1"),
        Decision(False, "granted", "grant-1", "", "university", "claims-1"),
    ):
        with pytest.raises(ConsentDenied):
            require(forged)
