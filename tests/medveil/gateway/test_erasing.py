"""Erasures beside queries: all of a person or nothing; cut short and gone on with; the key epoch by its date."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

from medveil.gateway import erasing, use_state
from medveil.gateway.tables import VaultTables
from medveil.gateway.wallets import Wallets
from medveil.service.due_erasures import DueErasures
from medveil.service.logs import Vocabulary, make_log
from privacy.erasure import steps
from privacy.erasure.steps import DAY_MS
from privacy.grants.opt_outs import OptOut
from privacy.local import RowFilter
from privacy.predicate import Compare
from privacy.retention import ZONE
from wire.dates import day_at
from wire.errors import Unavailable

Play = Callable[[Callable[[Any], Any]], Any]
WANG = "wang-wu"
PEOPLE = [WANG, "li", WANG, "zhao", WANG]


def load(hospital: Any, at: int, copies: int = 40) -> None:
    """Visits of three people over two loads, some of Wang's under a duty, so that a plan erases and restricts."""
    until = [None, None, day_at(at, ZONE) + 30, None, None]
    table = pa.table({"cost": [1, 2, 3, 4, 5]})
    many = pa.concat_tables([table] * copies)
    hospital.vault.ingest("visits", many, persons=PEOPLE * copies, retain_until=until * copies)
    hospital.vault.ingest("visits", many, persons=PEOPLE * copies, retain_until=until * copies, append=True)


class Readers:
    """Threads that read a table over and over; what each saw of Wang."""

    def __init__(self, hospital: Any, tables: VaultTables, count: int = 3) -> None:
        self.seen: Counter[int] = Counter()
        self.failed: list[Exception] = []
        self._stop = threading.Event()
        self._hospital, self._tables = hospital, tables
        self._me = hospital.vault.person_id(WANG)
        reads = [self._snapshot, self._vault, self._engine]
        self._threads = [threading.Thread(target=self._run, args=(reads[n % 3],)) for n in range(count)]

    def _snapshot(self) -> int:
        table = self._tables.snapshots.table("visits", person_column="who")
        return table["who"].to_pylist().count(self._me)

    def _vault(self) -> int:
        table = self._hospital.vault.read("visits", person_column="who")
        return table["who"].to_pylist().count(self._me)

    def _engine(self) -> int:
        odd = RowFilter(Compare("cost", "ne", 2))
        records = self._tables.records("visits", ("cost",), odd, ())
        return len(self._tables.engine("visits", ())._table) - 160 if records else -1  # li and zhao have 160

    def _run(self, read: Callable[[], int]) -> None:
        while not self._stop.is_set():
            try:
                self.seen[read()] += 1
            except Unavailable:  # the dataset changed faster than it was copied
                pass
            except Exception as error:
                self.failed.append(error)
                return

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def test_readers_see_all_of_a_person_or_nothing(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital, at = world["hospital-1"], world.now()
        load(hospital, at)
        tables = world.tables(hospital)
        use_state.opt_out(hospital, "zhao", OptOut("use", "extract", 0))
        planned = erasing.plan(hospital, WANG, at)
        assert planned.plan.erase and planned.plan.restrict
        with Readers(hospital, tables) as readers:
            while sum(readers.seen.values()) < 6 and not readers.failed:
                await asyncio.sleep(0.01)
            slowly = lambda step: threading.Event().wait(0.05)  # noqa: E731 - time for readers at each step
            done = await asyncio.to_thread(
                erasing.apply, hospital, planned.name, world.now, snapshots=tables.snapshots, fault=slowly
            )
            before = sum(readers.seen.values())
            epoch = await asyncio.to_thread(erasing.rotate, hospital, world.now)
            while sum(readers.seen.values()) < before + 6 and not readers.failed:
                await asyncio.sleep(0.01)
        assert readers.failed == []
        assert set(readers.seen) == {0, 240}, readers.seen
        assert done.done and epoch > 1
        assert tables.snapshots.read("visits").num_rows == 160

    play(story)


def test_two_at_once_end_as_one(play: Play) -> None:
    """Two officers apply the same plan, a third asks for receipts: one intent and one outcome, no issue given twice."""

    async def story(world: Any) -> None:
        hospital, at = world["hospital-1"], world.now()
        load(hospital, at, copies=2)
        tables = world.tables(hospital)
        planned = erasing.plan(hospital, WANG, at)
        apply = [
            asyncio.to_thread(erasing.apply, hospital, planned.name, world.now, snapshots=tables.snapshots)
            for _ in range(4)
        ]
        assert len({one.done for one in await asyncio.gather(*apply)}) == 1
        entries = [entry for entry in hospital.audit.entries() if entry.use.kind == "erasure"]
        assert [entry.outcome for entry in entries] == ["", "done"]
        receipts = [asyncio.to_thread(erasing.receipt_of, hospital, planned.name, at) for _ in range(8)]
        assert sorted(one.issue for one in await asyncio.gather(*receipts)) == [*range(1, 9)]

    play(story)


def test_those_that_wait_for_their_turn_hold_no_thread(play: Play) -> None:
    """As many jobs as there are threads wait for one erasure that takes its time: the rest of the gateway goes on."""

    async def story(world: Any) -> None:
        hospital, at = world["hospital-1"], world.now()
        load(hospital, at, copies=1)
        snapshots = world.tables(hospital).snapshots
        planned = [erasing.plan(hospital, person, at).name for person in (WANG, "li", "zhao")]
        slow, begun = threading.Event(), threading.Event()
        refresh = snapshots.refresh

        def waiting(dataset: str) -> None:
            begun.set()
            slow.wait(60)
            refresh(dataset)

        snapshots.table("visits")
        snapshots.refresh = waiting
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(3))
        jobs = [
            asyncio.create_task(erasing.carry_out(hospital, name, world.now, snapshots, world.wallets))
            for name in [*planned] * 3
        ]
        await asyncio.to_thread(begun.wait, 60)
        try:
            assert await asyncio.wait_for(asyncio.to_thread(hospital.vault.count, "visits"), 20) == 4, (
                "Wang's are hidden"
            )
        finally:
            slow.set()
        done = await asyncio.gather(*jobs)
        assert all(one.done for one in done) and len({one.name for one in done}) == 3
        assert [key.state for key in hospital.vault.data_keys("visits")] == ["restricted"] * 2

    play(story)


def test_opt_outs_of_one_person_at_once_are_all_kept(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        said = [OptOut("recipient", f"university-{number}", 0) for number in range(8)]
        await asyncio.gather(*(asyncio.to_thread(use_state.opt_out, hospital, WANG, one) for one in said))
        assert set(use_state.opt_outs_of(hospital, WANG)) == set(said)

    play(story)


class Stopped(Exception):
    """A fault that a test set."""


def looking(hospital: Any, snapshots: Any, clock: Callable[[], int]) -> tuple[DueErasures, Callable[[], list[str]]]:
    """The gateway's looks, and the events that they logged."""
    written, vocabulary = io.BytesIO(), Vocabulary()
    vocabulary.add("erasures")
    log = make_log("hospital-1", vocabulary, clock, file=written)
    made = DueErasures(hospital, snapshots, Wallets(hospital), log=log, clock=clock)
    return made, lambda: [json.loads(line)["event"] for line in written.getvalue().splitlines()]


@pytest.mark.parametrize("where", ["intent", "restricted"])
def test_the_gateway_goes_on_with_what_was_cut_short(play: Play, where: str) -> None:
    async def story(world: Any) -> None:
        hospital, at = world["hospital-1"], world.now()
        load(hospital, at, copies=2)
        tables = world.tables(hospital)
        due, events = looking(hospital, tables.snapshots, world.now)
        planned = erasing.plan(hospital, WANG, at)
        await due.look()
        assert events() == [] and len(hospital.vault.keys_of(WANG)) == 8, "a plan that nobody applied stays one"

        def fault(step: str) -> None:
            if step == where:
                raise Stopped

        with pytest.raises(Stopped):
            erasing.apply(hospital, planned.name, world.now, snapshots=tables.snapshots, fault=fault)
        if where == "restricted":
            assert tables.engine("visits", ())._table.num_rows == 8, "nothing shows the person already"
        await due.look()
        assert events() == ["erasure.done"]
        (one,) = steps.erasures(hospital.vault)
        assert one.done and {key.state for key in hospital.vault.keys_of(WANG)} == {"restricted"}
        assert [entry.outcome for entry in hospital.audit.entries() if entry.use.kind == "erasure"] == ["", "done"]

    play(story)


def test_one_that_cannot_go_on_keeps_no_other_waiting(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Any) -> None:
        hospital, at = world["hospital-1"], world.now()
        load(hospital, at, copies=2)
        snapshots = world.tables(hospital).snapshots
        due, events = looking(hospital, snapshots, world.now)
        stuck, other = (erasing.plan(hospital, person, at) for person in (WANG, "li"))

        def fault(step: str) -> None:
            if step == "restricted":
                raise Stopped

        for one in (stuck, other):
            with pytest.raises(Stopped):
                erasing.apply(hospital, one.name, world.now, snapshots=snapshots, fault=fault)
        apply = erasing.apply

        def failing(organisation: Any, name: str, clock: Any, **others: Any) -> Any:
            if name == stuck.name:
                raise Unavailable("privacy.store_failed", path="vault", reason="no room", retry_after=1)
            return apply(organisation, name, clock, **others)

        with monkeypatch.context() as disk:
            disk.setattr(erasing, "apply", failing)
            disk.setattr(erasing, "rotation_due", failing_date)
            await due.look()
        assert sorted(events())[:1] == ["erasure.done"] and "part.failed" in events()
        assert not hospital.vault.keys_of("li") and hospital.vault.keys_of(WANG)
        await due.look()
        assert events().count("erasure.done") == 2

    play(story)


def failing_date(_: Any) -> int:
    raise Unavailable("privacy.store_failed", path="vault", reason="no room", retry_after=1)


def test_the_epoch_is_rotated_by_its_date_or_it_is_said(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Any) -> None:
        hospital, at = world["hospital-1"], world.now()
        load(hospital, at, copies=1)
        tables, clock = world.tables(hospital), [at]
        due, events = looking(hospital, tables.snapshots, lambda: clock[0])
        planned = erasing.plan(hospital, WANG, at, rotate_within=10 * DAY_MS)
        erasing.apply(hospital, planned.name, lambda: clock[0], snapshots=tables.snapshots)
        epochs = hospital.vault._opened.provider.epochs
        first = epochs()
        clock[0] = at + 9 * DAY_MS - 1
        await due.look()
        assert epochs() == first and events() == [] and await due.punctual()

        def away(*_: Any) -> int:
            raise Unavailable("privacy.store_in_use", path="x", retry_after=5)

        rotate = hospital.vault.rotate
        monkeypatch.setattr(hospital.vault, "rotate", away)
        clock[0] += 1
        await due.look()
        assert events() == ["part.failed"] and await due.punctual(), "there is a day left"
        clock[0] = at + 10 * DAY_MS
        await due.look()
        assert events()[1:] == ["part.failed", "keys.overdue"] and not await due.punctual()
        monkeypatch.setattr(hospital.vault, "rotate", rotate)
        await due.look()
        assert events()[3:] == ["keys.rotated"] and await due.punctual()
        assert epochs()[0] > first[-1] and erasing.rotation_due(hospital) == 0
        clock[0] = at + 40 * DAY_MS
        await due.look()
        await due.look()
        assert events()[4:] == ["erasure.due"], "said once: the duty to keep is over"

    play(story)


def test_a_home_that_has_not_caught_up_leaves_all_as_it_is(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital, at = world["hospital-1"], world.now()
        load(hospital, at, copies=1)
        planned = erasing.plan(hospital, WANG, at, rotate_within=1)
        erasing.apply(hospital, planned.name, world.now, snapshots=world.tables(hospital).snapshots)
        epochs = hospital.vault._opened.provider.epochs()
        log = make_log("hospital-1", Vocabulary(), world.now, file=io.BytesIO())
        waiting = [True]
        snapshots = world.tables(hospital).snapshots
        due = DueErasures(hospital, snapshots, world.wallets, log=log, clock=world.now, waiting=lambda: waiting[0])
        await due.look()
        assert hospital.vault._opened.provider.epochs() == epochs
        waiting.clear()
        waiting.append(False)
        await due.look()
        assert hospital.vault._opened.provider.epochs() != epochs

    play(story)
