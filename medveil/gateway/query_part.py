"""A site's part in the two phases of a query, once it has approved: `medveil.gateway.serving` is what comes before.

    site -> researcher     RoundKeys        fresh for this phase, once its noised cells are kept
    researcher -> site     KeysOfRound
    site -> ledger         Announce         a digest of its commitment
    site -> researcher     SharesDealt      of its seeds, sealed to the others
    ledger                 the parties are fixed
    researcher -> site     SharesHanded     what the others dealt to it
    site -> ledger         Contribute       its commitment
    site -> researcher     Masked           with these parties alone: they are kept before
    ledger                 the survivors are fixed, the budget is spent
    site -> researcher     Unmasking        for these survivors alone: they are kept before
    ledger                 the sums, checked against the survivors' commitments

A phase may go on without this site: then it waits for what is released, and takes part in the next one. All that it
says of a phase follows from what is kept and from the flow's own randomness: cut short and taken up again, it says the
same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from ledger.contracts import Op, queries
from medveil.gateway.generator_file import generators_ready
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.organisation import Organisation
from medveil.gateway.query_board import (
    has_announced,
    has_contributed,
    left_out,
    read_announcements,
    read_near,
    read_opened,
    read_parties,
    read_survivors,
    reserved,
)
from medveil.gateway.query_run import KeysOfRound, QueryRequest, Run, SharesDealt, SharesHanded, envelope_keys
from mpc import cells, secure_aggregation
from mpc.cells import Layout
from mpc.history import check_exact_sites
from mpc.query import GATE, SUMS
from mpc.sum_coordinator import check_opening
from mpc.sum_messages import Opened, Parties, Survivors, session_for
from wire.canonical import Wire
from wire.domains import NOISED_CELLS, digest
from wire.errors import ProtocolAbort, Refused

M = TypeVar("M", bound=Wire)


class NoisedCells(Wire, frozen=True, tag="medveil.noised_cells"):
    """A site's cells of one phase with its noise in them. Secret."""

    cells: tuple[int, ...]

    def __repr__(self) -> str:
        return "NoisedCells()"


class Leaving(Wire, frozen=True, tag="medveil.leaving"):
    """The masked vector of a phase is about to leave, masked with these parties."""

    parties: Parties


class Unmasked(Wire, frozen=True, tag="medveil.unmasked"):
    """Shares are about to leave for these survivors of a phase: for no others, ever."""

    survivors: Survivors


@dataclass
class Part:
    """A site's part in one query, decided on and under way.

    researcher: who asked. read: what each local plan gives on the rows (secret). check_grant: raises ConsentDenied once
    the grant is gone; asked before each step, and before anything leaves.
    """

    site: Organisation
    run: Run
    request: QueryRequest
    researcher: str
    read: Callable[[], Awaitable[Sequence[pa.Table]]]
    check_grant: Callable[[], None]
    tables: Sequence[pa.Table] | None = None

    async def values(self, layout: Layout) -> tuple[int, ...]:
        """The noised cells of a phase (secret): noise is drawn once, whatever becomes of this process."""
        query = self.request.query

        async def draw() -> NoisedCells:
            if self.tables is None:
                self.tables = await self.read()
            return NoisedCells(await asyncio.to_thread(cells.contribution, query, layout, self.tables))

        return (await self.run.steps.once(f"cells/{layout.phase}", NoisedCells, draw)).cells


async def may_be_summed(run: Run) -> bool:
    """Whether a vector of this site is in a sum that was, or may be, opened: by what the ledger says now.

    A masked vector alone says nothing: not where the query was closed, or went on without this site.
    """
    state, name = run.organisation.account.state, run.organisation.name
    for phase in (GATE, SUMS):
        if await run.steps.kept(_leaving(phase)):
            survivors = read_survivors(state, run.handle, phase)
            if run.status() != "closed" if survivors is None else name in survivors.sites:
                return True
    return False


def _leaving(phase: int) -> str:
    return f"leaving/{phase}"


async def take_part(part: Part) -> None:
    """Both phases. Raises ConsentDenied once the grant is gone, ProtocolAbort, Refused, and as `Run.board`."""
    query, run = part.request.query, part.run
    await run.board(lambda state: reserved(state, run.handle), "the reserved budget")
    gate = cells.gate_layout(query)
    await _contribute(part, gate)
    opened, survivors = await _released(part, gate)
    layout = cells.sums_layout(query, cells.passing(query, opened.totals, len(survivors.sites)))
    if await _contribute(part, layout, survivors):
        await _released(part, layout)


async def _released(part: Part, layout: Layout) -> tuple[Opened, Survivors]:
    """What a phase released, checked against the survivors' commitments, whether this site is among them or not."""
    run, request = part.run, part.request
    handle, phase = request.handle, layout.phase
    opened = await run.board(lambda state: read_opened(state, handle, phase), "the released sums")
    survivors = await run.board(lambda state: read_survivors(state, handle, phase), "the fixed survivors")
    session = session_for(request.query, request.salt, handle, layout)
    await generators_ready(part.site.folder, session.cells)
    await asyncio.to_thread(check_opening, session, survivors, opened)
    return opened, survivors


async def _contribute(part: Part, layout: Layout, decided: Survivors | None = None) -> bool:
    """One phase at one site, until its shares have left; False as soon as the phase goes on without it.

    decided: the survivors of the phase before, whose counts decided which groups passed.
    """
    site, run, request, researcher = part.site, part.run, part.request, part.researcher
    handle, phase = request.handle, layout.phase
    session = session_for(request.query, request.salt, handle, layout)
    run.sessions.append(session.id())
    await run.steps.boundary()
    part.check_grant()

    def without() -> bool:
        return left_out(site.account.state, handle, phase, site.name)

    async def carried(kind: type[M]) -> M | None:
        """What the researcher carries to this site; None once it is left out."""
        got = await run.next_message(kind, session.id(), lambda: (researcher,), without)
        if got is None:
            return None
        _, message = got
        if isinstance(message, ProtocolAbort):
            raise message
        return message

    async def posted(stands: Callable[[FinalState], bool], op: Op) -> bool:
        """Whether it is on the ledger, in time."""
        try:
            await run.write(stands, op)
        except Refused:
            await site.account.caught_up()
            if not without():
                raise
            return False
        return True

    if without():
        return False
    members, signer = envelope_keys(site, session.roster, run.height), site.signer_at(run.height)
    values = await part.values(layout)
    # Bound to the cells: another vector under the same keys, seed and blinding would give both away.
    kept = b"".join(value.to_bytes(8, "big") for value in values)
    rand = run.steps.rand(f"mask/{phase}", session.id(), digest(NOISED_CELLS, kept))
    await generators_ready(site.folder, session.cells)
    started, keys = await asyncio.to_thread(secure_aggregation.start, session, site.name, values, signer, members, rand)
    await site.send(researcher, session.id(), keys)
    if (listed := await carried(KeysOfRound)) is None:
        return False
    dealt, shares, announcement = started.receive(listed.keys)
    if announcement is None:
        raise ValueError("queries are summed in verified mode")
    announce = queries.AnnounceContribution(handle, phase, announcement.digest)
    if not await posted(lambda state: has_announced(state, handle, phase, site.name), announce):
        return False
    await site.send(researcher, session.id(), SharesDealt(shares))
    parties = await run.board(lambda state: read_parties(state, handle, phase), "the fixed parties")
    if without() or (handed := await carried(SharesHanded)) is None:
        return False
    announcements = read_announcements(site.account.state, handle, phase, parties.sites)
    sent, masked, contribution = dealt.receive(parties, handed.shares, announcements)

    async def leaving() -> Leaving:
        return Leaving(parties)

    part.check_grant()
    if (await run.steps.once(_leaving(phase), Leaving, leaving)).parties != parties:
        raise ProtocolAbort("mpc.keys_differ", round="parties", parties=[site.name])
    if contribution is None:
        raise ValueError("queries are summed in verified mode")
    contribute = queries.Contribute(handle, phase, contribution.point, contribution.salt)
    if not await posted(lambda state: has_contributed(state, handle, phase, site.name), contribute):
        return False
    await site.send(researcher, session.id(), masked)
    survivors = await run.board(lambda state: read_survivors(state, handle, phase), "the fixed survivors")
    if without():
        return False
    part.check_grant()
    if decided is not None:
        check_exact_sites(request.query, decided.sites, survivors.sites)
    if site.near.survivors == "stop" and (near := read_near(site.account.state, handle, phase)):
        raise Refused("gateway.near_survivors", query=near[0].query.hex(), sites=", ".join(near[0].sites), phase=phase)

    async def unmasking() -> Unmasked:
        return Unmasked(survivors)

    if (await run.steps.once(f"unmasking/{phase}", Unmasked, unmasking)).survivors != survivors:
        raise ProtocolAbort("mpc.survivors_differ", round="survivors", parties=[site.name])
    _, shown = sent.receive(survivors)
    await site.send(researcher, session.id(), shown)
    return True
