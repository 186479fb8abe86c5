"""One person at a running gateway: what they do not want, who used and gets at their data, their erasure, holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from service.staffed import KEY
from service.working import now

from medveil.client import Client, Program
from medveil.gateway import granting
from privacy.erasure.receipt import ErasureReceipt
from privacy.retention import ZONE
from wire.canonical import decode, encode
from wire.dates import day_at
from wire.errors import MedveilError, Refused

from .world import DAY, World, terms

WANG, LI = "wang-wu-110101199003074518", "li-si-220202198811120011"
TODAY = day_at(now(), ZONE)


@pytest.fixture(scope="module")
def hospital(world: World) -> Any:
    """Hospital 1 with a table of two people, of which bills must be kept."""
    organisation = world.consorted.consortium["hospital-1"]
    visits = pa.table({"cost": [10, 20, 30, 40], "ward": ["east", "west", "east", "east"]})
    organisation.vault.ingest("visits", visits, persons=[WANG, WANG, LI, "zhao"])
    invoices = pa.table({"amount": [1, 2]})
    organisation.vault.ingest("invoices", invoices, persons=[WANG, LI], retain_until=TODAY + 400)
    return organisation


@pytest.fixture
def officer(world: World, hospital: Any) -> Iterator[Client]:
    with world.client("hospital-1", "officer") as client:
        yield client


def test_every_kind_of_opt_out_is_taken_down_and_withdrawn(officer: Client, world: World, hospital: Any) -> None:
    assert officer.opt_outs.of(WANG).opt_outs == () and officer.opt_outs.of(WANG).known
    assert not officer.opt_outs.of("nobody").known
    later = now() + DAY
    (general,) = officer.opt_outs.add(WANG, "all").opt_outs
    assert general.in_force and general.until is None and "treatment" in general.words
    assert "statutory duty" in general.words and WANG not in general.words
    assert officer.opt_outs.add(WANG, "all").opt_outs == (general,), "sent again, it is the one that stands"
    officer.opt_outs.add(WANG, "purpose", "HRESCH", since=later, until=later + DAY)
    officer.opt_outs.add(WANG, "recipient", "researcher-1")
    found = officer.opt_outs.add(WANG, "use", "extract")
    assert [(one.scope, one.value, one.in_force) for one in found.opt_outs] == [
        ("all", "", True),
        ("purpose", "HRESCH", False),
        ("recipient", "researcher-1", True),
        ("use", "extract", True),
    ]
    officer.opt_outs.add(LI, "use", "extract")
    scopes = {(one.scope, one.value): one.persons for one in officer.opt_outs.list().scopes}
    assert scopes == {("all", ""): 1, ("recipient", "researcher-1"): 1, ("use", "extract"): 2}
    with world.client("hospital-1", "officer", language="zh") as chinese:
        assert "法定义务" in chinese.opt_outs.of(WANG).opt_outs[0].words
    for scope, value in (("all", ""), ("recipient", "researcher-1"), ("use", "extract"), ("purpose", "HRESCH")):
        officer.opt_outs.withdraw(WANG, scope, value)
    assert not any(one.in_force for one in officer.opt_outs.of(WANG).opt_outs)
    assert {one.scope for one in officer.opt_outs.of(WANG).opt_outs} == {"all", "recipient", "use"}
    with pytest.raises(Refused) as gone:
        officer.opt_outs.withdraw(WANG, "all")
    assert gone.value.code == "gateway.no_opt_out"
    officer.opt_outs.withdraw(LI, "use", "extract")
    assert officer.opt_outs.list().scopes == ()


def test_a_program_that_reads_opt_outs_does_not_learn_who_is_a_patient(world: World, hospital: Any) -> None:
    service = world.services["hospital-1"]
    for scopes, known in ((("opt-outs.read",), [None, None]), (("opt-outs.read", "opt-outs.manage"), [True, False])):
        secret, _ = service.token("officer", scopes)
        with Client(service.address, Program(secret, KEY), trust=world.trust, clock=service.clock) as program:
            assert [program.opt_outs.of(person).known for person in (WANG, "nobody")] == known


@pytest.mark.parametrize(
    ("scope", "value"),
    [("all", "HMB"), ("purpose", "NOPE"), ("purpose", ""), ("recipient", "No Name"), ("use", "reading"), ("some", "")],
)
def test_what_is_no_opt_out(officer: Client, scope: str, value: str) -> None:
    with pytest.raises(MedveilError) as raised:
        officer.opt_outs.add(LI, scope, value)
    assert LI not in raised.value.text()
    assert officer.opt_outs.list().scopes == ()


@pytest.mark.parametrize("role", ["researcher", "clerk", "auditor", "admin"])
def test_nobody_but_the_officer_asks_about_a_person(world: World, hospital: Any, role: str) -> None:
    with world.client("hospital-1", role) as other:
        asked: list[Any] = [
            lambda: other.opt_outs.of(WANG),
            lambda: other.opt_outs.add(WANG, "all"),
            lambda: other.opt_outs.withdraw(WANG, "all"),
            lambda: other.persons.uses(WANG),
            lambda: other.persons.sights(WANG, "visits", "cost"),
            lambda: other.erasures.plan(WANG),
            other.erasures.list,
            other.erasures.due,
            other.erasures.rotate,
            lambda: other.holds.place("case", "court", person=WANG),
            other.holds.list,
        ]
        for call in asked:
            with pytest.raises(Refused) as raised:
                call()
            assert raised.value.code == "rights.not_yours"


def test_an_opt_out_counts_from_the_next_decision_on(officer: Client, world: World, hospital: Any) -> None:
    for grant, recipient, basis in (
        ("visits-study", "researcher-1", "separate-consent"),
        ("visits-duty", "bureau", "statutory-duty"),
    ):
        officer.grants.issue(terms("hospital-1", grant=grant, recipient=recipient, dataset="visits", legal_basis=basis))
    tables = world.consorted.consortium.homes["hospital-1"].tables

    def rows(recipient: str) -> int:
        request = granting.UseRequest("hospital-1", recipient, "visits", ("cost",), "query", "HMB")
        decision = granting.judge(hospital, request, now())
        assert decision.allowed
        return int(tables.engine("visits", decision.excluded)._table.num_rows)

    assert (rows("researcher-1"), rows("bureau")) == (4, 4)
    officer.opt_outs.add(WANG, "all")
    assert (rows("researcher-1"), rows("bureau")) == (2, 4), "the law puts the word aside where there is a duty"
    (use,) = officer.grants.explain("researcher-1", "visits").uses
    assert use.excluded == ("all",)
    assert {one.recipient for one in officer.persons.sights(WANG, "visits", "cost").sights} == {"bureau"}
    assert {one.recipient for one in officer.persons.sights(LI, "visits", "cost").sights} == {"bureau", "researcher-1"}
    officer.opt_outs.withdraw(WANG, "all")
    assert (rows("researcher-1"), rows("bureau")) == (4, 4)


def test_who_gets_at_one_persons_column(officer: Client, world: World, hospital: Any) -> None:
    with_filter = terms(
        "hospital-1",
        grant="visits-dear",
        recipient="insurer-1",
        dataset="visits",
        filter={"column": "cost", "at_least": 30},
    )
    officer.grants.issue(with_filter)
    asked = officer.persons.sights
    assert "insurer-1" not in {one.recipient for one in asked(WANG, "visits", "cost").sights}, "20 at most"
    assert "insurer-1" in {one.recipient for one in asked(LI, "visits", "cost").sights}
    assert asked("nobody", "visits", "cost").sights == () and asked(WANG, "visits", "age").sights == ()
    officer.grants.revoke("visits-dear")
    assert "insurer-1" not in {one.recipient for one in asked(LI, "visits", "cost").sights}


def test_a_person_is_erased_at_a_running_gateway(officer: Client, world: World, hospital: Any, tmp_path: Path) -> None:
    person = "sun-liu-330303197702020022"
    hospital.vault.ingest("letters", pa.table({"text": ["planted letter", "", ""]}), persons=[person, person, LI])
    hospital.vault.ingest("bonds", pa.table({"amount": [1, 2]}), persons=[person, LI], retain_until=TODAY + 1)
    tables = world.consorted.consortium.homes["hospital-1"].tables
    assert tables.engine("letters", ())._table.num_rows == 3
    planned = officer.erasures.plan(person, reference="requests/9", rotate_days=2)
    assert planned.state == "planned" and [(one.dataset, one.rows) for one in planned.erase] == [("letters", 2)]
    assert [(one.dataset, one.why) for one in planned.restrict] == [("bonds", ("retention",))]
    assert officer.erasures.get(planned.erasure) == planned and hospital.vault.read("letters").num_rows == 3
    with pytest.raises(Refused) as early:
        officer.erasures.receipt(planned.erasure)
    assert early.value.code == "privacy.erasure_under_way"

    done = officer.erasures.apply(planned.erasure, key="once")
    assert done.state == "done, epoch not rotated" and done.destroyed and done.done
    assert officer.erasures.apply(planned.erasure, key="once") == officer.erasures.apply(planned.erasure) == done
    assert tables.engine("letters", ())._table.num_rows == tables.engine("bonds", ())._table.num_rows == 1
    assert officer.erasures.list().rotate_by == done.rotate_by == done.requested + 2 * DAY

    receipt = officer.erasures.receipt(planned.erasure)
    assert decode(ErasureReceipt, receipt).issue == 1
    checked = officer.erasures.check(receipt, [person, "planted letter"])
    assert checked.leftovers == () and checked.keys == 1 and checked.files > 5 and len(checked.beyond) == 6
    hospital.folder.joinpath("spill.txt").write_text("a planted letter lies about")
    found = officer.erasures.check(receipt, ["planted letter"])
    assert [(one.code, one.facts) for one in found.leftovers] == [("privacy.leftover_text", {"file": "spill.txt"})]
    hospital.folder.joinpath("spill.txt").unlink()

    (one,) = officer.erasures.rotate().erasures
    assert one.state == "done" and officer.erasures.list().rotate_by == 0
    last = officer.erasures.receipt(planned.erasure)
    assert decode(ErasureReceipt, last).issue == 2 and officer.erasures.check(last).leftovers == ()
    noted = officer.persons.uses(person).noted
    assert {(seen.dataset, seen.kind, seen.outcome) for seen in noted} == {
        ("bonds", "erasure", "done"),
        ("letters", "erasure", "done"),
    }
    assert officer.erasures.due().due == () == officer.erasures.plan_due().erasures


def test_what_is_due_is_offered(officer: Client, hospital: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    person = "zhou-qi"
    hospital.vault.ingest("slips", pa.table({"n": [1]}), persons=[person])
    held = officer.holds.place("case-7", "court/7", person=person)
    assert (held.of, held.until) == ("one person", None)
    first = officer.erasures.apply(officer.erasures.plan(person, reference="requests/11").erasure)
    assert first.state == "done" and [one.why for one in first.restrict] == [("hold",)]
    assert officer.erasures.due().due == ()
    assert officer.holds.lift("case-7").until is not None
    assert [one.hold for one in officer.holds.list().holds] == ["case-7"]
    (due,) = officer.erasures.due().due
    assert (due.follows, due.reference) == (first.erasure, "requests/11") and due.erase[0].dataset == "slips"
    count = len(officer.erasures.list().erasures)
    assert officer.erasures.due().due == (due,) and len(officer.erasures.list().erasures) == count, (
        "asking keeps nothing"
    )
    (planned,) = officer.erasures.plan_due().erasures
    assert planned.ground == "retention-over"
    assert officer.erasures.apply(planned.erasure).destroyed
    assert officer.erasures.due().due == () and hospital.vault.keys_of(person) == ()
    officer.erasures.rotate()


def test_holds_that_are_none(officer: Client) -> None:
    def refused(**asked: Any) -> str:
        with pytest.raises(MedveilError) as raised:
            officer.holds.place(**{"hold": "case-8", "reference": "court/8", **asked})
        return raised.value.code

    assert refused(until="2024-02-30") == "privacy.hold_form"
    assert refused(until="2020-01-01") == "privacy.hold_form"
    assert refused(until="soon") == "http.does_not_fit"
    assert refused(reference="") == "http.does_not_fit"
    assert refused(dataset="No Name") == "wire.bad_name"
    with pytest.raises(Refused) as none:
        officer.holds.lift("case-8")
    assert none.value.code == "privacy.no_hold"
    assert officer.holds.place("case-9", "court/9", until="2079-01-01").of == "everybody"
    with pytest.raises(Refused) as other:
        officer.holds.place("case-9", "court/10", until="2079-01-01")
    assert other.value.code == "privacy.hold_exists"
    officer.holds.lift("case-9")


def test_erasures_that_are_none(officer: Client, world: World, tmp_path: Path) -> None:
    def refused(call: Any) -> str:
        with pytest.raises(MedveilError) as raised:
            call()
        return raised.value.code

    none = "00" * 16
    assert refused(lambda: officer.erasures.get(none)) == "privacy.no_erasure"
    assert refused(lambda: officer.erasures.apply(none)) == "privacy.no_erasure"
    assert refused(lambda: officer.erasures.receipt(none)) == "privacy.no_erasure"
    assert refused(lambda: officer.erasures.plan("nobody-at-all")) == "privacy.nothing_to_erase"
    assert refused(lambda: officer.erasures.check(b"no receipt")) == "privacy.no_receipt"
    hospital = world.consorted.consortium["hospital-1"]
    card = encode(hospital.member(True))
    assert refused(lambda: officer.erasures.check(card)) == "privacy.no_receipt"
    done = next(one for one in officer.erasures.list().erasures if one.done)
    receipt = bytearray(officer.erasures.receipt(done.erasure))
    receipt[-1] ^= 1
    assert refused(lambda: officer.erasures.check(bytes(receipt))) == "privacy.erasure_signature"


def test_no_line_and_no_entry_names_the_person(world: World, officer: Client, hospital: Any) -> None:
    """After all of the above: logs, the security log, jobs' rows, the trail."""
    service = world.services["hospital-1"]
    officer.opt_outs.add(WANG, "use", "proof")
    officer.persons.uses(WANG)
    logs = json.dumps(service.set.lines())
    trail = b"".join(encode(entry) for entry in hospital.audit.entries())
    security = repr(service.entries()).encode()
    for path in (*service.set.folder.rglob("*"), *hospital.folder.rglob("*")):
        if path.is_file():
            assert WANG.encode() not in path.read_bytes(), path
    assert WANG not in logs and WANG.encode() not in trail + security
    officer.opt_outs.withdraw(WANG, "use", "proof")
