"""The channel: ordered, acknowledged messages between organisations, session by session.

Protocols say what crosses; the channel carries it. Payloads are signed and sealed before they reach
it (`medveil.gateway.parcels`), so a channel sees who talks to whom and how much, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from typing import NamedTuple, Protocol

from wire.errors import Unavailable


class Delivery(NamedTuple):
    """What `receive` returns. sequence counts from 0 for each sender and session."""

    sender: str
    sequence: int
    payload: bytes


class Channel(Protocol):
    """One organisation's end of the channel."""

    async def send(self, organisation: str, session: bytes, sequence: int, payload: bytes) -> None:
        """Deliver to `organisation`; returns when it is acknowledged. Sending again is harmless."""
        ...

    async def receive(self, session: bytes, timeout: float, senders: Collection[str] = ()) -> Delivery:
        """The next message of `session` from one of `senders` (empty: from anybody), in order for each sender.

        Those of others stay for whoever listens to them: anybody may name a session that it knows. Raises Unavailable
        after `timeout` seconds.
        """
        ...

    def openings(self) -> AsyncIterator[tuple[bytes, Delivery]]:
        """The first message of each sender in each session, as it arrives, for ever; `receive` gives it all the same.

        What had arrived and is not forgotten comes first; one may come more than once. For one reader.
        """
        ...

    def open_again(self, session: bytes, sender: str) -> None:
        """Have `openings` give the first message of a sender in a session once more, if it is still there."""
        ...

    async def forget(self, session: bytes, peers: Collection[str] = ()) -> None:
        """The session with `peers` (empty: with everybody) is over: only what still has to be carried is kept of it."""
        ...

    async def end(self, session: bytes, peers: Collection[str]) -> None:
        """Forget the session with `peers` for good: what they still send in it is acknowledged, and dropped."""
        ...


class _Inbox:
    """What has arrived for one organisation in one session."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()  # since somebody looked last
        self._ready: list[Delivery] = []
        self._expected: dict[str, int] = defaultdict(int)
        self._early: dict[tuple[str, int], Delivery] = {}

    def accept(self, delivery: Delivery) -> None:
        sender = delivery.sender
        if delivery.sequence < self._expected[sender]:
            return  # a repeated message was acknowledged before
        self._early.setdefault((sender, delivery.sequence), delivery)
        while (following := self._early.pop((sender, self._expected[sender]), None)) is not None:
            self._expected[sender] += 1
            self._ready.append(following)
        arrived, self.arrived = self.arrived, asyncio.Event()
        arrived.set()

    def take(self, senders: Collection[str]) -> Delivery | None:
        for place, delivery in enumerate(self._ready):
            if not senders or delivery.sender in senders:
                return self._ready.pop(place)
        return None

    def first(self, sender: str) -> Delivery | None:
        return next((one for one in self._ready if (one.sender, one.sequence) == (sender, 0)), None)

    def drop(self, senders: Collection[str]) -> None:
        self._ready = [delivery for delivery in self._ready if delivery.sender not in senders]
        for sender in senders:
            self._expected.pop(sender, None)
        for place in [place for place in self._early if place[0] in senders]:
            del self._early[place]


class InMemoryPost:
    """Channels between organisations of one process."""

    def __init__(self) -> None:
        self._inboxes: dict[tuple[str, bytes], _Inbox] = defaultdict(_Inbox)
        self._members: set[str] = set()
        self._ended: set[tuple[str, bytes, str]] = set()  # recipient, session, sender
        self._openings: dict[str, asyncio.Queue[tuple[bytes, Delivery]]] = defaultdict(asyncio.Queue)
        self.bytes_carried = 0
        self.messages_carried = 0

    def join(self, organisation: str) -> InMemoryChannel:
        """The end of the channel that belongs to `organisation`."""
        self._members.add(organisation)
        return InMemoryChannel(self, organisation)

    def deliver(self, recipient: str, session: bytes, delivery: Delivery) -> None:
        """Put a message into the recipient's inbox. Raises Unavailable for an unknown organisation."""
        if recipient not in self._members:
            raise Unavailable("channel.unknown_organisation", organisation=recipient)
        self.messages_carried += 1
        self.bytes_carried += len(delivery.payload)
        if (recipient, session, delivery.sender) in self._ended:
            return
        if delivery.sequence == 0:
            self._openings[recipient].put_nowait((session, delivery))
        self._inboxes[recipient, session].accept(delivery)

    def carried(self) -> tuple[int, int]:
        """How many messages it has carried, and their bytes."""
        return self.messages_carried, self.bytes_carried

    def inbox(self, organisation: str, session: bytes) -> _Inbox:
        """The inbox of one organisation for one session."""
        return self._inboxes[organisation, session]

    def openings(self, organisation: str) -> asyncio.Queue[tuple[bytes, Delivery]]:
        """The first messages that have come for one organisation."""
        return self._openings[organisation]

    def forget(self, organisation: str, session: bytes, peers: Collection[str]) -> None:
        """Drop one organisation's inbox of a session, or what is in it from `peers`."""
        if not peers:
            self._inboxes.pop((organisation, session), None)
        elif (organisation, session) in self._inboxes:
            self._inboxes[organisation, session].drop(peers)

    def end(self, organisation: str, session: bytes, peers: Collection[str]) -> None:
        """Forget it, and drop what comes of it."""
        self.forget(organisation, session, peers)
        self._ended.update((organisation, session, peer) for peer in peers)


class InMemoryChannel:
    """One organisation's end of an `InMemoryPost`."""

    def __init__(self, post: InMemoryPost, organisation: str) -> None:
        self._post = post
        self.organisation = organisation

    async def send(self, organisation: str, session: bytes, sequence: int, payload: bytes) -> None:
        """See `Channel.send`."""
        self._post.deliver(organisation, session, Delivery(self.organisation, sequence, payload))

    async def receive(self, session: bytes, timeout: float, senders: Collection[str] = ()) -> Delivery:
        """See `Channel.receive`."""
        inbox = self._post.inbox(self.organisation, session)
        try:
            async with asyncio.timeout(timeout):  # not wait_for: on 3.11 it can lose a cancellation
                while (found := inbox.take(senders)) is None:
                    await inbox.arrived.wait()
                return found
        except TimeoutError:
            raise Unavailable("channel.timeout", organisation=self.organisation, seconds=int(timeout)) from None

    async def openings(self) -> AsyncIterator[tuple[bytes, Delivery]]:
        """See `Channel.openings`."""
        arriving = self._post.openings(self.organisation)
        while True:
            yield await arriving.get()

    def open_again(self, session: bytes, sender: str) -> None:
        """See `Channel.open_again`."""
        first = self._post.inbox(self.organisation, session).first(sender)
        if first is not None:
            self._post.openings(self.organisation).put_nowait((session, first))

    async def forget(self, session: bytes, peers: Collection[str] = ()) -> None:
        """See `Channel.forget`."""
        self._post.forget(self.organisation, session, peers)

    async def end(self, session: bytes, peers: Collection[str]) -> None:
        """See `Channel.end`."""
        self._post.end(self.organisation, session, peers)
