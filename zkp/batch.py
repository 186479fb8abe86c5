"""Checks of proofs, and settling many of them at once.

Verifying a proof takes its bytes apart and ends in equations: sums in G1 that must vanish, and
products of pairings that must be one. A `Check` holds those of one proof as *formal* sums (points
with integer coefficients; nothing is computed). `settle` computes them: one multi-scalar
multiplication and one product of pairings for all checks together, each weighted; what they share
(fixed generators, keys in G2) is merged, and so costs once a batch.

Weights: one of 128 bits for each check, and for each product of pairings in it, from SHAKE-256 over
the digests of all checks. A check's digest covers its proof's whole transcript, so that nobody can
choose a proof after its weight. A false batch passes with probability 2^-128 a try of the hash.
Several equations of one proof in G1 reach `Check.term` already weighted by challenges of their
transcript drawn after their last byte (`zkp.sigma`, `zkp.range_proof` do so); products of pairings
need no weights of the caller's.

When a batch fails, halves of it are settled until the bad checks are known: `settle` names them.

Source: Bellare, Garay, Rabin 1998 (small exponents); bisection: Pastuszak, Michalek, Pieprzyk,
Seberry 2000. All values here are public. Not reviewed by outsiders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from operator import add
from typing import Any, final

from wire.domains import BATCH, framed
from wire.errors import DecodeError, VerificationError
from zkp.groups import Backend, Point, Point2, R

_WEIGHT_BYTES = 16
try:  # the extra `scoring` brings it: long integers are multiplied about four times faster
    import gmpy2
except ImportError:
    gmpy2 = None

_LONGEST, _SLOT = 320, 640  # a slot holds 2^65 products of such a scalar and one below R
_NAMED = 10
"""Most bad proofs that an error names."""

Factor = tuple[Point, int, Point2]
"""(point, scalar, key): the factor e(scalar * point, key) of a product of pairings."""


@final
class Family:
    """A named vector of fixed generators, of any length, computed once a process and backend.

    `name` determines the points: it enters transcripts in their place. `make(group, i)` computes the i-th.
    """

    def __init__(self, name: str, make: Callable[[Backend, int], Point]) -> None:
        self.name = name
        self._prefix = b"F" + len(name.encode()).to_bytes(4, "big") + name.encode()
        self._make = make
        self._known: dict[str, tuple[Point, ...]] = {}
        self._encoded: dict[int, bytes] = {}

    def points(self, group: Backend, count: int) -> tuple[Point, ...]:
        """The first `count` points."""
        known = self._known.get(group.name, ())
        if len(known) < count:
            fresh = (self._make(group, index) for index in range(len(known), count))
            known = self._known[group.name] = (*known, *fresh)
        return known if len(known) == count else known[:count]

    def point(self, group: Backend, index: int) -> Point:
        """The point of that index, 0 or more."""
        if index < 0:
            raise ValueError("an index of a family is 0 or more")
        known = self._known.get(group.name, ())
        return known[index] if index < len(known) else self.points(group, index + 1)[index]

    def encoded(self, index: int) -> bytes:
        """What stands for the point of that index in transcripts: the family's name and the index."""
        known = self._encoded.get(index)
        if known is None:
            known = self._encoded[index] = self._prefix + index.to_bytes(8, "big")
        return known

    def __repr__(self) -> str:
        return f"Family({self.name!r})"


Base = Point | tuple[Family, int]
"""A point that stands in the transcript, or a fixed generator: (family, index)."""

Sum = Sequence[tuple[int, Base]]
"""A formal sum: coefficient * base. Coefficients are public ints, mod R."""


@final
class Check:
    """What must hold for one proof. Filled by verifiers, computed by `settle`.

    `digest`: 32 bytes that depend on the whole transcript, after the last byte of the proof;
    `bind` sets or extends it. A check that was never bound is not settled (ValueError).
    """

    __slots__ = ("_even", "_fixed", "_long", "_products", "_terms", "digest", "group")

    def __init__(self, group: Backend, digest: bytes = b"") -> None:
        self.group = group
        self.digest = digest
        self._terms: dict[int, tuple[Point, int]] = {}  # by id: the entry keeps the point alive
        self._fixed: dict[tuple[Family, int], int] = {}
        self._long: list[tuple[Family, int, Sequence[int], Sequence[int]]] = []
        self._even: list[tuple[Family, int, int]] = []
        self._products: list[Sequence[Factor]] = []

    def bind(self, digest: bytes) -> None:
        """Let the digest cover `digest` as well: verifiers pass `Transcript.digest()` after their last byte."""
        self.digest = hashlib.sha256(self.digest + digest).digest() if self.digest else digest

    def term(self, point: Point, scalar: int) -> None:
        """+ scalar * point, in the sum that must vanish. `scalar`: any int, mod `R`."""
        known = self._terms.get(id(point))
        self._terms[id(point)] = point, scalar if known is None else known[1] + scalar

    def fixed(self, family: Family, index: int, scalar: int) -> None:
        """+ scalar * (the family's point of that index)."""
        place = family, index
        self._fixed[place] = self._fixed.get(place, 0) + scalar

    def formal(self, terms: Sum, scalar: int) -> None:
        """+ scalar * a formal sum."""
        points, fixed = self._terms, self._fixed
        for coefficient, base in terms:
            value = scalar * coefficient
            if isinstance(base, tuple):
                fixed[base] = fixed.get(base, 0) + value
            else:
                known = points.get(id(base))
                points[id(base)] = base, value if known is None else known[1] + value

    def fixed_many(self, family: Family, scalars: Sequence[int], start: int = 0, factors: Sequence[int] = (1,)) -> None:
        """+ sum_ij factors[i] scalars[j] * (the family's point start + i len(scalars) + j). 0 <= scalars[j] < 2^320.

        A long vector that is such a product costs no multiplication before it meets the batch's weight.
        """
        if scalars and (min(scalars) < 0 or max(scalars) >> _LONGEST):
            raise ValueError(f"scalars of a vector are in 0..2^{_LONGEST}-1")
        if scalars:
            self._long.append((family, start, list(scalars), factors))

    def fixed_even(self, family: Family, scalar: int, count: int) -> None:
        """+ scalar * (the sum of the family's first `count` points)."""
        self._even.append((family, scalar, count))

    def product(self, factors: Sequence[Factor]) -> None:
        """The product over all `factors` of e(scalar * point, key) must be one, whatever else holds."""
        self._products.append(tuple(factors))

    @property
    def products(self) -> int:
        """How many products of pairings must be one."""
        return len(self._products)


def settle(checks: Sequence[Check], group: Backend) -> None:
    """Check that everything in all `checks` holds. Raises VerificationError otherwise.

    One check: "zkp.bad_proof". Several: `BadProofs`, which names the bad ones' places, counted from 0. Checks of
    another backend, and checks that were never bound to a transcript, are a ValueError.
    """
    if _hold(checks, _weights(checks, group), group):
        return
    if len(checks) == 1:
        raise VerificationError("zkp.bad_proof")
    raise BadProofs(bad_ones(checks, group), len(checks))


def settle_all(takes: Iterable[Callable[[], Check]], group: Backend) -> None:
    """Take the check of each message, and settle all of them: a message that is malformed spoils no other's.

    takes: for each message a call that returns its check, or raises VerificationError or DecodeError. Raises
    `BadProofs` with the places of all that do not hold, malformed ones included.
    """
    found: list[Check] = []
    places: list[int] = []
    bad: list[int] = []
    for place, take in enumerate(takes):
        try:
            found.append(take())
            places.append(place)
        except (VerificationError, DecodeError):
            bad.append(place)
    total = len(found) + len(bad)
    if not _hold(found, _weights(found, group), group):
        bad += [places[at] for at in bad_ones(found, group)]
    if bad:
        raise BadProofs(sorted(bad), total)


class BadProofs(VerificationError):
    """Some proofs of a batch do not hold. `places`: all of those, from 0, ascending; the sentence names the first ten.

    code: "zkp.bad_proofs".
    """

    def __init__(self, places: Sequence[int], total: int) -> None:
        named = ", ".join(map(str, places[:_NAMED])) + (", ..." if len(places) > _NAMED else "")
        super().__init__("zkp.bad_proofs", count=len(places), all=total, bad=named)
        self.places = tuple(places)


def bad_ones(checks: Sequence[Check], group: Backend) -> list[int]:
    """The places of the checks that do not hold, in order: found by halving, about 2 log2(n) settlements each."""
    weights = _weights(checks, group)

    def search(start: int, end: int, known_bad: bool) -> list[int]:
        if not known_bad and _hold(checks[start:end], weights[start:end], group):
            return []
        if end - start == 1:
            return [start]
        middle = (start + end) // 2
        first = search(start, middle, False)
        # if the first half holds, the second is what is wrong: no need to settle it again
        return first + search(middle, end, not first)

    return search(0, len(checks), False) if checks else []


def _weights(checks: Sequence[Check], group: Backend) -> list[list[int]]:
    """A list for each check: its weight in the sum, then one for each of its products."""
    stream = hashlib.shake_256(framed(BATCH, b""))
    for check in checks:
        if check.group is not group:
            raise ValueError(f"a check of backend {check.group.name!r} cannot be settled with {group.name!r}")
        if not check.digest:
            raise ValueError("a check must be bound to its proof's transcript")
        stream.update(len(check.digest).to_bytes(8, "big") + check.digest)
    counts = [1 + check.products for check in checks]
    drawn = stream.digest(_WEIGHT_BYTES * sum(counts))
    weights, at = [], 0
    for count in counts:
        pieces = (drawn[_WEIGHT_BYTES * i : _WEIGHT_BYTES * (i + 1)] for i in range(at, at + count))
        weights.append([int.from_bytes(piece, "big") or 1 for piece in pieces])
        at += count
    return weights


def _hold(checks: Sequence[Check], weights: Sequence[Sequence[int]], group: Backend) -> bool:
    """Whether the weighted sum vanishes and the weighted product is one."""
    points: list[Point] = []
    scalars: list[int] = []
    fixed: dict[Family, list[int]] = {}
    rows: dict[tuple[Family, int], Any] = {}
    even: dict[tuple[Family, int], int] = {}
    sides: dict[bytes, tuple[Point2, list[Point], list[int]]] = {}
    for check, (weight, *of_products) in zip(checks, weights, strict=True):
        for point, scalar in check._terms.values():
            points.append(point)
            scalars.append(weight * (scalar % R))
        for (family, index), scalar in check._fixed.items():
            _accumulate(fixed.setdefault(family, []), index, (weight * (scalar % R),))
        for family, start, many, factors in check._long:
            weighted = [weight * factor % R for factor in factors]
            if gmpy2 is None:
                _accumulate(fixed.setdefault(family, []), start, [f * scalar for f in weighted for scalar in many])
            else:
                packed = gmpy2.pack(many, _SLOT)  # one multiplication is one of all scalars
                for at, factor in zip(range(start, start + len(many) * len(factors), len(many)), weighted, strict=True):
                    rows[family, at] = rows.get((family, at), 0) + factor * packed
        for family, scalar, count in check._even:
            even[family, count] = even.get((family, count), 0) + weight * scalar
        for weight, product in zip(of_products, check._products, strict=True):
            for point, scalar, key in product:
                side = sides.setdefault(group.encode2(key), (key, [], []))
                side[1].append(point)
                side[2].append(weight * scalar)
    for (family, start), packed in rows.items():
        _accumulate(fixed.setdefault(family, []), start, list(map(int, gmpy2.unpack(packed, _SLOT))))
    for (family, count), scalar in even.items():
        _accumulate(fixed.setdefault(family, []), 0, [scalar % R] * count)
    for family, coefficients in fixed.items():
        points += family.points(group, len(coefficients))
        scalars += coefficients
    if not group.is_identity(group.msm(points, scalars)):
        return False
    return group.pairing_is_one([(group.msm(left, of_left), key) for key, left, of_left in sides.values()])


def _accumulate(total: list[int], start: int, scalars: Sequence[int]) -> None:
    """total[start + i] += scalars[i]. Sums are reduced when they meet their points, once a batch."""
    end = start + len(scalars)
    if len(total) < end:
        total += [0] * (end - len(total))
    total[start:end] = map(add, total[start:end], scalars)
