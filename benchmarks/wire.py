"""The wire floor beside the bare libraries under it: what strictness costs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nacl import bindings

from benchmarks.machine import peer
from benchmarks.measure import Figure, compare
from ledger.contracts.grants import AnchorGrant
from ledger.envelope import Envelope
from wire import canonical
from wire.domains import ENVELOPE, SEAL_MESSAGE, framed
from wire.sealing import HYBRID, X25519, OpenKey, SealKey, seal
from wire.signing import Signer, verify

LOOP = 500


def example() -> Envelope:
    """An envelope of four ops, about 450 bytes encoded."""
    ops = tuple(AnchorGrant(f"grant-{number}", bytes([number]) * 32, 0, 2**40, number) for number in range(4))
    return Envelope(1, bytes(32), "hospital-1", 7, 1000, ops)


def run(quick: bool) -> Iterator[Figure]:
    """Encode, decode, verify, seal."""
    envelope = example()
    data = canonical.encode(envelope)
    encoder = msgspec.msgpack.Encoder(order="deterministic")
    decoder = msgspec.msgpack.Decoder(Envelope)
    times = range(LOOP // (5 if quick else 1))
    count = len(times)

    def loop_encode() -> None:
        for _ in times:
            canonical.encode(envelope)

    def bare_encode() -> None:
        for _ in times:
            encoder.encode(envelope)

    def loop_decode() -> None:
        for _ in times:
            canonical.decode(Envelope, data)

    def bare_decode() -> None:
        for _ in times:
            decoder.decode(data)

    bare = peer("msgspec")
    yield compare("encode", "us", bare, loop_encode, bare_encode, quick, count)
    yield compare("decode", "us", bare, loop_decode, bare_decode, quick, count)

    signer = Signer(bytes(32))
    signature = signer.sign(ENVELOPE, data)
    message = signature.value + framed(ENVELOPE, data)

    def loop_verify() -> None:
        for _ in times:
            verify(signer.key, ENVELOPE, data, signature)

    def bare_verify() -> None:
        for _ in times:
            bindings.crypto_sign_open(message, signer.key.public)

    yield compare("verify", "us", peer("pynacl", "ed25519"), loop_verify, bare_verify, quick, count)
    yield from _sealing(quick, data)


def _sealing(quick: bool, data: bytes) -> Iterator[Figure]:
    """Sealing beside what it cannot do without: an ephemeral key and an agreement."""
    other = X25519PrivateKey.generate().public_key()
    times = range(20 if quick else 200)

    def bare_agreement() -> None:
        for _ in times:
            X25519PrivateKey.generate().exchange(other)

    for figure, suite in (("seal", X25519), ("seal-hybrid", HYBRID)):
        recipient = OpenKey.generate(secrets.token_bytes, suite).key

        def loop_seal(recipient: SealKey = recipient) -> None:
            for _ in times:
                seal(recipient, SEAL_MESSAGE, data)

        yield compare(figure, "us", peer("cryptography", "bare X25519"), loop_seal, bare_agreement, quick, len(times))
