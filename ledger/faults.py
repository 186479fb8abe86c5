"""The boundaries of every write, by name, so that a test can end the process exactly there.

Engine, store and a replica's memory call a `Fault` at each of them. The product passes `no_fault`; the
crash campaign passes one that sends itself SIGKILL at the n-th boundary of a name.
"""

from __future__ import annotations

from collections.abc import Callable

Fault = Callable[[str], None]
"""Called with the name of the boundary that was just reached."""

BOUNDARIES = (
    "create:opened",
    "create:written",
    "create:committed",
    "submitted",
    "executed",
    "block:begun",
    "block:block",
    "block:envelopes",
    "block:final",
    "block:committed",
    "shown",
    "memory:emptied",
    "memory:made",
    "memory:written",
    "memory:flushed",
    "final",
    "handover:begun",
    "handover:committed",
    "final:committed",
)
"""In the order in which one envelope meets them, from a new ledger to its closing."""

MIGRATION_BOUNDARIES = (
    "backup:begun",
    "backup:copied",
    "backup:named",
    "migrate:begun",
    "migrate:written",
    "migrate:committed",
)
"""Those of opening data of an older version."""


def no_fault(boundary: str) -> None:
    """Nothing happens."""
