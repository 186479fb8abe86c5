"""Bills, proofs, models, scores and evidence through the client, at the gateways' own services."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medveil.client import Feature
from medveil.verification import verify
from wire.checkpoint import write_trust
from wire.errors import Refused, Unavailable

from .world import World, terms


def test_a_bill_is_proven_to_be_within_a_limit(world: World, tmp_path: Path) -> None:
    with world.client("hospital-1", "officer") as officer:
        officer.grants.issue(
            terms(
                "hospital-1",
                grant="claims",
                recipient="insurer-1",
                dataset="bills",
                fields=("amount",),
                purposes=("ELIGVER",),
                uses=("proof",),
            )
        )
    with world.client("hospital-1", "clerk") as clerk:
        bill = clerk.bills.issue("person-7", "128.50", "CNY")
        assert bill == clerk.bills.get(bill.handle) and clerk.bills.list().bills == (bill,)
        assert "128.5" not in str(clerk.bills.list())
    with world.client("insurer-1", "clerk") as clerk:
        asked = {"hospital": "hospital-1", "handle": bill.handle, "currency": "CNY", "purpose": "ELIGVER"}
        proof = clerk.eligibility.ask(**asked, limit="200", grant="claims")
        assert (proof.handle, proof.limit, proof.commitment) == (bill.handle, "200.00", bill.commitment)
        assert clerk.eligibility.get(proof.nonce) == proof and clerk.eligibility.evidence(proof.nonce)
        with pytest.raises(Refused):
            clerk.eligibility.ask(**asked, limit="100", grant="claims")
        for said, rule in (({"jurisdiction": "SG"}, "jurisdiction"), ({"commercial": True}, "commercial")):
            with pytest.raises(Refused, match=rule):
                clerk.eligibility.ask(**asked, limit="200", grant="claims", **said)


def test_records_are_scored_under_a_reviewed_model(world: World) -> None:
    features = (Feature("age", 0, 120), Feature("cost", 0, 100))
    with (
        world.client("bureau", "officer") as bureau,
        world.client("regulator", "officer") as regulator,
        ThreadPoolExecutor(1) as pool,
    ):
        proposing = pool.submit(
            bureau.models.propose, "over-use", features, (2, 3), weight_low=-9, weight_high=9, limit=300,
            regulator="regulator",
        )  # fmt: skip
        while not (shown := regulator.models.shown().models):
            assert not proposing.done(), proposing.result()
        assert (shown[0].model, shown[0].weights, shown[0].status) == ("over-use", (2, 3), "waiting")
        assert "3" not in repr(shown[0])
        regulator.models.review(shown[0].review, approve=True)
        assert proposing.result().state == "done"
        assert regulator.models.shown().models[0].status == "signed"
        assert [model.model for model in bureau.models.list().models] == ["over-use"]
    with world.client("hospital-2", "officer") as officer:
        fields = ("age", "cost")
        officer.grants.issue(
            terms("hospital-2", grant="fraud", recipient="bureau", fields=fields, purposes=("FRAUD",), uses=("score",))
        )
    with world.client("bureau", "clerk") as clerk:
        asked = {"hospital": "hospital-2", "model": "over-use", "dataset": "stays-hospital-2", "purpose": "FRAUD"}
        with pytest.raises(Refused, match="jurisdiction"):
            clerk.scores.ask(**asked, jurisdiction="SG")
        scores = clerk.scores.ask(**asked)
        assert scores == clerk.scores.get(scores.session) and scores.flags
        assert scores.to_pandas()["reached"].sum() == sum(flag.reached for flag in scores.flags)
    with world.client("hospital-2", "officer") as officer:
        records = officer.scores.records(scores.session)
        assert {one.handle for one in records.records} == {flag.handle for flag in scores.flags}


def test_evidence_is_fetched_and_verified(world: World, tmp_path: Path) -> None:
    with world.client("hospital-1", "auditor") as auditor:
        folder = auditor.evidence.export()
        assert folder in [one.evidence for one in auditor.evidence.list().evidence]
        out = auditor.evidence.fetch(folder, tmp_path / "evidence.zip")
        with pytest.raises(Refused) as there:
            auditor.evidence.fetch(folder, out)
        assert there.value.code == "client.file_exists"
        with pytest.raises(Refused) as unknown:
            auditor.evidence.fetch("0" * 32, tmp_path / "other.zip")
        assert unknown.value.code == "evidence.unknown"
        with pytest.raises(Unavailable):
            auditor.evidence.fetch(folder, tmp_path / "nowhere" / "other.zip")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["evidence.zip"]
        trust = tmp_path / "consortium.json"
        write_trust(trust, auditor.members.trust())
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "evidence")
    assert verify(tmp_path / "evidence", trust=trust).pinned
    with world.client("hospital-1", "admin") as admin:
        service = admin.service.get()
        assert service.organisation == "hospital-1" and service.data_folder
