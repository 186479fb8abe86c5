"""An event loop whose clock goes only while everybody waits, and then leaps to what is due next.

For stories in which somebody waits in vain: the time limits are those of the product, and cost nothing. What takes long
costs no time of that clock: a slow machine does not run out of patience. For what is all in this process; who waits
for another process or a socket would see its time limits leap by.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_MOST = 60.0
"""Seconds after which a loop with nothing due looks again, as asyncio's own does after a day."""


class _Idle(selectors.DefaultSelector):
    """Leaps instead of waiting, unless threads are at work."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.working = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self.working:  # a thread that ends, or a signal, wakes the loop
            return super().select(_MOST if timeout is None or timeout > 0 else timeout)
        found = super().select(0)
        if not found:
            self.now += max(timeout, 0.0)
        return found


class LeapingLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._idle = _Idle()
        super().__init__(self._idle)

    def time(self) -> float:
        return self._idle.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        self._idle.working += 1
        done = super().run_in_executor(executor, func, *args)
        done.add_done_callback(self._worked)
        return done

    def _worked(self, _: Any) -> None:
        self._idle.working -= 1


def leap(story: Coroutine[Any, Any, T]) -> T:
    """Run a story on such a loop."""
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        return runner.run(story)
