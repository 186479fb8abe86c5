"""What the ledger proves through the client: votes, receipts, changes of members; and gateways that lie about them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service.staffed import KEY
from service.working import Consorted, applicant

from ledger.contracts.datasets import VoteBudget
from ledger.contracts.organisations import VoteAdmission
from ledger.machine import BlockHeader, Result
from ledger.receipts import Receipt
from medveil.client import Client, Program, Session
from medveil.service.home.cards import fingerprint, make_card
from wire.canonical import decode, encode
from wire.checkpoint import read_trust, write_trust
from wire.errors import DecodeError, MedveilError, QuorumNotMet, Refused, VerificationError

from .wayward import Wayward

SITES = ("hospital-1", "hospital-2", "hospital-3")


@pytest.fixture(scope="module")
def consorted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consorted]:
    with Consorted(tmp_path_factory.mktemp("consortium")) as consorted:
        yield consorted


@pytest.fixture(scope="module")
def hospital(consorted: Consorted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with consorted.service("hospital-1", tmp_path_factory.mktemp("service")) as service:
        consorted.service_of_hospital = service  # type: ignore[attr-defined]
        trust = consorted.trust
        with officer(service, trust) as first:
            first.populations.register("stays", unit="row", owners=SITES)
        service.founding = trust
        yield service


def officer(service: Any, trust: Any = None, address: str = "", **more: Any) -> Client:
    who = Session(service.session("officer"))
    return Client(address or service.address, who, trust=trust, clock=service.clock, **more)


def proven_by(receipt: Receipt) -> tuple[bytes, Result, BlockHeader]:
    """What a receipt says. Two of one envelope may rest on heads of other sizes, or with more cosignatures."""
    return receipt.envelope, receipt.result, receipt.block


def test_a_vote_is_believed_by_its_receipt(consorted: Consorted, hospital: Any) -> None:
    with officer(hospital, hospital.founding) as client:
        written = client.populations.vote("stays", 5)
        assert written.receipt.result.accepted and written.height == written.receipt.block.height
        assert written.envelope == written.receipt.result.envelope.hex()
        (population,) = [one for one in client.populations.list().populations if one.population == "stays"]
        assert [str(vote) for vote in population.votes] == ["hospital-1: 5"] and population.owner
        frame = client.populations.list().to_pandas()
        assert frame["budget.voted"].tolist() == [0] and frame["owners"].tolist() == [", ".join(SITES)]
        listed = client.receipts.list().entries
        assert written.envelope in [entry.envelope for entry in listed]
        assert proven_by(client.receipts.get(written.envelope)) == proven_by(written.receipt)
        with pytest.raises(Refused) as refused:
            client.populations.vote("nobodys", 5)
        assert refused.value.code == "datasets.unknown_population"


def test_a_program_may_write_what_its_scopes_say(hospital: Any) -> None:
    secret, _ = hospital.token("officer", ["populations.register", "datasets.read"])
    with Client(hospital.address, Program(secret, KEY), trust=hospital.founding, clock=hospital.clock) as program:
        assert program.populations.register("second", unit="person", owners=SITES, rows_per_person=3).height
        with pytest.raises(Refused) as refused:
            program.members.leave()
        assert refused.value.code == "rights.not_in_scope"


def test_without_a_trust_file_nothing_is_asked(hospital: Any) -> None:
    with Wayward(hospital.running.port, lambda *_: "pass") as network:
        with officer(hospital, None, network.address) as client:
            for write in (
                lambda: client.populations.vote("stays", 7),
                lambda: client.receipts.get("00" * 32),
                lambda: client.queries.release("00" * 16),
                lambda: client.members.leave(),
            ):
                with pytest.raises(Refused) as refused:
                    write()
                assert refused.value.code == "client.no_trust"
        assert network.seen == []


Lie = Callable[[dict[str, Any]], dict[str, Any]]


def flipped(at: int) -> Lie:
    """One bit of the receipt is another."""

    def change(said: dict[str, Any]) -> dict[str, Any]:
        data = bytearray(base64.b64decode(said["receipt"]))
        data[len(data) * at // 12] ^= 4
        return said | {"receipt": base64.b64encode(data).decode()}

    return change


LIES: list[Lie] = [
    *(flipped(at) for at in range(12)),
    lambda said: said | {"height": said["height"] + 1},
    lambda said: said | {"envelope": "00" * 32},
    lambda said: said | {"receipt": said["receipt"][:-4]},
    lambda said: said | {"receipt": "not base64"},
    lambda said: {"envelope": said["envelope"]},
]


@pytest.mark.parametrize("lie", LIES)
def test_a_receipt_that_does_not_hold_is_never_returned(hospital: Any, lie: Lie) -> None:
    def rule(_number: int, request: bytes) -> Any:
        return (lambda body: json.dumps(lie(json.loads(body))).encode()) if b"POST" in request[:5] else "pass"

    with (
        Wayward(hospital.running.port, rule) as network,
        officer(hospital, hospital.founding, network.address) as client,
        pytest.raises((VerificationError, DecodeError, QuorumNotMet)),
    ):
        client.populations.vote("stays", 9)


def test_a_receipt_of_something_else_is_not_what_was_asked(consorted: Consorted, hospital: Any) -> None:
    """It holds, and is on the ledger: of another vote, of another envelope, of one that was refused."""
    account = consorted.consortium["hospital-1"].account
    refused = [receipt for receipt in account.receipts if not receipt.result.accepted]
    consorted.do(account.submit(VoteBudget("stays", 50)))
    other = account.receipts[-1]
    assert refused
    for receipt, part in ((other, "ops"), (refused[0], "result")):
        said = {
            "envelope": receipt.result.envelope.hex(),
            "height": receipt.block.height,
            "receipt": base64.b64encode(encode(receipt)).decode(),
        }
        with (
            Wayward(hospital.running.port, lambda *_, said=said: lambda _: json.dumps(said).encode()) as network,
            officer(hospital, hospital.founding, network.address) as client,
        ):
            with pytest.raises(VerificationError) as wrong:
                client.populations.vote("stays", 5)
            assert wrong.value.facts["part"] == part
    with (
        Wayward(hospital.running.port, lambda *_: lambda _: encode(other)) as network,
        officer(hospital, hospital.founding, network.address) as client,
    ):
        assert proven_by(client.receipts.get(other.result.envelope.hex())) == proven_by(other)
        with pytest.raises(VerificationError) as wrong:
            client.receipts.get(refused[0].result.envelope.hex())
        assert wrong.value.facts["part"] == "envelope"


def test_a_receipt_of_another_organisation_is_not_what_was_asked(consorted: Consorted, hospital: Any) -> None:
    """The same words, final and proven, but another owner's vote: the gateway wrote nothing."""
    neighbour = consorted.consortium["hospital-2"].account
    consorted.do(neighbour.submit(VoteBudget("stays", 6)))
    other = neighbour.receipts[-1]
    said = {
        "envelope": other.result.envelope.hex(),
        "height": other.block.height,
        "receipt": base64.b64encode(encode(other)).decode(),
    }

    def rule(_number: int, request: bytes) -> Any:
        return "pass" if b" /v1/organisation " in request else lambda _: json.dumps(said).encode()

    with Wayward(hospital.running.port, rule) as network:
        with officer(hospital, hospital.founding, network.address) as client:
            assert client.populations.vote("stays", 6).organisation == "hospital-2"  # it says whose it is
        with officer(hospital, hospital.founding, network.address, organisation="hospital-1") as client:
            with pytest.raises(VerificationError) as wrong:
                client.populations.vote("stays", 6)
            assert wrong.value.facts["part"] == "organisation"
    with officer(hospital, hospital.founding, organisation="hospital-1") as client:
        assert client.populations.vote("stays", 6).organisation == "hospital-1"


def test_a_trust_file_of_another_consortium(hospital: Any, tmp_path: Path) -> None:
    with (
        Consorted(tmp_path / "other") as other,
        officer(hospital, other.trust) as client,
        pytest.raises(VerificationError),
    ):
        client.populations.vote("stays", 5)


def test_an_applicant_is_looked_at_here_first(consorted: Consorted, hospital: Any, tmp_path: Path) -> None:
    with applicant(tmp_path / "maker", "maker-1", ("maker",)) as maker:
        card = encode(make_card(maker.member(False), hospital.founding.genesis_hash, maker.keys.first.signers))
        foreign = encode(make_card(maker.member(False), bytes(32), maker.keys.first.signers))
        said = fingerprint(make_card(maker.member(False), hospital.founding.genesis_hash, maker.keys.first.signers))
    with (
        Wayward(hospital.running.port, lambda *_: "pass") as network,
        officer(hospital, hospital.founding, network.address) as client,
    ):
        for given, words, code in (
            (card, said[:-1] + ("0" if said[-1] != "0" else "1"), "cards.other_fingerprint"),
            (foreign, said, "cards.other_chain"),
            (b"junk", said, "wire.not_evidence"),
        ):
            with pytest.raises(MedveilError) as wrong:
                client.members.admit(given, words)
            assert wrong.value.code == code
        assert network.seen == []
        (tmp_path / "card.evidence").write_bytes(card)
        client.members.admit(tmp_path / "card.evidence", said.upper())


@pytest.fixture
def grown(consorted: Consorted, hospital: Any, tmp_path: Path) -> Any:
    """The consortium has one member more than the founding trust file says."""
    name = f"branch-{tmp_path.name.strip('_')}".replace("_", "-").lower()
    with applicant(tmp_path / "branch", name, ("branch",)) as branch:
        card = make_card(branch.member(False), hospital.founding.genesis_hash, branch.keys.first.signers)
    members = consorted.consortium.organisations
    for one in members.values():
        if one.trust.latest.find(name) is None:
            try:
                consorted.do(one.submit(VoteAdmission(card.application)))
            except Refused:
                break
    account = consorted.consortium["hospital-1"].account
    consorted.do(account.submit(VoteBudget("stays", 3)))
    consorted.do(account.submit(VoteBudget("stays", 4)))
    assert account.trust.latest.find(name) is not None
    return name


def test_changes_of_members_are_followed_as_far_as_they_are_proven(hospital: Any, grown: str, tmp_path: Path) -> None:
    file = tmp_path / "consortium.json"
    write_trust(file, hospital.founding)
    with officer(hospital, file) as client:
        assert grown in [member.organisation for member in client.members.list().members]
        assert client.trust.latest.find(grown) is None
        trust = client.members.trust()
        assert trust.latest.find(grown) is not None and client.trust == trust
        client.populations.vote("stays", 6)
        assert read_trust(file) == hospital.founding  # the caller's file is the caller's
    with Client(
        hospital.address, Session(hospital.session("officer")), trust=file, keep_trust=True, clock=hospital.clock
    ) as client:
        client.members.trust()
    assert read_trust(file).latest.find(grown) is not None


def test_a_change_that_is_not_proven_is_not_believed(hospital: Any, grown: str) -> None:
    """A gateway that changes a bit of a handover, sends another value as one, or says that there are none."""

    def changed(how: Callable[[list[str]], list[str]]) -> Any:
        def rule(_number: int, request: bytes) -> Any:
            if b"/v1/members/handovers" not in request:
                return "pass"
            return lambda body: json.dumps({"handovers": how(json.loads(body)["handovers"])}).encode()

        return rule

    def flip(handovers: list[str]) -> list[str]:
        data = bytearray(base64.b64decode(handovers[0]))
        data[len(data) // 2] ^= 1
        return [base64.b64encode(data).decode(), *handovers[1:]]

    for how in (flip, lambda handovers: handovers[1:] + handovers[:1] if len(handovers) > 1 else ["AAAA"]):
        with (
            Wayward(hospital.running.port, changed(how)) as network,
            officer(hospital, hospital.founding, network.address) as client,
        ):
            with pytest.raises((VerificationError, DecodeError, QuorumNotMet)):
                client.members.trust()
            assert client.trust == hospital.founding
    with (
        Wayward(hospital.running.port, changed(lambda _: [])) as network,
        officer(hospital, hospital.founding, network.address) as client,
    ):
        assert client.members.trust() == hospital.founding


def test_history(hospital: Any) -> None:
    with officer(hospital, hospital.founding) as client:
        head = client.ledger.head()
        page = client.ledger.entries(kind="datasets.vote_budget", organisation="hospital-1", limit=2)
        assert len(page.entries) == 2 and page.after
        following = client.ledger.entries(kind="datasets.vote_budget", after=page.after, until=head.time + 1)
        assert {entry.place for entry in following.entries}.isdisjoint({entry.place for entry in page.entries})
        frame = page.to_pandas()
        assert frame["organisation"].tolist() == ["hospital-1"] * 2 and str(frame["time"].dt.tz) == "UTC"


def test_every_receipt_of_the_organisation_holds(consorted: Consorted, hospital: Any) -> None:
    """All of what was written here, whoever were members then, by one founding trust file that grows."""
    with officer(hospital, hospital.founding) as client:
        for entry in client.receipts.list(limit=1000).entries:
            receipt = client.receipts.get(entry.envelope)
            assert decode(Receipt, encode(receipt)) == receipt and receipt.result.accepted == entry.accepted


def test_new_keys_of_the_gateway_itself_are_followed(consorted: Consorted, hospital: Any) -> None:
    """After a rotation its envelopes are signed by keys that the pinned file does not know, until it follows."""
    with Client(
        hospital.address, Session(hospital.session("admin")), trust=hospital.founding, clock=hospital.clock
    ) as admin:
        before = admin.ledger.head().height
        assert before < admin.members.rotate(notice=2).block <= before + 6
    account = consorted.consortium["hospital-1"].account
    before = hospital.founding.member("hospital-1").keys.envelope
    with officer(hospital, hospital.founding) as client:
        for number in range(6):
            written = client.populations.vote("stays", 100 + number)
        assert account.trust.member("hospital-1").keys.envelope != before
        assert client.trust.member("hospital-1").keys == account.trust.member("hospital-1").keys
        assert written.receipt.result.sender == "hospital-1"
    with officer(hospital, hospital.founding) as client:
        assert proven_by(client.receipts.get(written.envelope)) == proven_by(written.receipt)
