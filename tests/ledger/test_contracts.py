"""Contracts other than queries: who may do what, and what never changes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ledger.contracts import (
    AnchorAccess,
    AnchorGrant,
    Column,
    RegisterBill,
    RegisterModel,
    RegisterPopulation,
    RenewGrant,
    RetireDataset,
    RevokeGrant,
    SupersedeDataset,
    VoteBudget,
    VoteSuspension,
)
from ledger.contracts.access import BatchState, ChainState, batch_key, chain_key
from ledger.contracts.bills import BillState, bill_key
from ledger.contracts.contract import state_key
from ledger.contracts.datasets import DatasetState, PopulationState, dataset_key, population_key
from ledger.contracts.grants import GrantState, grant_key
from ledger.contracts.membership import Consortium, MemberState, ballot_key, consortium_key, member_key
from ledger.contracts.models import ModelState, model_key
from ledger.contracts.organisations import Ballot
from wire.domains import ENVELOPE, MODEL_REVIEW

# --- organisations -------------------------------------------------------------------------------

VOTERS = ("bureau", "hospital-2", "hospital-3", "hospital-4", "insurer", "researcher")


def test_genesis_writes_members(world: Any) -> None:
    consortium = world.machine.get(consortium_key(), Consortium)
    assert consortium == Consortium(world.trust.genesis_hash, 6, 8, 6, "bureau", "Asia/Shanghai", 8, 8, 0, ())
    for member in world.founding.members:
        state = world.machine.get(member_key(member.organisation), MemberState)
        assert (state.roles, state.keys, state.suspended) == (member.roles, member.keys, False)


def test_suspension_and_back(world: Any) -> None:
    for voter in VOTERS:
        world.act(voter, VoteSuspension("hospital-1", True))
    assert world.machine.get(member_key("hospital-1"), MemberState).suspended
    assert world.machine.get(ballot_key("hospital-1"), Ballot) is None
    assert world.refused("hospital-1", RevokeGrant("x")).code == "ledger.suspended"
    for voter in VOTERS[:5]:
        world.act(voter, VoteSuspension("hospital-1", False))
    assert world.refused("hospital-1", RevokeGrant("x")).code == "ledger.suspended"
    assert world.act("regulator", VoteSuspension("hospital-1", False)) == ("organisations.restored",)
    assert world.refused("hospital-1", RevokeGrant("x")).code == "grants.unknown"


def test_votes_of_the_suspended_do_not_count(world: Any) -> None:
    world.act("insurer", VoteSuspension("hospital-1", True))
    for voter in ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "researcher"):
        world.act(voter, VoteSuspension("insurer", True))
    for voter in ("bureau", "hospital-2", "hospital-3", "hospital-4", "researcher"):
        assert world.act(voter, VoteSuspension("hospital-1", True)) == ("organisations.voted",)
    assert world.act("regulator", VoteSuspension("hospital-1", True)) == ("organisations.suspended",)


def test_a_ballot_is_counted_anew_when_a_vote_is_repeated(world: Any) -> None:
    """All may have voted while some were suspended: once they are back, nobody else is left to decide it."""
    world.act("insurer", VoteSuspension("bureau", True))
    others = ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "regulator")
    for voter in others:
        world.act(voter, VoteSuspension("insurer", True))
    for voter in others[1:]:
        assert world.act(voter, VoteSuspension("bureau", True)) == ("organisations.voted",)
    assert world.refused("regulator", VoteSuspension("bureau", True)).code == "organisations.voted"
    for voter in others:
        world.act(voter, VoteSuspension("insurer", False))
    assert world.act("regulator", VoteSuspension("bureau", True)) == ("organisations.suspended",)


def test_votes_that_are_refused(world: Any, make_world: Callable[[], Any]) -> None:
    world.act("bureau", VoteSuspension("hospital-1", True))
    for sender, op, code in (
        ("bureau", VoteSuspension("hospital-1", True), "organisations.voted"),
        ("hospital-1", VoteSuspension("hospital-1", True), "organisations.own_case"),
        ("bureau", VoteSuspension("hospital-2", False), "organisations.no_change"),
        ("bureau", VoteSuspension("stranger", True), "organisations.unknown"),
    ):
        assert world.refused(sender, op).code == code
    members = tuple(
        msgspec.structs.replace(member, re_executes=member.organisation != "insurer")
        for member in world.founding.members
    )
    other = make_world()
    other.machine = type(other.machine)(msgspec.structs.replace(world.founding, members=members))
    other.trust = type(other.trust)(**(msgspec.structs.asdict(other.trust) | {"genesis_hash": other.machine.genesis}))
    assert other.refused("insurer", VoteSuspension("hospital-1", True)).code == "organisations.no_vote"


# --- datasets ------------------------------------------------------------------------------------


HOSPITALS = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")


def register(population: str = "heart", owners: tuple[str, ...] = HOSPITALS, **change: Any) -> RegisterPopulation:
    """Registers a population of the hospitals."""
    fields = {"population": population, "unit": "row", "rows_per_person": 1, "colluders": 1, "owners": owners}
    return RegisterPopulation(**(fields | change))


def test_a_population_comes_into_force_by_equal_votes_of_all_owners(world: Any) -> None:
    world.act("hospital-1", register())
    for hospital in world.hospitals:
        assert world.act(hospital, world.dataset(f"heart-{hospital}")) == ("datasets.dataset",)
    for hospital in world.hospitals[:3]:
        assert world.act(hospital, VoteBudget("heart", 5)) == ("datasets.vote",)
    assert world.act(world.hospitals[3], VoteBudget("heart", 6)) == ("datasets.vote",)
    assert world.machine.get(population_key("heart"), PopulationState).budget == 0
    assert world.act(world.hospitals[3], VoteBudget("heart", 5)) == ("datasets.budget",)
    state = world.machine.get(population_key("heart"), PopulationState)
    assert (state.budget, state.reserved, state.spent, state.available) == (5, 0, 0, 5)
    assert state.owners == world.hospitals and len(state.datasets) == 4
    dataset = world.machine.get(dataset_key("heart-hospital-2"), DatasetState)
    assert (dataset.owner, dataset.row_class, dataset.columns[0].name) == ("hospital-2", 500, "chol")


def test_a_budget_changes_by_unanimous_vote_only(world: Any) -> None:
    world.population(100)
    for number, hospital in enumerate(world.hospitals):
        world.act(hospital, VoteBudget("heart", 50))
        assert world.machine.get(population_key("heart"), PopulationState).budget == (50 if number == 3 else 100)


def test_only_the_named_owners_register_tables_and_vote(world: Any) -> None:
    """Nobody else closes a population, holds its budget up or fills it."""
    world.act("insurer", register())  # whoever registers it need not own any of it
    for outsider in ("insurer", "researcher"):
        assert world.refused(outsider, VoteBudget("heart", 7)).code == "datasets.not_owner"
    assert world.refused("insurer", world.dataset("late")).code == "datasets.not_owner"
    for site in world.hospitals[:3]:
        assert world.act(site, VoteBudget("heart", 7)) == ("datasets.vote",)  # before any table is there
    assert world.act("hospital-4", VoteBudget("heart", 7)) == ("datasets.budget",)
    world.act("hospital-1", world.dataset("first"))
    state = world.machine.get(population_key("heart"), PopulationState)
    assert (state.registered_by, state.owners, state.budget) == ("insurer", world.hospitals, 7)


def test_a_suspended_owner_is_not_waited_for(world: Any) -> None:
    world.act("hospital-1", register())
    for voter in ("bureau", "hospital-1", "hospital-2", "hospital-3", "insurer", "researcher"):
        world.act(voter, VoteSuspension("hospital-4", True))
    for site in world.hospitals[:2]:
        assert world.act(site, VoteBudget("heart", 7)) == ("datasets.vote",)
    assert world.act("hospital-3", VoteBudget("heart", 7)) == ("datasets.budget",)
    for voter in ("bureau", "hospital-1", "hospital-2", "hospital-3", "insurer", "researcher"):
        world.act(voter, VoteSuspension("hospital-4", False))
    for site in world.hospitals[:3]:
        assert world.act(site, VoteBudget("heart", 8)) == ("datasets.vote",)
    assert world.machine.get(population_key("heart"), PopulationState).budget == 7


def test_each_owner_has_its_share_of_a_population(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.contracts.datasets.MOST_DATASETS", 9)
    world.act("hospital-1", register())
    world.act("hospital-1", world.dataset("a"), world.dataset("b"))
    refusal = world.refused("hospital-1", world.dataset("c"))
    assert (refusal.code, refusal.facts["limit"]) == ("datasets.too_many", 2)
    world.act("hospital-2", world.dataset("c"))
    world.act("hospital-1", RetireDataset("a"), world.dataset("d"))


def test_declared_values_are_compared_in_linear_time(world: Any) -> None:
    """The largest declaration that an envelope can hold takes every replica a moment, and not a second."""
    values = tuple(f"{number:03}" for number in range(1000))
    columns = tuple(Column(f"c{number}", "category", 0, 0, 1, values) for number in range(256))
    world.act("hospital-1", register())
    started = time.process_time()
    world.act("hospital-1", world.dataset("wide", columns=columns))
    assert time.process_time() - started < 0.5
    twice = (Column("c", "category", 0, 0, 1, (*values[:-1], values[0])),)
    assert world.refused("hospital-1", world.dataset("other", columns=twice)).code == "datasets.bad_column"


def test_a_population_has_a_most_of_datasets(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.contracts.datasets.MOST_DATASETS", 4)
    world.population()
    assert world.refused("hospital-1", world.dataset("more")).code == "datasets.too_many"


def successor(world: Any, dataset: str, name: str, **change: Any) -> SupersedeDataset:
    new = world.dataset(name)
    fields = {"schema_hash": new.schema_hash, "columns": new.columns, "row_class": 1000, "commitment": new.commitment}
    return SupersedeDataset(**({"dataset": dataset, "successor": name} | fields | change))


def test_a_superseded_table_stays_readable_and_its_successor_inherits_the_population(world: Any) -> None:
    world.population(100)
    before = world.machine.get(population_key("heart"), PopulationState)
    events = world.act("hospital-1", successor(world, "heart-hospital-1", "heart-2"))
    assert events == ("datasets.superseded", "datasets.dataset")
    old = world.machine.get(dataset_key("heart-hospital-1"), DatasetState)
    new = world.machine.get(dataset_key("heart-2"), DatasetState)
    assert (old.superseded_by, old.current, old.version, old.row_class) == ("heart-2", False, 1, 500)
    assert (new.supersedes, new.current, new.version, new.row_class) == ("heart-hospital-1", True, 2, 1000)
    assert (new.population, new.owner, new.height) == ("heart", "hospital-1", world.machine.height)
    after = world.machine.get(population_key("heart"), PopulationState)
    assert after.datasets == ("heart-2", *before.datasets[1:])
    assert (after.budget, after.owners, after.providers) == (before.budget, before.owners, before.providers)
    world.act("hospital-1", successor(world, "heart-2", "heart-3"))
    assert world.machine.get(dataset_key("heart-3"), DatasetState).version == 3


def test_a_retired_table_takes_its_site_out_of_new_queries_but_leaves_it_its_vote(world: Any) -> None:
    world.population(100)
    world.act("hospital-1", world.dataset("more"))
    world.act("hospital-1", RetireDataset("heart-hospital-1"))
    state = world.machine.get(dataset_key("heart-hospital-1"), DatasetState)
    assert (state.retired_at, state.current) == (world.time, False)
    assert world.machine.get(population_key("heart"), PopulationState).provides("hospital-1")
    world.act("hospital-1", RetireDataset("more"))
    state = world.machine.get(population_key("heart"), PopulationState)
    assert not state.provides("hospital-1") and "hospital-1" in state.owners and len(state.datasets) == 3
    for hospital in world.hospitals[1:]:
        assert world.act(hospital, VoteBudget("heart", 200)) == ("datasets.vote",)
    assert world.act("hospital-1", VoteBudget("heart", 200)) == ("datasets.budget",)
    world.act("hospital-1", world.dataset("again"))
    assert world.machine.get(population_key("heart"), PopulationState).provides("hospital-1")


def test_tables_that_are_not_superseded_or_retired(world: Any) -> None:
    world.population()
    world.act("hospital-1", successor(world, "heart-hospital-1", "heart-2"))
    world.act("hospital-3", RetireDataset("heart-hospital-3"))
    for sender, op, code in (
        ("hospital-1", successor(world, "heart-hospital-1", "heart-9"), "datasets.superseded"),
        ("hospital-1", RetireDataset("heart-hospital-1"), "datasets.superseded"),
        ("hospital-3", RetireDataset("heart-hospital-3"), "datasets.retired"),
        ("hospital-3", successor(world, "heart-hospital-3", "heart-9"), "datasets.retired"),
        ("hospital-2", successor(world, "heart-2", "heart-9"), "datasets.not_its_owner"),
        ("hospital-2", RetireDataset("heart-2"), "datasets.not_its_owner"),
        ("hospital-1", RetireDataset("none"), "datasets.unknown_dataset"),
        ("hospital-1", successor(world, "heart-2", "heart-hospital-2"), "datasets.dataset_exists"),
        ("hospital-1", successor(world, "heart-2", "heart-2"), "datasets.dataset_exists"),
        ("hospital-1", successor(world, "heart-2", "x", row_class=303), "datasets.row_class"),
        ("hospital-1", successor(world, "heart-2", "x", **column("a", "number", 2, 1, 1, ())), "datasets.bad_column"),
        ("researcher", RetireDataset("heart-2"), "organisations.role"),
    ):
        assert world.refused(sender, op).code == code


def column(*fields: Any) -> dict[str, Any]:
    return {"columns": (Column(*fields),)}


@pytest.mark.parametrize(
    "fault,sender,change,code",
    [
        ("role", "researcher", {}, "organisations.role"),
        ("no population", "hospital-1", {"population": "none"}, "datasets.unknown_population"),
        ("taken", "hospital-1", {"dataset": "taken"}, "datasets.dataset_exists"),
        ("exact count", "hospital-1", {"row_class": 303}, "datasets.row_class"),
        ("no step", "hospital-1", {"row_class": 300}, "datasets.row_class"),
        ("bounds", "hospital-1", column("a", "number", 2, 1, 1, ()), "datasets.bad_column"),
        ("number with values", "hospital-1", column("a", "number", 0, 1, 1, ("x",)), "datasets.bad_column"),
        ("category without", "hospital-1", column("a", "category", 0, 0, 1, ()), "datasets.bad_column"),
        ("category twice", "hospital-1", column("a", "category", 0, 0, 1, ("x", "x")), "datasets.bad_column"),
        ("category bounds", "hospital-1", column("a", "category", 0, 9, 1, ("x",)), "datasets.bad_column"),
        (
            "same name",
            "hospital-1",
            {"columns": (Column("a", "number", 0, 1, 1, ()), Column("a", "number", 0, 1, 1, ()))},
            "datasets.bad_column",
        ),
    ],
)
def test_datasets_that_are_refused(world: Any, fault: str, sender: str, change: dict[str, Any], code: str) -> None:
    world.act("hospital-2", register(unit="person", rows_per_person=5))
    world.act("hospital-2", world.dataset("taken"))
    assert world.refused(sender, world.dataset(**({"name": change.pop("dataset", "fresh")} | change))).code == code


def test_populations_and_votes_that_are_refused(world: Any) -> None:
    world.population()
    for sender, op, code in (
        ("hospital-2", register(), "datasets.population_exists"),
        ("researcher", register("other"), "organisations.role"),
        ("hospital-2", register("other", rows_per_person=2), "datasets.row_unit"),
        ("hospital-2", register("other", ("hospital-1", "insurer", "hospital-1")), "datasets.owner_twice"),
        ("hospital-2", register("other", ("hospital-1", "researcher")), "organisations.role"),
        ("hospital-2", register("other", ("hospital-1", "nobody")), "organisations.unknown"),
        ("researcher", VoteBudget("heart", 1), "datasets.not_owner"),
        ("hospital-1", VoteBudget("none", 1), "datasets.unknown_population"),
    ):
        assert world.refused(sender, op).code == code


# --- grants --------------------------------------------------------------------------------------


def test_a_grant_and_its_revocation(world: Any) -> None:
    world.act("hospital-1", AnchorGrant("g", bytes(32), world.start, world.start + 10**9, 3))
    state = world.machine.get(grant_key("g"), GrantState)
    assert (state.issuer, state.epoch, state.height, state.revoked_at) == ("hospital-1", 3, 1, None)
    assert world.refused("hospital-2", RevokeGrant("g")).code == "grants.not_issuer"
    world.act("hospital-1", RevokeGrant("g"))
    state = world.machine.get(grant_key("g"), GrantState)
    assert (state.revoked_at, state.revoked_height) == (world.time, world.machine.height)
    assert world.refused("hospital-1", RevokeGrant("g")).code == "grants.revoked"
    again = AnchorGrant("g", bytes(32), world.start, world.start + 10**9, 4)
    assert world.refused("hospital-1", again).code == "grants.exists"
    assert world.refused("hospital-1", RevokeGrant("none")).code == "grants.unknown"


def test_a_grant_is_revoked_by_epoch(world: Any, named: Callable[..., bytes]) -> None:
    start, end = world.start, world.start + 10**9
    world.act("hospital-1", AnchorGrant("g", named("terms"), start, end, 3))
    world.act("hospital-1", RenewGrant("g", named("new terms"), start + 5, end + 5, 7))
    state = world.machine.get(grant_key("g"), GrantState)
    assert (state.epoch, state.commitment, state.height, state.revoked_at) == (7, named("new terms"), 2, None)
    (past,) = state.past
    assert (past.epoch, past.commitment, past.height, past.revoked_at) == (3, named("terms"), 1, world.time)
    assert past.revoked_height == 2 and state.as_of(2) is state
    before = state.as_of(1)
    assert before.revoked_height == 2
    assert (before.epoch, before.commitment, before.revoked_at, before.past) == (3, named("terms"), world.time, ())
    assert [before.status(at) for at in (world.time - 1, world.time)] == ["in-force", "revoked"]
    for sender, op, code in (
        ("hospital-1", RenewGrant("g", bytes(32), start, end, 7), "grants.epoch"),
        ("hospital-1", RenewGrant("g", bytes(32), start, end, 3), "grants.epoch"),
        ("hospital-2", RenewGrant("g", bytes(32), start, end, 8), "grants.not_issuer"),
        ("hospital-1", RenewGrant("g", bytes(32), end, start, 8), "grants.period"),
        ("hospital-1", RenewGrant("none", bytes(32), start, end, 8), "grants.unknown"),
    ):
        assert world.refused(sender, op).code == code
    world.act("hospital-1", RevokeGrant("g"))
    assert world.refused("hospital-1", RenewGrant("g", bytes(32), start, end, 8)).code == "grants.revoked"


def test_a_grant_has_a_most_of_epochs(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.contracts.grants.MOST_EPOCHS", 2)
    start, end = world.start, world.start + 10**9
    world.act("hospital-1", AnchorGrant("g", bytes(32), start, end, 0))
    for epoch in (1, 2):
        world.act("hospital-1", RenewGrant("g", bytes(32), start, end, epoch))
    assert world.refused("hospital-1", RenewGrant("g", bytes(32), start, end, 3)).code == "grants.too_many_epochs"


def test_grants_are_listed_as_they_are_at_an_instant(world: Any) -> None:
    begin, end = world.start + 10_000, world.start + 20_000
    world.act("hospital-1", AnchorGrant("a", bytes(32), begin, end, 0), AnchorGrant("b", bytes(32), begin, end, 0))
    world.act("hospital-1", RevokeGrant("b"))
    found = [state for _, state in world.machine.items(b"grants/", GrantState)]
    listed = [[state.status(at) for state in found] for at in (begin - 1, begin, end - 1, end)]
    assert listed == [["not-yet", "revoked"], ["in-force", "revoked"], ["in-force", "revoked"], ["expired", "revoked"]]
    assert [state.status(world.start) for state in found] == ["not-yet", "not-yet"]  # before it was revoked


@pytest.mark.parametrize("begin,end", [(5, 5), (10**9, 10**9), (10**9, 5), (-(10**9), -1), (-5, 1000)])
def test_empty_and_past_periods(world: Any, begin: int, end: int) -> None:
    op = AnchorGrant("g", bytes(32), world.start + begin, world.start + end, 0)
    assert world.refused("hospital-1", op).code == "grants.period"


# --- access --------------------------------------------------------------------------------------


def test_batches_continue_one_another(world: Any, named: Callable[..., bytes]) -> None:
    heads = [bytes(32), named("1"), named("2")]
    world.act("hospital-1", AnchorAccess(1, 10, heads[0], heads[1], named("r1")))
    world.act("hospital-2", AnchorAccess(1, 3, heads[0], named("x"), named("r")))
    world.act("hospital-1", AnchorAccess(11, 11, heads[1], heads[2], named("r2")))
    assert world.machine.get(chain_key("hospital-1"), ChainState) == ChainState("hospital-1", 11, heads[2], 2)
    batch = world.machine.get(batch_key("hospital-1", 11), BatchState)
    assert (batch.root, batch.height, batch.time) == (named("r2"), 3, world.time)
    for op, code in (
        (AnchorAccess(13, 14, heads[2], named("3"), named("r3")), "access.gap"),
        (AnchorAccess(11, 12, heads[1], named("3"), named("r3")), "access.gap"),
        (AnchorAccess(12, 14, heads[1], named("3"), named("r3")), "access.rewritten"),
        (AnchorAccess(12, 11, heads[2], named("3"), named("r3")), "access.range"),
        (AnchorAccess(12, 12 + 10**6, heads[2], named("3"), named("r3")), "access.range"),
    ):
        assert world.refused("hospital-1", op).code == code


def test_a_chain_starts_at_its_start(world: Any, named: Callable[..., bytes]) -> None:
    late = AnchorAccess(2, 3, bytes(32), named("h"), named("r"))
    assert world.refused("hospital-1", late).code == "access.gap"
    other = AnchorAccess(1, 3, named("h"), named("h"), named("r"))
    assert world.refused("hospital-1", other).code == "access.rewritten"


# --- bills and models ----------------------------------------------------------------------------


def test_a_bill_is_registered_once_by_a_hospital(world: Any) -> None:
    bill = RegisterBill(b"h" * 16, bytes(48), "CNY")
    world.act("hospital-1", bill)
    assert world.machine.get(bill_key(b"h" * 16), BillState) == BillState(b"h" * 16, "hospital-1", bytes(48), "CNY", 1)
    assert world.refused("hospital-2", bill).code == "bills.exists"
    assert world.refused("insurer", RegisterBill(b"i" * 16, bytes(48), "CNY")).code == "organisations.role"


def model(world: Any, named: Callable[..., bytes], **change: Any) -> RegisterModel:
    reviewer = change.get("reviewer", "regulator")
    domain, signed = change.pop("domain", MODEL_REVIEW), change.pop("signed", named("model"))
    review = world.signer(change.pop("signer", reviewer)).sign(domain, signed)
    return RegisterModel(**({"model": "m", "digest": named("model"), "reviewer": reviewer, "review": review} | change))


def test_a_reviewed_model(world: Any, named: Callable[..., bytes]) -> None:
    op = model(world, named)
    world.act("bureau", op)
    state = world.machine.get(model_key("m"), ModelState)
    assert (state.owner, state.digest, state.reviewer) == ("bureau", named("model"), "regulator")
    assert world.refused("bureau", op).code == "models.exists"


@pytest.mark.parametrize(
    "fault,sender,change,code",
    [
        ("role", "insurer", {}, "organisations.role"),
        ("no regulator", "bureau", {"reviewer": "insurer"}, "models.reviewer"),
        ("own review", "bureau", {"reviewer": "bureau"}, "models.reviewer"),
        ("stranger", "bureau", {"reviewer": "stranger"}, "organisations.unknown"),
        ("other signer", "bureau", {"signer": "bureau"}, "models.review"),
        ("other digest", "bureau", {"signed": bytes(32)}, "models.review"),
        ("other domain", "bureau", {"domain": ENVELOPE}, "models.review"),
    ],
)
def test_models_that_are_refused(
    world: Any, named: Callable[..., bytes], fault: str, sender: str, change: dict[str, Any], code: str
) -> None:
    assert world.refused(sender, model(world, named, **change)).code == code


def test_a_suspended_regulator_reviews_nothing(world: Any, named: Callable[..., bytes]) -> None:
    for voter in ("bureau", "hospital-1", "hospital-2", "hospital-3", "insurer", "researcher"):
        world.act(voter, VoteSuspension("regulator", True))
    assert world.refused("bureau", model(world, named)).code == "models.reviewer"


def test_state_keys_of_different_kinds_never_meet() -> None:
    assert state_key("a", "b-c", b"\x01\x02", 7) == b"a/b-c/0102/7"
    keys = [population_key("x"), dataset_key("x"), grant_key("x"), chain_key("x"), batch_key("x", 1), model_key("x")]
    keys += [bill_key(b"x" * 16), member_key("x"), ballot_key("x"), consortium_key()]
    assert len(set(keys)) == len(keys)
