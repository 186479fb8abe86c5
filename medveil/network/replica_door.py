"""What a member shows the others of its own replica: the head it cosigned last, and its copy of the blocks.

A sequencer whose ledger was restored from a backup takes back from here what it had shown; a restored member of a
consortium in which everybody must cosign learns here where the others are. Everything shown bears the signatures of
sequencer and member, and is checked by them.

    GET replica/head             -> Shown
    GET replica/blocks?after=H   -> Blocks, as many as there are at once
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.requests import Request
from starlette.routing import Route

from ledger.machine import Block
from ledger.replicas import Replica
from medveil.network.ledger_door import (
    BLOCK_BYTES,
    MOST_BLOCKS,
    Blocks,
    BlockWithHead,
    Identify,
    Lanes,
    answering,
    question_number,
)
from wire.canonical import Wire, encode
from wire.checkpoint import Note
from wire.keyset import Height


class Shown(Wire, frozen=True, tag="network.shown"):
    """note: the last head that this member cosigned, with its signature; None for none. height: of its last block."""

    note: bytes | None
    height: Height


class Copy(Protocol):
    """Blocks at home: `ledger.engines.block_copy.BlockCopy`."""

    @property
    def height(self) -> int:
        """Height of the last one; 0 for none."""
        ...

    def block(self, height: int) -> tuple[Block, Note]:
        """One block, and the head over it as the sequencer signed it."""
        ...


def replica_routes(replica: Replica, copy: Copy | None, identify: Identify) -> list[Route]:
    """The routes under ``/peer/v1/replica``, for members. copy: None at the sequencer: its blocks are its engine's."""

    async def head(request: Request, member: str) -> Wire:
        note = replica.cosigned
        return Shown(None if note is None else note.format(), replica.height if copy is None else copy.height)

    lanes = Lanes()

    async def blocks(request: Request, member: str) -> Wire:
        async with lanes[member]:
            return await asyncio.to_thread(_page, copy, question_number(request, "after"))

    found = (("head", head), ("blocks", blocks))
    return [Route(f"/peer/v1/replica/{name}", answering(identify, work), methods=["GET"]) for name, work in found]


def _page(copy: Copy | None, after: int) -> Blocks:
    found: list[BlockWithHead] = []
    size, last = 0, 0 if copy is None else copy.height
    while copy is not None and after + len(found) < last and len(found) < MOST_BLOCKS and size < BLOCK_BYTES:
        block, note = copy.block(after + len(found) + 1)
        found.append(BlockWithHead(block, note.format()))
        size += len(encode(block))
    return Blocks(tuple(found), True)
