"""What the data officer says of its data and grants counts from the next decision on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from medveil.gateway import granting, use_state
from medveil.gateway.steps import Passing
from medveil.gateway.tables import VaultTables
from privacy.decide import UseRequest
from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.opt_outs import OptOut, OptOutState
from privacy.grants.terms import DAY
from privacy.legal_holds import LegalHold, place_hold
from privacy.local import RowFilter
from wire.dates import NO_END
from wire.errors import MedveilError, Refused

Play = Callable[[Callable[[Any], Any]], Any]
DATASET = "stays-hospital-1"


def study() -> UseRequest:
    return UseRequest("hospital-1", "researcher", DATASET, ("cost", "ward"), "query", "HMB")


def test_a_dataset_is_classified_and_classified_again(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        await world.grant("study", "hospital-1", "researcher")
        running = granting.judge(hospital, study(), world.now())
        assert running.allowed and [column.level for column in running.columns] == [4, 4]
        assert use_state.classified(hospital, DATASET) == DatasetFacts(DATASET)
        columns = (ColumnFacts("cost", 3), ColumnFacts("ward", 5))
        use_state.classify(hospital, DatasetFacts(DATASET, columns))
        denied = granting.judge(hospital, study(), world.now())
        assert (denied.rule, denied.missing) == ("level", "ward")
        assert not granting.still_granted(hospital, study(), running, world.now())
        use_state.classify(hospital, DatasetFacts(DATASET, (ColumnFacts("cost", 3), ColumnFacts("ward", 4))))
        assert granting.judge(hospital, study(), world.now()).allowed
        assert use_state.classified(hospital, DATASET).column("cost").level == 3
        # Another dataset's, and another organisation's, are their own.
        use_state.classify(hospital, DatasetFacts("bills", (ColumnFacts("amount", 5),)))
        use_state.classify(world["hospital-2"], DatasetFacts(DATASET, (ColumnFacts("cost", 5),)))
        assert granting.judge(hospital, study(), world.now()).allowed
        with pytest.raises(Refused) as refused:
            use_state.classify(hospital, DatasetFacts(DATASET, (ColumnFacts("cost", 3), ColumnFacts("cost", 4))))
        assert refused.value.code == "privacy.column_twice"

    play(story)


def test_children_in_the_data_need_their_guardians(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        await world.grant("study", "hospital-1", "researcher")
        columns = (ColumnFacts("cost", 3), ColumnFacts("ward", 3))
        use_state.classify(hospital, DatasetFacts(DATASET, columns, minors=True))
        assert granting.judge(hospital, study(), world.now()).rule == "guardian"
        await world.grant("with-guardians", "hospital-1", "researcher", guardian_ref="guardians/1")
        assert granting.judge(hospital, study(), world.now()).grant == "with-guardians"

    play(story)


def test_a_grant_that_is_due_is_reviewed(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        start = world.now()
        await world.grant("study", "hospital-1", "researcher", review=start + 1000)
        (grant,) = granting.issued(hospital)
        assert use_state.reviewed(hospital, grant) is None
        due = start + 1000
        assert granting.judge(hospital, study(), due).rule == "review"
        made = use_state.review(hospital, grant, due, due + 5000)
        assert use_state.reviewed(hospital, grant) == made
        decision, _ = await granting.decide_use(hospital, study(), Passing(), due)
        assert decision.allowed
        assert granting.judge(hospital, study(), due + 5000).rule == "review"
        with pytest.raises(Refused) as refused:
            use_state.review(hospital, grant, due, due)
        assert refused.value.code == "gateway.review_past"
        # Terms that take the id's place in a new epoch were not reviewed; nor does a review revive a revoked grant.
        use_state.review(hospital, grant, due, due + 30 * DAY)
        assert granting.judge(hospital, study(), due).allowed
        await granting.revoke(hospital, "study")
        assert granting.judge(hospital, study(), due).rule == "revocation"

    play(story)


def test_home_is_read_when_it_has_changed(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        await world.grant("study", "hospital-1", "researcher")
        use_state.classify(hospital, DatasetFacts(DATASET, (ColumnFacts("cost", 3), ColumnFacts("ward", 3))))
        assert granting.judge(hospital, study(), world.now()).allowed
        opened: list[str] = []
        document = hospital.vault.document

        def counted(kind: str, name: str) -> bytes:
            opened.append(name)
            return document(kind, name)  # type: ignore[no-any-return]

        hospital.vault.document = counted
        for _ in range(5):
            assert granting.judge(hospital, study(), world.now()).allowed
        assert opened == []
        use_state.classify(hospital, DatasetFacts(DATASET, (ColumnFacts("cost", 5),)))
        assert granting.judge(hospital, study(), world.now()).rule == "level"
        assert opened == [DATASET]

    play(story)


# --- opt-outs ---------------------------------------------------------------------------------------


def test_an_opt_out_that_failed_half_way_counts_as_soon_as_it_is_there(play: Play) -> None:
    """The log has it, the tables not yet: the next write of the kind brings it there."""

    async def story(world: Any) -> None:
        hospital = world["hospital-1"]

        def full(step: str) -> None:
            if step == "safeguards:noted":
                raise OSError

        hospital.vault._opened.fault = full
        with pytest.raises((OSError, MedveilError)):
            use_state.opt_out(hospital, "li", OptOut("all", "", world.now()))
        hospital.vault._opened.fault = lambda _: None
        assert use_state.opt_outs(hospital).opt_outs == {}
        place_hold(hospital.vault, LegalHold("any", b"", "", "a dispute", 0, NO_END))
        assert set(use_state.opt_outs(hospital).opt_outs) == {hospital.vault.person_id("li")}

    play(story)


VISITS = pa.table({"cost": [10, 20, 30, 40, 50], "ward": ["east", "west", "east", "east", "west"]})
PEOPLE = ["wang", "li", "wang", "zhao", "li"]


def test_what_patients_do_not_want_is_left_out(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        hospital.vault.ingest("visits", VISITS, [f"v{number}" for number in range(5)], persons=PEOPLE)
        await world.grant("visits", "hospital-1", "researcher", dataset="visits")
        await world.grant("duty", "hospital-1", "bureau", dataset="visits", legal_basis="statutory-duty")
        request = UseRequest("hospital-1", "researcher", "visits", ("cost",), "query", "HMB")
        start, clock = world.now(), [0]
        tables = VaultTables.of(hospital, lambda: clock[0])

        def costs(asked: UseRequest, at: int) -> list[int]:
            decision = granting.judge(hospital, asked, at)
            assert decision.allowed
            clock[0], excluded = at, decision.excluded
            rows = tables.records("visits", ("cost",), RowFilter(decision.rows), excluded)
            table = tables.engine("visits", excluded)._table
            assert table.column_names == ["cost", "ward"]
            assert table["cost"].to_pylist() == [cost for _, (cost,) in rows]
            return [cost for _, (cost,) in rows]

        assert costs(request, start) == [10, 20, 30, 40, 50]
        said = OptOut("recipient", "researcher", start)
        assert use_state.opt_out(hospital, "wang", said) == (said,)
        assert use_state.opt_out(hospital, "wang", said) == (said,)  # again
        assert costs(request, start) == [20, 40, 50]
        assert costs(request, start - 1) == [10, 20, 30, 40, 50]
        use_state.opt_out(hospital, "li", OptOut("all", "", start, start + 1000))
        use_state.opt_out(hospital, "zhao", OptOut("use", "extract", start))
        assert costs(request, start) == [40]
        assert costs(request, start + 1000) == [20, 40, 50]
        duty = msgspec.structs.replace(request, recipient="bureau")
        assert costs(duty, start) == [10, 20, 30, 40, 50]  # li is cut out of the snapshot, which does not serve this
        assert tables.snapshots.read("visits")["cost"].to_pylist() == [10, 30, 40]
        # Of one person's record: denied outright.
        wang = hospital.vault.person_id("wang")
        denied = granting.judge(hospital, msgspec.structs.replace(request, person=wang), start)
        assert (denied.rule, denied.missing) == ("opt-out", "recipient:researcher")
        zhao = hospital.vault.person_id("zhao")
        assert granting.judge(hospital, msgspec.structs.replace(request, person=zhao), start).allowed
        # Withdrawn by the person: the records are there again, and what was said stays on file.
        left = use_state.withdraw(hospital, "wang", "recipient:researcher", start + 5)
        assert left == (OptOut("recipient", "researcher", start, start + 5),)
        assert costs(request, start + 5) == [10, 30, 40]
        with pytest.raises(Refused) as refused:
            use_state.withdraw(hospital, "wang", "recipient:researcher", start + 9)
        assert refused.value.code == "gateway.no_opt_out"
        with pytest.raises(MedveilError):
            use_state.opt_out(hospital, "wang", OptOut("purpose", "NOPE", start))
        assert use_state.opt_outs_of(hospital, "nobody") == ()
        assert use_state.opt_outs(world["hospital-2"]).state(start) == OptOutState()

    play(story)


def test_an_opt_out_reaches_a_person_in_every_spelling(play: Play) -> None:
    """The officer types what the letter says; tables, and loads to come, may write the same number otherwise."""

    async def story(world: Any) -> None:
        hospital, at = world["hospital-1"], world.now()
        said, later = OptOut("all", "", at), OptOut("use", "extract", at)
        ways = ("33010619910523017０", "330106199105230170 ", "330106910523017", "330106199105230170")
        (person,) = {hospital.vault.person_id(way) for way in ways}
        assert use_state.opt_out(hospital, ways[2], said) == (said,)
        assert use_state.opt_out(hospital, ways[0], later) == (said, later)
        assert use_state.opt_outs(hospital).persons(["all"], at) == {person}
        assert all(use_state.opt_outs_of(hospital, way) == (said, later) for way in ways)
        use_state.withdraw(hospital, ways[1], "all", at + 1)
        assert not use_state.opt_outs(hospital).persons(["all"], at + 1)
        assert use_state.opt_outs(hospital).persons(["use:extract"], at + 1) == {person}

    play(story)


def test_a_running_use_ends_when_a_new_scope_comes_up(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        await world.grant("study", "hospital-1", "researcher")
        running = granting.judge(hospital, study(), world.now())
        use_state.opt_out(hospital, "wang", OptOut("purpose", "HRESCH", 0))
        assert not granting.still_granted(hospital, study(), running, world.now())
        later = granting.judge(hospital, study(), world.now())
        assert later.excluded == ("purpose:HRESCH",)
        use_state.withdraw(hospital, "wang", "purpose:HRESCH", world.now())
        assert granting.still_granted(hospital, study(), later, world.now())  # it left out more than it must

    play(story)


def test_a_query_reads_without_them(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        hospital = world["hospital-1"]
        use_state.opt_out(hospital, "wang", OptOut("all", "", 0))
        asked: dict[str, Any] = {}
        threads: set[str] = set()
        engine = VaultTables.engine

        def seen(tables: VaultTables, dataset: str, excluded: Any) -> Any:
            asked[dataset] = excluded
            threads.add(threading.current_thread().name.rpartition("_")[0])
            return engine(tables, dataset, excluded)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(VaultTables, "engine", seen)
            assert (await world.released()).results[0].groups
        assert asked.pop(DATASET) == ("all",)
        assert set(asked.values()) == {()}
        assert threads == {"reading tables"}, "those of the ledger, of steps and of sign-ins are others"

    play(story)


def test_no_proof_about_a_bill_of_somebody_who_does_not_want_it(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_proofs()
        hospital = world["hospital-1"]
        bill, other = await world.bill(person="person-1"), await world.bill(person="person-2")
        use_state.opt_out(hospital, "person-1", OptOut("use", "proof", 0))
        refused, decision = await world.limit_checked(world.request(bill))
        assert isinstance(refused, Exception) and refused.code == "gateway.proof_refused"  # type: ignore[attr-defined]
        assert "opt-out" in str(refused) and "person-1" not in str(refused)
        answered, _ = await world.limit_checked(world.request(other))
        assert not isinstance(answered, Exception)
        assert "use:proof" not in str(refused)  # what else was opted out of is not the insurer's
        assert not decision.allowed and decision.rule == "opt-out"
        assert [entry.outcome for entry in hospital.audit.entries() if entry.intent] == ["denied", "released"]

    play(story)
