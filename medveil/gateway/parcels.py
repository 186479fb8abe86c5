"""Parcels: what an organisation sends to one other, signed by the sender and sealed to the recipient.

HPKE does not name its sender, so the signature is inside the seal and covers recipient, session and
sequence: a recipient cannot pass the parcel on as meant for somebody else, nor replay it elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated

import msgspec

from wire import sealing
from wire.canonical import Wire, decode, encode
from wire.domains import MESSAGE, SEAL_MESSAGE, framed
from wire.errors import VerificationError
from wire.identifiers import Name
from wire.sealing import Sealed, SealKey
from wire.signing import Signature, Signer, VerifyKey, verify

Unseal = Callable[[bytes, Sealed], bytes]
"""Opens what was sealed to the recipient under that info. Raises VerificationError."""


class Address(Wire, frozen=True, tag="medveil.address"):
    """From whom, to whom, in which session and place: public to the channel, bound by seal and signature."""

    sender: Name
    recipient: Name
    session: bytes
    sequence: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class Parcel(Wire, frozen=True, tag="medveil.parcel"):
    """Address, content (secret) and the sender's signature over both."""

    address: Address
    body: bytes
    signature: Signature


class _Signed(Wire, frozen=True, tag="medveil.parcel_body"):
    address: Address
    body: bytes


def pack(address: Address, body: bytes, signer: Signer, recipient_key: SealKey) -> bytes:
    """The bytes that go through the channel. signer: the sender's envelope key; body: secret."""
    signature = signer.sign(MESSAGE, encode(_Signed(address, body)))
    plaintext = encode(Parcel(address, body, signature))
    return encode(sealing.seal(recipient_key, framed(SEAL_MESSAGE, encode(address)), plaintext))


def unpack(payload: bytes, address: Address, unseal: Unseal, sender_keys: Collection[VerifyKey]) -> bytes:
    """The body, if the parcel is what `address` says, signed by one of `sender_keys`.

    unseal: opens what was sealed to the recipient. Raises VerificationError or DecodeError.
    """
    plaintext = unseal(framed(SEAL_MESSAGE, encode(address)), decode(Sealed, payload))
    parcel = decode(Parcel, plaintext)
    if parcel.address != address:
        raise VerificationError("channel.misaddressed", sender=address.sender)
    named = next((key for key in sender_keys if key.key_id() == parcel.signature.key_id), None)
    if named is None:
        raise VerificationError("channel.other_key", sender=address.sender)
    verify(named, MESSAGE, encode(_Signed(parcel.address, parcel.body)), parcel.signature)
    return parcel.body
