"""What an erasure leaves in the person's hand: a signed receipt.

    organisation -> person   ErasureReceipt   what was destroyed, what is restricted until when, who was told

A receipt states what was done at home and when, and what it cannot reach. It is checkable: `privacy.erasure.check`
looks for each destroyed key where it is said to be gone. It names data keys by their random ids and the person by the
vault's keyed id: whoever has no index key cannot tell whom it is about. A later receipt of the same erasure has a
higher `issue` and says more: rotation done, deletions acknowledged.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from privacy.erasure.plan import Ground, PlannedKey
from privacy.grants.terms import Reference
from wire import evidence, messages
from wire.canonical import Wire, encode
from wire.dates import Day, Instant
from wire.domains import ERASURE_RECEIPT
from wire.errors import VerificationError
from wire.evidence import Header
from wire.identifiers import Handle, Name
from wire.signing import Signature, Signer, VerifyKey, verify

MARK_BYTES = 16
_WRAPS = 2
"""Wraps of a key that may survive: as it was used, and as it was restricted before it was destroyed."""

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


class Told(Wire, frozen=True, tag="privacy.recipient_told"):
    """A recipient in a receipt. told: when the notice to delete was handed to the post, which carries it until it
    arrives; acknowledged: when the recipient deleted it, by its signed word. 0 for not yet."""

    recipient: Name
    dataset: Name
    grant: Name
    entry: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    told: Instant
    acknowledged: Instant


class DestroyedKey(Wire, frozen=True, tag="privacy.destroyed_key"):
    """A data key that is gone. mark: the first 16 bytes of each of its last wraps: where any are found, it survived."""

    key: Handle
    dataset: Name
    rows: Annotated[int, msgspec.Meta(ge=0)]
    mark: Annotated[bytes, msgspec.Meta(max_length=_WRAPS * MARK_BYTES)]

    @property
    def marks(self) -> tuple[bytes, ...]:
        """Each of them."""
        return tuple(self.mark[start : start + MARK_BYTES] for start in range(0, len(self.mark), MARK_BYTES))


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

UNSIGNED = Signature(0, b"", b"")
"""Stands where the signature will be, and is what is signed."""


def sign_receipt(receipt: ErasureReceipt, signer: Signer) -> ErasureReceipt:
    """The receipt under the organisation's envelope key."""
    return msgspec.structs.replace(receipt, signature=signer.sign(ERASURE_RECEIPT, _unsigned(receipt)))


def verify_receipt(receipt: ErasureReceipt, key: VerifyKey) -> None:
    """Check that `key`, the organisation's envelope key, signed the receipt. Raises VerificationError."""
    _check(key, ERASURE_RECEIPT, receipt, receipt.organisation)


def _check(key: VerifyKey, domain: bytes, struct: ErasureReceipt, by: str) -> None:
    try:
        verify(key, domain, _unsigned(struct), struct.signature)
    except VerificationError:
        raise VerificationError("privacy.erasure_signature", organisation=by) from None


def _unsigned(struct: ErasureReceipt) -> bytes:
    return encode(msgspec.structs.replace(struct, signature=UNSIGNED))
