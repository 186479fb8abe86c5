"""Corrections: beside the fact, never over it, with the name of who is liable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ledger.contracts import AnchorAccess, AnchorGrant, Correct, RegisterBill, RegisterModel, RenewGrant, corrections
from ledger.contracts.access import batch_key, chain_key
from ledger.contracts.bills import BillState, bill_key
from ledger.contracts.datasets import dataset_key, population_key
from ledger.contracts.grants import grant_key
from ledger.contracts.membership import member_key
from ledger.contracts.models import model_key
from ledger.contracts.queries import ReleaseState, query_key, release_key
from wire.domains import MODEL_REVIEW

BILL = b"b" * 16


@pytest.fixture
def billed(world: Any) -> Any:
    world.act("hospital-1", RegisterBill(BILL, bytes(48), "CNY"))
    return world


def correction(key: bytes, height: int, /, **change: Any) -> Correct:
    contract = key.split(b"/")[0].decode()
    fields = {"contract": contract, "key": key, "height": height, "reason": "wrong-value", "commitment": b"c" * 32}
    return Correct(**(fields | change))


def test_a_correction_stands_beside_the_fact(billed: Any) -> None:
    key = bill_key(BILL)
    fact = billed.machine.state.get(key)
    assert billed.act("hospital-1", correction(key, 1)) == ("corrections.corrected",)
    assert billed.act("regulator", correction(key, 1, reason="withdrawn")) == ("corrections.corrected",)
    assert billed.machine.state.get(key) == fact
    assert billed.machine.get(key, BillState).height == 1
    first, second = corrections.of(billed.machine.view(), key, 1)
    assert (first.number, first.liable, first.by, first.fact_height, first.height) == (
        1,
        "hospital-1",
        "hospital-1",
        1,
        2,
    )
    assert (second.number, second.liable, second.by, second.reason, second.time) == (
        2,
        "hospital-1",
        "regulator",
        "withdrawn",
        billed.time,
    )
    assert corrections.of(billed.machine.view(), bill_key(b"x" * 16), 1) == ()
    assert corrections.of(billed.machine.view(), key, 2) == ()


def test_after_a_regulator_only_a_regulator_corrects(billed: Any) -> None:
    """Who is liable does not have the last word."""
    key = bill_key(BILL)
    billed.act("regulator", correction(key, 1, reason="withdrawn"))
    assert billed.refused("hospital-1", correction(key, 1)).code == "corrections.by_regulator"
    billed.act("regulator", correction(key, 1))
    assert [one.by for one in corrections.of(billed.machine.view(), key, 1)] == ["regulator"] * 2


def test_a_correction_is_of_one_epoch_of_a_grant(world: Any) -> None:
    """It does not outlive the epoch it is about, and an epoch that is past can still be corrected."""
    start, end, key = world.start, world.start + 10**9, grant_key("g")
    world.act("hospital-1", AnchorGrant("g", bytes(32), start, end, 0))
    world.act("regulator", correction(key, 1))
    world.act("hospital-1", RenewGrant("g", b"n" * 32, start, end, 1))
    view = world.machine.view()
    assert len(corrections.of(view, key, 1)) == 1 and corrections.of(view, key, 3) == ()
    world.act("hospital-1", correction(key, 3))
    world.act("regulator", correction(key, 1, reason="withdrawn"))
    assert world.refused("hospital-1", correction(key, 1)).code == "corrections.by_regulator"
    assert world.refused("hospital-1", correction(key, 2)).code == "corrections.no_fact"
    view = world.machine.view()
    assert [one.reason for one in corrections.of(view, key, 1)] == ["wrong-value", "withdrawn"]
    assert [(one.by, one.fact_height) for one in corrections.of(view, key, 3)] == [("hospital-1", 3)]


@pytest.mark.parametrize(
    "fault,sender,change,code",
    [
        ("another organisation", "hospital-2", {}, "corrections.not_liable"),
        ("height", "hospital-1", {"height": 2}, "corrections.no_fact"),
        ("contract", "hospital-1", {"contract": "grants"}, "corrections.no_fact"),
        ("part of the contract's name", "hospital-1", {"contract": "bill"}, "corrections.no_fact"),
        ("no fact", "hospital-1", {"key": bill_key(b"x" * 16)}, "corrections.no_fact"),
        ("no key", "hospital-1", {"key": b"bills/\xff/"}, "corrections.no_fact"),
    ],
)
def test_corrections_that_are_refused(billed: Any, fault: str, sender: str, change: dict[str, Any], code: str) -> None:
    assert billed.refused(sender, correction(bill_key(BILL), 1, **change)).code == code


def test_the_liable_signer_of_every_kind_of_fact(world: Any, named: Callable[..., bytes]) -> None:
    world.population()
    world.act("researcher", world.proposal())
    world.act("hospital-2", AnchorGrant("g", bytes(32), world.start, world.start * 2, 0))
    world.act("hospital-3", AnchorAccess(1, 3, bytes(32), named("h"), named("r")))
    review = world.signer("regulator").sign(MODEL_REVIEW, named("m"))
    world.act("bureau", RegisterModel("m", named("m"), "regulator", review))
    view, height = world.machine.view(), world.machine.height
    for key, signer, written in (
        (dataset_key("heart-hospital-4"), "hospital-4", 2),
        (query_key(b"q" * 16), "researcher", height - 3),
        (grant_key("g"), "hospital-2", height - 2),
        (batch_key("hospital-3", 1), "hospital-3", height - 1),
        (model_key("m"), "bureau", height),
    ):
        assert corrections.signer_of(view, key, written) == signer
        assert corrections.signer_of(view, key, written + 1) is None
    # agreed by many or kept by the machine: amended by the ops that made them
    for key in (population_key("heart"), member_key("bureau"), chain_key("hospital-3"), b"machine/clock", b""):
        assert not any(corrections.signer_of(view, key, at) for at in range(height + 1))


def test_a_released_sum_is_corrected_by_its_researcher(world: Any) -> None:
    world.population()
    world.act("researcher", world.proposal())
    view = world.machine.view()
    view.put(release_key(b"q" * 16, 1), ReleaseState(b"q" * 16, 1, (1,), bytes(32), 9))
    assert corrections.signer_of(view, release_key(b"q" * 16, 1), 9) == "researcher"
