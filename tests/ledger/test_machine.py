"""The machine: blocks, results, authenticity, atomicity, roots."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ledger.machine as machine_module
from ledger.contracts import AnchorGrant, Column, RevokeGrant, VoteBudget, VoteSuspension
from ledger.contracts.contract import state_key
from ledger.contracts.datasets import population, population_key
from ledger.contracts.grants import GrantState, grant_key
from ledger.envelope import envelope_id, open_envelope
from ledger.machine import CLOCK_KEY, Account, Block, BlockHeader, Clock, Machine, StateView
from ledger.trees.state import StateTree
from wire.canonical import encode
from wire.checkpoint import leaf_hash, tree_root, verify_inclusion
from wire.errors import DecodeError, Refused, VerificationError


def grant(world: Any, name: str = "grant-1") -> AnchorGrant:
    return AnchorGrant(name, bytes(32), world.start, world.start + 10**9, 0)


def test_genesis_is_leaf_zero(world: Any) -> None:
    machine = world.machine
    assert machine.height == 0 and machine.log.size == 1
    assert machine.log.root() == leaf_hash(encode(BlockHeader(0, world.start, machine.state.root, tree_root(()), 0)))


def test_a_block(world: Any) -> None:
    data = world.envelope("hospital-1", grant(world), grant(world, "grant-2"))
    outcome = world.block(data)
    (result,) = outcome.results
    assert result.accepted and result.envelope == envelope_id(data)
    assert [event.name for event in result.events] == ["grants.anchored"] * 2
    assert outcome.results_root == leaf_hash(encode(result))
    assert outcome.state_root == world.machine.state.root
    assert outcome.log_root == world.machine.log.root() and outcome.size == 2
    assert world.machine.get(CLOCK_KEY, Clock) == Clock(1, world.time)
    assert world.machine.get(grant_key("grant-1"), GrantState).issuer == "hospital-1"
    proof = world.machine.log.inclusion_proof(1)
    verify_inclusion(outcome.log_root, 2, 1, leaf_hash(encode(outcome.header)), proof)


def test_an_envelope_is_atomic_and_uses_its_nonce(world: Any) -> None:
    outcome = world.block(world.envelope("hospital-1", grant(world), RevokeGrant("none")))
    (result,) = outcome.results
    assert (result.code, result.op, result.ops, result.events) == ("grants.unknown", 1, (), ())
    assert world.machine.get(grant_key("grant-1"), GrantState) is None
    assert world.machine.next_nonce("hospital-1") == 1
    assert outcome.refusals[0].facts == {"grant": "none"}


def test_ops_of_an_envelope_that_is_not_atomic_stand_alone(world: Any) -> None:
    ops = (grant(world), RevokeGrant("none"), grant(world, "grant-2"), grant(world), RevokeGrant("grant-1"))
    outcome = world.block(world.envelope("hospital-1", *ops, atomic=False))
    (result,) = outcome.results
    assert [op.code for op in result.ops] == ["", "grants.unknown", "", "grants.exists", ""]
    assert [[event.name for event in op.events] for op in result.ops] == [
        ["grants.anchored"],
        [],
        ["grants.anchored"],
        [],
        ["grants.revoked"],
    ]
    assert (result.code, result.op, result.refused_ops, result.accepted) == ("grants.unknown", 1, (1, 3), False)
    assert result.took_effect and result.in_words() == "2 of 5 ops refused: grants.unknown"
    assert outcome.refusals[0].facts == {"grant": "none"}
    assert world.machine.get(grant_key("grant-1"), GrantState).revoked_at == world.time
    assert world.machine.get(grant_key("grant-2"), GrantState).revoked_at is None
    assert world.machine.next_nonce("hospital-1") == 1


def test_a_refused_op_leaves_nothing_even_where_the_others_stay(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An op that writes before it is refused is undone alone."""

    def write_then_refuse(op: Any, sender: str, context: Any, view: StateView) -> Any:
        view.put(state_key("trace"), Account(9))
        raise Refused("grants.unknown", grant=op.grant)

    contract = next(contract for contract in machine_module.CONTRACTS if contract.name == "grants")
    monkeypatch.setitem(contract.transitions, RevokeGrant, write_then_refuse)  # type: ignore[arg-type]
    outcome = world.block(world.envelope("hospital-1", grant(world), RevokeGrant("x"), atomic=False))
    assert [op.code for op in outcome.results[0].ops] == ["", "grants.unknown"]
    assert world.machine.get(state_key("trace"), Account) is None
    assert world.machine.get(grant_key("grant-1"), GrantState) is not None


@pytest.mark.parametrize("atomic", [True, False])
def test_the_result_names_a_code_for_each_op_only_where_each_had_its_chance(world: Any, atomic: bool) -> None:
    fine, late = (
        world.envelope("hospital-1", grant(world, "a"), grant(world, "b"), atomic=atomic, expiry=expiry)
        for expiry in (1, 0)
    )
    late_result, fine_result = world.block(late, fine).results
    assert (late_result.code, late_result.op, late_result.ops) == ("ledger.expired", 0, ())
    assert (fine_result.code, [op.code for op in fine_result.ops]) == ("", ["", ""])
    assert [result.in_words() for result in (late_result, fine_result)] == ["ledger.expired", "accepted"]
    assert [result.took_effect for result in (late_result, fine_result)] == [False, True]


def test_several_envelopes_of_a_sender_in_a_block(world: Any) -> None:
    outcome = world.block(
        world.envelope("hospital-1", grant(world, "a"), nonce=0),
        world.envelope("hospital-1", grant(world, "a"), nonce=1),
        world.envelope("hospital-1", grant(world, "b"), nonce=2),
    )
    assert [result.code for result in outcome.results] == ["", "grants.exists", ""]


@pytest.mark.parametrize("nonce,code", [(0, "ledger.nonce"), (2, "ledger.nonce")])
def test_wrong_nonces_change_nothing(world: Any, nonce: int, code: str) -> None:
    world.act("hospital-1", grant(world))
    outcome = world.block(world.envelope("hospital-1", grant(world, "b"), nonce=nonce))
    assert outcome.results[0].code == code
    assert world.machine.next_nonce("hospital-1") == 1


def test_a_repeated_envelope_has_no_second_effect(world: Any) -> None:
    data = world.envelope("hospital-1", grant(world))
    outcome = world.block(data, data)
    assert [result.code for result in outcome.results] == ["", "ledger.nonce"]


def test_expiry(world: Any) -> None:
    fine, late = world.envelope("insurer", grant(world), expiry=1), world.envelope("hospital-1", grant(world), expiry=0)
    assert [result.code for result in world.block(late, fine).results] == ["ledger.expired", ""]
    assert world.machine.next_nonce("hospital-1") == 0


def test_suspended_senders_are_refused(world: Any) -> None:
    for number, voter in enumerate(("bureau", "hospital-2", "hospital-3", "insurer", "researcher", "regulator")):
        events = world.act(voter, VoteSuspension("hospital-1", True))
        assert events == (("organisations.suspended",) if number == 5 else ("organisations.voted",))
    assert world.refused("hospital-1", grant(world)).code == "ledger.suspended"


@pytest.mark.parametrize(
    "fault,change,code",
    [
        ("another chain", {"chain": bytes(32)}, "ledger.wrong_chain"),
        ("no member", {"sender": "stranger"}, "ledger.unknown_sender"),
        ("version", {"version": 2}, "ledger.envelope_version"),
        ("another's name", {"sender": "hospital-2"}, "ledger.envelope_signature"),
    ],
)
def test_a_block_with_an_inauthentic_envelope_is_invalid(
    world: Any, fault: str, change: dict[str, Any], code: str
) -> None:
    good = world.envelope("hospital-1", grant(world))
    signer = world.signer("hospital-1")
    sender = change.pop("sender", "hospital-1")
    bad = world.envelope(sender, grant(world, "other"), signer=signer, **change)
    root, state = world.machine.log.root(), world.machine.state
    with pytest.raises(VerificationError) as caught:
        world.block(good, bad)
    assert caught.value.code == "ledger.bad_entry"
    assert caught.value.facts == {"height": 1, "entry": 1, "reason": code}
    assert world.machine.log.root() == root and world.machine.state is state


def test_another_key_of_the_same_organisation_does_not_sign_envelopes(world: Any) -> None:
    data = world.envelope("hospital-1", grant(world), signer=world.signer("hospital-1", "cosign"))
    with pytest.raises(VerificationError):
        world.block(data)


def test_blocks_come_in_order_and_time_never_goes_back(world: Any) -> None:
    world.act("hospital-1", grant(world))
    for height, time in ((1, world.time), (3, world.time), (2, world.time - 1)):
        with pytest.raises(VerificationError):
            world.machine.apply_block(height, time, ())
    world.machine.apply_block(2, world.time, ())


def test_an_executed_block_is_adopted_on_its_own_head_only(world: Any) -> None:
    executed = world.machine.execute(1, world.time, ())
    world.machine.apply_block(1, world.time, ())
    with pytest.raises(ValueError):
        world.machine.adopt(executed)


def test_rewinding(world: Any) -> None:
    world.act("hospital-1", grant(world, "a"))
    mark, root, size = world.machine.mark(), world.machine.log.root(), world.machine.log.size
    for name in "bcdefgh":
        world.act("hospital-1", grant(world, name))
    world.machine.rewind(mark)
    assert (world.machine.log.root(), world.machine.log.size, world.machine.height) == (root, size, 1)
    world.act("hospital-1", grant(world, "b"))


def test_replay_gives_the_same_roots_and_insists_on_them(world: Any) -> None:
    world.population()
    world.act("researcher", world.proposal())
    other = Machine(world.founding)
    for block in world.blocks:
        other.replay(block)
    assert other.log.root() == world.machine.log.root() and other.state.root == world.machine.state.root


@pytest.mark.parametrize("change", ["height", "time", "state_root", "results_root", "count"])
def test_every_field_of_a_header_is_checked_at_its_own_block(world: Any, change: str) -> None:
    world.act("hospital-1", grant(world))
    (block,) = world.blocks
    value = getattr(block.header, change)
    header = msgspec.structs.replace(block.header, **{change: bytes(32) if isinstance(value, bytes) else value + 1})
    machine = Machine(world.founding)
    with pytest.raises(VerificationError) as caught:
        machine.replay(Block(header, block.envelopes))
    assert "height" in caught.value.facts and machine.height == 0


def test_genesis_breaking_a_rule(world: Any) -> None:
    with pytest.raises(DecodeError):
        Machine(msgspec.structs.replace(world.founding, k=1))


def test_views_do_not_write_to_the_machine(world: Any) -> None:
    world.machine.view().put(state_key("x"), Account(1))
    assert world.machine.get(state_key("x"), Account) is None


def test_items_in_order(world: Any) -> None:
    for name in ("b", "a", "c"):
        world.act("hospital-1", grant(world, name))
    assert [state.grant for _, state in world.machine.items(b"grants/", GrantState)] == ["a", "b", "c"]


def test_the_state_root_binds_time_so_empty_blocks_differ(world: Any) -> None:
    one, two = Machine(world.founding), Machine(world.founding)
    assert one.apply_block(1, world.time, ()).state_root != two.apply_block(1, world.time + 1, ()).state_root


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_changed_byte_of_an_envelope_gets_in(make_world: Any, data: st.DataObject) -> None:
    world = make_world()
    good = world.envelope("hospital-1", grant(world))
    at = data.draw(st.integers(0, len(good) - 1))
    changed = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with pytest.raises(VerificationError) as caught:
        world.block(changed)
    assert caught.value.facts["entry"] == 0


def test_every_changed_byte_of_an_envelope_is_refused_with_the_right_kind(world: Any) -> None:
    good = world.envelope("hospital-1", grant(world))
    for at in range(len(good)):
        changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        with pytest.raises((DecodeError, VerificationError, Refused)) as caught:
            world.machine.authenticate(changed)
        assert caught.value.code in {
            "wire.not_canonical",
            "ledger.unknown_op",
            "ledger.envelope_version",
            "ledger.wrong_chain",
            "ledger.unknown_sender",
            "ledger.envelope_signature",
        }, caught.value.code
    assert open_envelope(good).envelope.sender == "hospital-1"


def test_a_state_view_reads_what_it_wrote() -> None:
    view = StateView(StateTree())
    view.put(b"k", Account(7))
    assert view.get(b"k", Account) == Account(7)
    view.delete(b"k")
    assert view.get(b"k", Account) is None


def test_a_view_reads_what_it_wrote_and_undoes_to_a_mark() -> None:
    tree = StateView(StateTree())
    tree.put(b"old", Account(1))
    view = StateView(tree.tree())
    assert view.get(b"old", Account) == Account(1) and view.get(b"new", Account) is None
    view.put(b"new", Account(2))
    first = view.mark()
    view.put(b"new", Account(3))
    view.delete(b"old")
    second = view.mark()
    view.put(b"old", Account(4))
    view.put(b"newest", Account(5))
    assert [view.get(key, Account) for key in (b"old", b"new", b"newest")] == [Account(4), Account(3), Account(5)]
    view.undo(second)
    assert [view.get(key, Account) for key in (b"old", b"new", b"newest")] == [None, Account(3), None]
    view.undo(first)
    assert [view.get(key, Account) for key in (b"old", b"new", b"newest")] == [Account(1), Account(2), None]
    assert dict(view.tree().items()) == {b"old": encode(Account(1)), b"new": encode(Account(2))}
    view.undo(0)
    assert view.tree().root == tree.tree().root
    with pytest.raises(DecodeError):
        view.put(b"old", Account(6))
        view.get(b"old", Clock)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ar"), st.sampled_from("xyz")), min_size=1, max_size=8), st.booleans())
def test_ops_of_one_envelope_and_of_many_do_the_same(
    make_world: Any, steps: list[tuple[str, str]], atomic: bool
) -> None:
    """Op by op in one envelope is an envelope an op; atomic is that up to the first refusal, or nothing."""
    one, many = make_world(), make_world()

    def op(kind: str, name: str) -> Any:
        return grant(one, name) if kind == "a" else RevokeGrant(name)

    (result,) = one.block(one.envelope("hospital-1", *(op(*step) for step in steps), atomic=atomic)).results
    each = many.block(
        *(many.envelope("hospital-1", op(*step), nonce=nonce) for nonce, step in enumerate(steps))
    ).results
    codes = [single.code for single in each]
    assert result.code == next(filter(None, codes), "")
    if atomic and result.code:
        assert result.ops == () and result.op == next(at for at, code in enumerate(codes) if code)
        assert not list(one.machine.state.items(b"grants/"))
    else:
        assert [op.code for op in result.ops] == codes
        assert [op.events for op in result.ops] == [single.events for single in each]
        assert list(one.machine.state.items(b"grants/")) == list(many.machine.state.items(b"grants/"))


def test_a_value_that_is_written_over_and_over_is_kept_once(world: Any) -> None:
    """One organisation may write a large value thousands of times in one block: no copy of it stays behind."""
    world.population()
    view = world.machine.view()
    names = tuple(f"{'d' * 50}-{number}" for number in range(1000))
    view.put(population_key("heart"), msgspec.structs.replace(population(view, "heart"), datasets=names))
    world.machine.state = view.tree()
    nonce = world.machine.next_nonce("hospital-1")
    votes = [
        world.envelope("hospital-1", *(VoteBudget("heart", 1 + vote) for vote in range(256)), nonce=nonce + number)
        for number in range(8)
    ]
    tracemalloc.start()
    outcome = world.block(*votes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(result.accepted for result in outcome.results)
    assert peak < 16 * 1024 * 1024  # 2,048 copies of 53 kB would be 109 MB


def test_what_is_settled_stays() -> None:
    view = StateView(StateTree())
    view.put(b"k", Account(1))
    view.settle()
    mark = view.mark()
    view.put(b"k", Account(2))
    view.undo(mark)
    assert dict(view.tree().items()) == {b"k": encode(Account(1))}


def test_a_block_of_long_envelopes_is_not_held_opened(world: Any) -> None:
    """Opened, what one organisation may put into a block takes many times its length: one envelope at a time does."""
    values = tuple(f"{number:03}" for number in range(1000))
    columns = tuple(Column(f"c{number}", "category", 0, 0, 1, values) for number in range(64))
    declared = world.dataset("d", columns=columns)
    long = [world.envelope("hospital-1", declared, nonce=nonce) for nonce in range(12)]
    tracemalloc.start()
    outcome = world.block(*long)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [result.code for result in outcome.results] == ["datasets.unknown_population"] * 12
    assert peak < 5 * sum(map(len, long))
