"""A query over several sites, the researcher's side: propose, carry messages, release.

    researcher -> ledger   ProposeQuery       salted hash, roster, cost
    researcher -> site     QueryRequest       the query and its salt, sealed
    each phase:            mask keys to everybody; announcements and contributions on the ledger; survivors fixed;
                           masked vectors added up; the totals released on the ledger

The researcher carries messages and can only stop the run; every site reads the ledger for itself. May be cut short
anywhere and taken up again (`medveil.gateway.steps`). `medveil.gateway.serving` is a site's side; `mpc` holds the
protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.contracts import queries
from medveil.gateway.organisation import Organisation
from medveil.gateway.query_board import (
    read_board,
    read_contributions,
    read_opened,
    read_phase,
    read_query,
    read_survivors,
    reserved,
)
from medveil.gateway.query_run import MaskKeys, QueryAnswer, QueryRequest, Run, envelope_keys, request_session
from medveil.gateway.steps import FlowCancelled, Steps
from mpc import cells, secure_aggregation
from mpc.cells import Layout
from mpc.query import COUNTS, PHASES, Query, check_query, salted_hash
from mpc.release import DatasetNote, Release, finish
from mpc.secure_aggregation import Masked, MaskKey, Opened, session_for
from wire.errors import ConsentDenied

RELEASED = "released"
"""The step that keeps the release: whatever comes later, the query is done."""


async def ask(
    researcher: Organisation,
    query: Query,
    handle: bytes,
    salt: bytes,
    steps: Steps,
    notes: Sequence[DatasetNote] = (),
) -> Release:
    """The researcher's part: propose, coordinate both phases, finish. Returns the release.

    handle: 16 fresh bytes; salt: 32 fresh secret bytes; the same ones when it is taken up again. Raises Refused
    (ConsentDenied with the words of the site that denied), BudgetExhausted, ProtocolAbort (with the words of the
    site that stopped), Unavailable (somebody did not answer in time); a query that opened nothing is closed again,
    which returns its reservation. So is one that its owner cancels.
    """

    async def finished() -> Release:
        return finish(query, salt, read_board(await researcher.account.caught_up(), handle), notes)

    run = Run(researcher, handle, query.roster, steps)
    if not await steps.kept(RELEASED):
        check_query(query)
        cells.prove_no_wrap(query)
        request = QueryRequest(handle, query, salt)
        try:
            await steps.boundary()
        except FlowCancelled as error:  # cancelled in an earlier life, which may have proposed it
            await run.stop(error)
            raise
        await _propose(run, request)
        try:
            for site in query.roster:
                await researcher.send(site, request_session(handle), request)
            await run.unless_stopped(_coordinate_both(run, request))
        except (Exception, FlowCancelled) as error:
            await run.stop(error)
            raise
    release = await steps.once(RELEASED, Release, finished)
    await run.forget(*_sessions(release))
    return release


def _sessions(release: Release) -> tuple[bytes, bytes]:
    """The channel sessions of both phases."""
    query, salt, handle = release.query, release.salt, release.handle
    counts = cells.counts_layout(query)
    totals = next(record.opened.totals for record in release.phases if record.phase == COUNTS)
    layouts = (counts, cells.sums_layout(query, cells.passing(query, totals)))
    first, second = (session_for(query, salt, handle, layout).id() for layout in layouts)
    return first, second


async def _propose(run: Run, request: QueryRequest) -> None:
    query, handle = request.query, request.handle
    hashed = salted_hash(query, request.salt)
    proposal = queries.ProposeQuery(handle, hashed, query.population, query.roster, query.rho_nano, PHASES)
    await run.write(lambda state: _is_mine(read_query(state, handle), run, hashed), proposal)


def _is_mine(found: queries.QueryState | None, run: Run, hashed: bytes) -> bool:
    return found is not None and (found.researcher, found.salted_hash) == (run.organisation.name, hashed)


async def _answers(run: Run, query: Query) -> None:
    """Every site's answer; the first refusal in roster order is raised, after all have answered."""
    answers: dict[str, QueryAnswer] = {}
    while len(answers) < len(query.roster):
        waiting = [site for site in query.roster if site not in answers]
        site, answer = await run.message(QueryAnswer, request_session(run.handle), waiting)
        answers[site] = answer
    for site in query.roster:
        refused = answers[site].refused
        if refused is not None:
            raise ConsentDenied("gateway.site_refused", organisation=site, **refused.told())


async def _coordinate_both(run: Run, request: QueryRequest) -> None:
    query = request.query
    await _answers(run, query)
    await run.board(lambda state: reserved(state, run.handle), "the reserved budget")
    counts = await _coordinate(run, request, cells.counts_layout(query))
    await _coordinate(run, request, cells.sums_layout(query, cells.passing(query, counts.totals)))


async def _coordinate(run: Run, request: QueryRequest, layout: Layout) -> Opened:
    """One phase: relay mask keys, fix the survivors, add the masked vectors up, release."""
    researcher, handle, phase = run.organisation, run.handle, layout.phase
    session = session_for(request.query, request.salt, handle, layout)
    roster = session.roster
    await run.steps.boundary()
    keys = [(await run.message(MaskKey, session.id(), roster))[1] for _ in roster]
    collecting = secure_aggregation.collect(session, envelope_keys(researcher, roster, run.height), keys)
    for site in roster:
        await researcher.send(site, session.id(), MaskKeys(tuple(keys)))
    await run.board(lambda state: read_contributions(state, handle, phase, len(roster)), "every contribution")
    await run.steps.boundary()
    await run.write(
        lambda state: (found := read_phase(state, handle, phase)) is not None and bool(found.survivors),
        queries.FixSurvivors(handle, phase),
    )
    survivors = await run.board(lambda state: read_survivors(state, handle, phase), "the fixed survivors")
    for _ in roster:
        _, masked = await run.message(Masked, session.id(), roster)
        collecting = collecting.receive(masked)
    opened = collecting.finish(survivors)
    await run.write(
        lambda state: read_opened(state, handle, phase) is not None,
        queries.Release(handle, phase, opened.totals, opened.blinding),
    )
    return opened
