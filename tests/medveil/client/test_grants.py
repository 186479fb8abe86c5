"""Grants through the client: what may be done and why, confirmed, handed out; datasets classified."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from service.working import now

from medveil.client import ColumnClass
from medveil.client.grants import check_handed
from medveil.verification import verify
from wire.canonical import encode
from wire.checkpoint import write_trust
from wire.errors import DecodeError, MedveilError, Refused, VerificationError
from wire.signing import Signer

from .world import DAY, World, terms

DATASET = "stays-hospital-2"


def test_what_somebody_may_do_and_who_gets_at_a_column(world: World) -> None:
    with world.client("hospital-2", "officer") as officer:
        (use,) = officer.grants.explain("researcher-1", DATASET).uses
        assert (use.grant, use.kind, use.purpose, use.allowed) == ("study-hospital-2", "query", "HMB", True)
        assert [str(column) for column in use.columns] == ["cost", "ward"]
        assert use.not_met == () and "noised sums" in use.words
        (sight,) = officer.grants.seen(DATASET, "cost").sights
        assert (sight.recipient, sight.cell, sight.mask) == ("researcher-1", False, "keep")
        assert officer.grants.seen(DATASET, "age").sights == ()
        assert officer.grants.explain("nobody-1", DATASET).uses == ()
        assert officer.grants.seen("bills", "amount").sights == ()
        # "Nobody gets at it" is no answer to a name that was mistyped.
        for call, code in (
            (lambda: officer.grants.seen(DATASET, "costs"), "gateway.no_column"),
            (lambda: officer.grants.seen("stays-hospital", "cost"), "privacy.no_dataset"),
            (lambda: officer.grants.explain("researcher-1", "stays-hospital"), "privacy.no_dataset"),
        ):
            with pytest.raises(Refused) as mistyped:
                call()
            assert mistyped.value.code == code
    with world.client("hospital-2", "officer", language="zh") as officer:
        assert "加噪汇总" in officer.grants.seen(DATASET, "cost").sights[0].words
    with world.client("hospital-2", "researcher") as stranger, pytest.raises(Refused):
        stranger.grants.explain("researcher-1", DATASET)


def test_a_classified_dataset_decides_otherwise(world: World) -> None:
    with world.client("hospital-2", "officer") as officer:
        before = officer.datasets.classification(DATASET)
        assert (before.classified, before.columns) == (False, ())
        columns = (ColumnClass("cost", 3), ColumnClass("ward", 5), ColumnClass("age", 4, "plain"))
        made = officer.datasets.classify(DATASET, columns, minors=False, age_column="age")
        assert made == officer.datasets.classification(DATASET) and made.columns == columns
        (use,) = officer.grants.explain("researcher-1", DATASET).uses
        assert ([column.column for column in use.columns], use.not_met) == (["cost"], ("level",))
        assert "ward" in use.words
        preview = officer.grants.preview(terms("hospital-2", grant="next"), _use())
        assert (preview.allowed, preview.rule) == (False, "level")
        officer.datasets.classify(DATASET, [ColumnClass("cost", 3), ColumnClass("ward", 3)], minors=True)
        assert officer.grants.preview(terms("hospital-2", grant="next"), _use()).rule == "guardian"
        filed = terms("hospital-2", grant="next", guardian_ref="guardians/1")
        assert officer.grants.preview(filed, _use()).allowed
        officer.datasets.classify(DATASET, [ColumnClass("cost", 3), ColumnClass("ward", 3)], minors=False)
        with pytest.raises(MedveilError):
            officer.datasets.classify(DATASET, [ColumnClass("cost", 9)], minors=False)
        for columns, age in ([ColumnClass("costs", 5)], ""), ([ColumnClass("cost", 3)], "years"):
            with pytest.raises(Refused) as mistyped:
                officer.datasets.classify(DATASET, columns, minors=False, age_column=age)
            assert mistyped.value.code == "gateway.no_column"
        assert officer.datasets.classification(DATASET).columns == (ColumnClass("cost", 3), ColumnClass("ward", 3))
        ahead = officer.datasets.classify("not-loaded", [ColumnClass("any", 3)], minors=False)
        assert (ahead.classified, ahead.loaded) == (True, False) and officer.datasets.classification(DATASET).loaded
    with world.client("hospital-2", "auditor") as auditor:
        assert auditor.datasets.classification(DATASET).classified
        with pytest.raises(Refused):
            auditor.datasets.classify(DATASET, [ColumnClass("cost", 1)], minors=False)


def _use() -> object:
    from medveil.client import Use

    return Use(fields=("cost", "ward"), kind="query", purpose="HMB")


def test_a_grant_is_confirmed(world: World) -> None:
    due = now() + 3000
    with world.client("hospital-3", "officer") as officer:
        made = officer.grants.issue(
            terms("hospital-3", grant="due", recipient="regulator", review=due, masks={"ward": "drop"})
        )
        assert (made.terms.review, made.terms.masks, made.reviewed_until) == (due, {"ward": "drop"}, None)
        (use,) = officer.grants.explain("regulator", "stays-hospital-3").uses
        assert use.until == due
        confirmed = officer.grants.review("due", now() + 20 * DAY)
        (grant,) = [one for one in officer.grants.list().grants if one.terms.grant == "due"]
        assert grant.reviewed_until == confirmed.next
        (use,) = officer.grants.explain("regulator", "stays-hospital-3").uses
        assert use.until == made.terms.expires  # and no longer
        with pytest.raises(Refused) as refused:
            officer.grants.review("due", 5)
        assert refused.value.code == "gateway.review_past"
        with pytest.raises(Refused) as refused:
            officer.grants.review("nothing", now() + DAY)
        assert refused.value.code == "grants.unknown"


def test_a_grant_is_handed_out_as_a_consent(world: World, tmp_path: Path) -> None:
    with world.client("hospital-1", "officer") as officer:
        data = officer.grants.receipt("study-hospital-1")
        with pytest.raises(Refused):
            officer.grants.receipt("study-hospital-2")  # another's
    receipt = check_handed(data, "study-hospital-1", world.trust)
    assert b'"Consent"' in receipt.consent
    file = tmp_path / "receipt.evidence"
    file.write_bytes(data)
    write_trust(tmp_path / "consortium.json", world.trust)
    report = verify(file, trust=tmp_path / "consortium.json")
    assert report.pinned and "hospital-1" in report.checks[0].what
    with pytest.raises(Refused):
        verify(file)  # nothing to believe it by
    with pytest.raises(VerificationError):
        check_handed(data, "another", world.trust)
    with pytest.raises((VerificationError, DecodeError)):
        check_handed(data[:-1] + bytes([data[-1] ^ 1]), "", world.trust)
    stranger = Signer(b"x" * 32)
    body = msgspec.structs.replace(receipt, signature=stranger.sign(b"medveil/v1/consent-receipt", receipt.consent))
    with pytest.raises(VerificationError):
        check_handed(encode(body), "", world.trust)
    file.write_bytes(encode(body))
    with pytest.raises(VerificationError):
        verify(file, trust=tmp_path / "consortium.json")
