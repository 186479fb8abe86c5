"""A query over several sites, the researcher's side: propose, carry messages, release.

    researcher -> ledger   ProposeQuery       salted hash, roster, cost
    researcher -> site     QueryRequest       the query and its salt, sealed
    each phase             `medveil.gateway.query_rounds`

A question that was answered before gets the same answer, at no cost: from this organisation's own releases, or, once
every site allows the use, from the query that they name, whose sums stand on the ledger.

Every site of the roster must approve; after that a phase goes on without those that are away, from the threshold on.
The researcher carries messages and can only stop the run; every site reads the ledger for itself. May be cut short
anywhere and taken up again (`medveil.gateway.steps`). `medveil.gateway.serving` is a site's side; `mpc` holds the
protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Annotated

import msgspec

from ledger.contracts import queries
from medveil.gateway.organisation import Organisation
from medveil.gateway.query_board import read_board, read_query, reserved
from medveil.gateway.query_history import keep_release, known_release, read_release
from medveil.gateway.query_rounds import coordinate
from medveil.gateway.query_run import AnsweredBefore, QueryAnswer, QueryRequest, Run, request_session
from medveil.gateway.steps import FlowCancelled, Steps
from mpc import cells
from mpc.history import question_of
from mpc.query import GATE, PHASES, Query, check_query, salted_hash
from mpc.release import DatasetNote, Release, finish
from mpc.sum_messages import session_for
from privacy.uses import NOTHING_SAID, Declaration
from wire.canonical import Wire
from wire.errors import ConsentDenied, DecodeError, MedveilError, ProtocolAbort, Refused, VerificationError
from wire.secure_sum import threshold

RELEASED = "released"
"""The step that keeps the release: whatever comes later, the query is done."""
KNOWN = "known"
"""The step that keeps whether this organisation knew the answer when it began."""


class _Looked(Wire, frozen=True, tag="medveil.question_looked_up"):
    """The handle of the release that answers the question; none where there was none."""

    handle: Annotated[bytes, msgspec.Meta(max_length=16)]


async def ask(
    researcher: Organisation,
    query: Query,
    handle: bytes,
    salt: bytes,
    steps: Steps,
    notes: Sequence[DatasetNote] = (),
    declared: Declaration = NOTHING_SAID,
) -> Release:
    """The researcher's part: propose, coordinate both phases, finish. Returns the release, which is kept.

    handle: 16 fresh bytes; salt: 32 fresh secret bytes; the same ones when it is taken up again. declared: what it
    says of the use, by which each site judges. The release is of another handle where the question was answered
    before: then nothing was spent. Raises Refused
    (ConsentDenied with the words of the site that denied), BudgetExhausted, ProtocolAbort (with the words of the
    site that stopped), Unavailable (somebody did not answer in time); a query that opened nothing is closed again,
    which returns its reservation. So is one that its owner cancels.
    """
    run = Run(researcher, handle, query.roster, steps)
    answer = AnsweredBefore(handle, query, salt)

    async def looking() -> _Looked:
        known = known_release(researcher, query)
        return _Looked(b"" if known is None else known.handle)

    async def finished() -> Release:
        if known := (await steps.once(KNOWN, _Looked, looking)).handle:
            return read_release(researcher, known)
        board = read_board(await researcher.account.caught_up(), answer.handle)
        return await asyncio.to_thread(finish, answer.query, answer.salt, board, notes)

    if not await steps.kept(RELEASED) and not (await steps.once(KNOWN, _Looked, looking)).handle:
        check_query(query)
        cells.prove_no_wrap(query)
        cells.prove_delta(query)
        request = QueryRequest(handle, query, salt, declared)
        try:
            await steps.boundary()
        except FlowCancelled as error:  # cancelled in an earlier life, which may have proposed it
            await run.stop(error)
            raise
        await _propose(run, request)
        try:
            for site in query.roster:
                await researcher.send(site, request_session(handle), request)
            before = await run.unless_stopped(_coordinate_both(run, request), threshold(len(query.roster)))
            answer = before or answer
        except (Exception, FlowCancelled) as error:
            await run.stop(error)
            await run.drop()
            raise
    release = await steps.once(RELEASED, Release, finished)
    keep_release(researcher, release)
    if release.handle == handle:
        await run.forget(*_sessions(release))
    else:
        with contextlib.suppress(MedveilError):  # nothing is reserved for it
            await run.give_back()
        await run.forget()
    return release


def _sessions(release: Release) -> tuple[bytes, bytes]:
    """The channel sessions of both phases."""
    query, salt, handle = release.query, release.salt, release.handle
    gate = next(record for record in release.phases if record.phase == GATE)
    passed = cells.passing(query, gate.opened.totals, len(gate.survivors.sites))
    layouts = (cells.gate_layout(query), cells.sums_layout(query, passed))
    first, second = (session_for(query, salt, handle, layout).id() for layout in layouts)
    return first, second


async def _propose(run: Run, request: QueryRequest) -> None:
    query, handle = request.query, request.handle
    hashed = salted_hash(query, request.salt)
    proposal = queries.ProposeQuery(handle, hashed, query.population, query.roster, query.rho_nano, PHASES)
    await run.write(lambda state: _is_mine(read_query(state, handle), run, hashed), proposal)


def _is_mine(found: queries.QueryState | None, run: Run, hashed: bytes) -> bool:
    return found is not None and (found.researcher, found.salted_hash) == (run.organisation.name, hashed)


async def _answers(run: Run, query: Query) -> AnsweredBefore | None:
    """Every site's answer, and what they say answered the question before, if all do.

    The first refusal in roster order is raised, after all have answered; then ProtocolAbort for a site that names what
    is no answer to this, Refused where not all name the same query.
    """
    answers: dict[str, QueryAnswer] = {}
    while len(answers) < len(query.roster):
        waiting = [site for site in query.roster if site not in answers]
        site, answer = await run.message(QueryAnswer, request_session(run.handle), waiting)
        answers[site] = answer
    for site in query.roster:
        refused = answers[site].refused
        if refused is not None:
            raise ConsentDenied("gateway.site_refused", organisation=site, **refused.told())
    before = {site: one for site in query.roster if (one := answers[site].before) is not None}
    state = await run.organisation.account.caught_up()
    good: list[AnsweredBefore] = []
    for site, one in before.items():
        if one in good:
            continue
        try:
            if question_of(one.query) != question_of(query):
                raise Refused("gateway.other_query", query=run.handle.hex())
            await asyncio.to_thread(finish, one.query, one.salt, read_board(state, one.handle))
            good.append(one)
        except (Refused, VerificationError, DecodeError):
            raise ProtocolAbort("gateway.no_answer_before", round="answers", parties=(site,)) from None
    if not before:
        return None
    first = next(iter(before.values()))
    # Whoever names another one allows the rows of that one, not of this.
    others = [site for site in query.roster if before.get(site) != first]
    if others:
        named = ", ".join(site for site in query.roster if site not in others)
        raise Refused("gateway.answered_in_part", organisations=named, others=", ".join(others))
    return first


async def _coordinate_both(run: Run, request: QueryRequest) -> AnsweredBefore | None:
    """Both phases; or what answered the question before."""
    query = request.query
    if (before := await _answers(run, query)) is not None:
        return before
    await run.board(lambda state: reserved(state, run.handle), "the reserved budget")
    opened, survivors = await coordinate(run, request, cells.gate_layout(query), ())
    passed = cells.passing(query, opened.totals, len(survivors.sites))
    lost = [site for site in query.roster if site not in survivors.sites]
    await coordinate(run, request, cells.sums_layout(query, passed), lost)
    return None
