"""A restored sequencer's ledger takes back blocks that bear its own signature, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant
from ledger.engines import EmbeddedEngine
from ledger.engines.recovery import Recovery
from ledger.machine import Block
from wire.checkpoint import Note, sign_checkpoint
from wire.errors import MedveilError, Refused, VerificationError

COUNT = 6


def grown(world: Any, count: int = COUNT) -> list[tuple[Block, Note]]:
    """Blocks, each with its head as the sequencer signs it and two members cosign it."""
    shown = []
    for number in range(count):
        world.act("insurer", AnchorGrant(f"g{number}", bytes(32), world.start, world.start + 10**9, 0))
        shown.append((world.blocks[-1], world.note(("insurer", "regulator"))))
    return shown


@pytest.fixture
def recovery(world: Any, tmp_path: Path) -> Iterator[Recovery]:
    opened = Recovery(tmp_path / "ledger.sqlite", world.founding)
    yield opened
    opened.close()


def test_the_engine_goes_on_from_what_was_taken_back(world: Any, tmp_path: Path) -> None:
    shown = grown(world)
    path = tmp_path / "ledger.sqlite"
    for first, last in ((0, 2), (2, COUNT)):  # a backup after two blocks; then the rest
        recovery = Recovery(path, world.founding)
        assert recovery.height == first
        assert not recovery.check_reached(shown[-1][1])
        for block, note in shown[first:last]:
            recovery.append(block, note)
        assert recovery.height == last and recovery.check_reached(shown[last - 1][1])
        recovery.close()

    async def test() -> None:
        signer = world.signer("bureau", "cosign")
        async with await EmbeddedEngine.open(path, world.founding, signer, lambda: world.time) as engine:
            assert engine.machine.height == COUNT
            assert engine.machine.log.root() == world.machine.log.root()
            stored = [pair async for pair, _ in _first(engine)]
            assert stored == [block for block, _ in shown]

    asyncio.run(test())


async def _first(engine: EmbeddedEngine) -> Any:
    async for pair in engine.subscribe(1):
        yield pair
        if pair[0].header.height == COUNT:
            return


def test_blocks_that_it_did_not_show(world: Any, recovery: Recovery) -> None:
    shown = grown(world)
    (first, head), (second, second_head) = shown[:2]
    strange = Note(head.checkpoint, sign_checkpoint(world.signer("insurer", "cosign"), *_head(head)).lines)
    header = msgspec.structs.replace(first.header, time=first.header.time + 1)
    wrong: list[tuple[Block, Note]] = [
        (first, strange),  # signed by a member
        (first, second_head),  # the head of another block
        (second, second_head),  # not the next
        (msgspec.structs.replace(first, header=header), head),
        (first, Note(head.checkpoint, ())),
    ]
    for block, note in wrong:
        with pytest.raises(MedveilError):
            recovery.append(block, note)
        assert recovery.height == 0
    for block, note in shown:
        recovery.append(block, note)
    assert recovery.height == COUNT


def _head(note: Note) -> tuple[str, int, bytes]:
    return note.checkpoint.origin, note.checkpoint.size, note.checkpoint.root


def test_two_histories_are_told(world: Any, recovery: Recovery) -> None:
    for block, note in grown(world):
        recovery.append(block, note)
    other = sign_checkpoint(world.signer("bureau", "cosign"), world.trust.origin, 4, b"x" * 32)
    recovery.check_shown(other)
    with pytest.raises(VerificationError) as caught:
        recovery.check_reached(other)
    assert caught.value.code == "ledger.fork"


def test_a_change_of_members_needs_a_newer_backup(world: Any, recovery: Recovery) -> None:
    world.act("insurer", world.rotation("insurer", from_height=world.machine.height + 4))
    while len(world.blocks) < 8:
        world.act("regulator", AnchorGrant(f"r{len(world.blocks)}", bytes(32), world.start, world.start + 10**9, 0))
    height = world.machine.trust.latest.from_height
    assert 1 < height <= 8
    machine = type(world.machine)(world.founding)
    with pytest.raises(Refused) as caught:
        for block in world.blocks:
            machine.replay(block)
            root = machine.log.root()
            recovery.append(
                block, sign_checkpoint(world.signer("bureau", "cosign"), world.trust.origin, machine.log.size, root)
            )
    assert caught.value.code == "recovery.members_changed" and caught.value.facts["height"] == height
    assert recovery.height == height - 1
