"""Flows that are cut short at any of their steps, and run again from the beginning with what was kept.

A cut is a BaseException that nothing in the product knows: like a kill it runs no handler that writes, and leaves what
was on its way where it was. What comes back is what a gateway would find on its disk: the records of steps, the
messages that arrived, the ledger.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, TypeVar

from medveil.channel import Channel, Delivery
from medveil.gateway.organisation import Organisation
from wire.canonical import Wire, decode, encode

T = TypeVar("T")
W = TypeVar("W", bound=Wire)


class Killed(BaseException):
    """The process ends here."""


class Cuts:
    """Points of a run, counted; the one numbered `at` ends it, once."""

    def __init__(self, at: int = -1) -> None:
        self.at = at
        self.passed: list[str] = []

    def point(self, name: str) -> None:
        self.passed.append(name)
        if len(self.passed) == self.at:
            raise Killed(name)


class KeptSteps:
    """Steps whose records outlive a cut."""

    def __init__(self, cuts: Cuts, seed: bytes = b"seed") -> None:
        self.cuts = cuts
        self.seed = seed
        self.records: dict[str, bytes] = {}
        self.ran: list[str] = []

    async def once(self, step: str, kind: type[W], work: Callable[[], Awaitable[W]]) -> W:
        if step not in self.records:
            self.cuts.point(f"before {step}")
            value = await work()
            self.ran.append(step)
            self.cuts.point(f"not kept {step}")
            self.records[step] = encode(value)
            self.cuts.point(f"kept {step}")
        return decode(kind, self.records[step])

    async def kept(self, step: str) -> bool:
        return step in self.records

    async def boundary(self) -> None:
        return None

    def rand(self, step: str, *context: bytes) -> Callable[[int], bytes]:
        seed = hashlib.sha256(b"/".join((self.seed, step.encode(), *context))).digest()
        place = 0

        def read(count: int) -> bytes:
            nonlocal place
            place += count
            return hashlib.shake_256(seed).digest(place)[place - count :]

        return read


class Rewinding:
    """A channel that hands out its messages again after `rewind`, as one on disk does after a restart."""

    def __init__(self, inner: Channel) -> None:
        self.inner = inner
        self.arrived: dict[bytes, list[Delivery]] = defaultdict(list)
        self.read: dict[bytes, int] = defaultdict(int)
        self.sent: dict[tuple[str, bytes, int], bytes] = {}

    async def send(self, organisation: str, session: bytes, sequence: int, payload: bytes) -> None:
        place = organisation, session, sequence
        if place not in self.sent:  # a place that is taken keeps what it holds
            self.sent[place] = payload
            await self.inner.send(organisation, session, sequence, payload)

    async def receive(self, session: bytes, timeout: float, senders: Collection[str] = ()) -> Delivery:
        if self.read[session] == len(self.arrived[session]):
            self.arrived[session].append(await self.inner.receive(session, timeout, senders))
        self.read[session] += 1
        return self.arrived[session][self.read[session] - 1]

    def openings(self) -> AsyncIterator[tuple[bytes, Delivery]]:
        return self.inner.openings()

    def open_again(self, session: bytes, sender: str) -> None:
        self.inner.open_again(session, sender)

    async def forget(self, session: bytes, peers: Collection[str] = ()) -> None:
        self.arrived.pop(session, None)
        self.read.pop(session, None)
        await self.inner.forget(session, peers)

    async def end(self, session: bytes, peers: Collection[str]) -> None:
        self.arrived.pop(session, None)
        self.read.pop(session, None)
        await self.inner.end(session, peers)

    def rewind(self) -> None:
        self.read.clear()


class Cut:
    """An organisation whose flow is cut at a point.

    Each message, envelope, entry of the trail, document and table has a point before it and one after it.
    """

    def __init__(self, organisation: Organisation, at: int) -> None:
        self.organisation = organisation
        self.cuts = Cuts(at)
        self.steps = KeptSteps(self.cuts)
        own: Any = organisation
        self._channel = Rewinding(own._end())
        self._real = own._end()
        self._cut: list[tuple[Any, str, Any]] = []
        own.connect(self._channel, organisation.account)
        for owner, name in ((own, "send"), (own, "submit")):
            self._put(owner, name, self._around(getattr(owner, name), name))
        for owner, names in (
            (own.audit, ("intent", "outcome", "anchored")),
            (own.vault, ("put_document", "put_stream", "ingest")),
        ):
            for name in names:
                self._put(owner, name, self._around_now(getattr(owner, name), name))

    @property
    def messages_kept(self) -> int:
        """How many messages that were handed out are not forgotten."""
        return sum(map(len, self._channel.arrived.values()))

    def _put(self, owner: Any, name: str, cut: Callable[..., Any]) -> None:
        self._cut.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, cut)

    def _around(self, call: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Awaitable[Any]]:
        async def cut(*values: Any) -> Any:
            what = f"{name} {type(values[-1]).__name__}"
            self.cuts.point(f"before {what}")
            result = await call(*values)
            self.cuts.point(f"after {what}")
            return result

        return cut

    def _around_now(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def cut(*values: Any, **named: Any) -> Any:
            self.cuts.point(f"before {name}")
            result = call(*values, **named)
            self.cuts.point(f"after {name}")
            return result

        return cut

    async def run(self, flow: Callable[[KeptSteps], Awaitable[T]]) -> T:
        """What the flow comes to, cut once on the way if it passes the point."""
        while True:
            try:
                return await flow(self.steps)
            except Killed:
                self._channel.rewind()
                own: Any = self.organisation
                own._sent.clear()

    def heal(self) -> None:
        """The organisation as it was."""
        for owner, name, before in self._cut:
            if before is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
        self.organisation.connect(self._real, self.organisation.account)
