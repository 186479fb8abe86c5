"""Which epoch of a grant a use is judged by: told by heights, since blocks may have equal times."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from ledger.contracts.grants import GrantState, PastEpoch
from medveil.verification.case import SKEW, Case, History, Use
from wire.errors import VerificationError

DAY = 86_400_000
TIMES = [0, DAY, 2 * DAY, 2 * DAY, 2 * DAY, 3 * DAY]
"""Blocks 2, 3 and 4 are of one time: the sequencer's clock stood still, or went back."""
ONE = GrantState("g", "hospital", b"1" * 32, 0, 9 * DAY, 0, 1, None, None, ())


def renewed(at: int, not_before: int = 0) -> GrantState:
    """Grant "g" of block 1, with new terms from block `at` on."""
    ended = PastEpoch(0, ONE.commitment, ONE.not_before, ONE.expires, 1, TIMES[at], at)
    return msgspec.structs.replace(ONE, commitment=b"2" * 32, not_before=not_before, epoch=1, height=at, past=(ended,))


def revoked(at: int) -> GrantState:
    return msgspec.structs.replace(ONE, revoked_at=TIMES[at], revoked_height=at)


def case(state: GrantState | None, approved: int = 0) -> Case:
    history = History(list(TIMES))
    history.approved[b"q", "hospital"] = approved
    machine = SimpleNamespace(get=lambda key, kind: state)
    return Case(cast(Any, None), cast(Any, machine), history, "reference")


def use(time: int = 0, anchored: int = 5) -> Use:
    said = SimpleNamespace(grant="g")
    intent = SimpleNamespace(use=said, time=time, organisation="hospital", sequence=1)
    return Use(cast(Any, intent), "chain", cast(Any, SimpleNamespace(height=anchored)))


@pytest.mark.parametrize(
    "state,approved",
    [(ONE, 2), (renewed(3), 2), (renewed(2), 2), (renewed(3), 4), (revoked(3), 2), (revoked(2), 2), (revoked(3), 3)],
)
def test_an_approval_is_judged_by_what_stood_before_its_block(state: GrantState, approved: int) -> None:
    case(state, approved).check_grant_at_approval(use(), b"q")


@pytest.mark.parametrize("state,approved", [(None, 2), (ONE, 1), (revoked(2), 3), (revoked(3), 4), (revoked(3), 5)])
def test_an_approval_without_a_grant_before_its_block(state: GrantState | None, approved: int) -> None:
    """A revocation counts also where its block has the time of the approval's."""
    with pytest.raises(VerificationError) as caught:
        case(state, approved).check_grant_at_approval(use(), b"q")
    assert caught.value.code == "verify.no_such_grant"


@pytest.mark.parametrize(
    "state,time",
    [
        (ONE, DAY),
        (ONE, DAY - SKEW),
        (revoked(3), 2 * DAY - 1),
        (revoked(3), 2 * DAY),  # of just that time: before or after, nobody can say
        (renewed(3, not_before=2 * DAY), 2 * DAY),
        (renewed(3, not_before=2 * DAY + 1), 2 * DAY),
        (renewed(5, not_before=3 * DAY), 2 * DAY),
    ],
)
def test_a_use_under_a_grant_that_stood(state: GrantState, time: int) -> None:
    case(state).check_grant(use(time))


@pytest.mark.parametrize(
    "state,time,anchored",
    [
        (ONE, DAY - SKEW - 1, 5),
        (ONE, 9 * DAY, 5),
        (ONE, DAY, 1),
        (revoked(3), 2 * DAY + 1, 5),
        (renewed(3, not_before=4 * DAY), 3 * DAY, 5),
        (msgspec.structs.replace(ONE, issuer="other"), DAY, 5),
    ],
)
def test_a_use_under_a_grant_that_did_not_stand(state: GrantState, time: int, anchored: int) -> None:
    with pytest.raises(VerificationError) as caught:
        case(state).check_grant(use(time, anchored))
    assert caught.value.code == "verify.no_such_grant"
