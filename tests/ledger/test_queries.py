"""The queries contract: order of steps, and a budget that is exact whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ledger.contracts import (
    AnnounceContribution,
    ApproveQuery,
    CloseQuery,
    Contribute,
    FixParties,
    FixSurvivors,
    ProposeQuery,
    RegisterPopulation,
    Release,
    RetireDataset,
    SupersedeDataset,
    VoteBudget,
)
from ledger.contracts.datasets import PopulationState, population_key
from ledger.contracts.queries import PhaseState, QueryState, ReleaseState, phase_key, query_key, release_key
from wire.commitment import contribution_digest
from wire.errors import BudgetExhausted

Q = b"q" * 16
SALT = bytes(32)
KEYS = b"k" * 32
SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")


def point(site: str, phase: int) -> bytes:
    return f"{site}/{phase}".encode().ljust(48, b".")


def announcement(site: str, phase: int, query: bytes = Q) -> AnnounceContribution:
    return AnnounceContribution(query, phase, contribution_digest(query, phase, site, point(site, phase), SALT))


def contribution(site: str, phase: int, query: bytes = Q) -> Contribute:
    return Contribute(query, phase, point(site, phase), SALT)


def population(world: Any) -> PopulationState:
    state = world.machine.get(population_key("heart"), PopulationState)
    assert isinstance(state, PopulationState)
    return state


def status(world: Any, query: bytes = Q) -> str:
    state = world.machine.get(query_key(query), QueryState)
    assert isinstance(state, QueryState)
    return state.status


def numbers(world: Any) -> tuple[int, int, int]:
    state = population(world)
    return state.available, state.reserved, state.spent


@pytest.fixture
def reserved(make_world: Callable[[], Any]) -> Any:
    world = make_world()
    world.population(1_000_000)
    world.act("researcher", world.proposal())
    for site in world.hospitals:
        world.act(site, ApproveQuery(Q))
    return world


def parties(number: int, sites: tuple[str, ...] = SITES, query: bytes = Q) -> FixParties:
    return FixParties(query, number, sites, KEYS)


def survivors(number: int, sites: tuple[str, ...] = SITES, query: bytes = Q) -> FixSurvivors:
    return FixSurvivors(query, number, sites)


def contributed(world: Any, number: int, announcing: tuple[str, ...] = SITES, sites: tuple[str, ...] = SITES) -> None:
    """A phase as far as `sites` have contributed, who are its parties."""
    for site in announcing:
        world.act(site, announcement(site, number))
    world.act("researcher", parties(number, sites))
    for site in sites:
        world.act(site, contribution(site, number))


def phase(world: Any, number: int, sites: tuple[str, ...] = SITES) -> None:
    contributed(world, number, sites, sites)
    world.act("researcher", survivors(number, sites))


def supersede(world: Any, site: str, name: str) -> None:
    new = world.dataset(name)
    old = f"heart-{site}"
    world.act(site, SupersedeDataset(old, name, new.schema_hash, new.columns, new.row_class, new.commitment))


@pytest.mark.parametrize("change", ["superseded", "retired"])
def test_a_query_goes_no_further_where_its_table_was_replaced(world: Any, change: str) -> None:
    world.population(1_000_000)
    world.act("researcher", world.proposal())
    one, two = world.hospitals[:2]
    world.act(one, ApproveQuery(Q))
    if change == "superseded":
        supersede(world, two, "heart-new")
    else:
        world.act(two, RetireDataset(f"heart-{two}"))
    assert world.refused(two, ApproveQuery(Q)).code == "queries.superseded"
    world.act("researcher", CloseQuery(Q))
    code = "queries.exists" if change == "superseded" else "datasets.no_table"
    again = world.proposal(Q if change == "superseded" else b"r" * 16)
    assert world.refused("researcher", again).code == code
    if change == "superseded":
        world.act("researcher", world.proposal(b"r" * 16))
        world.act(two, ApproveQuery(b"r" * 16))


def test_a_table_replaced_after_its_owner_approved_is_caught_before_anything_is_spent(reserved: Any) -> None:
    one, two = reserved.hospitals[:2]
    reserved.act(one, announcement(one, 1))
    supersede(reserved, two, "heart-new")
    assert reserved.refused(two, announcement(two, 1)).code == "queries.superseded"
    reserved.act(two, CloseQuery(Q))
    assert numbers(reserved) == (1_000_000, 0, 0)


def test_a_query_that_has_paid_runs_to_its_end(reserved: Any) -> None:
    phase(reserved, 1)
    reserved.act("researcher", Release(Q, 1, (1,), bytes(32)))
    supersede(reserved, reserved.hospitals[0], "heart-new")
    phase(reserved, 2)
    reserved.act("researcher", Release(Q, 2, (2,), bytes(32)))
    assert status(reserved) == "released"


def test_what_was_spent_stays_with_the_population_of_a_superseded_table(reserved: Any) -> None:
    phase(reserved, 1)
    for number, site in enumerate(reserved.hospitals):
        supersede(reserved, site, f"heart-new-{number}")
    assert numbers(reserved) == (600_000, 0, 400_000)
    reserved.act("researcher", reserved.proposal(b"r" * 16, rho_nano=600_000))
    with pytest.raises(BudgetExhausted):
        reserved.act("researcher", reserved.proposal(b"s" * 16, rho_nano=600_001))


def test_a_whole_query(make_world: Callable[[], Any]) -> None:
    world = make_world()
    world.population(1_000_000)
    assert world.act("researcher", world.proposal()) == ("queries.proposed",)
    assert numbers(world) == (1_000_000, 0, 0)
    for site in world.hospitals[:3]:
        assert world.act(site, ApproveQuery(Q)) == ("queries.approved",)
    assert world.act(world.hospitals[3], ApproveQuery(Q)) == ("queries.approved", "queries.reserved")
    assert numbers(world) == (600_000, 400_000, 0) and status(world) == "reserved"
    phase(world, 1)
    assert numbers(world) == (600_000, 0, 400_000) and status(world) == "spent"
    world.act("researcher", Release(Q, 1, (1, 2, 3), bytes(32)))
    assert status(world) == "spent"
    phase(world, 2)
    world.act("researcher", Release(Q, 2, (2**63 - 1,), SALT))
    assert status(world) == "released" and numbers(world) == (600_000, 0, 400_000)
    state = world.machine.get(phase_key(Q, 2), PhaseState)
    assert (state.parties, state.keys, state.survivors) == (world.hospitals, KEYS, world.hospitals)
    assert [entry.point for entry in state.contributed] == [point(site, 2) for site in world.hospitals]
    assert world.machine.get(release_key(Q, 1), ReleaseState).totals == (1, 2, 3)


def test_closing_returns_the_reservation_until_survivors_are_fixed(reserved: Any) -> None:
    contributed(reserved, 1)
    assert reserved.act("hospital-3", CloseQuery(Q)) == ("queries.closed",)
    assert numbers(reserved) == (1_000_000, 0, 0) and status(reserved) == "closed"
    for sender, op in (
        ("researcher", survivors(1)),
        ("researcher", CloseQuery(Q)),
        ("hospital-1", announcement("hospital-1", 1)),
    ):
        assert reserved.refused(sender, op).code == "queries.status"
    assert reserved.refused("researcher", reserved.proposal()).code == "queries.exists"


def test_nothing_is_returned_after_that(reserved: Any) -> None:
    phase(reserved, 1)
    for sender in ("researcher", "hospital-1"):
        assert reserved.refused(sender, CloseQuery(Q)).code == "queries.status"
    assert numbers(reserved) == (600_000, 0, 400_000)


def test_a_proposal_can_be_closed_and_costs_nothing(make_world: Callable[[], Any]) -> None:
    world = make_world()
    world.population()
    world.act("researcher", world.proposal())
    world.act("researcher", CloseQuery(Q))
    assert numbers(world) == (1_000_000, 0, 0)
    assert world.refused("hospital-1", ApproveQuery(Q)).code == "queries.status"


def test_the_budget_is_checked_at_the_proposal(reserved: Any) -> None:
    refusal = reserved.refused("researcher", reserved.proposal(b"r" * 16, rho_nano=600_001))
    assert isinstance(refusal, BudgetExhausted)
    assert refusal.facts == {"population": "heart", "asked": "0.000600001", "available": "0.0006"}
    reserved.act("researcher", reserved.proposal(b"r" * 16, rho_nano=600_000))


def test_the_budget_is_checked_again_at_the_reservation(reserved: Any) -> None:
    for query in (b"r" * 16, b"s" * 16):
        reserved.act("researcher", reserved.proposal(query, rho_nano=500_000))
        for site in reserved.hospitals[:3]:
            reserved.act(site, ApproveQuery(query))
    reserved.act("hospital-4", ApproveQuery(b"r" * 16))
    refusal = reserved.refused("hospital-4", ApproveQuery(b"s" * 16))
    assert isinstance(refusal, BudgetExhausted) and refusal.facts["available"] == "0.0001"
    assert status(reserved, b"s" * 16) == "proposed" and numbers(reserved) == (100_000, 900_000, 0)


def test_a_lowered_budget_leaves_nothing_and_never_less(reserved: Any) -> None:
    for site in reserved.hospitals:
        reserved.act(site, VoteBudget("heart", 100))
    assert numbers(reserved) == (0, 400_000, 0)
    assert isinstance(reserved.refused("researcher", reserved.proposal(b"r" * 16, rho_nano=1)), BudgetExhausted)


@pytest.mark.parametrize(
    "fault,sender,change,code",
    [
        ("role", "hospital-1", {}, "organisations.role"),
        ("population", "researcher", {"population": "none"}, "datasets.unknown_population"),
        ("no owner", "researcher", {"roster": ("hospital-1", "hospital-2", "insurer")}, "datasets.not_owner"),
        ("twice", "researcher", {"roster": ("hospital-1", "hospital-2", "hospital-1")}, "queries.roster_twice"),
    ],
)
def test_proposals_that_are_refused(
    make_world: Callable[[], Any], fault: str, sender: str, change: dict[str, Any], code: str
) -> None:
    world = make_world()
    world.population()
    assert world.refused(sender, world.proposal(**change)).code == code


def test_no_budget_in_force(world: Any) -> None:
    world.act("hospital-1", RegisterPopulation("heart", "row", 1, 1, world.hospitals))
    world.act("hospital-1", world.dataset("d"))
    assert world.refused("researcher", world.proposal()).code == "datasets.no_budget"


def test_a_budget_without_tables_answers_no_query(world: Any) -> None:
    world.act("hospital-1", RegisterPopulation("heart", "row", 1, 1, world.hospitals))
    for number, site in enumerate(world.hospitals):
        world.act(site, VoteBudget("heart", 10**6))
        if number < 3:
            world.act(site, world.dataset(f"heart-{site}"))
    assert world.refused("researcher", world.proposal()).code == "datasets.no_table"
    world.act("hospital-4", world.dataset("heart-hospital-4"))
    assert world.act("researcher", world.proposal()) == ("queries.proposed",)


def test_a_table_superseded_before_the_proposal_does_not_spoil_it_and_one_after_it_does(world: Any) -> None:
    """Also in one block: what counts is the order, not the height."""
    world.population()
    new = world.dataset("heart-new")
    supersede = SupersedeDataset(
        "heart-hospital-1", "heart-new", new.schema_hash, new.columns, new.row_class, new.commitment
    )
    outcome = world.block(
        world.envelope("hospital-1", supersede),
        world.envelope("researcher", world.proposal()),
        world.envelope("hospital-2", RetireDataset("heart-hospital-2"), world.dataset("heart-again")),
    )
    assert all(result.accepted for result in outcome.results)
    assert world.act("hospital-1", ApproveQuery(Q)) == ("queries.approved",)
    assert world.refused("hospital-2", ApproveQuery(Q)).code == "queries.superseded"


def test_the_order_of_a_phase(reserved: Any) -> None:
    cases: list[tuple[str, Any, str]] = [
        ("hospital-1", contribution("hospital-1", 1), "queries.no_parties"),
        ("researcher", parties(1), "queries.not_listed"),
        ("researcher", survivors(1), "queries.not_listed"),
        ("researcher", Release(Q, 1, (1,), SALT), "queries.not_fixed"),
        ("hospital-1", announcement("hospital-1", 2), "queries.phase"),
        ("hospital-1", ApproveQuery(Q), "queries.status"),
        ("researcher", announcement("researcher", 1), "queries.not_party"),
        ("insurer", ApproveQuery(Q), "queries.not_party"),
        ("insurer", CloseQuery(Q), "queries.not_party"),
        ("hospital-1", parties(1), "queries.not_party"),
        ("hospital-1", survivors(1), "queries.not_party"),
        ("hospital-1", Release(Q, 1, (1,), SALT), "queries.not_party"),
        ("hospital-1", announcement("hospital-1", 1, b"n" * 16), "queries.unknown"),
    ]
    for sender, op, code in cases:
        assert reserved.refused(sender, op).code == code
    for site in reserved.hospitals:
        reserved.act(site, announcement(site, 1))
        assert reserved.refused(site, announcement(site, 1)).code == "queries.announced"
    reserved.act("researcher", parties(1))
    assert reserved.refused("researcher", parties(1, SITES[:3])).code == "queries.parties_fixed"
    for site in reserved.hospitals[:3]:
        reserved.act(site, contribution(site, 1))
        assert reserved.refused(site, contribution(site, 1)).code == "queries.contributed"
    assert reserved.refused("researcher", survivors(1)).code == "queries.not_listed"
    reserved.act("hospital-4", contribution("hospital-4", 1))
    assert reserved.refused("hospital-1", announcement("hospital-1", 2)).code == "queries.phase"
    reserved.act("researcher", survivors(1))
    assert reserved.refused("researcher", survivors(1, SITES[:3])).code == "queries.phase"
    assert reserved.refused("researcher", parties(1, SITES[:3])).code == "queries.phase"
    assert reserved.refused("hospital-1", announcement("hospital-1", 2)).code == "queries.phase"
    reserved.act("researcher", Release(Q, 1, (1,), SALT))
    assert reserved.refused("researcher", Release(Q, 1, (2,), SALT)).code == "queries.released"
    assert reserved.refused("hospital-1", announcement("hospital-1", 3)).code == "queries.phase"
    reserved.act("hospital-1", announcement("hospital-1", 2))


def test_a_site_may_be_missing_from_each_step_on(reserved: Any) -> None:
    """Of four, three are enough: one does not announce, or not contribute, or is left out; another one in phase 2."""
    for site in SITES[1:]:
        reserved.act(site, announcement(site, 1))
    assert reserved.refused("researcher", parties(1)).code == "queries.not_listed"
    reserved.act("researcher", parties(1, SITES[1:]))
    assert reserved.refused("hospital-1", announcement("hospital-1", 1)).code == "queries.parties_fixed"
    assert reserved.refused("hospital-1", contribution("hospital-1", 1)).code == "queries.not_listed"
    for site in SITES[1:]:
        reserved.act(site, contribution(site, 1))
    assert reserved.act("researcher", survivors(1, SITES[1:])) == ("queries.survivors", "queries.spent")
    reserved.act("researcher", Release(Q, 1, (1,), SALT))
    contributed(reserved, 2, SITES, SITES)
    assert reserved.act("researcher", survivors(2, SITES[:3])) == ("queries.survivors",)
    reserved.act("researcher", Release(Q, 2, (1,), SALT))
    assert status(reserved) == "released" and numbers(reserved) == (600_000, 0, 400_000)


@pytest.mark.parametrize(
    ("sites", "code"),
    [
        (SITES[:2], "queries.too_few_sites"),
        (SITES[1:2], "queries.too_few_sites"),
        ((*SITES[:2], "hospital-4", "hospital-3"), "queries.roster_order"),
        ((*SITES[:3], "hospital-3"), "queries.roster_order"),
        ((*SITES[:3], "insurer"), "queries.not_listed"),
    ],
)
def test_lists_that_are_refused(reserved: Any, sites: tuple[str, ...], code: str) -> None:
    """One below the threshold, another order, one twice, a stranger: as parties and as survivors."""
    for site in SITES:
        reserved.act(site, announcement(site, 1))
    assert reserved.refused("researcher", parties(1, sites)).code == code
    reserved.act("researcher", parties(1))
    for site in SITES:
        reserved.act(site, contribution(site, 1))
    assert reserved.refused("researcher", survivors(1, sites)).code == code
    assert numbers(reserved) == (600_000, 400_000, 0)


def test_survivors_are_parties_that_contributed(reserved: Any) -> None:
    for site in SITES:
        reserved.act(site, announcement(site, 1))
    reserved.act("researcher", parties(1, SITES[:3]))
    for site in SITES[:2]:
        reserved.act(site, contribution(site, 1))
    for sites in (SITES[:3], (*SITES[:2], "hospital-4")):
        assert reserved.refused("researcher", survivors(1, sites)).code == "queries.not_listed"
    assert reserved.refused("researcher", survivors(1, SITES[:2])).code == "queries.too_few_sites"
    reserved.act("researcher", CloseQuery(Q))
    assert numbers(reserved) == (1_000_000, 0, 0)


def test_a_contribution_is_what_was_announced_by_the_same_site_for_the_same_phase(reserved: Any) -> None:
    for site in reserved.hospitals:
        reserved.act(site, announcement(site, 1))
    reserved.act("researcher", parties(1))
    for wrong in (
        Contribute(Q, 1, point("hospital-2", 1), SALT),
        Contribute(Q, 1, point("hospital-1", 1), b"\x01" * 32),
        Contribute(Q, 1, point("hospital-1", 2), SALT),
    ):
        assert reserved.refused("hospital-1", wrong).code == "queries.digest"


def test_copying_an_announcement_does_not_help(reserved: Any) -> None:
    """A site that repeats another's digest cannot open it: the digest holds the site's name."""
    reserved.act("hospital-1", announcement("hospital-1", 1))
    reserved.act("hospital-2", announcement("hospital-1", 1))
    for site in reserved.hospitals[2:]:
        reserved.act(site, announcement(site, 1))
    reserved.act("researcher", parties(1))
    reserved.act("hospital-1", contribution("hospital-1", 1))
    assert reserved.refused("hospital-2", contribution("hospital-1", 1)).code == "queries.digest"


def test_unapproved_queries_take_no_contributions(make_world: Callable[[], Any]) -> None:
    world = make_world()
    world.population()
    world.act("researcher", world.proposal())
    assert world.refused("hospital-1", announcement("hospital-1", 1)).code == "queries.status"
    world.act("hospital-1", ApproveQuery(Q))
    assert world.refused("hospital-1", ApproveQuery(Q)).code == "queries.approved"


def test_another_researcher_has_no_hand_in_it(reserved: Any) -> None:
    assert isinstance(reserved.proposal(), ProposeQuery)
    assert reserved.refused("regulator", CloseQuery(Q)).code == "queries.not_party"


def test_budget_model(make_world: Callable[[], Any]) -> None:
    """Any order of steps: available + reserved + spent is the budget, and equals a plain model's books."""

    class Books(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.world = make_world()
            self.world.population(1000)
            self.queries: dict[bytes, list[Any]] = {}  # [rho, approvals, state]

        def attempt(self, sender: str, op: Any) -> bool:
            outcome = self.world.block(self.world.envelope(sender, op))
            return bool(outcome.results[0].accepted)

        @rule(name=st.integers(0, 5), rho=st.integers(1, 700))
        def propose(self, name: int, rho: int) -> None:
            query = bytes([name]) * 16
            fits = query not in self.queries and rho <= self.available
            op = self.world.proposal(query, rho_nano=rho, phases=1, roster=self.world.hospitals[:3])
            assert self.attempt("researcher", op) == fits
            if fits:
                self.queries[query] = [rho, set(), "proposed"]

        @rule(name=st.integers(0, 5), site=st.integers(0, 3))
        def approve(self, name: int, site: int) -> None:
            query, hospital = bytes([name]) * 16, self.world.hospitals[site]
            entry = self.queries.get(query)
            fits = entry is not None and entry[2] == "proposed" and site < 3 and site not in entry[1]
            if fits and entry is not None and len(entry[1]) == 2:
                fits = entry[0] <= self.available
            assert self.attempt(hospital, ApproveQuery(query)) == fits
            if fits and entry is not None:
                entry[1].add(site)
                if len(entry[1]) == 3:
                    entry[2] = "reserved"

        @rule(name=st.integers(0, 5))
        def close(self, name: int) -> None:
            entry = self.queries.get(bytes([name]) * 16)
            fits = entry is not None and entry[2] in ("proposed", "reserved")
            assert self.attempt("researcher", CloseQuery(bytes([name]) * 16)) == fits
            if fits and entry is not None:
                entry[2] = "closed"

        @rule(name=st.integers(0, 5))
        def spend(self, name: int) -> None:
            query = bytes([name]) * 16
            entry = self.queries.get(query)
            if entry is None or entry[2] != "reserved":
                assert not self.attempt("researcher", parties(1, SITES[:3], query))
                assert not self.attempt("researcher", survivors(1, SITES[:3], query))
                return
            for site in self.world.hospitals[:3]:
                assert self.attempt(site, announcement(site, 1, query))
            assert self.attempt("researcher", parties(1, SITES[:3], query))
            for site in self.world.hospitals[:3]:
                assert self.attempt(site, contribution(site, 1, query))
            assert self.attempt("researcher", survivors(1, SITES[:3], query))
            entry[2] = "spent"

        def total(self, state: str) -> int:
            return sum(entry[0] for entry in self.queries.values() if entry[2] == state)

        @property
        def available(self) -> int:
            return 1000 - self.total("reserved") - self.total("spent")

        @invariant()
        def books_agree(self) -> None:
            assert numbers(self.world) == (self.available, self.total("reserved"), self.total("spent"))

    run_state_machine_as_test(Books, settings=settings(max_examples=15, stateful_step_count=25, deadline=None))


def _summed(world: Any, number: int, sites: tuple[str, ...]) -> PhaseState:
    """A query of its own, one phase of which is summed over `sites`."""
    query = number.to_bytes(16, "big")
    world.act("researcher", world.proposal(query, rho_nano=1))
    for site in SITES:
        world.act(site, ApproveQuery(query))
    for site in sites:
        world.act(site, announcement(site, 1, query))
    world.act("researcher", parties(1, sites, query))
    for site in sites:
        world.act(site, contribution(site, 1, query))
    world.act("researcher", survivors(1, sites, query))
    state = world.machine.get(phase_key(query, 1), PhaseState)
    assert isinstance(state, PhaseState)
    return state


def test_sums_over_sets_that_differ_by_one_or_two_sites_are_kept_with_each_other(make_world: Callable[[], Any]) -> None:
    """Whatever the order: each phase keeps the earlier sets that are near, the latest sum over each, and how many."""
    world = make_world()
    world.population(1_000_000)
    sets = [SITES, SITES[:3], SITES[1:], SITES, SITES[:3], (*SITES[:2], SITES[3]), SITES[1:]]
    book: list[tuple[set[str], bytes, int]] = []
    for number, sites in enumerate(sets, start=1):
        state = _summed(world, number, sites)
        expected = [
            (query, 1, sums, tuple(sorted(known ^ set(sites)))) for known, query, sums in book if known != set(sites)
        ]
        assert [(one.query, one.phase, one.sums, one.sites) for one in state.near] == expected
        assert all(len(one.sites) in (1, 2) for one in state.near)
        query = number.to_bytes(16, "big")
        if all(known != set(sites) for known, _, _ in book):
            book.append((set(sites), query, 1))
        else:
            book = [(known, query, sums + 1) if known == set(sites) else (known, q, sums) for known, q, sums in book]
    assert len(book) == 4


def test_a_site_lost_between_the_phases_is_kept_with_the_second(reserved: Any) -> None:
    world = reserved
    phase(world, 1)
    world.act("researcher", Release(Q, 1, (1,), bytes(32)))
    phase(world, 2, SITES[:3])
    second = world.machine.get(phase_key(Q, 2), PhaseState)
    assert [(one.query, one.phase, one.sums, one.sites) for one in second.near] == [(Q, 1, 1, (SITES[3],))]
    other = world.machine.get(phase_key(Q, 1), PhaseState)
    assert other.near == ()
