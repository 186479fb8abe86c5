"""What an erasure leaves in the hand: a signed receipt, notices to recipients, and their acknowledgements.

    organisation -> person      ErasureReceipt   what was destroyed, what is restricted until when, who was told
    organisation -> recipient   DeleteNotice     an extract that rests on consent has to be deleted
    recipient -> organisation   Deletion         it is deleted

A receipt states what was done at home and when, and what it cannot reach. It is checkable: `privacy.erasure_check`
looks for each destroyed key where it is said to be gone. It names data keys by their random ids and the person by the
vault's keyed id: whoever has no index key cannot tell whom it is about. A later receipt of the same erasure has a
higher `issue` and says more: rotation done, deletions acknowledged.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from privacy.erasure_plan import Ground, PlannedKey
from privacy.grants import Reference
from wire import evidence, messages
from wire.canonical import Wire, encode
from wire.dates import Day, Instant
from wire.domains import DELETE_NOTICE, DELETION, ERASURE_RECEIPT, digest
from wire.errors import VerificationError
from wire.evidence import Header
from wire.identifiers import Handle, Name
from wire.signing import Signature, Signer, VerifyKey, verify

MARK_BYTES = 16

BEYOND = ("ledger", "releases", "recipients", "backups", "disk", "sources")
"""What no erasure at home reaches; each has a sentence in the catalogues."""

_SENTENCES = {
    "ledger": "privacy.beyond_ledger",
    "releases": "privacy.beyond_releases",
    "recipients": "privacy.beyond_recipients",
    "backups": "privacy.beyond_backups",
    "disk": "privacy.beyond_disk",
    "sources": "privacy.beyond_sources",
}


def beyond_text(what: str, language: str = "en") -> str:
    """One of `BEYOND` in words, with what can be done about it: "en" or "zh"."""
    return messages.text(_SENTENCES[what], {}, language)


class DeleteNotice(Wire, frozen=True, tag="privacy.delete_notice"):
    """An extract that its recipient has to delete: it may hold rows of somebody who was erased.

    entry: sequence number of the use that released it, in the issuer's trail. released: when. delete_by: when the
    recipient must have deleted it. Which person it is about is not said: the extract is deleted as a whole.
    """

    header: Header
    erasure: Handle
    organisation: Name
    recipient: Name
    dataset: Name
    grant: Name
    entry: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    released: Instant
    delete_by: Instant
    signature: Signature

    def id(self) -> bytes:
        """16 bytes that name this notice: of what it says, whoever signed it when."""
        said = (self.erasure, self.organisation.encode(), self.recipient.encode(), self.entry.to_bytes(8, "big"))
        return digest(DELETE_NOTICE, *said)[:16]


class Deletion(Wire, frozen=True, tag="privacy.deletion"):
    """A recipient's word that it deleted what a notice names, and every copy it made. at: when, by its own clock."""

    header: Header
    notice: Handle
    recipient: Name
    at: Instant
    signature: Signature


class Told(Wire, frozen=True, tag="privacy.recipient_told"):
    """A recipient in a receipt. told, acknowledged: instants; 0 for not yet."""

    recipient: Name
    dataset: Name
    grant: Name
    entry: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    told: Instant
    acknowledged: Instant


class DestroyedKey(Wire, frozen=True, tag="privacy.destroyed_key"):
    """A data key that is gone. mark: the first 16 bytes of its last wrap: where they are found, a wrap has survived."""

    key: Handle
    dataset: Name
    rows: Annotated[int, msgspec.Meta(ge=0)]
    mark: Annotated[bytes, msgspec.Meta(max_length=MARK_BYTES)]


class Trace(Wire, frozen=True, tag="privacy.erasure_trace"):
    """The intent of an erasure in the audit trail: one for each dataset."""

    dataset: Name
    entry: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]


class ErasureReceipt(Wire, frozen=True, tag="privacy.erasure_receipt"):
    """What was done about one person's data. Private to the person and the organisation; an evidence kind.

    person: keyed id. issue: 1, 2, ... of this erasure. requested, destroyed, recut, rotated, issued: instants, 0 for
    not (yet): the request, the destruction of the keys, the re-cut of the last snapshot, the rotation that ended the
    epoch of backups. rotate_by: the instant by which that is due. beyond: what it does not reach (`BEYOND`).
    """

    header: Header
    erasure: Handle
    organisation: Name
    issue: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    ground: Ground
    reference: Reference
    person: Handle
    day: Day
    requested: Instant
    destroyed: Instant
    keys: tuple[DestroyedKey, ...]
    restricted: tuple[PlannedKey, ...]
    recut: Instant
    rotate_by: Instant
    rotated: Instant
    traces: tuple[Trace, ...]
    recipients: tuple[Told, ...]
    beyond: tuple[str, ...]
    issued: Instant
    signature: Signature

    def __repr__(self) -> str:
        return f"ErasureReceipt({self.erasure.hex()})"


RECEIPT_HEADER = evidence.register("erasure-receipt", 1, ErasureReceipt)
NOTICE_HEADER = evidence.register("delete-notice", 1, DeleteNotice)
DELETION_HEADER = evidence.register("deletion", 1, Deletion)

UNSIGNED = Signature(0, b"", b"")
"""Stands where the signature will be, and is what is signed."""


def sign_receipt(receipt: ErasureReceipt, signer: Signer) -> ErasureReceipt:
    """The receipt under the organisation's envelope key."""
    return msgspec.structs.replace(receipt, signature=signer.sign(ERASURE_RECEIPT, _unsigned(receipt)))


def verify_receipt(receipt: ErasureReceipt, key: VerifyKey) -> None:
    """Check that `key`, the organisation's envelope key, signed the receipt. Raises VerificationError."""
    _check(key, ERASURE_RECEIPT, receipt, receipt.organisation)


def sign_notice(notice: DeleteNotice, signer: Signer) -> DeleteNotice:
    """The notice under the issuer's envelope key."""
    return msgspec.structs.replace(notice, signature=signer.sign(DELETE_NOTICE, _unsigned(notice)))


def verify_notice(notice: DeleteNotice, key: VerifyKey, recipient: str) -> None:
    """Recipient: check that `key`, the issuer's, signed a notice to `recipient`. Raises VerificationError."""
    if notice.recipient != recipient:
        raise VerificationError("privacy.erasure_signature", organisation=notice.organisation)
    _check(key, DELETE_NOTICE, notice, notice.organisation)


def acknowledge(notice: DeleteNotice, at: int, signer: Signer) -> Deletion:
    """Recipient: say, at instant `at`, that what the notice names is deleted."""
    said = Deletion(DELETION_HEADER, notice.id(), notice.recipient, at, UNSIGNED)
    return msgspec.structs.replace(said, signature=signer.sign(DELETION, _unsigned(said)))


def verify_deletion(deletion: Deletion, key: VerifyKey) -> None:
    """Check that `key`, the recipient's envelope key, signed. Raises VerificationError."""
    _check(key, DELETION, deletion, deletion.recipient)


def _check(key: VerifyKey, domain: bytes, struct: ErasureReceipt | DeleteNotice | Deletion, by: str) -> None:
    try:
        verify(key, domain, _unsigned(struct), struct.signature)
    except VerificationError:
        raise VerificationError("privacy.erasure_signature", organisation=by) from None


def _unsigned(struct: ErasureReceipt | DeleteNotice | Deletion) -> bytes:
    return encode(msgspec.structs.replace(struct, signature=UNSIGNED))
