"""Members and keys that change while the ledger runs: who vouches for whom, and what stays verifiable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from ledger.contracts import AnchorGrant, Leave, RotateKeys, VoteAdmission, VoteRemoval
from ledger.contracts.membership import changes_key
from ledger.engines import EmbeddedEngine, attend, commit
from ledger.export import LedgerExport, verify_export
from ledger.handovers import extend
from ledger.machine import Machine
from ledger.receipts import Receipt, verify_receipt, verify_value
from ledger.replicas import Replica
from ledger.snapshots import verify_snapshot
from ledger.split_view import compare_heads, verify_split_view
from medveil.gateway.ledger_account import LedgerAccount
from wire.canonical import decode, encode
from wire.checkpoint import cosign_checkpoint, parse_note, sign_checkpoint, trust_of
from wire.errors import MedveilError, QuorumNotMet, Unavailable, VerificationError
from wire.keyset import MembershipChanges
from wire.signing import Keyring

USES = ("envelope", "cosign", "http", "tls")
replace = msgspec.structs.replace


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())


def grant(world: Any, name: str) -> AnchorGrant:
    return AnchorGrant(name, bytes(32), world.start, world.start + 10**9, 0)


def ring(world: Any, name: str, use: str = "cosign") -> Keyring:
    """The keys of genesis and two generations more."""
    return Keyring(*(world.signer(name, use + which) for which in ("", "-1", "-2")))


class Party:
    """An engine with the replicas of all that ever are members, and short ways to act on it."""

    def __init__(self, world: Any, folder: Path, newcomers: tuple[str, ...] = ()) -> None:
        self.world, self.folder = world, folder
        self.names = (*world.members, *newcomers)
        self.engine: EmbeddedEngine
        self.replicas: dict[str, Replica] = {}
        self._signs: dict[str, int] = {}

    @asynccontextmanager
    async def running(self, cosigners: Sequence[str] | None = None, **options: Any) -> AsyncIterator[EmbeddedEngine]:
        world = self.world
        self.engine = await EmbeddedEngine.open(
            self.folder / "ledger.sqlite", world.founding, ring(world, "bureau"), lambda: world.start, **options
        )
        tasks = []
        for name in self.names if cosigners is None else cosigners:
            memory = self.folder / f"{name}.note"
            one = Replica(world.founding, name, ring(world, name), lambda: world.start, memory)
            self.replicas[name] = one
            tasks.append(asyncio.create_task(attend(self.engine, one)))
        try:
            yield self.engine
        finally:
            await self.engine.close()
            await asyncio.gather(*tasks)

    def has_new_keys(self, name: str, generation: int = 1) -> None:
        self._signs[name] = generation

    async def send(self, name: str, *ops: Any, timeout: float = 10) -> Receipt:
        generation = self._signs.get(name)
        signer = self.world.signer(name, "envelope" if generation is None else f"envelope-{generation}")
        nonce = await self.engine.next_nonce(name)
        return await commit(self.engine, self.world.envelope(name, *ops, nonce=nonce, signer=signer), timeout)

    async def admit(self, name: str, **how: Any) -> None:
        application = self.world.application(name, **how)
        for voter in list(self.world.members)[:6]:
            await self.send(voter, VoteAdmission(application))
        self.has_new_keys(name)

    async def rotate(self, name: str) -> None:
        keys = self.world.keys(name, "1")
        held = self.world.held(self.world.as_now(name, keys))
        await self.send(name, RotateKeys(keys, 0, held))
        self.has_new_keys(name)


def test_a_whole_life(world: Any, tmp_path: Path) -> None:
    """Join, rotate (a hospital, then the sequencer), leave: old and new receipts, values, export, snapshot, restart."""

    async def test() -> None:
        party = Party(world, tmp_path, ("pharmacy",))
        receipts = []
        async with party.running() as engine:
            receipts.append(await party.send("hospital-1", grant(world, "before")))
            await party.admit("pharmacy")
            receipts.append(await party.send("pharmacy", grant(world, "joined")))
            await party.rotate("hospital-1")
            receipts.append(await party.send("hospital-1", grant(world, "rotated")))
            await party.rotate("bureau")
            receipts.append(await party.send("bureau", grant(world, "sequencer-rotated")))
            await party.send("researcher", Leave())
            receipts.append(await party.send("insurer", grant(world, "left")))
            handovers = await engine.handovers()
        assert len(handovers) == 4 and len(party.replicas["pharmacy"].machine.trust.changes) == 4
        async with party.running() as engine:  # everything is there again, memories of heads too
            receipts.append(await party.send("bureau", grant(world, "again")))
            assert await engine.handovers() == handovers
            assert await engine.handovers(after=engine._trust.changes[1].from_height) == handovers[2:]
            export, snapshot = await engine.export(), await engine.snapshot()
        trust = extend(world.trust, handovers)
        assert trust == party.replicas["pharmacy"].machine.trust
        assert [epoch.k for epoch in trust.epochs] == [6, 6, 6, 6, 6]
        for receipt in receipts:  # of every time, also the oldest
            verify_receipt(receipt, trust)
        verify_receipt(receipts[0], world.trust)  # a verifier that never heard of any change
        for receipt in receipts[1:]:
            with pytest.raises((VerificationError, QuorumNotMet)):
                verify_receipt(receipt, world.trust)
        for known in (world.trust, extend(world.trust, handovers[:2]), trust):
            assert verify_export(export, known).trust == trust
            assert verify_snapshot(snapshot, known).trust == trust
        assert decode(LedgerExport, encode(export)) == export

        restored = Party(world, tmp_path / "restored", ("pharmacy",))
        restored.folder.mkdir()
        restored._signs = party._signs
        async with restored.running((), snapshot=snapshot) as engine:
            assert await engine.handovers() == handovers
        async with restored.running(()) as engine:
            assert await engine.handovers() == handovers
            others = [
                Replica(world.founding, name, ring(world, name), lambda: world.start, snapshot=snapshot)
                for name in restored.names
                if name != "researcher"
            ]
            tasks = [asyncio.create_task(attend(engine, one)) for one in others]
            verify_receipt(await restored.send("pharmacy", grant(world, "goes-on")), trust)
            await engine.close()
            await asyncio.gather(*tasks)

    run(test)


def test_no_block_before_the_members_before_handed_over(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        party = Party(world, tmp_path)
        async with party.running(list(world.members)[:6]) as engine:
            await party.send("bureau", grant(world, "g"))
        async with party.running(list(world.members)[:5]) as engine:  # one too few
            leaving = await engine.submit(world.envelope("researcher", Leave()))
            with pytest.raises(Unavailable):
                await engine.wait(leaving, 0.2)
            height = engine.machine.height
            tx = await engine.submit(world.envelope("insurer", grant(world, "h")))
            with pytest.raises(Unavailable):
                await engine.wait(tx, 0.2)
            assert engine.machine.height == height == 2 and await engine.handovers() == ()
        async with party.running(list(world.members)[:6]) as engine:
            assert engine.machine.height == height
            receipt = await party.send("insurer", grant(world, "h"))
            verify_receipt(receipt, extend(world.trust, await engine.handovers()))

    run(test)


def test_what_waits_with_an_old_key_is_dropped(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        party = Party(world, tmp_path)
        async with party.running() as engine:
            nonce = await engine.next_nonce("insurer")
            await engine.submit(world.envelope("insurer", world.rotation("insurer"), nonce=nonce))
            late = await engine.submit(world.envelope("bureau", grant(world, "g")))
            await engine.wait(late, 10)
            with pytest.raises(VerificationError):
                await engine.submit(world.envelope("insurer", grant(world, "h"), nonce=nonce + 1))
            party.has_new_keys("insurer")
            assert (await party.send("insurer", grant(world, "h"))).result.accepted

    run(test)


def test_a_member_without_its_new_key_stops(world: Any, tmp_path: Path) -> None:
    world.act("insurer", world.rotation("insurer"))
    world.act("bureau", grant(world, "g"))
    note = world.note(())
    lost = Replica(world.founding, "insurer", world.signer("insurer", "cosign"), lambda: world.time)
    with pytest.raises(VerificationError) as caught:
        lost.follow(world.blocks, note)
    assert caught.value.code == "ledger.not_cosigner" and lost.height == 0
    kept = Replica(world.founding, "insurer", ring(world, "insurer"), lambda: world.time)
    line = kept.follow(world.blocks, note)
    assert line is not None
    with pytest.raises(VerificationError):
        Replica(world.founding, "insurer", world.signer("insurer", "cosign-1"), lambda: world.time)


def test_an_observer_signs_from_the_block_on_with_which_it_joins(world: Any) -> None:
    application = world.application("pharmacy")
    for voter in list(world.members)[:6]:
        world.act(voter, VoteAdmission(application))
    observer = Replica(world.founding, "pharmacy", ring(world, "pharmacy"), lambda: world.time)
    assert observer.follow(world.blocks, world.note(())) is None and observer.height == 6
    world.act("bureau", grant(world, "g"))
    line = observer.follow(world.blocks, world.note(()))
    assert line is not None and line.name == "pharmacy"
    stranger = Replica(world.founding, "stranger", world.signer("stranger"), lambda: world.time)
    assert stranger.follow(world.blocks, world.note(())) is None


def test_the_old_key_of_the_sequencer_is_no_good_any_more(world: Any) -> None:
    world.act("bureau", world.rotation("bureau"))
    follower = Replica(world.founding, "insurer", world.signer("insurer", "cosign"), lambda: world.time)
    assert follower.follow(world.blocks, world.note(())) is not None
    world.act("bureau", grant(world, "g"), signer=world.signer("bureau", "envelope-1"))
    old = world.note(())
    with pytest.raises(VerificationError) as caught:
        follower.follow(world.blocks, old)
    assert caught.value.code == "checkpoint.unknown_signer" and follower.height == 1
    log, origin = world.machine.log, world.trust.origin
    new = sign_checkpoint(world.signer("bureau", "cosign-1"), origin, log.size, log.root())
    assert follower.follow(world.blocks, new) is not None
    # the new key signs nothing of before
    first = sign_checkpoint(world.signer("bureau", "cosign-1"), origin, 2, log.root(2))
    with pytest.raises(VerificationError):
        Replica(world.founding, "insurer", world.signer("insurer", "cosign"), lambda: world.time).follow(
            world.blocks[:1], first
        )


def test_a_split_view_across_a_rotation(world: Any, make_world: Callable[[], Any]) -> None:
    """The sequencer signs one history with its old key and another with its new one: still evidence."""
    world.act("bureau", world.rotation("bureau"))
    other = make_world()
    other.act("insurer", other.rotation("insurer"))
    world.act("bureau", grant(world, "g"), signer=world.signer("bureau", "envelope-1"))
    log = world.machine.log
    mine = sign_checkpoint(world.signer("bureau", "cosign-1"), world.trust.origin, log.size, log.root())
    split = compare_heads(mine.format(), other.note(()).format(), world.machine.trust, log)
    assert split is not None
    assert verify_split_view(split, world.machine.trust) == ()
    with pytest.raises(VerificationError):
        verify_split_view(split, world.trust)  # does not know the new key


# --- what an attacker may try -----------------------------------------------------------------------


def evidence(world: Any, tmp_path: Path) -> tuple[LedgerExport, tuple[Any, ...]]:
    """An export with two handovers: the researcher leaves, the insurer rotates."""
    made: list[Any] = []

    async def test() -> None:
        party = Party(world, tmp_path)
        async with party.running() as engine:
            await party.send("researcher", Leave())
            await party.rotate("insurer")
            await party.send("insurer", grant(world, "g"))
            made.extend((await engine.export(), await engine.handovers()))

    run(test)
    return made[0], made[1]


def test_handovers_that_do_not_hold(world: Any, tmp_path: Path) -> None:
    _, (first, second) = evidence(world, tmp_path)
    for broken in ((second, first), (second,), (first, first, replace(second, value=first.value))):
        with pytest.raises((VerificationError, QuorumNotMet)):
            extend(world.trust, broken)
    assert extend(world.trust, (first, first, second, first)) == extend(world.trust, (first, second))
    changes = decode(MembershipChanges, second.value)
    for value in (
        None,
        b"",
        encode(replace(changes, previous=0)),
        encode(replace(changes, from_height=changes.from_height + 1)),
    ):
        with pytest.raises(VerificationError):
            extend(world.trust, (first, replace(second, value=value)))
    data = encode(second)
    for at in range(0, len(data), 3):
        spoilt = data[:at] + bytes([data[at] ^ 0x21]) + data[at + 1 :]
        with pytest.raises(MedveilError):
            extend(world.trust, (first, decode(type(second), spoilt)))


def test_handovers_of_an_export_stand_once_and_in_order(world: Any, tmp_path: Path) -> None:
    export, (first, second) = evidence(world, tmp_path)
    junk = replace(first, proof=replace(first.proof, siblings=second.proof.siblings[:0]))
    known = extend(world.trust, (first, second))
    for handovers in ((first, first, second), (first, second, second), (first, second, first), (junk, second)):
        for trust in (world.trust, known):
            with pytest.raises((VerificationError, QuorumNotMet)):
                verify_export(replace(export, handovers=handovers), trust)
    shorter = replace(export, blocks=export.blocks[: first.block.height])
    with pytest.raises((VerificationError, QuorumNotMet)):
        verify_export(shorter, world.trust)


def test_accounts_follow_every_change(world: Any, tmp_path: Path) -> None:
    """Also those under which nothing that they check fails: a new sealing key, a member that is gone."""

    async def test() -> None:
        party = Party(world, tmp_path)
        async with party.running(()) as engine:
            accounts = {
                name: LedgerAccount(
                    name,
                    ring(world, name, "envelope"),
                    engine,
                    Replica(world.founding, name, ring(world, name), lambda: world.start),
                    world.trust,
                )
                for name in party.names
            }
            tasks = [asyncio.create_task(account.attend()) for account in accounts.values()]
            await accounts["insurer"].submit(world.rotation("insurer", only=("envelope", "seal")))
            await accounts["bureau"].submit(grant(world, "g1"))
            for voter in list(world.members)[:6]:
                await accounts[voter].submit(VoteRemoval("regulator"))
            for number in range(3):
                await accounts["bureau"].submit(grant(world, f"h{number}"))
            reader = accounts["hospital-1"]
            await reader.caught_up()
            assert reader.trust == reader.replica.machine.trust.until(reader.state.height)
            assert reader.trust.member("insurer").keys.seal.valid_from > 0
            assert reader.trust.latest.find("regulator") is None
            await engine.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    run(test)


def test_an_account_does_not_judge_by_members_that_its_replica_left_behind(
    make_world: Callable[[], Any], tmp_path: Path
) -> None:
    """The sequencer withholds the later handovers while the blocks go on: too few cosigners are still too few."""
    world = make_world()
    bureau, researcher = (
        member for member in world.founding.members if member.organisation in ("bureau", "researcher")
    )
    world.founding = replace(world.founding, members=(bureau, replace(researcher, re_executes=False)), k=1)
    world.trust = trust_of(world.founding)
    names = ("bureau", "p1", "p2", "p3")

    async def test() -> None:
        party = Party(world, tmp_path)
        party.names = names
        async with party.running(()) as engine:
            party.replicas = {
                name: Replica(world.founding, name, ring(world, name), lambda: world.start) for name in names
            }
            tasks = {name: asyncio.create_task(attend(engine, one)) for name, one in party.replicas.items()}
            for number, name in enumerate(names[1:], 1):  # k goes from 1 of 1 to 3 of 4
                for voter in names[:number]:
                    receipt = await party.send(voter, VoteAdmission(world.application(name)))
                    if receipt.result.events[0].name == "organisations.admitted":
                        break
                party.has_new_keys(name)
            await party.send("bureau", grant(world, "g1"))
            for name in ("p2", "p3"):
                tasks[name].cancel()
            nonce = await engine.next_nonce("bureau")
            await engine.submit(world.envelope("bureau", grant(world, "not-final"), nonce=nonce))
            async with asyncio.timeout(10):
                while party.replicas["p1"].height <= engine._history.final_height:
                    await asyncio.sleep(0.01)
            height, final = engine.machine.height, engine._history.final_height
            assert height == final + 1
            own = Replica(world.founding, "researcher", ring(world, "researcher"), lambda: world.start)
            asked = asyncio.Event()

            class Withholding:
                """The engine, whose operator answers when and with what it likes."""

                def __getattr__(self, name: str) -> Any:
                    return getattr(engine, name)

                async def subscribe(self, cursor: int) -> AsyncIterator[Any]:
                    async for block, note in engine.subscribe(cursor):
                        if block.header.height == 3:
                            await asked.wait()
                        yield block, note

                async def handovers(self, after: int = 0) -> Any:
                    if asked.is_set():
                        return await engine.handovers(after)
                    asked.set()
                    while own.height < height:
                        await asyncio.sleep(0.01)
                    return (await engine.handovers(after))[:1]

                async def wait(self, tx: bytes, timeout: float) -> Receipt:
                    while own.height < 2:
                        await asyncio.sleep(0.01)
                    shown = await engine.wait(tx, timeout)
                    head = engine._history._heads[height + 1]
                    note = replace_fields(head, lines=head.lines[:1])
                    for name, use in (("bureau", "cosign"), ("p1", "cosign-1")):
                        line = cosign_checkpoint(world.signer(name, use), name, note, world.start // 1000)
                        note = note.with_line(line)
                    path = engine.machine.log.inclusion_proof(shown.block.height, height + 1)
                    return replace(shown, block_path=path, note=note.format())

            account = LedgerAccount(
                "researcher", world.signer("researcher"), cast(Any, Withholding()), own, world.trust, patience=3
            )
            following = asyncio.create_task(account.attend())
            await asyncio.wait([following], timeout=2)
            assert own.height == height and account.state.height < height
            following.cancel()
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(following, *tasks.values(), return_exceptions=True)

    run(test)


def test_handovers_are_there_while_one_is_being_written(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        party = Party(world, tmp_path)
        async with party.running() as engine:
            written, go_on = threading.Event(), threading.Event()
            put = engine._store.put_handover

            def slowly(*what: Any) -> None:
                written.set()
                go_on.wait(10)
                put(*what)

            engine._store.put_handover = slowly  # type: ignore[method-assign]
            await party.send("researcher", Leave())
            following = asyncio.create_task(party.send("bureau", grant(world, "g")))
            await asyncio.to_thread(written.wait, 10)
            assert await engine.handovers() == ()
            go_on.set()
            await following
            assert len(await engine.handovers()) == 1

    run(test)


def test_retired_keys_may_be_destroyed(world: Any, tmp_path: Path) -> None:
    memory = tmp_path / "insurer.note"
    world.act("insurer", world.rotation("insurer"))
    world.act("bureau", grant(world, "g"))
    both = Replica(world.founding, "insurer", ring(world, "insurer"), lambda: world.time, memory)
    assert both.follow(world.blocks, world.note(())) is not None
    new = Replica(world.founding, "insurer", world.signer("insurer", "cosign-1"), lambda: world.time, memory)
    assert new.follow(world.blocks, world.note(())) is not None


def test_an_export_without_a_handover(world: Any, tmp_path: Path) -> None:
    export, (first, second) = evidence(world, tmp_path)
    for handovers in ((), (first,), (second,)):
        with pytest.raises((VerificationError, QuorumNotMet)):
            verify_export(replace(export, handovers=handovers), world.trust)
    known = extend(world.trust, (first, second))
    verify_export(replace(export, handovers=()), known)  # whoever knows them does not need them
    verify_export(export, known)


def test_a_later_proof_of_a_change_is_no_handover(world: Any, tmp_path: Path) -> None:
    """The changes stay in the state for good, but only the head right before is signed by the members before."""

    async def test() -> None:
        party = Party(world, tmp_path)
        async with party.running() as engine:
            await party.send("researcher", Leave())
            await party.send("bureau", grant(world, "g"))
            (handover,) = await engine.handovers()
            trust = extend(world.trust, (handover,))
            height = trust.latest.from_height
            later = await engine.query(changes_key(height), prove=True)
            verify_value(later, trust)
            with pytest.raises((VerificationError, QuorumNotMet)):  # which, is a matter of who cosigned it first
                extend(world.trust, (later,))

    run(test)


def test_new_members_cannot_install_themselves(world: Any, tmp_path: Path, make_world: Callable[[], Any]) -> None:
    """Whoever forges a state with members of its own has no k of the members before under its head."""
    application = world.application("pharmacy")
    for voter in list(world.members)[:6]:
        world.act(voter, VoteAdmission(application))
    log = world.machine.log

    def proven(note: Any) -> Any:
        return replace(world.handover(), note=note.format())

    good = extend(world.trust, (proven(world.note()),))
    assert good.latest.find("pharmacy") is not None
    with pytest.raises(QuorumNotMet):
        extend(world.trust, (proven(world.note(list(world.members)[:5])),))
    head = sign_checkpoint(world.signer("bureau", "cosign"), world.trust.origin, log.size, log.root())
    for name in list(world.members)[:5]:
        head = head.with_line(cosign_checkpoint(world.signer(name, "cosign"), name, head, 0))
    sixth = cosign_checkpoint(world.signer("pharmacy", "cosign-1"), "pharmacy", head, 0)
    with pytest.raises(VerificationError):
        extend(world.trust, (proven(head.with_line(sixth)),))


def test_a_replay_and_the_evidence_name_the_same_members(world: Any, tmp_path: Path) -> None:
    export, handovers = evidence(world, tmp_path)
    machine = Machine(export.founding)
    for block in export.blocks:
        machine.replay(block)
    assert machine.trust == extend(trust_of(export.founding), handovers)
    shorter = replace(export, blocks=export.blocks[:-1])
    with pytest.raises(VerificationError):
        verify_export(shorter, world.trust)
    assert parse_note(export.note).checkpoint.size == len(export.blocks) + 1
