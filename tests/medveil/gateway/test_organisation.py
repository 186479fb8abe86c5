"""What arrives at an organisation: properly signed, sealed and typed, or an abort that names who sent it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from ledger.contracts.membership import Consortium
from medveil.channel import Delivery
from medveil.gateway.organisation import Refusal, refusal
from medveil.gateway.own_keys import Secrets
from medveil.gateway.parcels import Address, Parcel, pack
from medveil.gateway.query_run import KeysOfRound, QueryAnswer
from wire import sealing
from wire.canonical import decode, encode
from wire.domains import SEAL_MESSAGE, framed
from wire.errors import DecodeError, ProtocolAbort, Refused, Unavailable, VerificationError
from wire.signing import Signer

Play = Callable[[Callable[[Any], Any]], Any]
SESSION = b"session"
WORDS = Refusal("a.b", "no")


async def refused(world: Any, kind: type[Any] = QueryAnswer) -> ProtocolAbort:
    """The abort with which hospital-1 meets its next message."""
    with pytest.raises(ProtocolAbort) as abort:
        await world["hospital-1"].receive(kind, SESSION)
    return abort.value


def test_a_message_of_another_type(play: Play) -> None:
    async def story(world: Any) -> None:
        for message in (WORDS, KeysOfRound(()), Consortium(bytes(32), 1, 1, 1, "bureau", "Asia/Shanghai", 1, 1, 0, ())):
            await world.researcher.send("hospital-1", SESSION, message)
            abort = await refused(world)
            assert (abort.code, abort.parties, abort.round) == ("channel.bad_message", ("researcher",), "receive")
        await world.researcher.send("hospital-1", SESSION, QueryAnswer(bytes(16)))
        sender, message = await world["hospital-1"].receive(QueryAnswer, SESSION)
        assert (sender, message.refused) == ("researcher", None), "one bad message does not spoil the session"

    play(story)


def test_what_could_not_be_sent_takes_no_place(play: Play) -> None:
    """Else its recipient would wait for it, and for all that comes after it, for ever."""

    async def story(world: Any) -> None:
        researcher = world.researcher
        channel = researcher._end()
        send, full = channel.send, [False]

        async def sending(*given: Any) -> None:
            if full.pop():
                raise Unavailable("network.undelivered", organisation="hospital-1")
            await send(*given)

        channel.send = sending
        for refused in (False, True, False):
            full.append(refused)
            try:
                await researcher.send("hospital-1", SESSION, QueryAnswer(bytes([refused]) * 16))
            except Unavailable:
                assert refused
        for _ in range(2):
            async with asyncio.timeout(5):
                sender, message = await world["hospital-1"].receive(QueryAnswer, SESSION)
            assert (sender, message.handle) == ("researcher", bytes(16))

    play(story)


def test_bytes_that_are_no_parcel(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital, researcher, post = world["hospital-1"], world.researcher, world.consortium.post
        key = hospital.keys.newest.seal.key
        address = Address("researcher", "hospital-1", SESSION, 0)

        def sealed(plaintext: bytes, at: int) -> bytes:
            info = framed(SEAL_MESSAGE, encode(Address("researcher", "hospital-1", SESSION, at)))
            return encode(sealing.seal(key, info, plaintext))

        good = encode(QueryAnswer(bytes(16)))
        payloads = [
            lambda at: b"",
            lambda at: secrets.token_bytes(200),
            lambda at: encode(WORDS),
            lambda at: sealed(b"", at),
            lambda at: sealed(secrets.token_bytes(100), at),
            lambda at: sealed(encode(WORDS), at),
            lambda at: sealed(encode(Parcel(address, good, researcher.signer.sign(b"other", good))), at),
            # sealed to somebody else; for another place; signed by somebody else; not decodable inside
            lambda at: pack(
                Address("researcher", "hospital-1", SESSION, at),
                good,
                researcher.signer,
                world.bureau.keys.newest.seal.key,
            ),
            lambda at: pack(Address("researcher", "hospital-1", SESSION, at + 1), good, researcher.signer, key),
            lambda at: pack(
                Address("researcher", "hospital-1", SESSION, at), good, Signer(secrets.token_bytes(32)), key
            ),
            lambda at: pack(Address("researcher", "hospital-1", SESSION, at), good, world.insurer.signer, key),
            lambda at: pack(Address("researcher", "hospital-1", SESSION, at), good[:-1], researcher.signer, key),
            lambda at: pack(Address("researcher", "hospital-1", SESSION, at), b"\xc1", researcher.signer, key),
        ]
        for at, payload in enumerate(payloads):
            post.deliver("hospital-1", SESSION, Delivery("researcher", at, payload(at)))
            abort = await refused(world)
            assert (abort.code, abort.parties) == ("channel.bad_message", ("researcher",)), at
        post.deliver("hospital-1", SESSION, Delivery("stranger", 0, b"hello"))
        assert (await refused(world)).parties == ("stranger",)

    play(story)


def test_a_repeated_or_redirected_parcel(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital, post = world["hospital-1"], world.consortium.post
        address = Address("researcher", "hospital-1", SESSION, 0)
        parcel = pack(address, encode(WORDS), world.researcher.signer, hospital.keys.newest.seal.key)
        post.deliver("hospital-1", SESSION, Delivery("researcher", 0, parcel))
        assert (await hospital.receive(Refusal, SESSION))[1] == WORDS
        post.deliver("hospital-1", SESSION, Delivery("researcher", 0, parcel))  # again: dropped
        with pytest.raises(Unavailable):
            await hospital.receive(Refusal, SESSION, timeout=0.05)
        for session, sender, place in (
            (SESSION, "researcher", 1),
            (b"other", "researcher", 0),
            (SESSION, "insurer", 0),
        ):
            post.deliver("hospital-1", session, Delivery(sender, place, parcel))
            with pytest.raises(ProtocolAbort):
                await hospital.receive(Refusal, session)

    play(story)


def test_only_the_awaited_senders_are_heard(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        await world.insurer.send("hospital-1", SESSION, QueryAnswer(bytes(16)))
        world.consortium.post.deliver("hospital-1", SESSION, Delivery("stranger", 0, b"junk"))
        await world.researcher.send("hospital-1", SESSION, WORDS)
        assert await hospital.receive(Refusal, SESSION, ("researcher",)) == ("researcher", WORDS)
        await world.insurer.send("hospital-1", SESSION, WORDS)
        with pytest.raises(Unavailable) as late:
            await hospital.receive(Refusal, SESSION, ("researcher",), timeout=0.1)
        assert late.value.code == "channel.timeout"

    play(story)


def test_a_cancelled_wait_ends_at_once_and_loses_nothing(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        for turns in range(8):
            waiting = asyncio.ensure_future(hospital.receive(Refusal, SESSION))
            for _ in range(turns):
                await asyncio.sleep(0)
            await world.researcher.send("hospital-1", SESSION, WORDS)
            waiting.cancel()
            (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
            assert isinstance(outcome, asyncio.CancelledError) or outcome == ("researcher", WORDS)
            if isinstance(outcome, asyncio.CancelledError):
                assert (await hospital.receive(Refusal, SESSION))[1] == WORDS

    play(story)


def test_what_others_are_told_of_an_error() -> None:
    """A rule's no in its words; of trouble at home, only that there is some."""
    told = refusal("hospital-1", Refused("gateway.not_in_roster", organisation="hospital-1"))
    assert told.code == "gateway.not_in_roster" and "hospital-1" in told.words
    for error in (
        Unavailable("privacy.store_failed", path="/srv/secret", reason="I/O"),
        VerificationError("privacy.vault_keys", path="/srv/secret"),
        DecodeError("privacy.store_damaged", path="/srv/secret"),
        ValueError("Zhang San, 73519264"),
        KeyError("Zhang San"),
    ):
        told = refusal("hospital-1", error)
        assert told.code == "gateway.trouble"
        assert "secret" not in told.words and "Zhang" not in told.words and "hospital-1" in told.words


def test_an_organisation_shows_no_secret(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        secrets_of = decode(Secrets, hospital.vault.document("secrets", "keys"))
        shown = "".join(map(repr, (hospital, hospital.signer, hospital.keys, hospital.vault, hospital.account)))
        for name in Secrets.__struct_fields__:
            key = getattr(secrets_of, name)
            assert key.hex() not in shown and repr(key)[2:-1] not in shown
        with pytest.raises(VerificationError):
            await hospital.send("nobody", SESSION, WORDS)

    play(story)
