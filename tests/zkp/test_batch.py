"""zkp.batch: what holds is settled, what does not is named, and errors do not cancel."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import VerificationError
from zkp import batch
from zkp.batch import Check, Family, bad_ones, settle
from zkp.groups import BACKENDS, Backend, Point, R, backend

GROUP = backend()
G, H = GROUP.generator(), GROUP.generator2()
FAMILY = Family("tests/batch", lambda group, i: group.hash_to_point(b"tests/batch", bytes([i])))


@pytest.fixture(autouse=True, params=["with gmpy2", "without"])
def _arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of weighting long vectors."""
    if request.param == "with gmpy2":
        pytest.importorskip("gmpy2", reason="install medveil[scoring]")
    else:
        monkeypatch.setattr(batch, "gmpy2", None)


def digest_of(place: int) -> bytes:
    return hashlib.sha256(bytes([place])).digest()


def times(scalar: int, group: Backend = GROUP) -> Point:
    return group.mul(group.generator(), scalar)


def holding(place: int, group: Backend = GROUP, error: int = 0, in_product: int = 0) -> Check:
    """A check whose sum is ``error G`` and whose product is e(G, H)^in_product."""
    check = Check(group, digest_of(place))
    check.term(times(3 + place, group), 7)
    check.term(group.generator(), -7 * (3 + place) + error)
    check.fixed(FAMILY, 2, 5)
    check.fixed_many(FAMILY, [1, R - 5], start=1)
    check.fixed(FAMILY, 1, R - 1)
    key = group.mul2(group.generator2(), 11)
    check.product([(times(2, group), 1, key), (group.generator(), in_product - 22, group.generator2())])
    return check


def code_of(checks: list[Check], group: Backend = GROUP) -> str:
    with pytest.raises(VerificationError) as caught:
        settle(checks, group)
    return caught.value.code


def test_what_holds_is_settled(either: Backend) -> None:
    settle([], either)
    settle([holding(0, either)], either)
    settle([holding(place, either) for place in range(3)], either)


@pytest.mark.parametrize("error, in_product", [(1, 0), (R - 1, 0), (0, 1), (5, 5)])
def test_one_that_does_not(either: Backend, error: int, in_product: int) -> None:
    assert code_of([holding(0, either, error, in_product)], either) == "zkp.bad_proof"
    checks = [holding(0, either), holding(1, either, error, in_product), holding(2, either)]
    with pytest.raises(VerificationError) as caught:
        settle(checks, either)
    assert caught.value.code == "zkp.bad_proofs"
    assert caught.value.facts == {"count": 1, "all": 3, "bad": "1"}


@settings(max_examples=30)
@given(st.integers(1, 20), st.sets(st.integers(0, 19)), st.sets(st.integers(0, 19)))
def test_the_bad_ones_are_named(count: int, in_sum: set[int], in_product: set[int]) -> None:
    checks = [holding(place, GROUP, place in in_sum, place in in_product) for place in range(count)]
    bad = sorted(place for place in in_sum | in_product if place < count)
    assert bad_ones(checks, GROUP) == bad
    if bad:
        code_of(checks)
    else:
        settle(checks, GROUP)


def test_at_most_ten_are_named() -> None:
    checks = [holding(place, error=place) for place in range(13)]
    with pytest.raises(VerificationError) as caught:
        settle(checks, GROUP)
    assert caught.value.facts["bad"] == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..." and caught.value.facts["count"] == 12


def test_bisection_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad proof of 64 takes about 2 log2(64) settlements, not 64."""
    settled: list[int] = []
    computed = batch._hold

    def counted(checks: list[Check], weights: list[list[int]], group: Backend) -> bool:
        settled.append(len(checks))
        return computed(checks, weights, group)

    monkeypatch.setattr(batch, "_hold", counted)
    for bad in (0, 31, 63):
        settled.clear()
        assert bad_ones([holding(place, error=place == bad) for place in range(64)], GROUP) == [bad]
        assert len(settled) <= 2 * math.log2(64) + 1 and max(settled) == 64


# ------------------------------------------------------------------------------------ errors do not cancel


def test_errors_of_two_proofs_do_not_cancel() -> None:
    """+5 G here, -5 G there: without weights the batch would pass."""
    assert bad_ones([holding(0, error=5), holding(1, error=-5)], GROUP) == [0, 1]
    assert bad_ones([holding(0, in_product=5), holding(1, in_product=-5)], GROUP) == [0, 1]


def test_two_products_of_one_proof_do_not_cancel() -> None:
    """Two pairing equations (a signature's and a set membership's) are two, whoever made the proof."""
    check = Check(GROUP, digest_of(0))
    check.product([(G, 1, H)])
    check.product([(G, -1, H)])
    assert code_of([check]) == "zkp.bad_proof"
    joined = Check(GROUP, digest_of(0))
    joined.product([(G, 1, H), (G, -1, H)])
    settle([joined], GROUP)


def test_a_sum_and_a_product_do_not_cancel() -> None:
    check = Check(GROUP, digest_of(0))
    check.term(G, 1)
    check.product([(G, -1, H)])
    assert code_of([check]) == "zkp.bad_proof"


def test_the_same_bad_proof_twice() -> None:
    assert bad_ones([holding(0, error=1)] * 2, GROUP) == [0, 1]
    assert bad_ones([holding(0, error=1), holding(0, error=-1)], GROUP) == [0, 1], "weights are by place as well"


def test_weights_hang_on_every_digest_and_have_128_bits() -> None:
    first = [holding(place) for place in range(4)]
    weights = batch._weights(first, GROUP)
    drawn = [weight for of_check in weights for weight in of_check]
    assert len(drawn) == 8 == len(set(drawn)) and all(0 < weight < 1 << 128 for weight in drawn)
    assert max(drawn) > 1 << 120
    for place in range(4):
        changed = list(first)
        changed[place] = holding(40 + place)
        other = [weight for of_check in batch._weights(changed, GROUP) for weight in of_check]
        assert not set(other) & set(drawn)
    assert batch._weights(first, GROUP) == weights


def test_weights_of_the_reference_are_the_same() -> None:
    drawn = [batch._weights([holding(place, backend(name)) for place in range(2)], backend(name)) for name in BACKENDS]
    assert drawn[0] == drawn[1]


# --------------------------------------------------------------------------------------------- formal sums


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-(2**300), 2**300)), max_size=8),
    st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 2**320 - 1), max_size=4)), max_size=4),
    st.integers(1, 2**128),
)
def test_formal_sums_are_the_points_they_say(
    terms: list[tuple[int, int]], fixed: list[tuple[int, list[int]]], error: int
) -> None:
    """Against additions one by one; merging, negative and unreduced coefficients change nothing."""
    points = [times(5), times(6), times(6), GROUP.identity()]
    check, total = Check(GROUP, digest_of(0)), GROUP.identity()
    for which, scalar in terms:
        check.term(points[which], scalar)
        total = GROUP.add(total, GROUP.mul(points[which], scalar))
    for start, scalars in fixed:
        check.fixed_many(FAMILY, scalars, start)
        check.fixed(FAMILY, start, 3)
        total = GROUP.add(total, GROUP.mul(FAMILY.point(GROUP, start), 3))
        for offset, scalar in enumerate(scalars):
            total = GROUP.add(total, GROUP.mul(FAMILY.point(GROUP, start + offset), scalar))
    check.fixed_even(FAMILY, error, 3)
    check.fixed_many(FAMILY, [2, error], 1, factors=[-1, 5])
    check.formal([(error, points[0]), (-3, (FAMILY, 2)), (1, points[0])], 7)
    for index, scalar in [(0, error), (1, error - 2), (2, error - error), (3, 10), (4, 5 * error), (2, -21)]:
        total = GROUP.add(total, GROUP.mul(FAMILY.point(GROUP, index), scalar))
    total = GROUP.add(total, GROUP.mul(points[0], 7 * error + 7))
    check.term(total, -1)
    settle([check], GROUP)
    twin = Check(GROUP, digest_of(1))
    twin.fixed_even(FAMILY, error, 3)
    for index in range(3):
        twin.fixed(FAMILY, index, -error)
    settle([check, twin], GROUP)
    check.fixed(FAMILY, 0, error % R or 1)
    assert code_of([check]) == "zkp.bad_proof"


def test_vectors_hold_scalars_only() -> None:
    """A negative or longer one would run into its neighbour."""
    check = Check(GROUP)
    check.fixed_many(FAMILY, [0, 2**320 - 1])
    for wrong in ([-1], [1, 2**320], [1, -R]):
        with pytest.raises(ValueError, match=r"2\^320"):
            check.fixed_many(FAMILY, wrong)


def test_keys_are_merged_by_their_bytes() -> None:
    """The same key decoded twice is one pairing: two checks hold two keys only."""
    encoded = GROUP.encode2(GROUP.mul2(H, 5))
    checks = []
    for place in range(3):
        check = Check(GROUP, digest_of(place))
        check.product([(times(place + 1), 1, GROUP.decode2(encoded)), (times(-5 * (place + 1)), 1, H)])
        checks.append(check)
    settle(checks, GROUP)


def test_families() -> None:
    made: list[int] = []

    def make(group: Backend, index: int) -> Point:
        made.append(index)
        return group.hash_to_point(b"counted", bytes([index]))

    family = Family("tests/counted", make)
    assert family.points(GROUP, 3) == family.points(GROUP, 5)[:3]
    assert family.point(GROUP, 6) == family.points(GROUP, 7)[6] and made == [0, 1, 2, 3, 4, 5, 6]
    assert repr(family) == "Family('tests/counted')"
    with pytest.raises(ValueError, match="0 or more"):
        family.point(GROUP, -1)
    other = backend("reference")
    assert other.encode(family.point(other, 1)) == GROUP.encode(family.point(GROUP, 1))


# -------------------------------------------------------------------------------------------- callers' bugs


def test_a_check_is_bound_to_a_transcript() -> None:
    with pytest.raises(ValueError, match="bound"):
        settle([holding(0), Check(GROUP)], GROUP)
    check = Check(GROUP)
    check.bind(b"1" * 32)
    assert check.digest == b"1" * 32
    check.bind(b"2" * 32)
    assert check.digest not in (b"1" * 32, b"2" * 32) and len(check.digest) == 32


def test_checks_of_another_backend() -> None:
    with pytest.raises(ValueError, match="cannot be settled"):
        settle([holding(0)], backend("reference"))
