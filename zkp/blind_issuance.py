"""Signing what the signer does not see: a BBS signature over attributes of which some come as a commitment.

    H -> S:  C = sum_hidden H_j m_j  (secret and blind among them), with a proof of knowledge of the m_j
    S:       B = P1 + Q1 domain + C + sum_known H_i m_i + sum_shares H_j s_j
             e = hash_to_scalar(SK, B, domain),  A = B / (SK + e)
    S -> H:  A, e, the shares

The result is an ordinary signature of `zkp.bbs` over all attributes; an attribute with a share is the sum,
mod R, of the holder's part in C and the signer's share (a serial that neither side alone chooses). C hides
perfectly, `blind` being uniform. e depends on SK and B alone, so that the same request always gets the same
signature: a signer that crashed, or is asked again, answers alike and needs no memory for it.

Whether the holder may have such a credential is for the protocol around: it puts more relations beside
`commitment_relation` in the same proof (`zkp.credentials`).

Adversary: a holder who wants a signature on attributes that she does not know or that the signer did not
agree to (each request's opening is extractable, so this is BBS unforgeability under chosen messages; in
the random-oracle model, extraction is by rewinding: run requests of one key one after the other, or accept
the usual loss); a signer who wants the hidden attributes, or to recognise the credential later (C hides
perfectly, presentations are randomised). A signer can refuse, and can sign attributes other than agreed on:
the holder checks. Not reviewed by outsiders.

Source: the construction of Au, Susilo, Mu 2006 with the hash of draft-irtf-cfrg-bbs-signatures-09 for e;
compare draft-irtf-cfrg-bbs-blind-signatures, whose bytes these are not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated

import msgspec

from wire.canonical import Wire
from wire.errors import DecodeError, VerificationError
from zkp import bbs
from zkp.attributes import BLIND, SECRET, Credential, Schema, Value, credential
from zkp.bbs_presentation import Issued
from zkp.groups import SCALAR_BYTES, Backend, Point, decode_scalar, encode_scalar
from zkp.sigma import Relation, Sum

Scalar32 = Annotated[bytes, msgspec.Meta(min_length=SCALAR_BYTES, max_length=SCALAR_BYTES)]


class BlindSignature(Wire, frozen=True, tag="zkp.blind_signature"):
    """S -> H. shares: the signer's share of each shared attribute, in the schema's order; signature: 80 bytes.

    Nothing in it is secret from the holder or gives away a hidden attribute: an account's is posted in public.
    """

    shares: tuple[Scalar32, ...]
    signature: Annotated[bytes, msgspec.Meta(min_length=bbs.SIGNATURE_BYTES, max_length=bbs.SIGNATURE_BYTES)]


def commit(schema: Schema, hidden: Mapping[str, int], group: Backend) -> Point:
    """Holder: C = sum_hidden H_j m_j. `hidden`: integers 0..R-1 by attribute, secret and blind among them. Secret."""
    _check_hidden(schema, hidden)
    family = bbs.CREDENTIALS.family
    points = [family.point(group, 2 + schema.index(name)) for name in hidden]
    return group.msm(points, list(hidden.values()))


def commitment_relation(schema: Schema, variables: Mapping[str, str], commitment: Point, label: bytes) -> Relation:
    """C = sum_hidden H_j m_j, with the variable for each hidden attribute by name."""
    _check_hidden(schema, variables)
    family = bbs.CREDENTIALS.family
    terms: list[tuple[str, Sum]] = [
        (variables[name], [(1, (family, 2 + index))]) for index, name in enumerate(schema.names) if name in variables
    ]
    return Relation(label, terms, [(1, commitment)])


def _check_hidden(schema: Schema, hidden: Collection[str]) -> None:
    if not {SECRET, BLIND} <= set(hidden) <= set(schema.names):
        raise ValueError("a commitment hides the secret and the blind, and else only attributes of the schema")


def _base(
    of: Issued, commitment: Point, known: Mapping[str, int], shares: Mapping[str, int], group: Backend
) -> tuple[Point, int]:
    """B, and the domain. `commitment` must be decoded by `group`, so that it is not the identity."""
    schema, family = of.schema, bbs.CREDENTIALS.family
    if set(known) & {SECRET, BLIND} or not (set(known) | set(shares)) <= set(schema.names) or set(known) & set(shares):
        raise ValueError("known and shared attributes are of the schema, apart, and the secret or blind never known")
    bound = bbs.domain(of.issuer, len(schema.names), schema.header, bbs.CREDENTIALS)
    points, scalars = [commitment, *family.points(group, 2)], [1, 1, bound]
    for name, scalar in (*known.items(), *shares.items()):
        points.append(family.point(group, 2 + schema.index(name)))
        scalars.append(scalar)
    return group.msm(points, scalars), bound


def sign(
    sk: int,
    of: Issued,
    commitment: Point,
    known: Mapping[str, int],
    shares: Mapping[str, int],
    group: Backend,
) -> BlindSignature:
    """Signer: sign C with `known` attributes and `shares` (all integers 0..R-1 by attribute). Deterministic.

    The proof of knowledge of C's opening must have been verified before: without it this signs anything. What is
    neither known nor, in part, in C is zero: callers name every attribute of the schema. `sk` must be `of`'s.
    """
    base, bound = _base(of, commitment, known, shares, group)
    # e depends on SK and on everything that is signed; its own tag keeps it apart from the e of other signatures
    inputs = encode_scalar(sk) + group.encode(base) + encode_scalar(bound)
    e = bbs.hash_to_scalar(inputs, bbs.CREDENTIALS.api_id + b"BLIND_H2S_")
    in_order = [name for name in of.schema.names if name in shares]
    return BlindSignature(tuple(encode_scalar(shares[name]) for name in in_order), bbs.sign_point(sk, e, base, group))


def check(
    of: Issued,
    commitment: bytes,
    known: Mapping[str, int],
    shared: Collection[str],
    answer: BlindSignature,
    group: Backend,
) -> None:
    """Anybody: check that `answer` is a signature of `of` over this commitment, what is known, and its shares.

    Raises VerificationError; DecodeError for malformed points or scalars.
    """
    base, _ = _base(of, group.decode(commitment), known, shares_of(of.schema, shared, answer), group)
    bbs.verify_point(of.issuer, answer.signature, base, group)


def shares_of(schema: Schema, shared: Collection[str], answer: BlindSignature) -> dict[str, int]:
    """The signer's shares by attribute. Raises VerificationError if there are not as many; DecodeError."""
    names = [name for name in schema.names if name in shared]
    if len(names) != len(shared) or len(answer.shares) != len(names):
        raise VerificationError("credentials.other_shares", expected=len(names), count=len(answer.shares))
    return {name: decode_scalar(share) for name, share in zip(names, answer.shares, strict=True)}


def finish(
    of: Issued,
    values: Mapping[str, Value],
    shared: Collection[str],
    answer: BlindSignature,
    group: Backend,
) -> Credential:
    """Holder: unblind. The credential over `values` (secret; all attributes, the holder's own part of a shared
    one) plus the signer's shares, its signature checked.

    Raises VerificationError if the signer signed anything else, DecodeError for malformed bytes.
    """
    full = dict(values)
    for name, share in shares_of(of.schema, shared, answer).items():
        full[name] = encode_scalar(of.schema.scalar(name, full[name]) + share)  # only scalars are shared
    bbs.verify_scalars(of.issuer, answer.signature, of.schema.header, of.schema.scalars(full), group=group)
    return credential(of.schema, of.issuer, full, answer.signature)


def read_commitment(data: bytes, group: Backend) -> Point:
    """The point of a request's commitment. Raises VerificationError if malformed or the identity."""
    try:
        return group.decode(data)
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None
