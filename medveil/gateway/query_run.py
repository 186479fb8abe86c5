"""One party's run of a query: its messages, its waiting, and how it ends.

    researcher -> site     QueryRequest       the query and its salt, sealed
    site -> researcher     QueryAnswer        whether it takes part, or why not, or what answered the question before
    each phase:            see `mpc.secure_aggregation`; the researcher carries what is not for the ledger
    site -> researcher     RoundKeys
    researcher -> site     KeysOfRound        everybody's, to whoever sent some
    site -> researcher     SharesDealt        sealed to the others
    researcher -> site     SharesHanded       what the others dealt to it, to the parties
    site -> researcher     Masked, Unmasking
    whoever stops          Refusal            to the others, why

Whoever has waited long enough for the others closes the query on the ledger. A query that cannot be closed has been
paid for meanwhile: then everybody goes on, and waits far longer, since nothing is given back any more. A site that
stops and can be spared leaves it to the others to go on or to close.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ledger.contracts import Op, queries
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.organisation import Organisation, Refusal, refusal, said
from medveil.gateway.query_board import OPEN, read_query
from medveil.gateway.steps import FlowCancelled, Steps
from mpc.query import Query
from mpc.sum_messages import DealtShare, RoundKeys
from privacy.uses import NOTHING_SAID, Declaration
from wire.canonical import Wire
from wire.domains import QUERY, digest
from wire.errors import MedveilError, ProtocolAbort, Refused, Unavailable
from wire.identifiers import Handle, Hash
from wire.signing import VerifyKey

T = TypeVar("T")
M = TypeVar("M", bound=Wire)

LOOK = 1.0
"""Seconds between looks at whether the run is still wanted and allowed, while it waits."""
_OFTEN = 1 / 20
"""The same as a share of the patience, where that is less: a round's own end is not missed by much."""
_FOR_GOOD = 10 * 365 * 86_400.0
_NO_LEDGER = "account.timeout"
_TIME_IS_UP = (_NO_LEDGER, "channel.timeout")
_TO_CLOSE = 5.0
"""Seconds that whoever stops first has to close the query, before those who were told close it themselves."""
_ROUNDS_LEFT = 2
"""Times the patience that a site which can be spared leaves the others to go on, before it closes the query itself."""


class QueryRequest(Wire, frozen=True, tag="medveil.query_request"):
    """Researcher to site: the query behind a salted hash on the ledger, and what the researcher says of the use."""

    handle: Handle
    query: Query
    salt: Hash
    declared: Declaration = NOTHING_SAID

    def __repr__(self) -> str:
        return f"QueryRequest({self.handle.hex()})"


class AnsweredBefore(Wire, frozen=True, tag="medveil.answered_before"):
    """The query that was released of the same question, and its salt: what the ledger says of it is the answer."""

    handle: Handle
    query: Query
    salt: Hash

    def __repr__(self) -> str:
        return f"AnsweredBefore({self.handle.hex()})"


class QueryAnswer(Wire, frozen=True, tag="medveil.query_answer"):
    """Site to researcher. refused: why not; before: what answers the question already, which the researcher may have.

    Neither: the site takes part.
    """

    handle: Handle
    refused: Refusal | None = None
    before: AnsweredBefore | None = None


class KeysOfRound(Wire, frozen=True, tag="medveil.keys_of_round"):
    """Researcher to site: the keys of a phase, in the roster's order."""

    keys: tuple[RoundKeys, ...]


class SharesDealt(Wire, frozen=True, tag="medveil.shares_dealt"):
    """Site to researcher: what it deals to each of the others, sealed to them."""

    shares: tuple[DealtShare, ...]


class SharesHanded(Wire, frozen=True, tag="medveil.shares_handed"):
    """Researcher to site: what each of the other parties dealt to it."""

    shares: tuple[DealtShare, ...]


def request_session(handle: bytes) -> bytes:
    """The channel session in which a query is asked and answered."""
    return digest(QUERY, b"request", handle)[:16]


def stop_session(handle: bytes) -> bytes:
    """The channel session in which a party of a query says that it stops."""
    return digest(QUERY, b"stop", handle)[:16]


def envelope_keys(organisation: Organisation, roster: Sequence[str], height: int) -> dict[str, VerifyKey]:
    """The roster's envelope keys in block `height`, the query's: a key that changes under way changes nothing in it."""
    members = organisation.trust.at(height)
    return {site: members.member(site).keys.envelope.key for site in roster}


def _nothing() -> None:
    return None


@dataclass
class Run:
    """One organisation's run of the query under `handle`. others: the parties it listens to.

    guard: raises what ends the run (a revoked grant); asked while it waits. spared: whether the others can go on
    without this one. gone: who of the others has said that it stops, and why. sessions: the channel sessions of the
    phases that it came to.
    """

    organisation: Organisation
    handle: bytes
    others: tuple[str, ...]
    steps: Steps
    guard: Callable[[], None] = _nothing
    spared: bool = False
    gone: dict[str, Refusal] = field(default_factory=dict)
    sessions: list[bytes] = field(default_factory=list)

    async def board(self, read: Callable[[FinalState], T | None], what: str) -> T:
        """What `read` finds on the ledger, once it does. what: in a few words.

        Raises ProtocolAbort once the query is closed; Unavailable when it has waited long enough, and the query is
        closed by that; what the guard raises; FlowPaused, FlowCancelled.
        """

        def look(state: FinalState) -> T | None:
            found = read_query(state, self.handle)
            if found is not None and found.status == "closed":
                raise ProtocolAbort("gateway.query_closed", round=what, query=self.handle.hex())
            return read(state)

        return await self._patiently(lambda seconds: self.organisation.account.until(look, what, seconds))

    async def message(self, kind: type[M], session: bytes, senders: Collection[str]) -> tuple[str, M]:
        """The next message of `session` from one of `senders`. Raises as `board`, and as `Organisation.receive`."""
        return await self._patiently(lambda seconds: self.organisation.receive(kind, session, senders, seconds))

    async def next_message(
        self, kind: type[M], session: bytes, senders: Callable[[], Collection[str]], enough: Callable[[], bool]
    ) -> tuple[str, M | ProtocolAbort] | None:
        """As `message`, for whoever can do without: None as soon as it is `enough`, or nobody is awaited any more.

        senders: who is awaited, as of now. In the place of a message that is none of `kind`: what is wrong with it.
        """

        async def waiting(seconds: float) -> tuple[str, M | ProtocolAbort] | None:
            awaited = senders()
            if not awaited or enough():
                return None
            try:
                return await self.organisation.receive(kind, session, awaited, seconds)
            except ProtocolAbort as error:
                return error.parties[0], error

        return await self._patiently(waiting)

    async def write(self, stands: Callable[[FinalState], bool], *ops: Op) -> None:
        """Have `ops` on the ledger (`Organisation.ensure`), however long it cannot be reached, within the patience.

        Raises Refused as the contract does; otherwise as `board`.
        """

        async def writing(seconds: float) -> None:
            try:
                await self.organisation.ensure(stands, *ops)
            except Unavailable as error:
                if error.code == "ledger.closed":
                    raise
                await asyncio.sleep(seconds)
                raise Unavailable(_NO_LEDGER, organisation=self.organisation.name, what="the ledger") from None

        await self._patiently(writing)

    async def unless_stopped(self, work: Coroutine[Any, Any, T], fewest: int | None = None) -> T:
        """What `work` returns. Raises ProtocolAbort, with the words of the last to stop, once too few others are left.

        fewest: how many must be left; all of them, by default. Who stops before that is `gone`.
        """
        fewest = len(self.others) if fewest is None else fewest
        running = asyncio.ensure_future(work)
        tasks: list[asyncio.Future[Any]] = [running]
        try:
            while True:
                left = [other for other in self.others if other not in self.gone]
                listening = asyncio.ensure_future(
                    self.organisation.receive(Refusal, stop_session(self.handle), left, _FOR_GOOD)
                )
                tasks.append(listening)
                await asyncio.wait((running, listening), return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    return await running
                try:
                    sender, why = listening.result()
                except ProtocolAbort as error:
                    sender, why = error.parties[0], said(error)
                self.gone[sender] = why
                if len(self.others) - len(self.gone) < fewest:
                    raise ProtocolAbort("gateway.stopped", round="run", parties=(sender,), **why.told())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, error: Exception | FlowCancelled) -> None:
        """Tell the others why this organisation stops, and see to it that the query is closed if it opened nothing.

        Whoever says that it stops need not have closed it: it may lie, or have been cut short. Whoever can be spared
        leaves the others the time to go on without it. Raises FlowPaused while the ledger cannot be reached.
        """
        for other in self.others:
            with contextlib.suppress(MedveilError):
                await self.organisation.send(other, stop_session(self.handle), refusal(self.organisation.name, error))
        code = error.code if isinstance(error, MedveilError) else ""
        if code != "gateway.query_closed":
            with contextlib.suppress(MedveilError):  # the error that stopped the run is the one to hear of
                told = code == "gateway.stopped"
                spared = _ROUNDS_LEFT * self.organisation.patience if self.spared else 0.0
                await self.give_back(_TO_CLOSE if told else spared)

    async def forget(self, *sessions: bytes) -> None:
        """The run has ended, and its end is kept: its messages are not needed any more."""
        for session in (request_session(self.handle), stop_session(self.handle), *sessions):
            await self.organisation.forget(session, *self.others)

    async def drop(self) -> None:
        """The run was stopped: nothing stays of its messages, nor of those that are still on their way, which would
        take their senders' room in the post for a week."""
        for session in (request_session(self.handle), stop_session(self.handle), *self.sessions):
            await self.organisation.end(session, *self.others)

    @property
    def height(self) -> int:
        """The block that proposed the query. ValueError before it is on the ledger."""
        found = read_query(self.organisation.account.state, self.handle)
        if found is None:
            raise ValueError("the query is not on the ledger yet")
        return found.height

    def status(self) -> str:
        """The query's status on the ledger; "" where it is not there."""
        found = read_query(self.organisation.account.state, self.handle)
        return "" if found is None else found.status

    async def give_back(self, after: float = 0.0) -> None:
        """Close the query if it opened nothing, however long that takes; give others so many seconds to do it first."""
        account, clock = self.organisation.account, asyncio.get_running_loop().time
        end = clock() + self.organisation.last_patience
        begun = clock()
        while (left := begun + after - clock()) > 0 and self.status() in OPEN:
            with contextlib.suppress(Unavailable):
                await account.until(lambda _: self.status() not in OPEN or None, "the query's end", min(LOOK, left))
            with contextlib.suppress(FlowCancelled, MedveilError):
                await self.steps.boundary()
        while True:
            try:
                await account.caught_up()
                return await self._close()
            except Unavailable as error:
                if error.code == "ledger.closed" or clock() >= end:
                    raise
            with contextlib.suppress(FlowCancelled, MedveilError):  # it ends already: only a pause is news
                await self.steps.boundary()
            await asyncio.sleep(LOOK)

    async def _close(self) -> None:
        """Close the query unless it has opened something. Raises Refused if it opened something just now."""
        if self.status() in OPEN:
            await self.organisation.submit(queries.CloseQuery(self.handle))

    async def _patiently(self, wait: Callable[[float], Coroutine[Any, Any, T]]) -> T:
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            paid_for = self.status() in ("spent", "released")
            patience = self.organisation.last_patience if paid_for else self.organisation.patience
            left = began + patience - clock()
            try:
                return await wait(max(0.0, min(LOOK, _OFTEN * self.organisation.patience, left)))
            except Unavailable as error:
                if error.code not in _TIME_IS_UP:
                    raise
                await self.steps.boundary()
                self.guard()
                if self.status() == "closed":
                    raise ProtocolAbort("gateway.query_closed", round="the run", query=self.handle.hex()) from None
                if left <= 0 and (paid_for or await self._given_up(clock() - began)):
                    raise

    async def _given_up(self, waited: float) -> bool:
        """Whether the query is closed by now, after waiting in vain; not if it was paid for meanwhile."""
        try:
            await self._close()
        except Refused:
            await self.organisation.account.caught_up()
        except Unavailable:  # no ledger, for anybody: nothing can be paid for either
            return waited > self.organisation.last_patience
        return self.status() not in ("spent", "released")
