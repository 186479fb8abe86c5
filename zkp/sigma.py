"""Sigma proofs: knowledge of secret numbers that satisfy linear relations between points.

Statement (public): a list of

    Relation   target = sum_i witness[name_i] * base_i        (bases and target: formal sums of points)
    OneOf      at least one of several relations holds, and it stays hidden which
    Folded     several relations at the price of one

All hold at once (AND). The same name in two relations is the same number (one response for both).

Protocol, for each relation, with k_i random for each name:

    P -> V   T = sum_i k_i base_i
    V -> P   c                                       (the transcript's challenge, after everything above)
    P -> V   s_i = k_i + c witness[name_i]
    V        sum_i s_i base_i - c target - T = 0

*OneOf* (Cramer, Damgard, Schoenmakers 1994): each branch has a challenge of its own; they add up to c.
The prover invents responses and challenge for the branches it cannot prove. Names are the branch's own.

*Folded*: with f a challenge after the statement, one relation stands for all,
``sum_j f^j target_j = sum_j f^j sum_i witness[name_ij] * base_ij``. It is sound where every name is
one of two sorts, and `ValueError` is raised where that does not show:

1. a name that also stands in a `Relation` of the statement, *whose bases are independent generators*
   (hashed to the curve), so that points sent before f fix the number: what the relation cannot tell,
   the caller must know. A BBS presentation's relation for D fixes the hidden messages; an opening of a
   commitment fixes value and blinding. A relation over a base that the prover chose fixes nothing.
2. a name that stands in one folded relation alone: a blinding. Such names are merged: for each of their
   bases there is one response, to ``sum_j f^j witness[name_j]``. So each relation of the fold must have
   exactly one such name for each of these bases; otherwise a relation without it could be off by a
   multiple of the base.

Then for each fold of m relations, m accepted values of f and the fixed numbers leave no relation open
(Vandermonde), and a false one passes for at most m - 1 values of f.

Two forms. *Batchable*: the proof holds every T, and the verifier adds one equation, weighted by powers
of a challenge drawn after the responses, to a `zkp.batch.Check`. *Compact*: the proof holds c instead
of the T's; it is shorter, and verified alone.

The whole statement (labels, names, coefficients, every base's bytes) enters the transcript here, before
the first challenge; what else the proof is to be bound to, the caller writes before.

Adversary: a prover of bounded power (special soundness, random oracle; a statement's bases are in the
transcript, so none can be chosen afterwards); a verifier that wants the witness (honest-verifier zero
knowledge, made non-interactive by Fiat-Shamir). Not constant time: a OneOf's true branch shows in the
prover's run time. Not reviewed by outsiders. Source: Schnorr 1991; Maurer 2009; CDS 1994.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from wire.errors import DecodeError, VerificationError
from zkp.batch import Base, Check, Sum
from zkp.groups import (
    POINT_BYTES,
    SCALAR_BYTES,
    Backend,
    Point,
    R,
    Rand,
    backend,
    decode_scalar,
    encode_scalar,
    random_scalar,
)
from zkp.relations import Equation, Folded, OneOf, Plan, Relation, Statement, proof_bytes
from zkp.transcript import Transcript

__all__ = [
    "Base",
    "Folded",
    "OneOf",
    "Relation",
    "SigmaProof",
    "Statement",
    "Sum",
    "proof_bytes",
    "prove",
    "prove_compact",
    "verify",
    "verify_compact",
]


@final
@dataclass(frozen=True)
class SigmaProof:
    """The batchable form. commitments: 48 bytes for each Relation, branch and Folded; responses: 32 bytes
    for each different name, merged blinding and name of a branch, and each branch's challenge but the last's."""

    commitments: bytes
    responses: bytes


# ---------------------------------------------------------------------------------------------- prover


def prove(
    transcript: Transcript,
    statement: Statement,
    witness: Mapping[str, int],
    rand: Rand,
    group: Backend | None = None,
    true_branch: Mapping[bytes, int] | None = None,
) -> SigmaProof:
    """Prover: the batchable form. P -> V

    witness: secret scalars by name (those of a OneOf: the true branch's). true_branch: for each OneOf's
    label the place of the branch that holds (secret). rand: secret source of bytes. What the proof is
    bound to is in `transcript` already; it goes on after this proof's last byte. The relations are not
    checked: a false witness gives a proof that no verifier accepts, and the caller, who knows the
    predicate's name, refuses before.
    """
    commitments, _, responses = _prove(transcript, statement, witness, rand, group or backend(), true_branch or {})
    return SigmaProof(commitments, responses)


def prove_compact(
    transcript: Transcript,
    statement: Statement,
    witness: Mapping[str, int],
    rand: Rand,
    group: Backend | None = None,
    true_branch: Mapping[bytes, int] | None = None,
) -> bytes:
    """Prover: the compact form, c and the responses. Arguments as for `prove`. P -> V"""
    _, challenge, responses = _prove(transcript, statement, witness, rand, group or backend(), true_branch or {})
    return encode_scalar(challenge) + responses


def _prove(
    transcript: Transcript,
    statement: Statement,
    witness: Mapping[str, int],
    rand: Rand,
    group: Backend,
    true_branch: Mapping[bytes, int],
) -> tuple[bytes, int, bytes]:
    plan = Plan(statement, transcript)
    truth = _true_equations(plan, true_branch)
    proved = [scope is None or scope in truth for scope in plan.scopes]
    secrets = [
        sum(factor * witness[name] for factor, name in parts) % R if known else 0
        for parts, known in zip(plan.variables, proved, strict=True)
    ]
    secret = transcript.prover_randomness([*secrets, *sorted(truth)], rand)
    # nonces k where the relation is proved; the responses themselves where it is invented
    drawn = [random_scalar(secret) for _ in plan.variables]
    invented = {
        place: random_scalar(secret)
        for place, equation in enumerate(plan.equations)
        if equation.one_of is not None and place not in truth
    }
    # T = sum k base, and sum s base - c target for invented branches
    commitments = b"".join(
        group.encode(_computed(equation, drawn, invented.get(place, 0), group))
        for place, equation in enumerate(plan.equations)
    )
    challenge = _challenge(transcript, commitments)
    challenges = _branch_challenges(plan, invented, challenge)
    responses = []
    for k, value, scope, known in zip(drawn, secrets, plan.scopes, proved, strict=True):
        c = challenge if scope is None else challenges[scope]
        responses.append((k + c * value) % R if known else k)
    for group_of in _branches(plan):
        responses += [challenges[place] for place in group_of[:-1]]
    encoded = b"".join(map(encode_scalar, responses))
    transcript.append_bytes(b"responses", encoded)
    transcript.challenge(b"weight")
    return commitments, challenge, encoded


def _branches(plan: Plan) -> list[list[int]]:
    """The equations of each OneOf, in order."""
    found: list[list[int]] = [[] for _ in plan.choices]
    for place, equation in enumerate(plan.equations):
        if equation.one_of is not None:
            found[equation.one_of].append(place)
    return found


def _true_equations(plan: Plan, true_branch: Mapping[bytes, int]) -> set[int]:
    if set(true_branch) != {choice.label for choice in plan.choices}:
        raise ValueError("true_branch names the branch of each OneOf, and of nothing else")
    places = _branches(plan)
    chosen = [true_branch[choice.label] for choice in plan.choices]
    if not all(0 <= which < len(group_of) for which, group_of in zip(chosen, places, strict=True)):
        raise ValueError("a branch is counted from 0")
    return {group_of[which] for which, group_of in zip(chosen, places, strict=True)}


def _branch_challenges(plan: Plan, known: Mapping[int, int], challenge: int) -> dict[int, int]:
    """The challenge of each branch: all but one of each OneOf are `known`, and all add up to `challenge`."""
    challenges = dict(known)
    for places in _branches(plan):
        rest = [place for place in places if place not in known]
        challenges[rest[0]] = (challenge - sum(known[place] for place in places if place in known)) % R
    return challenges


def _computed(equation: Equation, scalars: Sequence[int], challenge: int, group: Backend) -> Point:
    """sum_i scalars[i] base_i - challenge * target, as a point."""
    points: list[Point] = []
    totals: list[int] = []
    place: dict[object, int] = {}
    for factor, terms in _signed(equation, scalars, challenge):
        for coefficient, base in terms:
            key = base if isinstance(base, tuple) else id(base)
            if key not in place:
                place[key] = len(points)
                points.append(base[0].point(group, base[1]) if isinstance(base, tuple) else base)
                totals.append(0)
            totals[place[key]] += factor * coefficient
    return group.msm(points, totals)


def _signed(equation: Equation, scalars: Sequence[int], challenge: int) -> Iterable[tuple[int, Sum]]:
    for variable, terms in equation.terms:
        yield scalars[variable], terms
    if challenge:
        yield -challenge, equation.target


def _challenge(transcript: Transcript, commitments: bytes) -> int:
    for at in range(0, len(commitments), POINT_BYTES):
        transcript.append_point(b"T", commitments[at : at + POINT_BYTES])
    return transcript.challenge(b"c")


# -------------------------------------------------------------------------------------------- verifier


def verify(transcript: Transcript, statement: Statement, proof: SigmaProof, check: Check) -> None:
    """Verifier: take `proof` apart and add its equations to `check`, which `zkp.batch.settle` computes.

    Nothing is proved until the check is settled. `transcript` holds the same as the prover's did. Raises
    VerificationError for malformed proofs and statements with the identity among their points.
    """
    group = check.group
    plan = Plan(statement, transcript)
    expected = plan.shape[0] * POINT_BYTES, plan.shape[1] * SCALAR_BYTES
    if (len(proof.commitments), len(proof.responses)) != expected:
        length = len(proof.commitments) + len(proof.responses)
        raise VerificationError("zkp.proof_length", length=length, expected=sum(expected))
    commitments = _points(proof.commitments, group)
    challenge = _challenge(transcript, proof.commitments)
    scalars = _read_scalars(transcript, proof.responses)
    challenges = _read_challenges(plan, scalars, challenge)
    weight = transcript.challenge(b"weight")
    check.bind(transcript.digest())

    # sum_j weight^(j+1) (sum_i s_i base_i - c_j target_j - T_j) = 0
    power = 1
    for place, (equation, committed) in enumerate(zip(plan.equations, commitments, strict=True)):
        power = power * weight % R
        c = challenges.get(place, challenge)
        for factor, terms in _signed(equation, scalars, c):
            check.formal(terms, power * factor % R)
        check.term(committed, -power)


def verify_compact(transcript: Transcript, statement: Statement, proof: bytes, group: Backend | None = None) -> None:
    """Verifier: check the compact form at once. Raises VerificationError."""
    group = group or backend()
    plan = Plan(statement, transcript)
    expected = SCALAR_BYTES * (1 + plan.shape[1])
    if len(proof) != expected:
        raise VerificationError("zkp.proof_length", length=len(proof), expected=expected)
    try:
        challenge = decode_scalar(proof[:SCALAR_BYTES])
        scalars = [decode_scalar(proof[at : at + SCALAR_BYTES]) for at in range(SCALAR_BYTES, expected, SCALAR_BYTES)]
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None
    challenges = _read_challenges(plan, scalars, challenge)
    commitments = b"".join(
        group.encode(_computed(equation, scalars, challenges.get(place, challenge), group))
        for place, equation in enumerate(plan.equations)
    )
    if _challenge(transcript, commitments) != challenge:
        raise VerificationError("zkp.bad_proof")
    transcript.append_bytes(b"responses", proof[SCALAR_BYTES:])
    transcript.challenge(b"weight")


def _points(data: bytes, group: Backend) -> list[Point]:
    try:
        return [group.decode(data[at : at + POINT_BYTES]) for at in range(0, len(data), POINT_BYTES)]
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None


def _read_scalars(transcript: Transcript, data: bytes) -> list[int]:
    try:
        scalars = [decode_scalar(data[at : at + SCALAR_BYTES]) for at in range(0, len(data), SCALAR_BYTES)]
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None
    transcript.append_bytes(b"responses", data)
    return scalars


def _read_challenges(plan: Plan, scalars: Sequence[int], challenge: int) -> dict[int, int]:
    """Branch challenges by equation, from the proof's last scalars."""
    rest = iter(scalars[len(plan.variables) :])
    known = {place: next(rest) for places in _branches(plan) for place in places[:-1]}
    return _branch_challenges(plan, known, challenge)
