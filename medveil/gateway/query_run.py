"""One party's run of a query: its messages, its waiting, and how it ends.

    researcher -> site     QueryRequest       the query and its salt, sealed
    site -> researcher     QueryAnswer        whether it takes part, or why not
    researcher -> site     MaskKeys           everybody's mask keys, in each phase
    whoever stops          Refusal            to the others, why

Whoever has waited long enough for the others closes the query on the ledger. A query that cannot be closed has been
paid for meanwhile: then everybody goes on, and waits far longer, since nothing is given back any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ledger.contracts import Op, queries
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.organisation import Organisation, Refusal, refusal
from medveil.gateway.query_board import OPEN, read_query
from medveil.gateway.steps import FlowCancelled, Steps
from mpc.query import Query
from mpc.secure_aggregation import MaskKey
from wire.canonical import Wire
from wire.domains import QUERY, digest
from wire.errors import MedveilError, ProtocolAbort, Refused, Unavailable
from wire.identifiers import Handle, Hash
from wire.signing import VerifyKey

T = TypeVar("T")
M = TypeVar("M", bound=Wire)

LOOK = 1.0
"""Seconds between looks at whether the run is still wanted and allowed, while it waits."""
_FOR_GOOD = 10 * 365 * 86_400.0
_NO_LEDGER = "account.timeout"
_TIME_IS_UP = (_NO_LEDGER, "channel.timeout")
_TO_CLOSE = 5.0
"""Seconds that whoever stops first has to close the query, before those who were told close it themselves."""


class QueryRequest(Wire, frozen=True, tag="medveil.query_request"):
    """Researcher to site: the query behind a salted hash on the ledger."""

    handle: Handle
    query: Query
    salt: Hash

    def __repr__(self) -> str:
        return f"QueryRequest({self.handle.hex()})"


class QueryAnswer(Wire, frozen=True, tag="medveil.query_answer"):
    """Site to researcher. refused: why not; None where the site takes part."""

    handle: Handle
    refused: Refusal | None = None


class MaskKeys(Wire, frozen=True, tag="medveil.mask_keys"):
    """Researcher to site: everybody's mask keys."""

    keys: tuple[MaskKey, ...]


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

    guard: raises what ends the run (a revoked grant); asked while it waits.
    """

    organisation: Organisation
    handle: bytes
    others: tuple[str, ...]
    steps: Steps
    guard: Callable[[], None] = _nothing

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

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns. Raises ProtocolAbort with their words as soon as one of the others stops."""
        running = asyncio.ensure_future(work)
        listening = self.organisation.receive(Refusal, stop_session(self.handle), self.others, _FOR_GOOD)
        stopped = asyncio.ensure_future(listening)
        try:
            await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                sender, said = stopped.result()
                raise ProtocolAbort("gateway.stopped", round="run", parties=(sender,), **said.told())
            return await running
        finally:
            running.cancel()
            stopped.cancel()
            await asyncio.gather(running, stopped, return_exceptions=True)

    async def stop(self, error: Exception | FlowCancelled) -> None:
        """Tell the others why this organisation stops, and see to it that the query is closed if it opened nothing.

        Whoever says that it stops need not have closed it: it may lie, or have been cut short. Raises FlowPaused while
        the ledger cannot be reached.
        """
        for other in self.others:
            with contextlib.suppress(MedveilError):
                await self.organisation.send(other, stop_session(self.handle), refusal(self.organisation.name, error))
        code = error.code if isinstance(error, MedveilError) else ""
        if code != "gateway.query_closed":
            with contextlib.suppress(MedveilError):  # the error that stopped the run is the one to hear of
                await self.give_back(_TO_CLOSE if code == "gateway.stopped" else 0.0)

    async def forget(self, *sessions: bytes) -> None:
        """The run has ended, and its end is kept: its messages are not needed any more."""
        for session in (request_session(self.handle), stop_session(self.handle), *sessions):
            await self.organisation.forget(session, *self.others)

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
        if after:
            with contextlib.suppress(Unavailable):
                await account.until(lambda _: self.status() not in OPEN or None, "the closed query", after)
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
                return await wait(max(0.0, min(LOOK, left)))
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
