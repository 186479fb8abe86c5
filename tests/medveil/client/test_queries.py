"""The main job through the client, at gateways' own services: load, grant, ask; and releases that are not proven."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts.datasets import (
    DatasetState,
    PopulationState,
    RegisterDataset,
    RetireDataset,
    dataset_key,
    population_key,
)
from ledger.contracts.queries import PhaseState, QueryState, phase_key, query_key
from ledger.envelope import open_envelope
from ledger.receipts import ProvenValue
from medveil.client import AsyncClient, Group, Measure, Question, Released, Session, Use, column
from medveil.client.filters import Filter
from medveil.client.releases import check_new
from medveil.verification import releases
from medveil.verification.folder import verify
from medveil.verification.proven import ProvenState
from medveil.verification.releases import STEPS, Certificate, check_certificate, check_steps
from mpc.history import NearSums
from mpc.query import GATE
from mpc.release import DatasetNote, Estimate, Release
from wire.canonical import decode, encode
from wire.errors import BudgetExhausted, ConsentDenied, MedveilError, Refused, VerificationError

from .forgeries import altered, expect, forged
from .wayward import Wayward
from .world import SITES, World, terms

COST = (Measure("cost"),)
QUESTION = Question(population="stays", measures=COST, purpose="HMB", rho="0.2", groups=(Group("ward", other=False),))


@pytest.fixture(scope="module")
def released(world: World) -> Released:
    with world.client("researcher-1", "researcher") as researcher:
        explained = researcher.queries.explain(QUESTION)
        assert explained.enough and explained.before - explained.after == 2 * 10**8 and explained.query.roster == SITES
        assert "pooled" in explained.to_pandas().columns and "each by itself" in str(explained)
        assert {one.reads for one in explained.sites} == {("cost", "ward")} and explained.answered is None
        told: list[Any] = []
        found = researcher.queries.ask(QUESTION, key="the-question", told=told.append)
        assert told[-1].state == "done"
        again = researcher.queries.ask(QUESTION, key="the-question")
        assert again.query == found.query  # asked once
        return found


def test_a_question_is_answered_and_verified(world: World, released: Released) -> None:
    release = released.release
    assert release.sites == SITES and len(released.proofs) == 9
    frame = released.to_pandas()
    assert set(frame["ward"]) == {"east", "west"} and frame["hidden"].isna().all()
    east = frame[frame["ward"] == "east"].iloc[0]
    assert abs(east["count"] - 120) < 60 and east["count_low"] < east["count"] < east["count_high"]
    with world.client("researcher-1", "auditor") as auditor:
        (query,) = auditor.queries.list().queries
        assert (query.query, query.status) == (released.query, "released")
        assert auditor.queries.get(released.query).roster == SITES
        assert auditor.queries.release(released.query, question=QUESTION).data == released.data
    with world.client("hospital-2", "auditor") as auditor:
        (served,) = auditor.queries.served().served
        assert (served.query, served.use.recipient, served.outcome) == (released.query, "researcher-1", "released")
        (flow,) = [one for one in auditor.audit.flows().flows if one.use.kind == "query"]
        assert flow.use.grant == "study-hospital-2" and flow.ended
        assert auditor.audit.entries(limit=1).next == 2
    with world.client("hospital-2", "officer") as officer:
        assert officer.audit.anchor().batches or officer.audit.entries().anchored
        (held,) = officer.grants.list().grants
        assert held.terms.recipient == "researcher-1"
    with world.client("researcher-1", "researcher") as researcher:
        assert len(researcher.grants.held().grants) == 3


def test_the_same_question_gets_the_same_answer_at_no_cost(world: World, released: Released) -> None:
    """However it is written; it is said before, and after."""
    written = msgspec.structs.replace(
        QUESTION, measures=(Measure("cost", "0.0", "100"),), roster=tuple(reversed(SITES))
    )
    with world.client("researcher-1", "researcher") as researcher:
        explained = researcher.queries.explain(written)
        assert explained.answered == released.query and released.query in str(explained)
        again = researcher.queries.ask(written)
        assert again.data == released.data and again.query == released.query
        assert again.earlier and not released.earlier
        assert researcher.queries.explain(written).before == explained.before


def test_an_answer_over_tables_that_were_replaced_is_none_of_today(released: Released) -> None:
    later = int(time.time() * 1000) + 10**6
    check_new(released, (), later)
    old = Released(
        released.query,
        released.release,
        released.data,
        released.proofs,
        released.declared._replace(superseded=("stays-hospital-1",)),
        True,
    )
    with pytest.raises(VerificationError) as wrong:
        check_new(old, (), later)
    assert wrong.value.code == "client.earlier_release"
    assert wrong.value.facts == {"query": released.query, "tables": "stays-hospital-1"}


def test_a_certificate_is_replayed_from_one_file_step_by_step(world: World, released: Released, tmp_path: Path) -> None:
    with world.client("researcher-1", "researcher") as researcher:
        data = researcher.queries.certificate(released.query)
    file = tmp_path / "release.evidence"
    file.write_bytes(data)
    for backend in ("arkworks", "reference"):
        report = verify(file, trust=world.trust, backend=backend)
        assert [check.code for check in report.checks if check.code] == list(STEPS)
        assert report.verdict == "verified"
        for check in report.checks:
            assert check.text() == check.what and (check.text("zh") != check.what) == bool(check.code)
    with pytest.raises(Refused):  # against nothing pinned it would say nothing
        verify(file)

    certificate = decode(Certificate, data)
    changed = msgspec.structs.replace
    release, gate, sums = certificate.release, *certificate.release.phases
    noise = changed(release.noise[0], pooled="0.1")
    (result,) = release.results
    other = changed(result.groups[0], count=Estimate("1", "0", "2"))
    label = NearSums(release.handle, GATE, 1, (SITES[0],))
    for wrong in (
        changed(release, noise=(noise, *release.noise[1:])),
        changed(release, results=(changed(result, groups=(other, *result.groups[1:])),)),
        changed(release, budget_after_nano=release.budget_after_nano + 1),
        changed(release, phases=(gate, changed(sums, near=(label,)))),
        changed(release, salt=bytes(32)),
    ):
        file.write_bytes(encode(changed(certificate, release=wrong)))
        with pytest.raises(VerificationError):
            verify(file, trust=world.trust)
    for number in range(len(certificate.proofs)):  # each of them is needed, and none can be another's
        proofs = certificate.proofs[:number] + certificate.proofs[number + 1 :]
        file.write_bytes(encode(changed(certificate, proofs=proofs)))
        with pytest.raises(MedveilError):
            verify(file, trust=world.trust)
    file.write_bytes(encode(changed(certificate, proofs=(*certificate.proofs, certificate.proofs[0]))))
    with pytest.raises(VerificationError) as twice:
        verify(file, trust=world.trust)
    assert twice.value.code == "verify.proven_twice"


def in_a_query(**changes: Any) -> Callable[[Release], tuple[bytes, type, Callable[[Any], Any]]]:
    return lambda release: (query_key(release.handle), QueryState, lambda one: msgspec.structs.replace(one, **changes))


def in_phase_one(change: Callable[[PhaseState], dict[str, Any]]) -> Callable[[Release], Any]:
    """What the ledger says of phase 1, changed."""

    def changed(one: PhaseState) -> PhaseState:
        return msgspec.structs.replace(one, **change(one))

    return lambda release: (phase_key(release.handle, GATE), PhaseState, changed)


def announced_otherwise(phase: PhaseState) -> dict[str, Any]:
    first, *rest = phase.announced
    return {"announced": (msgspec.structs.replace(first, digest=bytes(32)), *rest)}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (in_a_query(phases=4), "mpc.phases_missing"),  # what they opened would be in no release and paid for by none
        (in_a_query(approvals=SITES[1:]), "mpc.not_approved"),
        (in_a_query(status="reserved"), "verify.not_debited"),
        (in_phase_one(announced_otherwise), "verify.not_announced"),
        (in_phase_one(lambda one: {"announced": one.announced[1:]}), "verify.not_announced"),
        (in_phase_one(lambda one: {"contributed": one.contributed[1:]}), "mpc.not_the_roster"),
        (in_phase_one(lambda one: {"parties": one.parties[1:]}), "mpc.not_the_roster"),
    ],
)
def test_a_release_of_a_ledger_that_decided_otherwise_does_not_verify(
    world: World, released: Released, changed: Any, code: str
) -> None:
    """Contracts do not let it come to that; who verifies does not rely on them."""
    release, chain = released.release, world.trust.chain
    check_steps(release, ProvenState.of(released.proofs), chain, "arkworks")
    with pytest.raises(VerificationError) as found:
        check_steps(release, ProvenState.of(released.proofs), "another-chain", "arkworks")
    assert found.value.code == "verify.other_chain"
    key, kind, change = changed(release)
    (stands,) = (one for one in released.proofs if one.key == key)
    other = msgspec.structs.replace(stands, value=encode(change(decode(kind, stands.value or b""))))
    with pytest.raises(VerificationError) as found:
        check_steps(release, ProvenState.of((*released.proofs, other)), chain, "arkworks")
    assert found.value.code == code


def test_a_certificate_of_no_proofs_or_of_one_from_before_the_sums_does_not_verify(
    world: World, released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was budget, vote or declaration before the sums were opened may be another by then."""
    with world.client("researcher-1", "researcher") as researcher:
        certificate = decode(Certificate, researcher.queries.certificate(released.query))
    changed = msgspec.structs.replace
    first, *rest = certificate.proofs
    early = changed(first, block=changed(first.block, height=1))
    monkeypatch.setattr(releases, "verify_value", lambda *_: None)  # as if the head of then had been cosigned
    check_certificate(certificate, world.trust, "arkworks")
    for proofs, what in (((), "proof"), ((early, *rest), "sums on the ledger")):
        with pytest.raises(VerificationError) as found:
            check_certificate(changed(certificate, proofs=proofs), world.trust, "arkworks")
        assert (found.value.code, found.value.facts["what"]) == ("verify.missing", what)


def test_no_field_of_a_certified_release_may_be_another(world: World, released: Released, tmp_path: Path) -> None:
    with world.client("researcher-1", "researcher") as researcher:
        certificate = decode(Certificate, researcher.queries.certificate(released.query))
    file, release = tmp_path / "release.evidence", certificate.release
    note = DatasetNote(SITES[0], "any", "checked by the regulator")
    every = [other for other in altered(release) if other != release]
    assert len(every) > 300
    for other in (msgspec.structs.replace(release, notes=(note,)), *every):
        file.write_bytes(encode(msgspec.structs.replace(certificate, release=other)))
        with pytest.raises(MedveilError):
            verify(file, trust=world.trust)


def _flipped_bits(world: World, released: Released, file: Path, flips: int) -> None:
    """Whatever bit of a certificate is another one, it does not verify, or says what it said: a head may have more
    signatures than it needs."""
    with world.client("researcher-1", "researcher") as researcher:
        data = researcher.queries.certificate(released.query)
    chance = random.Random(11)
    for _ in range(flips):
        wrong = bytearray(data)
        wrong[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(wrong)
        try:
            verdict = verify(file, trust=world.trust).verdict
        except MedveilError:
            continue
        assert verdict != "verified" or decode(Certificate, bytes(wrong)).release == released.release


def test_no_flipped_bit_makes_another_certificate(world: World, released: Released, tmp_path: Path) -> None:
    _flipped_bits(world, released, tmp_path / "release.evidence", 200)


@pytest.mark.long
def test_no_flipped_bit_makes_another_certificate_in_a_long_run(
    world: World, released: Released, tmp_path: Path
) -> None:
    _flipped_bits(world, released, tmp_path / "release.evidence", 10_000)


def test_receipts_of_what_was_written_about_it(world: World, released: Released) -> None:
    with world.client("researcher-1", "auditor") as auditor:
        receipts = auditor.queries.receipts(released.query)
    ops = [op for receipt in receipts for op in open_envelope(receipt.envelope).envelope.ops]
    assert [type(op).__name__ for op in ops] == ["ProposeQuery", *["FixParties", "FixSurvivors", "Release"] * 2]
    assert all(receipt.result.sender == "researcher-1" for receipt in receipts)


def test_later_in_a_loop(world: World, released: Released) -> None:
    async def test() -> None:
        service = world.services["researcher-1"]
        async with AsyncClient(service.address, Session(service.session("researcher")), trust=world.trust) as client:
            one, other = await asyncio.gather(
                client.queries.release(released.query), client.queries.release(released.query, question=QUESTION)
            )
            assert one.data == other.data == released.data

    asyncio.run(test())


Lie = Callable[[Release], Release]


def changed(released: Released, **changes: Any) -> bytes:
    return encode(msgspec.structs.replace(released.release, **changes))


def test_a_release_that_is_not_proven_is_never_returned(world: World, released: Released) -> None:
    """What a gateway could say instead: other numbers, other totals, another query, too few proofs, others."""
    release = released.release
    (result,) = release.results
    group = result.groups[0]
    better = msgspec.structs.replace(group, mean=msgspec.structs.replace(group.mean, value="1"))

    def changed_result(**changes: Any) -> Any:
        return msgspec.structs.replace(result, **changes)

    opened = release.phases[1].opened
    more = msgspec.structs.replace(opened, totals=(opened.totals[0] + 1, *opened.totals[1:]))
    phases = (release.phases[0], msgspec.structs.replace(release.phases[1], opened=more))
    survivors = release.phases[1].survivors
    first, second, third = survivors.contributions
    posted = first, second, msgspec.structs.replace(third, point=first.point)
    other = msgspec.structs.replace(
        release.phases[1], survivors=msgspec.structs.replace(survivors, contributions=posted)
    )
    alone = msgspec.structs.replace(release.phases[1], parties=release.phases[0].parties)
    releases = {
        "numbers": changed(released, results=(changed_result(groups=(better, *result.groups[1:])),)),
        "hidden": changed(released, results=(changed_result(groups=result.groups[1:]),)),
        "totals": changed(released, phases=phases),
        "contributions": changed(released, phases=(release.phases[0], other)),
        "parties": changed(released, phases=(release.phases[0], alone)),
        "survivors": changed(released, lost=release.sites[:1], sites=release.sites[1:]),
        "salt": changed(released, salt=bytes(32)),
        "handle": changed(released, handle=bytes(16)),
        "rho": changed(released, rho_nano=1),
        "budget": changed(released, budget_after_nano=release.budget_before_nano),
        "junk": released.data[:-1],
    }
    for what, data in releases.items():
        expect(world, released, b"/evidence", lambda _, data=data: data, what)

    expect(world, released, b"/proofs", lambda _: b'{"proofs": []}', "none")

    def flip(body: bytes) -> bytes:
        proofs = json.loads(body)["proofs"]
        data = bytearray(base64.b64decode(proofs[0]))
        data[len(data) // 3] ^= 1
        return json.dumps({"proofs": [base64.b64encode(data).decode(), *proofs[1:]]}).encode()

    expect(world, released, b"/proofs", flip, "flipped")

    def unproven(at: int) -> Callable[[bytes], bytes]:
        def keep(body: bytes) -> bytes:
            proofs = json.loads(body)["proofs"]
            return json.dumps({"proofs": proofs[:at] + proofs[at + 1 :]}).encode()

        return keep

    # the query, its population, two phases with their sums, three tables: each is needed
    for at in range(9):
        expect(world, released, b"/proofs", unproven(at), f"proof {at}")

    def untrue(body: bytes) -> bytes:
        """A population with one table less, of the right key and block."""
        proofs = [decode(ProvenValue, base64.b64decode(text)) for text in json.loads(body)["proofs"]]
        population = decode(PopulationState, proofs[1].value or b"")
        less = encode(msgspec.structs.replace(population, datasets=population.datasets[:-1]))
        proofs[1] = msgspec.structs.replace(proofs[1], value=less)
        return json.dumps({"proofs": [base64.b64encode(encode(one)).decode() for one in proofs]}).encode()

    expect(world, released, b"/proofs", untrue, "untrue")


def test_what_the_ledger_declares_comes_with_a_release(world: World, released: Released) -> None:
    assert released.declared.not_asked == ("insurer-1",) and released.asked
    assert 0 < released.declared.available <= released.release.budget_after_nano
    state = world.consorted.consortium["hospital-1"].account.state.get(query_key(released.release.handle), QueryState)
    assert state is not None and released.declared.proposed == state.height < released.declared.height


def test_a_commitment_that_is_not_the_sites_is_found_out(world: World, released: Released) -> None:
    """Other commitments, which add up to the very totals that the receipts prove."""
    expect(world, released, b"/evidence", lambda _: encode(forged(released.release, more=0)), "moved")


def test_a_forged_release_that_is_right_in_itself_is_not_the_ledgers(world: World, released: Released) -> None:
    data = encode(forged(released.release))
    expect(world, released, b"/evidence", lambda _: data, "forged")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("population", {"population": "other"}),
        ("measures", {"measures": (Measure("age"),)}),
        ("measures", {"measures": (Measure("age"), *COST)}),
        ("low", {"measures": (Measure("cost", low="1"),)}),
        ("high", {"measures": (Measure("cost", high="99.5"),)}),
        ("edges", {"measures": (Measure("cost", edges=("0", "50", "100")),)}),
        ("missing", {"measures": (Measure("cost", missing=("0",)),)}),
        ("roster", {"roster": (*SITES[:2], "hospital-9")}),
        ("datasets", {"datasets": ("other",)}),
        ("groups", {"groups": ()}),
        ("groups", {"groups": (Group("ward"),)}),
        ("filter", {"filter": column("cost") >= 3}),
        ("purpose", {"purpose": "DS"}),
        ("rho", {"rho": "0.3"}),
        ("delta", {"delta": "1e-7"}),
        ("minimum_group", {"minimum_group": 11}),
    ],
)
def test_an_answer_to_another_question_is_none(
    world: World, released: Released, field: str, changes: dict[str, Any]
) -> None:
    with world.client("researcher-1", "researcher") as researcher:
        with pytest.raises(VerificationError) as wrong:
            researcher.queries.release(released.query, question=msgspec.structs.replace(QUESTION, **changes))
        assert wrong.value.facts["field"] == field
        with pytest.raises((Refused, MedveilError)):
            researcher.queries.release("00" * 16)


def test_what_a_site_or_the_budget_denies(world: World, released: Released) -> None:
    with world.client("researcher-1", "researcher", language="zh") as researcher:
        with pytest.raises(ConsentDenied):
            researcher.queries.ask(msgspec.structs.replace(QUESTION, purpose="GRU"))
        too_much = msgspec.structs.replace(QUESTION, rho="5")
        assert not researcher.queries.explain(too_much).enough
        with pytest.raises(BudgetExhausted) as spent:
            researcher.queries.ask(too_much)
        assert any("\u4e00" <= character <= "\u9fff" for character in spent.value.text())


def test_a_site_sees_a_question_before_it_is_asked(world: World, released: Released) -> None:
    """Its data officer, who asks nothing: the same plan, and what the site's grants would answer."""
    trusted = msgspec.structs.replace(QUESTION, measures=(Measure("cost"), Measure("age")), rho="0.07")
    with world.client("researcher-1", "researcher") as researcher:
        theirs = researcher.queries.explain(trusted)
    with world.client("hospital-2", "officer") as officer:
        before = officer.audit.flows(limit=1000)
        found = officer.queries.explain(trusted)
        assert found.sites == theirs.sites and found.leaving == theirs.leaving and theirs.own is None
        (answer,) = found.own or ()
        assert answer.recipient == "researcher-1" and answer.decision in str(found) and str(answer) in str(found)
        with_age = "ages-hospital-2" in [grant.terms.grant for grant in officer.grants.list().grants]
        assert answer.allowed == with_age
        (denied,) = officer.queries.explain(msgspec.structs.replace(QUESTION, purpose="GRU")).own or ()
        assert not denied.allowed and denied.rule == "purpose"
        near = officer.queries.explain(msgspec.structs.replace(QUESTION, roster=SITES))
        assert near.answered is None and not near.refused
        with pytest.raises(Refused):
            officer.queries.ask(trusted)
        assert officer.audit.flows(limit=1000) == before  # nothing was used
    with world.client("hospital-2", "researcher") as colleague:  # who may not read its grants
        seen = colleague.queries.explain(trusted)
        assert seen.sites == theirs.sites and seen.own is None and "grant" not in "".join(seen.words[-1].lines)
    with world.client("hospital-2", "auditor") as auditor, pytest.raises(Refused):
        auditor.queries.explain(trusted)


def test_a_grant_is_tried_out_issued_and_revoked(world: World, released: Released) -> None:
    with world.client("hospital-3", "officer") as officer:
        given = terms(
            "hospital-3", grant="trial", filter=(column("cost") < Decimal("37.5")) & (column("ward") == "east")
        )
        use = Use(fields=("cost",), kind="query", purpose="HMB", filter=given.filter)
        assert officer.grants.preview(given, use).allowed
        denied = officer.grants.preview(given, Use(fields=("cost",), kind="extract", purpose="HMB"))
        assert not denied.allowed and denied.decision
        officer.grants.issue(given)
        listed = {one.terms.grant: one for one in officer.grants.list().grants}
        assert isinstance(given.filter, Filter) and listed["trial"].terms.filter is not None
        written = officer.grants.revoke("trial")
        assert written.receipt.result.accepted
        frame = officer.grants.list().to_pandas()
        assert dict(zip(frame["terms.grant"], frame["status"], strict=True))["trial"] == "revoked"


def test_a_release_as_it_was_kept(released: Released) -> None:
    assert decode(Release, released.data) == released.release


def test_what_a_question_leaves_open_is_not_the_gateways_to_choose(world: World, released: Released) -> None:
    """Narrower bounds than declared, a table or a site left out: a true release, and no answer to the question."""
    consorted = world.consorted
    narrow = msgspec.structs.replace(QUESTION, rho="0.1", measures=(Measure("cost", "10", "90"),))
    with world.client("researcher-1", "researcher") as researcher:
        asked = researcher.queries.ask(narrow)
        for field, left_open in (
            ("measures", msgspec.structs.replace(narrow, measures=(Measure("cost", high="90"),))),
            ("measures", msgspec.structs.replace(narrow, measures=(Measure("cost", "10"),))),
        ):
            with pytest.raises(VerificationError) as wrong:
                researcher.queries.release(asked.query, question=left_open)
            assert wrong.value.facts["field"] == field
        assert not researcher.queries.release(asked.query).asked

        # tables that came later were not asked, and that is right
        insurer, hospital = consorted.consortium["insurer-1"], consorted.consortium["hospital-1"]
        own = hospital.account.state.get(dataset_key("stays-hospital-1"), DatasetState)
        assert own is not None
        said = (own.schema_hash, own.columns, own.row_class, bytes(32))
        older = consorted.do(consorted.consortium.engine.query(population_key("stays"), prove=True))
        consorted.do(insurer.account.submit(RegisterDataset("stays-insurer", "stays", *said)))
        consorted.do(hospital.account.submit(RegisterDataset("stays-again", "stays", *said)))
        later = researcher.queries.release(released.query, question=QUESTION)
        assert later.declared.not_asked == ("insurer-1",)

        # tables that were there, and were not named
        of_three = msgspec.structs.replace(QUESTION, rho="0.1", roster=SITES, datasets=("stays-hospital-1",))
        asked = researcher.queries.ask(of_three)
        for field, left_open in (
            ("roster", msgspec.structs.replace(of_three, roster=())),
            ("datasets", msgspec.structs.replace(of_three, datasets=())),
        ):
            with pytest.raises(VerificationError) as wrong:
                researcher.queries.release(asked.query, question=left_open)
            assert wrong.value.facts["field"] == field

        def outdated(body: bytes) -> bytes:
            """The population as it was before the insurer's table: true once, and proven."""
            proofs = json.loads(body)["proofs"]
            proofs[1] = base64.b64encode(encode(older)).decode()
            return json.dumps({"proofs": proofs}).encode()

        service = world.services["researcher-1"]
        rule: Any = lambda _, request: outdated if b"/proofs HTTP" in request else "pass"  # noqa: E731
        with (
            Wayward(service.running.port, rule) as network,
            world.client("researcher-1", "researcher", network.address) as deceived,
            pytest.raises(VerificationError) as wrong,
        ):
            deceived.queries.release(asked.query, question=msgspec.structs.replace(of_three, roster=()))
        assert wrong.value.code == "client.no_proof"
        consorted.do(insurer.account.submit(RetireDataset("stays-insurer")))
        consorted.do(hospital.account.submit(RetireDataset("stays-again")))
        assert researcher.queries.release(asked.query, question=of_three).asked


def test_a_key_finds_its_question_whatever_was_registered_since(world: World, released: Released) -> None:
    """The question left open which tables: asked now it would be another query, or none."""
    consorted, hospital = world.consorted, world.consorted.consortium["hospital-1"]
    own = hospital.account.state.get(dataset_key("stays-hospital-1"), DatasetState)
    assert own is not None
    again = RegisterDataset("stays-more", "stays", own.schema_hash, own.columns, own.row_class, bytes(32))
    consorted.do(hospital.account.submit(again))
    consorted.do(consorted.consortium["researcher-1"].account.caught_up())
    with world.client("researcher-1", "researcher") as researcher:
        with pytest.raises(Refused) as several:
            researcher.queries.explain(QUESTION)
        assert several.value.code != "jobs.key_used"
        assert researcher.queries.ask(QUESTION, key="the-question").query == released.query
        with pytest.raises(Refused) as used:
            researcher.queries.begin(msgspec.structs.replace(QUESTION, rho="0.1"), key="the-question")
        assert used.value.code == "jobs.key_used"
        consorted.do(hospital.account.submit(RetireDataset("stays-more")))
