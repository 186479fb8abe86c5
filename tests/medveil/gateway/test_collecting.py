"""Evidence collected from every member into one folder: whole, checked on arrival, also where it is cut short."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import RegisterPopulation
from ledger.receipts import Receipt
from medveil.gateway import collecting
from medveil.gateway.accounting import anchor_audit
from medveil.gateway.collecting import (
    Evidence,
    EvidencePart,
    EvidenceRequest,
    batches_until,
    booked_until,
    parts_of,
)
from medveil.gateway.exporting import Exported, _fitting, export_folder
from medveil.gateway.organisation import Refusal
from medveil.gateway.steps import Passing
from medveil.verification import verify
from privacy.audit import Use
from wire.canonical import encode
from wire.checkpoint import parse_note
from wire.errors import MedveilError, ProtocolAbort, Refused, Unavailable, VerificationError

from .cutting import Cut, Cuts, KeptSteps

Play = Callable[[Callable[[Any], Any]], Any]
NOWHERE = 10_000


@asynccontextmanager
async def answering(world: Any, without: Collection[str] = (), run: Any = None) -> AsyncIterator[None]:
    """Every member answers by itself, but those in `without`. run: (member's name, runner of its flow)."""

    async def one(member: Any, sender: str, session: bytes) -> None:
        def answer(steps: Any) -> Any:
            return collecting.answer(member, sender, session, steps)

        with contextlib.suppress(MedveilError):
            await (run[1](answer) if run is not None and run[0] == member.name else answer(Passing()))

    async def reception(member: Any) -> None:
        async for sender, session, _ in member.openings(EvidenceRequest):
            tasks.append(asyncio.create_task(one(member, sender, session)))

    others = [other for name, other in world.consortium.organisations.items() if name not in without]
    tasks = [asyncio.create_task(reception(other)) for other in others]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def uses(world: Any) -> None:
    """A released query, a proof, and a use that was denied."""
    await world.grant_study()
    await world.grant_proofs()
    release = await world.released()
    world.researcher.vault.put_document("release", release.handle.hex(), encode(release))
    bill = await world.bill()
    await world.limit_checked(world.request(bill))
    trail = world["hospital-3"].audit
    trail.outcome(trail.intent(Use("insurer", "x", "query", "HMB", "", bytes(32), False, "no-grant")), "denied")


async def exported(world: Any, folder: Path, steps: Any = None, by: str = "regulator", **more: Any) -> Exported:
    return await export_folder(world[by], folder, steps or Passing(), world.now, **more)


def checked(world: Any, folder: Path) -> Any:
    """What a verifier says of the folder."""
    return verify(folder, trust=world.consortium.trust)


def test_a_regulator_collects_what_verifies_as_a_whole(play: Play, tmp_path: Path) -> None:
    async def story(world: Any) -> None:
        await uses(world)
        await anchor_audit(world["hospital-1"])
        async with answering(world, ("regulator",)):
            made = await exported(world, tmp_path / "evidence")
        assert made.gaps == ()
        report = checked(world, tmp_path / "evidence")
        assert (report.verdict, report.findings, report.exporter) == ("verified", [], "regulator")
        assert report.height == made.height
        assert len(report.flows) == 5
        names = [
            path.relative_to(tmp_path / "evidence").as_posix() for path in (tmp_path / "evidence").rglob("*.evidence")
        ]
        assert len(names) == made.files
        for name in ("ledger", "releases/query-1", "presentations/bill-1", "access/hospital-3-1", "receipts/insurer-1"):
            assert f"{name}.evidence" in names or name == "receipts/insurer-1"
        assert [path.name for path in tmp_path.iterdir() if path.name != "consortium"] == ["evidence"]
        with pytest.raises(Refused) as refused:
            await exported(world, tmp_path / "evidence")
        assert refused.value.code == "gateway.evidence_exists"

    play(story)


def test_members_go_on_while_it_is_collected(play: Play, tmp_path: Path) -> None:
    """Whatever they anchor and write meanwhile: the folder is of one moment."""

    async def story(world: Any) -> None:
        await uses(world)

        async def busy() -> None:
            trail = world["hospital-2"].audit
            while True:
                trail.outcome(trail.intent(Use("insurer", "x", "query", "HMB", "", bytes(32), False, "form")), "denied")
                await anchor_audit(world["hospital-2"])
                await asyncio.sleep(0.01)

        working = asyncio.create_task(busy())
        async with answering(world, ("regulator",)):
            made = await exported(world, tmp_path / "evidence")
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert made.gaps == ()
        assert checked(world, tmp_path / "evidence").verdict == "verified"

    play(story)


def test_a_batch_that_its_own_member_has_not_booked_yet_is_waited_for(play: Play) -> None:
    """It is final for whoever collects, before its receipt has come to the member that wrote it."""

    async def story(world: Any) -> None:
        hospital = world["hospital-2"]
        use = Use("insurer", "x", "query", "HMB", "", bytes(32), False, "form")
        hospital.audit.outcome(hospital.audit.intent(use), "denied")
        ensure, written, told = hospital.ensure, asyncio.Event(), asyncio.Event()

        async def late(*given: Any) -> Any:
            done = await ensure(*given)
            written.set()
            await told.wait()
            return done

        hospital.ensure = late
        anchoring = asyncio.create_task(anchor_audit(hospital))
        await written.wait()
        with pytest.raises(Refused):
            batches_until(hospital, 2)
        asked = asyncio.create_task(booked_until(hospital, 2))
        await asyncio.sleep(1)
        assert not asked.done()
        told.set()
        assert [batch.last for batch in await asked] == [2] and len(await anchoring) == 1
        with pytest.raises(Refused) as refused:
            await booked_until(hospital, 3)
        assert refused.value.code == "gateway.no_such_entry"

    play(story)


def test_without_the_others_it_is_the_exporters_own_part(play: Play, tmp_path: Path) -> None:
    async def story(world: Any) -> None:
        await uses(world)
        await anchor_audit(world["hospital-2"])
        made = await exported(world, tmp_path / "own", by="hospital-1", collect=False)
        assert made.gaps == ()
        kinds = {path.parent.name for path in (tmp_path / "own").rglob("*.evidence")}
        assert kinds == {"own", "access", "receipts"}
        with pytest.raises(VerificationError) as missing:
            checked(world, tmp_path / "own")
        assert missing.value.code == "verify.missing_access"

    play(story)


@pytest.mark.parametrize("name", ["hospital-1", "insurer", "researcher"])
def test_others_may_not_collect(play: Play, tmp_path: Path, name: str) -> None:
    async def story(world: Any) -> None:
        with pytest.raises(Refused) as refused:
            await exported(world, tmp_path / "evidence", by=name)
        assert refused.value.code == "organisations.role"
        assert not (tmp_path / "evidence").exists()
        # One that asks all the same is told no, by a gateway that shows it nothing.
        session = secrets.token_bytes(16)
        await world[name].send("hospital-2", session, EvidenceRequest(session))
        with pytest.raises(Refused):
            await collecting.answer(world["hospital-2"], name, session, Passing())
        _, told = await world[name].receive_answer(EvidencePart, session)
        assert isinstance(told, Refusal) and told.code == "organisations.role"
        # That it asked is known, and a verifier takes the entry.
        intent, outcome = world.entries("hospital-2")
        assert (intent.use.recipient, intent.use.kind, intent.use.rule) == (name, "evidence", "question")
        assert (intent.use.allowed, outcome.outcome) == (False, "denied")
        async with answering(world, ("regulator",)):
            await exported(world, tmp_path / "evidence")
        report = checked(world, tmp_path / "evidence")
        assert (report.verdict, [flow.outcome for flow in report.flows]) == ("verified", ["denied (question)"])

    play(story)


def test_a_request_of_another_session_is_refused(play: Play) -> None:
    async def story(world: Any) -> None:
        session = secrets.token_bytes(16)
        await world.regulator.send("hospital-2", session, EvidenceRequest(bytes(16)))
        with pytest.raises(ProtocolAbort) as abort:
            await collecting.answer(world["hospital-2"], "regulator", session, Passing())
        assert abort.value.code == "gateway.misdirected_request"
        assert world.ended("hospital-2") == ["denied"]

    play(story)


def test_the_ledger_is_in_memory_once_however_many_ask(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-2"]
        real, running, most = hospital.account.export, 0, [0]

        async def export() -> Any:
            nonlocal running
            running += 1
            most.append(running)
            await asyncio.sleep(0.05)
            running -= 1
            return await real()

        hospital.account.export = export
        found = await asyncio.gather(*(collecting.own_envelopes(hospital) for _ in range(8)))
        assert len(set(found)) == 1 and found[0] and most == [0, 1]
        await hospital.submit(RegisterPopulation("another", "row", 1, 1, ("hospital-2",)))
        later = await asyncio.gather(*(collecting.own_envelopes(hospital) for _ in range(8)))
        assert len(set(later)) == 1 and len(later[0]) == len(found[0]) + 1 and most == [0, 1, 1]

    play(story)


def test_a_denied_request_is_logged_once_wherever_it_is_cut(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital, logged = world["hospital-2"], 0

        async def cut_at(at: int) -> Cut:
            session = secrets.token_bytes(16)
            cut = Cut(hospital, at)
            await world.insurer.send("hospital-2", session, EvidenceRequest(session))
            with pytest.raises(Refused):
                await cut.run(lambda steps: collecting.answer(hospital, "insurer", session, steps))
            cut.heal()
            return cut

        points = len((await cut_at(NOWHERE)).cuts.passed)
        assert points >= 6
        for at in range(1, points + 1):
            await cut_at(at)
            logged = at + 1
        assert world.ended("hospital-2") == ["denied"] * logged

    play(story)


def test_members_that_do_not_answer_are_named(play: Play, tmp_path: Path) -> None:
    async def story(world: Any) -> None:
        await uses(world)
        world.deaf(2)
        async with answering(world, ("regulator", "insurer", "hospital-2")):
            made = await exported(world, tmp_path / "evidence")
        assert [(gap.organisation, gap.code) for gap in made.gaps] == [
            ("hospital-2", "channel.timeout"),
            ("insurer", "channel.timeout"),
        ]
        with pytest.raises(VerificationError) as missing:
            await anchor_audit(world["hospital-2"])
            async with answering(world, ("regulator", "hospital-2")):
                await exported(world, tmp_path / "again")
            checked(world, tmp_path / "again")
        assert missing.value.facts["organisation"] == "hospital-2"

    play(story)


async def lying(world: Any, folder: Path, change: Callable[[Evidence], Evidence | None]) -> Exported:
    """hospital-2 shows something else than it has, where `change` says so."""

    def altered(recipient: str, part: EvidencePart) -> EvidencePart:
        changed = change(part.evidence)
        return part if changed is None else msgspec.structs.replace(part, evidence=changed)

    world.alter(world["hospital-2"], EvidencePart, altered)
    async with answering(world, ("regulator",)):
        return await exported(world, folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda own, other: own.batches and Evidence(batches=()),
        lambda own, other: own.batches and Evidence(batches=other.batches),
        lambda own, other: own.batches and Evidence(batches=own.batches * 2),
        lambda own, other: own.batches and Evidence(batches=(msgspec.structs.replace(own.batches[0], head=bytes(32)),)),
        lambda own, other: own.receipts and Evidence(receipts=(spoiled(own.receipts[0]),)),
        lambda own, other: own.receipts and Evidence(receipts=own.receipts, batches=other.batches),
        lambda own, other: own.batches and Evidence(receipts=other.receipts, batches=own.batches),
        lambda own, other: own.batches and Evidence(releases=other.releases, batches=own.batches),
        lambda own, other: own.batches and Evidence(presentations=other.presentations, batches=own.batches),
        lambda own, other: own.batches and Evidence(models=other.models, batches=own.batches),
    ],
    ids=["no batches", "others' batches", "twice", "head", "receipt", "more", "early", "release", "proof", "model"],
)
def test_a_member_that_shows_what_does_not_hold_is_left_out(
    play: Play, build: Any, tmp_path: Path, change: Callable[[Evidence, Evidence], Any]
) -> None:
    async def story(world: Any) -> None:
        await uses(world)
        for name in ("hospital-1", "hospital-2"):
            await anchor_audit(world[name])
        release = msgspec.structs.replace(collecting.results(world.researcher).releases[0], rho_nano=1)
        proof = collecting.results(world.insurer).presentations[0]
        hospital = world["hospital-1"]
        receipts = await collecting.receipts_of(hospital, await collecting.own_envelopes(hospital))
        other = Evidence((release,), (proof,), (build()[0],), receipts, hospital.audit.batches())
        made = await lying(world, tmp_path / "evidence", lambda own: change(own, other) or None)
        assert [gap.organisation for gap in made.gaps] == ["hospital-2"]
        files = [path.name for path in (tmp_path / "evidence").rglob("*.evidence")]
        assert not any(name.startswith("hospital-2") for name in files)

    play(story)


def spoiled(receipt: Receipt) -> Receipt:
    return msgspec.structs.replace(receipt, block=msgspec.structs.replace(receipt.block, time=receipt.block.time + 1))


def test_evidence_without_end_is_given_up(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Any) -> None:
        monkeypatch.setattr(collecting, "MOST_PARTS", 5)
        hospital = world["hospital-2"]

        async def endless(steps: Any) -> None:
            _, session, _ = await anext(hospital.openings(EvidenceRequest))
            for _ in range(10):
                await hospital.send("regulator", session, EvidencePart(Evidence(), more=True))

        task = asyncio.create_task(endless(None))
        async with answering(world, ("regulator", "hospital-2")):
            made = await exported(world, tmp_path / "evidence")
        await task
        assert [(gap.organisation, gap.code) for gap in made.gaps] == [("hospital-2", "gateway.evidence_endless")]

    play(story)


def test_large_evidence_comes_in_parts(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Any) -> None:
        await uses(world)
        hospital = world["hospital-1"]
        for _ in range(20):
            trail = hospital.audit
            trail.outcome(trail.intent(Use("insurer", "x", "query", "HMB", "", bytes(32), False, "form")), "denied")
            await anchor_audit(hospital)
        whole = Evidence(batches=hospital.audit.batches())
        assert len(parts_of(whole)) == 1 and parts_of(Evidence()) == [Evidence()]
        monkeypatch.setattr(collecting, "PART_BYTES", 2000)
        parts = parts_of(whole)
        assert len(parts) > 5 and parts == parts_of(whole)
        joined = Evidence()
        for part in parts:
            assert len(encode(part)) < 3000 or len(part.batches) == 1
            joined = joined.joined(part)
        assert joined == whole
        carried: list[int] = []
        world.alter(hospital, EvidencePart, lambda recipient, part: carried.append(1) or part)
        async with answering(world, ("regulator",)):
            made = await exported(world, tmp_path / "evidence")
        assert len(carried) > 10 and made.gaps == ()
        assert checked(world, tmp_path / "evidence").verdict == "verified"

    play(story)


async def exported_with_a_cut(world: Any, folder: Path, name: str, at: int) -> Cut:
    """One export of the regulator; the flow at `name` is cut at its point `at`. Everything is checked."""
    cut = Cut(world[name], at)
    try:
        if name == "regulator":
            async with answering(world, ("regulator",)):
                made = await cut.run(lambda steps: exported(world, folder, steps))
        else:
            async with answering(world, ("regulator",), (name, cut.run)):
                made = await exported(world, folder)
    finally:
        cut.heal()
    where = cut.cuts.passed[at - 1] if at <= len(cut.cuts.passed) else "no cut"
    assert made.gaps == (), where
    assert checked(world, folder).verdict == "verified", where
    assert not list(folder.parent.glob(".*")), where
    return cut


@pytest.mark.parametrize("name", ["regulator", "hospital-2"])
@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.long)])
def test_the_folder_is_whole_whoever_is_killed(play: Play, tmp_path: Path, name: str, stride: int) -> None:
    async def story(world: Any) -> None:
        await uses(world)
        points = len((await exported_with_a_cut(world, tmp_path / "whole", name, NOWHERE)).cuts.passed)
        assert points >= 10
        for at in range(1, points + 1, stride):
            trail = world["hospital-2"].audit  # something new to anchor each time
            trail.outcome(trail.intent(Use("insurer", "x", "query", "HMB", "", bytes(32), False, "form")), "denied")
            await exported_with_a_cut(world, tmp_path / f"cut-{at}", name, at)

    play(story)


def test_an_export_that_was_put_in_its_place_ends_there(play: Play, tmp_path: Path) -> None:
    async def story(world: Any) -> None:
        steps = KeptSteps(Cuts())
        async with answering(world, ("regulator",)):
            made = await exported(world, tmp_path / "evidence", steps)
        assert await exported(world, tmp_path / "evidence", steps) == made

    play(story)


def test_a_disk_that_refuses_is_said_so(play: Play, tmp_path: Path) -> None:
    async def story(world: Any) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(Unavailable) as refused:
            await exported(world, tmp_path / "file" / "evidence", collect=False)
        assert refused.value.code == "gateway.evidence_unwritable"

    play(story)


def test_a_receipt_under_a_later_head_than_the_ledger_that_was_written_is_left_out(play: Any) -> None:
    """An export that was cut short has its ledger, and asks for receipts again: these may lead further by then."""

    async def story(world: Any) -> None:
        await world.grant_study()
        hospital = world["hospital-1"]
        receipt = hospital.account.receipts[0]
        size = parse_note(receipt.note).checkpoint.size
        mine = Evidence(receipts=(receipt,))
        for until, left in ((size, (receipt,)), (size + 5, (receipt,)), (size - 1, ())):
            assert _fitting(mine, {"hospital-1": mine}, hospital.account.state, until).receipts == left

    play(story)
