"""Extracts between gateways: asked for, looked at, made, delivered, opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from ledger.contracts import access
from medveil.gateway import extract_wanted, held_extracts
from medveil.gateway.extract_drafts import Draft, RiskChoice, draft
from medveil.gateway.extract_wanted import ExtractDeclined, ExtractRequest
from medveil.gateway.extracting import cut_of, other_cut
from medveil.gateway.granting import revoke
from medveil.gateway.made_extracts import forget_made, keep_made, made, made_of, made_path
from medveil.gateway.organisation import Refusal
from medveil.gateway.steps import Passing
from privacy.copies.extracts import report_hash
from privacy.masking.disclosure_risk import RiskPolicy
from privacy.predicate import Compare
from wire.dates import day_at
from wire.errors import ConsentDenied, MedveilError, Refused, Unavailable

from .extracts_world import HOLDER, RECIPIENT, ROWS, TABLE, deliver, grant, load, make, request, wish

Play = Callable[[Callable[[Any], Any]], Any]


def drafted(world: Any, choice: RiskChoice | None = None, **changes: Any) -> Any:
    holder = world[HOLDER]
    return draft(holder, world.tables(holder), request(**changes), choice or RiskChoice(sensitive=("cost",)), world.now)


def test_an_extract_is_asked_for_looked_at_made_delivered_and_opened(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, recipient = world[HOLDER], world[RECIPIENT]
        one = await extract_wanted.ask_extract(recipient, request(), Passing(), world.now)
        sender, session, asking = await anext(holder.openings(ExtractRequest))
        await extract_wanted.take_request(holder, sender, session, asking, world.now)
        assert [(known.ask, known.state) for known in extract_wanted.wanted(holder)] == [(one.ask, "waiting")]
        seen = drafted(world)
        assert isinstance(seen, Draft) and seen.measured.report.within and seen.rows.num_rows == ROWS
        assert not holder.audit.entries(), "to look writes nothing"
        facts = await make(world, wish(one.ask))
        path = made_path(holder, facts.cover.extract)
        assert path.exists()
        chain = recipient.account.state.get(access.chain_key(HOLDER), access.ChainState)
        assert facts.rows == ROWS and chain is not None
        sent, held = await deliver(world, facts)
        assert (sent.state, held.facts) == ("delivered", facts)
        assert not path.exists(), "no second copy"
        assert [known.state for known in extract_wanted.wanted(holder)] == ["delivered"]
        (mine,) = extract_wanted.asked(recipient)
        assert (mine.state, mine.extract) == ("delivered", facts.cover.extract)
        found, rows = held_extracts.open_held(recipient, facts.cover.extract, world.now)
        assert found == facts and rows.column_names == ["ward", "cost"] and rows.num_rows == ROWS
        assert sorted(rows["cost"].to_pylist()) == sorted((7 * row) % 101 for row in range(ROWS))
        assert world.ended(HOLDER) == ["released"] and world.ended(RECIPIENT) == ["done"]
        (opening, _) = world.entries(RECIPIENT)
        assert (opening.use.kind, opening.use.dataset, opening.use.grant) == ("opening", TABLE, "")

    play(story)


def test_a_denied_extract_is_in_the_trail_and_nowhere_else(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world, fields=("ward",))
        assert drafted(world).rule == "fields"
        with pytest.raises(ConsentDenied):
            await make(world, wish())
        assert world.ended(HOLDER) == ["denied"] and made(world[HOLDER]) == ()

    play(story)


def test_what_is_too_small_does_not_leave_until_it_is_withheld(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        narrow = RiskChoice(sensitive=("cost",))
        seen = drafted(world, narrow, fields=("ward", "age", "cost"))
        assert seen.measured.report.offending and "age" in seen.measured.groups.column_names
        with pytest.raises(Refused) as refused:
            await make(world, wish(choice=narrow, fields=("ward", "age", "cost")))
        assert refused.value.code == "extracts.risk" and made(world[HOLDER]) == ()
        of_two = drafted(world, RiskChoice(institution="ward", amounts=("cost",)))
        (group,) = of_two.measured.groups.to_pylist()
        assert (group["institutions"], group["dominated"]) == (2, 1)
        assert {"institutions", "dominance"} <= set(group["reasons"]), "the one knows the other's amounts"
        few = RiskChoice(sensitive=("cost",), policy=RiskPolicy(persons=16), withhold=True)
        small = Compare("age", "lt", 70)  # 25 persons, of whom 12 or 13 are in each ward
        with pytest.raises(Refused) as refused:
            await make(world, wish(choice=few, predicate=small))
        assert refused.value.code == "privacy.risk_nothing_left"
        assert world.ended(HOLDER) == []
        most = RiskChoice(sensitive=("cost",), policy=RiskPolicy(persons=13), withhold=True)
        seen = drafted(world, most, predicate=small)
        assert (seen.measured.report.offending, seen.measured.report.persons) == (1, 12)
        assert seen.withheld.rows == seen.leaving.num_rows == 26 and seen.report.within
        facts = await make(world, wish(choice=most, predicate=small))
        await deliver(world, facts)
        _, rows = held_extracts.open_held(world[RECIPIENT], facts.cover.extract, world.now)
        assert facts.rows == 26 and set(rows["ward"].to_pylist()) == {"east"}, "one ward was withheld, whole"
        assert facts.risk == report_hash(seen.report)

    play(story)


def test_a_no_is_told_by_its_code(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        holder, recipient = world[HOLDER], world[RECIPIENT]
        one = await extract_wanted.ask_extract(recipient, request(), Passing(), world.now)
        sender, session, asking = await anext(holder.openings(ExtractRequest))
        await extract_wanted.take_request(holder, sender, session, asking, world.now)
        await extract_wanted.decline(holder, one.ask, Passing())
        sender, _, declined = await anext(recipient.openings(ExtractDeclined))
        await extract_wanted.take_declined(recipient, sender, declined)
        (mine,) = extract_wanted.asked(recipient)
        assert (mine.state, mine.code) == ("declined", "gateway.extract_declined")
        with pytest.raises(Refused):
            await make(world, wish(one.ask))

    play(story)


def test_a_grant_revoked_before_the_delivery_keeps_the_file_at_home(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        facts = await make(world, wish())
        await revoke(world[HOLDER], "copies")
        with pytest.raises(ConsentDenied) as denied:
            await make(world, wish())
        assert denied.value.code == "privacy.deny_revocation"
        from medveil.gateway.extract_delivery import deliver as delivering

        with pytest.raises(MedveilError) as gone:
            await delivering(world[HOLDER], facts.cover.extract, Passing(), world.now)
        assert gone.value.code == "gateway.grant_gone"
        assert not made_path(world[HOLDER], facts.cover.extract).exists()
        assert [one.state for one in made(world[HOLDER])] == ["withdrawn"]
        _, _, told = await anext(world[RECIPIENT].openings(Refusal))
        assert told.code == "gateway.grant_gone"

    play(story)


def test_nothing_is_delivered_before_the_trail_says_released(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stood, the disk was full when its outcome was to be noted: the delivery notes it first, or fails."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        outcome = holder.audit.outcome

        def full(intent: int, how: Any) -> Any:
            if how == "released":
                raise Unavailable("privacy.store_failed", path="audit", reason="no room", retry_after=1)
            return outcome(intent, how)

        from medveil.gateway.extract_delivery import deliver as delivering

        with monkeypatch.context() as disk:
            disk.setattr(holder.audit, "outcome", full)
            with pytest.raises(Unavailable):
                await make(world, wish())
            (one,) = made(holder)
            assert one.state == "staged" and made_path(holder, one.extract).exists()
            with pytest.raises(Unavailable):
                await delivering(holder, one.extract, Passing(), world.now)
        assert holder.audit.ending(one.facts.audit) == ""
        await deliver(world, one.facts)
        assert holder.audit.ending(one.facts.audit) == "released"
        assert [one.state for one in made(holder)] == ["delivered"]

    play(story)


def test_an_extract_that_a_restored_home_does_not_know_has_another_cut(play: Play) -> None:
    """The trail has it alone: the vault came back from a backup of before, and the trail must be whole."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        await grant(world, "another")
        holder = world[HOLDER]
        facts = await make(world, wish(grant="copies"))
        extract = facts.cover.extract
        assert other_cut(holder, "copies", cut_of(holder, request())) == b""
        forget_made(holder, extract)
        assert other_cut(holder, "copies", cut_of(holder, request())) == extract
        assert other_cut(holder, "copies", cut_of(holder, request()), extract) == b""
        for changes in ({}, {"fields": ("cost",)}):
            with pytest.raises(Refused) as refused:
                await make(world, wish(grant="copies", **changes))
            assert (refused.value.code, refused.value.facts["extract"]) == ("gateway.extract_other_cut", extract.hex())
        await make(world, wish(grant="another"))

    play(story)


def test_an_extract_whose_cut_was_not_noted_has_another_cut(play: Play) -> None:
    """A medveil of before noted none: what left might be any, and what does not leave stands in nobody's way."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        await grant(world, "another")
        holder = world[HOLDER]
        facts = await make(world, wish(grant="copies"))
        extract = facts.cover.extract
        keep_made(holder, structs.replace(made_of(holder, extract), cut=b""))
        assert other_cut(holder, "copies", cut_of(holder, request()), extract) == b""
        for changes in ({}, {"fields": ("cost",)}):
            with pytest.raises(Refused) as refused:
                await make(world, wish(grant="copies", **changes))
            assert (refused.value.code, refused.value.facts["extract"]) == ("gateway.extract_other_cut", extract.hex())
        await make(world, wish(grant="another"))

    play(story)


def test_an_extract_that_a_restored_home_knows_as_begun_was_released_by_the_trail(play: Play) -> None:
    """The vault came back from a backup of just before its release: no file stands here, and the trail is ahead."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        facts = await make(world, wish(grant="copies"))
        extract, other = facts.cover.extract, cut_of(holder, request(fields=("cost",)))
        one = made_of(holder, extract)
        keep_made(holder, structs.replace(one, state="staged"))
        made_path(holder, extract).unlink()
        assert other_cut(holder, "copies", other) == extract
        assert other_cut(holder, "copies", one.cut) == b""

    play(story)


def test_extracts_of_one_grant_have_one_cut(play: Play) -> None:
    """Filters that slide by a year, columns in two portions: each keeps to its limits, and both together do not."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        await grant(world, "another")
        first = wish(grant="copies", predicate=Compare("age", "lt", 70))
        await make(world, first)
        slid: dict[str, Any] = {"predicate": Compare("age", "lt", 71)}
        for changes in (slid, {}, {"fields": ("cost",)}, {"fields": ("ward", "cost", "age")}):
            with pytest.raises(Refused) as refused:
                await make(world, wish(grant="copies", **changes))
            assert refused.value.code == "gateway.extract_other_cut"
        assert world.ended(HOLDER) == ["released"]
        again = wish(grant="copies", predicate=Compare("age", "lt", 70), fields=("cost", "ward"))
        await make(world, again)  # the same, of today
        await make(world, wish(grant="another"))

    play(story)


@pytest.mark.parametrize("harm", ["erase", "restrict"])
def test_who_is_erased_before_the_release_does_not_leave(play: Play, harm: str) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        vault = world[HOLDER].vault
        keys = [key.key for key in vault.keys_of("person-3")]

        def fault(step: str) -> None:
            if step == "staged":
                _ = vault.destroy(keys, bytes(32)) if harm == "erase" else vault.restrict(keys)

        with pytest.raises(Refused) as refused:
            await make(world, wish(), fault=fault)
        assert refused.value.code == "extracts.changed"
        assert world.ended(HOLDER) == ["aborted"] and made(world[HOLDER]) == ()
        assert not list((world[HOLDER].folder / "extracts").rglob("*.extract*"))
        assert (await make(world, wish())).rows == ROWS - 2

    play(story)


def test_ages_are_those_of_the_day_on_which_the_grant_began(play: Play) -> None:
    """Of two extracts a day apart, whoever is in another band in the second has their birthday in between."""

    async def story(world: Any) -> None:
        load(world)
        terms = await grant(world, not_before=world.now() - 10 * 86_400_000)
        began = day_at(terms.not_before, world[HOLDER].trust.founding.zone)
        assert drafted(world).on == began < day_at(world.now(), "Asia/Shanghai")

    play(story)
