"""The sequencer's door: what other members ask of its engine, over the peers' listener.

Every route is for members only; who asks is the organisation of the client certificate. Nothing is believed because of
who sent it: envelopes and cosignatures carry their own signatures, answers carry proofs or are replayed.

    POST envelopes            the signed envelope               -> Bytes (its id)
    POST cosignatures         Cosigned                          -> FinalIs
    GET  receipts/ID?wait=MS  waits until it is final           -> Receipt
    GET  refusals/ID                                            -> Why
    GET  nonces/ORGANISATION                                    -> Number
    GET  values/KEY?prove=1   the key in hex                    -> Value | ProvenValue
    GET  head                                                   -> HeadIs
    GET  blocks?after=H&wait=MS   the blocks that follow        -> Blocks
    GET  handovers?after=H                                      -> Handovers
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ledger.engines import Engine
from ledger.machine import Block
from ledger.receipts import ProvenValue
from medveil.network.answers import Told, tell, write_answer
from wire.canonical import Wire, decode, encode
from wire.checkpoint import SignatureLine
from wire.errors import DecodeError, MedveilError, Refused
from wire.identifiers import Name, check_name
from wire.keyset import Height

LONGEST_WAIT = 25.0
"""Seconds for which one question may stay open: below the patience of proxies."""
MOST_BLOCKS = 64
"""Blocks of one answer."""
BLOCK_BYTES = 2 * 1024 * 1024
"""Bytes of blocks after which an answer is full: a member that reads none of its answers has hundreds of them here."""
LARGEST_ENVELOPE = 1_400_000
"""Bytes of an envelope that are read at all."""


class Bytes(Wire, frozen=True, tag="network.bytes"):
    """Some bytes."""

    value: bytes


class Done(Wire, frozen=True, tag="network.done"):
    """It was done, or there was nothing to do."""


class Number(Wire, frozen=True, tag="network.number"):
    """A number."""

    value: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Value(Wire, frozen=True, tag="network.value"):
    """The final value of a state key, None for none."""

    value: bytes | None


class Why(Wire, frozen=True, tag="network.why"):
    """Why an envelope was refused; None if it took effect."""

    told: Told | None


class HeadIs(Wire, frozen=True, tag="network.head"):
    """See `ledger.engines.Head`."""

    height: Height
    final_height: Height
    note: bytes | None


class FinalIs(Wire, frozen=True, tag="network.final"):
    """The checkpoint of a final head that covers what was cosigned; None while there is none."""

    note: bytes | None


class Cosigned(Wire, frozen=True, tag="network.cosigned"):
    """A member's cosignature of the head of that size."""

    size: Height
    name: Name
    key_id: bytes
    signature: bytes


class BlockWithHead(Wire, frozen=True, tag="network.block"):
    """A block and the head over it as the sequencer signed it."""

    block: Block
    note: bytes


class Blocks(Wire, frozen=True, tag="network.blocks"):
    """Blocks in order, none if there are no more yet. closed: there will be no more: the engine closes."""

    blocks: tuple[BlockWithHead, ...]
    closed: bool


class Handovers(Wire, frozen=True, tag="network.handovers"):
    """Evidence of changes of members, in order."""

    handovers: tuple[ProvenValue, ...]


Work = Callable[[Request, str], Awaitable[Wire]]
Identify = Callable[[Request], str]
"""The organisation that asks, by its certificate. Raises MedveilError."""


def answering(identify: Identify, work: Work) -> Callable[[Request], Awaitable[Response]]:
    """A route that does `work` for a member and answers in canonical bytes, errors too."""

    async def route(request: Request) -> Response:
        answer: Wire | MedveilError
        try:
            answer = await work(request, identify(request))
        except MedveilError as error:
            answer = error
        except ClientDisconnect:  # nobody waits for an answer any more
            return Response()
        return Response(write_answer(answer), media_type="application/octet-stream")

    return route


def ledger_routes(engine: Engine, identify: Identify) -> list[Route]:
    """The routes under ``/peer/v1/ledger``."""
    door = _Door(engine)
    found: tuple[tuple[str, str, Work], ...] = (
        ("POST", "/envelopes", door.submit),
        ("POST", "/cosignatures", door.cosign),
        ("GET", "/receipts/{id}", door.receipt),
        ("GET", "/refusals/{id}", door.refusal),
        ("GET", "/nonces/{organisation}", door.nonce),
        ("GET", "/values/{key}", door.value),
        ("GET", "/head", door.head),
        ("GET", "/blocks", door.blocks),
        ("GET", "/handovers", door.handovers),
    )
    return [
        Route(f"/peer/v1/ledger{path}", answering(identify, work), methods=[method]) for method, path, work in found
    ]


async def read_body(request: Request, most: int) -> bytes:
    """The body, if it is at most `most` bytes. Raises Refused."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise Refused("network.too_large", limit=most)
    return bytes(body)


def _hex(text: str, length: int | None = None) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        raise DecodeError("network.bad_question") from None
    if (length is not None and len(value) != length) or len(value) > 1024 or value.hex() != text:
        raise DecodeError("network.bad_question")
    return value


def question_number(request: Request, name: str) -> int:
    """A number of the query, 0 where it is not given. Raises DecodeError."""
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise DecodeError("network.bad_question")
    return int(text)


class Lanes(defaultdict[str, asyncio.Lock]):
    """One a member: what costs its asker nothing is done once at a time for each, and between that for the others."""

    def __init__(self) -> None:
        super().__init__(asyncio.Lock)


class _Door:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lanes = Lanes()

    async def submit(self, request: Request, member: str) -> Wire:
        return Bytes(await self._engine.submit(await read_body(request, LARGEST_ENVELOPE)))

    async def cosign(self, request: Request, member: str) -> Wire:
        said = decode(Cosigned, await read_body(request, 4096))
        line = SignatureLine(said.name, said.key_id, said.signature)
        return FinalIs(await self._engine.add_cosignature(said.size, line))

    async def receipt(self, request: Request, member: str) -> Wire:
        wait = min(question_number(request, "wait") / 1000, LONGEST_WAIT)
        return await self._engine.wait(_hex(request.path_params["id"], 32), wait)

    async def refusal(self, request: Request, member: str) -> Wire:
        why = await self._engine.refusal(_hex(request.path_params["id"], 32))
        return Why(None if why is None else tell(why))

    async def nonce(self, request: Request, member: str) -> Wire:
        organisation = check_name(request.path_params["organisation"], "organisation")
        return Number(await self._engine.next_nonce(organisation))

    async def value(self, request: Request, member: str) -> Wire:
        key = _hex(request.path_params["key"])
        if question_number(request, "prove"):
            return await self._engine.query(key, prove=True)
        return Value(await self._engine.query(key))

    async def head(self, request: Request, member: str) -> Wire:
        head = await self._engine.head()
        return HeadIs(head.height, head.final_height, head.note)

    async def handovers(self, request: Request, member: str) -> Wire:
        return Handovers(await self._engine.handovers(question_number(request, "after")))

    async def blocks(self, request: Request, member: str) -> Wire:
        after = question_number(request, "after")
        wait = min(question_number(request, "wait") / 1000, LONGEST_WAIT)
        if (await self._engine.head()).height <= after:  # it waits for the next one
            return await self._blocks(after, wait)
        async with self._lanes[member]:
            return await self._blocks(after, wait)

    async def _blocks(self, after: int, wait: float) -> Blocks:
        found: list[BlockWithHead] = []
        size = 0
        following = self._engine.subscribe(after + 1).__aiter__()
        try:
            async with asyncio.timeout(max(wait, 0.05)) as limit:
                async for block, note in following:
                    found.append(BlockWithHead(block, note.format()))
                    size += len(encode(block))
                    if len(found) == MOST_BLOCKS or size >= BLOCK_BYTES:
                        return Blocks(tuple(found), False)
                    if (await self._engine.head()).height <= block.header.height:
                        return Blocks(tuple(found), False)
                    limit.reschedule(None)  # what is there already is not waited for
                    await asyncio.sleep(0)  # nor does anybody wait for all of it to be read
        except TimeoutError:
            return Blocks((), False)
        return Blocks(tuple(found), True)
