"""What a member signed and what can be checked alone: whose signature it is, by the trust file.

Of an erasure's receipt, of a notice of deletion and of its acknowledgement nothing stands on the ledger: they are the
word of whoever signed them. That what a receipt says is gone is looked for at home (`medveil erasure check`).
"""

from __future__ import annotations

from privacy.erasure.deletion import DeleteNotice, Deletion, verify_deletion, verify_notice
from privacy.erasure.receipt import ErasureReceipt, verify_receipt
from wire.checkpoint import TrustFile
from wire.errors import VerificationError
from wire.signing import Signature, VerifyKey

SIGNED = (ErasureReceipt, DeleteNotice, Deletion)
Signed = ErasureReceipt | DeleteNotice | Deletion


def envelope_key(trust: TrustFile, organisation: str, signature: Signature) -> VerifyKey | None:
    """The envelope key that signed, of all that `organisation` has or had; None for none of them."""
    for epoch in reversed(trust.epochs):
        member = epoch.find(organisation)
        if member is not None and member.keys.envelope.key.key_id() == signature.key_id:
            return member.keys.envelope.key
    return None


def check_statement(said: Signed, trust: TrustFile) -> str:
    """Check that who is said to have signed did, as a member; returns what that shows. Raises VerificationError."""
    by = said.recipient if isinstance(said, Deletion) else said.organisation
    key = envelope_key(trust, by, said.signature)
    if key is None:
        raise VerificationError("privacy.erasure_signature", organisation=by)
    if isinstance(said, ErasureReceipt):
        verify_receipt(said, key)
        return f"signed by {by}; that it is gone there, medveil erasure check looks for at its home"
    if isinstance(said, DeleteNotice):
        verify_notice(said, [key], said.recipient)
        return f"signed by {by}, to {said.recipient}"
    verify_deletion(said, [key], said.organisation)
    word = "it deleted the extract" if said.found == "deleted" else "the extract never came to it"
    return f"signed by {by}, to {said.organisation}: its word that {word}"
