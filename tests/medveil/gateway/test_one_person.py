"""Whatever the officer types: opt-out, hold, erasure and view are of all rows of the person, however spelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from medveil.gateway import erasing, use_state
from medveil.gateway.person_view import person_sights, person_view
from privacy.audit import Use
from privacy.grants.opt_outs import ALL, OptOut
from privacy.legal_holds import LegalHold, place_hold
from wire.dates import NO_END
from wire.errors import Refused
from zkp.bill_limit import Presentation

Play = Callable[[Callable[[Any], Any]], Any]

LOADED = ("330106199105230170", "330106910523017", "330106 19910523 0170")
"""As three tables write one number: the second one's is of before 1999."""
WAYS = (*LOADED, " 330106199105230170", "３３０１０６１９９１０５２３０１７０")
OTHER = "330106199105230197"
SHARED = Use("researcher", "slips", "extract", "HMB", "copies", b"", True, "granted")


def load(hospital: Any) -> None:
    """Three tables, each with the person under another spelling, and somebody else."""
    for table, person in zip(("visits", "slips", "cards"), LOADED, strict=True):
        hospital.vault.ingest(table, pa.table({"cost": [1, 2]}), persons=[person, OTHER])


@pytest.mark.parametrize("way", WAYS)
def test_an_erasure_takes_all_tables(play: Play, way: str) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        load(hospital)
        tables = world.tables(hospital)
        hospital.audit.outcome(hospital.audit.intent(SHARED), "released")
        assert len(tables.snapshots.table("slips")) == 2
        planned = erasing.plan(hospital, way, world.now())
        assert planned.plan.datasets == ("cards", "slips", "visits")
        done = erasing.apply(hospital, planned.name, world.now, snapshots=tables.snapshots)
        assert done.destroyed and len(hospital.vault.erasures()) == 3
        for table in planned.plan.datasets:
            assert hospital.vault.read(table)["cost"].to_pylist() == [2]
        assert tables.snapshots.read("slips")["cost"].to_pylist() == [2]
        for other in WAYS:
            ((seen, reached),) = person_view(hospital, other).possible
            assert (seen.intent.use.recipient, reached) == ("researcher", None), "its rows are gone, and it had them"
        receipt = erasing.receipt_of(hospital, planned.name, world.now())
        assert erasing.check(hospital, receipt, hospital.folder, snapshots=tables.snapshots).leftovers == ()
        for other in WAYS:
            (seen, *_) = person_view(hospital, other).noted
            assert (seen.intent.use.kind, seen.outcome) == ("erasure", "done")
            with pytest.raises(Refused) as nothing:
                erasing.plan(hospital, other, world.now())
            assert nothing.value.code == "privacy.nothing_to_erase"

    play(story)


@pytest.mark.parametrize("way", WAYS)
def test_a_hold_keeps_and_an_opt_out_leaves_out_all_of_the_person(play: Play, way: str) -> None:
    async def story(world: Any) -> None:
        hospital, at = world["hospital-1"], world.now()
        load(hospital)
        tables = world.tables(hospital)
        hold = LegalHold("case-7", hospital.vault.person_id(way), "", "court/7", 0, NO_END)
        place_hold(hospital.vault, hold)
        for other in WAYS:
            kept = erasing.plan(hospital, other, at).plan
            assert kept.erase == () and [one.why for one in kept.restrict] == [("hold",)] * 3
        use_state.opt_out(hospital, way, OptOut("all", "", at))
        for table in ("visits", "slips", "cards"):
            for excluded in ((ALL,), (ALL, "use:extract")):
                assert tables.snapshots.table(table, excluded=excluded)["cost"].to_pylist() == [2]
            assert len(tables.snapshots.table(table)) == 2, "a use that leaves nobody out"
        for other in WAYS:
            assert use_state.opt_outs_of(hospital, other)
            assert person_view(hospital, other) == person_view(hospital, way)

    play(story)


def test_a_grant_that_an_opt_out_stops_is_no_sight_in_any_spelling(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        load(hospital)
        made = {"dataset": "slips", "fields": ("cost",), "purposes": ("HRESCH",), "uses": ("query",)}
        await world.grant("study", "hospital-1", "researcher", **made)
        at = world.now()
        for way in WAYS:
            assert len(person_sights(hospital, way, "slips", "cost", at)) == 1
        use_state.opt_out(hospital, WAYS[0], OptOut("recipient", "researcher", at))
        for way in WAYS:
            assert person_sights(hospital, way, "slips", "cost", at) == ()
        assert len(person_sights(hospital, OTHER, "slips", "cost", at)) == 1

    play(story)


@pytest.mark.parametrize("way", [" person-1\n", "ｐｅｒｓｏｎ-１"])
def test_no_wallet_proves_for_who_objected_under_another_spelling(play: Play, way: str) -> None:
    async def story(world: Any) -> None:
        await world.grant_proofs()
        bill = await world.bill(person="person-1")
        proved, _ = await world.limit_checked(world.request(bill))
        assert isinstance(proved, Presentation)
        use_state.opt_out(world["hospital-1"], way, OptOut("use", "proof", 0))
        refused, _ = await world.limit_checked(world.request(bill))
        assert isinstance(refused, Refused) and refused.code == "gateway.proof_refused"

    play(story)
