"""The audit trail's way onto the ledger: each entry once, in its place."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from ledger.contracts import AnchorAccess
from medveil.gateway.accounting import anchor_audit
from privacy.audit import Use
from wire.errors import Refused

Play = Callable[[Callable[[Any], Any]], Any]


def used(world: Any) -> None:
    """One use in hospital-1's trail."""
    trail = world["hospital-1"].audit
    use = Use("researcher", "stays-hospital-1", "query", "HMB", "", b"", False, "no-grant")
    trail.outcome(trail.intent(use), "denied")


def test_entries_are_anchored_once(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        assert await anchor_audit(hospital) == ()
        used(world)
        (batch,) = await anchor_audit(hospital)
        assert (batch.first, batch.last) == (1, 2)
        assert await anchor_audit(hospital) == ()
        used(world)
        (batch,) = await anchor_audit(hospital)
        assert (batch.first, batch.last) == (3, 4)

    play(story)


def test_a_crash_between_the_ledger_and_the_trail(play: Play) -> None:
    """The batch is on the ledger and the trail does not know: the next call finds it there."""

    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        used(world)
        confirm = hospital.audit.anchored

        def killed(batch: Any) -> None:
            raise RuntimeError

        hospital.audit.anchored = killed
        with pytest.raises(RuntimeError):
            await anchor_audit(hospital)
        hospital.audit.anchored = confirm
        used(world)
        written = len(hospital.account.receipts)
        first, second = await anchor_audit(hospital)
        assert (first.last, second.first, second.last) == (2, 3, 4)
        assert len(hospital.account.receipts) == written + 1
        assert len(hospital.audit.batches()) == 2

    play(story)


def test_another_batch_in_its_place_is_refused(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        used(world)
        await hospital.submit(AnchorAccess(1, 2, bytes(32), secrets.token_bytes(32), secrets.token_bytes(32)))
        with pytest.raises(Refused) as refused:
            await anchor_audit(hospital)
        assert refused.value.code == "access.gap"
        assert hospital.audit.batches() == ()

    play(story)
