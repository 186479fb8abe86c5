"""What other organisations begin at this gateway, as jobs: each answer is a flow that a restart takes up again.

The jobs of one peer count as that peer's, so that none of them takes the places of others. A peer that is denied too
often waits (`medveil.service.work.denials`).
"""

from __future__ import annotations

from functools import partial

from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.reception import ANSWERS, AtHome, Opened, Reception, answer
from medveil.service.work.denials import Denials
from medveil.service.work.jobs import PEER, Jobs
from medveil.service.work.journal import Journal
from wire.canonical import decode, encode
from wire.errors import MedveilError, ProtocolAbort, Unavailable


def receiving(organisation: Organisation, home: AtHome, jobs: Jobs, clock: Clock) -> Reception:
    """The reception of a running gateway; its kinds of jobs are registered. Call it before `Jobs.resume`."""

    denials = Denials()

    async def work(kind: str, journal: Journal) -> str | None:
        opened = decode(Opened, journal.request)
        try:
            allowed = await answer(kind, organisation, home, opened, journal, clock)
        except (Unavailable, ProtocolAbort):  # nobody's fault, or a third's
            raise
        except MedveilError:
            denied(opened.peer)
            raise
        if not allowed:
            denied(opened.peer)
        return None

    def denied(peer: str) -> None:
        if denials.count(peer):
            jobs.put_off()

    async def begin(kind: str, peer: str, session: bytes) -> None:
        denials.check(peer)
        owner, key = f"{PEER}{peer}", f"{kind}/{session.hex()}"
        await jobs.start(kind, owner, encode(Opened(peer, session)), key)

    for kind in ANSWERS.values():
        jobs.register(kind, partial(work, kind))
    return Reception(organisation, begin, jobs.fault, clock)
