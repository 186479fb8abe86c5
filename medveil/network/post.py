"""The post between gateways: an organisation's end of the channel, over the network and through restarts.

What is sent is kept until the recipient has acknowledged it; what arrived is kept until its session is forgotten. So a
message is delivered once, in order, whichever of the two gateways is killed in between: sending again what was sent is
harmless, and a session that starts anew after a restart is handed the same messages again, from its first.

Payloads are sealed to their recipient and signed inside (`medveil.gateway.parcels`): the post carries and keeps what
it cannot read. Who sent a message is the organisation of the client certificate, nothing in the message.

    POST /peer/v1/messages   PeerMessage -> Done
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError
from starlette.requests import Request
from starlette.routing import Route

from medveil.channel import Delivery
from medveil.network.ledger_door import Done, Identify, answering, read_body
from medveil.network.remote_engine import FIRST_PAUSE, LONGEST_PAUSE, Line
from medveil.service.database import Database, metadata
from wire.canonical import Wire, decode, encode
from wire.errors import MedveilError, Refused, Unavailable

LARGEST_PAYLOAD = 16 * 1024 * 1024
"""Bytes of one payload."""
MOST_WAITING = 10_000
"""Messages of one sender that are kept for sessions which nobody has finished: its quota."""
WAITING_BYTES = 512 * 1024 * 1024
"""Bytes of them."""
KEPT_MS = 7 * 86_400_000
"""How long a message is kept that nobody asks for, in ms."""

T = TypeVar("T")
Session = Annotated[bytes, msgspec.Meta(min_length=1, max_length=64)]


class PeerMessage(Wire, frozen=True, tag="network.message"):
    """One message. sequence counts from 0 for each sender, recipient and session."""

    session: Session
    sequence: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    payload: Annotated[bytes, msgspec.Meta(max_length=LARGEST_PAYLOAD)]


_SHARED = ("session", "sequence")

outgoing = Table(
    "post_out",
    metadata,
    Column("place", Integer, primary_key=True, autoincrement=True),
    Column("recipient", String(64), nullable=False),
    Column("session", LargeBinary(64), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("sent_at", BigInteger, nullable=False),
    Column("acknowledged", Integer, nullable=False),
    UniqueConstraint("recipient", *_SHARED),
)

incoming = Table(
    "post_in",
    metadata,
    Column("place", Integer, primary_key=True, autoincrement=True),
    Column("sender", String(64), nullable=False),
    Column("session", LargeBinary(64), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("arrived_at", BigInteger, nullable=False),
    UniqueConstraint("sender", *_SHARED),
)


class NetworkPost:
    """One organisation's end. Implements `medveil.channel.Channel`; use it from one event loop, after `start`.

    line_to: the line to another organisation (raises Unavailable where there is none); clock: ms UTC.
    """

    def __init__(
        self,
        organisation: str,
        database: Database,
        line_to: Callable[[str], Line],
        clock: Callable[[], int],
    ) -> None:
        self.organisation = organisation
        self._database = database
        self._line_to = line_to
        self._clock = clock
        self._read: dict[tuple[bytes, str], int] = defaultdict(int)  # next sequence to hand out in this process
        self._arrived: dict[bytes, asyncio.Event] = defaultdict(asyncio.Event)
        self._to_carry: dict[str, asyncio.Event] = {}
        self._carriers: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    async def start(self) -> None:
        """Throw away what is too old, and go on delivering what was not acknowledged."""

        def waiting(db: Connection) -> list[str]:
            oldest = self._clock() - KEPT_MS
            db.execute(delete(incoming).where(incoming.c.arrived_at < oldest))
            db.execute(delete(outgoing).where(outgoing.c.sent_at < oldest))
            return list(db.scalars(select(outgoing.c.recipient).where(outgoing.c.acknowledged == 0).distinct()))

        for recipient in await self._run(waiting):
            self._carry(recipient)

    async def close(self) -> None:
        """Stop carrying; what is not acknowledged is carried on after the next start."""
        self._closing = True
        for carrier in self._carriers.values():
            carrier.cancel()
        await asyncio.gather(*self._carriers.values(), return_exceptions=True)

    # --- sending -----------------------------------------------------------------------------------

    async def send(self, organisation: str, session: bytes, sequence: int, payload: bytes) -> None:
        """See `Channel.send`: returns when the message is kept durably, to be carried until it is acknowledged.

        A place (recipient, session, sequence) that is taken keeps what it holds. Raises Refused for a payload that is
        too large.
        """
        if len(payload) > LARGEST_PAYLOAD:
            raise Refused("network.too_large", limit=LARGEST_PAYLOAD)
        row = {
            "recipient": organisation,
            "session": session,
            "sequence": sequence,
            "payload": payload,
            "sent_at": self._clock(),
            "acknowledged": 0,
        }
        await self._run(lambda db: self._insert(db, outgoing, row))
        self._carry(organisation)

    def _insert(self, db: Connection, table: Table, row: dict[str, object]) -> None:
        with contextlib.suppress(IntegrityError), db.begin_nested():  # there already
            db.execute(insert(table).values(row))

    def _carry(self, recipient: str) -> None:
        event = self._to_carry.setdefault(recipient, asyncio.Event())
        event.set()
        if recipient not in self._carriers and not self._closing:
            self._carriers[recipient] = asyncio.create_task(self._carrier(recipient, event))

    async def _carrier(self, recipient: str, event: asyncio.Event) -> None:
        pause = FIRST_PAUSE
        while True:
            await event.wait()
            event.clear()
            while (found := await self._run(lambda db: self._next(db, recipient))) is not None:
                place, message = found
                try:
                    line = self._line_to(recipient)
                    await line.ask("POST", "/peer/v1/messages", Done, encode(message), 60.0)
                except Unavailable:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
                    continue
                except MedveilError:
                    pass  # it will never take this one: the session finds out by its own time limit
                pause = FIRST_PAUSE
                await self._run(partial(self._acknowledge, place=place))

    def _next(self, db: Connection, recipient: str) -> tuple[int, PeerMessage] | None:
        out = outgoing.c
        waiting = select(out.place, out.session, out.sequence, out.payload).where(
            out.recipient == recipient, out.acknowledged == 0
        )
        row = db.execute(waiting.order_by(out.place).limit(1)).first()
        return None if row is None else (row.place, PeerMessage(row.session, row.sequence, row.payload))

    def _acknowledge(self, db: Connection, place: int) -> None:
        out = outgoing
        db.execute(out.update().where(out.c.place == place).values(acknowledged=1, payload=b""))

    # --- receiving ---------------------------------------------------------------------------------

    def routes(self, identify: Identify) -> list[Route]:
        """The route for other gateways."""

        async def take(request: Request, sender: str) -> Wire:
            message = decode(PeerMessage, await read_body(request, LARGEST_PAYLOAD + 1024))
            await self._run(lambda db: self._keep(db, sender, message))
            self._arrived[message.session].set()
            return Done()

        return [Route("/peer/v1/messages", answering(identify, take), methods=["POST"])]

    def _keep(self, db: Connection, sender: str, message: PeerMessage) -> None:
        into = incoming.c
        held = select(func.count(), func.coalesce(func.sum(func.length(into.payload)), 0)).where(into.sender == sender)
        count, size = db.execute(held).one()
        if count >= MOST_WAITING or size + len(message.payload) > WAITING_BYTES:
            raise Unavailable("network.full", retry_after=60, organisation=self.organisation)
        row = {
            "sender": sender,
            "session": message.session,
            "sequence": message.sequence,
            "payload": message.payload,
            "arrived_at": self._clock(),
        }
        self._insert(db, incoming, row)

    async def receive(self, session: bytes, timeout: float) -> Delivery:
        """See `Channel.receive`. After a restart it begins anew with the first message of each sender."""
        arrived = self._arrived[session]
        try:
            async with asyncio.timeout(timeout):
                while True:
                    arrived.clear()
                    found = await self._run(lambda db: self._following(db, session))
                    if found is not None:
                        self._read[session, found.sender] += 1
                        return found
                    await arrived.wait()
        except TimeoutError:
            raise Unavailable("channel.timeout", organisation=self.organisation, seconds=int(timeout)) from None

    def _following(self, db: Connection, session: bytes) -> Delivery | None:
        into = incoming.c
        rows = db.execute(
            select(into.place, into.sender, into.sequence).where(into.session == session).order_by(into.place)
        ).all()
        for row in rows:
            if row.sequence == self._read[session, row.sender]:
                payload = db.scalars(select(into.payload).where(into.place == row.place)).one()
                return Delivery(row.sender, row.sequence, payload)
        return None

    async def forget(self, session: bytes) -> None:
        """The session is over: nothing of it is kept but that it was sent."""

        def drop(db: Connection) -> None:
            db.execute(delete(incoming).where(incoming.c.session == session))
            done = (outgoing.c.session == session) & (outgoing.c.acknowledged == 1)
            db.execute(delete(outgoing).where(done))

        await self._run(drop)
        self._arrived.pop(session, None)
        for key in [key for key in self._read if key[0] == session]:
            del self._read[key]

    async def waiting(self) -> dict[str, int]:
        """Messages that were not acknowledged yet, by recipient: for the metrics."""
        out = outgoing.c
        counted = select(out.recipient, func.count()).where(out.acknowledged == 0).group_by(out.recipient)
        return await self._run(lambda db: {row[0]: row[1] for row in db.execute(counted)})

    async def _run(self, work: Callable[[Connection], T]) -> T:
        def transact() -> T:
            with self._database.transaction() as db:
                return work(db)

        return await asyncio.to_thread(transact)
