"""A gateway whose home came back from a backup contradicts nothing that it said since, and says what it lost."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ledger.contracts import AnchorGrant
from ledger.contracts.grants import GrantState, grant_key
from ledger.export import EXPORT
from ledger.pieces import BLOCKS, write_whole
from ledger.replicas import FUTURE
from medveil.cli import app
from medveil.gateway.accounting import anchor_audit
from medveil.service.accounts.people import People
from medveil.service.gateway import Gateway
from medveil.service.home.backup import make_backup
from medveil.service.home.restore import Restored, read_mark, restore, write_mark
from medveil.service.home.returned import Return
from medveil.service.security import security_log
from medveil.service.work.job_tables import Job, JobStore, Secret
from privacy.audit import AccessBatch, Use
from wire.canonical import encode
from wire.errors import Refused, Unavailable, VerificationError
from wire.evidence import write_manifest

from .conftest import PASS, now

START = 1_700_000_000_000
USE = Use("regulator", "visits", "query", "HMB", "", b"", False, "no-grant")


def grant(name: str) -> AnchorGrant:
    return AnchorGrant(name.replace(" ", "-"), bytes(32), START, START + 10**12, 0)


async def back_up(gateway: Gateway, out: Path) -> None:
    await asyncio.to_thread(make_backup, gateway.home, out, now)


def bring_back(consortium: Any, name: str, out: Path, *, long_ago: bool = False) -> None:
    """The home is lost; the backup takes its place. long_ago: restored before what the others do from here on."""
    shutil.rmtree(consortium.folder / name)
    restore(out, consortium.folder / name, PASS, secrets.token_bytes, now)
    if long_ago:
        mark = read_mark(consortium.folder / name)
        assert mark is not None
        write_mark(consortium.folder / name, Restored(1, mark.backed_up, now() - FUTURE - 1000))


async def returned(gateway: Gateway) -> None:
    async with asyncio.timeout(30):
        while gateway.returning is not None:
            await asyncio.sleep(0.05)


def test_a_member_cosigns_nothing_until_the_others_have_gone_on(consortium: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with consortium.running() as gateways:
            await gateways["bureau"].account.submit(grant("before"))
            await back_up(gateways["insurer"], tmp_path / "out")
            await gateways["insurer"].account.submit(grant("after"))
            await gateways["insurer"].account.caught_up()
            signed = gateways["insurer"].account.replica.cosigned
            assert signed is not None
            await gateways["insurer"].stop()
            bring_back(consortium, "insurer", tmp_path / "out")
            insurer = await consortium.start("insurer")
            try:
                remembered = insurer.account.replica.cosigned
                assert remembered is None or remembered.checkpoint.size < signed.checkpoint.size
                for number in range(3):  # it writes, reads and follows meanwhile
                    await insurer.account.submit(grant(f"silent-{number}"))
                state = await insurer.account.caught_up()
                assert state.get(grant_key("after"), GrantState) is not None
                assert insurer.account.replica.silent and insurer.account.replica.cosigned == remembered
                with pytest.raises(Unavailable) as caught:
                    insurer.organisation.audit.intent(USE)
                assert caught.value.code == "restore.not_yet"
            finally:
                await insurer.stop()
            mark = read_mark(consortium.folder / "insurer")
            assert mark is not None and mark.settled
            write_mark(consortium.folder / "insurer", Restored(1, mark.backed_up, now() - FUTURE - 1000))
            insurer = await consortium.start("insurer")
            try:
                await gateways["bureau"].account.submit(grant("later"))
                await returned(insurer)
                await insurer.account.submit(grant("cosigned"))
                async with asyncio.timeout(20):
                    while (last := insurer.account.replica.cosigned) is None or last == remembered:
                        await asyncio.sleep(0.02)
                assert last.checkpoint.size > signed.checkpoint.size
                insurer.organisation.audit.intent(USE)
                assert read_mark(consortium.folder / "insurer") is None
            finally:
                await insurer.stop()

    asyncio.run(test())


@pytest.mark.parametrize("marked", [True, False])
def test_no_second_history_gets_its_cosignature(consortium: Any, tmp_path: Path, marked: bool) -> None:
    """A sequencer that forks, shown to a restored member alone. Unmarked, as a home copied by hand, it is taken in."""

    async def test() -> None:
        async with consortium.running() as gateways:
            await gateways["bureau"].account.submit(grant("before"))
            await asyncio.gather(*(gateway.account.caught_up() for gateway in gateways.values()))
            await back_up(gateways["insurer"], tmp_path / "out")
            await back_up(gateways["bureau"], tmp_path / "old")
            await gateways["bureau"].account.submit(grant("the history"))
            await gateways["insurer"].account.caught_up()
            first = gateways["insurer"].account.replica.cosigned
        bring_back(consortium, "insurer", tmp_path / "out")
        if not marked:
            (consortium.folder / "insurer" / "restored.json").unlink()
        shutil.rmtree(consortium.folder / "bureau")
        restore(tmp_path / "old", consortium.folder / "bureau", PASS, secrets.token_bytes, now, moved=True)
        bureau = await consortium.start("bureau")
        insurer = await consortium.start("insurer")
        try:
            writing = asyncio.create_task(bureau.account.submit(grant("another history")))
            async with asyncio.timeout(20):
                while insurer.account.replica.height < 2 or bureau.account.replica.height < 2:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            last = insurer.account.replica.cosigned
            assert first is not None
            contradicts = (
                last is not None
                and last.checkpoint.size == first.checkpoint.size
                and last.checkpoint.root != first.checkpoint.root
            )
            assert contradicts is not marked
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        finally:
            await insurer.stop()
            await bureau.stop()

    asyncio.run(test())


def test_a_sequencer_takes_back_what_it_had_shown(consortium: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with consortium.running() as gateways:
            await gateways["bureau"].account.submit(grant("before"))
            await back_up(gateways["bureau"], tmp_path / "out")
            for number in range(5):
                await gateways["insurer"].account.submit(grant(f"after-{number}"))
            await gateways["bureau"].account.submit(grant("its own"))
            height = gateways["bureau"].engine.machine.height  # type: ignore[attr-defined]
            await gateways["bureau"].stop()
            bring_back(consortium, "bureau", tmp_path / "out")
            bureau = await consortium.start("bureau")
            try:
                assert bureau.engine.machine.height == height  # type: ignore[attr-defined]
                await gateways["hospital-1"].account.submit(grant("next"))
                await bureau.account.submit(grant("its next"))
                for gateway in (*gateways.values(), bureau):
                    if gateway is gateways["bureau"]:
                        continue
                    state = await gateway.account.caught_up()
                    for name in ("before", "after-4", "its own", "next", "its next"):
                        assert state.get(grant_key(name.replace(" ", "-")), GrantState) is not None
                    assert await gateway.follows() and gateway.account.replica.split_view is None
                assert bureau.account.replica.silent
            finally:
                await bureau.stop()
            again = await consortium.start("bureau")  # it asks nobody twice
            await asyncio.sleep(0.5)
            await again.stop()

    asyncio.run(test())


def test_a_sequencer_that_is_shown_too_little_does_not_serve(
    consortium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer than k members, or a head without the blocks under it."""

    async def short(self: Return, path: Path, founding: Any, line_to: Any) -> None:
        await recover(self, path, founding, line_to, patience=1.0, grace=0.0)

    recover = Return.recover_ledger
    monkeypatch.setattr(Return, "recover_ledger", short)

    async def test() -> None:
        async with consortium.running() as gateways:
            await back_up(gateways["bureau"], tmp_path / "out")
            await gateways["insurer"].account.submit(grant("after"))
            await asyncio.gather(*(gateways[name].account.caught_up() for name in gateways))
            await gateways["bureau"].stop()
            bring_back(consortium, "bureau", tmp_path / "out")
            await gateways["insurer"].stop()
            with pytest.raises(Unavailable) as caught:
                await consortium.start("bureau")
            assert caught.value.code == "restore.heads_missing"
            assert (caught.value.facts["shown"], caught.value.facts["needed"]) == (2, 3)
            # Each has the note of its cosignature, but all of them lost the blocks.
            insurer = await consortium.start("insurer")
            try:
                for gateway in (gateways["hospital-1"], gateways["regulator"], insurer):
                    copy = gateway.engine._copy  # type: ignore[attr-defined]
                    copy._db.execute("DELETE FROM blocks")
                with pytest.raises(Unavailable) as caught:
                    await consortium.start("bureau")
                assert caught.value.code == "restore.blocks_missing"
            finally:
                await insurer.stop()

    asyncio.run(test())


def test_jobs_messages_and_sessions_of_the_backup_are_over(consortium: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with consortium.running() as gateways:
            insurer, session = gateways["insurer"], b"s" * 16
            store = JobStore(insurer.database)
            for number, state in enumerate(("running", "waiting", "done")):
                job = Job(f"{number:032}", "query.ask", "person:anna", "waiting", *(False, 1, 1, 0), *(None,) * 4, 0)
                store.add(job, Secret(b"sealed", b"seed"), f"key-{number}", 10)
                if state != "waiting":
                    store.begin(job.id, 2)
                    store.record(job.id, "drawn", b"sealed", 3)
                if state == "done":
                    store.end(job.id, 4, "done", b"asked", "/v1/queries/1")
            await gateways["hospital-1"].organisation.send("insurer", session, grant("unread"))
            async with asyncio.timeout(20):
                while await gateways["hospital-1"].post.waiting():
                    await asyncio.sleep(0.02)
            people = People(insurer.database, "insurer", clock=now, rand=secrets.token_bytes)
            invitation = people.invite_first_admin("root")
            await gateways["regulator"].stop()
            await insurer.organisation.send("regulator", session, grant("not carried yet"))
            await back_up(insurer, tmp_path / "out")
            await insurer.stop()
            bring_back(consortium, "insurer", tmp_path / "out")
            insurer = await consortium.start("insurer")
            try:
                store = JobStore(insurer.database)
                assert not list(store.unfinished())
                for number in (0, 1):
                    job = store.get(f"{number:032}")
                    assert job.state == "failed" and job.problem is not None
                    assert job.problem.code == "restore.job_ended" and store.secret(job.id) == Secret(b"", b"")
                    assert store.record_of(job.id, "drawn") is None
                assert store.get(f"{2:032}").state == "done"
                assert await insurer.post.waiting() == {}
                people = People(insurer.database, "insurer", clock=now, rand=secrets.token_bytes)
                with pytest.raises(Refused) as used:  # it may have been used since
                    people.accept(invitation, "seven wet lanterns hum")
                assert used.value.code == "accounts.no_invitation"
                with insurer.database.reading() as connection:
                    said = [entry.event for entry in security_log.read(connection)]
                assert {"tokens.all_revoked", "people.all_sessions_ended"} <= set(said)
                with pytest.raises(Unavailable):
                    await insurer.organisation.receive(AnchorGrant, session, timeout=0.3)
                # A job that is begun now is an ordinary one, also over a restart.
                job = Job(f"{3:032}", "query.ask", "person:anna", "waiting", *(False, 1, 1, 0), *(None,) * 4, 0)
                store.add(job, Secret(b"sealed", b"seed"), None, 10)
                await insurer.stop()  # at once: connections that are being made are cut in the middle
                insurer = await consortium.start("insurer")
                await asyncio.sleep(0.5)
                assert [one.id for one in JobStore(insurer.database).unfinished()] == [f"{3:032}"]
            finally:
                await insurer.stop()

    asyncio.run(test())


def test_an_audit_trail_that_is_shorter_than_anchored(consortium: Any, tmp_path: Path) -> None:
    """It is said, and no entry is written in the place of one that is lost; the newest file that exists mends it."""

    async def test() -> None:
        async with consortium.running() as gateways:
            hospital = gateways["hospital-1"]

            def use() -> None:
                trail = hospital.organisation.audit
                trail.outcome(trail.intent(USE), "denied")

            use()
            await anchor_audit(hospital.organisation)
            await back_up(hospital, tmp_path / "same")
            use()
            await anchor_audit(hospital.organisation)
            batches = hospital.organisation.audit.batches()
            await hospital.stop()
            shutil.copy(consortium.folder / "hospital-1" / "audit.sqlite", tmp_path / "newest.sqlite")
            bring_back(consortium, "hospital-1", tmp_path / "same", long_ago=True)
            hospital = await consortium.start("hospital-1")
            try:
                await gateways["bureau"].account.submit(grant("later"))
                await returned(hospital)
                assert hospital.organisation.audit.last == 2
                for _ in range(2):
                    with pytest.raises(Refused) as caught:
                        hospital.organisation.audit.intent(USE)
                    assert caught.value.code == "restore.audit_behind"
                    assert (caught.value.facts["last"], caught.value.facts["anchored"]) == (2, 4)
            finally:
                await hospital.stop()
            await _evidence(gateways["bureau"], batches, tmp_path / "evidence")
            restored = await asyncio.to_thread(_restore_trail, consortium.folder / "hospital-1", tmp_path / "evidence")
            assert restored == {"organisation": "hospital-1", "entries": 2, "last": 4}
            again = await asyncio.to_thread(_restore_trail, consortium.folder / "hospital-1", tmp_path / "evidence")
            assert again["entries"] == 0
            hospital = await consortium.start("hospital-1")
            try:
                await asyncio.sleep(0.5)
                use()
            finally:
                await hospital.stop()
            shutil.copy(tmp_path / "newest.sqlite", consortium.folder / "hospital-1" / "audit.sqlite")
            hospital = await consortium.start("hospital-1")
            try:
                await asyncio.sleep(0.5)
                use()
                await anchor_audit(hospital.organisation)
            finally:
                await hospital.stop()
            # A trail that is as long as the ledger's but another: told apart by its head.
            shutil.copy(tmp_path / "same" / "home" / "audit.sqlite", consortium.folder / "hospital-1" / "audit.sqlite")
            with consortium.home("hospital-1") as home:
                for _ in range(2):
                    home.organisation.audit.outcome(home.organisation.audit.intent(USE), "denied")
                home.organisation.audit.intent(USE)
                home.organisation.audit.intent(USE)
            hospital = await consortium.start("hospital-1")
            try:
                async with asyncio.timeout(20):
                    while hospital.organisation.audit._held is None:
                        await asyncio.sleep(0.05)
                with pytest.raises(VerificationError) as other_trail:
                    hospital.organisation.audit.intent(USE)
                assert other_trail.value.code == "restore.audit_other"
                await asyncio.sleep(0.5)  # connections that are being made are not cut in the middle
            finally:
                await hospital.stop()

    asyncio.run(test())


async def _evidence(bureau: Gateway, batches: tuple[AccessBatch, ...], folder: Path) -> None:
    """What the bureau holds of the hospital's trail, as a folder that verifies."""
    (folder / "access").mkdir(parents=True)
    main, *pieces = write_whole(folder / "ledger.evidence", await bureau.engine.export())
    kinds = {main.name: EXPORT.kind} | {piece.name: BLOCKS.kind for piece in pieces}
    for batch in batches:
        name = f"access/hospital-1-{batch.first}.evidence"
        (folder / name).write_bytes(encode(batch))
        kinds[name] = batch.header.kind
    write_manifest(folder, kinds, bureau.account.trust.chain, "bureau", now(), bureau.organisation.signer)


def _restore_trail(home: Path, evidence: Path) -> dict[str, Any]:
    file = home.parent / "passphrase"
    file.write_text(PASS)
    file.chmod(0o600)
    done = CliRunner().invoke(
        app, ["restore-trail", str(home), str(evidence), "--json"], env={"MEDVEIL_PASSPHRASE_FILE": str(file)}
    )
    assert done.exit_code == 0, (done.output, done.exception)
    return dict(json.loads(done.output))
