"""Receipts, proven values and exports: what verifies, and that nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant, RevokeGrant, VoteBudget
from ledger.contracts.datasets import PopulationState, population_key
from ledger.contracts.grants import grant_key
from ledger.envelope import envelope_id
from ledger.export import EXPORT, LedgerExport, verify_export
from ledger.machine import Block, BlockHeader, Result
from ledger.receipts import PROVEN_VALUE, RECEIPT, ProvenValue, Receipt, verify_receipt, verify_value
from wire import evidence
from wire.canonical import encode
from wire.checkpoint import inclusion_proof, leaf_hash, sign_checkpoint
from wire.errors import DecodeError, QuorumNotMet, VerificationError


def history(world: Any) -> None:
    """Ten blocks, some with several envelopes, one with a refusal."""
    world.population()
    world.act("researcher", world.proposal())
    for number in range(4):
        grants = [AnchorGrant(f"grant-{number}-{n}", bytes(32), 0, world.start * 2, 0) for n in range(3)]
        world.block(
            world.envelope("hospital-1", *grants),
            world.envelope("insurer", RevokeGrant("none")),
            world.envelope("hospital-2", VoteBudget("heart", 1_000_000)),
        )


def receipt_of(world: Any, height: int, entry: int, cosigners: Any = None) -> Receipt:
    block = world.blocks[height - 1]
    machine = type(world.machine)(world.founding)
    for other in world.blocks[: height - 1]:
        machine.replay(other)
    outcome = machine.replay(block)
    leaves = [leaf_hash(encode(result)) for result in outcome.results]
    return Receipt(
        RECEIPT,
        block.envelopes[entry],
        outcome.results[entry],
        inclusion_proof(leaves, entry),
        block.header,
        world.machine.log.inclusion_proof(height),
        world.note(cosigners).format(),
    )


@pytest.fixture
def lived(make_world: Callable[[], Any]) -> Any:
    world = make_world()
    history(world)
    return world


def test_receipts_of_every_envelope(lived: Any) -> None:
    for height, block in enumerate(lived.blocks, 1):
        for entry in range(len(block.envelopes)):
            verify_receipt(receipt_of(lived, height, entry), lived.trust)


def test_a_receipt_of_a_refusal_says_so(lived: Any) -> None:
    receipt = receipt_of(lived, 6, 1)
    verify_receipt(receipt, lived.trust)
    assert receipt.result.code == "grants.unknown" and not receipt.result.accepted


def test_every_changed_byte_of_a_receipt_is_refused(lived: Any) -> None:
    data = encode(receipt_of(lived, 6, 0))
    assert isinstance(evidence.read(data), Receipt)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((DecodeError, VerificationError)):
            verify_receipt(evidence.read(changed), lived.trust)


def test_parts_of_two_receipts_do_not_mix(lived: Any) -> None:
    one, two = receipt_of(lived, 6, 0), receipt_of(lived, 7, 0)
    for field in ("envelope", "result", "block", "block_path"):
        with pytest.raises(VerificationError):
            verify_receipt(msgspec.structs.replace(one, **{field: getattr(two, field)}), lived.trust)


def test_receipts_need_k_and_the_right_chain(lived: Any, make_world: Callable[[], Any]) -> None:
    with pytest.raises(QuorumNotMet):
        verify_receipt(receipt_of(lived, 6, 0, ("bureau", "hospital-1", "hospital-2")), lived.trust)
    twin = msgspec.structs.replace(lived.founding, time=lived.founding.time + 1)
    with pytest.raises(VerificationError):
        verify_receipt(receipt_of(lived, 6, 0), type(lived.trust)(**other_trust(lived, twin)))
    for header in (PROVEN_VALUE, EXPORT):
        with pytest.raises(VerificationError):
            verify_receipt(msgspec.structs.replace(receipt_of(lived, 6, 0), header=header), lived.trust)


def other_trust(world: Any, founding: Any) -> dict[str, Any]:
    from wire.checkpoint import trust_of

    return msgspec.structs.asdict(trust_of(founding))


@pytest.mark.parametrize("fault", ["chain", "signature", "none"])
def test_k_dishonest_cosigners_cannot_put_words_into_a_members_mouth(world: Any, fault: str) -> None:
    """Whatever the cosigners sign, a receipt holds only for an envelope that its sender signed for this chain."""
    signer = world.signer("bureau" if fault == "signature" else "hospital-1")
    chain = bytes(32) if fault == "chain" else world.trust.genesis_hash
    data = world.envelope("hospital-1", RevokeGrant("grant-1"), signer=signer, chain=chain)
    result = Result(1, 0, envelope_id(data), "hospital-1", 0, "", 0, ())
    block = BlockHeader(1, world.time, bytes(32), leaf_hash(encode(result)), 1)
    world.machine.log.append(encode(block))
    path, note = world.machine.log.inclusion_proof(1), world.note().format()
    receipt = Receipt(RECEIPT, data, result, (), block, path, note)
    if fault == "none":
        verify_receipt(receipt, world.trust)
        return
    with pytest.raises(VerificationError) as caught:
        verify_receipt(receipt, world.trust)
    assert caught.value.code == ("ledger.wrong_chain" if fault == "chain" else "ledger.envelope_signature")


def proven(world: Any, key: bytes) -> ProvenValue:
    machine = world.machine
    return ProvenValue(
        PROVEN_VALUE,
        key,
        machine.state.get(key),
        machine.state.prove(key),
        machine.header,
        machine.log.inclusion_proof(machine.height),
        world.note().format(),
    )


def test_proven_values(lived: Any) -> None:
    value = proven(lived, population_key("heart"))
    checkpoint = verify_value(value, lived.trust)
    assert checkpoint.size == value.block.height + 1 and checkpoint.time == lived.time // 1000 * 1000
    assert value.value is not None and msgspec.msgpack.decode(value.value)[0] == "datasets.population"
    absent = proven(lived, grant_key("none"))
    assert absent.value is None
    verify_value(absent, lived.trust)
    with pytest.raises(VerificationError):
        verify_value(msgspec.structs.replace(absent, key=grant_key("grant-0-0")), lived.trust)
    with pytest.raises(VerificationError):
        verify_value(msgspec.structs.replace(absent, header=RECEIPT), lived.trust)


def test_an_absence_is_as_fresh_as_the_verifier_asks(lived: Any) -> None:
    absent = proven(lived, grant_key("none"))
    cosigned = lived.time // 1000 * 1000
    for bound in (None, 0, cosigned - 1, cosigned, cosigned + 999):
        assert verify_value(absent, lived.trust, newer_than=bound).time == cosigned
    with pytest.raises(VerificationError) as caught:
        verify_value(absent, lived.trust, newer_than=cosigned + 1000)
    assert caught.value.code == "ledger.stale"


def test_a_fresh_head_does_not_make_an_older_blocks_value_fresh(lived: Any) -> None:
    """The grant came one block later: that it was absent before is true, and no answer to who asks for now."""
    before, machine = proven(lived, grant_key("late")), lived.machine
    lived.act("hospital-1", AnchorGrant("late", bytes(32), 0, lived.start * 2, 0))
    path, note = machine.log.inclusion_proof(before.block.height), lived.note().format()
    old = msgspec.structs.replace(before, block_path=path, note=note)
    verify_value(old, lived.trust)
    with pytest.raises(VerificationError) as caught:
        verify_value(old, lived.trust, newer_than=0)
    assert caught.value.code == "ledger.older_block"
    assert proven(lived, grant_key("late")).value is not None


def test_every_changed_byte_of_a_proven_value_is_refused(lived: Any) -> None:
    data = encode(proven(lived, population_key("heart")))
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((DecodeError, VerificationError)):
            verify_value(evidence.read(changed), lived.trust)


# --- the export ----------------------------------------------------------------------------------


def export_of(world: Any) -> LedgerExport:
    return LedgerExport(EXPORT, world.founding, tuple(world.blocks), (), world.note().format())


def test_an_export_replays_to_a_readable_machine(lived: Any) -> None:
    data = encode(export_of(lived))
    machine = verify_export(evidence.read(data), lived.trust)
    assert machine.state.root == lived.machine.state.root and machine.height == lived.machine.height
    state = machine.get(population_key("heart"), PopulationState)
    assert state is not None and state.budget == 1_000_000


def test_every_changed_byte_of_an_export_is_refused(make_world: Callable[[], Any]) -> None:
    world = make_world()
    world.act("hospital-1", AnchorGrant("grant-1", bytes(32), 0, world.start * 2, 0))
    world.block(
        world.envelope("hospital-2", AnchorGrant("grant-2", bytes(32), 0, world.start * 2, 0)),
        world.envelope("insurer", RevokeGrant("grant-1")),
    )
    data = encode(export_of(world))
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((DecodeError, VerificationError)):
            verify_export(evidence.read(changed), world.trust)


def _with_block(world: Any, height: int, change: Callable[[Block], Block]) -> LedgerExport:
    blocks = list(world.blocks)
    blocks[height - 1] = change(blocks[height - 1])
    return msgspec.structs.replace(export_of(world), blocks=tuple(blocks))


def test_a_changed_envelope_is_named_by_height_and_entry(lived: Any) -> None:
    for entry in range(3):
        good = lived.blocks[6].envelopes[entry]
        for at in range(entry, len(good), 5):
            bad = good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :]

            def change(block: Block, entry: int = entry, bad: bytes = bad) -> Block:
                envelopes = (*block.envelopes[:entry], bad, *block.envelopes[entry + 1 :])
                return Block(block.header, envelopes)

            with pytest.raises(VerificationError) as caught:
                verify_export(_with_block(lived, 7, change), lived.trust)
            assert caught.value.code == "ledger.bad_entry"
            assert (caught.value.facts["height"], caught.value.facts["entry"]) == (7, entry)


@pytest.mark.parametrize("field", ["time", "state_root", "results_root", "count"])
def test_a_changed_header_is_named_by_height(lived: Any, field: str) -> None:
    def change(block: Block) -> Block:
        value = getattr(block.header, field)
        other = bytes(32) if isinstance(value, bytes) else value + 1
        return Block(msgspec.structs.replace(block.header, **{field: other}), block.envelopes)

    with pytest.raises(VerificationError) as caught:
        verify_export(_with_block(lived, 7, change), lived.trust)
    assert caught.value.facts["height"] == 7


def test_left_out_swapped_added_and_cut(lived: Any) -> None:
    export = export_of(lived)
    blocks = export.blocks
    swapped = Block(blocks[6].header, blocks[6].envelopes[::-1])
    fewer = Block(blocks[6].header, blocks[6].envelopes[:2])
    for changed in (
        blocks[:-1],
        (*blocks[:3], *blocks[4:]),
        (*blocks, blocks[-1]),
        (*blocks[:6], swapped, *blocks[7:]),
        (*blocks[:6], fewer, *blocks[7:]),
        (),
    ):
        with pytest.raises(VerificationError):
            verify_export(msgspec.structs.replace(export, blocks=changed), lived.trust)


def test_a_rewritten_history_is_consistent_and_still_refused(lived: Any, make_world: Callable[[], Any]) -> None:
    """A sequencer that replays other envelopes gets a history that holds together, but no cosignatures for it."""
    other = make_world()
    other.act("hospital-1", AnchorGrant("another", bytes(32), 0, other.start * 2, 0))
    log = other.machine.log
    alone = sign_checkpoint(other.signer("bureau", "cosign"), other.trust.origin, log.size, log.root())
    forged = LedgerExport(EXPORT, other.founding, tuple(other.blocks), (), alone.format())
    with pytest.raises(QuorumNotMet):
        verify_export(forged, lived.trust)
    with pytest.raises(VerificationError) as caught:
        verify_export(msgspec.structs.replace(forged, note=lived.note().format()), lived.trust)
    assert caught.value.code == "ledger.export_head"


def test_another_genesis(lived: Any) -> None:
    founding = msgspec.structs.replace(lived.founding, time=lived.founding.time + 1)
    with pytest.raises(VerificationError) as caught:
        verify_export(msgspec.structs.replace(export_of(lived), founding=founding), lived.trust)
    assert caught.value.code == "ledger.other_genesis"
    with pytest.raises(VerificationError):
        verify_export(msgspec.structs.replace(export_of(lived), header=RECEIPT), lived.trust)
