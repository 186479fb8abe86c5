"""Our own vectors of the bill-limit proof: both backends agree with the files, and on what they refuse.

The files pin the format: if one of these tests fails, proofs made by an earlier version no longer
verify, and the suite or version must change. ``python tests/zkp/test_vectors.py`` writes them anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wire import canonical
from wire.errors import DecodeError, VerificationError
from wire.money import Amount
from zkp import bill_limit, range_proof
from zkp.bill_limit import Bill, BillOpening, LimitRequest, Presentation
from zkp.groups import BACKENDS, Backend, R, backend, decode_scalar
from zkp.pedersen import check_opening
from zkp.range_proof import Bound

FOLDER = Path(__file__).resolve().parent.parent / "vectors" / "bill-limit"


def rand(length: int) -> bytes:
    """The prover's randomness of the vectors."""
    return hashlib.shake_256(b"medveil bill-limit vectors").digest(length)


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def structs(vector: dict[str, str]) -> tuple[Bill, LimitRequest, bytes]:
    bill = canonical.decode(Bill, bytes.fromhex(vector["bill"]))
    request = canonical.decode(LimitRequest, bytes.fromhex(vector["request"]))
    return bill, request, bytes.fromhex(vector["presentation"])


def test_accepted(either: Backend) -> None:
    vector = load("accepted.json")
    bill, request, data = structs(vector)
    opening = canonical.decode(BillOpening, bytes.fromhex(vector["opening"]))
    check_opening(either.decode(bill.commitment), opening.amount, decode_scalar(opening.blinding), either)
    bill_limit.verify(canonical.decode(Presentation, data), request, bill, either)


def test_made_again() -> None:
    vector = load("accepted.json")
    bill, request, data = structs(vector)
    opening = canonical.decode(BillOpening, bytes.fromhex(vector["opening"]))
    assert canonical.encode(bill_limit.prove(request, bill, opening, rand)) == data


REFUSED = {"DecodeError": DecodeError, "VerificationError": VerificationError}


@pytest.mark.parametrize("vector", load("refused.json"), ids=lambda vector: vector["fault"].replace(" ", "-"))
def test_refused(vector: dict[str, str]) -> None:
    bill, request, data = structs(vector)
    for name in BACKENDS:
        with pytest.raises(REFUSED[vector["error"]]) as caught:
            bill_limit.verify(canonical.decode(Presentation, data), request, bill, backend(name))
        assert caught.value.code == vector["code"]


# ------------------------------------------------------------------------------- making the files anew


def made() -> tuple[dict[str, str], list[dict[str, str]]]:
    bill, opening = bill_limit.commit_bill(bytes(range(16)), Amount(128_50, "CNY"), rand)
    request = LimitRequest(
        "demo", bill.handle, 200_00, "CNY", "insurer-1", bytes(range(32)), "ELIGVER", "grant-eligibility-1"
    )
    data = canonical.encode(bill_limit.prove(request, bill, opening, rand))
    common = {"bill": canonical.encode(bill).hex(), "request": canonical.encode(request).hex()}
    accepted = {**common, "opening": canonical.encode(opening).hex(), "presentation": data.hex()}
    return accepted, [{**fault, **common} for fault in faults(data)]


def faults(data: bytes) -> Iterator[dict[str, str]]:
    points = range_proof.proof_bytes([Bound(0, 200_00)]) - 9 * 32
    start = len(data) - 9 * 32 - points
    r = start + points

    def fault(name: str, changed: bytes, error: str, code: str) -> dict[str, str]:
        return {"fault": name, "error": error, "code": code, "presentation": changed.hex()}

    def at(place: int, part: bytes) -> bytes:
        return data[:place] + part + data[place + len(part) :]

    malformed = ("VerificationError", "zkp.malformed_proof")
    wrong = ("VerificationError", "zkp.bad_proof")
    yield fault("point A is the identity", at(start, bytes([0xC0]) + bytes(47)), *malformed)
    yield fault("point A is the identity with a sign", at(start, bytes([0xE0]) + bytes(47)), *malformed)
    yield fault("point R has no compression flag", at(start + 96, bytes([data[start + 96] & 0x7F])), *malformed)
    yield fault("point L is outside the subgroup", at(start + 48, bytes([0x80]) + bytes(46) + b"\4"), *malformed)
    yield fault("scalar r is the order", at(r, R.to_bytes(32, "big")), *malformed)
    yield fault("last scalar is negated", data[:-32] + (-decode_scalar(data[-32:]) % R).to_bytes(32, "big"), *wrong)
    yield fault(
        "points A and L are swapped", at(start, data[start + 48 : start + 96] + data[start : start + 48]), *wrong
    )
    yield fault("scalar r is one more", at(r, (decode_scalar(data[r : r + 32]) + 1).to_bytes(32, "big")), *wrong)
    yield fault("proof is cut", data[:-1], "DecodeError", "wire.not_canonical")
    yield fault("a byte follows", data + b"\0", "DecodeError", "wire.not_canonical")
    limit = data.index((200_00).to_bytes(2, "big"))
    yield fault("limit is raised", at(limit, (200_01).to_bytes(2, "big")), "VerificationError", "zkp.not_as_asked")
    yield fault(
        "another audience",
        data.replace(b"insurer-1", b"insurer-2"),
        "VerificationError",
        "zkp.not_as_asked",
    )
    yield fault("another handle", data.replace(bytes(range(16)), bytes(16), 1), "VerificationError", "zkp.not_as_asked")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, content in zip(("accepted.json", "refused.json"), made(), strict=True):
        (FOLDER / file).write_text(json.dumps(content, indent=1) + "\n")
