"""The old end of a trail goes when the law lets it, never before, and the rest still holds."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from privacy.audit import AuditTrail, Use, verify_batch, verify_chain
from privacy.audit.pruning import Periods, prunable, prune
from tests.privacy.audit.conftest import Clock
from wire.errors import MedveilError, Refused, VerificationError


def at(year: int, month: int, day: int, hour: int = 12) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp() * 1000)


def denied(use: Use) -> Use:
    return msgspec.structs.replace(use, allowed=False, rule="purpose")


def anchor(trail: AuditTrail) -> int:
    batch = trail.batch()
    assert batch is not None
    trail.anchored(batch)
    return batch.last


@pytest.fixture
def clock() -> Clock:
    return Clock(at(2020, 1, 31))


@pytest.fixture
def cut(trail: AuditTrail, clock: Clock, use: Use) -> int:
    """A denied use of January 2020, then one of March; returns where the first batch ends."""
    trail.outcome(trail.intent(denied(use), persons=[b"w" * 16]), "denied")
    end = anchor(trail)
    clock.now = at(2020, 3, 1)
    trail.outcome(trail.intent(use), "released")
    anchor(trail)
    return end


def test_logs_stay_for_six_months_by_calendar(trail: AuditTrail, cut: int) -> None:
    with pytest.raises(Refused) as raised:
        prune(trail, cut, at(2020, 7, 31))
    assert (raised.value.code, raised.value.facts) == ("privacy.audit_kept", {"sequence": 1, "until": "2020-07-31"})
    assert prunable(trail, at(2020, 7, 31, 15)) == 0  # 23:00 in the zone
    assert prunable(trail, at(2020, 7, 31, 16)) == cut == 2  # past midnight there
    assert prune(trail, cut, at(2020, 8, 1)) == 2
    assert [entry.sequence for entry in trail.entries()] == [3, 4, 5, 6]


def test_what_was_released_stays_for_three_years(trail: AuditTrail, clock: Clock, use: Use) -> None:
    trail.outcome(trail.intent(use), "released")
    end = anchor(trail)
    trail.intent(use)
    anchor(trail)
    assert prunable(trail, at(2023, 1, 31)) == 0 and prunable(trail, at(2023, 2, 1)) == end
    with pytest.raises(Refused) as raised:
        prune(trail, end, at(2023, 1, 31))
    assert raised.value.facts["until"] == "2023-01-31"
    longer = Periods(logs=12, shared=60)
    assert prunable(trail, at(2023, 2, 1), longer) == 0 and prunable(trail, at(2025, 2, 1), longer) == end
    for shorter in ({"logs": 5}, {"shared": 35}):
        with pytest.raises(ValueError, match="or longer"):
            Periods(**shorter)


def test_what_the_grants_terms_promise_is_kept(trail: AuditTrail, clock: Clock, use: Use) -> None:
    """Three years are the least: the terms may say more, of what was released under them."""
    trail.outcome(trail.intent(use), "released")
    end = anchor(trail)
    trail.intent(use)
    anchor(trail)
    promised = {use.grant: at(2025, 1, 1), "another": at(2099, 1, 1)}
    assert prunable(trail, at(2024, 12, 31), promised=promised) == 0
    with pytest.raises(Refused) as raised:
        prune(trail, end, at(2024, 12, 31), promised=promised)
    assert raised.value.facts == {"sequence": 1, "until": "2025-01-01"}
    assert prunable(trail, at(2023, 1, 31), promised={use.grant: 0}) == 0  # and never less than the law
    assert prunable(trail, at(2025, 1, 1), promised=promised) == end
    assert prune(trail, end, at(2025, 1, 1), promised=promised) == 2


def test_a_use_is_as_old_as_its_outcome(trail: AuditTrail, clock: Clock, use: Use) -> None:
    begun = trail.intent(use)
    first = anchor(trail)
    trail.outcome(trail.intent(denied(use)), "denied")
    second = anchor(trail)
    clock.now = at(2021, 1, 1)
    trail.outcome(begun, "aborted")
    third = anchor(trail)
    trail.intent(use)
    anchor(trail)
    for end in (first, second):
        with pytest.raises(Refused) as raised:
            prune(trail, end, at(2030, 1, 1))
        assert (raised.value.code, raised.value.facts) == ("privacy.audit_unfinished", {"sequence": begun})
    assert prunable(trail, at(2021, 7, 1)) == 0
    assert prunable(trail, at(2021, 7, 2)) == third
    assert prune(trail, third, at(2021, 7, 2)) == third


def test_only_where_an_anchored_batch_ends_and_never_the_newest(trail: AuditTrail, cut: int) -> None:
    far = at(2079, 1, 1)
    for last in (0, 1, 3, trail.last, trail.last + 1):
        with pytest.raises(Refused) as raised:
            prune(trail, last, far)
        assert raised.value.code == "privacy.audit_cut"
        with pytest.raises(ValueError, match="anchored"):
            trail.cut(last, far)
    assert prunable(trail, far) == cut
    assert trail.last == 4 and trail.pruned.last == 0


def test_the_rest_holds_together_and_goes_on(
    trail: AuditTrail, cut: int, use: Use, reopen: Callable[[], AuditTrail], tmp_path: Path
) -> None:
    head = trail.entries(cut, cut)[0].head()
    before = trail.batches()
    prune(trail, cut, at(2020, 8, 1))
    assert (trail.pruned.first, trail.pruned.last, trail.pruned.head) == (1, cut, head)
    assert trail.batches() == before[1:] and trail.waiting() == 2
    told = trail.entries()[2:]
    assert [(entry.use.kind, entry.use.query, entry.outcome) for entry in told] == [
        ("pruning", head, ""),
        ("pruning", head, "done"),
    ]
    trail.verify()
    anchor(trail)
    trail.close()
    with reopen() as again:
        assert again.verify() == verify_chain(again.entries(), head, cut + 1)
        for batch in again.batches():
            verify_batch(batch)
        assert again.batches()[0].previous_head == head
        assert again.intents("person", b"w" * 16) == ()
        assert again.ending(3) == "released"
        with pytest.raises(Refused):
            again.ending(1)
        again.outcome(again.intent(use), "released")
        assert prune(again, cut, at(2020, 8, 1)) == 0, "it is pruned"
    with sqlite3.connect(tmp_path / "audit.sqlite") as database:
        data = database.execute("SELECT COUNT(*) FROM touched").fetchone()
    database.close()
    assert data == (0,)
    files = b"".join(path.read_bytes() for path in tmp_path.glob("audit.sqlite*"))
    assert b"w" * 16 not in files


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE pruned SET head = zeroblob(32)",
        "UPDATE pruned SET last = 1",
        "UPDATE pruned SET last = 4",
        "DELETE FROM pruned",
        "DELETE FROM entries WHERE sequence = 3",
        "DELETE FROM uses WHERE sequence = 3",
        "UPDATE uses SET recipient = 'nobody' WHERE sequence = 3",
        "UPDATE uses SET grant_id = '' WHERE sequence = 3",
    ],
)
def test_no_other_beginning_passes(
    statement: str, trail: AuditTrail, cut: int, reopen: Callable[[], AuditTrail], tmp_path: Path
) -> None:
    prune(trail, cut, at(2020, 8, 1))
    trail.close()
    with sqlite3.connect(tmp_path / "audit.sqlite") as database:
        assert database.execute(statement).rowcount == 1
    database.close()
    with pytest.raises(MedveilError) as raised, reopen() as again:
        again.verify()
    assert isinstance(raised.value, VerificationError)


_KILLED = """
import os, signal, sys
from pathlib import Path
from privacy.audit import AuditTrail
from privacy.audit.file import TrailFile
from privacy.audit.pruning import prune
stop = int(sys.argv[2])
count = 0
run = TrailFile.transaction
from contextlib import contextmanager
@contextmanager
def counted(self):
    global count
    count += 1
    with run(self) as database:
        yield database
        if count == stop and sys.argv[4] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
    if count == stop:
        os.kill(os.getpid(), signal.SIGKILL)
TrailFile.transaction = counted
trail = AuditTrail(Path(sys.argv[1]), "hospital-1", clock=lambda: int(sys.argv[3]))
prune(trail, 2, int(sys.argv[3]))
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_killed_at_every_write_it_goes_on(
    stop: int, when: str, trail: AuditTrail, cut: int, clock: Clock, reopen: Callable[[], AuditTrail], tmp_path: Path
) -> None:
    trail.close()
    now = clock.now = at(2020, 8, 1)
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "audit.sqlite"), str(stop), str(now), when]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ))
    assert run.returncode == -signal.SIGKILL, run.stderr
    with reopen() as again:
        again.verify()
        prune(again, cut, now)
        assert (again.pruned.last, again.unfinished()) == (cut, ())
        pruned: list[Any] = [entry for entry in again.entries() if entry.use.kind == "pruning"]
        assert [entry.outcome for entry in pruned] == ["", "done"]
        again.verify()
