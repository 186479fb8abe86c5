"""How a replica follows an engine, whatever the engine: from its own head on, block by block.

It starts *at* its own head, not after it: a sequencer that was restarted may have lost who cosigned that, and one
that goes on from an older copy shows another head there. Where a head is refused, the replica asks what else is
shown, so that two histories become evidence and not just an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from ledger.engines.engine import Engine
from ledger.machine import Block, BlockHeader
from ledger.replicas import Replica
from wire.checkpoint import Note, SignatureLine
from wire.errors import DecodeError, Refused, Unavailable, VerificationError

PAUSE = 1.0
"""Seconds between two looks at a block that is dated too far in the future."""
SEEKING = 30.0
"""Seconds that an engine has to show the history under a head that was refused."""


class Followed(NamedTuple):
    """A block that a replica has replayed, the head over it, and the replica's cosignature, if it gives one."""

    block: Block
    note: Note
    line: SignatureLine | None


async def attend(engine: Engine, replica: Replica) -> None:
    """Let a replica follow the engine and cosign for as long as the engine is open.

    Returns when the engine closes. Raises what `Replica.follow` raises, except for a block that is dated too far in
    the future, which it awaits: then this member has stopped cosigning, and somebody should look into it.
    """
    async for step in followed(engine, replica):
        if step.line is not None:
            await engine.add_cosignature(step.note.checkpoint.size, step.line)


async def followed(engine: Engine, replica: Replica) -> AsyncIterator[Followed]:
    """What the replica has followed, block by block; whoever iterates hands the cosignatures in. See `attend`."""
    async for block, note in _shown(engine, replica):
        while True:
            try:
                line = replica.cosign((block,), note)
                break
            except VerificationError as error:
                if error.code != "ledger.future_block":
                    await _seek_evidence(engine, replica, note)
                    raise
            await asyncio.sleep(PAUSE)
            if await _is_closed(engine):
                return
        if line is not None:
            await asyncio.to_thread(replica.remember, note.with_line(line))
        yield Followed(block, note, line)


async def _shown(engine: Engine, replica: Replica) -> AsyncIterator[tuple[Block, Note]]:
    """What the engine shows, from the replica's own head on."""
    if replica.height > replica.start:
        try:
            async for own in engine.subscribe(replica.height):
                yield own
                break
        except Refused as error:  # an engine that started from a snapshot of just that head
            if error.code != "ledger.before_snapshot":
                raise
    async for pair in engine.subscribe(replica.height + 1):
        yield pair


async def _is_closed(engine: Engine) -> bool:
    try:
        await engine.head()
    except Unavailable as error:
        if error.code != "ledger.closed":
            raise
        return True
    return False


async def _seek_evidence(engine: Engine, replica: Replica, note: Note) -> None:
    """Ask for the history under a head that was refused; raises with the evidence if it is not the one cosigned."""
    own = replica.cosigned
    if own is None or replica.split_view is not None:
        return
    try:
        async with asyncio.timeout(SEEKING):
            async for _, head in engine.subscribe(own.checkpoint.size - 1):  # two heads of one size say it all
                replica.look_for_split((), head)
                break
            headers = list[BlockHeader]()
            async for block, _ in engine.subscribe(replica.start + 1):
                headers.append(block.header)
                if block.header.height >= note.checkpoint.size - 1:
                    break
            replica.look_for_split(headers, note)
    except VerificationError as error:
        if error.code == "ledger.fork":
            raise
    except (TimeoutError, Refused, Unavailable, DecodeError):
        pass  # it does not show it: the refusal stands without
