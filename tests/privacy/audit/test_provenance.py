"""The PROV-JSON of a trail is what the W3C's data model says, by a reader of other hands."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from privacy.audit import AuditTrail, Use, own_use
from privacy.audit.provenance import prov_document, prov_json
from privacy.audit.views import of_dataset


@pytest.fixture
def document(trail: AuditTrail, use: Use) -> Any:
    trail.outcome(trail.intent(use, persons=[b"w" * 16]), "released")
    trail.outcome(trail.intent(msgspec.structs.replace(use, allowed=False, rule="purpose", grant="")), "denied")
    trail.intent(use)
    trail.outcome(trail.intent(own_use("hospital-1", "claims-1", "erasure")), "done")
    return prov_document(of_dataset(trail, "claims-1"))


def test_another_reader_reads_the_same(document: Any, trail: AuditTrail) -> None:
    from prov.model import PROV_TYPE, ProvActivity, ProvAgent, ProvAssociation, ProvDocument, ProvEntity, ProvGeneration

    data = prov_json(of_dataset(trail, "claims-1"))
    assert json.loads(data) == document
    read = ProvDocument.deserialize(content=data.decode(), format="json")
    again = ProvDocument.deserialize(content=read.serialize(format="json"), format="json")
    assert again == read

    def names(kind: type) -> set[str]:
        return {str(record.identifier) for record in read.get_records(kind)}

    assert names(ProvActivity) == {f"mv:use/hospital-1/{number}" for number in (1, 3, 5, 6)}
    assert names(ProvAgent) == {"mv:organisation/hospital-1", "mv:organisation/university"}
    assert names(ProvEntity) == {
        "mv:dataset/hospital-1/claims-1",
        "mv:grant/hospital-1/grant-1",
        "mv:release/hospital-1/1",
    }
    (plan,) = [record for record in read.get_records(ProvEntity) if "grant/" in str(record.identifier)]
    assert {str(value) for value in plan.get_attribute(PROV_TYPE)} == {"prov:Plan"}
    (generated,) = read.get_records(ProvGeneration)
    assert [str(value) for _, value in generated.formal_attributes[:2]] == [
        "mv:release/hospital-1/1",
        "mv:use/hospital-1/1",
    ]
    roles = [str(value) for one in read.get_records(ProvAssociation) for value in one.get_attribute("prov:role")]
    assert sorted(roles) == ["holder"] * 4 + ["recipient"] * 3
    times = [record.get_startTime() for record in read.get_records(ProvActivity)]
    assert all(time is not None for time in times)


def test_a_denied_use_used_nothing_and_only_a_release_came_out(document: Any) -> None:
    assert {relation["prov:activity"] for relation in document["used"].values()} == {
        f"mv:use/hospital-1/{number}" for number in (1, 5, 6)
    }
    assert list(document["wasDerivedFrom"].values()) == [
        {
            "prov:generatedEntity": "mv:release/hospital-1/1",
            "prov:usedEntity": "mv:dataset/hospital-1/claims-1",
            "prov:activity": "mv:use/hospital-1/1",
        }
    ]
    outcomes = [activity["mv:outcome"] for activity in document["activity"].values()]
    assert outcomes == ["released", "denied", "unfinished", "done"]


def test_nobody_is_named(document: Any) -> None:
    assert (b"w" * 16).hex() not in json.dumps(document) and "w" * 16 not in json.dumps(document)
    assert prov_document(()) == {"prefix": document["prefix"]}
