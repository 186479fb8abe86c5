"""The reception: what another organisation begins here, and which flow answers it.

The first message of a session tells by its type what is wanted. Long answers become flows, begun by whoever runs
them (jobs in a gateway, tasks in one process); deliveries are taken at once.

    QueryRequest      query.serve           a part in a secure sum
    LimitRequest      eligibility.answer    a proof from a person's wallet
    ScoreRequest      score.serve           scores of own records, under encryption
    EvidenceRequest   evidence.answer       own access batches and receipts, to those who supervise
    SignedGrant       taken                 a grant for this organisation
    ModelShown        kept                  a model for one of its people to review
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from medveil.gateway import collecting, eligibility, granting, scoring, serving
from medveil.gateway.collecting import EvidenceRequest
from medveil.gateway.models import ModelShown, keep_shown
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.query_run import QueryRequest
from medveil.gateway.scoring import ScoreRequest
from medveil.gateway.steps import Steps
from medveil.gateway.tables import Tables
from medveil.gateway.wallets import Wallets
from privacy.grants import SignedGrant
from wire.canonical import Wire
from wire.errors import MedveilError, Unavailable
from wire.identifiers import Name
from zkp.bill_limit import LimitRequest

AGAIN = 5.0
"""Seconds until an opening that could not be taken is tried again."""

ANSWERS: dict[type[Wire], str] = {
    QueryRequest: "query.serve",
    LimitRequest: "eligibility.answer",
    ScoreRequest: "score.serve",
    EvidenceRequest: "evidence.answer",
}
"""The kind of flow that answers each opening."""

_KINDS = QueryRequest | LimitRequest | ScoreRequest | EvidenceRequest | SignedGrant | ModelShown

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
) -> None:
    """Run the flow of `kind` for an opening, from its beginning or from where it was cut short. Raises as it does."""
    peer, session = opened.peer, opened.session
    match kind:
        case "query.serve":
            await serving.serve_query(organisation, peer, session, home.tables, steps, clock)
        case "eligibility.answer":
            await eligibility.answer(organisation, peer, session, home.wallets, steps, clock)
        case "score.serve":
            await scoring.serve_scores(organisation, peer, session, home.tables, steps, clock)
        case "evidence.answer":
            await collecting.answer(organisation, peer, session, steps)
        case _:
            raise ValueError(f"no flow answers as {kind!r}")


_Wanted = str | SignedGrant | ModelShown
"""What an opening wants: a kind of flow, or to be taken as it is."""


def _raised(fault: Exception) -> None:
    raise fault


class Reception:
    """One organisation's reception. begin: runs the flows that answer.

    fault: told of a fault of this program over one opening, which is let go: what one member sends must not keep
    those of the others waiting, nor end the process. By default it is raised.
    """

    def __init__(self, organisation: Organisation, begin: Begin, fault: Callable[[Exception], None] = _raised) -> None:
        self._organisation = organisation
        self._begin = begin
        self._fault = fault
        self._later: list[tuple[str, bytes, _Wanted]] = []

    async def attend(self) -> None:
        """Take what others begin, for ever. Raises what the store and `fault` raise."""
        retrying = asyncio.ensure_future(self._try_again())
        try:
            async for peer, session, message in self._organisation.openings(_KINDS):
                kind = ANSWERS.get(type(message))
                if kind is not None:
                    await self._take(peer, session, kind)
                elif isinstance(message, SignedGrant | ModelShown):
                    await self._take(peer, session, message)
        finally:
            retrying.cancel()
            await asyncio.gather(retrying, return_exceptions=True)

    async def _take(self, peer: str, session: bytes, wanted: _Wanted) -> bool:
        """Take one opening; False if it has to be tried again, and why will hold for its sender's others, too."""
        try:
            match wanted:
                case SignedGrant():
                    await granting.take(self._organisation, peer, wanted)
                    await self._organisation.forget(session, peer)
                case ModelShown():
                    await keep_shown(self._organisation, peer, wanted)
                case kind:
                    await self._begin(kind, peer, session)
        except Unavailable:  # no room, no ledger: others are received meanwhile
            self._later.append((peer, session, wanted))
            return False
        except MedveilError:
            pass  # it is not what it claims to be; the sender hears nothing, as from a flow that nobody runs
        except Exception as error:
            self._fault(error)
        return True

    async def _try_again(self) -> None:
        while True:
            await asyncio.sleep(AGAIN)
            later, self._later = self._later, []
            full: set[str] = set()  # who begins thousands of things costs one try a round
            for opening in later:
                peer = opening[0]
                if peer in full:
                    self._later.append(opening)
                elif not await self._take(*opening):
                    full.add(peer)
