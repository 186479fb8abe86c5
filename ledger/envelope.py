"""Envelopes: signed batches of ops, the only thing that changes the ledger.

    SignedEnvelope = Envelope {version, chain, sender, nonce, expiry_height, ops[1..256]} + Signature

The signature is the sender's envelope key's, under the domain ENVELOPE, over the canonical bytes of
the envelope. `chain` is the hash of genesis, so an envelope of one chain means nothing on another;
nonces run 0, 1, 2, ... per sender, so each envelope counts once; after `expiry_height` it is void.
An atomic envelope's ops happen all or none; of one that is not atomic each op happens or is refused by
itself, in order.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import msgspec

from ledger.contracts import CONTRACTS, Op, RotateKeys, VoteAdmission
from wire.canonical import Wire, decode, encode
from wire.domains import ENVELOPE, ENVELOPE_ID, digest
from wire.errors import DecodeError, VerificationError
from wire.identifiers import Hash, Name
from wire.keyset import Height
from wire.signing import Signature, Signer, VerifyKey, verify

VERSION = 1
MOST_OPS = 256
LARGEST = 1280 * 1024
"""Longest envelope in bytes: room for the sums of a phase of 2^17 cells (9 bytes each)."""

V = TypeVar("V")

Nonce = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Envelope(Wire, frozen=True, tag="ledger.envelope"):
    """chain: genesis hash; nonce: the sender's next; expiry_height: last block height that may carry it.

    atomic: whether a refused op undoes all the others.
    """

    version: Annotated[int, msgspec.Meta(ge=0, le=255)]
    chain: Hash
    sender: Name
    nonce: Nonce
    expiry_height: Height
    ops: Annotated[tuple[Op, ...], msgspec.Meta(min_length=1, max_length=MOST_OPS)]
    atomic: bool = True


class SignedEnvelope(Wire, frozen=True, tag="ledger.signed_envelope"):
    """What travels to the sequencer and stands in a block."""

    envelope: Envelope
    signature: Signature


_TAGS = frozenset(op.__struct_config__.tag for contract in CONTRACTS for op in contract.ops)


def sign_envelope(signer: Signer, envelope: Envelope) -> bytes:
    """The signed envelope's bytes. `signer` holds the sender's envelope key."""
    data = encode(SignedEnvelope(envelope, signer.sign(ENVELOPE, encode(envelope))))
    if len(data) > LARGEST:
        raise DecodeError("ledger.envelope_too_large", length=len(data), limit=LARGEST)
    return data


def envelope_id(data: bytes) -> bytes:
    """The 32-byte id of a signed envelope: the hash of its bytes."""
    return digest(ENVELOPE_ID, data)


class _Recent(Generic[V]):
    """What was worked out lately, so that submission, execution and replicas of one process do it once.

    Keeps between `room` and twice that in weight: when the young half is full, the old one is dropped.
    """

    def __init__(self, room: int) -> None:
        self._room, self._weight = room, 0
        self._young: dict[bytes, V] = {}
        self._old: dict[bytes, V] = {}

    def get(self, key: bytes) -> V | None:
        found = self._young.get(key)
        return found if found is not None else self._old.get(key)

    def put(self, key: bytes, value: V, weight: int) -> None:
        if self._weight >= self._room:
            self._old, self._young, self._weight = self._young, {}, 0
        self._young[key] = value
        self._weight += weight

    def clear(self) -> None:
        self._young, self._old, self._weight = {}, {}, 0


_opened = _Recent[SignedEnvelope](1024 * 1024)  # bytes; opened, they take up to 60 times as much
_LONGEST_KEPT = 64 * 1024
_COSTLY = (VoteAdmission, RotateKeys)
"""Ops that make everybody check four signatures: at most one an envelope, so that a quota of them stays cheap."""
_authentic = _Recent[bool](32_768)  # signatures


def forget() -> None:
    """Forget which envelopes were opened and checked before: to measure, nothing else depends on it."""
    _opened.clear()
    _authentic.clear()


def open_envelope(data: bytes) -> SignedEnvelope:
    """The envelope that `data` is, its signature not yet checked.

    Raises DecodeError: too large, not canonical, unknown op, unknown version.
    """
    return _opened.get(data) or _open(data)


def keep_open(data: bytes, signed: SignedEnvelope) -> None:
    """Remember what `data` opens to, now that its signature held: a stranger's bytes take no room for longer."""
    if len(data) <= _LONGEST_KEPT and _opened.get(data) is None:
        _opened.put(data, signed, len(data))


def _open(data: bytes) -> SignedEnvelope:
    if len(data) > LARGEST:
        raise DecodeError("ledger.envelope_too_large", length=len(data), limit=LARGEST)
    try:
        signed = decode(SignedEnvelope, data)
    except DecodeError:
        unknown = _unknown_op(data)
        if unknown is not None:
            raise DecodeError("ledger.unknown_op", op=unknown) from None
        raise
    if signed.envelope.version != VERSION:
        raise DecodeError("ledger.envelope_version", version=signed.envelope.version)
    if sum(isinstance(op, _COSTLY) for op in signed.envelope.ops) > 1:
        raise DecodeError("ledger.costly_ops", organisation=signed.envelope.sender)
    return signed


def _unknown_op(data: bytes) -> str | None:
    """The first op tag nobody knows, if `data` at least looks like an envelope: for the message only.

    Not of a long one: what is not decoded as a type can take many times its length.
    """
    if len(data) > _LONGEST_KEPT:
        return None
    try:
        outer: Any = msgspec.msgpack.decode(data)
        for op in outer[1][6]:
            tag = op[0]
            if isinstance(tag, str) and tag not in _TAGS:
                return tag if tag.isascii() and tag.isprintable() and len(tag) <= 64 else "?"
    except (msgspec.MsgspecError, UnicodeError, RecursionError, LookupError, TypeError):
        pass
    return None


def check_signature(signed: SignedEnvelope, key: VerifyKey) -> None:
    """Check the signature by the sender's envelope `key`. Raises VerificationError.

    A valid signature stays valid: replicas of one process need not check it eight times. What is kept is a
    hash of key, message and signature, of those only that held.
    """
    message = encode(signed.envelope)
    checked = digest(ENVELOPE, encode(key), message, encode(signed.signature))
    if _authentic.get(checked):
        return
    try:
        verify(key, ENVELOPE, message, signed.signature)
    except VerificationError:
        raise VerificationError("ledger.envelope_signature", organisation=signed.envelope.sender) from None
    _authentic.put(checked, True, 1)


def check_chain(signed: SignedEnvelope, genesis: bytes) -> None:
    """Check that the envelope is of the chain with that genesis hash. Raises VerificationError."""
    if signed.envelope.chain != genesis:
        raise VerificationError("ledger.wrong_chain", organisation=signed.envelope.sender)
