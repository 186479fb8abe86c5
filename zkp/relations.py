"""Statements of sigma proofs: relations between points, all of them (AND), one of several (OR), folded.

A statement is public. `zkp.sigma` proves and verifies it; what it means and when a fold is sound is said there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

from wire.errors import VerificationError
from zkp.batch import Base, Family, Sum
from zkp.groups import POINT_BYTES, SCALAR_BYTES, R
from zkp.transcript import Transcript


@final
@dataclass(frozen=True)
class Relation:
    """``target = sum_i witness[name_i] * Sum_i``. Public: everything but the witness."""

    label: bytes
    terms: Sequence[tuple[str, Sum]]
    target: Sum


@final
@dataclass(frozen=True)
class OneOf:
    """At least one of `branches` holds. The names in a branch are its own: they share nothing with others."""

    label: bytes
    branches: Sequence[Relation]


@final
@dataclass(frozen=True)
class Folded:
    """All of `relations` hold, by one commitment. See the module on when that is sound."""

    label: bytes
    relations: Sequence[Relation]


_SMALL = {coefficient: (coefficient % R).to_bytes(SCALAR_BYTES, "big") for coefficient in (-1, 1)}
_INFINITY = 0x40

Item = Relation | OneOf | Folded
Statement = Sequence[Item]


@dataclass
class Equation:
    """target = sum over `terms` of variable * Sum; `branch`: its place in its OneOf, or None."""

    terms: list[tuple[int, Sum]]
    target: Sum
    one_of: int | None = None


class Plan:
    """A statement with its variables numbered: what prover and verifier both work on."""

    def __init__(self, statement: Statement, transcript: Transcript) -> None:
        """Writes the statement into `transcript` and draws the folding challenges from it."""
        transcript.append_bytes(b"sigma", encoded_statement(statement))
        self.equations: list[Equation] = []
        self.variables: list[list[tuple[int, str]]] = []  # each: sum of factor * witness[name]
        self.choices: list[OneOf] = []
        self.scopes: list[int | None] = []  # the OneOf's branch (its equation) of each variable, or None
        named: dict[str, int] = {}
        fixed = {name for item in statement if isinstance(item, Relation) for name, _ in item.terms}
        _check_scopes(statement)
        for item in statement:
            if isinstance(item, Relation):
                self._add([(self._named(name, named), base) for name, base in item.terms], item.target)
            elif isinstance(item, Folded):
                factor = transcript.challenge(b"fold")
                self._fold(item, factor, named, fixed, statement)
            else:
                self._choose(item)

    def _named(self, name: str, named: dict[str, int]) -> int:
        if name not in named:
            named[name] = self._variable([(1, name)])
        return named[name]

    def _variable(self, parts: list[tuple[int, str]], scope: int | None = None) -> int:
        self.variables.append(parts)
        self.scopes.append(scope)
        return len(self.variables) - 1

    def _add(self, terms: list[tuple[int, Sum]], target: Sum, one_of: int | None = None) -> None:
        self.equations.append(Equation(terms, target, one_of))

    def _choose(self, item: OneOf) -> None:
        if len(item.branches) < 2 or item.label in [choice.label for choice in self.choices]:
            raise ValueError("a OneOf has two branches or more, and a label of its own")
        self.choices.append(item)
        for branch in item.branches:
            scope, own = len(self.equations), dict[str, int]()
            for name, _ in branch.terms:
                if name not in own:
                    own[name] = self._variable([(1, name)], scope)
            self._add([(own[name], base) for name, base in branch.terms], branch.target, len(self.choices) - 1)

    def _fold(self, item: Folded, factor: int, named: dict[str, int], fixed: set[str], statement: Statement) -> None:
        others = (other for other in statement if isinstance(other, Folded) and other is not item)
        taken = {name for other in others for relation in other.relations for name, _ in relation.terms}
        terms: list[tuple[int, Sum]] = []
        target: list[tuple[int, Base]] = []
        merged: dict[bytes, tuple[Sum, list[tuple[int, str]]]] = {}
        seen: set[str] = set()
        power, bases = 1, None
        if not item.relations:
            raise ValueError("a Folded has one relation or more")
        for relation in item.relations:
            own: list[bytes] = []
            for name, base in relation.terms:
                if name in fixed:
                    terms.append((self._named(name, named), [(power * a, point) for a, point in base]))
                    continue
                if name in taken or name in seen:
                    raise ValueError(f"{name!r} is folded twice and fixed by no Relation")
                seen.add(name)
                key = encoded_sum(base)
                merged.setdefault(key, (base, []))[1].append((power, name))
                own.append(key)
            if len(set(own)) != len(own) or (bases is not None and set(own) != bases):
                raise ValueError("each relation of a Folded has one blinding for each of the same bases")
            bases = set(own)
            target += [(power * a, point) for a, point in relation.target]
            power = power * factor % R
        terms += [(self._variable(parts), base) for base, parts in merged.values()]
        self._add(terms, target)

    @property
    def shape(self) -> tuple[int, int]:
        """Commitments and responses (challenges of branches included)."""
        return len(self.equations), len(self.variables) + sum(len(c.branches) - 1 for c in self.choices)


def _relations(item: Item) -> Sequence[Relation]:
    if isinstance(item, Relation):
        return [item]
    return item.branches if isinstance(item, OneOf) else item.relations


def _check_scopes(statement: Statement) -> None:
    """A name in a OneOf is its branches' own: elsewhere it would look like an equality that nothing proves."""
    seen: set[str] = set()
    shared: set[str] = set()
    for item in statement:
        relations = (
            [item] if isinstance(item, Relation) else item.branches if isinstance(item, OneOf) else item.relations
        )
        names = {name for relation in relations for name, _ in relation.terms}
        if names & (seen if isinstance(item, OneOf) else seen - shared):
            raise ValueError("a name of a OneOf stands nowhere else")
        seen |= names
        if not isinstance(item, OneOf):
            shared |= names


def proof_bytes(statement: Statement) -> tuple[int, int]:
    """Lengths of the batchable form's commitments and responses. The compact form has 32 + the second."""
    commitments = variables = 0
    names: set[str] = set()
    for item in statement:
        if isinstance(item, Relation):
            commitments += 1
            names |= {name for name, _ in item.terms}
        elif isinstance(item, OneOf):
            commitments += len(item.branches)
            variables += sum(len({name for name, _ in branch.terms}) + 1 for branch in item.branches) - 1
    for item in statement:
        if isinstance(item, Folded) and item.relations:
            commitments += 1
            variables += len({name for name, _ in item.relations[0].terms} - names)
    return commitments * POINT_BYTES, (len(names) + variables) * SCALAR_BYTES


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def encoded_sum(terms: Sum) -> bytes:
    """The bytes of a formal sum as transcripts hold it: injective. Raises VerificationError for the identity."""
    pieces = [len(terms).to_bytes(4, "big")]
    for coefficient, base in terms:
        pieces.append(_SMALL.get(coefficient) or (coefficient % R).to_bytes(SCALAR_BYTES, "big"))
        if isinstance(base, tuple):
            pieces.append(base[0].encoded(base[1]))
        else:
            point = base.encoded
            if point[0] & _INFINITY:
                raise VerificationError("zkp.identity_point")
            pieces += (b"P", point)
    return b"".join(pieces)


@lru_cache(maxsize=4096)
def _encoded_term(name: str, coefficient: int, family: Family, index: int) -> bytes:
    """A name with its sum, where that is one fixed generator: most terms are, and always the same."""
    return _framed(name.encode()) + encoded_sum([(coefficient, (family, index))])


def _encoded_relation(relation: Relation) -> bytes:
    pieces = [_framed(relation.label), len(relation.terms).to_bytes(4, "big")]
    for name, base in relation.terms:
        if len(base) == 1 and isinstance(base[0][1], tuple) and base[0][0] in _SMALL:
            pieces.append(_encoded_term(name, base[0][0], *base[0][1]))
        else:
            pieces += (_framed(name.encode()), encoded_sum(base))
    pieces.append(encoded_sum(relation.target))
    return b"".join(pieces)


def encoded_statement(statement: Statement) -> bytes:
    """The statement's bytes, injective: every list has its length, every name and label its own."""
    pieces = [len(statement).to_bytes(4, "big")]
    for item in statement:
        if isinstance(item, Relation):
            pieces.append(b"R")
        else:
            count = len(_relations(item)).to_bytes(4, "big")
            pieces += (b"O" if isinstance(item, OneOf) else b"A", _framed(item.label), count)
        pieces += map(_encoded_relation, _relations(item))
    return b"".join(pieces)
