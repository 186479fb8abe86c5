"""A bill within a limit: who may ask, what is refused, and that nothing leaves without its log entry."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from medveil.gateway import eligibility
from medveil.gateway.eligibility import ProofRequest, session_of
from medveil.gateway.organisation import Refusal
from medveil.gateway.steps import Passing
from medveil.gateway.wallets import BillSlip, HeldBill
from wire.canonical import encode
from wire.domains import BILL, PRESENTATION, digest
from wire.errors import DecodeError, MedveilError, ProtocolAbort, Refused, Unavailable, VerificationError
from wire.money import parse_amount
from wire.signing import Signer
from zkp import bill_limit
from zkp.bill_limit import Presentation

Play = Callable[[Callable[[Any], Any]], Any]


async def answered(world: Any, nonce: bytes) -> Any:
    """hospital-1's part in what the insurer asked under `nonce`."""
    hospital, session = world["hospital-1"], session_of(nonce)
    return await eligibility.answer(hospital, "insurer", session, world.wallets, Passing(), world.now)


def reason(answer: Any) -> str:
    """Why the insurer was refused."""
    assert isinstance(answer, Refused), answer
    assert answer.code == "gateway.proof_refused"
    assert "328640" not in answer.text() and "3286.40" not in answer.text()
    return str(answer.facts["reason"])


def test_within_the_limit(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        request = world.request(bill)
        answer, decision = await world.limit_checked(request)
        assert isinstance(answer, Presentation)
        assert decision.allowed
        (intent, outcome) = world.entries("hospital-1")
        assert (intent.use.kind, intent.use.recipient, intent.use.grant) == ("proof", "insurer", "proofs")
        assert intent.use.query == digest(PRESENTATION, encode(request))
        assert outcome.outcome == "released"

    play(story)


def test_over_the_limit(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        answer, _ = await world.limit_checked(world.request(bill, limit=328_639))
        assert reason(answer) == "zkp.over_limit"
        assert world.ended("hospital-1") == ["aborted"]
        answer, _ = await world.limit_checked(world.request(bill, limit=328_640))
        assert isinstance(answer, Presentation)

    play(story)


def test_without_a_grant(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        answer, decision = await world.limit_checked(world.request(bill))
        assert reason(answer) == "privacy.deny_no_grant"
        assert not decision.allowed
        assert world.ended("hospital-1") == ["denied"]

    play(story)


@pytest.mark.parametrize(
    ("granted", "request_changes", "why"),
    [
        ({}, {"grant": "another"}, "gateway.other_grant"),
        ({}, {"purpose": "FRAUD"}, "privacy.deny_purpose"),
        ({"uses": ("score",)}, {}, "privacy.deny_use_kind"),
        ({"fields": ("total",)}, {}, "privacy.deny_fields"),
        ({}, {"audience": "researcher"}, "gateway.misdirected_request"),
        ({}, {"chain": "another"}, "gateway.misdirected_request"),
        ({}, {"currency": "EUR"}, "zkp.other_currency"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_requests_that_are_refused(
    play: Play, granted: dict[str, Any], request_changes: dict[str, Any], why: str
) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs(**granted)
        answer, _ = await world.limit_checked(world.request(bill, **request_changes))
        assert reason(answer) == why
        assert world.ended("hospital-1") == ["denied" if why.startswith("privacy.deny") else "aborted"]

    play(story)


def test_a_grant_revoked_while_the_person_answers(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        times = iter([0, 2 * 86_400_000])
        sent = []
        world.alter(world["hospital-1"], Presentation, lambda recipient, message: sent.append(message))
        answer, _ = await world.limit_checked(world.request(bill), lambda: world.now() + next(times))
        assert reason(answer) == "gateway.grant_gone"
        assert not sent
        assert world.ended("hospital-1") == ["aborted"]

    play(story)


def test_a_nonce_is_good_once(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        request = world.request(bill)
        answer, _ = await world.limit_checked(request)
        assert isinstance(answer, Presentation)
        with pytest.raises(Refused) as again:
            await eligibility.check_limit(world.insurer, "hospital-1", request, Passing())
        assert again.value.code == "gateway.used_nonce"
        # An insurer that forgets is refused by the hospital, also for another limit.
        await world.insurer.send(
            "hospital-1", session_of(request.nonce), ProofRequest(msgspec.structs.replace(request, limit=400_000))
        )
        await answered(world, request.nonce)
        _, reply = await world.insurer.receive_answer(Presentation, session_of(request.nonce))
        assert isinstance(reply, Refusal)
        assert reply.code == "gateway.used_nonce"
        assert world.ended("hospital-1") == ["released", "aborted"]

    play(story)


def test_an_old_presentation_for_a_new_request(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        old, _ = await world.limit_checked(world.request(bill))
        assert isinstance(old, Presentation)
        world.alter(world["hospital-1"], Presentation, lambda recipient, message: old)
        answer, _ = await world.limit_checked(world.request(bill))
        assert isinstance(answer, VerificationError)
        assert answer.facts["field"] == "nonce"

    play(story)


def test_every_part_of_a_presentation_is_checked(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        other = await world.bill("10.00")
        await world.grant_proofs()
        changes: list[dict[str, Any]] = [
            {"limit": 499_999},
            {"handle": other.handle},
            {"commitment": other.commitment},
            {"currency": "EUR"},
            {"audience": "researcher"},
            {"nonce": bytes(32)},
            {"purpose": "FRAUD"},
            {"grant": "another"},
            {"chain": "another"},
        ]
        flipped: list[Any] = []

        def tamper(recipient: str, message: Presentation) -> Presentation:
            if changes:
                return msgspec.structs.replace(message, **changes.pop())
            at = len(message.proof) // 8 * len(flipped) + 7
            flipped.append(at)
            proof = bytearray(message.proof)
            proof[at] ^= 1
            return msgspec.structs.replace(message, proof=bytes(proof))

        world.alter(world["hospital-1"], Presentation, tamper)
        while changes or len(flipped) < 8:
            answer, _ = await world.limit_checked(world.request(bill))
            assert isinstance(answer, (VerificationError, DecodeError)), answer

    play(story)


def test_a_bill_that_is_not_on_the_ledger(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.bill()
        await world.grant_proofs()
        stray, opening = bill_limit.commit_bill(
            secrets.token_bytes(16), parse_amount("1.00", "CNY"), secrets.token_bytes
        )
        hospital = world["hospital-1"]
        slip = BillSlip(stray, opening, hospital.name, hospital.signer.sign(BILL, encode(stray)))
        world.wallets.of("person-1").keep(slip, hospital.signer.key)
        world.wallets.note(HeldBill("person-1", stray))
        request = world.request(stray)
        carried = world.consortium.post.messages_carried
        with pytest.raises(Refused) as refused:
            await eligibility.check_limit(world.insurer, "hospital-1", request, Passing())
        assert refused.value.code == "gateway.no_such_bill"
        assert world.consortium.post.messages_carried == carried, "nobody was asked"
        # An insurer that asks all the same is refused by the hospital.
        await world.insurer.send("hospital-1", session_of(request.nonce), ProofRequest(request))
        await answered(world, request.nonce)
        _, reply = await world.insurer.receive_answer(Presentation, session_of(request.nonce))
        assert isinstance(reply, Refusal) and reply.code == "gateway.no_such_bill"
        assert world.ended("hospital-1") == ["aborted"]

    play(story)


def test_a_bill_of_another_hospital_in_the_wallet(play: Play) -> None:
    """hospital-1 answers for bills that it registered itself: its trail is where a verifier will look."""

    async def story(world: Any) -> None:
        await world.grant_proofs()
        amount = parse_amount("5.00", "CNY")
        bill = await eligibility.issue_bill(world["hospital-2"], world.wallets, "person-1", amount, Passing())
        answer, _ = await world.limit_checked(world.request(bill))
        assert reason(answer) == "gateway.no_such_bill"

    play(story)


def test_a_wallet_without_the_bill(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.bill("1.00", "person-2")
        world.wallets.note(HeldBill("person-2", bill))
        await world.grant_proofs()
        answer, _ = await world.limit_checked(world.request(bill))
        assert reason(answer) == "gateway.no_such_bill"
        assert world.ended("hospital-1") == ["aborted"]

    play(story)


def test_slips_that_a_wallet_does_not_take(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.bill()
        wallet = world.wallets.of("person-1")
        held = wallet.bills()
        hospital = world["hospital-1"]
        bill, opening = bill_limit.commit_bill(
            secrets.token_bytes(16), parse_amount("1.00", "CNY"), secrets.token_bytes
        )
        _, other = bill_limit.commit_bill(bill.handle, parse_amount("2.00", "CNY"), secrets.token_bytes)
        good = BillSlip(bill, opening, hospital.name, hospital.signer.sign(BILL, encode(bill)))
        for slip in (
            msgspec.structs.replace(good, signature=Signer(secrets.token_bytes(32)).sign(BILL, encode(bill))),
            msgspec.structs.replace(good, signature=hospital.signer.sign(PRESENTATION, encode(bill))),
            msgspec.structs.replace(good, bill=msgspec.structs.replace(bill, currency="EUR")),
            msgspec.structs.replace(good, opening=other),
        ):
            with pytest.raises(VerificationError):
                wallet.keep(slip, hospital.signer.key)
        assert wallet.bills() == held
        assert repr(good) == f"BillSlip({bill.handle.hex()})"

    play(story)


def test_the_intent_is_on_disk_before_the_proof_leaves(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        hospital = world["hospital-1"]
        found = []

        def look(recipient: str, message: Presentation) -> Presentation:
            with sqlite3.connect(f"file:{hospital.folder / 'audit.sqlite'}?mode=ro", uri=True) as database:
                found.append(database.execute("SELECT COUNT(*) FROM entries").fetchone()[0])
            return message

        world.alter(hospital, Presentation, look)
        await world.limit_checked(world.request(bill))
        assert found == [1]

    play(story)


def test_an_answer_that_may_have_arrived_counts_as_released(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()

        def lost(recipient: str, message: Presentation) -> None:
            raise Unavailable("channel.timeout", organisation="hospital-1", seconds=1)

        world.alter(world["hospital-1"], Presentation, lost)
        answer, _ = await world.limit_checked(world.request(bill))
        assert reason(answer) == "gateway.trouble"
        assert world.ended("hospital-1") == ["released"]

    play(story)


def test_others_cannot_answer_in_the_hospitals_place(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        request = world.request(bill)
        no = Refusal("privacy.deny_no_grant", "no")
        await world["hospital-2"].send("insurer", session_of(request.nonce), no)
        answer, _ = await world.limit_checked(request)
        assert isinstance(answer, Presentation)

    play(story)


def test_a_message_that_is_no_request(play: Play) -> None:
    async def story(world: Any) -> None:
        nonce = secrets.token_bytes(32)
        await world.insurer.send("hospital-1", session_of(nonce), Refusal("a.b", "no"))
        with pytest.raises(ProtocolAbort) as abort:
            await answered(world, nonce)
        assert (abort.value.code, abort.value.parties) == ("channel.bad_message", ("insurer",))
        assert not world.entries("hospital-1")
        world.impatient(0.1)
        with pytest.raises(MedveilError) as late:
            await answered(world, secrets.token_bytes(32))
        assert late.value.code == "channel.timeout"

    play(story)
