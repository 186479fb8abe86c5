"""An erasure from the plan to its outcome: what goes, what stays out of sight, and what a crash leaves."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from privacy.audit.views import of_person
from privacy.erasure import steps as erasure
from privacy.erasure.check import check_erasure
from privacy.erasure.plan import plan_erasure
from privacy.erasure.steps import note_rotation, rotation_due, tombstone, unfinished
from privacy.keys import FileKeyProvider
from privacy.legal_holds import LegalHold, all_holds, lift_hold, place_hold
from tests.privacy.erasure.conftest import LI, SOON, TODAY, WANG, Home, opened
from wire.dates import NO_END
from wire.errors import MedveilError, Refused, Unavailable
from wire.signing import Signer

STEPS = [
    "begun",
    "intent",
    "intent",
    "traces",
    "marks",
    "restrict",
    "restricted",
    "marked",
    "destroy",
    "destroyed",
    "recut",
    "recut kept",
    "recut",
    "recut kept",
    "given",
    "outcome",
    "outcome",
    "done",
]


class Stopped(Exception):
    """A fault that a test set."""


def test_what_no_duty_keeps_goes_and_the_rest_is_out_of_sight(home: Home) -> None:
    assert home.rows(WANG) == {"visits": 6, "bills": 2}
    keys = home.vault.keys_of(WANG)
    planned = home.plan()
    assert sum(one.rows for one in planned.plan.erase) == 5 and sum(one.rows for one in planned.plan.restrict) == 3
    assert home.rows(WANG) == {"visits": 6, "bills": 2}, "a plan changes nothing"
    steps: list[str] = []
    done = home.apply(planned.name, steps.append)
    assert steps == STEPS
    assert home.rows(WANG) == {"visits": 0, "bills": 0} and home.rows(LI) == {"visits": 1, "bills": 1}
    left = home.vault.keys_of(WANG)
    assert {(one.dataset, one.rows, one.retain_until, one.state) for one in left} == {
        ("visits", 1, SOON, "restricted"),
        ("bills", 2, SOON, "restricted"),
    }
    gone = {one.key for one in keys} - {one.key for one in left}
    assert gone == {one.key for one in done.plan.erase}
    assert {(one.key, one.receipt) for one in home.vault.erasures()} == {
        (key, tombstone(done.plan.erasure)) for key in gone
    }
    me = home.vault.person_id(WANG)
    assert home.cuts == [("bills", me), ("visits", me)]
    assert [given.recipient for given in done.given] == ["university"]
    assert [(entry.use.kind, entry.use.dataset, entry.outcome) for entry in home.trail.entries()] == [
        ("erasure", "bills", ""),
        ("erasure", "visits", ""),
        ("erasure", "bills", "done"),
        ("erasure", "visits", "done"),
    ]
    seen = of_person(home.trail, me, (), lambda dataset, grant: None)
    assert [(one.intent.use.dataset, one.outcome) for one in seen.noted] == [("bills", "done"), ("visits", "done")]
    assert home.apply(planned.name) == done and unfinished(home.vault, home.trail) == ()
    assert len(home.trail.entries()) == 4


def test_restricted_rows_go_when_their_time_has_come(home: Home) -> None:
    first = home.apply(home.plan().name)
    me = home.vault.person_id(WANG)
    keys = home.vault.keys_of(WANG)
    later = plan_erasure(b"l" * 16, "hospital-1", me, keys, (), SOON + 1, "retention-over", first.plan.erasure)
    assert later.restrict == () and sum(one.rows for one in later.erase) == 3
    done = home.apply(erasure.begin(home.vault, later, home.clock()).name)
    assert done.plan.follows == first.plan.erasure
    assert home.vault.keys_of(WANG) == () and home.rows(LI) == {"visits": 1, "bills": 1}


def test_a_hold_keeps_what_could_go_also_one_that_comes_after_the_plan(home: Home) -> None:
    planned = home.plan()
    assert len(planned.plan.erase) == 2
    place_hold(home.vault, LegalHold("case-7", b"", "visits", "court/7", TODAY, NO_END))
    done = home.apply(planned.name)
    assert done.plan.erase == () and {one.why for one in done.plan.restrict} == {("hold",), ("retention",)}
    assert home.vault.erasures() == () and home.rows(WANG) == {"visits": 0, "bills": 0}
    lift_hold(home.vault, "case-7", TODAY)
    again = home.plan(number=2)
    assert sum(one.rows for one in again.plan.erase) == 5
    home.apply(again.name)
    assert len(home.vault.keys_of(WANG)) == 2


def stopped_at(home: Home, name: str, step: str) -> None:
    def fault(reached: str) -> None:
        if reached == step:
            raise Stopped

    with pytest.raises(Stopped):
        home.apply(name, fault)


def test_a_plan_that_lacks_rows_is_refused_before_anything_is_written(home: Home) -> None:
    planned = home.plan()
    home.vault.ingest("letters", pa.table({"n": [1, 2, 3]}), persons=[WANG, LI, WANG])
    with pytest.raises(Refused) as raised:
        home.apply(planned.name)
    assert raised.value.code == "privacy.erasure_stale"
    assert raised.value.facts == {"erasure": planned.name, "rows": 2, "datasets": "letters"}
    assert home.trail.entries() == () and home.rows(WANG) == {"visits": 6, "bills": 2}
    assert erasure.erasure(home.vault, planned.name) == planned and unfinished(home.vault, home.trail) == ()
    assert erasure.unplanned(home.vault, planned) == 2
    done = home.apply(home.plan(number=2).name)
    assert done.plan.datasets == ("bills", "letters", "visits") and erasure.unplanned(home.vault, done) == 0


def test_what_a_killed_process_began_of_a_plan_that_lacks_rows_has_failed(home: Home) -> None:
    planned = home.plan()
    stopped_at(home, planned.name, "intent")
    assert [one.name for one in unfinished(home.vault, home.trail)] == [planned.name]
    home.vault.ingest("letters", pa.table({"n": [1]}), persons=[WANG])
    for _ in range(2):
        with pytest.raises(Refused) as raised:
            home.apply(planned.name)
        assert raised.value.code == "privacy.erasure_stale"
    assert [entry.outcome for entry in home.trail.entries()] == ["", "failed"]
    assert home.trail.unfinished() == () and unfinished(home.vault, home.trail) == ()


@pytest.mark.parametrize("step", ["traces", "restricted", "destroy", "given"])
def test_rows_that_come_while_it_runs_are_said(home: Home, step: str) -> None:
    def loaded(reached: str) -> None:
        if reached == step:
            home.vault.ingest("letters", pa.table({"n": [1, 2]}), persons=[WANG, WANG])

    done = home.apply(home.plan().name, loaded)
    assert done.done and home.rows(WANG) == {"visits": 0, "bills": 0}
    assert erasure.unplanned(home.vault, done) == 2
    assert home.apply(done.name) == done, "what was done stays done"


def test_what_is_due_is_of_those_keys_alone(home: Home) -> None:
    first = home.apply(home.plan().name)
    home.vault.ingest("letters", pa.table({"n": [1]}), persons=[WANG])
    me = home.vault.person_id(WANG)
    restricted = {one.key for one in first.plan.restrict}
    keys = [key for key in home.vault.keys_of(me) if key.key in restricted]
    later = plan_erasure(b"l" * 16, "hospital-1", me, keys, (), SOON + 1, "retention-over", first.plan.erasure)
    assert home.apply(erasure.begin(home.vault, later, home.clock()).name).done
    assert [key.dataset for key in home.vault.keys_of(me)] == ["letters"]


@pytest.mark.parametrize("late", [False, True])
def test_a_hold_in_the_moment_in_which_keys_are_destroyed_comes_first_or_is_refused(home: Home, late: bool) -> None:
    """One of both comes first: the hold is found and keeps the keys, or there is nobody left for it to hold."""
    home.vault.ingest("letters", pa.table({"n": [1]}), persons=["chen"])
    planned = home.plan("chen")
    hold = LegalHold("case-7", home.vault.person_id("chen"), "", "court/7", TODAY, NO_END)
    ended: list[str] = []

    def placing() -> None:
        try:
            place_hold(home.vault, hold)
            ended.append("placed")
        except Refused as error:
            ended.append(error.code)

    officer = threading.Thread(target=placing)

    def fault(step: str) -> None:
        if step == ("marked" if late else "restricted"):  # holds were looked at, and the keys are there
            officer.start()
            officer.join(0.5 if late else 30)
            assert bool(ended) is not late

    home.apply(planned.name, fault)
    officer.join(30)
    assert ended == (["privacy.hold_nobody"] if late else ["placed"])
    assert len(home.vault.keys_of("chen")) == (0 if late else 1)
    assert [one.hold for one in all_holds(home.vault)] == ([] if late else ["case-7"])


def test_a_hold_that_comes_between_two_attempts_keeps_what_is_still_there(home: Home) -> None:
    planned = home.plan()
    stopped_at(home, planned.name, "marks")
    place_hold(home.vault, LegalHold("case-7", b"", "visits", "court/7", TODAY, NO_END))
    done = home.apply(planned.name)
    assert home.vault.erasures() == () and done.plan.erase == done.marks == ()
    assert home.rows(WANG) == {"visits": 0, "bills": 0} and len(home.vault.keys_of(WANG)) == 4


@pytest.mark.parametrize("where", ["vault", "steps"])
def test_a_hold_that_comes_after_the_keys_went_keeps_nothing(home: Home, where: str) -> None:
    """Nor what the register has been told: that goes at the latest when the vault is opened again."""
    planned = home.plan()
    if where == "steps":
        stopped_at(home, planned.name, "destroy")
    else:

        def full(place: str) -> None:
            if place == "destroy:begun":
                raise Unavailable("database.full", place="disk", retry_after=60)

        home.vault._opened.fault = full
        with pytest.raises(Unavailable):
            home.apply(planned.name)
        home.vault._opened.fault = lambda _place: None
        assert home.vault.erasures() == () and len(home.vault.register.entries()) == 2
    place_hold(home.vault, LegalHold("case-7", b"", "visits", "court/7", TODAY, NO_END))
    done = home.apply(planned.name)
    assert len(home.vault.erasures()) == len(done.plan.erase) == 2 and all(done.marks)
    assert {one.why for one in done.plan.restrict} == {("retention",)}


def test_marks_are_of_the_wraps_that_are_destroyed(home: Home) -> None:
    """A rotation between two attempts wraps them again: a check has to look for those."""
    planned = home.plan()
    stopped_at(home, planned.name, "marks")
    home.vault.rotate()
    last = home.vault.marks([one.key for one in planned.plan.erase])
    done = home.apply(planned.name)
    used = [mark[:16] for mark in done.marks]
    assert dict(zip((one.key for one in done.plan.erase), used, strict=True)) == last
    assert all(len(mark) == 32 for mark in done.marks), "and of the wraps as they were restricted, just before"


@pytest.mark.parametrize("reference", ["r" * 201, "\udcff"])
def test_a_reference_that_would_not_be_read_again_is_refused(home: Home, reference: str) -> None:
    made = home.plan().plan
    other = msgspec.structs.replace(made, erasure=b"o" * 16)
    with pytest.raises(Refused) as raised:
        erasure.begin(home.vault, other, home.clock(), reference)
    assert raised.value.code == "privacy.erasure_form"
    assert [one.plan for one in erasure.erasures(home.vault)] == [made]


def test_nothing_is_held_of_a_stranger(home: Home) -> None:
    with pytest.raises(Refused) as raised:
        home.plan("nobody")
    assert raised.value.code == "privacy.nothing_to_erase"
    with pytest.raises(Refused) as unknown:
        home.apply("00" * 16)
    assert unknown.value.code == "privacy.no_erasure"
    made = home.plan()
    assert home.plan() == made
    with pytest.raises(Refused) as other:
        home.plan(LI)
    assert other.value.code == "privacy.erasure_exists"


def test_rows_that_come_after_keys_went_do_not_stop_it_after_a_restore(home: Home) -> None:
    planned = home.plan()
    stopped_at(home, planned.name, "destroy")
    home.vault.ingest("letters", pa.table({"n": [1]}), persons=[WANG])
    erasure.restored(home.vault, rotate_again=False)
    done = home.apply(planned.name)
    assert done.done and home.rows(WANG) == {"visits": 0, "bills": 0}
    assert [entry.outcome for entry in home.trail.entries()] == ["", "", "done", "done"]
    assert erasure.unplanned(home.vault, done) == 1


def test_no_log_no_erasure(home: Home) -> None:
    planned = home.plan()
    home.trail.hold(lambda: Unavailable("privacy.store_in_use", path="x", retry_after=5))
    with pytest.raises(Unavailable):
        home.apply(planned.name)
    assert home.rows(WANG) == {"visits": 6, "bills": 2} and home.vault.erasures() == ()
    home.trail.hold(None)
    home.apply(planned.name)
    assert home.rows(WANG) == {"visits": 0, "bills": 0}


@pytest.mark.parametrize("stop", range(len(STEPS)))
def test_stopped_after_any_step_it_goes_on(stop: int, home: Home) -> None:
    planned = home.plan()
    steps: list[str] = []

    def fault(step: str) -> None:
        steps.append(step)
        if len(steps) == stop + 1:
            raise Stopped

    with pytest.raises(Stopped):
        home.apply(planned.name, fault)
    assert steps == STEPS[: stop + 1]
    waiting = [one.name for one in unfinished(home.vault, home.trail)]
    assert waiting == ([planned.name] if stop < len(STEPS) - 1 else [])
    check_whole(home)


def test_a_read_shows_all_of_the_person_or_nothing(home: Home) -> None:
    """Whatever step it is at, and whatever it does in between: within a dataset never some of the rows."""
    seen: list[tuple[str, dict[str, int]]] = []
    write = home.vault._opened.fault

    def look(step: str) -> None:
        if not step.startswith("destroy:"):  # a writer that is inside its transaction
            seen.append((step, home.rows(WANG)))

    home.vault._opened.fault = look
    home.apply(home.plan().name, look)
    home.vault._opened.fault = write
    whole, nothing = {"visits": 6, "bills": 2}, {"visits": 0, "bills": 0}
    assert [rows for _, rows in seen if rows not in (whole, nothing)] == []
    assert next(step for step, rows in seen if rows == nothing) == "restrict"
    assert len(seen) > len(STEPS)


def test_both_wraps_of_a_destroyed_key_are_looked_for(home: Home, tmp_path: Path) -> None:
    keys = [one.key for one in home.vault.keys_of(WANG) if one.dataset == "visits"]
    before = home.vault.marks(keys)
    hidden: dict[bytes, bytes] = {}

    def look(step: str) -> None:
        if step == "restricted":
            hidden.update(home.vault.marks(keys))

    done = home.apply(home.plan().name, look)
    made = erasure.receipt(home.vault, done.name, Signer(bytes(32)), home.clock())
    for one in made.keys:
        assert one.marks == (before[one.key], hidden[one.key]) and before[one.key] != hidden[one.key]
        for mark in one.marks:
            spilled = tmp_path / "spill"
            spilled.write_bytes(b"..." + mark + b"...")
            report = check_erasure(made, home.vault, [spilled])
            assert [left.code for left in report.leftovers] == ["privacy.leftover_wrap"]
    assert check_erasure(made, home.vault, [home.folder / "vault" / "vault.sqlite"]).leftovers == ()


def check_whole(home: Home) -> None:
    """Carried on, it ends as one that was never stopped: one intent and one outcome for each dataset."""
    (one,) = erasure.erasures(home.vault)
    done = home.apply(one.name)
    assert done.done and home.rows(WANG) == {"visits": 0, "bills": 0} and home.rows(LI) == {"visits": 1, "bills": 1}
    assert {(key.dataset, key.rows, key.state) for key in home.vault.keys_of(WANG)} == {
        ("visits", 1, "restricted"),
        ("bills", 2, "restricted"),
    }
    assert len(home.vault.erasures()) == len(done.plan.erase) == 2
    assert all(done.marks) and len(done.marks) == 2
    assert sorted(entry.outcome for entry in home.trail.entries()) == ["", "", "done", "done"]
    assert done.recut == ("bills", "visits") and done.recut_at
    assert unfinished(home.vault, home.trail) == () and home.trail.unfinished() == ()


_KILLED = """
import os, signal, sys
from pathlib import Path
from privacy.keys import Argon2Cost, FileKeyProvider
from tests.privacy.erasure.conftest import opened
folder, stop = Path(sys.argv[1]), int(sys.argv[2])
home = opened(folder, FileKeyProvider(folder / "keys", "correct horse"))
writes = 0
def fault(step):
    global writes
    writes += 1
    if writes == stop:
        os.kill(os.getpid(), signal.SIGKILL)
home.vault._opened.fault = fault
home.apply("01" * 16, fault)
print(writes, flush=True)
"""


def killed(folder: Path, stop: int) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", _KILLED, str(folder), str(stop)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=root)


@pytest.fixture
def closed(home: Home) -> Path:
    home.plan()
    home.vault.close()
    home.trail.close()
    return home.folder


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 8, 13, 17, 21, 25])
def test_killed_at_a_write_it_goes_on(stop: int, closed: Path, provider: FileKeyProvider) -> None:
    run = killed(closed, stop)
    assert run.returncode == -signal.SIGKILL, run.stderr
    again = opened(closed, provider)
    try:
        check_whole(again)
    finally:
        again.vault.close()
        again.trail.close()


@pytest.mark.long
def test_killed_at_every_write_it_goes_on(
    closed: Path, provider: FileKeyProvider, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copies = tmp_path_factory.mktemp("copies")
    whole = killed(Path(shutil.copytree(closed, copies / "whole")), 0)
    count = int(whole.stdout)
    assert count > 25
    for stop in range(1, count + 1):
        copy = Path(shutil.copytree(closed, copies / str(stop)))
        assert killed(copy, stop).returncode == -signal.SIGKILL
        again = opened(copy, provider)
        check_whole(again)
        again.vault.close()
        again.trail.close()


def test_rotation_is_due_and_noted(home: Home) -> None:
    assert rotation_due(home.vault) == 0
    first = home.apply(home.plan().name)
    assert rotation_due(home.vault) == first.rotate_by == first.requested + erasure.ROTATE_WITHIN
    assert note_rotation(home.vault, first.destroyed - 1, home.clock()) == 0, "it began before the keys were destroyed"
    began = home.clock()
    home.vault.rotate()
    assert note_rotation(home.vault, began, home.clock()) == 1
    assert rotation_due(home.vault) == 0
    assert erasure.erasure(home.vault, first.name).rotated > began
    assert home.rows(LI) == {"visits": 1, "bills": 1}


def test_what_cannot_be_done_now_is_done_later(home: Home) -> None:
    planned = home.plan()

    def refusing(dataset: str, persons: object) -> None:
        raise Unavailable("privacy.store_in_use", path=dataset, retry_after=5)

    with pytest.raises(MedveilError):
        erasure.apply(home.vault, home.trail, planned.name, home.clock, recut=refusing, given=home.given)
    assert [one.name for one in unfinished(home.vault, home.trail)] == [planned.name]
    check_whole(home)


def test_an_erasure_looks_at_no_other(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """To list them each is unsealed, which a token does one after the other."""
    listed, documents = [], home.vault.documents

    def listing(kind: str) -> tuple[str, ...]:
        listed.append(kind)
        return documents(kind)

    monkeypatch.setattr(home.vault, "documents", listing)
    made = home.apply(home.plan().name)
    assert made.done and erasure.erasure(home.vault, made.name) == made
    assert not {erasure.KIND, erasure.BEGUN} & set(listed)
