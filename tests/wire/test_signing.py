"""ed25519 with one pinned verifier: published vectors, every changed byte, and the edge cases.

The edge cases are those on which libraries disagree (Chalkias, Garillot, Nikolaenko, "Taming the
many EdDSAs", 2020). A chain's members must agree on each of them, so that each is a test: an
upgrade of the library that changes one fails here.
"""

from __future__ import annotations

import hashlib
import secrets

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from wire.canonical import decode, encode
from wire.domains import ENVELOPE, GRANT
from wire.errors import DecodeError, VerificationError
from wire.signing import ED25519, ML_DSA_65, SM2, Signature, Signer, VerifyKey, verify, verify_raw

SIGNER = Signer(bytes(range(32)))
MESSAGE = b"an envelope"

L = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19
IDENTITY = b"\x01" + bytes(31)

# The eight points of small order, and the non-canonical encodings of those of them that have one.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
NON_CANONICAL = [
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


def _scalar(value: int) -> bytes:
    return (value % L).to_bytes(32, "little")


def _base(value: int) -> bytes:
    """value * B, compressed; the identity for 0, which libsodium's own function refuses."""
    return bindings.crypto_scalarmult_ed25519_base_noclamp(_scalar(value)) if value % L else IDENTITY


def _challenge(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L


def _refused(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify_raw(VerifyKey(ED25519, public), message, signature)
    except VerificationError as error:
        assert error.code == "wire.bad_signature"
        return True
    return False


# RFC 8032, section 7.1: secret, public, message, signature
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
            "655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
            "b00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
            "c027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_published_vectors(secret: str, public: str, message: str, signature: str) -> None:
    signer = Signer(bytes.fromhex(secret))
    assert signer.key.public.hex() == public
    assert signer.sign_raw(bytes.fromhex(message)).hex() == signature
    verify_raw(signer.key, bytes.fromhex(message), bytes.fromhex(signature))


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_a_signature_holds_and_no_other_message_does(seed: bytes, message: bytes) -> None:
    signer = Signer(seed)
    signature = signer.sign(ENVELOPE, message)
    assert decode(Signature, encode(signature)) == signature
    verify(signer.key, ENVELOPE, message, signature)
    for other in (message + b"\x00", message[:-1] if message else b"x"):
        with pytest.raises(VerificationError):
            verify(signer.key, ENVELOPE, other, signature)
    with pytest.raises(VerificationError):
        verify(signer.key, GRANT, message, signature)


def test_every_changed_bit_is_caught() -> None:
    signature = SIGNER.sign_raw(MESSAGE)
    parts = [SIGNER.key.public, MESSAGE, signature]
    for which, part in enumerate(parts):
        for bit in range(8 * len(part)):
            changed = list(parts)
            flipped = bytearray(part)
            flipped[bit // 8] ^= 1 << bit % 8
            changed[which] = bytes(flipped)
            assert _refused(*changed)


def test_every_changed_byte_of_the_struct_is_caught() -> None:
    signature = SIGNER.sign(ENVELOPE, MESSAGE)
    data = encode(signature)
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises((DecodeError, VerificationError)):
            verify(SIGNER.key, ENVELOPE, MESSAGE, decode(Signature, changed))


@pytest.mark.parametrize("public", SMALL_ORDER + NON_CANONICAL)
def test_keys_of_small_order_and_odd_encodings_are_refused(public: str) -> None:
    """With A of small order, R = s*B - k*A is in reach for any message: nobody signed anything."""
    for scalar in range(1, 9):
        r = _base(scalar)
        assert _refused(bytes.fromhex(public), MESSAGE, r + _scalar(scalar))
    assert _refused(bytes.fromhex(public), MESSAGE, IDENTITY + bytes(32))


def test_the_identity_key_signs_nothing() -> None:
    """OpenSSL and zebra accept this one (findings, ledger): R = s*B under A = identity."""
    scalar = secrets.randbelow(L - 1) + 1
    forged = _base(scalar) + _scalar(scalar)
    assert _refused(IDENTITY, b"any message at all", forged)


def test_scalars_from_the_group_order_on_are_refused() -> None:
    signature = SIGNER.sign_raw(MESSAGE)
    s = int.from_bytes(signature[32:], "little")
    for multiple in range(1, 16):
        if s + multiple * L < 2**256:
            assert _refused(SIGNER.key.public, MESSAGE, signature[:32] + (s + multiple * L).to_bytes(32, "little"))
    for high in (L, 2**253, 2**256 - 1):
        assert _refused(SIGNER.key.public, MESSAGE, signature[:32] + high.to_bytes(32, "little"))


def _secret_scalar(seed: bytes) -> int:
    """RFC 8032, section 5.1.5."""
    digest = bytearray(hashlib.sha512(seed).digest()[:32])
    digest[0] &= 248
    digest[31] &= 127
    digest[31] |= 64
    return int.from_bytes(digest, "little")


@pytest.mark.parametrize("r", SMALL_ORDER[:2] + SMALL_ORDER[4:] + NON_CANONICAL)
def test_small_order_nonces_are_refused(r: str) -> None:
    """R of small order: with R = identity the equation s*B = R + k*A holds without a cofactor, too."""
    a = _secret_scalar(bytes(range(32)))
    s = _challenge(bytes.fromhex(r), SIGNER.key.public, MESSAGE) * a
    assert _refused(SIGNER.key.public, MESSAGE, bytes.fromhex(r) + _scalar(s))


@pytest.mark.parametrize("torsion", SMALL_ORDER[1:])
def test_the_verifier_is_cofactorless(torsion: str) -> None:
    """R + T with T of small order holds only for verifiers that multiply by the cofactor."""
    a, nonce = _secret_scalar(bytes(range(32))), 123456789
    mixed = bindings.crypto_core_ed25519_add(_base(nonce), bytes.fromhex(torsion))
    s = nonce + _challenge(mixed, SIGNER.key.public, MESSAGE) * a
    assert _refused(SIGNER.key.public, MESSAGE, mixed + _scalar(s))
    honest = _base(nonce)
    s = nonce + _challenge(honest, SIGNER.key.public, MESSAGE) * a
    assert not _refused(SIGNER.key.public, MESSAGE, honest + _scalar(s))


def test_coordinates_beyond_the_field_are_refused() -> None:
    """y + p fits into 255 bits only for y < 19: none of those is accepted under a second spelling."""
    for y in range(19):
        for sign in (0, 0x80):
            encoded = bytearray((y + P).to_bytes(32, "little"))
            encoded[31] |= sign
            assert _refused(bytes(encoded), MESSAGE, SIGNER.sign_raw(MESSAGE))


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), SIGNER.key.public + b"\x00", b"\xff" * 32], ids=len)
def test_malformed_keys_are_refused(public: bytes) -> None:
    assert _refused(public, MESSAGE, SIGNER.sign_raw(MESSAGE))


@pytest.mark.parametrize("cut", [0, 1, 32, 63])
def test_short_and_long_signatures_are_refused(cut: int) -> None:
    signature = SIGNER.sign_raw(MESSAGE)
    assert _refused(SIGNER.key.public, MESSAGE, signature[:cut])
    assert _refused(SIGNER.key.public, MESSAGE[1:], signature + MESSAGE[:1])


def test_reserved_and_unknown_algorithms_are_refused() -> None:
    signature = SIGNER.sign(ENVELOPE, MESSAGE)
    for algorithm in (0, SM2, ML_DSA_65, 4, 255):
        key = VerifyKey(algorithm, SIGNER.key.public)
        with pytest.raises(VerificationError) as caught:
            verify_raw(key, MESSAGE, signature.value)
        assert caught.value.code == "wire.unknown_algorithm"
        with pytest.raises(VerificationError):
            verify(key, ENVELOPE, MESSAGE, signature)
        with pytest.raises(VerificationError):
            verify(key, ENVELOPE, MESSAGE, Signature(algorithm, key.key_id(), signature.value))
    for algorithm in (-1, 256):
        with pytest.raises(DecodeError):
            decode(VerifyKey, encode(VerifyKey(algorithm, SIGNER.key.public)))
        with pytest.raises(DecodeError):
            decode(Signature, encode(msgspec.structs.replace(signature, algorithm=algorithm)))


def test_a_signature_names_its_key() -> None:
    other = Signer(bytes(32))
    signature = SIGNER.sign(ENVELOPE, MESSAGE)
    with pytest.raises(VerificationError) as caught:
        verify(other.key, ENVELOPE, MESSAGE, signature)
    assert caught.value.code == "wire.wrong_key"
    renamed = msgspec.structs.replace(signature, key_id=other.key.key_id())
    with pytest.raises(VerificationError):
        verify(other.key, ENVELOPE, MESSAGE, renamed)
    with pytest.raises(VerificationError):
        verify(SIGNER.key, ENVELOPE, MESSAGE, renamed)


def test_key_ids_separate_algorithms_and_keys() -> None:
    ids = {VerifyKey(algorithm, SIGNER.key.public).key_id() for algorithm in (1, 2, 3)} | {
        Signer(bytes(32)).key.key_id()
    }
    assert len(ids) == 4
    assert all(len(key_id) == 16 for key_id in ids)


def test_the_secret_stays_inside() -> None:
    seed = secrets.token_bytes(32)
    shown = repr(Signer(seed)) + str(Signer(seed))
    assert seed.hex() not in shown
    with pytest.raises(ValueError):
        Signer(seed[:31])
