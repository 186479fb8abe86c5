"""The channel: ordered, acknowledged messages between organisations, session by session.

Protocols say what crosses; the channel carries it. Payloads are signed and sealed before they reach
it (`medveil.gateway.parcels`), so a channel sees who talks to whom and how much, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
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

    async def receive(self, session: bytes, timeout: float) -> Delivery:
        """The next message of `session`, in order for each sender. Raises Unavailable after `timeout` seconds."""
        ...


class _Inbox:
    """What has arrived for one organisation in one session."""

    def __init__(self) -> None:
        self.ready: asyncio.Queue[Delivery] = asyncio.Queue()
        self.expected: dict[str, int] = defaultdict(int)
        self.early: dict[tuple[str, int], Delivery] = {}

    def accept(self, delivery: Delivery) -> None:
        expected = self.expected[delivery.sender]
        if delivery.sequence < expected:
            return  # a repeated message was acknowledged before
        self.early.setdefault((delivery.sender, delivery.sequence), delivery)
        while (following := self.early.pop((delivery.sender, self.expected[delivery.sender]), None)) is not None:
            self.expected[delivery.sender] += 1
            self.ready.put_nowait(following)


class InMemoryPost:
    """Channels between organisations of one process."""

    def __init__(self) -> None:
        self._inboxes: dict[tuple[str, bytes], _Inbox] = defaultdict(_Inbox)
        self._members: set[str] = set()
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
        self._inboxes[recipient, session].accept(delivery)

    def inbox(self, organisation: str, session: bytes) -> _Inbox:
        """The inbox of one organisation for one session."""
        return self._inboxes[organisation, session]


class InMemoryChannel:
    """One organisation's end of an `InMemoryPost`."""

    def __init__(self, post: InMemoryPost, organisation: str) -> None:
        self._post = post
        self.organisation = organisation

    async def send(self, organisation: str, session: bytes, sequence: int, payload: bytes) -> None:
        """See `Channel.send`."""
        self._post.deliver(organisation, session, Delivery(self.organisation, sequence, payload))

    async def receive(self, session: bytes, timeout: float) -> Delivery:
        """See `Channel.receive`."""
        inbox = self._post.inbox(self.organisation, session)
        try:
            async with asyncio.timeout(timeout):  # not wait_for: on 3.11 it can lose a cancellation
                return await inbox.ready.get()
        except TimeoutError:
            raise Unavailable("channel.timeout", organisation=self.organisation, seconds=int(timeout)) from None
