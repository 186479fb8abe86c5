"""Extracts whose end was cut short, or of which the home does not know what became: taken back whole all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from medveil.gateway import erasing, extract_delivery, extract_leaving, extracting
from medveil.gateway.extract_wanted import ExtractRequest, take_request, wanted_of
from medveil.gateway.made_extracts import keep_made, made, made_of, made_path
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.gateway.recalling import keep_up, take_deletion, take_notice
from medveil.gateway.steps import Passing
from medveil.gateway.use_state import opt_out
from privacy.erasure import recalls
from privacy.erasure.deletion import DELETION_HEADER, UNSIGNED, DeleteNotice, Deletion, sign_deletion
from privacy.grants.opt_outs import OptOut
from wire.errors import Refused, Unavailable

from .cutting import Killed
from .extracts_world import HOLDER, RECIPIENT, TABLE, ask_id, deliver, grant, load, make, request, visits, wish

Play = Callable[[Callable[[Any], Any]], Any]


def planned(world: Any) -> str:
    """The planned erasure of person-3."""
    return erasing.plan(world[HOLDER], "person-3", world.now()).name


async def erase(world: Any, name: str) -> bool:
    """Carry it out; whether it is done."""
    return bool((await asyncio.to_thread(erasing.apply, world[HOLDER], name, world.now)).done)


async def round_of(world: Any, name: str = HOLDER) -> None:
    await keep_up(world[name], ExtractsHere(world[name], world.now), world.now)


async def asked(world: Any) -> bytes:
    """A request that waits at the holder."""
    ask = ask_id()
    await take_request(world[HOLDER], RECIPIENT, ask, ExtractRequest(ask, request()), world.now)
    return ask


def refusing(_path: Path) -> None:
    raise Unavailable("privacy.store_failed", path="extracts", reason="I/O")


def killed(*_given: Any) -> None:
    raise Killed("in between")


CUTS = [("remove", refusing), ("remove", killed), ("settle_wanted", killed)]


@pytest.mark.parametrize("by", ["erasure", "round", "start"])
@pytest.mark.parametrize(("at", "cut"), CUTS)
def test_a_request_is_free_again_wherever_taking_back_was_cut_short(
    play: Play, monkeypatch: pytest.MonkeyPatch, at: str, cut: Callable[..., None], by: str
) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        holder, ask = world[HOLDER], await asked(world)
        extract = (await make(world, wish(ask))).cover.extract
        name = planned(world)
        with monkeypatch.context() as broken:
            broken.setattr(extract_leaving, at, cut)
            with pytest.raises((Unavailable, Killed)):
                await erase(world, name)
        assert made_of(holder, extract).state == "withdrawn"
        if by == "erasure":
            assert await erase(world, name)
        elif by == "round":
            await round_of(world)
        else:
            extracting.tidy(holder)
        assert not made_path(holder, extract).exists()
        assert wanted_of(holder, ask).state == "waiting"
        assert (await make(world, wish(ask))).cover.extract != extract

    play(story)


def test_an_erasure_is_not_done_while_a_file_with_rows_of_before_stands(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        holder = world[HOLDER]
        first, second = [(await make(world, wish())).cover.extract for _ in range(2)]
        name, stuck = planned(world), made_path(holder, first)
        real = extract_leaving.remove
        with monkeypatch.context() as broken:
            broken.setattr(extract_leaving, "remove", lambda path: (refusing if path == stuck else real)(path))
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await erase(world, name)
            assert stuck.exists() and not made_path(holder, second).exists(), "one that is stuck keeps no other"
            with pytest.raises(Unavailable):
                await round_of(world)
        assert await erase(world, name) and not stuck.exists()

    play(story)


def test_a_delivery_whose_end_was_cut_short_is_finished_by_the_rounds(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, ask = world[HOLDER], await asked(world)
        facts = await make(world, wish(ask))
        with monkeypatch.context() as broken:
            broken.setattr(extract_leaving, "remove", refusing)
            sent, _ = await deliver(world, facts)
        assert isinstance(sent, Unavailable) and wanted_of(holder, ask).state == "released"
        await round_of(world)
        assert made_of(holder, facts.cover.extract).state == "delivered"
        assert not made_path(holder, facts.cover.extract).exists()
        assert wanted_of(holder, ask).state == "delivered"

    play(story)


@pytest.mark.parametrize("by", ["erasure", "delivery"])
@pytest.mark.parametrize("basis", ["separate-consent", "contract"])
def test_after_a_restore_what_was_delivered_is_called_back(play: Play, basis: str, by: str) -> None:
    """The backup is of between release and delivery; it has no files."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis=basis)
        holder, recipient = world[HOLDER], world[RECIPIENT]
        facts = await make(world, wish())
        extract = facts.cover.extract
        before = made_of(holder, extract)
        sent, _ = await deliver(world, facts)
        assert sent.state == "delivered"
        keep_made(holder, before)
        if by == "erasure":
            assert await erase(world, planned(world))
        else:
            with pytest.raises(Refused) as raised:
                await extract_delivery.deliver(holder, extract, Passing(), world.now)
            assert raised.value.code == "gateway.extract_recalled"
        assert made_of(holder, extract).state == "recalled"
        await round_of(world)
        (one,) = recalls.recalls(holder.vault)
        assert one.told, "whatever the legal basis is"
        _, _, notice = await anext(recipient.openings(DeleteNotice))
        said = await take_notice(recipient, ExtractsHere(recipient, world.now), HOLDER, notice, world.now)
        assert said.found == "deleted"
        heard = await take_deletion(holder, ExtractsHere(holder, world.now), RECIPIENT, said, world.now())
        assert heard.deleted

    play(story)


def test_who_was_told_to_delete_is_heard_however_the_extract_is_noted(play: Play) -> None:
    """A home that noted "withdrawn" of what its recipient has."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="separate-consent")
        holder, recipient = world[HOLDER], world[RECIPIENT]
        facts = await make(world, wish())
        await deliver(world, facts)
        keep_made(holder, msgspec.structs.replace(made_of(holder, facts.cover.extract), state="withdrawn"))
        await erase(world, planned(world))
        await round_of(world)
        _, _, notice = await anext(recipient.openings(DeleteNotice))
        said = await take_notice(recipient, ExtractsHere(recipient, world.now), HOLDER, notice, world.now)
        heard = await take_deletion(holder, ExtractsHere(holder, world.now), RECIPIENT, said, world.now())
        assert (said.found, bool(heard.deleted)) == ("deleted", True)

    play(story)


def test_what_a_version_before_released_may_have_left(play: Play) -> None:
    """It noted neither what the rows rest on nor when the last bytes went."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        holder, recipient = world[HOLDER], world[RECIPIENT]
        first, second = [(await make(world, wish())).cover.extract for _ in range(2)]
        for extract in (first, second):
            keep_made(holder, msgspec.structs.replace(made_of(holder, extract), basis=None))
        word = Deletion(
            DELETION_HEADER, b"", HOLDER, RECIPIENT, first, "deleted", "chosen", world.now(), ("copies",), UNSIGNED
        )
        said = sign_deletion(word, recipient.signer)
        assert (await take_deletion(holder, ExtractsHere(holder, world.now), RECIPIENT, said, world.now())).deleted
        await round_of(world)
        assert [one.state for one in made(holder)] == ["recalled", "recalled"]
        assert {one.extract: bool(one.told) for one in recalls.recalls(holder.vault)}[second]
        assert not made_path(holder, second).exists()

    play(story)


@pytest.mark.parametrize("damaged", [False, True])
def test_an_erasure_finds_a_file_that_stands_before_that_is_said(play: Play, damaged: bool) -> None:
    """Killed between the file's name and the note of it, and erased before its job goes on."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        holder = world[HOLDER]

        def fault(step: str) -> None:
            if step == "linked":
                raise Killed(step)

        with pytest.raises(Killed):
            await make(world, wish(), fault=fault)
        (one,) = made(holder)
        assert one.state == "staged" and made_path(holder, one.extract).exists()
        if damaged:
            made_path(holder, one.extract).write_bytes(b"no extract")
        assert await erase(world, planned(world))
        assert not made_path(holder, one.extract).exists()
        if not damaged:
            assert made_of(holder, one.extract).state == "withdrawn" and "released" in world.ended(HOLDER)

    play(story)


def test_who_has_no_row_in_the_table_stops_nothing_by_objecting(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world, legal_basis="contract")
        holder = world[HOLDER]
        opt_out(holder, "comes-later", OptOut("all", "", world.now() - 1))

        def fault(step: str) -> None:
            if step in ("staged", "anchored"):
                opt_out(holder, f"in-no-table-{step}", OptOut("all", "", world.now() - 1))

        facts = await make(world, wish(), fault=fault)
        opt_out(holder, "in-no-table", OptOut("all", "", world.now() - 1))
        holder.vault.ingest("others", pa.table({"cost": [1]}), ["r-1"], persons=["in-no-table"])
        more, _ = visits(1)
        holder.vault.ingest(TABLE, pa.table(more), ["r-new-1"], persons=["comes-later"], append=True)
        await round_of(world)
        sent, taken = await deliver(world, facts)
        assert not isinstance(sent, BaseException), (sent, taken)
        assert sent.state == "delivered"

    play(story)
