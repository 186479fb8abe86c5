"""Snapshots: restored only against a cosigned checkpoint; what starts from one goes on to the same roots."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant, RevokeGrant
from ledger.contracts.grants import grant_key
from ledger.engines import EmbeddedEngine, attend, commit
from ledger.receipts import verify_receipt, verify_value
from ledger.replicas import Replica
from ledger.snapshots import LedgerSnapshot, StateEntry, take_snapshot, verify_snapshot
from wire import evidence
from wire.canonical import encode
from wire.checkpoint import sign_checkpoint
from wire.errors import DecodeError, QuorumNotMet, Refused, VerificationError

ALL = ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "insurer", "researcher", "regulator")


def grant(world: Any, name: str) -> AnchorGrant:
    return AnchorGrant(name, bytes(32), world.start, world.start + 10**9, 0)


def lived(world: Any) -> Any:
    world.population()
    for number in range(3):
        world.act("hospital-1", grant(world, f"g{number}"))
    return world


def snapshot_of(world: Any, cosigners: Sequence[str] | None = None) -> LedgerSnapshot:
    machine = world.machine
    return take_snapshot(world.founding, machine.header, machine.state, machine.log, (), world.note(cosigners))


def test_it_restores_the_machine_and_it_goes_on_alike(world: Any) -> None:
    snapshot = snapshot_of(lived(world))
    data = encode(snapshot)
    assert evidence.read(data) == snapshot
    restored = verify_snapshot(evidence.read(data), world.trust)
    assert restored.height == world.machine.height and restored.time == world.machine.time
    assert restored.state.root == world.machine.state.root and restored.log.root() == world.machine.log.root()
    for number in range(5):
        world.act("hospital-2", grant(world, f"later{number}"))
        restored.replay(world.blocks[-1])
    assert restored.log.root() == world.machine.log.root()
    assert encode(snapshot_of(world)) == encode(
        take_snapshot(world.founding, restored.header, restored.state, restored.log, (), world.note())
    )


def _refused(data: bytes, world: Any) -> None:
    with pytest.raises((DecodeError, VerificationError, QuorumNotMet)):
        verify_snapshot(evidence.read(data), world.trust)


def _mutations(world: Any, count: int) -> None:
    data = encode(snapshot_of(lived(world)))
    chance = random.Random(3)
    for at in chance.sample(range(len(data)), min(count, len(data))):
        _refused(data[:at] + bytes([data[at] ^ chance.randint(1, 255)]) + data[at + 1 :], world)
    for at in chance.sample(range(len(data)), min(count // 10, len(data))):
        _refused(data[:at], world)
        _refused(data[:at] + data[at + 1 :], world)


def test_changed_bytes_are_refused(world: Any) -> None:
    _mutations(world, 500)


@pytest.mark.long
def test_every_changed_byte_is_refused(world: Any) -> None:
    _mutations(world, 10_000)


def test_parts_that_do_not_fit(world: Any, make_world: Callable[[], Any]) -> None:
    good = snapshot_of(lived(world))
    other = lived(make_world())
    other.act("insurer", grant(other, "other"))
    newer = snapshot_of(other)
    first, second, *rest = good.entries
    forged = StateEntry(first.key, second.value)
    change = msgspec.structs.replace
    cases = (
        change(good, block=newer.block),
        change(good, note=newer.note),
        change(good, entries=newer.entries),
        change(good, leaves=newer.leaves),
        change(good, leaves=good.leaves[:-1]),
        change(good, leaves=(*good.leaves, good.leaves[-1])),
        change(good, leaves=()),
        change(good, entries=(second, first, *rest)),
        change(good, entries=(first, first, second, *rest)),
        change(good, entries=(first, *rest)),
        change(good, entries=(forged, second, *rest)),
        change(good, entries=(*good.entries, StateEntry(b"\xff", b""))),
        change(good, entries=()),
        change(good, founding=change(good.founding, chain="another")),
        change(good, header=change(good.header, version=2)),
        # a state of one's own, with a head of one's own over it
        change(good, note=sign_checkpoint(world.signer("bureau", "cosign"), world.trust.origin, 7, bytes(32)).format()),
    )
    for case in cases:
        with pytest.raises((VerificationError, QuorumNotMet)):
            verify_snapshot(case, world.trust)
    verify_snapshot(good, world.trust)


def test_k_cosigners_or_none(world: Any) -> None:
    lived(world)
    verify_snapshot(snapshot_of(world, ALL[: world.trust.k]), world.trust)
    with pytest.raises(QuorumNotMet):
        verify_snapshot(snapshot_of(world, ALL[: world.trust.k - 1]), world.trust)


def test_genesis_alone_is_no_snapshot(world: Any) -> None:
    with pytest.raises(VerificationError):
        verify_snapshot(snapshot_of(world), world.trust)


# --- engine and replicas ---------------------------------------------------------------------------


class Consortium:
    """An engine with replicas, all of them from one snapshot if one is given."""

    def __init__(self, world: Any, folder: Path, snapshot: LedgerSnapshot | None = None) -> None:
        self.world, self.folder, self.snapshot = world, folder, snapshot
        self.tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> EmbeddedEngine:
        world = self.world
        signer = world.signer("bureau", "cosign")
        path = self.folder / "ledger.sqlite"
        self.engine = await EmbeddedEngine.open(
            path, world.founding, signer, lambda: int(world.start), snapshot=self.snapshot
        )
        for name in ALL:
            replica = Replica(
                world.founding, name, world.signer(name, "cosign"), lambda: int(world.start), snapshot=self.snapshot
            )
            self.tasks.append(asyncio.create_task(attend(self.engine, replica)))
        return self.engine

    async def __aexit__(self, *_: object) -> None:
        await self.engine.close()
        await asyncio.gather(*self.tasks)


async def send(world: Any, engine: EmbeddedEngine, *ops: Any) -> Any:
    nonce = await engine.next_nonce("insurer")
    return await commit(engine, world.envelope("insurer", *ops, nonce=nonce), 10)


def test_an_engine_starts_from_a_snapshot_and_reaches_the_same_roots(world: Any, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()

    async def test() -> None:
        async with Consortium(world, old) as engine:
            for number in range(4):
                await send(world, engine, grant(world, f"g{number}"))
            snapshot = await engine.snapshot()
            await send(world, engine, RevokeGrant("g1"))
            root, state = engine.machine.log.root(), engine.machine.state.root
        async with Consortium(world, new, snapshot) as engine:
            head = await engine.head()
            assert (head.height, head.final_height, head.note) == (4, 4, snapshot.note)
            proven = await engine.query(grant_key("g1"), True)
            verify_value(proven, world.trust)
            receipt = await send(world, engine, RevokeGrant("g1"))
            verify_receipt(receipt, world.trust)
            assert receipt.block.height == 5
            assert (engine.machine.log.root(), engine.machine.state.root) == (root, state)
            with pytest.raises(Refused) as caught:
                await engine.export()
            assert caught.value.code == "ledger.before_snapshot" and caught.value.facts["first"] == 5
            with pytest.raises(Refused):
                await anext(aiter(engine.subscribe(4)))
            assert (await anext(aiter(engine.subscribe(5))))[0].header.height == 5
            with pytest.raises(Refused):  # nothing counts twice: the nonces are part of the state
                await engine.submit(world.envelope("insurer", grant(world, "g0"), nonce=0))
        async with Consortium(world, new, snapshot) as engine:  # again, as somebody would who was interrupted
            assert (await engine.head()).final_height == 5 and engine.machine.log.root() == root
        signer = world.signer("bureau", "cosign")
        engine = await EmbeddedEngine.open(new / "ledger.sqlite", world.founding, signer, lambda: int(world.start))
        assert engine.machine.log.root() == root and (await engine.snapshot()).block.height == 5
        await engine.close()
        with pytest.raises(Refused) as caught:
            await EmbeddedEngine.open(
                old / "ledger.sqlite", world.founding, signer, lambda: int(world.start), snapshot=snapshot
            )
        assert caught.value.code == "ledger.not_new"

    asyncio.run(test())


def test_a_replica_starts_from_a_snapshot(world: Any, tmp_path: Path) -> None:
    snapshot = snapshot_of(lived(world))

    def follower(**options: Any) -> Replica:
        return Replica(
            world.founding,
            "insurer",
            world.signer("insurer", "cosign"),
            lambda: world.time,
            snapshot=snapshot,
            **options,
        )

    replica = follower(memory=tmp_path / "memory")
    assert replica.height == world.machine.height
    world.act("hospital-1", grant(world, "later"))
    log = world.machine.log
    head = sign_checkpoint(world.signer("bureau", "cosign"), world.trust.origin, log.size, log.root())
    assert replica.follow(world.blocks[-1:], head) is not None
    assert replica.machine.state.root == world.machine.state.root
    again = follower(memory=tmp_path / "memory")  # its memory reaches further than the snapshot
    assert again.follow(world.blocks, head) is not None
    with pytest.raises(VerificationError):
        Replica(
            world.founding,
            "insurer",
            world.signer("insurer", "cosign"),
            lambda: world.time,
            snapshot=msgspec.structs.replace(snapshot, entries=snapshot.entries[1:]),
        )


def test_a_wrong_snapshot_leaves_nothing_behind(world: Any, tmp_path: Path) -> None:
    snapshot = msgspec.structs.replace(snapshot_of(lived(world)), entries=())

    async def test() -> None:
        with pytest.raises(VerificationError):
            await EmbeddedEngine.open(
                tmp_path / "l", world.founding, world.signer("bureau", "cosign"), lambda: 0, snapshot=snapshot
            )
        assert list(tmp_path.iterdir()) == []

    asyncio.run(test())


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM origin",
        "UPDATE origin SET snapshot = x'00'",
        "UPDATE origin SET snapshot = CAST(substr(snapshot, 1, 900) || x'7f' || substr(snapshot, 902) AS BLOB)",
        "DELETE FROM blocks",
    ],
)
def test_altered_data_is_found_on_opening(world: Any, tmp_path: Path, statement: str) -> None:
    snapshot = snapshot_of(lived(world))

    async def test() -> None:
        async with Consortium(world, tmp_path, snapshot) as engine:
            await send(world, engine, grant(world, "x"))
        db = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
        db.execute(statement)
        db.close()
        with pytest.raises((VerificationError, DecodeError)):
            async with Consortium(world, tmp_path) as _:
                pass

    asyncio.run(test())
