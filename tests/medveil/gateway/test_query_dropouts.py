"""A query over four hospitals that loses some on the way: three are enough, two are not.

Whoever falls silent, stops or says something wrong in a round is left out of that phase; what is released says so, and
budget, trails and ledger agree with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnnounceContribution, Contribute, FixParties, FixSurvivors, RevokeGrant
from medveil.gateway.asking import ask
from medveil.gateway.query_board import read_announcements, read_board
from medveil.gateway.query_part import Unmasked
from medveil.gateway.query_run import KeysOfRound, SharesDealt, SharesHanded, request_session
from medveil.gateway.serving import serve_query
from mpc.query import GATE, SUMS
from mpc.release import Release, verify_release
from mpc.sum_messages import Masked, RoundKeys, Survivors, Unmasking, signed
from wire.errors import ConsentDenied, MedveilError, ProtocolAbort

from .cutting import Cut, Cuts, KeptSteps

HANDLE = bytes(range(16))
Play = Callable[[Callable[[Any], Any]], Any]
ROUNDS = {"keys": RoundKeys, "shares": SharesDealt, "vectors": Masked, "unmasking": Unmasking}


@pytest.fixture
def play(in_consortium: Callable[..., Any], tmp_path: Path) -> Play:
    """Tell a story among four hospitals who wait for each other for six seconds, and for twelve once it is paid."""

    def tell(story: Callable[[Any], Awaitable[Any]]) -> Any:
        async def whole(world: Any) -> Any:
            world.deaf(6)
            for one in world.consortium.organisations.values():
                one.last_patience = 12
            await world.grant_study()
            return await story(world)

        return in_consortium(tmp_path / "consortium", whole, 4)

    return tell


def silent(world: Any, site: str, kind: type[Any], phase: int) -> None:
    """Let nothing of `kind` leave `site` in a phase."""
    seen: list[bytes] = []

    def kept(recipient: str, message: Any) -> Any:
        session = message.shares[0].session if isinstance(message, SharesDealt) else message.session
        if session not in seen:
            seen.append(session)
        return None if seen.index(session) == phase - 1 else message

    world.alter(world[site], kind, kept)


async def checked(world: Any, answer: Any, lost: dict[int, tuple[str, ...]]) -> None:
    """It was released, by phase without the sites `lost`, and everybody can see that it was."""
    assert isinstance(answer, Release), answer
    assert {one.phase: one.lost for one in answer.survivors} == {GATE: (), SUMS: ()} | lost
    verify_release(answer, read_board(await world.bureau.account.caught_up(), HANDLE))
    population = await world.population()
    assert (population.reserved, population.spent) == (0, world.rho)
    assert world.state_of(HANDLE).status == "released"
    for site in world.hospitals:
        summed = any(site in one.sites for one in answer.survivors)
        assert world.ended(site) == ["released" if summed else "aborted"], site


def _alternating(rounds: Iterable[str], quick: int) -> list[Any]:
    """Each round in each phase. Each waits in vain: every second one is a long campaign."""
    return [
        pytest.param(step, phase, marks=[] if (number + phase) % 2 == quick else [pytest.mark.long])
        for number, step in enumerate(rounds)
        for phase in (GATE, SUMS)
    ]


@pytest.mark.parametrize(("step", "phase"), _alternating(ROUNDS, quick=0))
def test_one_of_four_may_fall_silent(play: Play, step: str, phase: int) -> None:
    async def story(world: Any) -> None:
        silent(world, "hospital-2", ROUNDS[step], phase)
        answer, parts = await world.run(world.query(), HANDLE)
        assert world.codes(parts) == ["allowed"] * 4
        await checked(world, answer, {} if step == "unmasking" else {phase: ("hospital-2",)})

    play(story)


@pytest.mark.parametrize(("step", "phase"), _alternating(ROUNDS, quick=1))
def test_two_of_four_end_it(play: Play, step: str, phase: int) -> None:
    """Before the survivors are fixed it costs nothing; after that it is paid, and nothing of the phase is opened."""

    async def story(world: Any) -> None:
        for site in ("hospital-2", "hospital-4"):
            silent(world, site, ROUNDS[step], phase)
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, MedveilError) and all(isinstance(part, MedveilError) for part in parts)
        if phase == GATE and step != "unmasking":
            await world.check_untouched(HANDLE)
            assert all(world.ended(site) == ["aborted"] for site in world.hospitals)
        else:
            await world.check_spent(() if phase == GATE else (GATE,))
            assert all(world.ended(site) == ["released"] for site in world.hospitals)

    play(story)


def test_one_that_is_lost_in_both_phases_brings_nothing(play: Play) -> None:
    async def story(world: Any) -> None:
        for phase in (GATE, SUMS):
            silent(world, "hospital-3", Masked, phase)
        answer, _ = await world.run(world.query(), HANDLE)
        await checked(world, answer, {GATE: ("hospital-3",), SUMS: ("hospital-3",)})
        assert world.ended("hospital-3") == ["aborted"]

    play(story)


def test_another_one_in_each_phase(play: Play) -> None:
    async def story(world: Any) -> None:
        silent(world, "hospital-1", RoundKeys, GATE)
        silent(world, "hospital-4", Masked, SUMS)
        answer, _ = await world.run(world.query(), HANDLE)
        await checked(world, answer, {GATE: ("hospital-1",), SUMS: ("hospital-4",)})
        assert answer.sites == ("hospital-1", "hospital-2", "hospital-3")

    play(story)


@pytest.mark.parametrize("kind", [AnnounceContribution, Contribute])
def test_a_grant_revoked_under_way_leaves_its_site_out(play: Play, kind: type[Any]) -> None:
    """Whoever stops tells the researcher why, and the others go on; its grant is not used any more."""

    async def story(world: Any) -> None:
        site = world["hospital-2"]
        unmasked: list[Any] = []
        world.alter(site, Unmasking, lambda recipient, message: unmasked.append(message) or message)
        world.alter(site, Masked, lambda recipient, message: None)  # stays on its way

        async def revoke(op: Any) -> None:
            await site.submit(RevokeGrant("study-hospital-2"))

        world.after(site, kind, revoke)
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(parts[1], ConsentDenied) and parts[1].code == "gateway.grant_gone"
        assert world.codes([parts[0], *parts[2:]]) == ["allowed"] * 3
        await checked(world, answer, {GATE: ("hospital-2",), SUMS: ("hospital-2",)})
        assert not unmasked

    play(story)


# --- sites that say something wrong --------------------------------------------------------------


def wrongly(kind: type[Any]) -> Callable[[Any], Any]:
    """A message of that kind that no coordinator takes."""

    def change(message: Any) -> Any:
        if kind is SharesDealt:
            return SharesDealt(message.shares[1:])
        return msgspec.structs.replace(message, session=bytes(32))

    return change


@pytest.mark.parametrize("step", ROUNDS)
def test_who_says_something_wrong_is_left_out(play: Play, step: str) -> None:
    async def story(world: Any) -> None:
        change, first = wrongly(ROUNDS[step]), [True]

        def once(recipient: str, message: Any) -> Any:
            return change(message) if first.pop() is True and not first.append(False) else message

        world.alter(world["hospital-1"], ROUNDS[step], once)
        answer, _ = await world.run(world.query(), HANDLE)
        await checked(world, answer, {} if step == "unmasking" else {GATE: ("hospital-1",)})

    play(story)


def test_a_spoiled_vector_ends_it_without_a_name(play: Play) -> None:
    async def story(world: Any) -> None:
        site = world["hospital-3"]

        def spoiled(recipient: str, message: Masked) -> Masked:
            cells = bytes(message.cells[:-1]) + bytes([message.cells[-1] ^ 1])
            return signed(msgspec.structs.replace(message, cells=cells), site.signer)

        world.alter(site, Masked, spoiled)
        answer, _ = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ProtocolAbort)
        assert (answer.code, answer.parties) == ("mpc.sum_aborted", ())
        await world.check_spent(())

    play(story)


def test_who_copies_an_announcement_is_left_out(play: Play) -> None:
    """Else the others would see two that are the same, and stop."""

    async def story(world: Any) -> None:
        site = world["hospital-4"]
        submit = site.submit

        async def copying(*ops: Any) -> Any:
            if isinstance(ops[0], AnnounceContribution):
                phase = ops[0].phase

                def first(state: Any) -> Any:
                    return read_announcements(state, HANDLE, phase, ("hospital-1",)) or None

                (other,) = await site.account.until(first, "another's announcement")
                ops = (msgspec.structs.replace(ops[0], digest=other.digest),)
            return await submit(*ops)

        site.submit = copying
        answer, _ = await world.run(world.query(), HANDLE)
        await checked(world, answer, {GATE: ("hospital-4",), SUMS: ("hospital-4",)})

    play(story)


# --- a researcher that lies ----------------------------------------------------------------------


def said_by_sites(world: Any, kind: type[Any]) -> list[Any]:
    """What of `kind` leaves any hospital."""
    said: list[Any] = []
    for site in world.sites:
        world.alter(site, kind, lambda recipient, message: said.append(message) or message)
    return said


def test_keys_swapped_for_one_site_cost_that_site_alone(play: Play) -> None:
    async def story(world: Any) -> None:
        def swapped(recipient: str, message: KeysOfRound) -> KeysOfRound:
            if recipient != "hospital-2":
                return message
            other = signed(msgspec.structs.replace(message.keys[2], mask=bytes(32)), world.researcher.signer)
            return KeysOfRound((*message.keys[:2], other, *message.keys[3:]))

        world.alter(world.researcher, KeysOfRound, swapped)
        answer, parts = await world.run(world.query(), HANDLE)
        assert parts[1].code == "mpc.bad_signature"
        await checked(world, answer, {GATE: ("hospital-2",), SUMS: ("hospital-2",)})

    play(story)


def test_keys_of_which_two_views_are_shown(play: Play) -> None:
    """A lying site signs two sets of keys; hospital-1 is shown the other ones: the ledger says which hold."""

    async def story(world: Any) -> None:
        liar = world["hospital-4"]
        masked = said_by_sites(world, Masked)

        def two(recipient: str, message: KeysOfRound) -> KeysOfRound:
            if recipient != "hospital-1":
                return message
            other = signed(msgspec.structs.replace(message.keys[3], seal=b"\x09" * 32), liar.signer)
            return KeysOfRound((*message.keys[:3], other))

        world.alter(world.researcher, KeysOfRound, two)
        _, parts = await world.run(world.query(), HANDLE)
        assert parts[0].code in ("mpc.keys_differ", "mpc.wrong_share")
        assert not [one for one in masked if one.site == "hospital-1"]

    play(story)


def test_parties_under_other_keys_than_the_sites_were_shown(play: Play) -> None:
    async def story(world: Any) -> None:
        masked = said_by_sites(world, Masked)
        submit = world.researcher.submit

        async def lying(*ops: Any) -> Any:
            if isinstance(ops[0], FixParties):
                ops = (msgspec.structs.replace(ops[0], keys=bytes(32)),)
            return await submit(*ops)

        world.researcher.submit = lying
        _, parts = await world.run(world.query(), HANDLE)
        assert "mpc.keys_differ" in world.codes(parts)
        assert not masked
        await world.check_untouched()

    play(story)


def test_shares_handed_to_another_than_they_are_for(play: Play) -> None:
    async def story(world: Any) -> None:
        handed: dict[str, SharesHanded] = {}

        def crossed(recipient: str, message: SharesHanded) -> SharesHanded:
            handed[recipient] = message
            return handed["hospital-1"]

        world.alter(world.researcher, SharesHanded, crossed)
        masked = said_by_sites(world, Masked)
        _, parts = await world.run(world.query(), HANDLE)
        assert "mpc.wrong_share" in world.codes(parts[1:])
        assert {one.site for one in masked} <= {"hospital-1"}
        await world.check_untouched()

    play(story)


def test_a_list_of_survivors_below_the_threshold_is_refused_by_the_ledger(play: Play) -> None:
    """Two vectors alone, or one: the contract takes no such list, and no site reads one anywhere else."""

    async def story(world: Any) -> None:
        unmasked = said_by_sites(world, Unmasking)
        submit = world.researcher.submit

        async def lying(*ops: Any) -> Any:
            if isinstance(ops[0], FixSurvivors):
                ops = (msgspec.structs.replace(ops[0], sites=ops[0].sites[:2]),)
            return await submit(*ops)

        world.researcher.submit = lying
        answer, _ = await world.run(world.query(), HANDLE)
        assert isinstance(answer, MedveilError) and answer.code == "queries.too_few_sites"
        assert not unmasked
        await world.check_untouched()

    play(story)


def test_a_site_answers_one_list_of_survivors_alone(play: Play) -> None:
    """It has answered one in an earlier life; a ledger that shows another one now gets nothing: both would open it."""

    async def story(world: Any) -> None:
        site = world["hospital-1"]
        steps = KeptSteps(Cuts())
        before = Survivors(HANDLE, GATE, ("hospital-1", "hospital-2", "hospital-3"), ())

        async def answered() -> Unmasked:
            return Unmasked(before)

        await steps.once(f"unmasking/{GATE}", Unmasked, answered)
        serve = world.serve

        def serving(one: Any, handle: bytes) -> Any:
            if one is not site:
                return serve(one, handle)
            return serve_query(site, "researcher", request_session(handle), world.tables(site), steps, world.now)

        world.serve = serving
        unmasked = said_by_sites(world, Unmasking)
        answer, parts = await world.run(world.query(), HANDLE)
        assert parts[0].code == "mpc.survivors_differ"
        assert "hospital-1" not in {one.site for one in unmasked}
        await checked(world, answer, {SUMS: ("hospital-1",)})

    play(story)


# --- killed while somebody is away ---------------------------------------------------------------

KILLED = [
    "before keys/1",
    "not kept keys/1",
    "kept keys/1",
    "before send KeysOfRound",
    "after send KeysOfRound",
    "not kept parties/1",
    "kept parties/1",
    "before submit FixParties",
    "after submit FixParties",
    "after send SharesHanded",
    "not kept survivors/1",
    "kept survivors/1",
    "before submit FixSurvivors",
    "after submit FixSurvivors",
    "before submit Release",
]


@pytest.mark.parametrize(
    ("step", "where"),
    [
        pytest.param(step, where, marks=[] if (at + number) % 2 else [pytest.mark.long])
        for number, step in enumerate(("keys", "vectors"))
        for at, where in enumerate(KILLED)
    ],
)
def test_a_researcher_killed_while_a_site_is_away_goes_on_with_the_same_sites(
    play: Play, step: str, where: str
) -> None:
    async def story(world: Any) -> None:
        world.researcher.patience = 3  # twice its round is less than the sites have
        silent(world, "hospital-2", ROUNDS[step], GATE)
        cut = Cut(world.researcher, -1)
        point = cut.cuts.point

        def named(name: str) -> None:
            if name == where and where not in cut.cuts.passed:
                cut.cuts.at = len(cut.cuts.passed) + 1
            point(name)

        cut.cuts.point = named  # type: ignore[method-assign]
        try:
            asking = cut.run(partial(ask, world.researcher, world.query(), HANDLE, bytes(32)))
            answer, _ = await world.run(world.query(), HANDLE, asking=asking)
        finally:
            cut.heal()
        assert cut.cuts.at > 0, f"never came to {where}"
        await checked(world, answer, {GATE: ("hospital-2",)})

    play(story)
