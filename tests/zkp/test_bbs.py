"""zkp.bbs: the CFRG draft's fixtures byte for byte, both backends, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import DecodeError, VerificationError
from zkp import bbs
from zkp.bbs import CREDENTIALS, DRAFT
from zkp.groups import Backend, R, backend, encode_scalar

GROUP = backend()
MOCK_SEED = b"3.141592653589793238462643383279"
SK = bbs.key_gen(b"a test's key material: 32 bytes.")
PK = bbs.sk_to_pk(SK)


@pytest.fixture
def fixtures(shared_vectors: Path) -> Path:
    return shared_vectors / "bbs"


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def unhex(values: list[str]) -> list[bytes]:
    return [bytes.fromhex(value) for value in values]


def mocked(count: int) -> Callable[[int], bytes]:
    """The draft's mocked randomness: `count` pieces of one expand_message output, in order."""
    dst = bbs.CIPHERSUITE + b"H2G_HM2S_MOCK_RANDOM_SCALARS_DST_"
    pieces = bbs.expand_message(MOCK_SEED, dst, 48 * count)
    places = iter(range(0, 48 * count, 48))

    def rand(length: int) -> bytes:
        assert length == 48
        start = next(places)
        return pieces[start : start + 48]

    return rand


def cases(fixtures: Path, kind: str, at_least: int) -> Iterator[Any]:
    files = sorted((fixtures / kind).glob("*.json"))
    assert len(files) >= at_least, f"fewer {kind} fixtures than were published with the part"
    yield from map(load, files)


def test_key_pair(fixtures: Path, either: Backend) -> None:
    case = load(fixtures / "keypair.json")
    sk = bbs.key_gen(*unhex([case["keyMaterial"], case["keyInfo"], case["keyDst"]]))
    assert encode_scalar(sk).hex() == case["keyPair"]["secretKey"]
    assert bbs.sk_to_pk(sk, either).hex() == case["keyPair"]["publicKey"]


def test_hashes_and_mocked_scalars(fixtures: Path) -> None:
    case = load(fixtures / "h2s.json")
    assert encode_scalar(bbs.hash_to_scalar(*unhex([case["message"], case["dst"]]))).hex() == case["scalar"]
    mapped = load(fixtures / "MapMessageToScalarAsHash.json")["cases"]
    assert len(mapped) == 10
    for case in mapped:
        assert encode_scalar(bbs.message_to_scalar(bytes.fromhex(case["message"]))).hex() == case["scalar"]
    case = load(fixtures / "mockedRng.json")
    rand = mocked(case["count"])
    assert [encode_scalar(int.from_bytes(rand(48), "big")).hex() for _ in range(case["count"])] == case["mockedScalars"]


def test_generators(fixtures: Path, either: Backend) -> None:
    case = load(fixtures / "generators.json")
    points = [either.encode(point).hex() for point in DRAFT.family.points(either, len(case["MsgGenerators"]) + 2)]
    assert points == [case["P1"], case["Q1"], *case["MsgGenerators"]]


def test_signatures(fixtures: Path) -> None:
    valid = 0
    for case in cases(fixtures, "signature", 4):
        sk = int(case["signerKeyPair"]["secretKey"], 16)
        pk, header, signature = unhex([case["signerKeyPair"]["publicKey"], case["header"], case["signature"]])
        messages = unhex(case["messages"])
        if case["result"]["valid"]:
            valid += 1
            assert bbs.sign(sk, pk, header, messages) == signature, case["caseName"]
            bbs.verify(pk, signature, header, messages)
            scalars = [bbs.message_to_scalar(message) for message in messages]
            assert GROUP.encode(bbs.base_point(pk, header, scalars, DRAFT, GROUP)).hex() == case["trace"]["B"]
        else:
            with pytest.raises(VerificationError):
                bbs.verify(pk, signature, header, messages)
    assert valid >= 2


def test_proofs(fixtures: Path) -> None:
    valid = 0
    for case in cases(fixtures, "proof", 3):
        pk, header, ph, proof = unhex(
            [case["signerPublicKey"], case["header"], case["presentationHeader"], case["proof"]]
        )
        messages, indexes = unhex(case["messages"]), case["disclosedIndexes"]
        disclosed = [messages[index] for index in indexes]
        if case["result"]["valid"]:
            valid += 1
            count = len(messages)
            rand = mocked(5 + count - len(indexes))
            signature = bytes.fromhex(case["signature"])
            assert bbs.proof_gen(pk, signature, header, ph, messages, indexes, rand) == proof, case["caseName"]
            bbs.proof_verify(pk, proof, header, ph, disclosed, indexes)
            assert encode_scalar(bbs.domain(pk, count, header, DRAFT)).hex() == case["trace"]["domain"]
        else:
            with pytest.raises(VerificationError):
                bbs.proof_verify(pk, proof, header, ph, disclosed, indexes)
    assert valid >= 3


# ------------------------------------------------------------------------------ without the fixtures


MESSAGES = [b"one", b"", b"three", b"four"]


@pytest.fixture(scope="module")
def proof() -> bytes:
    signature = bbs.sign(SK, PK, b"header", MESSAGES)
    return bbs.proof_gen(PK, signature, b"header", b"nonce", MESSAGES, [0, 2], bytes_of(1))


def bytes_of(seed: int) -> Callable[[int], bytes]:
    count = 0

    def rand(length: int) -> bytes:
        nonlocal count
        count += 1
        return bbs.expand_message(f"{seed}/{count}".encode(), b"test", length)

    return rand


def check(proof: bytes, *, header: bytes = b"header", ph: bytes = b"nonce", first: bytes = b"one") -> None:
    bbs.proof_verify(PK, proof, header, ph, [first, b"three"], [0, 2])


def test_the_reference_backend_agrees(proof: bytes, reference: Backend) -> None:
    signature = bbs.sign(SK, PK, b"header", MESSAGES, reference)
    assert signature == bbs.sign(SK, PK, b"header", MESSAGES)
    bbs.verify(PK, signature, b"header", MESSAGES, reference)
    bbs.proof_verify(PK, proof, b"header", b"nonce", [b"one", b"three"], [0, 2], reference)
    with pytest.raises(VerificationError):
        bbs.proof_verify(PK, proof, b"header", b"Nonce", [b"one", b"three"], [0, 2], reference)


def test_what_is_bound(proof: bytes) -> None:
    check(proof)
    for change in ({"header": b"Header"}, {"ph": b""}, {"first": b"two"}):
        with pytest.raises(VerificationError):
            check(proof, **change)
    for indexes in ([0, 1], [2, 0], [0, 0], [0], [0, 9], [-1, 2]):
        with pytest.raises(VerificationError):
            bbs.proof_verify(PK, proof, b"header", b"nonce", [b"one", b"three"], indexes)


@given(st.data())
def test_a_changed_proof_is_refused(proof: bytes, data: st.DataObject) -> None:
    changed = bytearray(proof)
    changed[data.draw(st.integers(0, len(proof) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(VerificationError):
        check(bytes(changed))


@pytest.mark.parametrize("fault", ["empty", "cut", "one scalar less", "one scalar more", "identity", "order", "zero"])
def test_malformed_proofs(proof: bytes, fault: str) -> None:
    changed = {
        "empty": b"",
        "cut": proof[:-1],
        "one scalar less": proof[:-32],
        "one scalar more": proof + proof[-32:],
        "identity": b"\xc0" + bytes(47) + proof[48:],
        "order": proof[:144] + R.to_bytes(32, "big") + proof[176:],
        "zero": proof[:144] + bytes(32) + proof[176:],
    }[fault]
    with pytest.raises(VerificationError) as caught:
        check(changed)
    whole = fault in ("one scalar less", "one scalar more")  # of another number of messages, and well formed
    assert caught.value.code == ("credentials.bad_proof" if whole else "zkp.malformed_proof")


def test_a_signature_by_another_key_is_refused_by_the_pairing_alone() -> None:
    forged = bbs.sign(SK + 1, PK, b"header", MESSAGES)
    proof = bbs.proof_gen(PK, forged, b"header", b"nonce", MESSAGES, [0, 2], bytes_of(1))
    with pytest.raises(VerificationError):
        check(proof)


def test_integers_stay_what_they_are() -> None:
    """Another interface: other generators, messages unhashed, and no integer that reduction would change."""
    signature = bbs.sign_scalars(SK, PK, b"h", [5, R - 1])
    bbs.verify_scalars(PK, signature, b"h", [5, R - 1])
    for messages in ([6, R - 1], [5], [5, R - 1, 0]):
        with pytest.raises(VerificationError):
            bbs.verify_scalars(PK, signature, b"h", messages)
    with pytest.raises(VerificationError):
        bbs.verify_scalars(PK, signature, b"h", [5, R - 1], DRAFT)
    for messages in ([R], [-1]):
        with pytest.raises(ValueError):
            bbs.sign_scalars(SK, PK, b"h", messages)
        with pytest.raises(ValueError):
            bbs.verify_scalars(PK, signature, b"h", messages)
    ours, theirs = CREDENTIALS.family.points(GROUP, 20), DRAFT.family.points(GROUP, 20)
    assert ours[0] == theirs[0]
    assert not set(ours[1:]) & set(theirs)
    assert len(set(ours)) == 20


@pytest.mark.parametrize("fault", ["cut", "identity", "e is zero", "e is the order", "no point"])
def test_malformed_signatures(fault: str) -> None:
    signature = bbs.sign(SK, PK, b"", [])
    changed = {
        "cut": signature[:-1],
        "identity": b"\xc0" + bytes(47) + signature[48:],
        "e is zero": signature[:48] + bytes(32),
        "e is the order": signature[:48] + R.to_bytes(32, "big"),
        "no point": bytes(48) + signature[48:],
    }[fault]
    bbs.verify(PK, signature, b"", [])
    with pytest.raises(DecodeError):
        bbs.verify(PK, changed, b"", [])


@pytest.mark.parametrize("pk", [b"\xc0" + bytes(95), PK[:-1], b"\x80" + bytes(95)], ids=["identity", "cut", "no point"])
def test_malformed_keys(pk: bytes, proof: bytes) -> None:
    signature = bbs.sign(SK, PK, b"", [])
    with pytest.raises(DecodeError):
        bbs.verify(pk, signature, b"", [])
    with pytest.raises(DecodeError):
        bbs.proof_verify(pk, proof, b"", b"", [], [])


def test_a_callers_bug() -> None:
    signature = bbs.sign(SK, PK, b"", [b"a", b"b"])
    for indexes in ([1, 0], [0, 0], [2], [-1]):
        with pytest.raises(ValueError):
            bbs.proof_gen(PK, signature, b"", b"", [b"a", b"b"], indexes, bytes_of(1))
    with pytest.raises(ValueError):
        bbs.key_gen(bytes(31))
    with pytest.raises(ValueError):
        bbs.key_gen(bytes(32), bytes(65536))
    for sk in (0, R):
        with pytest.raises(ValueError):
            bbs.sk_to_pk(sk)
    with pytest.raises(ValueError):
        bbs.sign_point(SK, R - SK, GROUP.generator(), GROUP)
    with pytest.raises(ValueError):
        bbs.expand_message(b"", b"", 8161)


def test_expand_message_of_the_rfc() -> None:
    """RFC 9380, K.1: expand_message_xmd(SHA-256), 32 and 128 bytes."""
    dst = b"QUUX-V01-CS02-with-expander-SHA256-128"
    empty = "68a985b87eb6b46952128911f2a4412bbc302a9d759667f87f7a21d803f07235"
    abc = "d8ccab23b5985ccea865c6c97b6e5b8350e794e603b4b97902f53a8a0d605615"
    assert bbs.expand_message(b"", dst, 32).hex() == empty
    assert bbs.expand_message(b"abc", dst, 32).hex() == abc
    assert bbs.expand_message(b"", dst, 128).hex().startswith("af84c27ccfd45d41914fdff5df25293e221afc53d8ad2ac0")
