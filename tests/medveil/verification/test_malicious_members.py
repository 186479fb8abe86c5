"""Members that put lies on the ledger: the data-flow table must not repeat them under the word "verified".

Here the evidence is complete and honestly exported; a hospital, the researcher or the bureau lied while
it was made. Stories run in a fresh consortium each.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant, ApproveQuery, RenewGrant, RevokeGrant, models, queries
from medveil import verify
from medveil.gateway import granting, query_run
from medveil.gateway.accounting import anchor_audit
from medveil.gateway.models import ModelShown
from medveil.verification import Report
from medveil.verification.kinds import MODEL, ModelEvidence
from mpc.query import SUMS
from mpc.scoring import Feature, build_model, generate_key, model_digest
from privacy.audit import Use, own_use
from privacy.decide import Decision
from privacy.grants.terms import grant_commitment, sign_grant
from privacy.predicate import Compare
from wire.canonical import encode
from wire.domains import MODEL_REVIEW
from wire.errors import VerificationError

Play = Callable[[Callable[[Any], Any]], Any]
HANDLE = bytes(range(16))
replace = msgspec.structs.replace


def found(case: Any, folder: Path) -> VerificationError:
    """The error that the evidence meets."""
    case.write(folder)
    with pytest.raises(VerificationError) as error:
        case.verify(folder)
    assert "Traceback" not in error.value.text()
    return error.value


def report(case: Any, folder: Path) -> Report:
    """The report of evidence that holds."""
    made: Report = case.verify(case.write(folder))
    return made


def outcomes(made: Report) -> dict[str, str]:
    """What the table says of each hospital's part in the query."""
    return {flow.owner: flow.outcome for flow in made.flows if flow.kind == "query"}


def writing(site: Any, change: Callable[[Use], Use]) -> None:
    """Let a hospital write something else into its trail than what happens."""
    intent = site.audit.intent
    site.audit.intent = lambda use, *more, **named: intent(change(use), *more, **named)


# --- queries ------------------------------------------------------------------------------------


def test_a_hospital_that_never_anchors_what_it_did(play: Play, gathered: Any, tmp_path: Path) -> None:
    async def story(world: Any) -> Any:
        await world.grant_study()
        release = await world.released()
        others = tuple(name for name in world.consortium.organisations if name != "hospital-2")
        shown = await gathered(world, ("releases/query-1.evidence", release), anchor=others)
        return shown, await gathered(world, anchor=others)

    with_release, without = play(story)
    error = found(with_release, tmp_path / "evidence")
    assert (error.code, error.facts["organisation"]) == ("verify.no_access_entry", "hospital-2")
    assert error.facts["file"] == "releases/query-1.evidence"
    made = report(without, tmp_path / "evidence")
    assert {finding.code for finding in made.findings} == {"verify.unlogged_approval", "verify.withheld_release"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda use: replace(use, dataset="another"), "verify.other_access_entry"),
        (lambda use: replace(use, purpose="HRESCH"), "verify.other_access_entry"),
        (lambda use: replace(use, recipient="insurer"), "verify.no_access_entry"),
        (lambda use: replace(use, kind="extract"), "verify.no_access_entry"),
        (lambda use: replace(use, query=bytes(32)), "verify.wrong_entry"),
        (lambda use: replace(use, grant="study-hospital-1"), "verify.no_such_grant"),
        (lambda use: replace(use, grant="none"), "verify.no_such_grant"),
        (lambda use: replace(use, grant=""), "verify.wrong_entry"),
        (lambda use: replace(use, rule="no-grant"), "verify.wrong_entry"),
        (lambda use: replace(use, purpose="UNKNOWN"), "verify.wrong_entry"),
        (lambda use: replace(use, recipient="nobody"), "verify.wrong_entry"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hospital_that_writes_another_use(
    play: Play, gathered: Any, tmp_path: Path, change: Callable[[Use], Use], code: str
) -> None:
    async def story(world: Any) -> Any:
        await world.grant_study()
        writing(world["hospital-2"], change)
        release = await world.released()
        return await gathered(world, ("releases/query-1.evidence", release))

    error = found(play(story), tmp_path / "evidence")
    assert (error.code, error.facts["organisation"]) == (code, "hospital-2")


def test_a_hospital_that_says_it_took_no_part(play: Play, gathered: Any, tmp_path: Path) -> None:
    async def story(world: Any) -> Any:
        await world.grant_study()
        trail = world["hospital-2"].audit
        end = trail.outcome
        trail.outcome = lambda intent, outcome: end(intent, "aborted")
        release = await world.released()
        return await gathered(world, ("releases/query-1.evidence", release)), await gathered(world)

    shown, without = play(story)
    error = found(shown, tmp_path / "evidence")
    assert (error.code, error.facts["field"]) == ("verify.wrong_entry", "outcome")
    made = report(without, tmp_path / "evidence")  # without the release nobody can say that its vector was in it
    assert outcomes(made)["hospital-2"] == "aborted (in the released sums)"
    assert [finding.code for finding in made.findings] == ["verify.withheld_release"]


def test_a_hospital_that_died_on_the_way(play: Play, gathered: Any, tmp_path: Path) -> None:
    async def story(world: Any) -> Any:
        await world.grant_study()
        world["hospital-2"].audit.outcome = lambda intent, outcome: 0
        release = await world.released()
        return await gathered(world, ("releases/query-1.evidence", release))

    made = report(play(story), tmp_path / "evidence")
    assert outcomes(made)["hospital-2"] == "unfinished (in the released sums)"


def test_one_entry_does_not_stand_for_two_queries(
    play: Play, gathered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same question with the same salt twice, forgotten by all: a hospital that logs it once is found out."""
    monkeypatch.setattr("medveil.gateway.asking.known_release", lambda *_: None)
    monkeypatch.setattr("medveil.gateway.serving.answered", lambda *_: None)

    async def story(world: Any) -> Any:
        await world.grant_study()
        salt = bytes(32)
        trail = world["hospital-2"].audit
        write, end, intents = trail.intent, trail.outcome, []

        def once(use: Use, *more: bytes, **named: Any) -> int:
            intents.append(intents[0] if intents else write(use, *more, **named))
            return intents[-1]

        trail.intent = once
        trail.outcome = lambda intent, outcome: end(intent, outcome) if len(intents) == 1 else 0
        releases = []
        for number in (1, 2):
            answer, _ = await world.run(world.query(), secrets.token_bytes(16), salt=salt)
            releases.append((f"releases/query-{number}.evidence", answer))
        return await gathered(world, *releases)

    error = found(play(story), tmp_path / "evidence")
    assert (error.code, error.facts["organisation"]) == ("verify.no_access_entry", "hospital-2")


def test_a_release_that_no_query_knows(play: Play, gathered: Any, tmp_path: Path) -> None:
    """A hospital says that it released something to the researcher: the ledger has no such query."""

    async def story(world: Any) -> Any:
        await world.grant_study()
        trail = world["hospital-1"].audit
        use = Use("researcher", "stays-hospital-1", "query", "HMB", "study-hospital-1", bytes(32), True, "granted")
        trail.outcome(trail.intent(use), "released")
        return await gathered(world)

    assert found(play(story), tmp_path / "evidence").facts["field"] == "outcome"


def allowing(patch: pytest.MonkeyPatch, grant: str) -> None:
    """Hospitals that allow whatever is asked, under `grant` of their own."""

    def decide(request: Any, grants: Any, state: Any, at: int) -> Decision:
        return Decision(True, "granted", f"{grant}-{request.holder}", "", request.recipient, request.dataset)

    patch.setattr(granting, "decide", decide)


def test_a_use_after_its_grant_was_revoked_back_dated(
    play: Play, gathered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Any) -> Any:
        await world.grant_study()
        site = world["hospital-2"]
        before = world.now()
        world.now.ahead += 1000
        await site.submit(RevokeGrant("study-hospital-2"))
        site.audit._clock = lambda: before
        allowing(monkeypatch, "study")
        release = await world.released()
        return await gathered(world, ("releases/query-1.evidence", release))

    error = found(play(story), tmp_path / "evidence")
    assert (error.code, error.facts["organisation"]) == ("verify.no_such_grant", "hospital-2")


@pytest.mark.parametrize("back", [0, 3_600_000], ids=["back-dated grant", "back-dated grant and entry"])
def test_a_grant_anchored_after_the_use(
    play: Play, gathered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: int
) -> None:
    async def story(world: Any) -> Any:
        for site in ("hospital-1", "hospital-3"):
            await world.grant(f"study-{site}", site, "researcher")
        site = world["hospital-2"]
        site.audit._clock = lambda: world.now() - back
        allowing(monkeypatch, "study")
        release = await world.released()
        terms = world.terms("study-hospital-2", "hospital-2", "researcher", not_before=0)
        commitment = grant_commitment(terms, site.salt_key)
        await site.submit(AnchorGrant("study-hospital-2", commitment, 0, terms.expires, 0))
        return await gathered(world, ("releases/query-1.evidence", release))

    error = found(play(story), tmp_path / "evidence")
    assert (error.code, error.facts["organisation"]) == ("verify.no_such_grant", "hospital-2")


def test_a_grant_renewed_later_does_not_accuse_an_earlier_use(play: Play, gathered: Any, tmp_path: Path) -> None:
    async def story(world: Any) -> Any:
        await world.grant_study()
        release = await world.released()
        world.now.ahead += 1000
        site = world["hospital-2"]
        terms = world.terms("study-hospital-2", "hospital-2", "researcher", fields=("cost",), epoch=1)
        commitment = grant_commitment(terms, site.salt_key)
        await site.submit(RenewGrant("study-hospital-2", commitment, terms.not_before, terms.expires, 1))
        await world["hospital-3"].submit(RevokeGrant("study-hospital-3"))
        return await gathered(world, ("releases/query-1.evidence", release))

    assert report(play(story), tmp_path / "evidence").verdict == "verified"


def test_a_grant_narrowed_under_way_stops_the_use(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        site = world["hospital-2"]

        async def renew(op: ApproveQuery) -> None:
            terms = world.terms(
                "study-hospital-2",
                "hospital-2",
                "researcher",
                epoch=1,
                fields=("age", "cost", "ward"),
                predicate=Compare("age", "ge", 18),
            )
            signed = sign_grant(terms, site.signer, site.salt_key)
            site.vault.put_document("grant-issued", terms.grant, encode(signed))
            commitment = grant_commitment(terms, site.salt_key)
            await site.submit(RenewGrant(terms.grant, commitment, terms.not_before, terms.expires, 1))

        world.after(site, ApproveQuery, renew)
        _, parts = await world.run(world.query(), HANDLE)
        assert parts[1].code == "gateway.grant_gone"

    play(story)


# --- the researcher -----------------------------------------------------------------------------


def test_a_researcher_that_stops_after_the_counts(play: Play, gathered: Any, tmp_path: Path) -> None:
    async def story(world: Any) -> Any:
        await world.grant_study()
        submit = world.researcher.submit

        async def stopping(*ops: Any) -> Any:
            receipt = await submit(*ops)
            if isinstance(ops[0], queries.Release):
                raise query_run.ProtocolAbort("mpc.sum_aborted", round="opening")
            return receipt

        world.researcher.submit = stopping
        await world.run(world.query(), HANDLE)
        return await gathered(world)

    made = report(play(story), tmp_path / "evidence")
    assert made.verdict == "verified, with findings"
    assert [(finding.code, finding.facts["organisation"]) for finding in made.findings] == [
        ("verify.unfinished_query", "researcher")
    ]
    assert set(outcomes(made).values()) == {"released (first sums only)"}


def test_a_researcher_that_keeps_the_counts_to_itself(play: Play, gathered: Any, tmp_path: Path) -> None:
    """Nothing is posted, and the masked vectors have left: the table says that, not "aborted"."""

    async def story(world: Any) -> Any:
        await world.grant_study()
        submit = world.researcher.submit

        async def keeping(*ops: Any) -> Any:
            if isinstance(ops[0], queries.Release):
                raise query_run.ProtocolAbort("mpc.sum_aborted", round="opening")
            return await submit(*ops)

        world.researcher.submit = keeping
        await world.run(world.query(), HANDLE)
        return await gathered(world)

    case = play(story)
    made = report(case, tmp_path / "evidence")
    assert [finding.code for finding in made.findings] == ["verify.unfinished_query"]
    assert set(outcomes(made).values()) == {"released (no sums posted)"}
    alone = verify(tmp_path / "evidence" / "ledger.evidence", trust=case.trust)
    assert (alone.findings, alone.verdict) == (made.findings, "verified, with findings"), "by the ledger alone, too"


@pytest.mark.parametrize("phase", [1, SUMS])
def test_a_researcher_that_posts_false_sums(play: Play, gathered: Any, tmp_path: Path, phase: int) -> None:
    async def story(world: Any) -> Any:
        await world.grant_study()
        submit = world.researcher.submit

        async def lying(*ops: Any) -> Any:
            if isinstance(ops[0], queries.Release) and ops[0].phase == phase:
                ops = (replace(ops[0], totals=(ops[0].totals[0] + 1, *ops[0].totals[1:])),)
            return await submit(*ops)

        world.researcher.submit = lying
        await world.run(world.query(), HANDLE)
        return await gathered(world)

    made = report(play(story), tmp_path / "evidence")
    assert ("verify.false_sums", "researcher") in {
        (finding.code, finding.facts["organisation"]) for finding in made.findings
    }
    assert made.verdict == "verified, with findings"


def test_a_query_that_one_site_stopped_is_no_release(play: Play, gathered: Any, tmp_path: Path) -> None:
    """Approved, and closed before anything was opened: entries stand, nothing is owed."""

    async def story(world: Any) -> Any:
        await world.grant_study()
        site = world["hospital-3"]

        async def revoke(op: ApproveQuery) -> None:
            await site.submit(RevokeGrant("study-hospital-3"))

        world.after(site, ApproveQuery, revoke)
        await world.run(world.query(), HANDLE)
        return await gathered(world)

    made = report(play(story), tmp_path / "evidence")
    assert made.verdict == "verified"
    assert set(outcomes(made).values()) == {"aborted"}


# --- proofs and scores --------------------------------------------------------------------------


async def proof(world: Any) -> Any:
    """One proof to the insurer."""
    bill = await world.bill()
    await world.grant_proofs()
    return (await world.limit_checked(world.request(bill)))[0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda use: replace(use, purpose="COVAUTH"), "verify.other_access_entry"),
        (lambda use: replace(use, dataset="stays-hospital-1"), "verify.other_access_entry"),
        (lambda use: replace(use, recipient="bureau"), "verify.no_access_entry"),
        (lambda use: replace(use, query=bytes(32)), "verify.no_access_entry"),
        (lambda use: replace(use, allowed=False, rule="fields"), "verify.no_access_entry"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_proof_that_was_written_as_something_else(
    play: Play, gathered: Any, tmp_path: Path, change: Callable[[Use], Use], code: str
) -> None:
    async def story(world: Any) -> Any:
        trail = world["hospital-1"].audit
        end = trail.outcome
        denied = not change(Use("insurer", "bills", "proof", "ELIGVER", "proofs", b"", True, "granted")).allowed
        trail.outcome = lambda intent, outcome: end(intent, "denied" if denied else outcome)
        writing(world["hospital-1"], change)
        return await gathered(world, ("presentations/bill-1.evidence", await proof(world)))

    error = found(play(story), tmp_path / "evidence")
    assert (error.code, error.facts["organisation"]) == (code, "hospital-1")
    assert error.facts["file"] == "presentations/bill-1.evidence"


def test_a_proof_that_is_said_to_have_stayed(play: Play, gathered: Any, tmp_path: Path) -> None:
    async def story(world: Any) -> Any:
        trail = world["hospital-1"].audit
        end = trail.outcome
        trail.outcome = lambda intent, outcome: end(intent, "aborted")
        return await gathered(world, ("presentations/bill-1.evidence", await proof(world)))

    assert found(play(story), tmp_path / "evidence").facts["field"] == "outcome"


def test_a_score_under_no_model(play: Play, gathered: Any, tmp_path: Path) -> None:
    async def story(world: Any) -> Any:
        await world.grant("scores", "hospital-1", "bureau", uses=("score",), purposes=("FRAUD",))
        trail = world["hospital-1"].audit
        use = Use("bureau", "stays-hospital-1", "score", "FRAUD", "scores", bytes(32), True, "granted")
        trail.outcome(trail.intent(use), "released")
        return await gathered(world)

    error = found(play(story), tmp_path / "evidence")
    assert (error.code, error.facts["field"]) == ("verify.wrong_entry", "query")


def test_a_model_under_two_names_is_one_model(play: Play, gathered: Any, tmp_path: Path) -> None:
    """A bureau may register a reviewed model again under another name; nothing is withheld by showing it once."""

    async def story(world: Any) -> Any:
        pytest.importorskip("phe", reason="install medveil[scoring]")
        features = (Feature("age", 0, 100, 1, 50),)
        model, opening = build_model(generate_key(), "over-use", features, (2,), -10, 10, 60, secrets.token_bytes)
        await world.register_model(ModelShown(model, opening))
        review = world.regulator.signer.sign(MODEL_REVIEW, model_digest(model))
        await world.bureau.submit(models.RegisterModel("the-same", model_digest(model), "regulator", review))
        shown = ModelEvidence(MODEL, model)
        return await gathered(world, ("models/over-use.evidence", shown)), await gathered(world)

    shown, withheld = play(story)
    assert not report(shown, tmp_path / "evidence").findings
    findings = report(withheld, tmp_path / "evidence").findings
    assert [finding.code for finding in findings] == ["verify.withheld_model"] * 2


# --- text in the table --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "fields)\nhospital-9  released"},
        {"rule": "\x1b[2K"},
        {"rule": "granted"},
        {"rule": ""},
        {"grant": "授权"},
        {"grant": "a/b"},
        {"grant": "A"},
        {"grant": "\x1b[31m"},
        {"recipient": "stranger"},
        {"purpose": "ZZZ"},
        {"query": b"Ann"},
    ],
    ids=repr,
)
def test_an_entry_cannot_write_what_it_likes(
    play: Play, gathered: Any, tmp_path: Path, changes: dict[str, str]
) -> None:
    """A denied use costs nothing to invent: its texts are held to what the product itself can say."""

    async def story(world: Any) -> Any:
        trail = world["hospital-1"].audit
        use = Use("insurer", "bills", "proof", "ELIGVER", "", b"", False, "no-grant")
        trail.outcome(trail.intent(replace(use, **changes)), "denied")
        return await gathered(world)

    error = found(play(story), tmp_path / "evidence")
    assert error.code == "verify.wrong_entry"
    assert error.facts["field"] == next(iter(changes))
    assert error.text().isprintable()


@pytest.mark.parametrize(
    "changes",
    [{"recipient": "insurer"}, {"rule": "granted"}, {"grant": "study"}, {"purpose": "HMB"}, {"query": b"Ann"}],
    ids=repr,
)
def test_what_is_done_at_home_has_no_purpose_and_nobody_else(
    play: Play, gathered: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    async def story(world: Any) -> Any:
        trail = world["hospital-1"].audit
        use = own_use("hospital-1", "bills", "erasure", bytes(32))
        trail.outcome(trail.intent(use), "done")
        honest = await gathered(world)
        trail.outcome(trail.intent(replace(use, **changes)), "done")
        return honest, await gathered(world)

    honest, lying = play(story)
    assert ("erasure", "", "done") in [(one.kind, one.purpose, one.outcome) for one in report(honest, tmp_path).flows]
    error = found(lying, tmp_path / "evidence")
    assert error.code == "verify.wrong_entry"
    assert error.facts["field"] in (*changes, "rule")


def test_an_entry_from_the_future(play: Play, gathered: Any, tmp_path: Path) -> None:
    async def story(world: Any) -> Any:
        trail = world["hospital-1"].audit
        trail._clock = lambda: world.now() + 3_600_000
        use = Use("insurer", "bills", "proof", "ELIGVER", "", b"", False, "no-grant")
        trail.outcome(trail.intent(use), "denied")
        await anchor_audit(world["hospital-1"])
        return await gathered(world)

    assert found(play(story), tmp_path / "evidence").facts["field"] == "time"
