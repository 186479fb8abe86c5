"""The step "At home" as the demo plays it: what leaves is what the plain table gives, and nothing else of anybody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.dataset import load_layout
from ledger.engines.clock import steady
from medveil.consortium import local_consortium
from medveil.demo import patients
from medveil.demo.at_home import DATASET, ERASURE, HOSPITAL, at_home
from medveil.demo.desk import LocalDesk
from medveil.demo.facts import AtHomeFacts
from medveil.demo.join_and_load import founders
from medveil.demo.narrator import Narrator
from medveil.demo.play import BUREAU, CHAIN, RECEIPTS, RESEARCHER, ZONE, Play, now, rand
from medveil.gateway.organisation import Organisation
from medveil.verification import verify
from privacy.erasure.receipt import ErasureReceipt
from wire import evidence

PEOPLE = patients.patients()


class Played:
    """What one run of the step came to. entries: of hospital and recipient, as (kind, dataset, outcome)."""

    facts: AtHomeFacts
    entries: dict[str, list[tuple[str, str, str]]]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []

    async def play(self) -> None:
        founded = local_consortium(self.folder, CHAIN, founders(3), BUREAU, ZONE, rand, now, steady=steady)
        async with founded as consortium:
            members, homes = consortium.organisations, consortium.homes
            desks = {name: LocalDesk(member, homes[name], now) for name, member in members.items()}
            carried, sites = consortium.post.carried, self.folder / "sites"
            data, layout = self.folder / "data", load_layout("randhie")
            play = Play(desks, consortium.trust, carried, Narrator(), self.folder, sites, data, layout)
            self.facts = await at_home(play)
            self.entries = {name: _ended(members[name]) for name in (HOSPITAL, RESEARCHER)}


def _ended(organisation: Organisation) -> list[tuple[str, str, str]]:
    trail = organisation.audit
    return [(one.use.kind, one.use.dataset, trail.ending(one.sequence)) for one in trail.entries() if not one.intent]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    played = Played(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Narrator, "say", lambda self, line, style="": played.said.append(line))
        asyncio.run(played.play())
    yield played


def test_the_copy_is_the_plain_table_without_whom_it_must_leave_out(played: Played) -> None:
    copy = played.facts.extract
    rows = patients.VISITS * len(PEOPLE)
    assert (copy.rows, copy.rows_after) == (rows, rows - patients.VISITS), "the patient who opted out is not in it"
    assert (copy.persons, copy.withheld) == (patients.RARE, patients.VISITS * patients.RARE)
    assert copy.received == copy.rows_after - copy.withheld
    (rare,) = copy.offending
    assert rare.values[-1].endswith("淳安县") and (rare.persons, rare.rows) == (3, 6)
    alike = Counter((one.identity[:10], int(one.identity[16]) % 2, one.department) for one in PEOPLE[1:])
    assert (copy.groups, min(alike.values())) == (len(alike), copy.persons)


def test_what_leaves_names_nobody(played: Played) -> None:
    copy = played.facts.extract
    assert copy.columns == {"charge": "as it is", "department": "as it is", "identity": "age band, sex, county"}
    assert copy.received_columns == ["charge", "department", "identity_age", "identity_sex", "identity_region"]
    charge, department, band, sex, county = copy.example
    of_band = {"40-49": "1980", "60-69": "1960"}[band]
    alike = [one for one in PEOPLE[1:] if one.identity[6:10] == of_band and one.department == department]
    assert float(charge) in {patients.charge(PEOPLE.index(one), visit) for one in alike for visit in range(2)}
    assert sex in ("female", "male") and county in ("浙江省杭州市桐庐县", "浙江省杭州市余杭县")


def test_what_the_officer_is_told(played: Played) -> None:
    facts = played.facts
    (may,), (may_zh,) = facts.explained, facts.explained_zh
    assert may.startswith(f"{RESEARCHER} may use {DATASET}") and "identity (age band, sex, county)" in may
    assert "Denied by rule level" in may and "按规则 level 拒绝" in may_zh
    few, revoked, closed = facts.refusals
    assert "fewer than 5 persons" in few and "Denied by rule revocation" in revoked and "was revoked" in closed
    assert facts.extract.recalled == "deleted"
    assert set(facts.explained + facts.explained_zh + [few]) - set(played.said) == {few}


def test_every_use_is_in_the_trails(played: Played) -> None:
    extracts = [outcome for kind, name, outcome in played.entries[HOSPITAL] if (kind, name) == ("extract", DATASET)]
    assert sorted(extracts) == ["denied", "released"], "a draft, and a copy that is refused for its risk, write nothing"
    assert ("erasure", DATASET, "done") in played.entries[HOSPITAL]
    assert [(kind, outcome) for kind, _, outcome in played.entries[RESEARCHER]] == [("opening", "done")]


def test_the_receipt_is_signed_and_nothing_is_left(played: Played) -> None:
    path = played.folder / RECEIPTS / ERASURE
    assert path.parent.stat().st_mode & 0o077 == 0
    receipt = evidence.read(path.read_bytes())
    assert isinstance(receipt, ErasureReceipt) and receipt.rotated and [one.rows for one in receipt.keys] == [2]
    assert [one.recipient for one in receipt.recipients if one.told and one.acknowledged] == [RESEARCHER]
    assert verify(path, trust=played.folder / "consortium.json").pinned
    gone = played.facts.erasure
    assert (gone.rows, gone.keys, gone.found, gone.told) == (2, 1, [], [RESEARCHER])
    assert gone.files > 10 and len(gone.beyond) == len(receipt.beyond)


def test_no_file_and_no_line_names_a_patient(played: Played) -> None:
    numbers = [one.identity for one in PEOPLE]
    said = "\n".join(played.said)
    assert not [one for one in numbers if one in said]
    assert not list((played.folder / "data").rglob("*.csv")), "the table is loaded, and gone"
    for path in played.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(one.encode() in content for one in numbers), path


def test_the_made_up_patients_are_valid_and_different() -> None:
    from stdnum.cn import ric

    assert all(ric.is_valid(one.identity) for one in PEOPLE) and len(set(PEOPLE)) == len(PEOPLE)
