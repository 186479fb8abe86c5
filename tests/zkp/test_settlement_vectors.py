"""Our own vectors of settlement and reversal: both backends agree with the file, and on what they refuse.

The file pins every encoding below it, the account credential, the policy row and the bureau's answer included: if one
of these tests fails, claims of an earlier version no longer verify, or a wallet no longer finds its account again, and
a version must change. ``python -m tests.zkp.test_settlement_vectors`` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.zkp.claims import ROW, settled
from tests.zkp.holders import BUREAU_ACCOUNT, holder
from wire import canonical, evidence
from wire.errors import VerificationError
from zkp import account, reversal, settlement
from zkp.blind_issuance import BlindSignature
from zkp.credentials import ACCOUNT
from zkp.groups import Backend
from zkp.policy import row_id
from zkp.reversal import Redeemed
from zkp.settlement import Settlement

FILE = Path(__file__).resolve().parent.parent / "vectors" / "settlement" / "paid-and-reversed.json"
OP = bytes(32)
"""The id under which the bureau answers."""


def load() -> dict[str, bytes]:
    return {name: bytes.fromhex(value) for name, value in json.loads(FILE.read_text()).items()}


def test_accepted(either: Backend) -> None:
    vector = load()
    paid, back = evidence.read(vector["settlement"]), evidence.read(vector["redemption"])
    assert isinstance(paid, Settlement) and isinstance(back, Redeemed)
    settlement.verify(paid, paid.claim, either)
    reversal.verify(back, back.redemption, either)
    answer = canonical.decode(BlindSignature, vector["answer"])
    account.check_update(BUREAU_ACCOUNT.of, paid.following, answer, either)
    assert account.sign_update(BUREAU_ACCOUNT, OP, paid.following, either) == answer


def test_made_again() -> None:
    """From the same credentials, wallet bytes and randomness: the same bytes."""
    assert made() == json.loads(FILE.read_text())


FAULTS = ["nonce", "layer", "another day", "the note", "the last response", "payment and deductible swapped"]


@pytest.mark.parametrize("fault", FAULTS)
def test_refused(fault: str, either: Backend) -> None:
    true = canonical.decode(Settlement, load()["settlement"])
    replace, claim = msgspec.structs.replace, true.claim
    message = {
        "nonce": replace(true, claim=replace(claim, nonce=bytes(32))),
        "layer": replace(true, claim=replace(claim, row=replace(claim.row, layer=2))),
        "another day": replace(true, claim=replace(claim, service_day=claim.service_day + 1)),
        "the note": replace(true, note=bytes(settlement.NOTE_BYTES)),
        "the last response": replace(true, proof=true.proof[:-1] + bytes([true.proof[-1] ^ 1])),
        "payment and deductible swapped": replace(true, paid=true.deducted, deducted=true.paid),
    }[fault]
    with pytest.raises(VerificationError) as caught:
        settlement.verify(message, message.claim, either)
    assert caught.value.code == "zkp.bad_proof"


def made() -> dict[str, Any]:
    from tests.zkp.test_reversal import redeemed

    paid, _ = settled()
    found = {
        "schema": ACCOUNT.id,
        "row": row_id(ROW),
        "account": canonical.encode(holder().account),
        "settlement": canonical.encode(paid),
        "answer": canonical.encode(account.sign_update(BUREAU_ACCOUNT, OP, paid.following)),
        "redemption": canonical.encode(redeemed()[0]),
    }
    return {name: value.hex() for name, value in found.items()}


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(made(), indent=1) + "\n")
