"""The embedded engine with its replicas: finality, receipts, order, quotas, crash safety, locking."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from ledger.contracts import AnchorGrant, RevokeGrant
from ledger.contracts.grants import GrantState, grant_key
from ledger.engines import EmbeddedEngine, Engine, GroupCommit, attend, commit, read
from ledger.envelope import envelope_id
from ledger.export import verify_export
from ledger.machine import Machine
from ledger.receipts import verify_receipt, verify_value
from ledger.replicas import Replica
from wire.checkpoint import cosign_checkpoint, sign_checkpoint, trust_of, verify_checkpoint
from wire.errors import DecodeError, QuorumNotMet, Refused, Unavailable, VerificationError

ALL = ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "insurer", "researcher", "regulator")


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())


def grant(world: Any, name: str = "grant-1") -> AnchorGrant:
    return AnchorGrant(name, bytes(32), world.start, world.start + 10**9, 0)


class Ticking:
    """A clock that moves one millisecond a look."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 1
        return self.now


async def open_engine(world: Any, folder: Path, **options: Any) -> EmbeddedEngine:
    signer = world.signer("bureau", "cosign")
    return await EmbeddedEngine.open(folder / "ledger.sqlite", world.founding, signer, Ticking(world.start), **options)


def replica(world: Any, name: str, **options: Any) -> Replica:
    return Replica(world.founding, name, world.signer(name, "cosign"), Ticking(world.start), **options)


@asynccontextmanager
async def running(
    world: Any, folder: Path, cosigners: Sequence[str] = ALL, **options: Any
) -> AsyncIterator[EmbeddedEngine]:
    engine = await open_engine(world, folder, **options)
    tasks = [asyncio.create_task(attend(engine, replica(world, name))) for name in cosigners]
    try:
        yield engine
    finally:
        await engine.close()
        await asyncio.gather(*tasks)


async def send(world: Any, engine: Engine, sender: str, *ops: Any) -> Any:
    nonce = await engine.next_nonce(sender)
    return await commit(engine, world.envelope(sender, *ops, nonce=nonce), 10)


def test_commit_receipt_and_state(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            receipt = await send(world, engine, "hospital-1", grant(world))
            verify_receipt(receipt, world.trust)
            assert receipt.result.accepted and receipt.block.height == 1
            state = await read(engine, grant_key("grant-1"), GrantState)
            assert state is not None and state.issuer == "hospital-1"
            proven = await engine.query(grant_key("grant-1"), True)
            verify_value(proven, world.trust)
            absent = await engine.query(grant_key("none"), prove=True)
            assert absent.value is None
            verify_value(absent, world.trust)
            head = await engine.head()
            assert head.height == head.final_height == 1 and head.note is not None
            assert verify_checkpoint(head.note, world.trust).size == 2

    run(test)


def test_a_refusal_has_facts_and_a_receipt(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            data = world.envelope("hospital-1", RevokeGrant("none"))
            with pytest.raises(Refused) as caught:
                await commit(engine, data, 10)
            assert caught.value.code == "grants.unknown" and caught.value.facts == {"grant": "none"}
            receipt = await engine.wait(await engine.submit(data), 10)
            assert receipt.result.code == "grants.unknown"
            verify_receipt(receipt, world.trust)

    run(test)


def test_nothing_is_final_without_k(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path, ALL[:5]) as engine:
            tx = await engine.submit(world.envelope("hospital-1", grant(world)))
            with pytest.raises(Unavailable):
                await engine.wait(tx, 0.2)
            assert await engine.query(grant_key("grant-1")) is None
            with pytest.raises(Unavailable):
                await engine.query(grant_key("grant-1"), True)
            with pytest.raises(Unavailable):
                await engine.export()
            head = await engine.head()
            assert (head.height, head.final_height, head.note) == (1, 0, None)
            late = asyncio.create_task(attend(engine, replica(world, "researcher")))
            await engine.wait(tx, 10)
            assert await engine.query(grant_key("grant-1")) is not None
        await late

    run(test)


def test_what_cannot_take_effect_is_refused_at_once(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            await send(world, engine, "hospital-1", grant(world))
            cases = (
                (world.envelope("hospital-1", grant(world, "b"), nonce=0), "ledger.nonce"),
                (world.envelope("hospital-1", grant(world, "b"), nonce=2), "ledger.nonce"),
                (world.envelope("hospital-1", grant(world, "b"), nonce=1, expiry=1), "ledger.expired"),
                (world.envelope("insurer", grant(world, "b"), chain=bytes(32)), "ledger.wrong_chain"),
                (
                    world.envelope("insurer", grant(world, "b"), signer=world.signer("regulator")),
                    "ledger.envelope_signature",
                ),
                (b"nonsense", "wire.not_canonical"),
            )
            for data, code in cases:
                with pytest.raises((Refused, VerificationError, DecodeError)) as caught:
                    await engine.submit(data)
                assert caught.value.code == code
            assert (await engine.head()).height == 1
            with pytest.raises(Refused):
                await engine.wait(bytes(32), 1)
            with pytest.raises(Refused):
                await engine.refusal(bytes(32))

    run(test)


def test_submitting_again_is_harmless(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            data = world.envelope("hospital-1", grant(world))
            assert await engine.submit(data) == await engine.submit(data)
            await commit(engine, data, 10)
            await commit(engine, data, 10)
            assert (await engine.head()).height == 1 and await engine.next_nonce("hospital-1") == 1

    run(test)


def test_many_at_once_share_blocks_and_keep_their_order(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            envelopes = [
                world.envelope(sender, grant(world, f"{sender}.g{n}"), nonce=n) for n in range(25) for sender in ALL
            ]
            receipts = await asyncio.gather(*(commit(engine, data, 30) for data in envelopes))
            for receipt in receipts:
                verify_receipt(receipt, world.trust)
                assert receipt.result.accepted
            assert (await engine.head()).height < 20
            machine = verify_export(await engine.export(), world.trust)
            assert machine.state.root == engine.machine.state.root

    run(test)


def test_an_organisation_has_a_quota(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.engines.waiting.MOST_WAITING", 3)

    async def test() -> None:
        async with running(world, tmp_path) as engine:
            envelopes = [world.envelope("hospital-1", grant(world, f"g{n}"), nonce=n) for n in range(4)]
            results = await asyncio.gather(*(engine.submit(data) for data in envelopes), return_exceptions=True)
            assert [isinstance(result, Unavailable) for result in results] == [False, False, False, True]

    run(test)


def test_the_quota_counts_bytes_too(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    envelopes = [world.envelope("hospital-1", grant(world, f"g{n}"), nonce=n) for n in range(4)]
    monkeypatch.setattr("ledger.engines.waiting.WAITING_BYTES", sum(map(len, envelopes[:2])))

    async def test() -> None:
        async with running(world, tmp_path) as engine:
            results = await asyncio.gather(*(engine.submit(data) for data in envelopes[:3]), return_exceptions=True)
            assert [isinstance(result, Unavailable) for result in results] == [False, False, True]
            await engine.wait(results[1], 10)
            for data in envelopes[2:]:  # a block took what had waited
                await commit(engine, data, 10)

    run(test)


def test_commit_believes_the_receipt_and_not_the_engine(world: Any, tmp_path: Path) -> None:
    """An engine that hides a refusal, or hands out the receipt of another envelope, is not believed."""

    async def test() -> None:
        async with running(world, tmp_path) as engine:
            done = await send(world, engine, "hospital-1", grant(world))

            async def nothing(tx: bytes) -> None:
                return None

            async def another(tx: bytes, timeout: float) -> Any:
                return done

            refused = world.envelope("hospital-2", RevokeGrant("none"))
            with patch.object(engine, "refusal", nothing), pytest.raises(Refused) as caught:
                await commit(engine, refused, 10)
            assert caught.value.code == "grants.unknown"
            with patch.object(engine, "wait", another), pytest.raises(VerificationError) as other:
                await commit(engine, world.envelope("hospital-3", RevokeGrant("none")), 10)
            assert (other.value.code, other.value.facts["part"]) == ("ledger.bad_receipt", "envelope")

    run(test)


@pytest.mark.parametrize(
    ("group", "heights"),
    [
        (GroupCommit(size=1), [1, 2, 3, 4]),
        (GroupCommit(envelopes=1), [1, 2, 3, 4]),
        (GroupCommit(envelopes=3), [1, 1, 1, 2]),
        (GroupCommit(delay=0), [1, 1, 1, 1]),
    ],
)
def test_what_closes_a_block(world: Any, tmp_path: Path, group: GroupCommit, heights: list[int]) -> None:
    async def test() -> None:
        async with running(world, tmp_path, group=group) as engine:
            envelopes = [world.envelope("hospital-1", grant(world, f"g{n}"), nonce=n) for n in range(4)]
            receipts = await asyncio.gather(*(commit(engine, data, 10) for data in envelopes))
            assert [receipt.block.height for receipt in receipts] == heights

    run(test)


def test_a_block_gathers_for_its_delay_and_no_longer_than_it_needs(world: Any, tmp_path: Path) -> None:
    """The delay is far longer than the test may take: only fullness, or closing, ends it."""

    async def test() -> None:
        async with running(world, tmp_path, group=GroupCommit(delay=10, envelopes=3)) as engine:
            for nonce in range(3):
                await engine.submit(world.envelope("hospital-1", grant(world, f"g{nonce}"), nonce=nonce))
                await asyncio.sleep(0.01)  # turns of the loop pass; the block is open
                assert nonce == 2 or (await engine.head()).height == 0
            receipt = await engine.wait(envelope_id(world.envelope("hospital-1", grant(world, "g2"), nonce=2)), 5)
            assert receipt.block.height == 1 and receipt.block.count == 3
            await engine.submit(world.envelope("hospital-1", grant(world, "g3"), nonce=3))
        assert engine.machine.height == 2  # closing writes what waits

    run(test)


def test_a_block_gathers_until_nothing_more_comes(world: Any, tmp_path: Path) -> None:
    """The delay is far longer than the test may take, the quiet is short: what comes within it shares the block."""

    async def test() -> None:
        async with running(world, tmp_path, group=GroupCommit(delay=10, quiet=0.5)) as engine:
            sent = [world.envelope("hospital-1", grant(world, f"g{nonce}"), nonce=nonce) for nonce in range(4)]
            for envelope in sent[:3]:
                await engine.submit(envelope)
                await asyncio.sleep(0.01)
            assert (await engine.wait(envelope_id(sent[0]), 5)).block.count == 3
            await engine.submit(sent[3])  # alone: nobody keeps it waiting
            assert (await engine.wait(envelope_id(sent[3]), 5)).block.count == 1

    run(test)


def test_whoever_goes_on_sending_keeps_no_block_open(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path, group=GroupCommit(delay=0.3, quiet=0.25)) as engine:
            nonce = 0
            async with asyncio.timeout(20):
                while (await engine.head()).height == 0:
                    await engine.submit(world.envelope("hospital-1", grant(world, f"g{nonce}"), nonce=nonce))
                    nonce += 1
                    await asyncio.sleep(0.02)
            assert nonce > 1

    run(test)


@pytest.mark.parametrize(
    "change",
    [
        {"delay": -1}, {"delay": 11}, {"quiet": 0.1}, {"delay": 1, "quiet": 1.1}, {"delay": 1, "quiet": -1},
        {"delay": float("nan")}, {"envelopes": 0}, {"envelopes": 10_001}, {"size": 0},
    ],
)  # fmt: skip
def test_group_commit_refuses_nonsense(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="group commit"):
        GroupCommit(**change)


def test_what_is_no_longer_authentic_when_its_block_comes_is_left_out(world: Any, tmp_path: Path) -> None:
    """Its sender's key changed, or it was expelled, while it waited: the others must not wait for it."""

    async def test() -> None:
        async with running(world, tmp_path) as engine:
            whole = engine.machine.execute

            def execute(height: int, time: int, envelopes: Sequence[bytes]) -> Any:
                if gone in envelopes:
                    entry, reason = list(envelopes).index(gone), "ledger.envelope_signature"
                    raise VerificationError("ledger.bad_entry", height=height, entry=entry, reason=reason)
                return whole(height, time, envelopes)

            gone = world.envelope("insurer", grant(world, "b"))
            others = [world.envelope("hospital-1", grant(world, "a")), world.envelope("regulator", grant(world, "c"))]
            with patch.object(engine.machine, "execute", execute):
                waiting = [asyncio.create_task(commit(engine, data, 10)) for data in (others[0], gone, others[1])]
                receipts: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
                assert isinstance(receipts[1], Refused) and receipts[1].code == "ledger.unknown_envelope"
                assert [receipts[n].block.height for n in (0, 2)] == [1, 1]
                with pytest.raises(Refused):
                    await commit(engine, gone, 10)  # alone in its block, there is no block
                assert engine.machine.height == 1 and await engine.next_nonce("insurer") == 0
            await commit(engine, gone, 10)

    run(test)


def test_reopening_replays_to_the_same_roots(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            for number in range(5):
                await send(world, engine, ALL[number], grant(world, f"grant-{number}"))
            refused = world.envelope("insurer", RevokeGrant("none"), nonce=await engine.next_nonce("insurer"))
            with pytest.raises(Refused):
                await commit(engine, refused, 10)
            head, state = await engine.head(), engine.machine.state.root
        async with running(world, tmp_path) as engine:
            assert engine.machine.state.root == state
            again = await engine.head()
            assert (again.height, again.final_height) == (head.height, head.final_height)
            assert again.note is not None and verify_checkpoint(again.note, world.trust).size == 7
            with pytest.raises(Refused) as caught:
                await commit(engine, refused, 10)
            assert caught.value.facts == {"grant": "none"}
            await send(world, engine, "hospital-1", grant(world, "more"))
            verify_export(await engine.export(), world.trust)

    run(test)


def test_one_process_at_a_time(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path):
            with pytest.raises(Unavailable) as caught:
                await open_engine(world, tmp_path)
            assert caught.value.code == "ledger.locked"
        await (await open_engine(world, tmp_path)).close()

    run(test)


def test_closing(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        engine = await open_engine(world, tmp_path)
        data = world.envelope("hospital-1", grant(world))
        await engine.submit(data)
        await engine.close()
        await engine.close()
        for call in (engine.submit(data), engine.wait(bytes(32), 1), engine.head(), engine.export()):
            with pytest.raises(Unavailable):
                await call
        await engine.add_cosignature(2, world.note().lines[1])
        engine = await open_engine(world, tmp_path)
        assert (await engine.head()).height == 1
        await engine.close()

    run(test)


def test_only_the_sequencer_opens_it(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        wrong = world.signer("bureau", "envelope")
        with pytest.raises(VerificationError) as caught:
            await EmbeddedEngine.open(tmp_path / "x", world.founding, wrong, lambda: 0)
        assert caught.value.code == "ledger.not_cosigner"
        assert not list(tmp_path.iterdir())
        async with running(world, tmp_path):
            pass
        with pytest.raises(VerificationError):
            await EmbeddedEngine.open(tmp_path / "ledger.sqlite", world.founding, wrong, lambda: 0)

    run(test)


async def _two_blocks(world: Any, folder: Path) -> None:
    async with running(world, folder) as engine:
        await send(world, engine, "hospital-1", grant(world, "a"))
        await send(world, engine, "hospital-1", grant(world, "b"))


@pytest.mark.parametrize(
    "fault,statement",
    [
        ("block altered", "UPDATE blocks SET block = (SELECT block FROM blocks WHERE height = 1) WHERE height = 2"),
        ("block garbage", "UPDATE blocks SET block = x'00' WHERE height = 1"),
        ("block not bytes", "UPDATE blocks SET block = 7 WHERE height = 1"),
        ("block missing", "DELETE FROM blocks WHERE height = 1"),
        ("results altered", "UPDATE blocks SET results = (SELECT results FROM blocks WHERE height = 1)"),
        ("head altered", "UPDATE blocks SET note = (SELECT note FROM blocks WHERE height = 1)"),
        ("final too long", "DELETE FROM blocks WHERE height = 2"),
        ("final garbage", "UPDATE final SET note = x'41'"),
        ("other genesis", "UPDATE genesis SET founding = x'00'"),
        ("no genesis", "DELETE FROM genesis"),
        ("index dropped", "DROP TABLE envelopes"),
        ("index altered", "UPDATE envelopes SET height = 2"),
        ("newer version", "PRAGMA user_version = 99"),
        ("other application", "PRAGMA application_id = 1"),
    ],
)
def test_altered_data_is_found_on_opening(world: Any, tmp_path: Path, fault: str, statement: str) -> None:
    async def test() -> None:
        await _two_blocks(world, tmp_path)
        db = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
        db.execute(statement)
        db.close()
        with pytest.raises((VerificationError, DecodeError, Unavailable)):
            await open_engine(world, tmp_path)

    run(test)


def test_a_stored_final_head_needs_its_cosignatures(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        await _two_blocks(world, tmp_path)
        db = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
        db.execute("UPDATE final SET note = (SELECT note FROM blocks WHERE height = 2)")
        db.close()
        with pytest.raises(QuorumNotMet):
            await open_engine(world, tmp_path)

    run(test)


def test_a_member_that_does_not_replay_does_not_make_anything_final(world: Any, tmp_path: Path) -> None:
    members = tuple(
        msgspec.structs.replace(member, re_executes=member.organisation != "insurer")
        for member in world.founding.members
    )
    world.founding = msgspec.structs.replace(world.founding, members=members)
    world.trust = trust_of(world.founding)
    world.machine = Machine(world.founding)

    async def test() -> None:
        cosigners = ("insurer", "bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4")
        async with running(world, tmp_path, cosigners) as engine:
            tx = await engine.submit(world.envelope("hospital-1", grant(world)))
            with pytest.raises(Unavailable):
                await engine.wait(tx, 0.2)
            late = asyncio.create_task(attend(engine, replica(world, "regulator")))
            verify_receipt(await engine.wait(tx, 10), world.trust)
        await late

    run(test)


def test_foreign_files(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "ledger.sqlite"
        path.write_bytes(b"not a database, but long enough to look at" * 100)
        with pytest.raises(DecodeError):
            await open_engine(world, tmp_path)
        path.unlink()
        path.mkdir()
        with pytest.raises(Unavailable):
            await open_engine(world, tmp_path)
        other = msgspec.structs.replace(world.founding, chain="other-chain")
        await (await EmbeddedEngine.open(tmp_path / "o", other, world.signer("bureau", "cosign"), lambda: 1)).close()
        with pytest.raises(DecodeError) as caught:
            await EmbeddedEngine.open(tmp_path / "o", world.founding, world.signer("bureau", "cosign"), lambda: 1)
        assert caught.value.code == "ledger.other_data"

    run(test)


def test_a_full_disk_stops_the_engine_and_loses_nothing(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            await send(world, engine, "hospital-1", grant(world, "a"))
        engine = await open_engine(world, tmp_path)
        writer = engine._store._writer
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        follower = asyncio.create_task(attend(engine, replica(world, "bureau")))
        tx = await engine.submit(world.envelope("hospital-1", *(grant(world, f"g{n}") for n in range(256)), nonce=1))
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await engine.wait(tx, 10)
            assert caught.value.code == "ledger.storage"
        with pytest.raises(Unavailable):
            await follower
        await engine.close()
        async with running(world, tmp_path) as engine:
            assert (await engine.head()).height == 1
            await send(world, engine, "hospital-1", grant(world, "b"))

    run(test)


def test_wrong_cosignatures(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path, ()) as engine:
            await engine.submit(world.envelope("hospital-1", grant(world)))
            block, note = await anext(engine.subscribe(1))
            other = sign_checkpoint(world.signer("bureau", "cosign"), world.trust.origin, 2, bytes(32))
            line = cosign_checkpoint(world.signer("insurer", "cosign"), "insurer", other, 1)
            stranger = cosign_checkpoint(world.signer("stranger", "cosign"), "stranger", note, 1)
            wrong_key = cosign_checkpoint(world.signer("insurer", "envelope"), "insurer", note, 1)
            for bad in (line, stranger, wrong_key):
                with pytest.raises(VerificationError):
                    await engine.add_cosignature(2, bad)
            good = cosign_checkpoint(world.signer("insurer", "cosign"), "insurer", note, 1)
            for _ in range(7):  # one member counts once, however often it signs
                await engine.add_cosignature(2, good)
            assert (await engine.head()).final_height == 0
            with pytest.raises(Refused):
                await engine.add_cosignature(3, good)
            assert block.header.height == 1

    run(test)


def test_a_replica_from_genesis_catches_up(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            for number in range(4):
                await send(world, engine, "hospital-1", grant(world, f"g{number}"))
            late = Machine(world.founding)
            async for block, _ in engine.subscribe(1):
                late.replay(block)
                if late.height == 4:
                    break
            assert late.log.root() == engine.machine.log.root()

    run(test)
