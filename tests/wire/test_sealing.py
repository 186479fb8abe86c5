"""HPKE by suite: what only the recipient opens, and only in the context it was sealed for."""

from __future__ import annotations

import secrets

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.canonical import decode, encode
from wire.errors import DecodeError, VerificationError
from wire.sealing import HYBRID, X25519, OpenKey, Sealed, SealKey, open, seal

SUITES = (X25519, HYBRID)
KEYS = {suite: OpenKey.generate(secrets.token_bytes, suite) for suite in SUITES}
INFO = b"medveil/v1/seal/message|hospital-1|session-1"


@pytest.mark.parametrize("suite", SUITES)
@settings(max_examples=20)
@given(info=st.binary(max_size=60), plaintext=st.binary(max_size=200))
def test_round_trip(suite: int, info: bytes, plaintext: bytes) -> None:
    sealed = seal(KEYS[suite].key, info, plaintext)
    assert decode(Sealed, encode(sealed)) == sealed
    assert open(KEYS[suite], info, sealed) == plaintext
    with pytest.raises(VerificationError):
        open(KEYS[suite], info + b"x", sealed)


@pytest.mark.parametrize("suite", SUITES)
def test_every_changed_byte_is_caught(suite: int) -> None:
    sealed = seal(KEYS[suite].key, INFO, b"a contribution")
    for position in range(len(sealed.ciphertext)):
        for flip in (0x01, 0x80):  # 0x80 of byte 31 is the bit that X25519 itself ignores
            changed = bytearray(sealed.ciphertext)
            changed[position] ^= flip
            with pytest.raises(VerificationError):
                open(KEYS[suite], INFO, Sealed(suite, bytes(changed)))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 1088, 1120, 1136])
def test_truncations_are_refused(suite: int, length: int) -> None:
    sealed = seal(KEYS[suite].key, INFO, b"")
    for short in (sealed.ciphertext[:length] if length < len(sealed.ciphertext) else b"", bytes(length)):
        with pytest.raises(VerificationError):
            open(KEYS[suite], INFO, Sealed(suite, short))


@pytest.mark.parametrize("suite", SUITES)
def test_only_the_recipient_opens(suite: int) -> None:
    sealed = seal(KEYS[suite].key, INFO, b"x")
    with pytest.raises(VerificationError):
        open(OpenKey.generate(secrets.token_bytes, suite), INFO, sealed)


def test_suites_do_not_mix() -> None:
    for suite, other in ((X25519, HYBRID), (HYBRID, X25519)):
        sealed = seal(KEYS[suite].key, INFO, b"x")
        with pytest.raises(VerificationError):
            open(KEYS[other], INFO, sealed)
        with pytest.raises(VerificationError):
            open(KEYS[other], INFO, msgspec.structs.replace(sealed, suite=other))
        with pytest.raises(VerificationError):
            open(KEYS[suite], INFO, msgspec.structs.replace(sealed, suite=other))


@pytest.mark.parametrize("suite", [0, 3, 255])
def test_unknown_suites_are_refused(suite: int) -> None:
    with pytest.raises(VerificationError) as caught:
        seal(SealKey(suite, KEYS[X25519].key.public), INFO, b"x")
    assert caught.value.code == "wire.unknown_algorithm"
    with pytest.raises(ValueError):
        OpenKey(suite, bytes(32))
    for out_of_range in (-1, 256):
        with pytest.raises(DecodeError):
            decode(SealKey, encode(SealKey(out_of_range, bytes(32))))
        with pytest.raises(DecodeError):
            decode(Sealed, encode(Sealed(out_of_range, bytes(32))))


X25519_SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("point", X25519_SMALL_ORDER)
def test_points_of_small_order_are_refused_on_both_sides(point: str) -> None:
    """They would make the shared secret known to everyone."""
    with pytest.raises(DecodeError):
        seal(SealKey(X25519, bytes.fromhex(point)), INFO, b"x")
    sealed = seal(KEYS[X25519].key, INFO, b"x")
    with pytest.raises(VerificationError):
        open(KEYS[X25519], INFO, Sealed(X25519, bytes.fromhex(point) + sealed.ciphertext[32:]))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("length", [0, 31, 33, 1184, 1215, 1217])
def test_malformed_keys_are_refused(suite: int, length: int) -> None:
    with pytest.raises(DecodeError):
        seal(SealKey(suite, b"\x09" * length), INFO, b"x")


def test_a_lattice_key_out_of_range_is_refused() -> None:
    with pytest.raises(DecodeError):
        seal(SealKey(HYBRID, b"\xff" * 1216), INFO, b"x")


@pytest.mark.parametrize(("suite", "length"), [(X25519, 32), (HYBRID, 96)])
def test_a_key_follows_from_its_secret(suite: int, length: int) -> None:
    drawn = []

    def rand(wanted: int) -> bytes:
        drawn.append(wanted)
        return bytes(range(wanted))

    key = OpenKey.generate(rand, suite)
    assert drawn == [length]
    assert key.key == OpenKey(suite, bytes(range(length))).key
    assert key.key.public != OpenKey(suite, bytes(length)).key.public
    assert bytes(range(length)).hex() not in repr(key)
    for wrong in (length - 1, length + 1):
        with pytest.raises(ValueError):
            OpenKey(suite, bytes(wrong))


def test_sealing_twice_never_repeats() -> None:
    assert seal(KEYS[X25519].key, INFO, b"x") != seal(KEYS[X25519].key, INFO, b"x")
