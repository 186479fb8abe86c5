"""Proven values of the ledger, read as its state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from ledger.machine import StateView
from ledger.receipts import ProvenValue
from ledger.trees.state import StateTree
from wire.canonical import Wire

W = TypeVar("W", bound=Wire)


class ProvenState:
    """What was proven, key by key: implements `medveil.gateway.ledger_account.LedgerState`, but for `items`."""

    def __init__(self, view: StateView) -> None:
        self._view = view

    @classmethod
    def of(cls, proofs: Iterable[ProvenValue]) -> ProvenState:
        """The state that these prove, each verified."""
        return cls(StateView(StateTree().update({one.key: one.value for one in proofs})))

    def view(self) -> StateView:
        """The state as contracts read it."""
        return self._view

    def get(self, key: bytes, kind: type[W]) -> W | None:
        """The value under `key`, or None."""
        return self._view.get(key, kind)

    def items(self, prefix: bytes, kind: type[W]) -> Iterator[tuple[bytes, W]]:
        """Not to be had: nothing proves that there are no others."""
        raise NotImplementedError("what was proven is read key by key")
