"""What may still leave of an extract that was released: whoever is erased, restricted or objects meanwhile does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from medveil.gateway import erasing, extract_delivery, extract_leaving, extract_taking, extract_wanted, granting
from medveil.gateway.extract_delivery import ExtractNext, ExtractOffer, ExtractPiece, ExtractTaken
from medveil.gateway.held_extracts import ever_held, held, held_path
from medveil.gateway.made_extracts import made_of, made_path
from medveil.gateway.organisation import Refusal
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.gateway.recalling import keep_up, take_deletion
from medveil.gateway.steps import Passing
from medveil.gateway.use_state import opt_out, review, withdraw
from privacy.erasure import recalls
from privacy.erasure.deletion import DELETION_HEADER, UNSIGNED, Deletion, sign_deletion
from privacy.grants.opt_outs import OptOut
from wire.errors import ConsentDenied, MedveilError, Refused, Unavailable

from .extracts_world import HOLDER, RECIPIENT, ROWS, TABLE, deliver, grant, load, make, offered, visits, wish

Play = Callable[[Callable[[Any], Any]], Any]
HARMS = ["erase", "restrict", "object"]
BASES = ["separate-consent", "contract"]


def harm(world: Any, how: str) -> None:
    """Something after which person-3 must be in nothing that leaves."""
    holder = world[HOLDER]
    keys = [key.key for key in holder.vault.keys_of("person-3")]
    if how == "erase":
        holder.vault.destroy(keys, bytes(32))
    elif how == "restrict":
        holder.vault.restrict(keys)
    else:
        opt_out(holder, "person-3", OptOut("all", "", world.now() - 1))


def erase(world: Any) -> str:
    """Erase person-3, as an officer does; returns the erasure's id."""
    name = erasing.plan(world[HOLDER], "person-3", world.now()).name
    erasing.apply(world[HOLDER], name, world.now)
    return name


async def refused(world: Any, extract: bytes) -> MedveilError:
    """What the holder says to a delivery."""
    with pytest.raises((Refused, ConsentDenied)) as raised:
        await extract_delivery.deliver(world[HOLDER], extract, Passing(), world.now)
    return raised.value


async def round_of(world: Any, name: str = HOLDER) -> None:
    await keep_up(world[name], ExtractsHere(world[name], world.now), world.now)


def state(world: Any, extract: bytes) -> tuple[str, str, bool]:
    """How an extract stands, why, and whether its file is there."""
    one = made_of(world[HOLDER], extract)
    return one.state, one.code, made_path(world[HOLDER], extract).exists()


async def left(world: Any, extract: bytes) -> None:
    """All of it was sent; its recipient has not said that it came."""

    async def asking() -> None:
        session, _ = await offered(world)
        await world[RECIPIENT].send(HOLDER, session, ExtractNext(0))

    world[HOLDER].last_patience = 0.5
    sending = extract_delivery.deliver(world[HOLDER], extract, Passing(), world.now)
    await asyncio.gather(sending, asking(), return_exceptions=True)
    world[HOLDER].last_patience = 20
    assert state(world, extract) == ("leaving", "", True)


def word(world: Any, extract: bytes) -> Deletion:
    """The recipient's unasked word that it deleted an extract."""
    said = Deletion(
        DELETION_HEADER, b"", HOLDER, RECIPIENT, extract, "deleted", "chosen", world.now(), ("copies",), UNSIGNED
    )
    return sign_deletion(said, world[RECIPIENT].signer)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("how", HARMS)
def test_between_release_and_delivery_nobody_leaves_who_must_not(play: Play, how: str, basis: str) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis=basis)
        extract = (await make(world, wish())).cover.extract
        harm(world, how)
        assert (await refused(world, extract)).code == "extracts.changed"
        assert state(world, extract) == ("withdrawn", "extracts.changed", False)
        _, _, told = await anext(world[RECIPIENT].openings(Refusal))
        assert told.code == "gateway.extract_withdrawn", "that somebody objects is not the recipient's business"
        assert (await make(world, wish())).rows == ROWS - 2

    play(story)


@pytest.mark.parametrize("how", HARMS)
def test_what_waits_for_a_recipient_that_is_away_is_withdrawn_by_the_rounds(play: Play, how: str) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        extract = (await make(world, wish())).cover.extract
        await round_of(world)
        assert state(world, extract) == ("released", "", True)
        harm(world, how)
        await round_of(world)
        assert state(world, extract) == ("withdrawn", "extracts.changed", False)
        assert recalls.recalls(world[HOLDER].vault) == (), "nobody has it"

    play(story)


@pytest.mark.parametrize("how", HARMS)
def test_between_two_windows_too(play: Play, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(extract_delivery, "PIECE", 700)
    monkeypatch.setattr(extract_delivery, "WINDOW", 700)

    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        extract = (await make(world, wish())).cover.extract

        class Harming(Passing):
            async def kept(self, name: str) -> bool:
                if name == "window-1":
                    await asyncio.to_thread(harm, world, how)
                return await super().kept(name)

        sent, taken = await deliver(world, (made_of(world[HOLDER], extract)).facts, sending=Harming())
        assert isinstance(sent, Refused) and sent.code == "extracts.changed"
        assert isinstance(taken, Refused) and taken.code == "gateway.extract_refused"
        assert state(world, extract) == ("withdrawn", "extracts.changed", False)
        assert not held_path(world[RECIPIENT], extract).exists()

    play(story)


@pytest.mark.parametrize("revoked", [False, True])
def test_an_erasure_that_is_done_leaves_nothing_on_its_way(play: Play, revoked: bool) -> None:
    """No round has to come, and the grant may be gone."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        extract, other = [(await make(world, wish())).cover.extract for _ in range(2)]
        await left(world, other)
        if revoked:
            await granting.revoke(world[HOLDER], "copies")
        await asyncio.to_thread(erase, world)
        assert state(world, extract) == ("withdrawn", "gateway.extract_recalled", False)
        assert state(world, other) == ("recalled", "gateway.extract_recalled", False)
        recall = recalls.recall_of(world[HOLDER].vault, other)
        assert recall is not None and recall.why == "erasure"
        assert recalls.recall_of(world[HOLDER].vault, extract) is None
        assert (await refused(world, extract)).code == "gateway.extract_withdrawn"
        assert (await refused(world, other)).code == "gateway.extract_recalled"

    play(story)


def test_an_erasure_in_the_moment_of_release(play: Play) -> None:
    """Either the release sees it, or it sees the release: never neither."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        with ThreadPoolExecutor(1) as beside:
            erased: list[Future[str]] = []

            def fault(step: str) -> None:
                if step == "linked":  # the file has its name, and nothing says so yet
                    erased.append(beside.submit(erase, world))
                    with suppress(TimeoutError):
                        erased[0].result(1.5)

            facts = await make(world, wish(), fault=fault)
            await asyncio.to_thread(erased[0].result, 20)
        assert state(world, facts.cover.extract) == ("withdrawn", "gateway.extract_recalled", False)
        assert world.ended(HOLDER).count("released") == 1

    play(story)


@pytest.mark.parametrize("how", HARMS)
def test_what_may_have_left_is_called_back_on_any_legal_basis(play: Play, how: str) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        extract = (await make(world, wish())).cover.extract
        await left(world, extract)
        harm(world, how)
        for _ in range(2):
            await round_of(world)
            assert state(world, extract) == ("recalled", "extracts.changed", False)
        (recall,) = recalls.recalls(world[HOLDER].vault)
        assert (recall.extract, recall.why, bool(recall.told)) == (extract, "withdrawn", True)

    play(story)


def test_what_is_only_added_or_objected_to_no_more_stops_nothing(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        opt_out(holder, "person-5", OptOut("all", "", world.now() - 1))
        facts = await make(world, wish())
        more, _ = visits(2)
        holder.vault.ingest(TABLE, pa.table(more), ["r-new-1", "r-new-2"], persons=["new-1", "new-2"], append=True)
        withdraw(holder, "person-5", "all", world.now())
        await round_of(world)
        sent, taken = await deliver(world, facts)
        assert not isinstance(sent, BaseException), (sent, taken)
        assert sent.state == "delivered" and facts.rows == ROWS - 2
        assert sent.basis is None, "who objected is not kept beside what has left"

    play(story)


def test_a_review_that_is_overdue_stops_it_and_withdraws_nothing(play: Play) -> None:
    """What the officer can put right is no reason to throw away what was made."""

    async def story(world: Any) -> None:
        load(world)
        terms = await grant(world, review=world.now() + 3_600_000)
        extract = (await make(world, wish())).cover.extract
        world.now.ahead = 2 * 3_600_000
        assert (await refused(world, extract)).code == "privacy.deny_review"
        await round_of(world)
        assert state(world, extract) == ("released", "", True)
        (checked,) = [one for one in granting.issued(world[HOLDER]) if one.terms.grant == terms.grant]
        review(world[HOLDER], checked, world.now(), world.now() + 3_600_000)
        sent, _ = await deliver(world, made_of(world[HOLDER], extract).facts)
        assert sent.state == "delivered"

    play(story)


def test_who_says_that_it_deleted_what_has_not_left_is_not_heard(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, here = world[HOLDER], ExtractsHere(world[HOLDER], world.now)
        facts = await make(world, wish())
        extract = facts.cover.extract
        with pytest.raises(Refused) as raised:
            await take_deletion(holder, here, RECIPIENT, word(world, extract), world.now())
        assert raised.value.code == "privacy.no_notice" and recalls.recalls(holder.vault) == ()
        await asyncio.to_thread(erase, world)
        with pytest.raises(Refused):
            await take_deletion(holder, here, RECIPIENT, word(world, extract), world.now())
        assert not any(one.deleted for one in recalls.recalls(holder.vault))
        again = await make(world, wish())
        await left(world, again.cover.extract)
        unheld = msgspec.structs.replace(word(world, again.cover.extract), found="not-held")
        with pytest.raises(Refused):
            await take_deletion(holder, here, RECIPIENT, sign_deletion(unheld, world[RECIPIENT].signer), world.now())
        heard = await take_deletion(holder, here, RECIPIENT, word(world, again.cover.extract), world.now())
        assert heard.deleted and heard.why == "due"

    play(story)


def test_a_word_about_it_does_not_keep_an_erasure_from_stopping_it(play: Play) -> None:
    """Said deleted when the last piece was under way, and consent is revoked then: it is not sent any more."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        extract = (await make(world, wish())).cover.extract
        await left(world, extract)
        await take_deletion(holder, ExtractsHere(holder, world.now), RECIPIENT, word(world, extract), world.now())
        await granting.revoke(holder, "copies")
        await round_of(world)
        assert state(world, extract) == ("recalled", "gateway.extract_recalled", False)

    play(story)


def test_nobody_takes_what_has_not_left(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        extract = (await make(world, wish())).cover.extract

        async def lying() -> None:
            session, _ = await offered(world)
            await world[RECIPIENT].send(HOLDER, session, ExtractTaken(extract))

        sending = extract_delivery.deliver(world[HOLDER], extract, Passing(), world.now)
        sent, _ = await asyncio.gather(sending, lying(), return_exceptions=True)
        assert isinstance(sent, MedveilError) and sent.code == "gateway.extract_out_of_turn"
        assert state(world, extract) == ("released", "", True)

    play(story)


@pytest.mark.parametrize("took", [False, True])
def test_an_extract_that_is_withdrawn_after_its_last_piece_is_called_back(play: Play, took: bool) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        holder, recipient = world[HOLDER], world[RECIPIENT]
        facts = await make(world, wish())
        extract = facts.cover.extract
        if took:  # and its holder does not hear of it: the job is cancelled in that moment

            async def taking() -> None:
                session, _ = await offered(world)
                await extract_taking.take_extract(recipient, HOLDER, session, Passing(), world.now)

            class Deaf(Passing):
                async def once(self, name: str, kind: Any, work: Any) -> Any:
                    if name == extract_delivery.ENDED:
                        raise OSError
                    return await super().once(name, kind, work)

            sending = extract_delivery.deliver(holder, extract, Deaf(), world.now)
            await asyncio.gather(sending, taking(), return_exceptions=True)
            assert [one.extract for one in ever_held(recipient)] == [extract]
        else:
            await left(world, extract)
        one = extract_leaving.withdraw(holder, extract, "gateway.extract_declined", world.now)
        assert (one.state, state(world, extract)[2]) == ("recalled", False)
        recall = recalls.recall_of(holder.vault, extract)
        assert recall is not None and (recall.why, recall.released > 0) == ("withdrawn", True)
        again = extract_leaving.withdraw(holder, extract, "gateway.extract_declined", world.now)
        assert again == one

    play(story)


def test_a_request_is_answered_once_until_its_extract_is_delivered(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        one = await extract_wanted.ask_extract(world[RECIPIENT], wish().request, Passing(), world.now)
        sender, session, asking = await anext(holder.openings(extract_wanted.ExtractRequest))
        await extract_wanted.take_request(holder, sender, session, asking, world.now)
        facts = await make(world, wish(one.ask))
        kept = extract_wanted.wanted_of(holder, one.ask)
        assert (kept.state, kept.extract) == ("released", facts.cover.extract)
        for _ in range(2):
            with pytest.raises(Refused) as raised:
                await make(world, wish(one.ask))
            assert raised.value.code == "gateway.extract_answered"
        with pytest.raises(Refused):
            await extract_wanted.decline(holder, one.ask, Passing())
        sent, taken = await deliver(world, facts)
        assert not isinstance(sent, BaseException), (sent, taken)
        assert extract_wanted.wanted_of(holder, one.ask).state == "delivered"
        assert world.ended(HOLDER) == ["released"]

    play(story)


def test_two_that_are_made_at_once_under_one_grant_have_one_cut(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        world.tables(world[HOLDER]).rows(TABLE, ())  # the first use of a table makes its snapshot
        wishes = [wish(), wish(fields=("cost",))]
        both = await asyncio.gather(*(make(world, one) for one in wishes), return_exceptions=True)
        codes = [one.code for one in both if isinstance(one, Refused)]
        assert codes == ["gateway.extract_other_cut"] and world.ended(HOLDER) == ["released"]

    play(story)


def test_an_offer_of_what_was_called_back_is_not_taken(play: Play) -> None:
    """The notice overtakes the file: what comes after it is not kept."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        holder, recipient = world[HOLDER], world[RECIPIENT]
        extract = (await make(world, wish())).cover.extract
        await left(world, extract)
        extract_leaving.withdraw(holder, extract, "gateway.extract_declined", world.now)
        await round_of(world)
        from medveil.gateway.recalling import take_notice
        from privacy.erasure.deletion import DeleteNotice

        _, _, notice = await anext(recipient.openings(DeleteNotice))
        said = await take_notice(recipient, ExtractsHere(recipient, world.now), HOLDER, notice, world.now)
        assert (notice.why, said.found, said.why) == ("withdrawn", "not-held", "withdrawn")
        session = b"t" * 16
        await holder.send(RECIPIENT, session, ExtractOffer(extract, b"", "copies", TABLE, 10, bytes(32)))
        with pytest.raises(Refused) as late:
            await extract_taking.take_extract(recipient, HOLDER, session, Passing(), world.now)
        assert late.value.code == "gateway.extract_recalled"

    play(story)


def test_nothing_has_left_that_the_ledger_does_not_know(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else home and trail of just before would close it as aborted, and another cut might follow."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        facts = await make(world, wish())
        extract, trail = facts.cover.extract, holder.audit
        outcome = trail.end(facts.audit)
        assert outcome is not None and outcome.outcome == "released" and trail.waiting(), "noted, and not anchored yet"

        async def away(*_given: Any) -> None:
            raise Unavailable("ledger.not_final", retry_after=1)

        with monkeypatch.context() as ledger:
            ledger.setattr(holder, "ensure", away)
            holder.last_patience = 0.1
            sent, taken = await deliver(world, facts)
            assert isinstance(sent, Unavailable) and isinstance(taken, MedveilError)
        assert made_of(holder, extract).state == "released" and not held(world[RECIPIENT])
        holder.last_patience = 20

        waiting: list[int] = []
        sends = holder.send

        async def watching(recipient: str, session: bytes, message: Any) -> None:
            if isinstance(message, ExtractPiece):
                waiting.append(trail.waiting())
            await sends(recipient, session, message)

        monkeypatch.setattr(holder, "send", watching)
        sent, taken = await deliver(world, facts)
        assert sent.state == "delivered" and taken.extract == extract
        assert waiting and not any(waiting)

    play(story)
