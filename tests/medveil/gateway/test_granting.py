"""Grants between gateways: whose, unchanged, anchored."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant, RegisterPopulation, RevokeGrant
from ledger.replicas import Replica
from medveil.gateway import granting, reception
from medveil.gateway.collecting import EvidenceRequest
from medveil.gateway.ledger_account import FinalState, LedgerAccount
from medveil.gateway.organisation import Organisation, Refusal
from medveil.gateway.reception import Reception
from medveil.gateway.rotating import rotate
from medveil.gateway.steps import Passing
from privacy.decide import UseRequest
from privacy.grants.terms import SignedGrant, grant_commitment, sign_grant
from privacy.predicate import Compare
from wire.canonical import encode
from wire.errors import ProtocolAbort, Refused, VerificationError

from .cutting import Cut, Cuts, KeptSteps

Play = Callable[[Callable[[Any], Any]], Any]


async def new_envelope_key(organisation: Organisation) -> None:
    """The organisation changes its envelope key, and writes with it."""
    height = await rotate(organisation, Passing(), notice=2)
    while organisation.account.state.height < height:
        await organisation.submit(RegisterPopulation(f"at-{secrets.token_hex(4)}", "row", 1, 1, (organisation.name,)))
    await organisation.submit(RegisterPopulation("later", "row", 1, 1, (organisation.name,)))


def study(recipient: str = "researcher") -> UseRequest:
    """The use that the study's grant covers at hospital-1."""
    return UseRequest("hospital-1", recipient, "stays-hospital-1", ("cost", "ward"), "query", "HMB")


async def decided(world: Any) -> Any:
    """hospital-1's decision on it now."""
    return (await granting.decide_use(world["hospital-1"], study(), Passing(), world.now()))[0]


def test_a_grant_is_delivered_and_kept_by_both(play: Play) -> None:
    async def story(world: Any) -> None:
        terms = await world.grant("study", "hospital-1", "researcher")
        assert [checked.terms for checked in granting.issued(world["hospital-1"])] == [terms]
        assert [checked.terms for checked in granting.held(world.researcher)] == [terms]
        assert (await decided(world)).allowed

    play(story)


def test_deliveries_that_are_not_taken(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital, other = world["hospital-1"], world["hospital-2"]
        terms = world.terms("study", "hospital-1", "researcher")
        signed = sign_grant(terms, hospital.signer, hospital.salt_key)

        async def delivered(sender: Any, message: Any) -> Any:
            session = secrets.token_bytes(16)
            await sender.send("researcher", session, message)
            with pytest.raises((ProtocolAbort, Refused, VerificationError)) as refused:
                await granting.take(world.researcher, *await world.researcher.receive(SignedGrant, session))
            assert world.researcher.vault.documents("grant-held") == ()
            return refused.value

        # Somebody else's grant, passed on.
        assert (await delivered(other, signed)).code == "privacy.grant_signature"
        # One's own signature under somebody else's terms.
        forged = sign_grant(terms, other.signer, other.salt_key)
        abort = await delivered(other, forged)
        assert (abort.code, abort.parties) == ("gateway.grant_of_others", ("hospital-2",))
        # The right issuer, but for another recipient, or what the ledger does not have.
        changed = msgspec.structs.replace(terms, recipient="insurer")
        abort = await delivered(hospital, sign_grant(changed, hospital.signer, hospital.salt_key))
        assert abort.code == "gateway.grant_of_others"
        assert (await delivered(hospital, signed)).code == "gateway.grant_not_anchored"
        await hospital.submit(AnchorGrant("study", bytes(32), terms.not_before, terms.expires, 0))
        assert (await delivered(hospital, signed)).code == "gateway.grant_not_anchored"
        # Every part of it changed under way.
        for changes in (
            {"fields": ("age", "cost", "ward")},
            {"predicate": Compare("age", "ge", 18)},
            {"purposes": ("HRESCH",)},
            {"uses": ("query", "score")},
            {"commercial": True},
            {"expires": terms.expires + 1},
            {"epoch": 1},
            {"dataset": "stays-hospital-2"},
            {"issuer": "hospital-2"},
        ):
            tampered = msgspec.structs.replace(signed, terms=msgspec.structs.replace(terms, **changes))
            assert (await delivered(hospital, tampered)).code == "privacy.grant_signature"
        for tampered in (
            msgspec.structs.replace(signed, salt=bytes(32)),
            msgspec.structs.replace(signed, signature=other.signer.sign(b"medveil/v1/grant", b"")),
        ):
            assert (await delivered(hospital, tampered)).code == "privacy.grant_signature"
        assert (await delivered(hospital, Refusal("a.b", "no"))).code == "channel.bad_message"

    play(story)


def test_an_id_that_is_taken_spoils_no_grant(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant("study", "hospital-1", "researcher")
        for issuer in ("hospital-1", "hospital-2"):
            with pytest.raises(Refused) as refused:
                terms = world.terms("study", issuer, "researcher", fields=("cost",))
                await granting.issue(world[issuer], terms, Passing())
            assert refused.value.code == "grants.exists"
        assert (await decided(world)).allowed
        assert not granting.issued(world["hospital-2"])

    play(story)


def test_the_same_terms_again_change_nothing(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        terms = await world.grant("study", "hospital-1", "researcher")
        written = len(hospital.account.receipts)
        again = await granting.issue(hospital, terms, Passing())
        assert len(hospital.account.receipts) == written
        assert (await world.take("researcher", "study")).terms == again.terms == terms
        assert [checked.terms for checked in granting.held(world.researcher)] == [terms]
        await granting.revoke(hospital, "study")
        with pytest.raises(Refused) as refused:
            await granting.issue(hospital, terms, Passing())
        assert refused.value.code == "grants.revoked"

    play(story)


def test_what_the_recipient_let_go_is_delivered_again(play: Play) -> None:
    """It may have been behind with the ledger, or restored from before: whoever issues again reaches it."""

    async def story(world: Any) -> None:
        hospital, researcher = world["hospital-1"], world.researcher
        terms = world.terms("study", "hospital-1", "researcher")
        looked: list[Any] = []
        caught_up = researcher.account.caught_up

        async def behind() -> Any:
            looked.append(await caught_up())
            if len(looked) == 1:
                raise Refused("gateway.grant_not_anchored", grant="study", organisation="hospital-1")
            return looked[-1]

        researcher.account.caught_up = behind
        attending = asyncio.create_task(Reception(researcher, nobody).attend())
        try:
            for times in (1, 2):
                await granting.issue(hospital, terms, Passing())
                async with asyncio.timeout(20):
                    while len(looked) < times:
                        await asyncio.sleep(0.01)
            async with asyncio.timeout(20):
                while [checked.terms for checked in granting.held(researcher)] != [terms]:
                    await asyncio.sleep(0.01)
        finally:
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)

    play(story)


def test_grants_that_wait_for_the_ledger_hold_nobody_up(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sequencer is away: what others begin goes on, few grants of a peer wait, and forged ones not at all."""

    async def story(world: Any) -> None:
        hospital, researcher = world["hospital-1"], world.researcher
        names = [f"study-{number}" for number in range(reception.GRANTS_AT_ONCE + 2)]
        for name in names:
            await granting.issue(hospital, world.terms(name, "hospital-1", "researcher"), Passing())
        forged = sign_grant(world.terms("forged", "hospital-1", "researcher"), world.insurer.signer, hospital.salt_key)
        await hospital.send("researcher", secrets.token_bytes(16), forged)
        back, begun, waiting = asyncio.Event(), asyncio.Event(), 0
        caught_up = researcher.account.caught_up

        async def away() -> Any:
            nonlocal waiting
            waiting += 1
            assert waiting <= reception.GRANTS_AT_ONCE
            await back.wait()
            waiting -= 1
            return await caught_up()

        async def begin(kind: str, peer: str, session: bytes) -> None:
            assert (kind, peer) == ("evidence.answer", "hospital-2")
            begun.set()

        monkeypatch.setattr(reception, "AGAIN", 0.05)
        researcher.account.caught_up = away
        attending = asyncio.create_task(Reception(researcher, begin).attend())
        try:
            async with asyncio.timeout(20):
                while waiting < reception.GRANTS_AT_ONCE:
                    await asyncio.sleep(0.01)
                await world["hospital-2"].send("researcher", secrets.token_bytes(16), EvidenceRequest(bytes(16)))
                await begun.wait()
                assert not granting.held(researcher)
                back.set()
                while len(granting.held(researcher)) < len(names):
                    await asyncio.sleep(0.01)
        finally:
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)

    play(story)


def test_grants_are_read_and_checked_once_until_they_change(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        await world.grant("study", "hospital-1", "researcher")
        opened: list[str] = []
        document = hospital.vault.document

        def counted(kind: str, name: str) -> bytes:
            opened.append(name)
            return document(kind, name)  # type: ignore[no-any-return]

        hospital.vault.document = counted
        assert (await decided(world)).allowed and sorted(opened) == ["study"]
        for _ in range(5):
            assert (await decided(world)).allowed
        assert sorted(opened) == ["study"]
        assert not granting.judge(hospital, study("insurer"), world.now()).allowed
        # Another grant, for others: read, and not asked.
        await world.grant("other", "hospital-1", "insurer")
        assert granting.judge(hospital, study("insurer"), world.now()).grant == "other"
        assert (await decided(world)).grant == "study"
        assert [checked.terms.grant for checked in granting.issued(hospital)] == ["other", "study"]
        # A document that nobody but its issuer could have signed is not taken from the shelf.
        terms = world.terms("forged", "hospital-1", "researcher")
        forged = sign_grant(terms, world["hospital-2"].signer, hospital.salt_key)
        hospital.vault.put_document("grant-issued", "forged", encode(forged))
        with pytest.raises(VerificationError):
            granting.judge(hospital, study(), world.now())
        hospital.vault.put_document("grant-issued", "forged", document("grant-issued", "study"))
        # What the ledger says is asked each time.
        await granting.revoke(hospital, "study")
        assert (await decided(world)).rule == "revocation"

    play(story)


async def nobody(kind: str, peer: str, session: bytes) -> None:
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"issuer": "hospital-2"}, "privacy.grant_form"),
        ({"recipient": "stranger"}, "organisations.unknown"),
        ({"delete_by": 0}, "privacy.grant_form"),
    ],
)
def test_terms_that_are_not_its_to_give_are_not_kept(play: Play, changes: dict[str, Any], code: str) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        terms = msgspec.structs.replace(world.terms("study", "hospital-1", "researcher"), **changes)
        with pytest.raises(Refused) as refused:
            await granting.issue(hospital, terms, Passing())
        assert refused.value.code == code
        assert not granting.issued(hospital)

    play(story)


def test_a_grant_signed_before_a_change_of_keys_still_counts(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant("study", "hospital-1", "researcher")
        hospital = world["hospital-1"]
        await new_envelope_key(hospital)
        assert hospital.trust.member("hospital-1").keys.envelope.valid_from > 0
        assert [checked.terms.grant for checked in granting.issued(hospital)] == ["study"]
        assert [checked.terms.grant for checked in granting.held(world.researcher)] == ["study"]
        assert (await decided(world)).allowed

    play(story)


def test_a_grant_covers_nothing_until_it_is_anchored_as_it_is(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        terms = world.terms("study", "hospital-1", "researcher")
        signed = sign_grant(terms, hospital.signer, hospital.salt_key)
        hospital.vault.put_document("grant-issued", "study", encode(signed))
        assert (await decided(world)).rule == "anchor"
        narrow = grant_commitment(msgspec.structs.replace(terms, fields=("cost",)), hospital.salt_key)
        await hospital.submit(AnchorGrant("study", narrow, terms.not_before, terms.expires, 0))
        assert (await decided(world)).rule == "anchor"

    play(story)


def test_another_organisation_anchors_the_id_first(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        terms = world.terms("study", "hospital-1", "researcher")
        commitment = grant_commitment(terms, hospital.salt_key)
        await world.bureau.submit(AnchorGrant("study", commitment, terms.not_before, terms.expires, 0))
        signed = sign_grant(terms, hospital.signer, hospital.salt_key)
        hospital.vault.put_document("grant-issued", "study", encode(signed))
        await hospital.account.caught_up()
        assert (await decided(world)).rule == "anchor"

    play(story)


def test_revocation_holds_at_once_and_is_the_issuers(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant("study", "hospital-1", "researcher")
        with pytest.raises(Refused) as refused:
            await world.researcher.submit(RevokeGrant("study"))
        assert refused.value.code == "grants.not_issuer"
        assert (await decided(world)).allowed
        hospital = world["hospital-1"]
        decision, intent = await granting.decide_use(hospital, study(), Passing(), world.now())
        assert granting.still_granted(hospital, study(), decision, world.now())
        receipt = await granting.revoke(hospital, "study")
        assert receipt.result.accepted
        assert not granting.still_granted(hospital, study(), decision, world.now())
        assert (await decided(world)).rule == "revocation"
        assert intent in hospital.audit.unfinished()

    play(story)


def test_a_damaged_vault_document_is_no_grant(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant("study", "hospital-1", "researcher")
        hospital = world["hospital-1"]
        held = hospital.vault.document("grant-issued", "study")
        hospital.vault.put_document("grant-issued", "study", held[:-1] + bytes([held[-1] ^ 1]))
        with pytest.raises(VerificationError):
            await decided(world)

    play(story)


# --- cut short and taken up again ---------------------------------------------------------------


async def issued_with_a_cut(world: Any, at: int) -> Cut:
    """A grant of hospital-1, whose flow is cut at its point `at`. Everything is checked."""
    hospital = world["hospital-1"]
    terms = world.terms(f"study-{at}", "hospital-1", "researcher")
    before = len(hospital.account.receipts)
    cut = Cut(hospital, at)
    try:
        signed = await cut.run(lambda steps: granting.issue(hospital, terms, steps))
    finally:
        cut.heal()
    assert len(hospital.account.receipts) == before + 1
    assert hospital.account.receipts[-1].result.accepted
    assert (await world.take("researcher", terms.grant)).terms == signed.terms == terms
    assert world.consortium.post.openings("researcher").empty(), "delivered once"
    assert terms in [checked.terms for checked in granting.issued(hospital)]
    return cut


def test_a_grant_is_issued_once_wherever_its_flow_is_cut(play: Play) -> None:
    async def story(world: Any) -> None:
        points = len((await issued_with_a_cut(world, 10_000)).cuts.passed)
        assert points >= 8, "two documents, an envelope and a message"
        for at in range(1, points + 1):
            await issued_with_a_cut(world, at)

    play(story)


async def used_with_a_cut(world: Any, recipient: str, at: int) -> Cut:
    """A use of hospital-1's data, whose flow is cut at its point `at`. Everything is checked."""
    hospital, allowed = world["hospital-1"], recipient == "researcher"
    query = secrets.token_bytes(32)

    async def use(steps: Any, at: int = 0) -> Any:
        decision, intent = await granting.decide_use(hospital, study(recipient), steps, at or world.now(), query)
        await granting.end_use(hospital, intent, "released" if decision.allowed else "denied")
        return decision, intent

    cut = Cut(hospital, at)
    try:
        decision, intent = await cut.run(use)
    finally:
        cut.heal()
    assert decision.allowed is allowed

    def check_trail() -> None:
        trail = [entry for entry in world.entries("hospital-1") if entry.use.query == query]
        ends = [(0, ""), (intent, "released" if allowed else "denied")]
        assert [(entry.intent, entry.outcome) for entry in trail] == ends
        assert trail[0].sequence == intent

    check_trail()
    # Taken up once more after its end: still the same, also long after the grant ran out.
    assert await use(cut.steps, world.now() + 3 * 86_400_000) == (decision, intent)
    check_trail()
    return cut


@pytest.mark.parametrize("recipient", ["researcher", "insurer"], ids=["allowed", "denied"])
def test_a_use_is_decided_and_written_once_wherever_its_flow_is_cut(play: Play, recipient: str) -> None:
    async def story(world: Any) -> None:
        await world.grant("study", "hospital-1", "researcher")
        points = (await used_with_a_cut(world, recipient, 10_000)).cuts.passed
        assert "not kept intent" in points and "after outcome" in points
        for at in range(1, len(points) + 1):
            await used_with_a_cut(world, recipient, at)

    play(story)


def test_two_flows_of_one_use_have_an_intent_each(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant("study", "hospital-1", "researcher")
        hospital, at = world["hospital-1"], world.now()
        flows = [KeptSteps(Cuts()), KeptSteps(Cuts())]
        first, second = [(await granting.decide_use(hospital, study(), steps, at))[1] for steps in flows]
        assert hospital.audit.unfinished() == (first, second)
        assert (await granting.decide_use(hospital, study(), flows[0], at))[1] == first

    play(story)


def test_a_use_that_ended_without_a_release_does_not_go_on(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant("study", "hospital-1", "researcher")
        hospital = world["hospital-1"]
        steps = KeptSteps(Cuts())
        _, intent = await granting.decide_use(hospital, study(), steps, world.now())
        await granting.end_use(hospital, intent, "aborted")
        await granting.end_use(hospital, intent, "aborted")
        with pytest.raises(Refused) as refused:
            await granting.decide_use(hospital, study(), steps, world.now())
        assert refused.value.code == "gateway.use_ended"
        with pytest.raises(Refused) as refused:
            await granting.end_use(hospital, intent, "released")
        assert refused.value.code == "privacy.audit_outcome"
        assert world.ended("hospital-1") == ["aborted"]

        steps = KeptSteps(Cuts())
        _, intent = await granting.decide_use(hospital, study(), steps, world.now())
        await granting.end_use(hospital, intent, "released")
        await granting.end_use(hospital, intent, "aborted")  # what left has left
        assert world.ended("hospital-1") == ["aborted", "released"]

    play(story)


def test_a_process_that_has_just_begun_decides_by_the_ledger_of_today(play: Play) -> None:
    """It replays all history: on the way there grants are missing, and so are revocations of grants that are there."""

    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        await world.grant("study", "hospital-1", "researcher")
        granted = hospital.account.state.height
        known, engine, trust = hospital.account, hospital.account._engine, world.consortium.trust

        async def begun(replayed: int) -> Any:
            """hospital-1's decision, taken by an account that has replayed so many blocks when it is asked."""
            replica = Replica(trust.founding, "hospital-1", hospital.cosigner, world.now)
            account = LedgerAccount("hospital-1", hospital.signer, engine, replica, trust)
            for block in (await engine.export()).blocks[:replayed]:
                account.replica.machine.replay(block)
            account._final = FinalState(account.replica.machine.mark())
            hospital._account = account
            deciding = asyncio.create_task(decided(world))
            await asyncio.sleep(0.05)
            assert not deciding.done(), "it knows only the past"
            following = asyncio.create_task(account.attend())
            decision = await deciding
            following.cancel()
            hospital._account = known
            return decision

        assert (await begun(0)).allowed
        await granting.revoke(hospital, "study")
        assert not (await begun(granted)).allowed
        assert not (await decided(world)).allowed

    play(story)
