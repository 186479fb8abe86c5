"""The floor of a proof: its group operations, recorded as it is made or verified, replayed on the curve library alone.

What is left out of a replay is everything else: transcripts, scalars in Python, encodings that are remembered.
docs/protocols/settlement.md and eligibility.md count the operations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from zkp.groups import Backend, R, backend


def _scalars(values: Any) -> list[Scalar]:
    return [Scalar.from_be_bytes((value % R).to_bytes(32, "big")) for value in values]


def _raws(points: Any) -> list[Any]:
    return [point._raw for point in points]


class Recorder:
    """A backend that does what arkworks does, and keeps what it was asked: pass `group` to what is measured."""

    def __init__(self) -> None:
        self._inner = backend()
        self.steps: list[Callable[[], object]] = []
        self.counts: Counter[str] = Counter()

    @property
    def group(self) -> Backend:
        """This, as a backend."""
        recording: Any = self
        found: Backend = recording
        return found

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._inner, name)
        if not callable(operation):
            return operation

        def recorded(*arguments: Any, **options: Any) -> Any:
            step = self._step(name, arguments)
            if step is not None:
                self.steps.append(step)
            return operation(*arguments, **options)

        return recorded

    def _step(self, name: str, given: tuple[Any, ...]) -> Callable[[], object] | None:
        """The same on the library alone, its arguments made ready."""
        if name == "msm":
            points, scalars = _raws(given[0]), _scalars(given[1])
            self.counts[f"msm of {len(points)}"] += 1
            return lambda: G1Point.multiexp_unchecked(points, scalars)
        if name == "mul":
            (point,), (scalar,) = _raws(given[:1]), _scalars(given[1:])
            self.counts["multiplication"] += 1
            return lambda: point * scalar
        if name == "sum":
            points = _raws(given[0])
            self.counts["addition"] += len(points)
            return lambda: sum(points, G1Point.identity())
        if name == "pairing_is_one":
            left, right = _raws(p for p, _ in given[0]), _raws(q for _, q in given[0])
            self.counts["pairing"] += len(left)
            return lambda: GT.pairing_check(left, right)
        if name in ("decode", "decode2"):
            data, kind = given[0], G1Point if name == "decode" else G2Point
            self.counts["decoding"] += 1
            return lambda: kind.from_compressed_bytes(data)
        if name in ("encode", "encode2") and given[0]._bytes is None:
            (point,) = _raws(given)
            self.counts["encoding"] += 1
            return lambda: point.to_compressed_bytes()
        return None

    def replay(self) -> None:
        """Everything once more, bare."""
        for step in self.steps:
            step()
