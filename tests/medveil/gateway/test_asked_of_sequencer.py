"""What an account asks of the sequencer, and what it knows without asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from medveil.gateway.ledger_account import _Shown
from wire.checkpoint import parse_note
from wire.errors import DecodeError, QuorumNotMet, Refused, VerificationError

from .anchored_grants import anchored, anchoring

Play = Callable[[Callable[[Any], Any]], Any]


def test_the_nonce_is_asked_for_once_and_after_a_refusal(play: Play) -> None:
    """What is written one after the other is known; another process may have written in the same name."""

    async def story(world: Any) -> None:
        account, engine = world.insurer.account, world.insurer.account._engine
        await account.submit(anchoring(world, "first"))
        asked: list[str] = []

        class Counting:
            def __getattr__(self, name: str) -> Any:
                return getattr(engine, name)

            async def next_nonce(self, organisation: str) -> int:
                asked.append(organisation)
                return int(await engine.next_nonce(organisation))

            async def submit(self, envelope: bytes) -> bytes:
                while others:
                    await engine.submit(others.pop())
                return bytes(await engine.submit(envelope))

        account._engine, others = Counting(), list[bytes]()
        for number in range(3):
            await account.submit(anchoring(world, f"next-{number}"))
        assert not asked
        others.append(await account._sealed((anchoring(world, "of-another-process"),)))
        with pytest.raises(Refused) as behind:
            await account.submit(anchoring(world, "behind"))
        assert behind.value.code == "ledger.nonce"
        await account.submit(anchoring(world, "behind"))
        assert asked == ["insurer"]
        assert anchored(account.state, "behind") and anchored(account.state, "of-another-process")

    play(story)


def test_what_it_wrote_itself_is_known_without_asking(play: Play) -> None:
    """Nobody asks for the head before a write but whoever has just begun, or was refused."""

    async def story(world: Any) -> None:
        site, engine = world.insurer, world.insurer.account._engine
        asked: list[str] = []

        class Counting:
            def __getattr__(self, name: str) -> Any:
                return getattr(engine, name)

            async def head(self) -> Any:
                asked.append("head")
                return await engine.head()

        async def ensured(name: str) -> None:
            await site.ensure(lambda state: bool(anchored(state, name)), anchoring(world, name))

        await site.submit(anchoring(world, "first"))
        site.account._engine = Counting()
        await ensured("second")
        await ensured("second")
        assert not asked
        site.account._writes_known = False  # as in a process that has just begun
        await ensured("second")
        assert asked == ["head"]
        site.account._unsettled = b"an envelope of which nobody knows what became of it"
        await ensured("second")
        assert asked == ["head", "head"]
        site.account._unsettled = None

    play(story)


def test_what_another_wrote_meanwhile_stands_all_the_same(play: Play) -> None:
    """Of others' writes the organisation may know less than the sequencer: then the refusal has it look again."""

    async def story(world: Any) -> None:
        site, seen = world.insurer, list[int]()
        await site.submit(anchoring(world, "first"))

        def stands(state: Any) -> bool:
            seen.append(state.height)
            return len(seen) > 1 and bool(anchored(state, "first"))

        await site.ensure(stands, anchoring(world, "first"))
        assert len(seen) == 2
        with pytest.raises(Refused):
            await site.ensure(lambda state: False, anchoring(world, "first"))

    play(story)


def test_who_cosigns_last_learns_with_it_what_is_final(play: Play) -> None:
    """Nobody asks for the checkpoint of a block whose cosignature was answered with it."""

    async def story(world: Any) -> None:
        account, engine = world.bureau.account, world.bureau.account._engine
        waited: list[bytes] = []

        class Late:
            def __getattr__(self, name: str) -> Any:
                return getattr(engine, name)

            async def add_cosignature(self, size: int, line: Any) -> bytes | None:
                while (await engine.head()).final_height + 1 < size:  # the others are enough
                    await asyncio.sleep(0.01)
                final: bytes | None = await engine.add_cosignature(size, line)
                return final

            async def wait(self, tx: bytes, timeout: float) -> Any:
                waited.append(tx)
                return await engine.wait(tx, timeout)

        account._engine = Late()
        for number in range(3):
            height = (await world.insurer.submit(anchoring(world, f"others-{number}"))).block.height
            await account.until(lambda state, height=height: state.height >= height or None, "the block")
        assert not waited

    play(story)


def test_what_a_cosignature_is_answered_with_is_not_believed(play: Play) -> None:
    """A head that too few cosigned, one with a changed root, and no checkpoint at all."""

    async def story(world: Any) -> None:
        account, engine = world.insurer.account, world.insurer.account._engine
        receipt = await account.submit(anchoring(world, "real"))
        final, before = parse_note(receipt.note), account.state
        alone = replace(final, lines=final.lines[:1])
        other = replace(final.checkpoint, root=bytes(32))
        forged = replace(final, checkpoint=other)
        for lie in (alone.format(), forged.format(), b"no checkpoint"):
            shown: asyncio.Queue[_Shown | None] = asyncio.Queue()
            shown.put_nowait(_Shown(before.height + 1, receipt.result.envelope, lie))
            with pytest.raises((QuorumNotMet, VerificationError, DecodeError)):
                await asyncio.wait_for(account._learn(shown), 5)
            assert account.state is before
        assert (await engine.head()).final_height == before.height

    play(story)
