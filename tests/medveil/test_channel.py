"""Messages between organisations: order, repetition, addressing, sealing."""

from __future__ import annotations

import asyncio
import os
from functools import partial

import pytest

from medveil.channel import InMemoryPost
from medveil.gateway.parcels import Address, Parcel, _Signed, pack, unpack
from wire.canonical import encode
from wire.domains import MESSAGE, SEAL_MESSAGE, framed
from wire.errors import MedveilError, Unavailable, VerificationError
from wire.sealing import OpenKey, open, seal
from wire.signing import Signer


def test_out_of_order_and_repeated_messages_arrive_once_and_in_order() -> None:
    async def run() -> list[int]:
        post = InMemoryPost()
        a, b = post.join("a"), post.join("b")
        for sequence in (2, 0, 0, 1, 2, 3, 1):
            await a.send("b", b"s", sequence, bytes([sequence]))
        return [(await b.receive(b"s", 1)).sequence for _ in range(4)]

    assert asyncio.run(run()) == [0, 1, 2, 3]


def test_sessions_and_senders_do_not_mix() -> None:
    async def run() -> None:
        post = InMemoryPost()
        a, b, c = post.join("a"), post.join("b"), post.join("c")
        await a.send("c", b"one", 0, b"a1")
        await b.send("c", b"two", 0, b"b2")
        assert (await c.receive(b"two", 1)).payload == b"b2"
        assert (await c.receive(b"one", 1)).payload == b"a1"
        with pytest.raises(Unavailable) as late:
            await c.receive(b"one", 0.01)
        assert late.value.code == "channel.timeout"
        with pytest.raises(Unavailable) as unknown:
            await a.send("d", b"one", 0, b"")
        assert unknown.value.code == "channel.unknown_organisation"

    asyncio.run(run())


def test_what_comes_of_a_session_that_is_over_is_dropped() -> None:
    async def run() -> None:
        post = InMemoryPost()
        a, b, c = post.join("a"), post.join("b"), post.join("c")
        await a.send("c", b"one", 0, b"a0")
        await c.end(b"one", ("a",))
        await a.send("c", b"one", 1, b"a1")
        await b.send("c", b"one", 0, b"b0")
        assert (await c.receive(b"one", 1)).payload == b"b0"
        with pytest.raises(Unavailable):
            await c.receive(b"one", 0.01)

    asyncio.run(run())


@pytest.fixture
def keys() -> tuple[Signer, OpenKey]:
    return Signer(os.urandom(32)), OpenKey.generate(os.urandom)


def test_a_parcel_opens_only_as_addressed(keys: tuple[Signer, OpenKey]) -> None:
    signer, open_key = keys
    address = Address("a", "b", b"session", 3)
    payload = pack(address, b"content", signer, open_key.key)
    assert b"content" not in payload
    assert unpack(payload, address, partial(open, open_key), (signer.key,)) == b"content"
    for other in (
        Address("c", "b", b"session", 3),
        Address("a", "c", b"session", 3),
        Address("a", "b", b"another", 3),
        Address("a", "b", b"session", 4),
    ):
        with pytest.raises(VerificationError):
            unpack(payload, other, partial(open, open_key), (signer.key,))
    with pytest.raises(VerificationError):
        unpack(payload, address, partial(open, open_key), (Signer(os.urandom(32)).key,))
    with pytest.raises(VerificationError):
        unpack(payload, address, partial(open, OpenKey.generate(os.urandom)), (signer.key,))


def test_a_recipient_cannot_pass_a_parcel_on_as_meant_for_somebody_else(keys: tuple[Signer, OpenKey]) -> None:
    """HPKE names no sender: b has what a signed for it, and seals that to c as if a had sent it there."""
    signer, open_key = keys
    inner = Parcel(
        meant := Address("a", "b", b"session", 3), b"yes", signer.sign(MESSAGE, encode(_Signed(meant, b"yes")))
    )
    for address in (
        Address("a", "c", b"session", 3),
        Address("a", "b", b"another", 3),
        Address("a", "b", b"session", 4),
        Address("d", "b", b"session", 3),
    ):
        again = encode(seal(open_key.key, framed(SEAL_MESSAGE, encode(address)), encode(inner)))
        with pytest.raises(VerificationError) as found:
            unpack(again, address, partial(open, open_key), (signer.key,))
        assert found.value.code == "channel.misaddressed" and found.value.facts["sender"] == address.sender


def test_every_changed_byte_of_a_parcel_is_refused(keys: tuple[Signer, OpenKey]) -> None:
    signer, open_key = keys
    address = Address("a", "b", b"session", 0)
    payload = pack(address, b"content", signer, open_key.key)
    for place in range(len(payload)):
        changed = bytearray(payload)
        changed[place] ^= 1
        with pytest.raises(MedveilError):
            unpack(bytes(changed), address, partial(open, open_key), (signer.key,))
