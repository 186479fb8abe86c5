"""Replicas: they cosign what they replayed, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant
from ledger.head_memory import HEAD, SLOT, HeadMemory
from ledger.machine import Block, Machine
from ledger.replicas import FUTURE, Replica
from wire.checkpoint import Note, sign_checkpoint
from wire.checkpoint.note import verify_cosignature
from wire.errors import DecodeError, Unavailable, VerificationError


def grant(world: Any, name: str) -> AnchorGrant:
    return AnchorGrant(name, bytes(32), world.start, world.start + 10**9, 0)


def head(world: Any, signer: str = "bureau") -> Note:
    log = world.machine.log
    return sign_checkpoint(world.signer(signer, "cosign"), world.trust.origin, log.size, log.root())


def replica(world: Any, name: str = "insurer", **options: Any) -> Replica:
    return Replica(world.founding, name, world.signer(name, "cosign"), lambda: world.time, **options)


def grown(world: Any, blocks: int = 3, prefix: str = "g") -> Any:
    for number in range(blocks):
        world.act("hospital-1", grant(world, f"{prefix}{number}"))
    return world


def test_it_replays_and_cosigns(world: Any) -> None:
    grown(world)
    follower = replica(world)
    line = follower.follow(world.blocks, head(world))
    assert line is not None and line.name == "insurer" and line.time == world.time // 1000
    assert follower.cosigned is not None and follower.cosigned.lines[-1] == line
    verify_cosignature(world.signer("insurer", "cosign").key, head(world), line)
    assert follower.height == 3 and follower.machine.log.root() == world.machine.log.root()
    assert follower.follow(world.blocks, head(world)) == line
    grown(world, 1, "h")
    assert follower.follow(world.blocks[3:], head(world)) is not None


def test_its_key_is_its_own(world: Any) -> None:
    for name, key in (("insurer", ("insurer", "envelope")), ("insurer", ("bureau", "cosign"))):
        with pytest.raises(VerificationError):
            Replica(world.founding, name, world.signer(*key), lambda: 0)


def test_a_head_that_is_not_its_own(world: Any, make_world: Callable[[], Any]) -> None:
    grown(world)
    other = grown(make_world(), 3, "other")
    follower = replica(world)
    cases = (
        (world.blocks, head(other)),
        (world.blocks[:2], head(world)),
        (other.blocks, head(world)),
        (world.blocks, head(world, "insurer")),
        (world.blocks, world.note()),
        (world.blocks, Note(head(world).checkpoint, world.note().lines[1:2])),
        (world.blocks, sign_checkpoint(world.signer("bureau", "cosign"), "c/" + "0" * 64, 4, world.machine.log.root())),
    )
    for blocks, note in cases:
        with pytest.raises(VerificationError):
            follower.follow(blocks, note)
        assert follower.height == 0  # it stays where it was
    assert follower.follow(world.blocks, head(world)) is not None


@pytest.mark.parametrize("field", ["state_root", "results_root"])
def test_a_sequencer_that_states_another_state(world: Any, field: str) -> None:
    """Everything is signed and fits together, only the state is not what the contracts give."""
    grown(world)
    block = world.blocks[-1]
    forged = Block(msgspec.structs.replace(block.header, **{field: bytes(32)}), block.envelopes)
    liar = Machine(world.founding)
    for good in world.blocks[:-1]:
        liar.replay(good)
    liar.log.append(msgspec.msgpack.encode(forged.header))
    note = sign_checkpoint(world.signer("bureau", "cosign"), world.trust.origin, 4, liar.log.root())
    with pytest.raises(VerificationError) as caught:
        replica(world).follow((*world.blocks[:-1], forged), note)
    assert caught.value.code == "ledger.block_differs" and caught.value.facts["height"] == 3


def test_blocks_from_the_future(world: Any) -> None:
    grown(world, 1)
    early = Replica(world.founding, "insurer", world.signer("insurer", "cosign"), lambda: world.time - FUTURE - 1)
    with pytest.raises(VerificationError) as caught:
        early.follow(world.blocks, head(world))
    assert caught.value.code == "ledger.future_block"


def test_a_fork_is_refused(world: Any, make_world: Callable[[], Any]) -> None:
    grown(world)
    follower = replica(world)
    follower.follow(world.blocks, head(world))
    other = grown(make_world(), 4, "other")
    with pytest.raises(VerificationError):
        follower.follow(other.blocks, head(other))


def test_memory_outlives_a_restart(world: Any, make_world: Callable[[], Any], tmp_path: Path) -> None:
    memory = tmp_path / "cosigned.note"
    grown(world)
    replica(world, memory=memory).follow(world.blocks, head(world))
    fork = grown(make_world(), 2, "other")
    again = replica(world, memory=memory)
    assert again.follow(fork.blocks, head(fork)) is None  # below what it cosigned: nothing can be compared yet
    grown(fork, 1, "more")
    with pytest.raises(VerificationError) as caught:
        again.follow(fork.blocks, head(fork))
    assert caught.value.code == "ledger.fork"
    honest = replica(world, memory=memory)
    assert honest.follow(world.blocks, head(world)) is not None
    grown(world, 1, "h")
    assert honest.follow(world.blocks, head(world)) is not None


def test_memory_keeps_the_larger_head_and_survives_a_torn_write(world: Any, tmp_path: Path) -> None:
    memory = tmp_path / "cosigned.note"
    follower = replica(world, memory=memory)
    for number in range(3):
        grown(world, 1, f"g{number}-")
        follower.follow(world.blocks, head(world))
    data = memory.read_bytes()
    assert len(data) == 2 * SLOT and [note.checkpoint.size for note in HeadMemory(memory).recall()] == [4, 3]
    newer = 0 if data[HEAD:].split(b"\n")[1] == b"4" else SLOT
    for at in range(newer, newer + 400, 7):  # damage in one slot falls back to the head before, never to none
        memory.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        again = replica(world, memory=memory)
        assert again._cosigned is not None and again._cosigned.checkpoint.size == 3
        assert again.follow(world.blocks, head(world)) is not None


def test_a_restarted_replica_writes_over_the_older_slot(world: Any, tmp_path: Path) -> None:
    memory = tmp_path / "cosigned.note"
    for number in range(4):
        grown(world, 1, f"g{number}-")
        replica(world, memory=memory).follow(world.blocks, head(world))
        sizes = [note.checkpoint.size for note in HeadMemory(memory).recall()]
        assert sizes == ([number + 2, number + 1] if number else [2])


def test_damaged_memory(world: Any, tmp_path: Path) -> None:
    memory = tmp_path / "cosigned.note"
    grown(world)
    replica(world, memory=memory).follow(world.blocks, head(world))
    data = memory.read_bytes()
    length = HEAD + int.from_bytes(data[:4], "big")
    for at in range(length):
        memory.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises((DecodeError, VerificationError)):
            replica(world, memory=memory)
    memory.write_bytes(b"")  # a crash right after the file was made
    assert replica(world, memory=memory).follow(world.blocks, head(world)) is not None
    memory.unlink()
    memory.mkdir()
    with pytest.raises(Unavailable):
        replica(world, memory=memory)


def test_an_old_head_never_looks_fresh(world: Any) -> None:
    """A replica that has forgotten what it signed cosigns old heads again on its way; not with the time of today."""
    grown(world)
    for late in (FUTURE - 1000, FUTURE, FUTURE + 1000, 10**12):
        again = Replica(
            world.founding, "insurer", world.signer("insurer", "cosign"), lambda late=late: world.time + late
        )
        line = again.follow(world.blocks, head(world))
        assert line is not None and line.time == (world.time + min(late, FUTURE)) // 1000


def test_two_replicas_with_one_memory_sign_one_history(
    world: Any, make_world: Callable[[], Any], tmp_path: Path
) -> None:
    """A second process by mistake: whoever comes later does not sign, and nobody is convicted."""
    memory = tmp_path / "cosigned.note"
    other = grown(make_world(), 3, "other")
    one, two = replica(world, memory=memory), replica(world, memory=memory)
    assert one.follow(grown(world).blocks, head(world)) is not None
    three = replica(world, memory=memory)
    grown(world, 1, "h")
    assert one.follow(world.blocks, head(world)) is not None
    for late, history in ((two, other), (three, world)):  # also in the same history: one of the two has to stop
        with pytest.raises(Unavailable) as caught:
            late.follow(history.blocks, head(history))
        assert caught.value.code == "ledger.other_replica" and late.cosigned in (None, three.cosigned)
    grown(world, 1, "i")
    assert one.follow(world.blocks, head(world)) is not None
    assert [note.checkpoint.size for note in HeadMemory(memory).recall()] == [6, 5]


def test_memory_that_is_being_written_is_left_alone(world: Any, tmp_path: Path) -> None:
    memory = tmp_path / "cosigned.note"
    second = list[str]()

    def meanwhile(boundary: str) -> None:
        if boundary == "memory:made":
            with pytest.raises(Unavailable) as caught:
                replica(world, memory=memory).follow(world.blocks, head(world))
            second.append(caught.value.code)

    follower = replica(world, memory=memory, fault=meanwhile)
    assert follower.follow(grown(world).blocks, head(world)) is not None
    assert second == ["ledger.other_replica"]


def test_a_disk_that_takes_a_part_only(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "cosigned.note"
    follower = replica(world, memory=memory)
    assert follower.follow(grown(world).blocks, head(world)) is not None
    pwrite = os.pwrite
    grown(world, 1, "h")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:100], at))
        for _ in range(12):
            with pytest.raises(Unavailable) as caught:
                follower.follow(world.blocks, head(world))
            assert caught.value.code == "ledger.storage"
    assert follower.cosigned is not None and follower.cosigned.checkpoint.size == 4
    assert follower.follow(world.blocks, head(world)) is not None  # the disk is well again
    assert [note.checkpoint.size for note in HeadMemory(memory).recall()] == [5, 4]


def test_anothers_memory(world: Any, tmp_path: Path) -> None:
    memory = tmp_path / "cosigned.note"
    grown(world)
    replica(world, "bureau", memory=memory).follow(world.blocks, head(world))
    with pytest.raises(VerificationError):
        replica(world, "insurer", memory=memory)


def test_memory_that_cannot_be_written_means_no_cosignature(world: Any, tmp_path: Path) -> None:
    grown(world)
    with pytest.raises(Unavailable):
        replica(world, memory=tmp_path / "no-folder" / "note").follow(world.blocks, head(world))
    assert list(tmp_path.iterdir()) == []
