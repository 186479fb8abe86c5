"""Extracts that are held: listed or not there at all, and deleted when they are to be, whatever else cannot be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ledger.contracts import access
from medveil.gateway import extract_delivery, extract_taking, held_extracts, recalling
from medveil.gateway.held_extracts import PART_MS, Tidied, held, held_folder, held_path, tidy_held
from medveil.gateway.made_extracts import made_path
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.gateway.steps import Passing
from privacy.copies.extract_file import ExtractFacts, seal_end
from privacy.copies.extracts import inspect_extract
from privacy.erasure import recalls
from privacy.erasure.deletion import DeleteNotice
from privacy.erasure.recalls import Recall
from wire.errors import Refused, Unavailable, VerificationError

from .cutting import Killed
from .extracts_world import HOLDER, RECIPIENT, TABLE, deliver, grant, load, make, offered, wish

Play = Callable[[Callable[[Any], Any]], Any]


async def one_made(world: Any) -> ExtractFacts:
    load(world)
    await grant(world)
    return await make(world, wish())


async def taken_with(world: Any, facts: ExtractFacts, fault: Callable[[str], None]) -> tuple[Any, Any]:
    """A delivery whose recipient is told each step."""

    async def taken() -> Any:
        session, _ = await offered(world)
        try:
            return await extract_taking.take_extract(world[RECIPIENT], HOLDER, session, Passing(), world.now, fault)
        except Killed as killed:
            return killed

    world[HOLDER].last_patience = 0.5  # of a recipient that is killed nothing more is heard
    sending = extract_delivery.deliver(world[HOLDER], facts.cover.extract, Passing(), world.now)
    done = await asyncio.gather(sending, taken(), return_exceptions=True)
    world[HOLDER].last_patience = 20
    return done[0], done[1]


def notice(world: Any, facts: ExtractFacts) -> DeleteNotice:
    """What the holder sends about an extract."""
    holder, now = world[HOLDER], world.now()
    one = Recall(facts.cover.extract, RECIPIENT, facts.dataset, facts.grant, 1, now, "erasure", now, now)
    return recalls.notice(one, HOLDER, holder.signer)


def test_one_that_cannot_be_deleted_keeps_no_other_waiting(play: Play) -> None:
    async def story(world: Any) -> None:
        first = await one_made(world)
        second = await make(world, wish())
        recipient = world[RECIPIENT]
        for facts in (first, second):
            await deliver(world, facts)
        late = lambda: max(first.delete_by, second.delete_by)  # noqa: E731
        path = held_path(recipient, first.cover.extract)
        path.rename(path.with_suffix(".away"))
        path.mkdir()  # no unlink removes it
        found = tidy_held(recipient, late)
        assert [one.extract for one in found.gone] == [second.cover.extract]
        assert found.trouble is not None and found.trouble.code == "privacy.store_failed"
        assert not held_path(recipient, second.cover.extract).exists()
        path.rmdir()
        path.with_suffix(".away").rename(path)
        found = tidy_held(recipient, late)
        assert [one.extract for one in found.gone] == [first.cover.extract] and found.trouble is None
        assert not path.exists()
        path.write_bytes(b"a crash brought it back")
        assert tidy_held(recipient, late) == Tidied() and not path.exists()

    play(story)


def test_a_recall_while_it_comes_keeps_it_out(play: Play) -> None:
    """The notice comes after the last byte and before the file is listed."""

    async def story(world: Any) -> None:
        facts = await one_made(world)
        recipient = world[RECIPIENT]
        said: list[Any] = []

        def recalled(step: str) -> None:
            if step == "checked":
                here = ExtractsHere(recipient, world.now)
                args = (recipient, here, HOLDER, notice(world, facts), world.now, recalling.no_fault)
                said.append(recalling._noticed(*args))

        sent, taken = await taken_with(world, facts, recalled)
        assert [one.deletion.found for one in said] == ["not-held"], "so it was said"
        assert isinstance(taken, Refused) and taken.code == "gateway.extract_recalled"
        assert sent.facts["reason"] == "gateway.extract_recalled"
        assert held_extracts.ever_held(recipient) == () and list(held_folder(recipient).iterdir()) == []

    play(story)


def test_what_cannot_be_listed_does_not_stay(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Any) -> None:
        facts = await one_made(world)
        recipient = world[RECIPIENT]

        def full(*_: Any) -> None:
            raise Unavailable("privacy.store_failed", path="vault", reason="no room")

        with monkeypatch.context() as disk:
            disk.setattr(extract_taking, "keep_held", full)
            _, taken = await taken_with(world, facts, lambda step: None)
        assert isinstance(taken, Unavailable) and list(held_folder(recipient).iterdir()) == []
        assert (await deliver(world, facts))[0].state == "delivered" and len(held(recipient)) == 1

    play(story)


def test_one_whose_taker_was_killed_before_it_was_listed(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await one_made(world)
        recipient = world[RECIPIENT]

        def killed(step: str) -> None:
            if step == "appeared":
                raise Killed(step)

        await taken_with(world, facts, killed)
        assert held(recipient) == () and held_path(recipient, facts.cover.extract).exists()
        junk = held_folder(recipient) / f"{bytes(16).hex()}.extract"
        part = held_folder(recipient) / f".{bytes(16).hex()}.extract.00.part"
        for path in (junk, part):
            path.write_bytes(b"nobody's")
        found = await asyncio.to_thread(tidy_held, recipient, world.now)
        assert found == Tidied(listed=1) and [one.facts for one in held(recipient)] == [facts]
        assert junk.exists() and part.exists(), "a delivery may go on with it"
        assert (await deliver(world, facts))[0].state == "delivered", "it is held: no byte comes again"
        late = world.now() + PART_MS + 60_000
        facts_kept = held_path(recipient, facts.cover.extract)
        assert tidy_held(recipient, lambda: late).trouble is None
        assert not junk.exists() and not part.exists()
        assert facts_kept.exists() == (late < facts.delete_by)

    play(story)


def test_one_that_was_recalled_before_it_was_listed_goes_at_the_next_round(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await one_made(world)
        recipient = world[RECIPIENT]

        def killed(step: str) -> None:
            if step == "appeared":
                raise Killed(step)

        await taken_with(world, facts, killed)
        here = ExtractsHere(recipient, world.now)
        said = await recalling.take_notice(recipient, here, HOLDER, notice(world, facts), world.now)
        assert said.found == "not-held"
        await asyncio.to_thread(tidy_held, recipient, world.now)
        with pytest.raises(Refused) as raised:
            await asyncio.to_thread(held_extracts.open_held, recipient, facts.cover.extract, world.now)
        assert raised.value.code == "gateway.extract_recalled", "listed or not, nobody opens it any more"
        await recalling.keep_up(recipient, here, world.now)
        assert held(recipient) == () and not held_path(recipient, facts.cover.extract).exists()
        kept = recalling._said(recipient, HOLDER, facts.cover.extract)
        assert kept is not None and kept.deletion.found == "deleted" and kept.sent

    play(story)


def test_a_notice_is_done_beside_the_event_loop(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await one_made(world)
        recipient, threads = world[RECIPIENT], set()

        class Watched(ExtractsHere):
            def arrived(self) -> Any:
                threads.add(threading.current_thread())
                return super().arrived()

            def came(self, extract: bytes) -> Any:
                threads.add(threading.current_thread())
                return super().came(extract)

        here = Watched(recipient, world.now)
        await recalling.take_notice(recipient, here, HOLDER, notice(world, facts), world.now)
        await recalling.keep_up(recipient, here, world.now)
        assert threads and threading.main_thread() not in threads

    play(story)


def test_the_same_notice_again_is_not_answered_each_time(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await one_made(world)
        recipient, sent = world[RECIPIENT], []
        world.alter(recipient, recalling.Deletion, lambda to, message: sent.append(to))
        here = ExtractsHere(recipient, world.now)
        asked = notice(world, facts)
        said = [await recalling.take_notice(recipient, here, HOLDER, asked, world.now) for _ in range(5)]
        assert sent == [HOLDER] and len(set(said)) == 1
        later = lambda: world.now() + recalling.ANSWERED_MS + 1  # noqa: E731
        await recalling.take_notice(recipient, here, HOLDER, asked, later)
        assert sent == [HOLDER] * 2

    play(story)


def test_what_an_issuer_has_not_anchored_or_not_granted_is_not_taken(play: Play) -> None:
    """No log, no release: that is for the recipient to see, too, whatever an issuer signs."""

    async def story(world: Any) -> None:
        facts = await one_made(world)
        holder, recipient = world[HOLDER], world[RECIPIENT]
        path, seal = made_path(holder, facts.cover.extract), recipient.keys.newest.seal
        chain = recipient.account.state.get(access.chain_key(HOLDER), access.ChainState)
        grant_of = held_extracts.check_held(recipient, HOLDER, facts.grant, TABLE, world.now())
        assert grant_of.check(path, facts.cover.extract) == facts
        opened = inspect_extract(path, [seal], [holder.signer.key], RECIPIENT)
        body = path.read_bytes()[: facts.length]
        for changes, code in (
            ({"audit": chain.last + 1}, "gateway.extract_not_announced"),
            ({"grant": "another"}, "extracts.altered"),
            ({"commitment": bytes(32)}, "extracts.altered"),
            ({"dataset": "others"}, "extracts.altered"),
            ({"delete_by": grant_of.grant.terms.delete_by + 1}, "extracts.altered"),
        ):
            other = msgspec.structs.replace(facts, **changes)
            path.write_bytes(body + seal_end(other, opened.key, seal.key, holder.signer).bytes())
            with pytest.raises(VerificationError) as found:
                grant_of.check(path, facts.cover.extract)
            assert found.value.code == code, changes
        with pytest.raises(VerificationError):
            grant_of.check(path, bytes(16))

    play(story)
