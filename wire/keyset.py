"""The key set of an organisation: which public key it uses for what, and from which height.

Five uses, five keys: `envelope` signs ledger envelopes, grants and protocol messages; `cosign`
countersigns checkpoints; `http` signs requests of programs; `tls` stands behind mutual TLS;
`seal` opens what is sealed to the organisation. One use never stands in for another.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from wire.canonical import Wire
from wire.dates import Instant
from wire.identifiers import Name
from wire.sealing import SealKey
from wire.signing import VerifyKey

Height = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Tier = Literal["", "national", "province", "city", "county"]
"""The administrative level at which an organisation acts; empty for one that has none, such as a drug maker."""


class SignatureKey(Wire, frozen=True, tag="wire.signature_key"):
    """A signature key and the block height from which it is valid."""

    key: VerifyKey
    valid_from: Height


class SealingKey(Wire, frozen=True, tag="wire.sealing_key"):
    """A sealing key and the block height from which it is valid."""

    key: SealKey
    valid_from: Height


class KeySet(Wire, frozen=True, tag="wire.key_set"):
    """The current keys of one organisation, all public."""

    envelope: SignatureKey
    cosign: SignatureKey
    http: SignatureKey
    tls: SignatureKey
    seal: SealingKey


class Member(Wire, frozen=True, tag="wire.member"):
    """One organisation of the consortium as genesis or the trust file names it.

    re_executes: whether its cosignature counts, because it replays every block before it signs.
    """

    organisation: Name
    roles: tuple[str, ...]
    keys: KeySet
    re_executes: bool
    tier: Tier = ""


class MembershipChange(Wire, frozen=True, tag="wire.membership_change"):
    """What an organisation is from some block on. member: as it joined, or with its new keys; None: it left."""

    organisation: Name
    member: Member | None


class MembershipChanges(Wire, frozen=True, tag="wire.membership_changes"):
    """All changes that hold from block `from_height` (>= 1) on, in the order in which they were agreed.

    previous: height of the changes before these, 0 for none: so none can be left out of a list unseen.
    """

    from_height: Height
    previous: Height
    changes: Annotated[tuple[MembershipChange, ...], msgspec.Meta(min_length=1, max_length=1000)]


class Founding(Wire, frozen=True, tag="wire.founding"):
    """Genesis: what the members agreed on before block 1. Its hash names the chain for good.

    k: cosigners needed. sequencer: the organisation that orders blocks. zone: IANA zone of civil days.
    """

    chain: Name
    members: tuple[Member, ...]
    sequencer: Name
    k: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    zone: str
    time: Instant
