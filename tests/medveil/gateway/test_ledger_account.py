"""An account believes nothing that it did not replay, and nothing that is not final."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant, ProposeQuery, RegisterBill, VoteBudget
from ledger.engines import EmbeddedEngine
from ledger.machine import Block, Machine
from ledger.replicas import Replica
from medveil.gateway.ledger_account import LedgerAccount
from medveil.gateway.rotating import rotate
from medveil.gateway.steps import Passing
from tests.medveil.leaping import leap
from wire.checkpoint import cosign_checkpoint, parse_note, sign_checkpoint, trust_of
from wire.checkpoint.membership import needed_cosigners
from wire.errors import BudgetExhausted, MedveilError, Refused, Unavailable, VerificationError
from wire.keyset import Founding, KeySet, Member, SealingKey, SignatureKey
from wire.sealing import SealKey
from wire.signing import Signer

from .anchored_grants import anchored, anchoring

Play = Callable[[Callable[[Any], Any]], Any]


# --- writing ------------------------------------------------------------------------------------


def test_refusals_carry_the_contracts_reason(play: Play) -> None:
    async def story(world: Any) -> None:
        proposal = ProposeQuery(bytes(16), bytes(32), "stays", world.hospitals, world.budget + 1, 2)
        with pytest.raises(BudgetExhausted) as exhausted:
            await world.researcher.submit(proposal)
        assert exhausted.value.facts == {
            "population": "stays",
            "asked": "1.000000001",
            "available": "1",
        }
        with pytest.raises(Refused) as role:
            await world.insurer.submit(RegisterBill(bytes(16), bytes(48), "CNY"))
        assert role.value.code == "organisations.role"
        with pytest.raises(Refused) as owner:
            await world.bureau.submit(VoteBudget("stays", 1))
        assert owner.value.code == "datasets.not_owner"
        # A refused envelope stands on the ledger: its receipt is kept like any other.
        (receipt,) = world.bureau.account.receipts
        assert receipt.result.code == "datasets.not_owner"
        # All of an envelope or nothing of it.
        with pytest.raises(Refused):
            await world.bureau.submit(anchoring(world, "whole"), VoteBudget("stays", 1))
        assert not anchored(world.bureau.account.state, "whole")

    play(story)


def test_a_sequencer_does_not_choose_the_nonce(play: Play) -> None:
    """An envelope with a nonce to come could be kept back and played later: none is signed."""

    async def story(world: Any) -> None:
        account, engine = world.insurer.account, world.insurer.account._engine
        await account.submit(anchoring(world, "before"))
        sent: list[bytes] = []

        class Ahead:
            def __getattr__(self, name: str) -> Any:
                return getattr(engine, name)

            async def next_nonce(self, organisation: str) -> int:
                return int(await engine.next_nonce(organisation)) + 3

            async def submit(self, envelope: bytes) -> bytes:
                sent.append(envelope)
                return bytes(await engine.submit(envelope))

        account._engine, account.patience = Ahead(), 0.3
        account._writes_known = False  # as in a process that has just begun
        with pytest.raises(Unavailable) as caught:
            await account.submit(anchoring(world, "ahead"))
        assert caught.value.code == "account.timeout" and not sent
        account._engine, account.patience = engine, 10.0
        await account.submit(anchoring(world, "after"))

    play(story)


def test_a_sequencer_that_is_started_again_ends_nothing(play: Play) -> None:
    """What cannot be reached is asked again while patience lasts, and written once."""

    async def story(world: Any) -> None:
        account, engine = world.insurer.account, world.insurer.account._engine
        lost: list[str] = []

        class Away:
            def __getattr__(self, name: str) -> Any:
                if name not in ("submit", "wait", "head", "next_nonce", "export", "refusal"):
                    return getattr(engine, name)

                async def call(*arguments: Any) -> Any:
                    if name not in lost:  # each is lost once; a submit after it was taken
                        lost.append(name)
                        if name == "submit":
                            await engine.submit(*arguments)
                        raise Unavailable("network.unreachable", organisation="bureau")
                    return await getattr(engine, name)(*arguments)

                return call

        account._engine = Away()
        await account.caught_up()
        receipt = await account.submit(anchoring(world, "away"))
        assert receipt.result.accepted and anchored(account.state, "away")
        assert (await account.export()).note
        assert set(lost) >= {"submit", "wait", "head", "next_nonce", "export"}
        account.patience, lost[:] = 0.3, []
        with pytest.raises(Unavailable) as gone:
            await account.caught_up()
        assert gone.value.code == "network.unreachable"
        account._engine, account.patience = engine, 10.0

    play(story)


def test_a_sequencer_that_forgets_each_time_is_not_waited_for_for_ever(play: Play) -> None:
    """It takes the envelope and denies it, again and again. Once it is honest, that one is written first, and once."""

    async def story(world: Any) -> None:
        account, engine = world.insurer.account, world.insurer.account._engine
        await account.submit(anchoring(world, "before"))
        offered: list[bytes] = []

        class Forgetful:
            def __getattr__(self, name: str) -> Any:
                return getattr(engine, name)

            async def submit(self, envelope: bytes) -> None:
                offered.append(envelope)

            async def wait(self, envelope: bytes, patience: float) -> Any:
                raise Refused("ledger.unknown_envelope")

        account._engine, account.patience = Forgetful(), 0.3
        with pytest.raises(Unavailable) as caught:
            await asyncio.wait_for(account.submit(anchoring(world, "denied")), 5)
        assert caught.value.code == "account.timeout"
        assert len(set(offered)) == 1 and len(offered) < 20
        account._engine, account.patience = engine, 10.0
        await account.submit(anchoring(world, "after"))
        assert anchored(account.state, "denied") and anchored(account.state, "after")

    play(story)


@pytest.mark.parametrize("said", [None, Refused("grants.exists", grant="x")])
def test_an_engine_that_denies_a_refusal_is_not_believed(play: Play, said: Refused | None) -> None:
    async def story(world: Any) -> None:
        async def refusal(transaction: bytes) -> Refused | None:
            return said

        world.consortium.engine.refusal = refusal
        with pytest.raises(Refused) as refused:
            await world.bureau.submit(VoteBudget("stays", 1))
        assert refused.value.code == "datasets.not_owner"

    play(story)


def test_the_receipt_must_be_of_what_was_sent(play: Play) -> None:
    async def story(world: Any) -> None:
        first = await world.bureau.submit(anchoring(world, "first"))

        async def wait(transaction: bytes, timeout: float) -> Any:
            return first

        world.consortium.engine.wait = wait
        with pytest.raises(VerificationError) as refused:
            await world.bureau.submit(anchoring(world, "second"))
        assert refused.value.code == "ledger.bad_receipt"
        del world.consortium.engine.wait

    play(story)


def test_many_writers_and_one_writer_many_times(play: Play) -> None:
    async def story(world: Any) -> None:
        members = [world.bureau, world.insurer, *world.sites]
        names = [f"grant-{member.name}-{n}" for member in members for n in range(4)]
        await asyncio.gather(
            *(member.submit(anchoring(world, f"grant-{member.name}-{n}")) for n in range(4) for member in members)
        )
        state = await world.regulator.account.caught_up()
        assert all(anchored(state, name) for name in names)

    play(story)


def test_whoever_is_cancelled_while_writing_can_write_again(play: Play) -> None:
    async def story(world: Any) -> None:
        for turns in range(12):
            writing = asyncio.ensure_future(world.bureau.submit(anchoring(world, f"cancelled-{turns}")))
            for _ in range(turns):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await world.bureau.submit(anchoring(world, f"next-{turns}"))
        state = await world.bureau.account.caught_up()
        for turns in range(12):
            assert anchored(state, f"next-{turns}")
        assert anchored(state, "cancelled-11"), "what was on its way arrived"

    play(story)


# --- reading ------------------------------------------------------------------------------------


def test_only_final_state_is_read(play: Play) -> None:
    """k of n do not cosign: blocks are replayed, and nothing of them is believed or acted on."""

    async def story(world: Any) -> None:
        engine, cosign = world.consortium.engine, world.consortium.engine.add_cosignature
        withheld: list[Any] = []

        async def withhold(size: int, line: Any) -> None:
            withheld.append((size, line))

        bureau = world.bureau
        before = bureau.account.state.height
        engine.add_cosignature = withhold
        bureau.account.patience = 0.3
        with pytest.raises(Unavailable):
            await bureau.submit(anchoring(world, "early"))
        members = world.consortium.organisations.values()
        while any(member.account.replica.height == before for member in members):
            await asyncio.sleep(0.01)
        for member in members:
            assert member.account.replica.height == before + 1, "it was replayed"
            assert member.account.state.height == before
            assert not anchored(member.account.state, "early")
        with pytest.raises(Unavailable) as late:
            await bureau.account.until(lambda state: anchored(state, "early") or None, "the grant", 0.1)
        assert late.value.code == "account.timeout"
        assert not bureau.account.receipts
        engine.add_cosignature = cosign
        for size, line in withheld:
            await cosign(size, line)
        bureau.account.patience = 20
        await bureau.account.until(lambda state: anchored(state, "early") or None, "the grant")
        await bureau.submit(anchoring(world, "after"))  # nobody gave up meanwhile

    play(story)


def forged_note(world: Any, size: int, root: bytes) -> bytes:
    """A head of one's choice, signed by the sequencer and all cosigners."""
    note = sign_checkpoint(world.bureau.keys.newest.cosign, world.consortium.trust.origin, size, root)
    signed = note
    for member in world.consortium.organisations.values():
        signed = signed.with_line(cosign_checkpoint(member.keys.newest.cosign, member.name, note, world.now() // 1000))
    return signed.format()


def test_a_final_head_that_is_not_ones_own_is_a_fork(play: Play) -> None:
    async def story(world: Any) -> None:
        account = world.regulator.account
        await account.caught_up()
        log, state = account.replica.machine.log, account.state
        for size in (log.size, log.size - 1):
            with pytest.raises(VerificationError) as fork:
                await account.finalised(forged_note(world, size, secrets.token_bytes(32)))
            assert fork.value.code == "ledger.fork"
            assert fork.value.facts["organisation"] == "regulator"
        await account.finalised(forged_note(world, log.size + 3, secrets.token_bytes(32)))  # not come there yet
        assert account.state is state
        too_few = sign_checkpoint(world.bureau.keys.newest.cosign, world.consortium.trust.origin, log.size, log.root())
        with pytest.raises(MedveilError):
            await account.finalised(too_few.format())
        await account.finalised(forged_note(world, log.size, log.root()))

    play(story)


def fake_engine(*shown: tuple[Block, Any]) -> tuple[Any, list[int]]:
    """An engine that shows these blocks and nothing else; the sizes that were cosigned."""
    cosigned: list[int] = []

    async def subscribe(cursor: int) -> AsyncIterator[tuple[Block, Any]]:
        for pair in shown:
            yield pair

    async def add_cosignature(size: int, line: Any) -> None:
        cosigned.append(size)

    return SimpleNamespace(subscribe=subscribe, add_cosignature=add_cosignature), cosigned


def watcher(world: Any, engine: Any) -> LedgerAccount:
    """The regulator's account from genesis, at another engine."""
    founding, regulator = world.consortium.trust.founding, world.regulator
    replica = Replica(founding, "regulator", regulator.cosigner, world.now)
    return LedgerAccount("regulator", regulator.signer, engine, replica, world.consortium.trust)


def test_following_ends_in_order_where_the_ledger_is_closed_over_a_change_of_keys(play: Play) -> None:
    """What shows the new keys is asked for just then."""

    async def story(world: Any) -> None:
        engine = world.consortium.engine
        height = await rotate(world.insurer, Passing(), notice=2)
        while world.bureau.account.state.height < height:
            await world.bureau.submit(anchoring(world, f"g{secrets.token_hex(4)}"))

        class Closing:
            asked = False

            def __getattr__(self, name: str) -> Any:
                return getattr(engine, name)

            async def handovers(self, after: int = 0) -> Any:
                self.asked = True
                raise Unavailable("ledger.closed")

        closing = Closing()
        async with asyncio.timeout(60):
            await watcher(world, closing).attend()
        assert closing.asked

    play(story)


def test_a_replica_that_forks_raises_and_does_not_cosign(play: Play) -> None:
    async def story(world: Any) -> None:
        origin, sequencer = world.consortium.trust.origin, world.bureau.keys.newest.cosign
        export = await world.consortium.engine.export()
        block = export.blocks[0]
        machine = Machine(world.consortium.trust.founding)
        outcome = machine.replay(block)
        other = msgspec.structs.replace(block.header, state_root=bytes(32))
        later = msgspec.structs.replace(block.header, time=block.header.time + 1)
        good = sign_checkpoint(sequencer, origin, 2, outcome.log_root)
        for shown, note in (
            (Block(other, block.envelopes), good),
            (Block(later, block.envelopes), good),
            (Block(block.header, block.envelopes[1:] or (block.envelopes[0][:-1],)), good),
            (block, sign_checkpoint(sequencer, origin, 2, bytes(32))),
            (block, sign_checkpoint(world.insurer.keys.newest.cosign, origin, 2, outcome.log_root)),
        ):
            engine, cosigned = fake_engine((shown, note))
            account = watcher(world, engine)
            with pytest.raises(VerificationError):
                await account.attend()
            assert not cosigned
            assert account.state.height == 0

    play(story)


def test_an_empty_block_stops_nobody(play: Play) -> None:
    async def story(world: Any) -> None:
        machine = Machine(world.consortium.trust.founding)
        outcome = machine.apply_block(1, machine.time, ())
        note = sign_checkpoint(world.bureau.keys.newest.cosign, world.consortium.trust.origin, 2, outcome.log_root)
        engine, cosigned = fake_engine((Block(outcome.header, ()), note))
        account = watcher(world, engine)
        await account.attend()
        assert cosigned == [2]
        assert account.state.height == 0, "nobody has called it final"
        await account.finalised(forged_note(world, 2, outcome.log_root))
        assert account.state.height == 1

    play(story)


def test_a_consortium_may_close_right_after_a_block(in_consortium: Any, tmp_path: Path) -> None:
    """Some replicas are still waiting for finality then: they end, and nothing is raised."""

    async def story(world: Any) -> None:
        await asyncio.gather(*(site.submit(anchoring(world, f"last-{site.name}")) for site in world.sites))

    for turn in range(3):
        in_consortium(tmp_path / str(turn), story)


def test_a_patient_follower_outlasts_a_pause(play: Play) -> None:
    """Cosignatures that come late do not make anybody stop following."""

    async def story(world: Any) -> None:
        engine, cosign = world.consortium.engine, world.consortium.engine.add_cosignature
        await world.bureau.account.caught_up()
        world.impatient(0.1)

        async def slow(size: int, line: Any) -> None:
            await asyncio.sleep(0.4)
            await cosign(size, line)

        engine.add_cosignature = slow
        with pytest.raises(Unavailable):
            await world.bureau.submit(anchoring(world, "slow"))
        engine.add_cosignature = cosign
        world.impatient(20)
        await world.bureau.account.until(lambda state: anchored(state, "slow") or None, "the grant")
        await world.insurer.submit(anchoring(world, "quick"))

    play(story)


class Far(EmbeddedEngine):
    """An engine whose members are some way off: their cosignatures take a while."""

    delay = 0.1

    async def add_cosignature(self, size: int, line: Any) -> None:
        await asyncio.sleep(self.delay)
        await super().add_cosignature(size, line)


class Members:
    """A ledger of four, some way from each other; the processes of all can die at once, or one by one restart."""

    names = ("bureau", "hospital", "insurer", "regulator")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signers = {name: Signer(secrets.token_bytes(32)) for name in self.names}
        self.cosigners = {name: Signer(secrets.token_bytes(32)) for name in self.names}
        founders = tuple(self._member(name) for name in self.names)
        self.founding = Founding("chain", founders, "bureau", needed_cosigners(len(founders)), "UTC", self.now())

    def _member(self, name: str) -> Member:
        keys = [self.signers[name], self.cosigners[name], *(Signer(secrets.token_bytes(32)) for _ in "ht")]
        seal = SealingKey(SealKey(1, secrets.token_bytes(32)), 0)
        return Member(name, (name,), KeySet(*(SignatureKey(key.key, 0) for key in keys), seal), True)

    @staticmethod
    def now() -> int:
        return 1_800_000_000_000

    async def start(self, memories: Callable[[str], Path]) -> None:
        self.engine = await Far.open(self.folder / "l", self.founding, self.cosigners["bureau"], self.now)
        self.accounts = {}
        for name in self.names:
            replica = Replica(self.founding, name, self.cosigners[name], self.now, memories(name))
            trust = trust_of(self.founding)
            self.accounts[name] = LedgerAccount(name, self.signers[name], self.engine, replica, trust, 20)
        self.tasks = [asyncio.create_task(account.attend()) for account in self.accounts.values()]

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await self.engine.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.mark.parametrize("lag", ["none", "some"])
def test_a_ledger_whose_processes_all_died_goes_on(tmp_path: Path, lag: str) -> None:
    """Its file knows an older final head than all members remember; with `some`, not all remember the same one."""

    async def story() -> None:
        members = Members(tmp_path / "now")
        members.folder.mkdir()
        await members.start(lambda name: members.folder / name)
        early, older = {}, b""

        async def writes(number: int) -> None:
            await members.accounts[members.names[number % 4]].submit(
                AnchorGrant(f"g{number}", bytes(32), 0, members.now() + 1, 0)
            )

        writing = []
        for number in range(12):
            writing.append(asyncio.create_task(writes(number)))
            await asyncio.sleep(0.017)
            if number == 8:
                with closing(sqlite3.connect(members.folder / "l")) as db:
                    while (found := db.execute("SELECT note FROM final").fetchone()) is None:
                        await asyncio.sleep(0.01)
                    (older,) = found
                if lag == "some":
                    early = {name: (members.folder / name).read_bytes() for name in members.names[:2]}
        await asyncio.gather(*writing)
        height = members.engine.machine.height
        db = sqlite3.connect(members.folder / "l")
        shutil.copytree(members.folder, tmp_path / "then", ignore=shutil.ignore_patterns("*.lock"))  # what the disk has
        db.close()
        await members.end()
        members.folder = tmp_path / "then"
        with closing(sqlite3.connect(members.folder / "l")) as db, db:
            db.execute("UPDATE final SET note = ?", (older,))
        assert parse_note(older).checkpoint.size <= height
        for name, memory in early.items():
            (members.folder / name).write_bytes(memory)
        await members.start(lambda name: members.folder / name)
        for name in members.names:
            await members.accounts[name].until(lambda state: state.height >= height or None, "all of it", 10)
        await members.accounts["hospital"].submit(AnchorGrant("new", bytes(32), 0, members.now() + 1, 0))
        await members.end()

    leap(story())


def test_catching_up_keeps_no_state_of_before_the_final_head(play: Play) -> None:
    async def story(world: Any) -> None:
        for number in range(6):
            await world.bureau.submit(anchoring(world, f"g{number}"))
        await world.regulator.account.caught_up()
        height = world.regulator.account.state.height
        account = watcher(world, world.consortium.engine)
        held = []
        cosign = account.replica.cosign

        def counting(blocks: Any, note: Any) -> Any:
            held.append(len(account._replayed))
            return cosign(blocks, note)

        account.replica.cosign = counting  # type: ignore[method-assign]
        attending = asyncio.create_task(account.attend())
        await account.until(lambda state: True if state.height >= height else None, "all of it", 20)
        assert len(held) == height > 6 and max(held) <= 3 and len(account._replayed) <= 1
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)

    play(story)
