"""The steps of a flow: what happens once, and randomness that comes again.

A gateway's flow (a query, a grant's delivery) may be cut short between any two instructions and taken up again from
its beginning. It is written so that the second run does what the first did:

* what it draws, decides or computes goes through `once`, which gives it again instead of doing it again;
* what it receives, the channel hands out again, from the first message of each session;
* what it sends, it sends again, in the same order: the channel keeps the first message of each place in a session;
* what it writes to the ledger, it writes unless it stands there (`Organisation.ensure`);
* randomness comes from `rand`: the same stream for the same step and context.

`medveil.service.work.journal.Journal` keeps steps on disk. `Passing` is for a run that nobody takes up again.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from wire.canonical import Wire

W = TypeVar("W", bound=Wire)


class FlowPaused(BaseException):
    """The process stops; the flow goes on when it runs again. Not an Exception: nobody takes it for a failure."""


class FlowCancelled(BaseException):
    """Its owner wants no more of the flow. Not an Exception: a step's own handlers do not swallow it."""


class Steps(Protocol):
    """One flow's steps."""

    async def once(self, step: str, kind: type[W], work: Callable[[], Awaitable[W]]) -> W:
        """What `work` gives, or gave when this step was kept. step: its name in this flow, at most 100 characters."""
        ...

    async def kept(self, step: str) -> bool:
        """Whether `once` has kept that step, in this life or an earlier one."""
        ...

    async def boundary(self) -> None:
        """Between two steps: raises FlowPaused, FlowCancelled, or what else ends the flow."""
        ...

    def rand(self, step: str, *context: bytes) -> Callable[[int], bytes]:
        """The secret stream of this flow, step and context from its beginning: call the result for the next bytes.

        All that a step's messages depend on besides must be in the context or kept by an earlier `once`.
        """
        ...


class Passing:
    """Steps of a run that ends with its process: each runs, its name alone is kept."""

    def __init__(self) -> None:
        self._done: set[str] = set()

    async def once(self, step: str, kind: type[W], work: Callable[[], Awaitable[W]]) -> W:
        """See `Steps.once`."""
        value = await work()
        self._done.add(step)
        return value

    async def kept(self, step: str) -> bool:
        """See `Steps.kept`."""
        return step in self._done

    async def boundary(self) -> None:
        """See `Steps.boundary`."""

    def rand(self, step: str, *context: bytes) -> Callable[[int], bytes]:
        """Fresh bytes each time: nobody asks for the same again."""
        return secrets.token_bytes
