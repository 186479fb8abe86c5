"""BBS signatures: many messages under one signature of 80 bytes; any part of them shown, the rest proved.

The CFRG draft, byte for byte: `key_gen`, `sk_to_pk`, `sign`, `verify`, `proof_gen`, `proof_verify` of
ciphersuite BBS_BLS12381G1_XMD:SHA-256_SSWU_RO_ and interface H2G_HM2S_ (messages are octet strings,
hashed). The core underneath (`sign_scalars`, `verify_scalars`, `base_point`) takes an interface and
integers; medveil's credentials use it under an interface of their own (`CREDENTIALS`: other generators,
and messages that stay the integers they are, so that ranges can be proved on them).

    B = P1 + Q1 domain + sum_i H_i m_i        domain = hash of PK, all generators, interface, header
    signature (A, e):  A = B / (SK + e)       e(A, W + e BP2) = e(B, BP2), W = SK BP2

Adversary: a forger with signatures of her choice (q-SDH in the random-oracle and generic group models);
a verifier, or several with the issuer, who want to link proofs or learn hidden messages (zero knowledge,
perfect but for the hash). No departure from the draft. Not constant time: issuer keys belong in a key
provider. Not reviewed by outsiders.

Spec: draft-irtf-cfrg-bbs-signatures-09 (decentralized-identity/bbs-signature a6a445d, 2025-07-07);
Tessaro and Zhu, eprint 2023/275; expand_message_xmd of RFC 9380, section 5.3.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final

from wire.errors import DecodeError, VerificationError
from zkp.batch import Family
from zkp.groups import (
    POINT_BYTES,
    SCALAR_BYTES,
    Backend,
    Point,
    Point2,
    R,
    Rand,
    backend,
    decode_scalar,
    encode_scalar,
    random_scalar,
)

CIPHERSUITE: Final = b"BBS_BLS12381G1_XMD:SHA-256_SSWU_RO_"

SIGNATURE_BYTES: Final = POINT_BYTES + SCALAR_BYTES
"""Length of a signature: 80."""

_EXPAND_BYTES = 48
_PROOF_FLOOR = 3 * POINT_BYTES + 4 * SCALAR_BYTES


@dataclass(frozen=True)
class Interface:
    """How generators are made and messages become scalars: the draft's ``api_id``. Keys, generators and
    signatures of one interface mean nothing in another."""

    api_id: bytes

    @property
    def family(self) -> Family:
        """P1, Q1, H_1, H_2, ... in this order, computed once."""
        return _family(self.api_id)

    def hash_to_scalar(self, message: bytes) -> int:
        """The draft's hash_to_scalar under this interface's H2S_ tag: 0..R-1."""
        return hash_to_scalar(message, self.api_id + b"H2S_")


def hash_to_scalar(message: bytes, dst: bytes) -> int:
    """48 bytes of expand_message_xmd, reduced mod R. `dst`: at most 255 bytes, else ValueError."""
    return int.from_bytes(expand_message(message, dst, _EXPAND_BYTES), "big") % R


def expand_message(message: bytes, dst: bytes, length: int) -> bytes:
    """expand_message_xmd with SHA-256 (RFC 9380, 5.3.1): `length` uniform bytes, 1..8160."""
    blocks = -(-length // 32)
    if not 1 <= blocks <= 255 or len(dst) > 255:
        raise ValueError("expand_message gives 1..8160 bytes under a tag of at most 255")
    dst_prime = dst + bytes([len(dst)])
    first = hashlib.sha256(bytes(64) + message + length.to_bytes(2, "big") + b"\0" + dst_prime).digest()
    block = hashlib.sha256(first + b"\1" + dst_prime).digest()
    uniform = [block]
    for index in range(2, blocks + 1):
        mixed = bytes(a ^ b for a, b in zip(first, block, strict=True))
        block = hashlib.sha256(mixed + bytes([index]) + dst_prime).digest()
        uniform.append(block)
    return b"".join(uniform)[:length]


@cache
def _seed(api_id: bytes, name: bytes, index: int) -> bytes:
    """The chain v of create_generators. It is asked for in order, so that one call goes one step down."""
    before = api_id + name if index == 0 else _seed(api_id, name, index - 1) + index.to_bytes(8, "big")
    return expand_message(before, api_id + b"SIG_GENERATOR_SEED_", _EXPAND_BYTES)


def _generator(api_id: bytes, group: Backend, index: int) -> Point:
    """Index 0: the ciphersuite's P1; i > 0: the i-th of the draft's create_generators, so Q1, H_1, H_2, ..."""
    if index == 0:
        seed = _seed(DRAFT.api_id, b"BP_MESSAGE_GENERATOR_SEED", 1)
        return group.hash_to_point(DRAFT.api_id + b"SIG_GENERATOR_DST_", seed)
    return group.hash_to_point(api_id + b"SIG_GENERATOR_DST_", _seed(api_id, b"MESSAGE_GENERATOR_SEED", index))


@cache
def _family(api_id: bytes) -> Family:
    return Family(f"bbs/{api_id.decode()}", lambda group, index: _generator(api_id, group, index))


DRAFT: Final = Interface(CIPHERSUITE + b"H2G_HM2S_")
"""The draft's own interface: messages are octet strings, hashed to scalars."""

CREDENTIALS: Final = Interface(CIPHERSUITE + b"H2G_INT2S_MEDVEIL-V1_")
"""medveil's: messages are integers 0..R-1 as `zkp.attributes` encodes them, and signed as they are."""


# ------------------------------------------------------------------------------------------- keys


def key_gen(key_material: bytes, key_info: bytes = b"", key_dst: bytes = DRAFT.api_id + b"KEYGEN_DST_") -> int:
    """Issuer: the secret key (1..R-1) of at least 32 secret random bytes; another `key_info` gives another key.

    Deterministic. ValueError for material below 32 bytes or info above 65,535.
    """
    if len(key_material) < 32 or len(key_info) > 65535:
        raise ValueError("key material has at least 32 bytes, key info at most 65,535")
    sk = hash_to_scalar(key_material + len(key_info).to_bytes(2, "big") + key_info, key_dst)
    if sk == 0:
        raise ValueError("this key material gives no key")
    return sk


def sk_to_pk(sk: int, group: Backend | None = None) -> bytes:
    """The public key of `sk` (secret, 1..R-1): 96 bytes of G2."""
    if not 1 <= sk < R:
        raise ValueError("a secret key is in 1..R-1")
    group = group or backend()
    return group.encode2(group.mul2(group.generator2(), sk))


@lru_cache(maxsize=1024)
def _public_key(pk: bytes, name: str) -> Point2:
    return backend(name).decode2(pk)


def public_key(pk: bytes, group: Backend) -> Point2:
    """The point W of a public key, checked once. Raises DecodeError, also for the identity."""
    return _public_key(bytes(pk), group.name)


# ------------------------------------------------------------------------- core: messages are scalars


@lru_cache(maxsize=4096)
def _domain(pk: bytes, count: int, header: bytes, api_id: bytes) -> int:
    group = backend()
    encoded = [group.encode(point) for point in _family(api_id).points(group, count + 2)[1:]]
    octets = count.to_bytes(8, "big") + b"".join(encoded) + api_id
    return hash_to_scalar(pk + octets + len(header).to_bytes(8, "big") + header, api_id + b"H2S_")


def domain(pk: bytes, count: int, header: bytes, interface: Interface) -> int:
    """calculate_domain: binds public key, number of messages, generators, interface and header into B."""
    return _domain(bytes(pk), count, bytes(header), interface.api_id)


def base_point(pk: bytes, header: bytes, messages: Sequence[int], interface: Interface, group: Backend) -> Point:
    """B = P1 + Q1 domain + sum_i H_i messages[i]."""
    points = interface.family.points(group, len(messages) + 2)
    return group.msm(points, [1, domain(pk, len(messages), header, interface), *messages])


def sign_scalars(
    sk: int,
    pk: bytes,
    header: bytes,
    messages: Sequence[int],
    interface: Interface = CREDENTIALS,
    group: Backend | None = None,
) -> bytes:
    """Issuer: CoreSign, the 80 bytes over integers 0..R-1. Deterministic: no randomness that could repeat."""
    _check_scalars(messages)
    group = group or backend()
    inputs = [sk, *messages, domain(pk, len(messages), header, interface)]
    e = interface.hash_to_scalar(b"".join(map(encode_scalar, inputs)))
    return sign_point(sk, e, base_point(pk, header, messages, interface, group), group)


def sign_point(sk: int, e: int, base: Point, group: Backend) -> bytes:
    """A = B / (SK + e), with e: 80 bytes. `e` must come from a hash over SK and all that makes B."""
    if not 1 <= sk < R or e == 0 or (sk + e) % R == 0:  # the last two: once in 2^255
        raise ValueError("no signature under this key and e")
    return group.encode(group.mul(base, pow(sk + e, -1, R))) + encode_scalar(e)


def read_signature(signature: bytes, group: Backend) -> tuple[Point, int]:
    """(A, e). Raises DecodeError: wrong length, A malformed or the identity, e not in 1..R-1."""
    if len(signature) != SIGNATURE_BYTES:
        raise DecodeError("credentials.malformed_signature")
    point, e = group.decode(signature[:POINT_BYTES]), decode_scalar(signature[POINT_BYTES:])
    if e == 0:
        raise DecodeError("credentials.malformed_signature")
    return point, e


def verify_point(pk: bytes, signature: bytes, base: Point, group: Backend) -> None:
    """Check e(A, W) e(e A - B, BP2) = 1. Raises VerificationError or DecodeError."""
    key, (point, e) = public_key(pk, group), read_signature(signature, group)
    rest = group.add(group.mul(point, e), group.neg(base))
    if not group.pairing_is_one([(point, key), (rest, group.generator2())]):
        raise VerificationError("credentials.bad_signature")


def verify_scalars(
    pk: bytes,
    signature: bytes,
    header: bytes,
    messages: Sequence[int],
    interface: Interface = CREDENTIALS,
    group: Backend | None = None,
) -> None:
    """CoreVerify over integers 0..R-1. Raises VerificationError or DecodeError."""
    _check_scalars(messages)
    group = group or backend()
    public_key(pk, group)
    verify_point(pk, signature, base_point(pk, header, messages, interface, group), group)


def _check_scalars(messages: Sequence[int]) -> None:
    # reduction would sign another integer than the one that was meant
    if not all(0 <= message < R for message in messages):
        raise ValueError("a signed integer is in 0..R-1")


# ------------------------------------------------------------------------------- the draft's interface


def message_to_scalar(message: bytes, interface: Interface = DRAFT) -> int:
    """The draft's map of one octet string: 0..R-1."""
    return hash_to_scalar(message, interface.api_id + b"MAP_MSG_TO_SCALAR_AS_HASH_")


def sign(sk: int, pk: bytes, header: bytes, messages: Sequence[bytes], group: Backend | None = None) -> bytes:
    """Issuer: Sign, 80 bytes over octet strings. `pk` must be the key of `sk`."""
    return sign_scalars(sk, pk, header, [message_to_scalar(message) for message in messages], DRAFT, group)


def verify(pk: bytes, signature: bytes, header: bytes, messages: Sequence[bytes], group: Backend | None = None) -> None:
    """Verify. Raises VerificationError for a signature that does not hold, DecodeError for malformed bytes."""
    verify_scalars(pk, signature, header, [message_to_scalar(message) for message in messages], DRAFT, group)


def _in_order(indexes: Sequence[int], count: int) -> bool:
    ascending = all(a < b for a, b in pairwise(indexes))
    return ascending and (not indexes or (indexes[0] >= 0 and indexes[-1] < count))


def _challenge(
    points: Sequence[bytes], domain: int, disclosed: Sequence[tuple[int, int]], presentation_header: bytes
) -> int:
    octets = [len(disclosed).to_bytes(8, "big")]
    for index, scalar in disclosed:
        octets += (index.to_bytes(8, "big"), encode_scalar(scalar))
    octets += [*points, encode_scalar(domain), len(presentation_header).to_bytes(8, "big"), presentation_header]
    return DRAFT.hash_to_scalar(b"".join(octets))


def proof_gen(
    pk: bytes,
    signature: bytes,
    header: bytes,
    presentation_header: bytes,
    messages: Sequence[bytes],
    disclosed_indexes: Sequence[int],
    rand: Rand,
    group: Backend | None = None,
) -> bytes:
    """Holder: ProofGen, 272 + 32 (messages that stay hidden) bytes. P -> V

    Shows the messages at `disclosed_indexes` (ascending, from 0); `presentation_header` (public, of the
    verifier: a nonce and an audience) is bound. `rand` must be fresh: two proofs from the same one give
    the hidden messages away. Raises DecodeError for a malformed key or signature. It does not check the
    signature: `verify` it on receipt.
    """
    group = group or backend()
    count = len(messages)
    if not _in_order(disclosed_indexes, count):
        raise ValueError("disclosed indexes ascend, each once and each of a message")
    public_key(pk, group)
    (point, e), scalars = read_signature(signature, group), [message_to_scalar(message) for message in messages]
    hidden = [index for index in range(count) if index not in set(disclosed_indexes)]
    r1, r2, e_blind, r1_blind, r3_blind, *m_blind = [random_scalar(rand) for _ in range(5 + len(hidden))]
    h = DRAFT.family.points(group, count + 2)[2:]
    # D = B r2;  Abar = A (r1 r2);  Bbar = D r1 - Abar e;  T1 = Abar e~ + D r1~;  T2 = D r3~ + sum_j H_j m~_j
    d = group.mul(base_point(pk, header, scalars, DRAFT, group), r2)
    a_bar = group.mul(point, r1 * r2 % R)
    b_bar = group.msm([d, a_bar], [r1, -e])
    t1 = group.msm([a_bar, d], [e_blind, r1_blind])
    t2 = group.msm([d, *(h[index] for index in hidden)], [r3_blind, *m_blind])
    points = [group.encode(each) for each in (a_bar, b_bar, d, t1, t2)]
    disclosed = [(index, scalars[index]) for index in disclosed_indexes]
    c = _challenge(points, domain(pk, count, header, DRAFT), disclosed, presentation_header)
    r3 = pow(r2, -1, R)
    responses = [e_blind + e * c, r1_blind - r1 * c, r3_blind - r3 * c]
    responses += [blind + scalars[index] * c for blind, index in zip(m_blind, hidden, strict=True)]
    return b"".join([*points[:3], *map(encode_scalar, responses), encode_scalar(c)])


def proof_verify(
    pk: bytes,
    proof: bytes,
    header: bytes,
    presentation_header: bytes,
    disclosed_messages: Sequence[bytes],
    disclosed_indexes: Sequence[int],
    group: Backend | None = None,
) -> None:
    """Verifier: ProofVerify. Raises VerificationError, also for malformed proofs; DecodeError for a malformed key."""
    group = group or backend()
    key = public_key(pk, group)
    (a_bar, b_bar, d), (e, r1, r3, *m), c = _read_proof(proof, group)
    count = len(m) + len(disclosed_indexes)
    if not _in_order(disclosed_indexes, count) or len(disclosed_messages) != len(disclosed_indexes):
        raise VerificationError("credentials.bad_proof")
    disclosed = [
        (index, message_to_scalar(message))
        for index, message in zip(disclosed_indexes, disclosed_messages, strict=True)
    ]
    hidden = [index for index in range(count) if index not in set(disclosed_indexes)]
    p1, q1, *h = DRAFT.family.points(group, count + 2)
    bound = domain(pk, count, header, DRAFT)
    # T1 = Bbar c + Abar e^ + D r1^;  T2 = (P1 + Q1 domain + sum_i H_i m_i) c + D r3^ + sum_j H_j m^_j
    t1 = group.msm([b_bar, a_bar, d], [c, e, r1])
    t2 = group.msm(
        [p1, q1, *(h[index] for index, _ in disclosed), d, *(h[index] for index in hidden)],
        [c, bound * c, *(scalar * c for _, scalar in disclosed), r3, *m],
    )
    points = [group.encode(each) for each in (a_bar, b_bar, d, t1, t2)]
    if _challenge(points, bound, disclosed, presentation_header) != c:
        raise VerificationError("credentials.bad_proof")
    if not group.pairing_is_one([(a_bar, key), (b_bar, group.neg2(group.generator2()))]):
        raise VerificationError("credentials.bad_proof")


def _read_proof(proof: bytes, group: Backend) -> tuple[list[Point], list[int], int]:
    """octets_to_proof: three points, at least three responses, the challenge."""
    if len(proof) < _PROOF_FLOOR or (len(proof) - _PROOF_FLOOR) % SCALAR_BYTES:
        raise VerificationError("zkp.malformed_proof")
    try:
        points = [group.decode(proof[start : start + POINT_BYTES]) for start in range(0, 3 * POINT_BYTES, POINT_BYTES)]
        starts = range(3 * POINT_BYTES, len(proof), SCALAR_BYTES)
        scalars = [decode_scalar(proof[start : start + SCALAR_BYTES]) for start in starts]
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None
    if not all(scalars):
        raise VerificationError("zkp.malformed_proof")
    return points, scalars[:-1], scalars[-1]
