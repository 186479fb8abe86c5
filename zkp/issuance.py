"""How the three credentials are issued: blindly, over one secret, each once.

Issuing is one message each way:

    I -> H   an occasion: chain, issuer, a fresh nonce
    H -> I   `Request`: C, a commitment to what the issuer does not see; for account and encounter also the
             person credential, shown over the same secret; for an account a nullifier in its scope (payer,
             layer, year); and one compact sigma proof over all, bound to the occasion, key and schema
    I -> H   the signature over C and what both know (`zkp.blind_issuance`)

Once only: a bureau gives one person credential for each person on its list, one account for each nullifier,
a hospital one encounter credential for each bill. Each `issue_...` takes the register of what was signed before
(key -> commitment) and refuses another commitment under the same key; the caller records it, durably, before
the answer leaves. The same request again gets the same answer.

Adversary: a holder who wants a credential over another secret, or a second account; an issuer who wants the
secret or to recognise the credential later. Not covered: a bureau that invents people; what a hospital types.
docs/protocols/credentials.md. Not reviewed by outsiders.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec

from wire import canonical
from wire.canonical import Wire
from wire.errors import DecodeError, Refused, VerificationError
from wire.identifiers import Hash, Name
from zkp import bbs_presentation, blind_issuance, nullifier, sigma
from zkp.attributes import SECRET, Credential, Schema, Value
from zkp.batch import Check, settle
from zkp.bbs_presentation import Issued, Shown
from zkp.blind_issuance import BlindSignature
from zkp.credentials import ACCOUNT, CLASSES, ENCOUNTER, HIDDEN, PERSON, SHARED, Issuer, share
from zkp.groups import POINT_BYTES, Backend, Point, Rand, backend, encode_scalar, random_scalar
from zkp.nullifier import Nullifier
from zkp.sigma import Relation
from zkp.transcript import Transcript

Register = Mapping[bytes, bytes]
"""What an issuer has signed before: commitment (48 bytes) by person, nullifier or bill."""

_OWN_PREFIX = "person"


class Occasion(Wire, frozen=True, tag="zkp.occasion"):
    """What a request is made for. Public between the two. nonce: fresh, 32 bytes, of the issuer."""

    chain: Name
    issuer: Name
    nonce: Hash


class AccountScope(Wire, frozen=True, tag="zkp.account_scope"):
    """Where a person has one account: its canonical bytes are the scope of the nullifier."""

    chain: Name
    payer: Name
    layer: Annotated[int, msgspec.Meta(ge=0, le=255)]
    year: Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Request(Wire, frozen=True, tag="zkp.credential_request"):
    """H -> I. schema: the id asked for; commitment: C; shown: the person credential's points, or empty;
    nullifier: 48 bytes, or empty; proof: the compact sigma proof. It holds no secret."""

    schema: Hash
    commitment: Annotated[bytes, msgspec.Meta(min_length=POINT_BYTES, max_length=POINT_BYTES)]
    shown: bytes
    nullifier: bytes
    proof: Annotated[bytes, msgspec.Meta(max_length=4096)]


def _check_once(register: Register, key: bytes, commitment: bytes, kind: str) -> None:
    if register.get(key, commitment) != commitment:
        raise Refused("credentials.issued_before", kind=kind)


# --------------------------------------------------------------------------------- the request's proof


@dataclass(frozen=True, repr=False)
class Pending:
    """What a holder keeps between request and answer. Secret. hidden: her integers in C, by attribute; shared:
    what the issuer adds a share to."""

    of: Issued
    hidden: Mapping[str, int]
    shared: tuple[str, ...]
    request: Request


def _transcript(of: Issued, occasion: Occasion, commitment: bytes, parts: Collection[Shown | Nullifier]) -> Transcript:
    transcript = Transcript(b"credential-request/v1")
    transcript.append_key(b"issuer", of.issuer)
    transcript.append_bytes(b"schema", of.schema.header)
    transcript.append_bytes(b"occasion", canonical.encode(occasion))
    transcript.append_point(b"C", commitment)
    for part in parts:
        part.append_to(transcript)
    return transcript


def _statement(of: Issued, commitment: Point, parts: Collection[Shown | Nullifier]) -> list[Relation]:
    variables = {name: SECRET if name == SECRET else f"new.{name}" for name in HIDDEN[of.schema.name]}
    relations = [blind_issuance.commitment_relation(of.schema, variables, commitment, b"commitment")]
    return relations + [relation for part in parts for relation in part.relations()]


def _request(
    of: Issued,
    occasion: Occasion,
    secret: int,
    rand: Rand,
    group: Backend,
    person: tuple[Credential, Issued, Collection[str]] | None = None,
    scope: bytes | None = None,
) -> Pending:
    hidden = {name: secret if name == SECRET else random_scalar(rand) for name in HIDDEN[of.schema.name]}
    commitment = blind_issuance.commit(of.schema, hidden, group)
    parts: list[Shown | Nullifier] = []
    witness = {SECRET if name == SECRET else f"new.{name}": scalar for name, scalar in hidden.items()}
    shown, tag = b"", b""
    if person is not None:
        credential, person_of, disclose = person
        points, known = bbs_presentation.show(credential, person_of, _OWN_PREFIX, disclose, rand, group)
        parts.append(points)
        witness |= known
        shown = points.encoded
    if scope is not None:
        own = nullifier.make(secret, scope, group)
        parts.append(own)
        tag = own.encoded
    encoded = group.encode(commitment)
    transcript = _transcript(of, occasion, encoded, parts)
    proof = sigma.prove_compact(transcript, _statement(of, commitment, parts), witness, rand, group)
    shared = () if person is not None and of.schema == PERSON else SHARED[of.schema.name]  # a renewal keeps its secret
    return Pending(of, hidden, shared, Request(of.schema.id, encoded, shown, tag, proof))


def _check_request(
    request: Request,
    of: Issued,
    occasion: Occasion,
    group: Backend,
    person: tuple[Issued, Mapping[str, Value]] | None = None,
    scope: bytes | None = None,
) -> Point:
    """The commitment of a request whose proof holds. Raises VerificationError or DecodeError."""
    if request.schema != of.schema.id:
        raise DecodeError("credentials.other_schema", expected=of.schema.name)
    if (person is None and request.shown) or (scope is None and request.nullifier):
        raise VerificationError("zkp.malformed_proof")
    commitment = blind_issuance.read_commitment(request.commitment, group)
    parts: list[Shown | Nullifier] = []
    check = Check(group)
    if person is not None:
        person_of, disclosed = person
        scalars = {name: person_of.schema.scalar(name, value) for name, value in disclosed.items()}
        shown = bbs_presentation.read(request.shown, person_of, _OWN_PREFIX, scalars, group)
        shown.add_to(check)
        parts.append(shown)
    if scope is not None:
        parts.append(nullifier.read(request.nullifier, scope, group))
    transcript = _transcript(of, occasion, request.commitment, parts)
    sigma.verify_compact(transcript, _statement(of, commitment, parts), request.proof, group)
    check.bind(transcript.digest())
    settle([check], group)
    return commitment


def finish(
    pending: Pending, known: Mapping[str, Value], answer: BlindSignature, group: Backend | None = None
) -> Credential:
    """Holder: the credential, its signature checked over `known`: what she expects the issuer to have signed.

    Raises VerificationError if the issuer signed anything else, DecodeError for malformed bytes.
    """
    values: dict[str, Value] = {**known, **{name: encode_scalar(scalar) for name, scalar in pending.hidden.items()}}
    return blind_issuance.finish(pending.of, values, pending.shared, answer, group or backend())


# ---------------------------------------------------------------------------------------------- person


def request_person(of: Issued, occasion: Occasion, rand: Rand, group: Backend | None = None) -> Pending:
    """Holder: ask for the first person credential, with her share of the secret. H -> I: ``pending.request``."""
    return _request(of, occasion, random_scalar(rand), rand, group or backend())


def issue_person(
    by: Issuer,
    occasion: Occasion,
    request: Request,
    person: bytes,
    known: Mapping[str, Value],
    register: Register,
    group: Backend | None = None,
) -> BlindSignature:
    """Bureau: the person credential of the insured `person` (the bureau's own id of hers, never shown to anybody).

    `known`: all attributes but secret and blind. The caller has checked who asks. Deterministic. Raises
    VerificationError, DecodeError; Refused if this person's credential was issued on another commitment.
    """
    group = group or backend()
    commitment = _check_request(request, by.of, occasion, group)
    _check_once(register, person, request.commitment, "person")
    shares = {SECRET: share(by.share_key, b"person", person, request.commitment)}
    return blind_issuance.sign(by.sk, by.of, commitment, _scalars(PERSON, known), shares, group)


def request_renewal(
    of: Issued, occasion: Occasion, credential: Credential, old: Issued, rand: Rand, group: Backend | None = None
) -> Pending:
    """Holder: ask for her person credential anew (an epoch or its validity has ended), over the same secret.

    The old credential is shown with its handle, by which the bureau knows whose it is.
    """
    secret = old.schema.scalar(SECRET, credential.get(old.schema, SECRET))
    return _request(of, occasion, secret, rand, group or backend(), (credential, old, ("handle",)))


def renew_person(
    by: Issuer,
    old: Issued,
    occasion: Occasion,
    request: Request,
    handle: bytes,
    known: Mapping[str, Value],
    register: Register,
    group: Backend | None = None,
) -> BlindSignature:
    """Bureau: the next person credential of the holder of old `handle`. register: by old handle.

    Raises VerificationError, DecodeError; Refused if it was renewed before on another commitment.
    """
    group = group or backend()
    commitment = _check_request(request, by.of, occasion, group, (old, {"handle": handle}))
    _check_once(register, handle, request.commitment, "person")
    return blind_issuance.sign(by.sk, by.of, commitment, _scalars(PERSON, known), {}, group)


def _check_no_handle(disclose: Collection[str]) -> None:
    """Who knows a handle finds its rows in every set, codes of filings tried one by one: the bureau alone may."""
    if "handle" in disclose:
        raise Refused("credentials.handle_asked")


# --------------------------------------------------------------------------------------------- account


def request_account(
    of: Issued,
    occasion: Occasion,
    scope: AccountScope,
    credential: Credential,
    person_of: Issued,
    disclose: Collection[str],
    rand: Rand,
    group: Backend | None = None,
) -> Pending:
    """Holder: ask for her account of one payer, layer and year. `disclose`: what cap and deductible depend on.

    Raises Refused if that is her handle.
    """
    _check_no_handle(disclose)
    secret = person_of.schema.scalar(SECRET, credential.get(person_of.schema, SECRET))
    person = (credential, person_of, disclose)
    return _request(of, occasion, secret, rand, group or backend(), person, canonical.encode(scope))


def open_account(
    by: Issuer,
    person_of: Issued,
    occasion: Occasion,
    scope: AccountScope,
    request: Request,
    disclosed: Mapping[str, Value],
    known: Mapping[str, Value],
    register: Register,
    group: Backend | None = None,
) -> BlindSignature:
    """Bureau: the account of whoever made ``request.nullifier``, the key of `register`.

    `disclosed`: what the holder said of her person credential; `known`: payer, layer, year, visits, cap, deductible.
    Raises VerificationError, DecodeError; Refused if she has an account in this scope, on another commitment.
    ValueError if `known` is not of `scope`.
    """
    group = group or backend()
    if any(known[name] != getattr(scope, name) for name in ("payer", "layer", "year")):
        raise ValueError("an account is opened in its scope")
    commitment = _check_request(request, by.of, occasion, group, (person_of, disclosed), canonical.encode(scope))
    _check_once(register, request.nullifier, request.commitment, "account")
    shares = {"serial": share(by.share_key, b"open", request.nullifier)}
    return blind_issuance.sign(by.sk, by.of, commitment, _scalars(ACCOUNT, known), shares, group)


# ------------------------------------------------------------------------------------------- encounter


def request_encounter(
    of: Issued,
    occasion: Occasion,
    credential: Credential,
    person_of: Issued,
    disclose: Collection[str],
    rand: Rand,
    group: Backend | None = None,
) -> Pending:
    """Holder: ask the hospital for the credential of a bill, over the secret of her person credential.

    `disclose`: what the hospital compares with the patient before it, such as birth and sex. Raises Refused if that is
    her handle.
    """
    _check_no_handle(disclose)
    secret = person_of.schema.scalar(SECRET, credential.get(person_of.schema, SECRET))
    return _request(of, occasion, secret, rand, group or backend(), (credential, person_of, disclose))


def issue_encounter(
    by: Issuer,
    person_of: Issued,
    occasion: Occasion,
    request: Request,
    disclosed: Mapping[str, Value],
    known: Mapping[str, Value],
    register: Register,
    group: Backend | None = None,
) -> BlindSignature:
    """Hospital: the credential of one bill, for the holder who showed a person credential of the bureau's key.

    `disclosed`: what she showed of it, which the caller has compared with its patient: otherwise somebody insured can
    lend herself to somebody who is not. `known`: all attributes but secret and blind; register: by bill handle.
    Raises VerificationError, DecodeError; Refused if this bill's credential was issued on another commitment.
    ValueError if the classes add up to more than the total.
    """
    group = group or backend()
    scalars = _scalars(ENCOUNTER, known)
    if sum(scalars[name] for name in CLASSES) > scalars["total"]:
        raise ValueError("the classes add up to the total at most")
    commitment = _check_request(request, by.of, occasion, group, (person_of, disclosed))
    _check_once(register, scalars["bill"].to_bytes(16, "big"), request.commitment, "encounter")
    return blind_issuance.sign(by.sk, by.of, commitment, scalars, {}, group)


def _scalars(schema: Schema, known: Mapping[str, Value]) -> dict[str, int]:
    """The integers of what an issuer knows: all attributes but those that start in C."""
    expected = set(schema.names) - set(HIDDEN[schema.name])
    if set(known) != expected:
        raise ValueError(f"an issuer of {schema.name} names {', '.join(sorted(expected))}")
    return {name: schema.scalar(name, value) for name, value in known.items()}
