"""Consent receipts in a folder: the issuer's signature, and a grant that the ledger knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from privacy.grants.consent_receipt import ConsentReceipt, make_receipt, read_consent
from privacy.grants.terms import GrantTerms, plain_terms
from wire.canonical import encode
from wire.errors import VerificationError

NAME = "consents/study.evidence"
replace = msgspec.structs.replace


def test_a_receipt_holds_beside_the_ledger(case: Any, tmp_path: Path) -> None:
    report = case.verify(case.write(tmp_path / "evidence"))
    assert report.verdict == "verified"
    assert [check.count for check in report.checks if check.what.startswith("consent receipts")] == [1]


def terms(**changes: Any) -> GrantTerms:
    """Terms of the bureau's own making, under the id of another's grant."""
    parties = ("study-hospital-1", "bureau", "researcher", "stays-hospital-1")
    made = plain_terms(
        *parties, ("cost",), purposes=("HMB",), uses=("query",), legal_basis="consent", not_before=0, expires=9
    )
    return replace(made, **changes)


def test_a_receipt_that_the_bureau_made_up(case: Any, tmp_path: Path) -> None:
    real: ConsentReceipt = case.structs[NAME]
    forged = [
        make_receipt(terms(grant=real.grant), real.commitment, "active", 5, case.signer),  # of somebody else's grant
        make_receipt(terms(grant="never"), bytes(32), "active", 5, case.signer),  # of no grant
        make_receipt(terms(grant=real.grant, issuer="hospital-1"), real.commitment, "active", 5, case.signer),
        make_receipt(terms(grant=real.grant, issuer="stranger"), real.commitment, "active", 5, case.signer),
        replace(real, at=real.at + 1),
        replace(real, issuer="hospital-2"),
        replace(real, commitment=bytes(32)),
        replace(real, consent=real.consent.replace(b"active", b"inactive")),
    ]
    for number, receipt in enumerate(forged):
        folder = tmp_path / str(number)
        case.write(folder, case.structs | {NAME: receipt})
        with pytest.raises(VerificationError) as found:
            case.verify(folder)
        assert NAME in found.value.message
    assert read_consent(real.consent).status == "active"
    assert len(encode(real)) < 8000
