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
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple, TypeVar

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
    bindparam,
    delete,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
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
"""Bytes of them. As many messages and bytes are kept for one recipient that has not acknowledged them."""
AT_ONCE = 4
"""Messages of one sender that are read off the network and written at a time; its others wait for these, and nobody
else does. A post carries one after the other."""
_FRESH_BYTES, _MOST_FRESH = 65_536, 32
"""Longest payload, and most messages for one recipient, that are held in memory until they are carried for the first
time: these are on their way without another look at the disk."""
PATIENCE = 60.0
"""Seconds for which a message waits for room while its recipient acknowledges no other: as long as one may take."""
KEPT_MS = 7 * 86_400_000
"""How long a message is kept that nobody asks for, in ms."""
OVER_MS = 2 * KEPT_MS
"""How long it is known that a session is over, in ms: who has not heard of it sends for a while, which is carried."""
_FULL = "network.full"
_TAKEN, _WAITS, _FORGOTTEN = 1, 0, -1
"""How a message stands that goes out: acknowledged, and known until its session is forgotten; waiting; waiting in a
session that was forgotten meanwhile, so that nothing of it stays once it is acknowledged."""
_OVER = -1
"""The place of the row that stands for a session which is over: no message has it."""

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


_OUT, _INTO = outgoing.c, incoming.c
# Made once: to put a statement together costs more than to run it.
_NEXT = (
    select(_OUT.place, _OUT.session, _OUT.sequence, _OUT.payload)
    .where(_OUT.recipient == bindparam("of"), _OUT.acknowledged <= _WAITS)
    .order_by(_OUT.place)
    .limit(1)
)
_ACKNOWLEDGE = outgoing.update().where(_OUT.place == bindparam("at"), _OUT.acknowledged == _WAITS)
_ACKNOWLEDGE = _ACKNOWLEDGE.values(acknowledged=_TAKEN, payload=b"")
_LEAVE = delete(outgoing).where(_OUT.place == bindparam("at"), _OUT.acknowledged == _FORGOTTEN)
_OF_SESSION = select(_INTO.place, _INTO.sender, _INTO.sequence).where(_INTO.session == bindparam("of"))
_OF_SESSION = _OF_SESSION.order_by(_INTO.place)
_FROM_SENDERS = _OF_SESSION.where(_INTO.sender.in_(bindparam("senders", expanding=True)))
_PAYLOAD = select(_INTO.payload).where(_INTO.place == bindparam("at"))
_IS_OVER = select(_INTO.place).where(
    _INTO.sender == bindparam("by"), _INTO.session == bindparam("of"), _INTO.sequence == _OVER
)
_HELD = select(func.count(), func.coalesce(func.sum(func.length(_INTO.payload)), 0)).where(
    _INTO.sender == bindparam("by"), _INTO.sequence >= 0
)
"""Messages and bytes of a sender."""
_PUT = {
    kind.__name__.rpartition(".")[2]: {
        table: kind.insert(table).on_conflict_do_nothing().returning(table.c.place) for table in (outgoing, incoming)
    }
    for kind in (sqlite, postgresql)
}
"""By engine: a new row's place, none if what it stands for is there already."""
_SUMS = select(outgoing.c.recipient, func.count(), func.coalesce(func.sum(func.length(outgoing.c.payload)), 0))


class Traffic(NamedTuple):
    """What went by since the start. sessions: open here now. sent, received: payload bytes, repeats included."""

    sessions: int
    sent: int
    received: int


class _Load(msgspec.Struct):
    """What waits for one recipient."""

    messages: int = 0
    size: int = 0

    def has_room(self, size: int) -> bool:
        return self.messages < MOST_WAITING and self.size + size <= WAITING_BYTES

    def add(self, size: int, messages: int = 1) -> None:
        self.messages, self.size = self.messages + messages, self.size + size


class _Room(msgspec.Struct):
    """What one sender may still send before what is kept of it is counted again, which takes the longer the more there
    is. exact: nothing of it was thrown away since that was counted."""

    messages: int
    size: int
    exact: bool = True

    def holds(self, size: int) -> bool:
        return self.messages > 0 and size <= self.size


class _Arrival(asyncio.Event):
    """That something has arrived in a session since those who listen looked at the disk; what came, if it is new."""

    came: Delivery | None = None


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
        self._arrived: dict[bytes, _Arrival] = {}  # of sessions that somebody listens to: since he looked last
        self._openings: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()  # in which session, by whom
        self._rooms: dict[str, _Room] = {}  # by sender; whoever writes alone looks at it
        self._lanes: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))  # by sender
        self._to_carry: dict[str, asyncio.Event] = {}
        self._carriers: dict[str, asyncio.Task[None]] = {}
        self._loads: dict[str, _Load] = defaultdict(_Load)  # by recipient
        self._fresh: dict[str, dict[int, PeerMessage]] = defaultdict(dict)  # by recipient and place: never tried
        self._away: set[str] = set()  # recipients that did not answer when they were last tried
        self._lighter: dict[str, asyncio.Event] = {}  # by recipient: since somebody waited for room
        self._closing = False
        self._sent = 0
        self._received = 0

    @property
    def traffic(self) -> Traffic:
        """For the metrics."""
        return Traffic(len(self._arrived), self._sent, self._received)

    async def start(self) -> None:
        """Throw away what is too old, and go on delivering what was not acknowledged."""

        def waiting(db: Connection) -> dict[str, _Load]:
            found = db.execute(_SUMS.where(outgoing.c.acknowledged <= _WAITS).group_by(outgoing.c.recipient))
            return {recipient: _Load(messages, size) for recipient, messages, size in found}

        await self.prune()
        self._loads = defaultdict(_Load, await self._run(waiting))
        for recipient in self._loads:
            self._carry(recipient)

    async def prune(self) -> None:
        """Throw away what is too old: what nobody asked for counts towards its sender's quota until then."""

        out = outgoing.c

        def old(db: Connection) -> Sequence[Any]:
            oldest = self._clock() - KEPT_MS
            into, ended = incoming.c, self._clock() - OVER_MS
            db.execute(delete(incoming).where(into.arrived_at < oldest, into.sequence >= 0))
            db.execute(delete(incoming).where(into.arrived_at < ended, into.sequence == _OVER))
            self._count_again(())
            lost = _SUMS.where(out.sent_at < oldest, out.acknowledged <= _WAITS).group_by(out.recipient)
            found = db.execute(lost).all()
            db.execute(delete(outgoing).where(out.sent_at < oldest))
            return found

        self._fresh.clear()
        for recipient, messages, size in await self._run(old):
            self._lighten(recipient, size, messages)

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
        too large, Unavailable where too much waits for a recipient that acknowledges nothing.
        """
        if len(payload) > LARGEST_PAYLOAD:
            raise Refused("network.too_large", limit=LARGEST_PAYLOAD)
        row = {
            "recipient": organisation,
            "session": session,
            "sequence": sequence,
            "payload": payload,
            "sent_at": self._clock(),
            "acknowledged": _WAITS,
        }
        if not await self._has_room(organisation, len(payload)):
            if await self._look(lambda db: self._holds(db, organisation, session, sequence)):
                return
            raise Unavailable("network.undelivered", organisation=organisation, retry_after=60)
        self._loads[organisation].add(len(payload))  # before it is written: others may be on their way
        keeping = asyncio.ensure_future(self._kept(row, PeerMessage(session, sequence, payload)))
        try:
            await asyncio.shield(keeping)
        except asyncio.CancelledError:  # what is being written is counted and carried all the same
            keeping.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def _kept(self, row: dict[str, object], message: PeerMessage) -> None:
        """Write a message that is counted already, and have it carried."""
        recipient, size = str(row["recipient"]), len(message.payload)
        try:
            place = await self._run(lambda db: self._insert(db, outgoing, row))
        except Exception:
            if await self._is_not_kept(recipient, message):
                self._lighten(recipient, size)
            self._carry(recipient)
            raise
        fresh = self._fresh[recipient]
        if place is None:
            self._lighten(recipient, size)
        elif size <= _FRESH_BYTES and len(fresh) < _MOST_FRESH:
            fresh[place] = message
        self._carry(recipient)

    async def _is_not_kept(self, recipient: str, message: PeerMessage) -> bool:
        """Whether a message is surely not on the disk, after an error. What may be there stays counted: then it is
        looked for, and carried."""
        try:
            return not await self._look(lambda db: self._holds(db, recipient, message.session, message.sequence))
        except Exception:
            return False

    async def _has_room(self, recipient: str, size: int) -> bool:
        """Whether a message may be kept, after waiting for it while the recipient takes others."""
        load = self._loads[recipient]
        while not load.has_room(size):
            if recipient in self._away:
                return False
            lighter = self._lighter.setdefault(recipient, asyncio.Event())
            try:
                async with asyncio.timeout(PATIENCE):
                    await lighter.wait()
            except TimeoutError:
                return False
        return True

    def _lighten(self, recipient: str, size: int, messages: int = 1) -> None:
        self._loads[recipient].add(-size, -messages)
        self._look_again(recipient)

    def _look_again(self, recipient: str) -> None:
        """Whoever waits for room looks: there is some, or there will be none."""
        lighter = self._lighter.pop(recipient, None)
        if lighter is not None:
            lighter.set()

    def _holds(self, db: Connection, recipient: str, session: bytes, sequence: int) -> bool:
        out = outgoing.c
        place = (out.recipient == recipient) & (out.session == session) & (out.sequence == sequence)
        return db.execute(select(out.place).where(place)).first() is not None

    def _insert(self, db: Connection, table: Table, row: dict[str, object]) -> int | None:
        """The place of a new row, None where what it stands for is there already."""
        place: int | None = db.execute(_PUT[db.dialect.name][table], row).scalar()
        return place

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
            try:
                while (found := await self._due(recipient)) is not None:
                    if await self._carried(recipient, *found):
                        pause = FIRST_PAUSE
                        continue
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
            except Unavailable:  # the disk: it is looked at again
                event.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _carried(self, recipient: str, place: int, message: PeerMessage) -> bool:
        """Whether the recipient has the message, or will never take it. Raises Unavailable for the own disk."""
        try:
            line = self._line_to(recipient)
            await line.ask("POST", "/peer/v1/messages", Done, encode(message), 60.0)
            self._sent += len(message.payload)
        except Unavailable:
            self._away.add(recipient)
            self._look_again(recipient)
            return False
        except MedveilError:
            pass  # it will never take this one: the session finds out by its own time limit
        self._away.discard(recipient)
        if await self._run(partial(self._acknowledge, place=place)):
            self._lighten(recipient, len(message.payload))
        return True

    async def _due(self, recipient: str) -> tuple[int, PeerMessage] | None:
        """What is to be carried next, with its place: of what waits, the first."""
        counted, fresh = self._loads[recipient].messages, self._fresh[recipient]
        if counted == 0:
            return None
        if len(fresh) == counted:  # nothing else waits
            place = min(fresh)
            return place, fresh.pop(place)
        row = await self._look(lambda db: db.execute(_NEXT, {"of": recipient}).first())
        if row is None:
            return None
        fresh.pop(row.place, None)
        return row.place, PeerMessage(row.session, row.sequence, row.payload)

    def _acknowledge(self, db: Connection, place: int) -> bool:
        """Whether it was still to be carried: what is too old is thrown away at any time."""
        return any(db.execute(done, {"at": place}).rowcount > 0 for done in (_ACKNOWLEDGE, _LEAVE))

    # --- receiving ---------------------------------------------------------------------------------

    def routes(self, identify: Identify) -> list[Route]:
        """The route for other gateways."""

        async def take(request: Request, sender: str) -> Wire:
            async with self._lanes[sender]:
                message = decode(PeerMessage, await read_body(request, LARGEST_PAYLOAD + 1024))
                await self.take(sender, message)
            return Done()

        return [Route("/peer/v1/messages", answering(identify, take), methods=["POST"])]

    async def take(self, sender: str, message: PeerMessage) -> None:
        """Keep a message durably, for whoever listens. Raises Unavailable where too much of the sender's waits."""
        try:
            new = await self._run(lambda db: self._keep(db, sender, message))
        except MedveilError as error:
            if error.code != _FULL:  # what was counted may not have been written
                self._count_again((sender,))
            raise
        if new and message.sequence == 0:
            self._openings.put_nowait((message.session, sender))
        self._received += len(message.payload)
        self._wake(message.session, Delivery(sender, message.sequence, message.payload) if new else None)

    def _keep(self, db: Connection, sender: str, message: PeerMessage) -> bool:
        if db.execute(_IS_OVER, {"by": sender, "of": message.session}).first() is not None:
            return False
        room, size = self._rooms.get(sender), len(message.payload)
        if room is None or not (room.exact or room.holds(size)):
            messages, held = db.execute(_HELD, {"by": sender}).one()
            room = self._rooms[sender] = _Room(MOST_WAITING - messages, WAITING_BYTES - held)
        if not room.holds(size):
            raise Unavailable(_FULL, retry_after=60, organisation=self.organisation)
        row = {
            "sender": sender,
            "session": message.session,
            "sequence": message.sequence,
            "payload": message.payload,
            "arrived_at": self._clock(),
        }
        new = self._insert(db, incoming, row) is not None
        if new:
            room.messages, room.size = room.messages - 1, room.size - size
        return new

    def _count_again(self, senders: Collection[str]) -> None:
        """Something of theirs was thrown away, of anybody's where none is named: there is more room than was known."""
        for sender in senders or self._rooms:
            if sender in self._rooms:
                self._rooms[sender].exact = False

    async def openings(self) -> AsyncIterator[tuple[bytes, Delivery]]:
        """See `Channel.openings`."""
        into = incoming.c
        began = select(into.session, into.sender).where(into.sequence == 0).order_by(into.place)
        for row in await self._look_until(lambda db: db.execute(began).all()):
            self._openings.put_nowait((row.session, row.sender))
        while True:
            session, sender = await self._openings.get()  # contents one by one: together they may be gigabytes
            first = select(into.payload).where(into.session == session, into.sender == sender, into.sequence == 0)
            payload = await self._look_until(lambda db, first=first: db.scalars(first).first())  # type: ignore[misc]
            if payload is not None:
                yield session, Delivery(sender, 0, payload)

    def open_again(self, session: bytes, sender: str) -> None:
        """See `Channel.open_again`."""
        self._openings.put_nowait((session, sender))

    async def receive(self, session: bytes, timeout: float, senders: Collection[str] = ()) -> Delivery:
        """See `Channel.receive`. After a restart it begins anew with the first message of each sender."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    arrived = self._arrived.setdefault(session, _Arrival())
                    found = await self._look(lambda db: self._following(db, session, senders))
                    if found is not None:
                        if found.sequence != self._read.get((session, found.sender), 0):
                            continue  # somebody else took it while it was looked for
                        self._read[session, found.sender] += 1
                        return found
                    await arrived.wait()
                    came = arrived.came
                    if came is None or (senders and came.sender not in senders):
                        continue
                    if came.sequence == self._read.get((session, came.sender), 0):  # nobody else took it meanwhile
                        self._read[session, came.sender] += 1
                        return came
        except TimeoutError:
            raise Unavailable("channel.timeout", organisation=self.organisation, seconds=int(timeout)) from None

    def _wake(self, session: bytes, came: Delivery | None = None) -> None:
        """Something has arrived in a session: whoever listens takes it, or looks again. Each wakes, however many there
        are. came: what it is, the first since they looked."""
        listening = self._arrived.pop(session, None)
        if listening is not None:
            listening.came = came
            listening.set()

    def _following(self, db: Connection, session: bytes, senders: Collection[str]) -> Delivery | None:
        if senders:
            rows = db.execute(_FROM_SENDERS, {"of": session, "senders": list(senders)}).all()
        else:
            rows = db.execute(_OF_SESSION, {"of": session}).all()
        for row in rows:
            if row.sequence == self._read.get((session, row.sender), 0):
                payload = db.execute(_PAYLOAD, {"at": row.place}).scalar_one()
                return Delivery(row.sender, row.sequence, payload)
        return None

    async def forget(self, session: bytes, peers: Collection[str] = ()) -> None:
        """See `Channel.forget`."""
        await self._forget(session, peers, over=False)

    async def end(self, session: bytes, peers: Collection[str]) -> None:
        """See `Channel.end`: known through restarts, for as long as a post carries a message."""
        await self._forget(session, peers, over=True)

    async def _forget(self, session: bytes, peers: Collection[str], over: bool) -> None:
        def drop(db: Connection) -> None:
            into = (incoming.c.session == session) & (incoming.c.sequence >= 0)
            out = outgoing.c.session == session
            if peers:
                into &= incoming.c.sender.in_(peers)
                out &= outgoing.c.recipient.in_(peers)
            db.execute(delete(incoming).where(into))
            db.execute(delete(outgoing).where(out, outgoing.c.acknowledged == _TAKEN))
            db.execute(outgoing.update().where(out, outgoing.c.acknowledged == _WAITS).values(acknowledged=_FORGOTTEN))
            self._count_again(peers)
            for peer in peers if over else ():
                self._note_over(db, session, peer)

        await self._run(drop)
        for key in [key for key in self._read if key[0] == session and (not peers or key[1] in peers)]:
            del self._read[key]
        if not peers or not any(key[0] == session for key in self._read):
            self._wake(session)

    def _note_over(self, db: Connection, session: bytes, sender: str) -> None:
        """The oldest such notes give way: there are no more of them than messages of one sender may wait."""
        row = {"sender": sender, "session": session, "sequence": _OVER, "payload": b"", "arrived_at": self._clock()}
        if self._insert(db, incoming, row) is not None:
            into = incoming.c
            of_sender = (into.sender == sender) & (into.sequence == _OVER)
            newest = select(into.place).where(of_sender).order_by(into.place.desc())
            oldest = db.scalars(newest.offset(MOST_WAITING).limit(1)).first()
            if oldest is not None:
                db.execute(delete(incoming).where(of_sender, into.place <= oldest))

    async def waiting(self) -> dict[str, int]:
        """Messages that were not acknowledged yet, by recipient: for the metrics."""
        out = outgoing.c
        counted = select(out.recipient, func.count()).where(out.acknowledged <= _WAITS).group_by(out.recipient)
        return await self._look(lambda db: {row[0]: row[1] for row in db.execute(counted)})

    async def _run(self, work: Callable[[Connection], T]) -> T:
        def transact() -> T:
            with self._database.transaction() as db:
                return work(db)

        return await asyncio.to_thread(transact)

    async def _look(self, look: Callable[[Connection], T]) -> T:
        """What is read, which waits for nobody who writes."""

        def read() -> T:
            with self._database.reading() as db:
                return look(db)

        return await asyncio.to_thread(read)

    async def _look_until(self, look: Callable[[Connection], T]) -> T:
        """The same, as soon as the disk is there."""
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._look(look)
            except Unavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
