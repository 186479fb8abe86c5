"""Consent receipts: the issuer's signature, and the grant that they speak of as the ledger has it."""

from __future__ import annotations

from ledger.contracts import grants
from medveil.verification.case import Case
from medveil.verification.evidence import Files, fails, of
from medveil.verification.signed import envelope_key
from privacy.grants.consent_receipt import ConsentReceipt, check_receipt
from wire.checkpoint import TrustFile
from wire.errors import MedveilError, VerificationError


def check_signed(receipt: ConsentReceipt, trust: TrustFile) -> None:
    """Check that the issuer signed it, with an envelope key that it has or had. Raises VerificationError."""
    key = envelope_key(trust, receipt.issuer, receipt.signature)
    if key is None:
        raise VerificationError("privacy.consent_receipt", grant=receipt.grant)
    check_receipt(receipt, key)


def check_consents(case: Case, files: Files) -> None:
    """Every consent receipt of a folder: signed by its issuer, of terms that the ledger has or had under that id."""
    for where, receipt in of(files, ConsentReceipt):
        try:
            check_signed(receipt, case.trust)
            state = case.machine.get(grants.grant_key(receipt.grant), grants.GrantState)
            anchored = {state.commitment, *(past.commitment for past in state.past)} if state is not None else set()
            if state is None or state.issuer != receipt.issuer or receipt.commitment not in anchored:
                raise VerificationError("verify.missing", what="grant on the ledger", name=receipt.grant)
        except MedveilError as error:
            raise fails(where, error) from None
        case.held("consent receipts are signed by their issuers, their grants on the ledger", where)
