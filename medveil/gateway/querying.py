"""A query over several sites: the researcher's side and a site's side, step by step.

    researcher -> ledger   ProposeQuery       salted hash, roster, cost
    researcher -> site     QueryRequest       the query and its salt, sealed
    site                   checks the query against the ledger's declarations, decides under its grants,
                           writes its audit intent
    site -> ledger         ApproveQuery       the last approval reserves the budget
    each phase:            mask keys; announcements, contributions and survivors on the ledger;
                           masked vectors; the released totals on the ledger
    site                   checks the released totals against the commitments, writes its outcome
    whoever stops tells the others why (`Refusal`); what has opened nothing is closed on the ledger

The researcher carries messages and can only stop the run; every site reads the ledger for itself, at
heads that k cosigners stand behind. `mpc` holds the protocol, this module carries its messages.

A site's outcome is "released" from the moment its last masked vector leaves, and "aborted" before: then
the counts of phase 1 may have been opened, which is for the ledger to say (`queries.phase_key`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from connectors.layout import Layout as TableLayout
from ledger.contracts import datasets, queries
from medveil.gateway.granting import decide_use, still_granted
from medveil.gateway.ledger_account import FinalState, LedgerState
from medveil.gateway.organisation import Clock, Organisation, Refusal, refusal
from mpc import cells, secure_aggregation
from mpc.cells import Layout
from mpc.query import COUNTS, PHASES, SUMS, Query, check_proposal, check_query, check_terms, local_plan, salted_hash
from mpc.release import Board, DatasetNote, PhaseRecord, Release, finish
from mpc.secure_aggregation import Announcement, Contribution, Masked, MaskKey, Opened, Survivors, session_for
from privacy.decide import Decision, UseRequest
from privacy.local import LocalEngine, RowFilter, bind
from privacy.predicate import columns
from wire.canonical import Wire
from wire.domains import QUERY, digest
from wire.errors import ConsentDenied, MedveilError, ProtocolAbort, Refused
from wire.identifiers import Handle, Hash
from wire.signing import VerifyKey

SMALLEST_GROUP = 10
"""No site takes part in a query that shows groups of fewer rows than this."""

T = TypeVar("T")


class QueryRequest(Wire, frozen=True, tag="medveil.query_request"):
    """Researcher to site: the query behind a salted hash on the ledger."""

    handle: Handle
    query: Query
    salt: Hash

    def __repr__(self) -> str:
        return f"QueryRequest({self.handle.hex()})"


class QueryAnswer(Wire, frozen=True, tag="medveil.query_answer"):
    """Site to researcher. code, words: why not; empty where the site takes part."""

    handle: Handle
    accepted: bool
    code: str
    words: str


class MaskKeys(Wire, frozen=True, tag="medveil.mask_keys"):
    """Researcher to site: everybody's mask keys."""

    keys: tuple[MaskKey, ...]


def request_session(handle: bytes) -> bytes:
    """The channel session in which a query is asked and answered."""
    return digest(QUERY, b"request", handle)[:16]


def stop_session(handle: bytes) -> bytes:
    """The channel session in which a party of a query says that it stops."""
    return digest(QUERY, b"stop", handle)[:16]


def envelope_keys(organisation: Organisation, roster: Sequence[str]) -> dict[str, VerifyKey]:
    """The roster's envelope keys as the pinned trust file has them."""
    return {site: organisation.trust.member(site).keys.envelope.key for site in roster}


def check_declared(query: Query, state: LedgerState, person: str) -> None:
    """Check a query against what the ledger declares of its population and datasets. Raises Refused.

    Bounds may be narrower than declared, never wider; groups are declared values; unit, rows per
    person and colluders promise no less than the population's; max_rows covers every dataset's row
    class. person: the column that names the person at the checking site, "" where there is none; an
    outsider, who cannot know it, gives the query's own.
    """
    population = datasets.population(state.view(), query.population)
    check_terms(query, population.unit, population.rows_per_person, population.colluders, person)
    measure = query.measure
    for site, name in zip(query.roster, query.datasets, strict=True):
        dataset = state.get(datasets.dataset_key(name), datasets.DatasetState)
        if dataset is None or (dataset.owner, dataset.population) != (site, query.population):
            raise Refused("gateway.not_its_dataset", dataset=name, organisation=site)
        if query.max_rows < dataset.row_class:
            raise Refused("gateway.too_few_rows", dataset=name, rows=query.max_rows)
        declared = {column.name: column for column in dataset.columns}
        column = declared.get(measure.column)
        if (
            column is None
            or column.kind != "number"
            or column.scale != measure.scale
            or not column.low <= measure.low < measure.high <= column.high
        ):
            raise Refused("gateway.not_declared", dataset=name, column=measure.column)
        for group in query.groups:
            column = declared.get(group.name)
            if column is None or column.kind != "category" or not set(group.values) <= set(column.values):
                raise Refused("gateway.not_declared", dataset=name, column=group.name)


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


# --- both sides ---------------------------------------------------------------------------------


async def _unless_stopped(
    organisation: Organisation, handle: bytes, others: Collection[str], work: Coroutine[Any, Any, T]
) -> T:
    """What `work` returns. Raises ProtocolAbort with their words as soon as one of `others` says that it stops."""
    running = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(organisation.receive(Refusal, stop_session(handle), others, _FOR_GOOD))
    try:
        await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            sender, said = stopped.result()
            raise ProtocolAbort("gateway.stopped", round="run", parties=(sender,), reason=said.code, words=said.words)
        return await running
    finally:
        running.cancel()
        stopped.cancel()
        await asyncio.gather(running, stopped, return_exceptions=True)


async def _stop(organisation: Organisation, handle: bytes, others: Collection[str], error: Exception) -> None:
    """Tell `others` why this organisation stops, and close the query if it opened nothing."""
    for other in others:
        with contextlib.suppress(MedveilError):
            await organisation.send(other, stop_session(handle), refusal(organisation.name, error))
    if isinstance(error, MedveilError) and error.code in _STOPPED_BY_OTHERS:
        return
    state = organisation.account.state.get(queries.query_key(handle), queries.QueryState)
    if state is not None and state.status in ("proposed", "reserved"):
        with contextlib.suppress(MedveilError):  # the error that stopped the run is the one to hear of
            await organisation.submit(queries.CloseQuery(handle))


_FOR_GOOD = 10 * 365 * 86_400.0
"""Seconds: as long as the run takes."""
_STOPPED_BY_OTHERS = ("gateway.stopped", "gateway.query_closed")


# --- a site -------------------------------------------------------------------------------------


@dataclass
class _Part:
    """A site's part in one query, decided on and under way. sent: phases whose masked vector has left, or may have."""

    site: Organisation
    researcher: str
    request: QueryRequest
    use: UseRequest
    decision: Decision
    rows: RowFilter
    engine_of: Callable[[str], LocalEngine]
    clock: Clock
    sent: list[int] = field(default_factory=list)

    def check_grant(self) -> None:
        """Raises ConsentDenied once the grant is gone: asked before each step and before each vector leaves."""
        if not still_granted(self.site, self.use, self.decision, self.clock()):
            raise ConsentDenied("gateway.grant_gone", grant=self.decision.grant, dataset=self.use.dataset)


async def serve_query(
    site: Organisation,
    handle: bytes,
    engine_of: Callable[[str], LocalEngine],
    layout: TableLayout,
    clock: Clock,
) -> Decision:
    """One site's part in the query under `handle`, from the request to the audit outcome.

    engine_of: the local engine of a dataset. layout: of the site's tables. Returns the
    decision; where it denies, the researcher was told why and nothing was computed. Raises
    ProtocolAbort, Refused or Unavailable if the run stops; then the outcome says so, and so was the
    researcher told.
    """
    proposed = await _await_board(
        site, handle, lambda state: state.get(queries.query_key(handle), queries.QueryState), "the proposed query"
    )
    researcher = proposed.researcher

    async def answer(accepted: bool, code: str = "", words: str = "") -> None:
        await site.send(researcher, request_session(handle), QueryAnswer(handle, accepted, code, words))

    answered = False
    try:
        _, request = await site.receive(QueryRequest, request_session(handle), (researcher,))
        _check_request(site, request, proposed, layout.person)
        query = request.query
        use = use_request(query, site.name, researcher)
        decision, intent = decide_use(site, use, clock(), proposed.salted_hash)
        if not decision.allowed:
            await answer(False, decision.code, decision.text())
            return decision
        part: _Part | None = None
        try:
            rows = bind(layout.kinds(), decision.rows, query.filter)
            part = _Part(site, researcher, request, use, decision, rows, engine_of, clock)
            await site.submit(queries.ApproveQuery(handle))
            answered = True
            await answer(True)
            await _unless_stopped(site, handle, (researcher,), _take_part(part))
        finally:
            # What has left has left: one phase's masked vector is a release, whatever became of the rest.
            site.audit.outcome(intent, "released" if part is not None and part.sent else "aborted")
    except Exception as error:
        if not answered:
            said = refusal(site.name, error)
            with contextlib.suppress(MedveilError):
                await answer(False, said.code, said.words)
        else:
            await _stop(site, handle, (researcher,), error)
        raise
    return decision


def _check_request(site: Organisation, request: QueryRequest, proposed: queries.QueryState, person: str) -> None:
    """Check what the researcher sent against the proposal and the declarations on the ledger. Raises Refused."""
    query = request.query
    check_query(query)
    cells.prove_no_wrap(query)
    check_proposal(
        query,
        request.salt,
        query_hash=proposed.salted_hash,
        population=proposed.population,
        roster=proposed.roster,
        rho_nano=proposed.rho_nano,
        phases=proposed.phases,
    )
    if site.name not in query.roster:
        raise Refused("gateway.not_in_roster", organisation=site.name)
    if (request.handle, query.chain) != (proposed.query, site.trust.chain):
        raise Refused("gateway.other_query", query=proposed.query.hex())
    if query.minimum_group < SMALLEST_GROUP:
        raise Refused("gateway.small_groups", minimum=query.minimum_group, least=SMALLEST_GROUP)
    check_declared(query, site.account.state, person)
    for name in query.datasets:
        datasets.current_dataset(site.account.state.view(), name)


async def _take_part(part: _Part) -> None:
    query, handle = part.request.query, part.request.handle
    await _await_board(part.site, handle, lambda state: _reserved(state, handle), "the reserved budget")
    table = part.engine_of(part.use.dataset).run(local_plan(query), part.rows)
    passed: tuple[int, ...] = ()
    for phase in (COUNTS, SUMS):
        part.check_grant()
        layout = cells.counts_layout(query) if phase == COUNTS else cells.sums_layout(query, passed)
        opened = await _contribute(part, layout, cells.contribution(query, layout, table))
        if phase == COUNTS:
            passed = cells.passing(query, opened.totals)


async def _contribute(part: _Part, layout: Layout, values: Sequence[int]) -> Opened:
    """One phase at one site; returns the released totals, checked against the commitments."""
    site, request = part.site, part.request
    handle, phase = request.handle, layout.phase
    session = session_for(request.query, request.salt, handle, layout)
    members = envelope_keys(site, session.roster)
    started, key = secure_aggregation.start(session, site.name, values, site.signer, members, site.rand)
    await site.send(part.researcher, session.id(), key)
    _, keys = await site.receive(MaskKeys, session.id(), (part.researcher,))
    announced, announcement = started.receive(keys.keys)
    await site.submit(queries.AnnounceContribution(handle, phase, announcement.digest))
    everybody = len(session.roster)
    announcements = await _await_board(
        site, handle, lambda state: read_announcements(state, handle, phase, everybody), "every site's announcement"
    )
    contributed, contribution = announced.receive(announcements)
    await site.submit(queries.Contribute(handle, phase, contribution.point, contribution.salt))
    survivors = await _await_board(
        site, handle, lambda state: read_survivors(state, handle, phase), "the fixed survivors"
    )
    _, masked = contributed.receive(survivors)
    part.check_grant()
    part.sent.append(phase)
    await site.send(part.researcher, session.id(), masked)
    opened = await _await_board(site, handle, lambda state: read_opened(state, handle, phase), "the released sums")
    secure_aggregation.check_opening(session, survivors.contributions, opened)
    return opened


# --- the researcher -----------------------------------------------------------------------------


async def ask(
    researcher: Organisation, query: Query, handle: bytes, salt: bytes, notes: Sequence[DatasetNote] = ()
) -> Release:
    """The researcher's part: propose, coordinate both phases, finish. Returns the release.

    handle: 16 fresh bytes; salt: 32 fresh secret bytes. Raises Refused (ConsentDenied with the words of
    the site that denied), BudgetExhausted, ProtocolAbort (with the words of the site that stopped); a
    query that opened nothing is closed again, which returns its reservation. One that is cancelled is
    not: its sites close it when they have waited long enough.
    """
    check_query(query)
    cells.prove_no_wrap(query)
    hashed = salted_hash(query, salt)
    await researcher.submit(
        queries.ProposeQuery(handle, hashed, query.population, query.roster, query.rho_nano, PHASES)
    )
    try:
        request = QueryRequest(handle, query, salt)
        for site in query.roster:
            await researcher.send(site, request_session(handle), request)
        await _answers(researcher, query, handle)
        await _unless_stopped(researcher, handle, query.roster, _coordinate_both(researcher, request))
    except Exception as error:
        await _stop(researcher, handle, query.roster, error)
        raise
    return finish(query, salt, read_board(researcher.account.state, handle), notes)


async def _answers(researcher: Organisation, query: Query, handle: bytes) -> None:
    """Every site's answer; the first refusal in roster order is raised, after all have answered."""
    answers: dict[str, QueryAnswer] = {}
    while len(answers) < len(query.roster):
        waiting = [site for site in query.roster if site not in answers]
        site, answer = await researcher.receive(QueryAnswer, request_session(handle), waiting)
        answers[site] = answer
    for site in query.roster:
        answer = answers[site]
        if not answer.accepted:
            raise ConsentDenied("gateway.site_refused", organisation=site, reason=answer.code, words=answer.words)


async def _coordinate_both(researcher: Organisation, request: QueryRequest) -> None:
    query, handle = request.query, request.handle
    await _await_board(researcher, handle, lambda state: _reserved(state, handle), "the reserved budget")
    counts = await _coordinate(researcher, request, cells.counts_layout(query))
    await _coordinate(researcher, request, cells.sums_layout(query, cells.passing(query, counts.totals)))


async def _coordinate(researcher: Organisation, request: QueryRequest, layout: Layout) -> Opened:
    """One phase: relay mask keys, fix the survivors, add the masked vectors up, release."""
    handle, phase = request.handle, layout.phase
    session = session_for(request.query, request.salt, handle, layout)
    roster = session.roster
    keys = [(await researcher.receive(MaskKey, session.id(), roster))[1] for _ in roster]
    collecting = secure_aggregation.collect(session, envelope_keys(researcher, roster), keys)
    for site in roster:
        await researcher.send(site, session.id(), MaskKeys(tuple(keys)))
    await _await_board(
        researcher, handle, lambda state: read_contributions(state, handle, phase, len(roster)), "every contribution"
    )
    await researcher.submit(queries.FixSurvivors(handle, phase))
    survivors = await _await_board(
        researcher, handle, lambda state: read_survivors(state, handle, phase), "the fixed survivors"
    )
    for _ in roster:
        _, masked = await researcher.receive(Masked, session.id(), roster)
        collecting = collecting.receive(masked)
    opened = collecting.finish(survivors)
    await researcher.submit(queries.Release(handle, phase, opened.totals, opened.blinding))
    return opened


# --- the board ----------------------------------------------------------------------------------


async def _await_board(
    organisation: Organisation, handle: bytes, read: Callable[[FinalState], T | None], what: str
) -> T:
    """What `read` finds on the ledger, once it does. Raises ProtocolAbort if the query is closed meanwhile."""

    def look(state: FinalState) -> T | None:
        found = state.get(queries.query_key(handle), queries.QueryState)
        if found is not None and found.status == "closed":
            raise ProtocolAbort("gateway.query_closed", round=what, query=handle.hex())
        return read(state)

    return await organisation.account.until(look, what)


def _reserved(state: LedgerState, handle: bytes) -> Literal[True] | None:
    found = state.get(queries.query_key(handle), queries.QueryState)
    return True if found is not None and found.status in ("reserved", "spent") else None


def _phase(state: LedgerState, handle: bytes, phase: int) -> queries.PhaseState | None:
    return state.get(queries.phase_key(handle, phase), queries.PhaseState)


def read_announcements(state: LedgerState, handle: bytes, phase: int, needed: int) -> tuple[Announcement, ...] | None:
    """The announcements of a phase once there are `needed` of them."""
    found = _phase(state, handle, phase)
    if found is None or len(found.announced) < needed:
        return None
    return tuple(Announcement(handle, phase, entry.site, entry.digest) for entry in found.announced)


def read_contributions(state: LedgerState, handle: bytes, phase: int, needed: int) -> tuple[Contribution, ...] | None:
    """The contributions of a phase once there are `needed` of them."""
    found = _phase(state, handle, phase)
    if found is None or len(found.contributed) < needed:
        return None
    return tuple(Contribution(handle, phase, entry.site, entry.point, entry.salt) for entry in found.contributed)


def read_survivors(state: LedgerState, handle: bytes, phase: int) -> Survivors | None:
    """The survivors of a phase with their contributions, once they are fixed."""
    found = _phase(state, handle, phase)
    if found is None or not found.survivors:
        return None
    contributions = read_contributions(state, handle, phase, 0) or ()
    of_survivors = tuple(entry for entry in contributions if entry.site in found.survivors)
    return Survivors(handle, phase, tuple(sorted(found.survivors)), of_survivors)


def read_opened(state: LedgerState, handle: bytes, phase: int) -> Opened | None:
    """The released sums of a phase, once they are there."""
    found = state.get(queries.release_key(handle, phase), queries.ReleaseState)
    return None if found is None else Opened(found.totals, found.blinding)


def read_board(state: LedgerState, handle: bytes) -> Board:
    """All that the ledger says of a released query: what `mpc.release` finishes and verifies from.

    Raises Refused if the query or one of its phases is not there.
    """
    found = queries.query(state.view(), handle)
    phases = []
    for phase in (COUNTS, SUMS):
        survivors, opened = read_survivors(state, handle, phase), read_opened(state, handle, phase)
        if survivors is None or opened is None:
            raise Refused("gateway.not_released", query=handle.hex(), phase=phase)
        phases.append(PhaseRecord(phase, survivors.contributions, opened))
    return Board(
        query=handle,
        query_hash=found.salted_hash,
        population=found.population,
        roster=found.roster,
        rho_nano=found.rho_nano,
        phases=tuple(phases),
        budget_before_nano=found.budget_before,
        budget_after_nano=found.budget_before - found.rho_nano,
    )
