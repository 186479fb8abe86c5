"""Our own vectors of eligibility: both backends agree with the file, and on what they refuse.

The file pins every encoding below it (schemas, issuing, BBS in a proof, sets, sigma and range proof, transcript): if
one of these tests fails, credentials or proofs of an earlier version no longer verify, and a version must change.
``python -m tests.zkp.test_eligibility_vectors`` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wire import canonical
from wire.errors import VerificationError
from zkp import eligibility
from zkp.attributes import Credential
from zkp.credentials import ENCOUNTER, PERSON
from zkp.eligibility import Eligibility, EligibilityRequest
from zkp.groups import Backend, backend

FILE = Path(__file__).resolve().parent.parent / "vectors" / "eligibility" / "filed.json"


def load() -> Any:
    return json.loads(FILE.read_text())


def test_accepted(either: Backend) -> None:
    vector = load()
    request = canonical.decode(EligibilityRequest, bytes.fromhex(vector["request"]))
    eligibility.verify(canonical.decode(Eligibility, bytes.fromhex(vector["proof"])), request, either)


def test_made_again() -> None:
    """From the same credentials and randomness: the same bytes, issuing included."""
    assert made() == load()


def test_schemas() -> None:
    vector = load()
    assert [schema.id.hex() for schema in (PERSON, ENCOUNTER)] == vector["schemas"]
    person = canonical.decode(Credential, bytes.fromhex(vector["person"]))
    assert person.scalars(PERSON)[6] == person.get(PERSON, "birth") == 29_000


FAULTS = {"another day": 0, "the last response is another": -916, "the last scalar of the ranges is another": -1}
"""Which byte of the proof is changed, from its end; 0: none, but the request's day, inside and out."""


@pytest.mark.parametrize("fault", FAULTS)
def test_refused(fault: str, either: Backend) -> None:
    vector, place = load(), FAULTS[fault]
    request = canonical.decode(EligibilityRequest, bytes.fromhex(vector["request"]))
    data = bytearray(bytes.fromhex(vector["proof"]))
    if place:
        data[place] ^= 1
    else:
        data = data.replace(canonical.encode(request), canonical.encode(_next_day(request)))
        request = _next_day(request)
    with pytest.raises(VerificationError) as caught:
        eligibility.verify(canonical.decode(Eligibility, bytes(data)), request, either)
    assert caught.value.code == "zkp.bad_proof"


def _next_day(request: EligibilityRequest) -> EligibilityRequest:
    from msgspec.structs import replace

    return replace(request, service_day=request.service_day + 1)


def made() -> dict[str, Any]:
    from tests.zkp.test_eligibility import asked, held, rand_of

    proof = eligibility.prove(asked("filed"), held("filed"), rand_of("vector"), backend())
    holdings = held("filed")
    return {
        "schemas": [schema.id.hex() for schema in (PERSON, ENCOUNTER)],
        "person": canonical.encode(holdings.person).hex(),
        "encounter": canonical.encode(holdings.encounter).hex(),
        "request": canonical.encode(asked("filed")).hex(),
        "proof": canonical.encode(proof).hex(),
    }


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(made(), indent=1) + "\n")
