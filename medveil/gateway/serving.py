"""A query over several sites, a site's side: check, decide, take part.

    researcher -> site   QueryRequest        the query and its salt, sealed
    site                 checks the query against the ledger's declarations and against those that it served before,
                         decides under its grants, writes its audit intent
    site -> ledger       ApproveQuery        the last approval reserves the budget
    each phase           `medveil.gateway.query_part`
    site                 writes its outcome

May be cut short anywhere and taken up again. A question that was answered before is not answered again: the site names
the query that answers it, and its trail says that this one, too, used it.

A site's outcome is "released" where its vector is in a sum that was, or may be, opened: it is among the survivors that
the ledger fixed. A masked vector alone says nothing: where the query was closed, or went on without the site, the
outcome is "aborted".
"""

from __future__ import annotations

import contextlib
from functools import partial

import pyarrow as pa

from ledger.contracts import datasets, queries
from medveil.gateway.granting import NO_DATASET, decide_use, end_use, log_denial, refusal_of, still_granted
from medveil.gateway.long_work import reading
from medveil.gateway.organisation import Clock, Organisation, Refusal, refusal
from medveil.gateway.query_board import check_declared, is_summed, read_query
from medveil.gateway.query_history import answered, check_near, enter, leave, look_through
from medveil.gateway.query_part import Part, may_be_summed, take_part
from medveil.gateway.query_run import AnsweredBefore, QueryAnswer, QueryRequest, Run, request_session
from medveil.gateway.steps import FlowCancelled, Steps
from medveil.gateway.tables import Tables
from mpc import cells
from mpc.query import Query, check_proposal, check_query, local_plans, salted_hash
from privacy.audit import EntryId
from privacy.decide import Decision, UseRequest
from privacy.local import bind
from privacy.predicate import columns
from privacy.uses import NOTHING_SAID, Declaration
from wire.canonical import Wire
from wire.errors import ConsentDenied, DecodeError, MedveilError, Refused, Unavailable
from wire.identifiers import Handle, Hash
from wire.secure_sum import threshold

SMALLEST_GROUP = 10
"""No site takes part in a query that shows groups of fewer rows than this."""

ENDED = "ended"
"""The step that keeps how the site's part ended."""


class Checked(Wire, frozen=True, tag="medveil.checked"):
    """The request is what was proposed, and keeps to what was declared."""


class _Before(Wire, frozen=True, tag="medveil.looked_before"):
    """What answered a question before, if anything did."""

    answer: AnsweredBefore | None


async def _look(site: Organisation, query: Query, decision: Decision) -> _Before:
    return _Before(answered(site, query, decision) if decision.allowed else None)


class PartEnded(Wire, frozen=True, tag="medveil.part_ended"):
    """How a site's part ended. The decision is in the audit trail, and here for whoever asks the flow again.

    sessions: channel sessions whose messages are forgotten then.
    """

    decision: Decision
    handle: Handle
    sessions: tuple[Hash, ...]


def use_request(query: Query, site: str, researcher: str, declared: Declaration = NOTHING_SAID) -> UseRequest:
    """The use that `query` makes of `site`'s dataset. declared: by the researcher."""
    fields = set().union(*(plan.columns() for plan in local_plans(query)))
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
        commercial=declared.commercial,
        jurisdiction=declared.jurisdiction,
    )


async def serve_query(
    site: Organisation, researcher: str, session: bytes, tables: Tables, steps: Steps, clock: Clock
) -> Decision:
    """One site's part in a query, from the request that `researcher` sent in `session` to the audit outcome.

    Returns the decision; where it denies, the researcher was told why and nothing was computed. Raises
    ProtocolAbort, Refused, DecodeError or Unavailable if the run stops; then the outcome says so, and so was the
    researcher told.
    """
    if await steps.kept(ENDED):
        end = await steps.once(ENDED, PartEnded, _never)
        await Run(site, end.handle, (researcher,), steps).forget(*end.sessions)  # cut short before it did
        return end.decision
    _, request = await site.receive(QueryRequest, session, (researcher,))
    if session != request_session(request.handle):
        error = Refused("gateway.other_query", query=request.handle.hex())
        await _denied(site, researcher, request.query, error, tables, steps)
        await site.send(researcher, session, QueryAnswer(request.handle, refusal(site.name, error)))
        raise error
    run = Run(site, request.handle, (researcher,), steps)
    try:
        decision = await _serve(run, request, tables, clock)
    except (Exception, FlowCancelled):
        await run.drop()
        raise

    async def ended() -> PartEnded:
        return PartEnded(decision, request.handle, tuple(run.sessions))

    await steps.once(ENDED, PartEnded, ended)
    await run.forget(*run.sessions)
    return decision


async def _never() -> PartEnded:
    raise ValueError("a step that is kept does not run")


async def _serve(run: Run, request: QueryRequest, tables: Tables, clock: Clock) -> Decision:
    site, steps, (researcher,) = run.organisation, run.steps, run.others
    handle, query = request.handle, request.query

    async def answer(refused: Refusal | None = None) -> None:
        await site.send(researcher, request_session(handle), QueryAnswer(handle, refused))

    answered, intent = False, None
    try:
        proposed = await run.board(lambda state: read_query(state, handle), "the proposed query")

        async def checked() -> Checked:
            await look_through(site)
            _check_request(site, request, proposed, tables)
            return Checked()

        try:
            _check_proposed(request, proposed, researcher)
            await steps.once("checked", Checked, checked)  # once accepted, not judged by what is registered later
        except (Refused, DecodeError) as error:
            await _denied(site, researcher, query, error, tables, steps, proposed.salted_hash)
            raise
        use = use_request(query, site.name, researcher, request.declared)
        before: AnsweredBefore | None = None

        async def about(decided: Decision) -> bytes:
            nonlocal before
            before = (await steps.once("before", _Before, partial(_look, site, query, decided))).answer
            return proposed.salted_hash if before is None else salted_hash(before.query, before.salt)

        decision, begun = await decide_use(site, use, steps, clock(), about)
        if not decision.allowed:
            await answer(refusal_of(decision))
            return decision
        intent = begun
        if before is not None:
            await end_use(
                site, intent, "released" if is_summed(site.account.state, before.handle, site.name) else "aborted"
            )
            await site.send(researcher, request_session(handle), QueryAnswer(handle, before=before))
            return decision
        rows = bind(tables.layout(use.dataset).kinds(), decision.rows, query.filter)

        async def read() -> list[pa.Table]:
            engine = await reading(tables.engine, use.dataset, decision.excluded)
            return [await reading(engine.run, plan, rows) for plan in local_plans(query)]

        def check_grant() -> None:
            if not still_granted(site, use, decision, clock()):
                raise ConsentDenied("gateway.grant_gone", grant=decision.grant, dataset=use.dataset)

        part = Part(site, run, request, researcher, read, check_grant)
        run.guard = check_grant
        await look_through(site)  # again: a query that is taken up by another process has been checked before
        enter(site, request, decision)
        run.spared = len(query.roster) > threshold(len(query.roster))
        await run.write(
            lambda state: (found := read_query(state, handle)) is not None and site.name in found.approvals,
            queries.ApproveQuery(handle),
        )
        answered = True
        await answer()
        await run.unless_stopped(take_part(part))
    except (Exception, FlowCancelled) as error:
        # Not where the process stops: then the use goes on.
        if answered:
            await run.stop(error)
        else:
            with contextlib.suppress(MedveilError):
                await answer(refusal(site.name, error))
                found = read_query(await site.account.caught_up(), handle)
                if found is not None and site.name in found.approvals:  # it got there, and may have reserved the budget
                    await run.give_back()
        if intent is not None:
            await _end(run, intent)
        raise
    await _end(run, intent)
    return decision


async def _end(run: Run, intent: EntryId) -> None:
    """Write how the use ended, by what the ledger says now."""
    site = run.organisation
    with contextlib.suppress(Unavailable):  # else what was last seen: a use that may be counted is counted
        await site.account.caught_up()
    await end_use(site, intent, "released" if await may_be_summed(run) else "aborted")
    leave(site, run.handle)


async def _denied(
    site: Organisation, asker: str, query: Query, why: MedveilError, tables: Tables, steps: Steps, hashed: bytes = b""
) -> None:
    """Log that a question was refused before there was anything to decide. hashed: the question's, if it has one."""
    own = dict(zip(query.roster, query.datasets, strict=False)).get(site.name, NO_DATASET)
    dataset = own if own in tables.names() else NO_DATASET
    await log_denial(site, asker, dataset, "query", why, steps, query.purpose, hashed)


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
    cells.prove_delta(query)
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
    check_near(site, query, request.handle, again=True)
