"""What a recipient takes as an extract and what it does not; how long it holds it, and who reads it."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from medveil.gateway import (
    extract_delivery,
    extract_leaving,
    extract_room,
    extract_wanted,
    held_extracts,
)
from medveil.gateway.extract_delivery import ExtractNext, ExtractOffer, ExtractPiece, ExtractTaken
from medveil.gateway.extract_drafts import RiskChoice, draft, mask_key
from medveil.gateway.extract_wanted import MOST_WAITING, ExtractDeclined, ExtractRequest
from medveil.gateway.held_extracts import Tidied
from medveil.gateway.made_extracts import keep_made, made, made_of, made_path
from medveil.gateway.organisation import Refusal
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.gateway.steps import Passing
from medveil.gateway.use_state import opt_out, withdraw
from privacy.audit import own_use
from privacy.copies.extract_file import read_end
from privacy.grants.opt_outs import OptOut
from privacy.masking.masks import Mask
from wire.errors import ConsentDenied, DecodeError, MedveilError, ProtocolAbort, Refused, Unavailable, VerificationError
from wire.sealing import OpenKey

from .extracts_world import (
    HOLDER,
    RECIPIENT,
    ROWS,
    TABLE,
    deliver,
    grant,
    load,
    make,
    offered,
    request,
    watch_lists,
    wish,
)

Play = Callable[[Callable[[Any], Any]], Any]


async def made_one(world: Any, **changes: Any) -> Any:
    load(world)
    await grant(world, **changes)
    return await make(world, wish())


def refused_by(outcome: Any) -> str:
    """Why a recipient did not take it, as its holder was told."""
    assert isinstance(outcome, Refused) and outcome.code == "gateway.extract_refused", outcome
    return str(outcome.facts["reason"])


def nothing_held(world: Any) -> None:
    folder = world[RECIPIENT].folder / "extracts"
    assert held_extracts.ever_held(world[RECIPIENT]) == ()
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_an_altered_file_is_not_taken(play: Play) -> None:
    """Whether the offer's own hash still fits or not."""

    async def story(world: Any) -> None:
        facts = await made_one(world)
        path = made_path(world[HOLDER], facts.cover.extract)
        whole = path.read_bytes()
        for place in (200, facts.length + 200, len(whole) - 6):  # in the body, in the end, in its length
            data = bytearray(whole)
            data[place] ^= 1
            path.write_bytes(data)
            sent, taken = await deliver(world, facts)
            assert isinstance(taken, (VerificationError, DecodeError)), taken
            assert refused_by(sent).split(".")[0] in ("extracts", "parquet", "gateway")
            nothing_held(world)
            assert made_of(world[HOLDER], facts.cover.extract).state == "leaving", "it may have it, for all one knows"

    play(story)


def test_a_file_that_is_not_what_was_offered_is_not_taken(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await made_one(world)
        change = {"digest": bytes(32)}
        world.alter(world[HOLDER], ExtractOffer, lambda _, offer: msgspec.structs.replace(offer, **change))
        _, taken = await deliver(world, facts)
        assert isinstance(taken, VerificationError)
        nothing_held(world)
        other = await make(world, wish())
        change.clear()
        change["extract"] = other.cover.extract  # the file of one as another
        _, taken = await deliver(world, facts)
        assert isinstance(taken, VerificationError)
        nothing_held(world)

    play(story)


def test_an_extract_without_a_grant_for_it_is_not_taken(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await made_one(world)
        await grant(world, "queries", uses=("query",))
        for change in ({"grant": "queries"}, {"grant": "nobodys"}, {"dataset": "others"}):
            world.alter(
                world[HOLDER], ExtractOffer, lambda _, offer, change=change: msgspec.structs.replace(offer, **change)
            )
            sent, taken = await deliver(world, facts)
            assert isinstance(taken, Refused) and taken.code == "gateway.extract_without_grant"
            assert refused_by(sent) == "gateway.extract_without_grant"
            del world[HOLDER].send
        nothing_held(world)

    play(story)


def test_pieces_out_of_turn_are_not_taken(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await made_one(world)
        for change in ({"offset": 7}, {"data": bytes(100_000)}):
            world.alter(
                world[HOLDER], ExtractPiece, lambda _, piece, change=change: msgspec.structs.replace(piece, **change)
            )
            sent, taken = await deliver(world, facts)
            assert isinstance(taken, ProtocolAbort) and taken.code == "gateway.extract_out_of_turn"
            assert isinstance(sent, Refused)
            del world[HOLDER].send
        nothing_held(world)

    play(story)


def test_pieces_that_come_late_take_no_room(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a window whose delivery failed, and what its holder says to that; also after a restart in between."""
    monkeypatch.setattr(extract_delivery, "PIECE", 200)
    monkeypatch.setattr(extract_delivery, "WINDOW", 600)

    async def story(world: Any) -> None:
        facts = await made_one(world)
        holder, recipient = world[HOLDER], world[RECIPIENT]
        length, late = made_path(holder, facts.cover.extract).stat().st_size, []
        assert length > 2 * extract_delivery.WINDOW, "the second window is a whole one"
        send = holder.send

        async def sending(to: str, session: bytes, message: Any) -> None:
            late.append(session)
            if isinstance(message, ExtractPiece) and message.offset == extract_delivery.WINDOW:
                message = msgspec.structs.replace(message, offset=7)
            await send(to, session, message)

        monkeypatch.setattr(holder, "send", sending)
        _, taken = await deliver(world, facts)
        assert isinstance(taken, ProtocolAbort) and taken.code == "gateway.extract_out_of_turn"
        sessions = set(late)
        assert len(sessions) == 3, "the offer's and two windows"
        for session in sessions:
            await send(RECIPIENT, session, ExtractPiece(0, b"late"))
            with pytest.raises(Unavailable):
                await recipient.receive(ExtractPiece, session, (HOLDER,), 0)

    play(story)


@pytest.mark.parametrize("reply", [ExtractNext(3), ExtractTaken(bytes(16)), ExtractNext(0)])
def test_a_recipient_out_of_turn_gets_nothing_more(play: Play, reply: Any) -> None:
    async def story(world: Any) -> None:
        facts = await made_one(world)

        async def lying() -> list[Any]:
            session, _ = await offered(world)
            await world[RECIPIENT].send(HOLDER, session, reply)
            await world[RECIPIENT].send(HOLDER, session, reply)
            await world[RECIPIENT].receive(ExtractOffer, session, (HOLDER,))
            return [await world[RECIPIENT].receive(Refusal, session, (HOLDER,))]

        sending = extract_delivery.deliver(world[HOLDER], facts.cover.extract, Passing(), world.now)
        sent, told = await asyncio.gather(sending, lying(), return_exceptions=True)
        assert isinstance(sent, ProtocolAbort) and sent.code == "gateway.extract_out_of_turn"
        assert not isinstance(told, BaseException) and told[0][1].code == "gateway.extract_out_of_turn"
        left = reply == ExtractNext(0)  # the one window that there is
        assert made_of(world[HOLDER], facts.cover.extract).state == ("leaving" if left else "released")
        assert made_path(world[HOLDER], facts.cover.extract).exists()

    play(story)


def test_a_recipient_that_does_not_answer_gets_it_later(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await made_one(world)
        world[HOLDER].last_patience = 0.2
        with pytest.raises(Unavailable):
            await extract_delivery.deliver(world[HOLDER], facts.cover.extract, Passing(), world.now)
        await offered(world)  # of a session that is over
        world[HOLDER].last_patience = 20
        sent, taken = await deliver(world, facts)
        assert sent.state == "delivered" and taken.facts == facts
        again, none = await deliver_again(world, facts)
        assert again.state == "delivered" and none is None

    play(story)


async def deliver_again(world: Any, facts: Any) -> tuple[Any, Any]:
    """Of what was delivered nothing leaves any more."""
    sent = await extract_delivery.deliver(world[HOLDER], facts.cover.extract, Passing(), world.now)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await offered(world)
    return sent, None


@pytest.mark.parametrize("gone", ["deleted", "lost"])
def test_what_went_since_it_was_not_needed_is_not_said_to_be_taken(play: Play, gone: str) -> None:
    """Offered once more, since the answer was lost; cut short, the recipient goes on when it is held no more."""

    async def story(world: Any) -> None:
        facts = await made_one(world)
        holder, recipient, extract = world[HOLDER], world[RECIPIENT], facts.cover.extract
        path = held_extracts.held_path(recipient, extract)
        with pytest.MonkeyPatch.context() as lost:
            lost.setattr(extract_delivery, "note_delivered", lambda *given: made_of(holder, extract))
            _, taken = await deliver(world, facts)
        assert path.exists() and made_of(holder, extract).state == "leaving"

        class Meanwhile(Passing):
            async def once(self, step: str, kind: Any, work: Any) -> Any:
                value = await super().once(step, kind, work)
                if step == "needed" and gone == "lost":
                    path.unlink()
                elif step == "needed":
                    held_extracts.forget(recipient, extract, "chosen", world.now)
                return value

        sent, taken = await deliver(world, facts, taking=Meanwhile())
        if gone == "lost":
            assert not isinstance(taken, Exception) and path.exists() and sent.state == "delivered"
        else:
            assert refused_by(sent) == "gateway.extract_deleted" and not path.exists()

    play(story)


def test_what_was_deleted_does_not_come_again(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await made_one(world)
        kept, before = made_path(world[HOLDER], facts.cover.extract), made_of(world[HOLDER], facts.cover.extract)
        shutil.copy(kept, kept.with_suffix(".kept"))
        await deliver(world, facts)
        gone = held_extracts.forget(world[RECIPIENT], facts.cover.extract, "notice", world.now)
        assert gone.why == "notice" and held_extracts.held(world[RECIPIENT]) == ()
        assert held_extracts.forget(world[RECIPIENT], facts.cover.extract, "person", world.now) == gone
        shutil.copy(kept.with_suffix(".kept"), kept)  # a holder that would send it once more
        keep_made(world[HOLDER], before)
        sent, taken = await deliver(world, facts)
        assert isinstance(taken, Refused) and taken.code == "gateway.extract_deleted"
        assert refused_by(sent) == "gateway.extract_deleted"
        with pytest.raises(Refused):
            held_extracts.open_held(world[RECIPIENT], facts.cover.extract, world.now)

    play(story)


def test_a_held_file_whose_day_has_come_goes(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await made_one(world)
        await deliver(world, facts)
        recipient, extract = world[RECIPIENT], facts.cover.extract
        assert held_extracts.tidy_held(recipient, world.now) == Tidied()
        late = lambda: facts.delete_by  # noqa: E731
        with pytest.raises(Refused) as due:
            held_extracts.open_held(recipient, extract, late)
        assert due.value.code == "extracts.due"
        ((gone,), _, trouble) = held_extracts.tidy_held(recipient, late)
        assert (gone.extract, gone.why, gone.deleted) == (extract, "due", facts.delete_by)
        assert not list((recipient.folder / "extracts").rglob("*.extract"))
        assert trouble is None and held_extracts.tidy_held(recipient, late) == Tidied()
        assert world.ended(RECIPIENT) == []

    play(story)


def test_an_opening_that_fails_is_noted_and_a_home_without_the_file_says_so(play: Play) -> None:
    async def story(world: Any) -> None:
        facts = await made_one(world)
        await deliver(world, facts)
        recipient, extract = world[RECIPIENT], facts.cover.extract
        path = held_extracts.held_path(recipient, extract)
        whole = path.read_bytes()
        path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
        with pytest.raises(VerificationError):
            held_extracts.open_held(recipient, extract, world.now)
        assert world.ended(RECIPIENT) == ["failed"]
        path.unlink()  # as after a restore
        with pytest.raises(Refused) as gone:
            held_extracts.open_held(recipient, extract, world.now)
        assert gone.value.code == "gateway.extract_deleted"
        assert held_extracts.held(recipient) == () and len(held_extracts.ever_held(recipient)) == 1
        assert world.ended(RECIPIENT) == ["failed"], "nothing was opened"
        recipient.audit.hold(lambda: Unavailable("ledger.storage", path="-"))
        path.write_bytes(whole)
        with pytest.raises(Unavailable):
            held_extracts.open_held(recipient, extract, world.now)

    play(story)


def test_the_trail_of_the_recipient_names_no_extract(play: Play) -> None:
    """Whoever sees the ledger's entries learns that something of that dataset was opened."""

    async def story(world: Any) -> None:
        facts = await made_one(world)
        await deliver(world, facts)
        held_extracts.open_held(world[RECIPIENT], facts.cover.extract, world.now)
        (intent, _) = world.entries(RECIPIENT)
        assert (intent.use.recipient, intent.use.rule) == (RECIPIENT, "opening")
        assert facts.cover.extract not in intent.use.query and len(intent.use.query) == 32

    play(story)


def test_to_hand_one_out_sealed_is_noted_as_an_opening(play: Play) -> None:
    """Whoever has the file can read it: the trail says so, and the holder whose recall comes later is told so."""

    async def story(world: Any) -> None:
        facts = await made_one(world)
        await deliver(world, facts)
        recipient, extract = world[RECIPIENT], facts.cover.extract
        path = held_extracts.held_path(recipient, extract)
        assert not ExtractsHere(recipient, world.now).opened(extract)
        with held_extracts.hand_out(recipient, extract, world.now) as whole:
            assert whole.read() == path.read_bytes()
        assert world.ended(RECIPIENT) == ["done"] and world.entries(RECIPIENT)[0].use.rule == "opening"
        assert ExtractsHere(recipient, world.now).opened(extract)
        recipient.audit.hold(lambda: Unavailable("ledger.storage", path="-"))
        with pytest.raises(Unavailable):
            held_extracts.hand_out(recipient, extract, world.now)

    play(story)


def test_whatever_ends_an_opening_no_intent_and_no_file_stays_open(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """An intent without an outcome holds the pruning of the trail."""
    opened: list[Any] = []
    plain = Path.open

    def kept(path: Path, *how: Any) -> Any:
        opened.append(plain(path, *how))
        return opened[-1]

    async def story(world: Any) -> None:
        facts = await made_one(world)
        await deliver(world, facts)
        recipient, extract = world[RECIPIENT], facts.cover.extract

        def interrupted(_step: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            held_extracts.open_held(recipient, extract, world.now, interrupted)
        assert (world.ended(RECIPIENT), recipient.audit.unfinished()) == (["failed"], ())

        def full(*_: Any) -> None:
            raise Unavailable("ledger.storage", path="-")

        monkeypatch.setattr(Path, "open", kept)
        monkeypatch.setattr(recipient.audit, "outcome", full)
        with pytest.raises(Unavailable):
            held_extracts.hand_out(recipient, extract, world.now)
        assert [whole.closed for whole in opened] == [True]

    play(story)


def test_an_opening_that_was_killed_is_ended_by_the_rounds(play: Play) -> None:
    """Its intent would hold the pruning of the trail for good. One that is under way is left alone."""

    async def story(world: Any) -> None:
        facts = await made_one(world)
        await deliver(world, facts)
        recipient, extract = world[RECIPIENT], facts.cover.extract
        recipient.audit.intent(own_use(RECIPIENT, TABLE, "opening", bytes(32)))  # all that a killed process left
        seen: list[int] = []
        held_extracts.open_held(
            recipient, extract, world.now, lambda step: seen.append(held_extracts.close_openings(recipient))
        )
        assert seen == [1] and world.ended(RECIPIENT) == ["failed", "done"] and not recipient.audit.unfinished()
        assert held_extracts.close_openings(recipient) == 0
        recipient.audit.intent(own_use(RECIPIENT, TABLE, "opening", bytes(32)))
        assert list(ExtractsHere(recipient, world.now).taken_back()) == []
        assert world.ended(RECIPIENT) == ["failed", "done", "failed"]

    play(story)


def test_one_request_too_many_is_declined_at_once(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Any) -> None:
        load(world)
        holder, recipient = world[HOLDER], world[RECIPIENT]
        unsealed = watch_lists(holder, monkeypatch)
        for number in range(MOST_WAITING + 1):
            asking = ExtractRequest(secrets.token_bytes(16), request())
            await extract_wanted.take_request(holder, RECIPIENT, bytes([number]) * 16, asking, world.now)
        assert len(extract_wanted.wanted(holder)) == MOST_WAITING
        assert unsealed == ["extract-wanted"], "once, not for each request"
        _, _, told = await anext(recipient.openings(ExtractDeclined))
        assert (told.ask, told.code) == (asking.ask, "gateway.extracts_waiting")
        with pytest.raises(ProtocolAbort):  # an answer to what was never asked
            await extract_wanted.take_declined(recipient, HOLDER, told)
        again = ExtractRequest(extract_wanted.wanted(holder)[0].ask, request(fields=("age",)))
        await extract_wanted.take_request(holder, RECIPIENT, bytes(16), again, world.now)
        assert extract_wanted.wanted(holder)[0].request.fields == ("ward", "cost"), "the first one stays"

    play(story)


NO_REQUESTS: tuple[dict[str, Any], ...] = (
    {"recipient": "insurer"},
    {"holder": "hospital-2"},
    {"kind": "export"},
    {"person": bytes(16)},
    {"fields": ()},
    {"fields": ("ward", "ward")},
    {"fields": tuple(f"column{number}" * 40 for number in range(300))},
    {"dataset": "No Name"},
)


def test_what_is_no_request_is_not_kept(play: Play) -> None:
    async def story(world: Any) -> None:
        for changes in NO_REQUESTS:
            asking = ExtractRequest(bytes(16), request(**changes))
            with pytest.raises(MedveilError):
                await extract_wanted.take_request(world[HOLDER], RECIPIENT, bytes(16), asking, world.now)
            assert extract_wanted.wanted(world[HOLDER]) == (), changes

    play(story)


def test_opt_outs_count_in_drafts_and_until_the_release(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        opt_out(holder, "person-3", OptOut("all", "", world.now() - 1))
        seen = draft(holder, world.tables(holder), request(), RiskChoice(sensitive=("cost",)), world.now)
        assert seen.decision.excluded == ("all",) and seen.rows.num_rows == ROWS - 2
        facts = await make(world, wish())
        assert facts.rows == ROWS - 2
        before = len(world.ended(HOLDER))

        class Objecting(Passing):
            async def boundary(self) -> None:  # while the extract waits for the ledger
                opt_out(holder, "person-4", OptOut("recipient", RECIPIENT, world.now() - 1))

        with pytest.raises(Refused) as changed:
            await make(world, wish(), Objecting())
        assert changed.value.code == "extracts.changed"
        assert world.ended(HOLDER)[before:] == ["aborted"] and len(made(holder)) == 1
        withdraw(holder, "person-4", f"recipient:{RECIPIENT}", world.now())
        assert (await make(world, wish())).rows == ROWS - 2

    play(story)


def test_two_extracts_of_a_grant_are_masked_alike_and_those_of_two_are_not(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        keep = {"fields": ("ward", "seen"), "min_group": 1, "masks": (Mask("seen", "shift"),)}
        await grant(world, "one", **keep)
        await grant(world, "two", **keep)
        choice = RiskChoice(unknown=("ward",), withhold=False)
        holder = world[HOLDER]
        assert mask_key(holder, "one") != mask_key(holder, "two") and len(mask_key(holder, "one")) == 32
        assert mask_key(holder, "one") != mask_key(world["hospital-2"], "one")

        def shown(name: str) -> list[Any]:
            asked = request(fields=("ward", "seen"))
            found: Any = draft(holder, world.tables(holder), asked, choice, world.now, name)
            assert "seen" in found.measured.report.columns.quasi, "shifted dates count as known"
            return list(found.masked["seen"].to_pylist())

        assert shown("one") == shown("one") != shown("two")

    play(story)


def test_an_extract_is_sealed_to_the_recipients_present_key(play: Play, tmp_path: Path) -> None:
    async def story(world: Any) -> None:
        facts = await made_one(world)
        end = read_end(made_path(world[HOLDER], facts.cover.extract))
        assert end.cover.seal_key == world[RECIPIENT].keys.first.seal.key.key_id()
        await deliver(world, facts)
        own = world[RECIPIENT].keys._generations[0]
        own.seal = OpenKey(1, secrets.token_bytes(32))  # a home that lost its key
        with pytest.raises(Refused) as missing:
            held_extracts.open_held(world[RECIPIENT], facts.cover.extract, world.now)
        assert missing.value.code == "extracts.key_missing" and world.ended(RECIPIENT) == ["failed"]

    play(story)


def test_without_room_on_the_disk_nothing_is_taken(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Any) -> None:
        facts = await made_one(world)
        monkeypatch.setattr(extract_room, "FLOOR", 2**62)
        sent, taken = await deliver(world, facts)
        assert isinstance(taken, Unavailable) and taken.code == "gateway.extract_no_room"
        assert refused_by(sent) == "gateway.trouble", "what the disk is like is nobody else's business"
        nothing_held(world)
        monkeypatch.undo()
        assert (await deliver(world, facts))[0].state == "delivered"

    play(story)


def test_a_made_file_that_is_gone_is_not_waited_for(play: Play) -> None:
    """As in a home that came back from a backup: what was asked for waits for an answer again."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        asking = ExtractRequest(secrets.token_bytes(16), request())
        await extract_wanted.take_request(world[HOLDER], RECIPIENT, bytes(16), asking, world.now)
        facts = await make(world, wish(asking.ask))
        made_path(world[HOLDER], facts.cover.extract).unlink()
        with pytest.raises(Refused) as gone:
            await extract_delivery.deliver(world[HOLDER], facts.cover.extract, Passing(), world.now)
        assert gone.value.code == "gateway.extract_recalled", "nobody knows whether it left"
        assert extract_wanted.wanted_of(world[HOLDER], asking.ask).state == "waiting"

    play(story)


def test_a_request_is_answered_once_at_a_time_and_again_when_nobody_answers_it(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        asking = ExtractRequest(secrets.token_bytes(16), request())
        await extract_wanted.take_request(holder, RECIPIENT, bytes(16), asking, world.now)
        both = await asyncio.gather(*(make(world, wish(asking.ask)) for _ in range(2)), return_exceptions=True)
        codes = sorted(one.code for one in both if isinstance(one, Refused))
        assert codes == ["gateway.extract_answered"] and world.ended(HOLDER) == ["released"]
        (one,) = made(holder)
        extract_leaving.withdraw(holder, one.extract, "gateway.extract_declined", world.now)
        extract_wanted.note_wanted(holder, asking.ask, "making", bytes(16))  # of a job that a restore has ended
        assert (await make(world, wish(asking.ask))).rows == ROWS

    play(story)


def test_a_denied_preview_shows_nothing_of_the_rows(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        world.now.ahead = 2 * 86_400_000
        found = draft(world[HOLDER], world.tables(world[HOLDER]), request(), RiskChoice(), world.now)
        assert not found.allowed and found.rule == "period"
        with pytest.raises(ConsentDenied):
            await make(world, wish())
        assert world.ended(HOLDER) == ["denied"]

    play(story)
