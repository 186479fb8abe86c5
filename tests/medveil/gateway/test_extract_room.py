"""Room for extracts that come: promised before they do, counted until they are held, and shared out by issuer."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medveil.gateway import extract_delivery, extract_room, extract_taking, extract_wanted, held_extracts
from medveil.gateway.extract_bytes import prepare
from medveil.gateway.extract_delivery import LARGEST, ExtractOffer
from medveil.gateway.extract_room import room_of
from medveil.gateway.extract_shares import GIB, ExtractShares
from medveil.gateway.extract_wanted import ExtractRequest
from medveil.gateway.made_extracts import made_path
from medveil.gateway.steps import Passing
from wire.errors import Refused, Unavailable

from .extracts_world import HOLDER, RECIPIENT, deliver, grant, load, make, offered, request, wish

Play = Callable[[Callable[[Any], Any]], Any]


def offer(length: int, number: int = 1, ask: bytes = b"") -> ExtractOffer:
    return ExtractOffer(bytes([number]) * 16, ask, "copies", "visits", length, bytes(32))


def promise(world: Any, wanted: ExtractOffer, session: bytes, issuer: str = HOLDER) -> str:
    """Promise an offer's bytes at the recipient; the code of why not, or ""."""
    recipient = world[RECIPIENT]
    part = held_extracts.held_folder(recipient) / f".{wanted.extract.hex()}.extract.{session.hex()}.part"
    try:
        room_of(recipient).promise(recipient, issuer, session, wanted, part)
    except (Refused, Unavailable) as error:
        return error.code
    return ""


async def two(world: Any) -> tuple[Any, Any]:
    """Two extracts that wait for their delivery."""
    load(world)
    await grant(world)
    return await make(world, wish()), await make(world, wish())


def refused_by(outcome: Any) -> str:
    assert isinstance(outcome, Refused) and outcome.code == "gateway.extract_refused", outcome
    return str(outcome.facts["reason"])


def test_what_is_promised_is_free_no_more(play: Play) -> None:
    """Each of two fits on the disk alone."""

    async def story(world: Any) -> None:
        recipient = world[RECIPIENT]
        recipient.extract_shares = ExtractShares(2**60, 2**60, 2**60)
        most = shutil.disk_usage(held_extracts.held_folder(recipient)).free - extract_room.FLOOR
        half = most * 6 // 10
        assert promise(world, offer(half, 1), b"1") == ""
        assert promise(world, offer(half, 2), b"2") == "gateway.extract_no_room"
        assert promise(world, offer(half, 1), b"1") == "", "taken up again it is the same promise"
        room_of(recipient).let_go(HOLDER, b"1")
        assert promise(world, offer(half, 2), b"2") == ""

    play(story)


def test_shares_of_one_and_of_all(play: Play) -> None:
    async def story(world: Any) -> None:
        recipient = world[RECIPIENT]
        recipient.extract_shares = ExtractShares(100, 60, 30)
        assert promise(world, offer(31), b"1") == "gateway.extract_unasked"
        assert promise(world, offer(30), b"1") == ""
        assert promise(world, offer(1, 2), b"2") == "gateway.extract_unasked"
        asks = []
        for holder in (HOLDER, HOLDER, "hospital-2"):
            wanted = request(holder=holder)
            asks.append((await extract_wanted.ask_extract(recipient, wanted, Passing(), world.now)).ask)
        assert promise(world, offer(31, 3, asks[0]), b"3") == "gateway.extract_share"
        assert promise(world, offer(30, 3, asks[0]), b"3") == ""
        assert promise(world, offer(1, 4, asks[0]), b"4") == "gateway.extract_unasked", "one answer to a request"
        assert promise(world, offer(1, 4, asks[1]), b"4") == "gateway.extract_share"
        assert promise(world, offer(1, 4, asks[1]), b"4", "hospital-2") == "", "unasked: that was asked of another"
        assert promise(world, offer(40, 5, asks[2]), b"5", "hospital-2") == "gateway.extracts_full"
        assert promise(world, offer(39, 5, asks[2]), b"5", "hospital-2") == ""
        taken = room_of(recipient).taken(recipient, HOLDER)
        assert taken == (100, 60, 30, 31)
        recipient.extract_shares = ExtractShares(100, 60, 0)
        room_of(recipient).let_go(HOLDER, b"1")
        assert promise(world, offer(1), b"1") == "gateway.extract_unasked", "0: none is taken"

    play(story)


def test_issuers_that_choose_one_session_are_counted_each(play: Play) -> None:
    async def story(world: Any) -> None:
        recipient, session = world[RECIPIENT], b"s" * 16
        recipient.extract_shares = ExtractShares(whole=300, issuer=150, unasked=150)
        assert promise(world, offer(100), session) == promise(world, offer(50, 2), session, "insurer") == ""
        assert room_of(recipient).taken(recipient, HOLDER) == (150, 100, 100, 150)
        room_of(recipient).let_go("insurer", session)
        assert room_of(recipient).under_way() == {bytes([1]) * 16}

    play(story)


def test_what_many_send_unasked_leaves_half_for_what_is_asked(play: Play) -> None:
    async def story(world: Any) -> None:
        recipient = world[RECIPIENT]
        recipient.extract_shares = ExtractShares(100, 60, 30)
        asked_for = await extract_wanted.ask_extract(recipient, request(holder=HOLDER), Passing(), world.now)
        assert promise(world, offer(30, 1), b"1", "hospital-2") == ""
        assert promise(world, offer(21, 2), b"2", "hospital-3") == "gateway.extracts_full"
        assert promise(world, offer(20, 2), b"2", "hospital-3") == ""
        assert promise(world, offer(1, 3), b"3", "insurer-9") == "gateway.extracts_full"
        assert promise(world, offer(50, 4, asked_for.ask), b"4") == ""

    play(story)


def test_an_answer_to_a_request_is_of_its_holder_and_table_and_comes_once(play: Play) -> None:
    async def story(world: Any) -> None:
        recipient, wanted = world[RECIPIENT], request(holder=HOLDER)
        ask = (await extract_wanted.ask_extract(recipient, wanted, Passing(), world.now)).ask
        first, second = b"1" * 16, b"2" * 16

        def noted(holder: str, dataset: str, extract: bytes) -> tuple[str, bytes]:
            extract_wanted.note_delivered(recipient, holder, ask, dataset, extract)
            one = extract_wanted.asked_of(recipient, ask)
            return one.state, one.extract

        assert noted("hospital-2", wanted.dataset, first) == ("waiting", b"")
        assert noted(HOLDER, "another", first) == ("waiting", b"")
        assert noted(HOLDER, wanted.dataset, first) == ("delivered", first)
        assert noted(HOLDER, wanted.dataset, second) == ("delivered", first)

    play(story)


def test_what_is_held_counts(play: Play) -> None:
    async def story(world: Any) -> None:
        first, second = await two(world)
        recipient, extract = world[RECIPIENT], second.cover.extract
        length = made_path(world[HOLDER], first.cover.extract).stat().st_size
        await deliver(world, first)
        assert room_of(recipient).taken(recipient, HOLDER) == (length, length, length, length)
        assert room_of(recipient).taken(recipient, "hospital-2") == (length, 0, 0, length)
        for share in ("unasked", "issuer", "whole"):
            recipient.extract_shares = ExtractShares()._replace(**{share: length + length // 2})
            sent, taken = await deliver(world, second)
            assert isinstance(taken, Refused)
            assert refused_by(sent) == taken.code, "the issuer learns why"
            assert [one.extract for one in held_extracts.held(recipient)] == [first.cover.extract]
        assert room_of(recipient).under_way() == frozenset()
        held_extracts.forget(recipient, first.cover.extract, "person", world.now)
        sent, _ = await deliver(world, second)
        assert sent.state == "delivered" and held_extracts.held_path(recipient, extract).exists()

    play(story)


def test_two_at_the_same_time(play: Play) -> None:
    """There is room for one: the other is told so while the first is under way, and comes when there is."""

    async def story(world: Any) -> None:
        first, second = await two(world)
        recipient, holder = world[RECIPIENT], world[HOLDER]
        length = made_path(holder, first.cover.extract).stat().st_size
        recipient.extract_shares = ExtractShares()._replace(unasked=length + length // 2)
        coming, go_on = asyncio.Event(), asyncio.Event()

        async def waiting(_: str, piece: Any) -> Any:
            coming.set()
            await go_on.wait()
            return piece

        world.alter(holder, extract_delivery.ExtractPiece, waiting)
        slow = asyncio.ensure_future(deliver(world, first))
        await coming.wait()
        (part,) = held_extracts.held_folder(recipient).iterdir()
        assert part.stat().st_size == length and part.stat().st_blocks * 512 >= length, "its bytes are on the disk"
        sent, _ = await deliver(world, second)
        assert refused_by(sent) == "gateway.extract_unasked"
        go_on.set()
        assert (await slow)[0].state == "delivered"
        recipient.extract_shares = ExtractShares()
        assert (await deliver(world, second))[0].state == "delivered"
        assert len(held_extracts.held(recipient)) == 2

    play(story)


def test_one_that_ends_while_others_are_counted(play: Play) -> None:
    """The end is told on the event loop, and counting is done in a thread."""

    async def story(world: Any) -> None:
        room = room_of(world[RECIPIENT])

        class Issuer(str):
            """Whose other delivery ends when it is looked at."""

            __hash__ = str.__hash__

            def __eq__(self, other: object) -> bool:
                room.let_go(HOLDER, b"2" * 16)
                return str.__eq__(self, other)

            def __ne__(self, other: object) -> bool:
                return not self == other

        for number in (1, 2):
            assert promise(world, offer(10, number), bytes([48 + number]) * 16) == ""
        first = room._promises.pop((HOLDER, b"1" * 16))
        room._promises = {(Issuer(HOLDER), b"1" * 16): first, **room._promises}
        assert promise(world, offer(10, 3), b"3" * 16) == ""
        assert len(room.under_way()) == 2

    play(story)


def test_an_asked_one_does_not_count_as_unasked(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, recipient = world[HOLDER], world[RECIPIENT]
        recipient.extract_shares = ExtractShares()._replace(unasked=0)
        unasked = await make(world, wish())
        assert refused_by((await deliver(world, unasked))[0]) == "gateway.extract_unasked"
        one = await extract_wanted.ask_extract(recipient, request(), Passing(), world.now)
        sender, session, asking = await anext(holder.openings(ExtractRequest))
        await extract_wanted.take_request(holder, sender, session, asking, world.now)
        facts = await make(world, wish(one.ask))
        assert (await deliver(world, facts))[0].state == "delivered"
        length = held_extracts.held_path(recipient, facts.cover.extract).stat().st_size
        assert room_of(recipient).taken(recipient, HOLDER) == (length, length, 0, 0)
        other = await make(world, wish())
        world.alter(holder, ExtractOffer, lambda _, sent: sent.__class__(*_fields(sent, ask=one.ask)))
        assert refused_by((await deliver(world, other))[0]) == "gateway.extract_unasked", "the request was answered"

    play(story)


def _fields(sent: Any, **changes: Any) -> list[Any]:
    return [changes.get(name, getattr(sent, name)) for name in sent.__struct_fields__]


def test_nothing_stays_promised_after_a_fault(play: Play) -> None:
    async def story(world: Any) -> None:
        first, _ = await two(world)

        def strike(step: str) -> None:
            if step == "piece":
                raise Unavailable("privacy.store_failed", path="-", reason="no room")

        async def taken() -> Any:
            session, _ = await offered(world)
            recipient = world[RECIPIENT]
            return await extract_taking.take_extract(recipient, HOLDER, session, Passing(), world.now, strike)

        sending = extract_delivery.deliver(world[HOLDER], first.cover.extract, Passing(), world.now)
        await asyncio.gather(sending, taken(), return_exceptions=True)
        assert room_of(world[RECIPIENT]).under_way() == frozenset()
        assert list(held_extracts.held_folder(world[RECIPIENT]).iterdir()) == []

    play(story)


def test_a_part_of_an_earlier_life_goes_when_there_is_no_room_for_the_rest(play: Play) -> None:
    async def story(world: Any) -> None:
        first, _ = await two(world)
        recipient, extract = world[RECIPIENT], first.cover.extract
        recipient.extract_shares = ExtractShares()._replace(whole=0)

        async def taken() -> Any:
            session, _ = await offered(world)
            path = held_extracts.held_path(recipient, extract)
            path.with_name(f".{path.name}.{session.hex()}.part").write_bytes(b"came before")
            return await extract_taking.take_extract(recipient, HOLDER, session, Passing(), world.now)

        sending = extract_delivery.deliver(world[HOLDER], extract, Passing(), world.now)
        sent, _ = await asyncio.gather(sending, taken(), return_exceptions=True)
        assert refused_by(sent) == "gateway.extracts_full"
        assert list(held_extracts.held_folder(recipient).iterdir()) == []

    play(story)


def test_a_part_has_its_bytes_before_they_come(tmp_path: Path) -> None:
    part = tmp_path / "part"
    prepare(part, 3_000_000)
    assert (part.stat().st_size, part.stat().st_mode & 0o777) == (3_000_000, 0o600)
    assert part.stat().st_blocks * 512 >= 3_000_000
    with part.open("r+b") as file:
        file.write(b"came")
    prepare(part, 2_000_000)
    assert part.stat().st_size == 2_000_000 and part.read_bytes()[:4] == b"came", "what has come stays"
    with pytest.raises(Unavailable) as full:
        prepare(tmp_path / "huge", 2**61)
    assert full.value.code == "gateway.extract_no_room"


def test_the_shares_of_a_new_home() -> None:
    shares = ExtractShares()
    assert shares.whole > shares.issuer >= LARGEST > shares.unasked > GIB
