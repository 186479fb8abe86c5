"""Grants between gateways: whose, unchanged, anchored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant, RevokeGrant
from medveil.gateway import granting
from medveil.gateway.organisation import Refusal
from privacy.decide import UseRequest
from privacy.grants import grant_commitment, sign_grant
from privacy.predicate import Compare
from wire.canonical import encode
from wire.errors import ProtocolAbort, Refused, VerificationError

Play = Callable[[Callable[[Any], Any]], Any]


def study(world: Any) -> UseRequest:
    """The use that the study's grant covers at hospital-1."""
    return UseRequest("hospital-1", "researcher", "stays-hospital-1", ("cost", "ward"), "query", "HMB")


def decided(world: Any) -> Any:
    """hospital-1's decision on it now."""
    return granting.decide_use(world["hospital-1"], study(world), world.now())[0]


def test_a_grant_is_delivered_and_kept_by_both(play: Play) -> None:
    async def story(world: Any) -> None:
        terms = await world.grant("study", "hospital-1", "researcher")
        assert [checked.terms for checked in granting.issued(world["hospital-1"])] == [terms]
        assert world.researcher.vault.documents("grant-held") == ("study",)
        assert decided(world).allowed

    play(story)


def test_deliveries_that_are_not_taken(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital, other = world["hospital-1"], world["hospital-2"]
        terms = world.terms("study", "hospital-1", "researcher")
        signed = sign_grant(terms, hospital.signer, hospital.salt_key)
        session = granting._session("study")

        async def delivered(sender: Any, message: Any) -> Any:
            await sender.send("researcher", session, message)
            with pytest.raises((ProtocolAbort, VerificationError)) as refused:
                await granting.accept(world.researcher, "study")
            assert world.researcher.vault.documents("grant-held") == ()
            return refused.value

        # Somebody else's grant, passed on.
        assert (await delivered(other, signed)).code == "privacy.grant_signature"
        # One's own signature under somebody else's terms.
        forged = sign_grant(terms, other.signer, other.salt_key)
        abort = await delivered(other, forged)
        assert (abort.code, abort.parties) == ("gateway.grant_of_others", ("hospital-2",))
        # The right issuer, but for another recipient, or another grant than announced.
        for changes in ({"recipient": "insurer"}, {"grant": "other"}):
            changed = msgspec.structs.replace(terms, **changes)
            abort = await delivered(hospital, sign_grant(changed, hospital.signer, hospital.salt_key))
            assert abort.code == "gateway.grant_of_others"
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
        # After all that the genuine one still arrives.
        await hospital.send("researcher", session, signed)
        assert (await granting.accept(world.researcher, "study")).terms == terms

    play(story)


def test_an_id_that_is_taken_spoils_no_grant(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant("study", "hospital-1", "researcher")
        for issuer in ("hospital-1", "hospital-2"):
            with pytest.raises(Refused) as refused:
                await granting.issue(world[issuer], world.terms("study", issuer, "researcher", fields=("cost",)))
            assert refused.value.code == "grants.exists"
        assert decided(world).allowed
        assert not granting.issued(world["hospital-2"])

    play(story)


def test_a_grant_covers_nothing_until_it_is_anchored_as_it_is(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        terms = world.terms("study", "hospital-1", "researcher")
        signed = sign_grant(terms, hospital.signer, hospital.salt_key)
        hospital.vault.put_document("grant-issued", "study", encode(signed))
        assert decided(world).rule == "anchor"
        narrow = grant_commitment(msgspec.structs.replace(terms, fields=("cost",)), hospital.salt_key)
        await hospital.submit(AnchorGrant("study", narrow, terms.not_before, terms.expires, 0))
        assert decided(world).rule == "anchor"

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
        assert decided(world).rule == "anchor"

    play(story)


def test_revocation_holds_at_once_and_is_the_issuers(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant("study", "hospital-1", "researcher")
        with pytest.raises(Refused) as refused:
            await world.researcher.submit(RevokeGrant("study"))
        assert refused.value.code == "grants.not_issuer"
        assert decided(world).allowed
        decision, intent = granting.decide_use(world["hospital-1"], study(world), world.now())
        assert granting.still_granted(world["hospital-1"], study(world), decision, world.now())
        await world["hospital-1"].submit(RevokeGrant("study"))
        assert not granting.still_granted(world["hospital-1"], study(world), decision, world.now())
        assert decided(world).rule == "revocation"
        assert intent in world["hospital-1"].audit.unfinished()

    play(story)


def test_a_damaged_vault_document_is_no_grant(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant("study", "hospital-1", "researcher")
        hospital = world["hospital-1"]
        held = hospital.vault.document("grant-issued", "study")
        hospital.vault.put_document("grant-issued", "study", held[:-1] + bytes([held[-1] ^ 1]))
        with pytest.raises(VerificationError):
            decided(world)

    play(story)
