"""The reception: what another organisation begins here, and which flow answers it.

The first message of a session tells by its type what is wanted. Long answers become flows, begun by whoever runs
them (jobs in a gateway, tasks in one process); deliveries are taken at once.

    QueryRequest      query.serve           a part in a secure sum
    ProofRequest      eligibility.answer    a proof from a person's wallet
    ScoreRequest      score.serve           scores of own records, under encryption
    EvidenceRequest   evidence.answer       own access batches and receipts, to those who supervise
    ExtractOffer      extract.take          an extract, made for this organisation
    SignedGrant       taken                 a grant for this organisation
    ExtractRequest    kept                  an extract that is wanted, for the data officer
    ExtractDeclined   kept                  a no to this organisation's own request
    ModelShown        kept                  a model for one of its people to review
    DeleteNotice      done                  an extract of the sender's, which is deleted
    Deletion          kept                  a recipient's word that it deleted an extract of this organisation
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from medveil.gateway import collecting, eligibility, extract_taking, granting, scoring, serving
from medveil.gateway.collecting import EvidenceRequest
from medveil.gateway.eligibility import ProofRequest
from medveil.gateway.extract_delivery import ExtractOffer
from medveil.gateway.extract_wanted import ExtractDeclined, ExtractRequest, take_declined, take_request
from medveil.gateway.models import ModelShown, keep_shown
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.query_run import QueryRequest
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.gateway.recalling import take_deletion, take_notice
from medveil.gateway.scoring import ScoreRequest
from medveil.gateway.steps import Steps
from medveil.gateway.tables import Tables
from medveil.gateway.wallets import Wallets
from privacy.decide import Decision
from privacy.erasure.deletion import DeleteNotice, Deletion
from privacy.grants.terms import SignedGrant
from wire.canonical import Wire
from wire.errors import MedveilError, Unavailable
from wire.identifiers import Name

AGAIN = 5.0
"""Seconds until an opening that could not be taken is tried again."""
GRANTS_AT_ONCE = 8
"""Grants of one peer that wait for the ledger at a time."""
MOST_LATER = 1000
"""Openings of one peer that wait to be taken, or are kept for another try; more are left until this process begins
again."""

ANSWERS: dict[type[Wire], str] = {
    QueryRequest: "query.serve",
    ProofRequest: "eligibility.answer",
    ScoreRequest: "score.serve",
    EvidenceRequest: "evidence.answer",
    ExtractOffer: "extract.take",
}
"""The kind of flow that answers each opening."""

_Kept = ModelShown | ExtractRequest | ExtractDeclined | DeleteNotice | Deletion
_TAKEN = SignedGrant | _Kept
_KINDS = QueryRequest | ProofRequest | ScoreRequest | EvidenceRequest | ExtractOffer | _TAKEN

Begin = Callable[[str, str, bytes], Awaitable[object]]
"""Begin a flow: its kind, the peer, the session. Beginning again what was begun is harmless. Raises Unavailable
where there is no room just now."""


class Opened(Wire, frozen=True, tag="medveil.opened"):
    """What a flow that answers is asked: whose opening, in which session."""

    peer: Name
    session: bytes


class AtHome(NamedTuple):
    """What answers are given from."""

    tables: Tables
    wallets: Wallets


async def answer(
    kind: str, organisation: Organisation, home: AtHome, opened: Opened, steps: Steps, clock: Clock
) -> bool:
    """Run the flow of `kind` for an opening, from its beginning or from where it was cut short. Raises as it does.

    False where the use was denied, and the peer was told so.
    """
    peer, session = opened.peer, opened.session
    match kind:
        case "query.serve":
            return (await serving.serve_query(organisation, peer, session, home.tables, steps, clock)).allowed
        case "eligibility.answer":
            return (await eligibility.answer(organisation, peer, session, home.wallets, steps, clock)).allowed
        case "score.serve":
            served = await scoring.serve_scores(organisation, peer, session, home.tables, steps, clock)
            return not isinstance(served, Decision)
        case "evidence.answer":
            await collecting.answer(organisation, peer, session, steps)
        case "extract.take":
            await extract_taking.take_extract(organisation, peer, session, steps, clock)
        case _:
            raise ValueError(f"no flow answers as {kind!r}")
    return True


_Wanted = str | _TAKEN
"""What an opening wants: a kind of flow, or to be taken as it is."""


def _raised(fault: Exception) -> None:
    raise fault


def _now() -> int:
    return time.time_ns() // 1_000_000


class Reception:
    """One organisation's reception. begin: runs the flows that answer.

    fault: told of a fault of this program over one opening, which is let go: what one member sends must not keep
    those of the others waiting, nor end the process. By default it is raised. clock: ms UTC.
    """

    def __init__(
        self,
        organisation: Organisation,
        begin: Begin,
        fault: Callable[[Exception], None] = _raised,
        clock: Clock = _now,
    ) -> None:
        self._organisation = organisation
        self._begin = begin
        self._fault = fault
        self._clock = clock
        self._extracts = ExtractsHere(organisation, clock)
        self._later: dict[str, list[tuple[bytes, _Wanted]]] = {}  # by peer
        self._taking: Counter[str] = Counter()  # by peer: grants that wait for the ledger
        self._lines: dict[str, deque[tuple[bytes, _Kept]]] = {}  # by peer: what is kept or done, one after the other
        self._tasks: set[asyncio.Task[None]] = set()

    async def attend(self) -> None:
        """Take what others begin, for ever. Raises what the store and `fault` raise."""
        try:
            async with asyncio.TaskGroup() as group:
                self._run(group, self._try_again(group))
                try:
                    async for peer, session, message in self._organisation.openings(_KINDS):
                        kind = ANSWERS.get(type(message))
                        if kind is not None:
                            await self._take(group, peer, session, kind)
                        elif isinstance(message, _TAKEN):
                            await self._take(group, peer, session, message)
                finally:
                    for task in self._tasks:
                        task.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    def _run(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, group: asyncio.TaskGroup, peer: str, session: bytes, wanted: _Wanted) -> bool:
        """Take one opening; False if it has to be tried again, and why will hold for its sender's others, too."""
        try:
            match wanted:
                case SignedGrant():
                    granting.check_delivered(self._organisation, peer, wanted)  # what is forged waits for nothing
                    if self._taking[peer] >= GRANTS_AT_ONCE:
                        self._put_off(peer, session, wanted)
                        return False
                    self._taking[peer] += 1
                    self._run(group, self._take_grant(peer, session, wanted))
                case str():
                    await self._begin(wanted, peer, session)
                case kept:
                    self._queue(group, peer, session, kept)
        except Unavailable:  # no room: others are received meanwhile
            self._put_off(peer, session, wanted)
            return False
        except MedveilError:
            # It is not what it claims to be; the sender hears nothing, as from a flow that nobody runs.
            if isinstance(wanted, SignedGrant):
                try:
                    await self._organisation.forget(session, peer)  # it comes again in another session, if at all
                except Unavailable:  # the disk
                    self._put_off(peer, session, wanted)
                    return False
        except Exception as error:
            self._fault(error)
        return True

    def _queue(self, group: asyncio.TaskGroup, peer: str, session: bytes, wanted: _Kept) -> None:
        """Have something kept or done when those that this peer sent before are: nobody waits for another's."""
        line = self._lines.get(peer)
        if line is None:
            self._lines[peer] = deque([(session, wanted)])
            self._run(group, self._serve(peer))
        elif len(line) < MOST_LATER:
            line.append((session, wanted))
        else:
            self._put_off(peer, session, wanted)

    async def _serve(self, peer: str) -> None:
        line = self._lines[peer]
        try:
            while line:
                session, wanted = line.popleft()
                try:
                    await self._keep(peer, session, wanted)
                except Unavailable:  # the disk, or the post: so it will be with the others
                    for one in ((session, wanted), *line):
                        self._put_off(peer, *one)
                    line.clear()
                except Exception as error:
                    self._fault(error)
        finally:
            del self._lines[peer]

    async def _keep(self, peer: str, session: bytes, wanted: _Kept) -> None:
        """Keep or do one; then nothing of the message stays, whether it was refused or not. Raises Unavailable."""
        organisation = self._organisation
        try:
            match wanted:
                case ModelShown():
                    await keep_shown(organisation, peer, wanted)
                case ExtractRequest():
                    await take_request(organisation, peer, session, wanted, self._clock)
                case ExtractDeclined():
                    await take_declined(organisation, peer, wanted)
                case DeleteNotice():
                    await take_notice(organisation, self._extracts, peer, wanted, self._clock)
                case Deletion():
                    await take_deletion(organisation, self._extracts, peer, wanted, self._clock())
        except Unavailable:
            raise
        except MedveilError:
            pass  # as in `_take`
        if not isinstance(wanted, ModelShown):  # its session goes on with the review
            await organisation.forget(session, peer)

    async def _take_grant(self, peer: str, session: bytes, signed: SignedGrant) -> None:
        """Take a grant as soon as the ledger can be asked about it, apart from everything else."""
        try:
            try:
                await granting.take(self._organisation, peer, signed)
            except Unavailable:
                self._put_off(peer, session, signed)
                return
            except MedveilError:
                pass  # as in `_take`
            await self._organisation.forget(session, peer)
        except Exception as error:
            self._fault(error)
        finally:
            self._taking[peer] -= 1
            if not self._taking[peer]:
                del self._taking[peer]

    def _put_off(self, peer: str, session: bytes, wanted: _Wanted) -> None:
        """Keep an opening for another try, unless its sender has used its room up: the post has it still."""
        kept = self._later.setdefault(peer, [])
        if len(kept) < MOST_LATER:
            kept.append((session, wanted))

    async def _try_again(self, group: asyncio.TaskGroup) -> None:
        while True:
            await asyncio.sleep(AGAIN)
            later, self._later = self._later, {}
            for peer, openings in later.items():
                full: set[bool] = set()  # who begins thousands of things costs one try a round, grants one more
                for session, wanted in openings:
                    grant = isinstance(wanted, SignedGrant)
                    if grant in full:
                        self._put_off(peer, session, wanted)
                    elif not await self._take(group, peer, session, wanted):
                        full.add(grant)
