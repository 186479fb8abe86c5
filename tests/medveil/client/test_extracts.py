"""Extracts through the client, at the gateways' own services: from a request to a deleted file."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from medveil.client import ColumnClass, Risk, column
from medveil.client.frames import Rows
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.gateway.recalling import keep_up
from medveil.verification import verify
from wire.errors import ConsentDenied, Refused, Unavailable

from .world import World, now, terms

RISK = Risk(sensitive=("cost",))


def granted(world: World, name: str, **changes: Any) -> None:
    """hospital-1 grants extracts of ward and cost."""
    with world.client("hospital-1", "officer") as officer:
        columns = (ColumnClass("cost", 3), ColumnClass("age", 3), ColumnClass("ward", 2))
        officer.datasets.classify("stays-hospital-1", columns, minors=False)
        given = {"fields": ("cost", "ward", "age"), "uses": ("extract",), "min_group": 3} | changes
        officer.grants.issue(terms("hospital-1", grant=name, **given))
    with world.client("researcher-1", "researcher") as researcher:
        until = time.monotonic() + 30
        while name not in [one.terms.grant for one in researcher.grants.held().grants]:
            assert time.monotonic() < until


def wanted(officer: Any, ask: str) -> Any:
    """A request as the holder has it, once it has come."""
    until = time.monotonic() + 30
    while True:
        for one in officer.extracts.wanted().asks:
            if one.ask == ask:
                return one
        assert time.monotonic() < until


def test_an_extract_from_asking_to_deleting(world: World, tmp_path: Path) -> None:
    granted(world, "copies")
    with world.client("researcher-1", "researcher") as researcher, world.client("hospital-1", "officer") as officer:
        ask = researcher.extracts.ask(
            "hospital-1", "stays-hospital-1", ("ward", "cost"), "HMB", filter=column("age") >= 18
        )
        assert (ask.state, ask.holder) == ("waiting", "hospital-1")
        one = wanted(officer, ask.ask)
        assert (one.recipient, one.columns, one.filter) == ("researcher-1", ("ward", "cost"), ask.filter)
        seen = officer.extracts.preview(ask=ask.ask, risk=RISK)
        assert seen.allowed and seen.leaves and seen.risk is not None and seen.risk.within and not seen.offends
        assert seen.risk.known == ("ward",) and (seen.rows, seen.row_class) == (48, 100)
        assert [str(one) for one in seen.columns] == ["ward", "cost"]
        careless = officer.extracts.preview(ask=ask.ask)
        assert not careless.leaves and careless.withheld is not None and careless.withheld.lost == 48
        assert careless.offends[0].reasons and len(careless.offends) <= 200
        with pytest.raises(Refused) as refused:
            officer.extracts.make(ask=ask.ask)
        assert refused.value.code == "extracts.risk"
        assert wanted(officer, ask.ask).state == "waiting"
        told: list[Any] = []
        made = officer.extracts.make(ask=ask.ask, risk=RISK, told=told.append)
        assert (made.state, made.rows, made.columns) == ("delivered", 48, {"ward": "as it is", "cost": "as it is"})
        assert told[-1].state == "done"
        assert researcher.extracts.asked().asks[-1].extract == made.extract
        (held,) = [one for one in researcher.extracts.list().held if one.extract == made.extract]
        assert held.here and (held.issuer, held.grant, held.rows) == ("hospital-1", "copies", 48)
        assert isinstance(researcher.extracts.list(), Rows) and len(researcher.extracts.list().to_pandas()) >= 1
        with pytest.raises(Unavailable):
            researcher.extracts.open(made.extract, tmp_path / "nowhere" / "rows.parquet")
        out = researcher.extracts.open(made.extract, tmp_path / "rows.parquet")
        assert pyarrow.parquet.read_table(out).num_rows == 48 and out.stat().st_mode & 0o777 == 0o600
        assert researcher.extracts.open(made.extract, tmp_path / "rows.csv").read_text().count("\n") == 49
        sealed = researcher.extracts.fetch(made.extract, tmp_path / "copy.extract")
        assert sealed.read_bytes()[-4:] == b"mvx1" and b"east" not in sealed.read_bytes()
        gone = researcher.extracts.delete(made.extract)
        assert not gone.here and gone.why == "person" and gone.deleted
        with pytest.raises(Refused) as deleted:
            researcher.extracts.open(made.extract, tmp_path / "again.parquet")
        assert deleted.value.code == "gateway.extract_deleted" and not (tmp_path / "again.parquet").exists()
        assert officer.extracts.deliver(made.extract).state == "delivered"  # delivered it was: nothing leaves again
        assert not [one for one in researcher.extracts.list().held if one.extract == made.extract and one.here]
        assert made.extract in officer.extracts.preview(grant="copies", risk=RISK).earlier
        flows = officer.audit.flows(grant="copies").flows
        assert [(flow.use.kind, flow.outcome) for flow in flows] == [("extract", "released")]
    for role, rows in (("researcher", 100), ("auditor", 48)):
        with world.client("hospital-1", role) as colleague:
            (found,) = [one for one in colleague.extracts.list().made if one.extract == made.extract]
            assert found.rows == rows, "exact counts are for who makes extracts, and who audits"
    with world.client("researcher-1", "auditor") as auditor:
        kinds = [flow.use.kind for flow in auditor.audit.flows().flows]
        assert kinds.count("opening") == 3, "twice in the clear, once sealed"


def test_a_no_and_a_revoked_grant(world: World, tmp_path: Path) -> None:
    granted(world, "brief")
    with world.client("researcher-1", "researcher") as researcher, world.client("hospital-1", "officer") as officer:
        ask = researcher.extracts.ask("hospital-1", "stays-hospital-1", ("ward",), "HMB")
        wanted(officer, ask.ask)
        assert officer.extracts.decline(ask.ask).state == "done"
        until = time.monotonic() + 30
        while (said := next(one for one in researcher.extracts.asked().asks if one.ask == ask.ask)).state == "waiting":
            assert time.monotonic() < until
        assert (said.state, said.code) == ("declined", "gateway.extract_declined")
        made = officer.extracts.make(grant="brief", columns=("ward", "cost"), risk=RISK)
        assert made.state == "delivered" and made.ask == ""
        officer.grants.revoke("brief")
        with pytest.raises(ConsentDenied):
            officer.extracts.make(grant="brief", columns=("ward", "cost"), risk=RISK)
        world.consorted.do(world.consorted.consortium["researcher-1"].account.caught_up())
        with pytest.raises(ConsentDenied) as denied:
            researcher.extracts.open(made.extract, tmp_path / "rows.parquet")
        assert denied.value.code == "gateway.grant_gone"
        with pytest.raises(ConsentDenied) as sealed:
            researcher.extracts.fetch(made.extract, tmp_path / "copy.extract")
        assert sealed.value.code == "gateway.grant_gone", "nor as it came: whoever has the keys would open it at home"
        with pytest.raises(Refused) as unknown:
            officer.extracts.withdraw("0" * 32)
        assert unknown.value.code == "extracts.unknown"


def test_what_a_revoked_consent_brings_back(world: World) -> None:
    granted(world, "consented", legal_basis="separate-consent")
    with world.client("researcher-1", "researcher") as researcher, world.client("hospital-1", "officer") as officer:
        made = officer.extracts.make(grant="consented", risk=RISK, columns=("ward", "cost"))
        assert made.state == "delivered"
        assert made.extract not in [one.extract for one in officer.extracts.recalled().recalls]
        officer.grants.revoke("consented")
        until = time.monotonic() + 60
        while True:
            for name in ("hospital-1", "researcher-1"):
                organisation = world.consorted.consortium[name]
                world.consorted.do(keep_up(organisation, ExtractsHere(organisation, now), now))
            found = [one for one in officer.extracts.recalled().recalls if one.extract == made.extract]
            if found and found[0].answer:
                break
            assert time.monotonic() < until
        (one,) = found
        assert (one.answer, one.why, one.recipient) == ("deleted", "consent-revoked", "researcher-1")
        assert one.told and one.answered and len(one.beyond) == 1 and one.deletion
        (held,) = [one for one in researcher.extracts.list().held if one.extract == made.extract]
        assert (held.here, held.why) == (False, "consent-revoked")
        assert isinstance(officer.extracts.recalled(), Rows)


def test_extracts_are_in_the_evidence(world: World, tmp_path: Path) -> None:
    """Both flows: what left the holder, and what was opened by the recipient; every grant and root holds."""
    granted(world, "shown")
    with world.client("hospital-1", "officer") as officer, world.client("researcher-1", "researcher") as researcher:
        made = officer.extracts.make(grant="shown", columns=("ward", "cost"), risk=RISK)
        researcher.extracts.open(made.extract, tmp_path / "rows.arrow")
    with world.client("regulator", "auditor") as auditor:
        folder = auditor.evidence.export(collect=True)
        out = auditor.evidence.fetch(folder, tmp_path / "evidence.zip")
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "evidence")
    report = verify(tmp_path / "evidence", trust=world.trust)
    assert report.pinned and not report.findings
    flows = [(flow.owner, flow.who, flow.kind, flow.grant, flow.outcome) for flow in report.flows]
    assert ("hospital-1", "researcher-1", "extract", "shown", "released") in flows
    assert ("researcher-1", "researcher-1", "opening", "", "done") in flows
