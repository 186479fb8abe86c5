"""A query over several sites, a site's side: check, decide, contribute.

    researcher -> site   QueryRequest        the query and its salt, sealed
    site                 checks the query against the ledger's declarations, decides under its grants,
                         writes its audit intent
    site -> ledger       ApproveQuery        the last approval reserves the budget
    each phase           noised cells, kept before anything of them leaves; a mask key; announcement and
                         contribution on the ledger; the masked vector, once the survivors are fixed there
    site                 checks the released totals against the commitments, writes its outcome

May be cut short anywhere and taken up again: the noised cells of a phase are drawn once, and all that a site says
about them follows from them and from the flow's own randomness, so that a second run says the same.

A site's outcome is "released" from the moment its masked vector may have left, and "aborted" before: then the counts
of phase 1 may have been opened, which is for the ledger to say (`queries.phase_key`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ledger.contracts import datasets, queries
from medveil.gateway.granting import NO_DATASET, decide_use, end_use, log_denial, refusal_of, still_granted
from medveil.gateway.organisation import Clock, Organisation, Refusal, refusal
from medveil.gateway.query_board import (
    check_declared,
    has_announced,
    has_contributed,
    read_announcements,
    read_opened,
    read_query,
    read_survivors,
    reserved,
)
from medveil.gateway.query_run import MaskKeys, QueryAnswer, QueryRequest, Run, envelope_keys, request_session
from medveil.gateway.steps import FlowCancelled, Steps
from medveil.gateway.tables import Tables
from mpc import cells, secure_aggregation
from mpc.cells import Layout
from mpc.query import COUNTS, SUMS, Query, check_proposal, check_query, local_plan
from mpc.secure_aggregation import Opened, session_for
from privacy.decide import Decision, UseRequest
from privacy.local import RowFilter, bind
from privacy.predicate import columns
from wire.canonical import Wire
from wire.domains import NOISED_CELLS, digest
from wire.errors import ConsentDenied, DecodeError, MedveilError, Refused

SMALLEST_GROUP = 10
"""No site takes part in a query that shows groups of fewer rows than this."""

ENDED = "ended"
"""The step that keeps how the site's part ended."""


class NoisedCells(Wire, frozen=True, tag="medveil.noised_cells"):
    """A site's cells of one phase with its noise in them. Secret."""

    cells: tuple[int, ...]

    def __repr__(self) -> str:
        return "NoisedCells()"


class Checked(Wire, frozen=True, tag="medveil.checked"):
    """The request is what was proposed, and keeps to what was declared."""


class Leaving(Wire, frozen=True, tag="medveil.leaving"):
    """The masked vector of a phase is about to leave."""

    phase: int


class PartEnded(Wire, frozen=True, tag="medveil.part_ended"):
    """How a site's part ended. The decision is in the audit trail, and here for whoever asks the flow again."""

    decision: Decision


def use_request(query: Query, site: str, researcher: str) -> UseRequest:
    """The use that `query` makes of `site`'s dataset."""
    fields = set(local_plan(query).columns())
    if query.filter is not None:
        fields |= columns(query.filter)
    return UseRequest(
        holder=site,
        recipient=researcher,
        dataset=query.datasets[query.roster.index(site)],
        fields=tuple(sorted(fields)),
        kind="query",
        purpose=query.purpose,
        predicate=query.filter,
    )


@dataclass
class _Part:
    """A site's part in one query, decided on and under way."""

    site: Organisation
    run: Run
    request: QueryRequest
    use: UseRequest
    decision: Decision
    rows: RowFilter
    tables: Tables
    clock: Clock
    table: pa.Table | None = None

    def check_grant(self) -> None:
        """Raises ConsentDenied once the grant is gone: asked before each step and before each vector leaves."""
        if not still_granted(self.site, self.use, self.decision, self.clock()):
            raise ConsentDenied("gateway.grant_gone", grant=self.decision.grant, dataset=self.use.dataset)

    async def values(self, layout: Layout) -> tuple[int, ...]:
        """The noised cells of a phase (secret): noise is drawn once, whatever becomes of this process."""
        query = self.request.query

        async def draw() -> NoisedCells:
            if self.table is None:
                engine = await asyncio.to_thread(self.tables.engine, self.use.dataset, self.decision.excluded)
                self.table = await asyncio.to_thread(engine.run, local_plan(query), self.rows)
            return NoisedCells(await asyncio.to_thread(cells.contribution, query, layout, self.table))

        return (await self.run.steps.once(f"cells/{layout.phase}", NoisedCells, draw)).cells


async def serve_query(
    site: Organisation, researcher: str, session: bytes, tables: Tables, steps: Steps, clock: Clock
) -> Decision:
    """One site's part in a query, from the request that `researcher` sent in `session` to the audit outcome.

    Returns the decision; where it denies, the researcher was told why and nothing was computed. Raises
    ProtocolAbort, Refused, DecodeError or Unavailable if the run stops; then the outcome says so, and so was the
    researcher told.
    """
    if await steps.kept(ENDED):
        return (await steps.once(ENDED, PartEnded, _never)).decision
    _, request = await site.receive(QueryRequest, session, (researcher,))
    if session != request_session(request.handle):
        error = Refused("gateway.other_query", query=request.handle.hex())
        await _denied(site, researcher, request.query, error, tables, steps)
        await site.send(researcher, session, QueryAnswer(request.handle, refusal(site.name, error)))
        raise error
    run = Run(site, request.handle, (researcher,), steps)
    sessions: list[bytes] = []
    try:
        decision = await _serve(run, request, tables, clock, sessions)
    except (Exception, FlowCancelled):
        await run.forget(*sessions)
        raise

    async def ended() -> PartEnded:
        return PartEnded(decision)

    await steps.once(ENDED, PartEnded, ended)
    await run.forget(*sessions)
    return decision


async def _never() -> PartEnded:
    raise ValueError("a step that is kept does not run")


async def _serve(run: Run, request: QueryRequest, tables: Tables, clock: Clock, sessions: list[bytes]) -> Decision:
    site, steps, (researcher,) = run.organisation, run.steps, run.others
    handle, query = request.handle, request.query

    async def answer(refused: Refusal | None = None) -> None:
        await site.send(researcher, request_session(handle), QueryAnswer(handle, refused))

    answered = False
    try:
        proposed = await run.board(lambda state: read_query(state, handle), "the proposed query")

        async def checked() -> Checked:
            _check_request(site, request, proposed, tables)
            return Checked()

        try:
            _check_proposed(request, proposed, researcher)
            await steps.once("checked", Checked, checked)  # once accepted, not judged by what is registered later
        except (Refused, DecodeError) as error:
            await _denied(site, researcher, query, error, tables, steps, proposed.salted_hash)
            raise
        use = use_request(query, site.name, researcher)
        decision, intent = await decide_use(site, use, steps, clock(), proposed.salted_hash)
        if not decision.allowed:
            await answer(refusal_of(decision))
            return decision
        ended = False
        try:
            rows = bind(tables.layout(use.dataset).kinds(), decision.rows, query.filter)
            part = _Part(site, run, request, use, decision, rows, tables, clock)
            run.guard = part.check_grant
            await run.write(
                lambda state: (found := read_query(state, handle)) is not None and site.name in found.approvals,
                queries.ApproveQuery(handle),
            )
            answered = True
            await answer()
            await run.unless_stopped(_take_part(part, sessions))
            ended = True
        except (Exception, FlowCancelled):
            ended = True
            raise
        finally:
            # Not where the process stops: then the use goes on, and what has left is known by its step.
            if ended:
                left = [phase for phase in (COUNTS, SUMS) if await steps.kept(_leaving(phase))]
                await end_use(site, intent, "released" if left else "aborted")
    except (Exception, FlowCancelled) as error:
        if answered:
            await run.stop(error)
        else:
            with contextlib.suppress(MedveilError):
                await answer(refusal(site.name, error))
                found = read_query(await site.account.caught_up(), handle)
                if found is not None and site.name in found.approvals:  # it got there, and may have reserved the budget
                    await run.give_back()
        raise
    return decision


async def _denied(
    site: Organisation, asker: str, query: Query, why: MedveilError, tables: Tables, steps: Steps, hashed: bytes = b""
) -> None:
    """Log that a question was refused before there was anything to decide. hashed: the question's, if it has one."""
    own = dict(zip(query.roster, query.datasets, strict=False)).get(site.name, NO_DATASET)
    dataset = own if own in tables.names() else NO_DATASET
    await log_denial(site, asker, dataset, "query", why, steps, query.purpose, hashed)


def _leaving(phase: int) -> str:
    return f"leaving/{phase}"


def _check_proposed(request: QueryRequest, proposed: queries.QueryState, researcher: str) -> None:
    """Check that what the researcher sent is what it proposed, whenever it is read. Raises Refused."""
    query = request.query
    if proposed.researcher != researcher:
        raise Refused("gateway.other_query", query=proposed.query.hex())
    check_query(query)
    check_proposal(
        query,
        request.salt,
        query_hash=proposed.salted_hash,
        population=proposed.population,
        roster=proposed.roster,
        rho_nano=proposed.rho_nano,
        phases=proposed.phases,
    )


def _check_request(site: Organisation, request: QueryRequest, proposed: queries.QueryState, tables: Tables) -> None:
    """Check the query against the declarations on the ledger, once. Raises Refused."""
    query = request.query
    cells.prove_no_wrap(query)
    if site.name not in query.roster:
        raise Refused("gateway.not_in_roster", organisation=site.name)
    if query.chain != site.trust.chain:
        raise Refused("gateway.other_query", query=proposed.query.hex())
    if query.minimum_group < SMALLEST_GROUP:
        raise Refused("gateway.small_groups", minimum=query.minimum_group, least=SMALLEST_GROUP)
    own = query.datasets[query.roster.index(site.name)]
    check_declared(query, site.account.state, tables.layout(own).person if own in tables.names() else "")
    for name in query.datasets:
        datasets.current_dataset(site.account.state.view(), name)


async def _take_part(part: _Part, sessions: list[bytes]) -> None:
    query, run = part.request.query, part.run
    await run.board(lambda state: reserved(state, run.handle), "the reserved budget")
    passed: Sequence[int] = ()
    for phase in (COUNTS, SUMS):
        await run.steps.boundary()
        part.check_grant()
        layout = cells.counts_layout(query) if phase == COUNTS else cells.sums_layout(query, tuple(passed))
        opened = await _contribute(part, layout, sessions)
        if phase == COUNTS:
            passed = cells.passing(query, opened.totals)


async def _contribute(part: _Part, layout: Layout, sessions: list[bytes]) -> Opened:
    """One phase at one site; returns the released totals, checked against the commitments."""
    site, run, request, researcher = part.site, part.run, part.request, part.use.recipient
    handle, phase = request.handle, layout.phase
    session = session_for(request.query, request.salt, handle, layout)
    sessions.append(session.id())
    members, signer = envelope_keys(site, session.roster, run.height), site.signer_at(run.height)
    values = await part.values(layout)
    # Bound to the cells: another vector under the same mask key and blinding would give both away.
    kept = b"".join(value.to_bytes(8, "big") for value in values)
    rand = run.steps.rand(f"mask/{phase}", session.id(), digest(NOISED_CELLS, kept))
    started, key = secure_aggregation.start(session, site.name, values, signer, members, rand)
    await site.send(researcher, session.id(), key)
    _, keys = await run.message(MaskKeys, session.id(), (researcher,))
    announced, announcement = started.receive(keys.keys)
    await run.write(
        lambda state: has_announced(state, handle, phase, site.name),
        queries.AnnounceContribution(handle, phase, announcement.digest),
    )
    everybody = len(session.roster)
    announcements = await run.board(
        lambda state: read_announcements(state, handle, phase, everybody), "every site's announcement"
    )
    contributed, contribution = announced.receive(announcements)
    await run.write(
        lambda state: has_contributed(state, handle, phase, site.name),
        queries.Contribute(handle, phase, contribution.point, contribution.salt),
    )
    survivors = await run.board(lambda state: read_survivors(state, handle, phase), "the fixed survivors")
    _, masked = contributed.receive(survivors)

    async def leaving() -> Leaving:
        return Leaving(phase)

    part.check_grant()
    await run.steps.once(_leaving(phase), Leaving, leaving)
    await site.send(researcher, session.id(), masked)
    opened = await run.board(lambda state: read_opened(state, handle, phase), "the released sums")
    secure_aggregation.check_opening(session, survivors.contributions, opened)
    return opened
