"""kill -9 of a gateway in the job that erases a person: it goes on, and no reader ever sees some of the rows."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from medveil.gateway import erasing
from medveil.gateway.tables import snapshots_of
from medveil.gateway.wallets import Wallets
from privacy.erasure import steps
from privacy.retention import ZONE
from wire.dates import day_at

from .conftest import Consortium, now

_ROOT = Path(__file__).resolve().parents[3]
_SCRIPT = Path(__file__).with_name("erasing.py")
WANG, LI = "wang-wu", "li-si"


def prepare(consortium: Consortium) -> str:
    """Visits and bills of two people at the bureau, some of which must be kept, a wallet; an erasure planned."""
    with consortium.home("bureau") as home:
        vault, kept = home.organisation.vault, day_at(now(), ZONE) + 30
        visits = pa.table({"cost": [*range(40)]})
        vault.ingest("visits", visits, persons=[WANG, LI] * 20, retain_until=[None] * 30 + [kept] * 10)
        vault.ingest("visits", visits, persons=[WANG, LI] * 20, append=True)
        vault.ingest("bills", pa.table({"amount": [1, 2]}), persons=[WANG, LI], retain_until=kept)
        snapshots_of(home.organisation).refresh("visits")
        wallets = Wallets(home.organisation)
        wallets.of(WANG)
        wallets.close()
        return erasing.plan(home.organisation, WANG, now()).name


def run(consortium: Consortium, log: Path, erasure: str, stop: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_SCRIPT), str(consortium.folder / "bureau"), str(log), erasure, str(stop)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=_ROOT)


def check(consortium: Consortium, erasure: str, log: Path) -> None:
    """All of the person or nothing was seen; one intent and one outcome a table; a receipt that holds."""
    seen = {line for line in log.read_text().splitlines() if line.startswith("saw")}
    assert seen <= {"saw 0", "saw 40"}, seen
    with consortium.home("bureau") as home:
        organisation = home.organisation
        done = steps.erasure(organisation.vault, erasure)
        assert done.done and not steps.unfinished(organisation.vault, organisation.audit)
        kept = {(key.dataset, key.state) for key in organisation.vault.keys_of(WANG)}
        assert kept == {("visits", "restricted"), ("bills", "restricted")}
        entries = [entry for entry in organisation.audit.entries() if entry.use.kind == "erasure"]
        assert sorted((entry.use.dataset, entry.outcome) for entry in entries) == [
            ("bills", ""),
            ("bills", "done"),
            ("document.wallet", ""),
            ("document.wallet", "done"),
            ("visits", ""),
            ("visits", "done"),
        ]
        receipt = erasing.receipt_of(organisation, erasure, now())
        assert erasing.check(organisation, receipt, home.folder).leftovers == ()
        assert snapshots_of(organisation).table("visits").num_rows == 40
        assert not list((home.folder / "wallets").iterdir())


def campaign(consortium: Consortium, folder: Path, stops: list[int]) -> None:
    """Killed at each of these in turn, each time further on, then left alone."""
    erasure, log = prepare(consortium), folder / "log"
    for stop in stops:
        killed = run(consortium, log, erasure, stop)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = run(consortium, log, erasure, 0)
    assert last.returncode == 0, last.stderr
    assert "done" in log.read_text().splitlines(), log.read_text()
    check(consortium, erasure, log)


@pytest.mark.parametrize("stops", [[3, 5], [8, 2], [12], [15, 4], [18, 20]])
def test_killed_it_goes_on(consortium: Consortium, tmp_path: Path, stops: list[int]) -> None:
    campaign(consortium, tmp_path, stops)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_at_every_step(tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = tmp_path_factory.mktemp("whole")
    campaign(Consortium(whole), whole, [])
    count = int((whole / "log").read_text().split("steps ")[1].split()[0])
    assert count > 15
    for stop in range(1, count + 1):
        folder = tmp_path_factory.mktemp(str(stop))
        campaign(Consortium(folder), folder, [stop])
