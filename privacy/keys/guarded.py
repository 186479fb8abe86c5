"""A key provider with a limit on how fast data keys come out of it, and with somebody who is told.

Whoever reads a whole vault unwraps every key of it. Ordinary use asks for few: a token bucket lets
through `rate` keys a second and `burst` at once. A job that needs more declares it beforehand,

    with guarded.batch("snapshot of claims-1", 1_000_000, who="upkeep"):
        vault.read("claims-1")

which is told to `alert` before the first key comes out and again, with what was used, after the last.
Keys beyond the declared number fall under the limit again. A batch belongs to the code in its block, and to threads and
tasks that are started in it, until it ends: others get nothing of it.

It slows down and makes visible what goes through this program. It does not stop somebody who runs
code in this process: a token's own limits do that.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

import msgspec

from privacy.keys.provider import KeyProvider
from wire.errors import Refused, Unavailable, VerificationError

QUIET_SECONDS = 60.0
"""Events of one kind come at most this often; each says how many there were."""


class KeyEvent(msgspec.Struct, frozen=True):
    """What `alert` is told. Nothing of it is secret.

    kind: "batch" (a declared job begins; count: keys declared), "batch_done" (count: keys used), "exceeded" (a job asks
    for more than it declared), "refused" (over the limit), "altered" (a wrapped key did not open), "unavailable" (the
    provider could not be used). count: keys, or how often it happened since the last event of the kind.
    reason, who: of the batch, or empty.
    """

    kind: Literal["batch", "batch_done", "exceeded", "refused", "altered", "unavailable"]
    count: int
    reason: str = ""
    who: str = ""


class _Batch:
    def __init__(self, owner: Guarded, reason: str, who: str, count: int) -> None:
        self.owner, self.reason, self.who, self.left = owner, reason, who, count
        self.used = 0
        self.exceeded = False


_batches: ContextVar[tuple[_Batch, ...]] = ContextVar("privacy_key_batches", default=())
"""Those declared around the code that runs, the innermost last."""


def _nobody(_event: KeyEvent) -> None: ...


class Guarded(KeyProvider):
    """`provider` behind the limit. rate: keys a second; burst: at once; both at least 1.

    alert: is told what happens; an error of it keeps a batch from beginning, and is passed over elsewhere.
    clock: seconds that never go back. Threads may share it. Raises what `provider` raises, and Unavailable with
    `retry_after` over the limit; Refused where more than `burst` keys are asked for at once, which no waiting helps.
    """

    def __init__(
        self,
        provider: KeyProvider,
        *,
        rate: int,
        burst: int,
        alert: Callable[[KeyEvent], None] = _nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if rate < 1 or burst < 1:
            raise ValueError("rate and burst are at least 1")
        self.rate, self.burst = rate, burst
        self.alert = alert
        self.provider = provider
        self._clock = clock
        self._guard = threading.Lock()
        self._level, self._filled = float(burst), clock()
        self._told: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    @contextmanager
    def batch(self, reason: str, count: int, who: str = "") -> Iterator[None]:
        """Declare a job: what for, how many keys it unwraps at most, for whom. Names only, no personal data."""
        if count < 0:
            raise ValueError("a count of keys is not negative")
        declared = _Batch(self, reason, who, count)
        self.alert(KeyEvent("batch", count, reason, who))
        token = _batches.set((*_batches.get(), declared))
        try:
            yield
        finally:
            _batches.reset(token)
            with self._guard:
                declared.left = 0  # what was started in the block and goes on has nothing of it any more
            with contextlib.suppress(Exception):
                self.alert(KeyEvent("batch_done", declared.used, reason, who))

    def unwrap(self, epoch: int, wrapped: bytes, context: bytes) -> bytes:
        """The key, if the limit or a batch allows it."""
        self._take(1)
        with self._watched():
            return self.provider.unwrap(epoch, wrapped, context)

    def unwrap_many(self, epoch: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """The keys, if the limit or a batch allows all of them."""
        self._take(len(items))
        with self._watched():
            return self.provider.unwrap_many(epoch, items)

    def wrap(self, epoch: int, key: bytes, context: bytes) -> bytes:
        """As the provider's: what goes in is not limited."""
        with self._watched():
            return self.provider.wrap(epoch, key, context)

    def wrap_many(self, epoch: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """As the provider's."""
        with self._watched():
            return self.provider.wrap_many(epoch, items)

    def epochs(self) -> tuple[int, ...]:
        """As the provider's."""
        return self.provider.epochs()

    def new_epoch(self) -> int:
        """As the provider's."""
        with self._watched():
            return self.provider.new_epoch()

    def destroy(self, epoch: int) -> None:
        """As the provider's."""
        with self._watched():
            self.provider.destroy(epoch)

    def is_older(self, path: Path) -> bool:
        """As the provider's."""
        return self.provider.is_older(path)

    def close(self) -> None:
        """Close the provider."""
        self.provider.close()

    def _batch(self) -> _Batch | None:
        return next((batch for batch in reversed(_batches.get()) if batch.owner is self), None)

    def _take(self, count: int) -> None:
        batch = self._batch()
        refused = False
        with self._guard:
            declared = 0 if batch is None else min(count, batch.left)
            over = count - declared
            now = self._clock()
            self._level = min(self.burst, self._level + max(0.0, now - self._filled) * self.rate)
            self._filled = now
            missing = over - self._level
            refused = over > 0 and missing > 0
            exceeded = batch is not None and over > 0 and not batch.exceeded
            if batch is not None:
                batch.exceeded |= over > 0
                if not refused:
                    batch.left -= declared
                    batch.used += count
            if not refused:
                self._level -= over
        if exceeded and batch is not None:
            self._tell("exceeded", over, batch)
        if refused:
            self._tell("refused", over, batch)
            if over > self.burst:
                raise Refused("privacy.unwrap_bulk", count=over, burst=self.burst)
            raise Unavailable(
                "privacy.unwrap_rate",
                retry_after=max(1, math.ceil(missing / self.rate)),
                rate=self.rate,
                burst=self.burst,
            )

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except VerificationError:
            self._tell("altered", 1, self._batch())
            raise
        except Unavailable:
            self._tell("unavailable", 1, self._batch())
            raise

    def _tell(
        self, kind: Literal["exceeded", "refused", "altered", "unavailable"], count: int, batch: _Batch | None
    ) -> None:
        """Tell of it, or count it where the last of its kind was told a moment ago."""
        with self._guard:
            now = self._clock()
            waiting = self._untold.get(kind, 0) + count
            if now - self._told.get(kind, -math.inf) < QUIET_SECONDS:
                self._untold[kind] = waiting
                return
            self._told[kind], self._untold[kind] = now, 0
        reason, who = ("", "") if batch is None else (batch.reason, batch.who)
        with contextlib.suppress(Exception):
            self.alert(KeyEvent(kind, waiting, reason, who))

    def __repr__(self) -> str:
        return f"Guarded({self.provider!r}, rate={self.rate}, burst={self.burst})"
