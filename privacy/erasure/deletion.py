"""Deleting what was given away: the notice that an extract has to go, and the recipient's word that it is gone.

    organisation -> recipient   DeleteNotice   an extract that rests on consent has to be deleted
    recipient -> organisation   Deletion       its sealed file is deleted; or it never came here

A notice names an extract as a whole and says nothing about persons: which of them it is about stays at home. The answer
says what it cannot reach (`REACH`): what was read is in people's heads and files, and a gateway knows nothing of copies
that were carried elsewhere. A recipient also says so unasked, when the day has come by which it had to delete.

Adversary: neither can be made up or altered by others. That a recipient deleted is its word, which nobody can check.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from wire import evidence, messages
from wire.canonical import Wire, encode
from wire.dates import Instant
from wire.domains import DELETE_NOTICE, DELETION, digest
from wire.errors import VerificationError
from wire.evidence import Header
from wire.identifiers import Handle, Name
from wire.signing import Signature, Signer, VerifyKey, verify

Why = Literal["erasure", "consent-revoked", "withdrawn", "due", "chosen"]
"""Why it goes: somebody in it was erased, the consent was revoked, its issuer took it back while it was on its way, its
day has come, or its recipient chose so."""
Found = Literal["deleted", "not-held"]
"""What a recipient found: the sealed file, which is deleted; or that the extract never came to its gateway."""
Reach = Literal["opened", "copies"]

REACH: tuple[Reach, ...] = ("opened", "copies")
"""What a deletion does not reach: what was opened before; copies outside of the gateway. Each has a sentence."""

_SENTENCES = {"opened": "privacy.deletion_opened", "copies": "privacy.deletion_copies"}


def reach_text(what: Reach, language: str = "en") -> str:
    """One of `REACH` in words, with what can be done about it: "en" or "zh"."""
    return messages.text(_SENTENCES[what], {}, language)


class DeleteNotice(Wire, frozen=True, tag="privacy.delete_notice"):
    """An extract that its recipient has to delete.

    extract: its id. entry: sequence number of the use that released it, in the issuer's trail. released: when.
    delete_by: when the recipient must have deleted it.
    """

    header: Header
    why: Why
    organisation: Name
    recipient: Name
    dataset: Name
    grant: Name
    extract: Handle
    entry: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    released: Instant
    delete_by: Instant
    signature: Signature

    def id(self) -> bytes:
        """16 bytes that name this notice: of the extract that it is about, whoever signed it when."""
        said = (self.organisation.encode(), self.recipient.encode(), self.extract, self.entry.to_bytes(8, "big"))
        return digest(DELETE_NOTICE, *said)[:16]


class Deletion(Wire, frozen=True, tag="privacy.deletion"):
    """A recipient's word about an extract of `organisation`.

    notice: the id of what it answers, or b"" where nobody asked. at: when it was deleted, or looked for in vain, by the
    recipient's own clock. beyond: what it does not reach.
    """

    header: Header
    notice: Annotated[bytes, msgspec.Meta(max_length=16)]
    organisation: Name
    recipient: Name
    extract: Handle
    found: Found
    why: Why
    at: Instant
    beyond: Annotated[tuple[Reach, ...], msgspec.Meta(max_length=8)]
    signature: Signature


NOTICE_HEADER = evidence.register("delete-notice", 1, DeleteNotice)
DELETION_HEADER = evidence.register("deletion", 1, Deletion)

UNSIGNED = Signature(0, b"", b"")
"""Stands where the signature will be, and is what is signed."""


def sign_notice(notice: DeleteNotice, signer: Signer) -> DeleteNotice:
    """The notice under the issuer's envelope key."""
    return msgspec.structs.replace(notice, signature=signer.sign(DELETE_NOTICE, _unsigned(notice)))


def verify_notice(notice: DeleteNotice, keys: Iterable[VerifyKey], recipient: str) -> None:
    """Recipient: check that one of the issuer's `keys` signed a notice to `recipient`. Raises VerificationError."""
    if notice.recipient != recipient:
        raise VerificationError("privacy.erasure_signature", organisation=notice.organisation)
    _check(keys, DELETE_NOTICE, notice, notice.organisation)


def sign_deletion(deletion: Deletion, signer: Signer) -> Deletion:
    """Recipient: the answer under its envelope key."""
    return msgspec.structs.replace(deletion, signature=signer.sign(DELETION, _unsigned(deletion)))


def verify_deletion(deletion: Deletion, keys: Iterable[VerifyKey], organisation: str) -> None:
    """Check that one of the recipient's `keys` signed it, towards `organisation`. Raises VerificationError."""
    if deletion.organisation != organisation:
        raise VerificationError("privacy.erasure_signature", organisation=deletion.recipient)
    _check(keys, DELETION, deletion, deletion.recipient)


def _check(keys: Iterable[VerifyKey], domain: bytes, struct: DeleteNotice | Deletion, by: str) -> None:
    key = next((key for key in keys if key.key_id() == struct.signature.key_id), None)
    try:
        if key is None:
            raise VerificationError("privacy.erasure_signature", organisation=by)
        verify(key, domain, _unsigned(struct), struct.signature)
    except VerificationError:
        raise VerificationError("privacy.erasure_signature", organisation=by) from None


def _unsigned(struct: DeleteNotice | Deletion) -> bytes:
    return encode(msgspec.structs.replace(struct, signature=UNSIGNED))
