"""Contract versions: agreed by vote, switched at a height, the same for everybody. And quotas of a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import ledger.machine as machine_module
from ledger.contracts import CONTRACTS, AnchorGrant, RegisterBill, RevokeGrant, VoteSuspension, VoteVersion
from ledger.contracts import grants as grants_module
from ledger.contracts.contract import Contract, Event, state_key
from ledger.contracts.grants import GrantState, grant_key
from ledger.contracts.versions import Ballot, Schedule, Switch, ballot_key, schedule_key
from ledger.engines import waiting
from ledger.machine import Account, Machine
from ledger.rules import FROM_GENESIS, Rules
from wire.canonical import decode, encode
from wire.errors import Refused, Unavailable, VerificationError

VOTERS = ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "insurer")
NEWER = Contract(
    "grants",
    2,
    {
        **grants_module.CONTRACT.transitions,
        RevokeGrant: lambda op, sender, context, view: (Event("grants.revoked-newly", op.grant),),
    },
)


def grant(world: Any, name: str = "g") -> AnchorGrant:
    return AnchorGrant(name, bytes(32), world.start, world.start + 10**9, 0)


def agree(world: Any, contract: str = "grants", version: int = 2, height: int = 10) -> None:
    for voter in VOTERS:
        world.act(voter, VoteVersion(contract, version, height))


@pytest.fixture
def newer(world: Any) -> Any:
    world.machine = Machine(world.founding, (*CONTRACTS, NEWER))
    return world


def test_a_version_holds_from_its_height_on_and_not_before(newer: Any) -> None:
    newer.act("hospital-1", grant(newer, "a"), grant(newer, "b"))
    agree(newer, height=9)
    assert newer.machine.get(schedule_key(), Schedule) == Schedule((Switch("grants", 2, 9),))
    assert newer.machine.get(ballot_key("grants"), Ballot) is None
    assert newer.machine.height == 7
    assert newer.act("hospital-1", RevokeGrant("a")) == ("grants.revoked",)
    assert newer.act("hospital-1", RevokeGrant("b")) == ("grants.revoked-newly",)
    assert newer.machine.get(grant_key("b"), GrantState).revoked_at is None
    replayed = Machine(newer.founding, (*CONTRACTS, NEWER))
    for block in newer.blocks:
        replayed.replay(block)
    assert replayed.log.root() == newer.machine.log.root()


def test_rewinding_behind_a_switch_brings_the_old_rules_back(newer: Any) -> None:
    newer.act("hospital-1", grant(newer, "a"))
    agree(newer, height=9)
    mark = newer.machine.mark()
    newer.block()
    assert newer.machine.in_force()[RevokeGrant] is NEWER
    newer.machine.rewind(mark)
    assert newer.machine.in_force()[RevokeGrant] is grants_module.CONTRACT


def test_votes_count_alike_whether_the_program_knows_the_version_or_not(newer: Any) -> None:
    agree(newer, height=9)
    older = Machine(newer.founding)
    for block in newer.blocks:
        older.replay(block)
    assert older.state.root == newer.machine.state.root


def test_a_program_that_does_not_know_a_version_stops_before_it_and_does_not_diverge(newer: Any) -> None:
    agree(newer, height=9)
    newer.block()
    newer.block()
    newer.block(newer.envelope("hospital-1", grant(newer)))
    older = Machine(newer.founding)
    for block in newer.blocks[:8]:
        older.replay(block)
    root, state = older.log.root(), older.state
    for attempt in (
        lambda: older.replay(newer.blocks[8]),
        lambda: older.authenticate(newer.blocks[8].envelopes[0]),
        lambda: older.apply_block(9, newer.time, ()),
    ):
        with pytest.raises(Unavailable) as caught:
            attempt()
        assert caught.value.code == "ledger.unknown_version"
        assert caught.value.facts == {"contract": "grants", "version": 2, "height": 9}
    assert older.log.root() == root and older.state is state


def test_it_takes_k_equal_votes(world: Any) -> None:
    for voter in VOTERS[:5]:
        assert world.act(voter, VoteVersion("grants", 2, 100)) == ("versions.voted",)
    assert world.act("regulator", VoteVersion("grants", 2, 101)) == ("versions.voted",)
    assert world.act("researcher", VoteVersion("grants", 3, 100)) == ("versions.voted",)
    assert world.machine.get(schedule_key(), Schedule) is None
    assert len(world.machine.get(ballot_key("grants"), Ballot).votes) == 7
    assert world.act("regulator", VoteVersion("grants", 2, 100)) == ("versions.agreed",)
    assert world.machine.get(ballot_key("grants"), Ballot) is None


def test_votes_of_the_suspended_do_not_count(world: Any) -> None:
    world.act("insurer", VoteVersion("grants", 2, 100))
    for voter in (*VOTERS[:5], "regulator"):
        world.act(voter, VoteSuspension("insurer", True))
    for voter in VOTERS[:5]:
        assert world.act(voter, VoteVersion("grants", 2, 100)) == ("versions.voted",)
    assert world.act("regulator", VoteVersion("grants", 2, 100)) == ("versions.agreed",)


def test_votes_that_are_refused(newer: Any, make_world: Callable[[], Any]) -> None:
    agree(newer, height=20)
    newer.act("bureau", VoteVersion("bills", 2, 50))
    for op, code in (
        (VoteVersion("grants", 1, 50), "versions.not_newer"),
        (VoteVersion("models", 1, 50), "versions.not_newer"),
        (VoteVersion("tomorrow", 1, 50), "versions.not_newer"),
        (VoteVersion("tomorrow", 2, 2**62), "versions.too_far"),
        (VoteVersion("grants", 2, 50), "versions.not_newer"),
        (VoteVersion("grants", 3, 20), "versions.too_early"),
        (VoteVersion("models", 2, newer.machine.height + 1), "versions.too_early"),
        (VoteVersion("bills", 2, 50), "versions.voted"),
    ):
        assert newer.refused("bureau", op).code == code
    newer.act("bureau", VoteVersion("models", 2, newer.machine.height + 2))
    members = tuple(
        msgspec.structs.replace(member, re_executes=member.organisation != "insurer")
        for member in newer.founding.members
    )
    other = make_world()
    other.machine = Machine(msgspec.structs.replace(newer.founding, members=members))
    other.trust = type(other.trust)(**(msgspec.structs.asdict(other.trust) | {"genesis_hash": other.machine.genesis}))
    assert other.refused("insurer", VoteVersion("grants", 2, 9)).code == "organisations.no_vote"


def test_a_schedule_has_a_most_of_switches(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decode(Schedule, encode(Schedule(())))  # its type takes its limits when it is first read
    monkeypatch.setattr("ledger.contracts.versions.MOST_SWITCHES", 1)
    agree(world, height=90)
    assert world.refused("bureau", VoteVersion("bills", 2, 90)).code == "versions.too_many"


def test_an_op_that_no_version_in_force_has_is_not_authentic(world: Any) -> None:
    """A contract that came later, and a version that adds an op: neither gets into a block before its height."""
    only = {AnchorGrant: grants_module.anchor}
    contracts = [contract for contract in CONTRACTS if contract.name not in ("grants", "bills")]
    (bills,) = (contract for contract in CONTRACTS if contract.name == "bills")
    later = Contract("bills", 2, bills.transitions)
    world.machine = Machine(world.founding, (*contracts, Contract("grants", 1, only), NEWER, later))
    world.act("hospital-1", grant(world))
    for op in (RevokeGrant("g"), RegisterBill(b"b" * 16, bytes(48), "CNY")):
        data = world.envelope("hospital-1", op)
        with pytest.raises(Refused) as refused:
            world.machine.authenticate(data)
        assert refused.value.code == "ledger.op_not_in_force" and refused.value.facts["height"] == 2
        with pytest.raises(VerificationError) as caught:
            world.block(data)
        assert caught.value.facts["reason"] == "ledger.op_not_in_force"
    agree(world, "grants", height=14)
    agree(world, "bills", height=14)
    assert world.machine.height == 13
    world.act("hospital-1", RevokeGrant("g"))
    world.act("hospital-1", RegisterBill(b"b" * 16, bytes(48), "CNY"))


def test_a_vote_that_became_enough_is_counted_anew_when_it_is_repeated(world: Any) -> None:
    """Suspended members come back: then all may have voted, and nobody's vote would be left to decide."""
    world.act("insurer", VoteVersion("grants", 2, 100))
    for voter in (*VOTERS[:5], "regulator"):
        world.act(voter, VoteSuspension("insurer", True))
    for voter in VOTERS[:5]:
        assert world.act(voter, VoteVersion("grants", 2, 100)) == ("versions.voted",)
    assert world.refused("bureau", VoteVersion("grants", 2, 100)).code == "versions.voted"
    for voter in (*VOTERS[:5], "regulator"):
        world.act(voter, VoteSuspension("insurer", False))
    assert world.act("bureau", VoteVersion("grants", 2, 100)) == ("versions.agreed",)


def test_a_switch_is_agreed_at_most_a_million_blocks_ahead(world: Any) -> None:
    agree(world, height=world.machine.height + 1_000_001)
    assert world.refused("bureau", VoteVersion("bills", 2, world.machine.height + 1_000_002)).code == (
        "versions.too_far"
    )


def test_a_contract_that_came_later_has_no_version_one() -> None:
    assert {contract.name for contract in CONTRACTS} == set(FROM_GENESIS)
    with pytest.raises(ValueError, match="tomorrow"):
        Rules((*CONTRACTS, Contract("tomorrow", 1, {})))
    Rules((*CONTRACTS, Contract("tomorrow", 2, {})))


def test_a_version_never_drops_an_op_and_stands_once() -> None:
    for contract in (Contract("grants", 2, {AnchorGrant: grants_module.anchor}), grants_module.CONTRACT):
        with pytest.raises(ValueError, match="grants"):
            Rules((*CONTRACTS, contract))


# --- quotas --------------------------------------------------------------------------------------


def test_a_block_takes_an_organisations_quota_and_no_more(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "MOST_FROM_ONE", 2)
    many = [world.envelope("hospital-1", grant(world, f"g-{number}"), nonce=number) for number in range(4)]
    other = world.envelope("hospital-2", grant(world, "other"))
    outcome = world.block(*many, other)
    assert [result.code for result in outcome.results] == ["", "", "ledger.quota", "ledger.quota", ""]
    assert outcome.results[2].ops == () and world.machine.next_nonce("hospital-1") == 2
    assert [result.code for result in world.block(*many[2:]).results] == ["", ""]


def test_a_quota_counts_bytes_too(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [world.envelope("hospital-1", grant(world, f"g-{number}"), nonce=number) for number in range(2)]
    monkeypatch.setattr(machine_module, "BYTES_FROM_ONE", len(many[0]) + len(many[1]) - 1)
    assert [result.code for result in world.block(*many).results] == ["", "ledger.quota"]


def test_what_was_refused_uses_the_quota_up_as_well(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "MOST_FROM_ONE", 1)
    wrong, right = world.envelope("hospital-1", grant(world), nonce=9), world.envelope("hospital-1", grant(world))
    assert [result.code for result in world.block(wrong, right).results] == ["ledger.nonce", "ledger.quota"]


def test_the_embedded_engine_admits_no_more_than_a_block_takes() -> None:
    assert waiting.MOST_WAITING <= machine_module.MOST_FROM_ONE
    assert waiting.WAITING_BYTES <= machine_module.BYTES_FROM_ONE


def test_an_empty_state_is_in_version_one(world: Any) -> None:
    assert world.machine.get(state_key("versions", "schedule"), Account) is None
    assert all(contract.version == 1 for contract in world.machine.in_force().values())
