"""What an organisation's people read and write through its service, before a real consortium in this process."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.contracts.datasets import VoteBudget
from ledger.contracts.organisations import VoteAdmission
from ledger.envelope import open_envelope
from ledger.receipts import Receipt, verify_receipt
from medveil.gateway.ledger_account import FinalState
from medveil.service.home.cards import fingerprint, make_card
from wire.canonical import decode, encode
from wire.checkpoint.trust_file import parse_trust

from ..staffed import Staffed
from ..working import Consorted

SITES = ["hospital-1", "hospital-2", "hospital-3"]
POPULATION = {"population": "heart", "unit": "row", "rows_per_person": 1, "colluders": 1, "owners": SITES}


@pytest.fixture(scope="module")
def consorted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consorted]:
    with Consorted(tmp_path_factory.mktemp("consortium")) as consorted:
        yield consorted


@pytest.fixture(scope="module")
def hospital(consorted: Consorted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staffed]:
    data = tmp_path_factory.mktemp("data")
    with consorted.service("hospital-1", tmp_path_factory.mktemp("service"), data) as service:
        yield service


def ask(service: Staffed, role: str, method: str, path: str, body: Any = None) -> Any:
    """The answer of one call, which succeeds."""
    sent = None if body is None else json.dumps(body).encode()
    answer = service.send(method, path, service.session(role), body=sent)
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


def refused(service: Staffed, role: str, method: str, path: str, body: Any = None) -> Any:
    """The problem document of one call, and its status."""
    sent = None if body is None else json.dumps(body).encode()
    answer = service.send(method, path, service.session(role), body=sent)
    assert answer.status_code >= 400, answer.text
    return answer.status_code, answer.json()


def receipt_of(consorted: Consorted, written: dict[str, Any]) -> Receipt:
    """The receipt in an answer, which holds."""
    receipt = decode(Receipt, base64.b64decode(written["receipt"]))
    verify_receipt(receipt, consorted.trust)
    assert receipt.result.envelope.hex() == written["envelope"] and receipt.block.height == written["height"]
    return receipt


def test_the_members_are_those_of_the_ledger(consorted: Consorted, hospital: Staffed) -> None:
    found = ask(hospital, "auditor", "GET", "/v1/members")
    assert [one["organisation"] for one in found["members"]] == sorted(consorted.consortium.organisations)
    assert (found["chain"], found["genesis"]) == ("test-chain", consorted.trust.genesis_hash.hex())
    assert (found["k"], found["sequencer"]) == (consorted.trust.k, "bureau")
    mine = next(one for one in found["members"] if one["organisation"] == "hospital-1")
    signer = consorted.consortium["hospital-1"].signer
    assert mine["keys"]["envelope"] == signer.key.key_id().hex() and len(set(mine["keys"].values())) == 5


def test_the_trust_file_is_the_one_to_pin(consorted: Consorted, hospital: Staffed) -> None:
    answer = hospital.send("GET", "/v1/members/trust", hospital.session("clerk"))
    assert parse_trust(answer.content) == consorted.trust


def test_a_population_is_registered_voted_and_read(consorted: Consorted, hospital: Staffed) -> None:
    receipt_of(consorted, ask(hospital, "officer", "POST", "/v1/populations", POPULATION))
    (found,) = ask(hospital, "researcher", "GET", "/v1/populations")["populations"]
    assert found["owner"] and found["owners"] == SITES and found["budget"]["voted"] == 0
    written = ask(hospital, "officer", "POST", "/v1/populations/heart/votes", {"budget_nano": 10**9})
    receipt = receipt_of(consorted, written)
    assert open_envelope(receipt.envelope).envelope.ops == (VoteBudget("heart", 10**9),)
    for name in SITES[1:]:
        consorted.do(consorted.consortium[name].submit(VoteBudget("heart", 10**9)))
    consorted.do(consorted.consortium["hospital-1"].account.caught_up())
    (found,) = ask(hospital, "researcher", "GET", "/v1/populations")["populations"]
    assert found["budget"] == {"voted": 10**9, "reserved": 0, "spent": 0, "available": 10**9}
    assert {vote["owner"] for vote in found["votes"]} == set(SITES)


def test_what_a_contract_refuses_is_said_with_its_code(hospital: Staffed) -> None:
    status, problem = refused(hospital, "officer", "POST", "/v1/populations/nobodys/votes", {"budget_nano": 1})
    assert (status, problem["code"]) == (404, "datasets.unknown_population")
    status, problem = refused(hospital, "officer", "POST", "/v1/populations", POPULATION)
    assert (status, problem["code"]) == (409, "datasets.population_exists")


@pytest.mark.parametrize(("colluders", "status"), [(2, 409), (1000, 409), (1001, 422)])
def test_a_population_that_assumes_more_colluders_than_sums_withstand_is_refused(
    hospital: Staffed, colluders: int, status: int
) -> None:
    """Its terms are for good, and no query could keep to them."""
    asked = POPULATION | {"population": "wary", "colluders": colluders}
    found, problem = refused(hospital, "officer", "POST", "/v1/populations", asked)
    assert found == status
    assert status == 422 or problem["code"] == "mpc.too_many_colluders"
    names = [one["population"] for one in ask(hospital, "researcher", "GET", "/v1/populations")["populations"]]
    assert "wary" not in names


@pytest.mark.parametrize("public", ["yes", "false", 1, 0])
def test_whether_a_population_is_public_is_said_by_true_and_false_alone(hospital: Staffed, public: object) -> None:
    """Of a public one exact numbers are published: no text or number counts as its owners' yes."""
    asked = POPULATION | {"population": "perhaps", "public": public}
    status, problem = refused(hospital, "officer", "POST", "/v1/populations", asked)
    assert (status, problem["errors"]) == (422, [{"place": "body.public", "rule": "bool_type"}])


def test_half_of_a_character_is_told_in_words(hospital: Staffed) -> None:
    officer = hospital.session("officer")
    for language, said in (("en", "half of a character"), ("zh", "不完整的字符")):
        sent = b'{"person": "wang\\ud800"}'
        answer = hospital.send("POST", "/v1/opt-outs/of", officer, body=sent, language=language)
        assert answer.status_code == 422 and said in answer.json()["detail"]


def test_history_and_receipts(consorted: Consorted, hospital: Staffed) -> None:
    head = ask(hospital, "researcher", "GET", "/v1/ledger/head")
    assert head["height"] >= 4 and head["chain"] == "test-chain"
    page = ask(hospital, "auditor", "GET", "/v1/ledger/entries?limit=2")
    rest = ask(hospital, "auditor", "GET", f"/v1/ledger/entries?after={page['after']}")
    assert rest["after"] is None
    places = [one["place"] for one in page["entries"] + rest["entries"]]
    assert len(places) == len(set(places)) >= 4
    votes = ask(hospital, "auditor", "GET", "/v1/ledger/entries?kind=datasets.vote_budget&organisation=hospital-1")
    assert [one["organisation"] for one in votes["entries"]] == ["hospital-1"] * 2
    assert [one["code"] for one in votes["entries"]] == ["", "datasets.unknown_population"]
    assert ask(hospital, "auditor", "GET", f"/v1/ledger/entries?until={votes['entries'][0]['time']}")["entries"]
    own = ask(hospital, "clerk", "GET", "/v1/receipts")["entries"]
    assert {one["organisation"] for one in own} == {"hospital-1"} and len(own) == 4
    answer = hospital.send("GET", f"/v1/receipts/{own[0]['envelope']}", hospital.session("clerk"))
    assert answer.headers["content-type"] == "application/octet-stream"
    verify_receipt(decode(Receipt, answer.content), consorted.trust)
    others = next(one for one in rest["entries"] if one["organisation"] != "hospital-1")
    for envelope in (others["envelope"], "00" * 32):
        status, problem = refused(hospital, "clerk", "GET", f"/v1/receipts/{envelope}")
        assert (status, problem["code"]) == (404, "receipts.unknown")
    assert refused(hospital, "clerk", "GET", "/v1/ledger/entries?organisation=nobody")[0] == 404
    assert refused(hospital, "clerk", "GET", "/v1/ledger/entries?kind=nothing.of.it")[0] == 422


def test_an_applicant_is_voted_for_by_its_fingerprint(consorted: Consorted, hospital: Staffed, tmp_path: Path) -> None:
    from ..working import applicant

    with applicant(tmp_path / "pharmacy", "pharmacy-1", ("pharmacy",)) as pharmacy:
        card = make_card(pharmacy.member(True), consorted.trust.genesis_hash, pharmacy.keys.first.signers)
        foreign = make_card(pharmacy.member(True), bytes(32), pharmacy.keys.first.signers)
    body = {"card": base64.b64encode(encode(card)).decode(), "fingerprint": fingerprint(card).upper()}
    for wrong, code in (
        ({"fingerprint": fingerprint(foreign).replace("a", "b")}, "cards.other_fingerprint"),
        ({"card": base64.b64encode(encode(foreign)).decode()}, "cards.not_taken"),
        ({"card": "AAAA"}, "cards.not_taken"),
        ({"card": base64.b64encode(encode(card)[:-1]).decode()}, "cards.not_taken"),
    ):
        status, problem = refused(hospital, "officer", "POST", "/v1/members/admissions", body | wrong)
        assert (status, problem["code"]) == (409, code)
    receipt_of(consorted, ask(hospital, "officer", "POST", "/v1/members/admissions", body))
    status, problem = refused(hospital, "officer", "POST", "/v1/members/admissions", body)
    assert (status, problem["code"]) == (409, "organisations.voted")
    status, problem = refused(hospital, "officer", "POST", "/v1/members/removals", {"organisation": "hospital-1"})
    assert (status, problem["code"]) == (409, "organisations.own_case")
    written = ask(hospital, "officer", "POST", "/v1/members/suspensions", {"organisation": "insurer-1"})
    receipt_of(consorted, written)
    # Decided, and nobody writes: the applicant is shown as one who comes.
    members = iter(name for name in consorted.consortium.organisations if name not in ("hospital-1", "insurer-1"))
    while (found := ask(hospital, "clerk", "GET", "/v1/members"))["changes"] == []:
        consorted.do(consorted.consortium[next(members)].submit(VoteAdmission(card.application)))
        consorted.do(consorted.consortium["hospital-1"].account.caught_up())
    assert [one["about"] for one in found["votes"]] == ["suspension"]
    assert "pharmacy-1" not in [one["organisation"] for one in found["members"]]
    due = {"about": "admission", "organisation": "pharmacy-1", "block": found["height"] + 1}
    assert found["changes"] == [due]
    receipt_of(consorted, ask(hospital, "officer", "POST", "/v1/populations", POPULATION | {"population": "next"}))
    found = ask(hospital, "clerk", "GET", "/v1/members")
    assert found["changes"] == [] and "pharmacy-1" in [one["organisation"] for one in found["members"]]


def test_the_audit_trail_is_for_those_who_may_read_it(hospital: Staffed) -> None:
    """Also where it is shown as the parts that were taken in queries."""
    for path in ("/v1/audit/entries", "/v1/audit/flows", "/v1/queries/served"):
        assert refused(hospital, "researcher", "GET", path)[0] == 403
        ask(hospital, "auditor", "GET", path)


@pytest.mark.parametrize(
    ("role", "path"),
    [
        ("auditor", "/v1/members"),
        ("auditor", "/v1/populations"),
        ("auditor", "/v1/datasets"),
        ("auditor", "/v1/queries"),
        ("auditor", "/v1/queries/served"),
        ("clerk", "/v1/bills"),
        ("officer", "/v1/models"),
    ],
)
def test_the_whole_ledger_is_walked_beside_the_event_loop(
    hospital: Staffed, monkeypatch: pytest.MonkeyPatch, role: str, path: str
) -> None:
    """It takes seconds where a million keys stand, and everybody else would wait."""
    looping: list[bool] = []
    items = FinalState.items

    def walked(state: FinalState, prefix: bytes, kind: type[Any]) -> Iterator[tuple[bytes, Any]]:
        looping.append(asyncio._get_running_loop() is not None)
        return items(state, prefix, kind)

    monkeypatch.setattr(FinalState, "items", walked)
    ask(hospital, role, "GET", path)
    assert looping and not any(looping)
