"""A query over several sites: the researcher's side and a site's side, step by step.

    researcher -> ledger   ProposeQuery       salted hash, roster, cost
    researcher -> site     QueryRequest       the query and its salt, sealed
    site                   checks the query against the ledger's declarations, decides under its grants,
                           writes its audit intent
    site -> ledger         ApproveQuery       the last approval reserves the budget
    each phase:            mask keys; announcements, contributions and survivors on the ledger;
                           masked vectors; the released totals on the ledger
    site                   checks the released totals against the commitments, writes its outcome

The researcher carries messages and can only stop the run; every site reads the ledger for itself, at
heads that k cosigners stand behind. `mpc` holds the protocol, this module carries its messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from connectors.layout import Layout as TableLayout
from ledger.contracts import datasets, queries
from ledger.machine import Machine
from medveil.gateway.granting import decide_use, still_granted
from medveil.gateway.organisation import Organisation
from mpc import cells, secure_aggregation
from mpc.cells import Layout
from mpc.query import COUNTS, PHASES, SUMS, Query, check_proposal, check_query, check_terms, local_plan, salted_hash
from mpc.release import Board, DatasetNote, PhaseRecord, Release, finish
from mpc.secure_aggregation import Announcement, Contribution, Masked, MaskKey, Opened, Survivors, session_for
from privacy.decide import Decision, UseRequest
from privacy.local import LocalEngine, bind
from privacy.predicate import columns
from wire.canonical import Wire
from wire.domains import QUERY, digest
from wire.errors import ConsentDenied, MedveilError, ProtocolAbort, Refused
from wire.identifiers import Handle, Hash
from wire.signing import VerifyKey

SMALLEST_GROUP = 10
"""No site takes part in a query that shows groups of fewer rows than this."""

Clock = Callable[[], int]


class QueryRequest(Wire, frozen=True, tag="medveil.query_request"):
    """Researcher to site: the query behind a salted hash on the ledger."""

    handle: Handle
    query: Query
    salt: Hash


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


def envelope_keys(organisation: Organisation, roster: Sequence[str]) -> dict[str, VerifyKey]:
    """The roster's envelope keys as the pinned trust file has them."""
    return {site: organisation.trust.member(site).keys.envelope.key for site in roster}


def check_declared(query: Query, state: Machine, person: str) -> None:
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


# --- a site -------------------------------------------------------------------------------------


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
    ProtocolAbort, Refused or Unavailable if the run stops; then the outcome says so.
    """
    researcher, request = await site.receive(QueryRequest, request_session(handle))
    query = request.query
    hashed = salted_hash(query, request.salt)
    use = use_request(query, site.name, researcher) if site.name in query.roster else None
    try:
        if use is None:
            raise Refused("gateway.not_in_roster", organisation=site.name)
        await _check_request(site, researcher, request, handle, layout.person)
    except MedveilError as error:
        await site.send(researcher, request_session(handle), QueryAnswer(handle, False, error.code, error.text()))
        raise
    decision, intent = decide_use(site, use, clock(), hashed)
    answer = QueryAnswer(handle, decision.allowed, "" if decision.allowed else decision.code, "")
    if not decision.allowed:
        answer = QueryAnswer(handle, False, decision.code, decision.text())
        await site.send(researcher, request_session(handle), answer)
        return decision
    released = False
    try:
        await site.submit(queries.ApproveQuery(handle))
        await site.send(researcher, request_session(handle), answer)
        await _take_part(site, researcher, request, use, decision, engine_of, layout, clock)
        released = True
    finally:
        site.audit.outcome(intent, "released" if released else "aborted")
    return decision


async def _check_request(
    site: Organisation, researcher: str, request: QueryRequest, handle: bytes, person: str
) -> None:
    query = request.query
    check_query(query)
    cells.prove_no_wrap(query)
    board = await site.account.until(
        lambda state: state.get(queries.query_key(handle), queries.QueryState), "the proposed query"
    )
    check_proposal(
        query,
        request.salt,
        query_hash=board.salted_hash,
        population=board.population,
        roster=board.roster,
        rho_nano=board.rho_nano,
        phases=board.phases,
    )
    if (board.query, board.researcher, query.chain) != (handle, researcher, site.trust.chain):
        raise Refused("gateway.other_query", query=handle.hex())
    if query.minimum_group < SMALLEST_GROUP:
        raise Refused("gateway.small_groups", minimum=query.minimum_group, least=SMALLEST_GROUP)
    check_declared(query, site.account.state, person)


async def _take_part(
    site: Organisation,
    researcher: str,
    request: QueryRequest,
    use: UseRequest,
    decision: Decision,
    engine_of: Callable[[str], LocalEngine],
    layout: TableLayout,
    clock: Clock,
) -> None:
    query, handle = request.query, request.handle
    await site.account.until(lambda state: _reserved(state, handle), "the reserved budget")
    table = engine_of(use.dataset).run(local_plan(query), bind(layout.kinds(), decision.rows, query.filter))
    passed: tuple[int, ...] = ()
    for phase in (COUNTS, SUMS):
        if not still_granted(site, use, decision, clock()):
            raise ConsentDenied("gateway.grant_gone", grant=decision.grant, dataset=use.dataset)
        cells_of = cells.counts_layout(query) if phase == COUNTS else cells.sums_layout(query, passed)
        values = cells.contribution(query, cells_of, table)
        opened = await _contribute(site, researcher, request, cells_of, values)
        if phase == COUNTS:
            passed = cells.passing(query, opened.totals)


async def _contribute(
    site: Organisation, researcher: str, request: QueryRequest, layout: Layout, values: Sequence[int]
) -> Opened:
    """One phase at one site; returns the released totals, checked against the commitments."""
    handle, phase = request.handle, layout.phase
    session = session_for(request.query, request.salt, handle, layout)
    members = envelope_keys(site, session.roster)
    started, key = secure_aggregation.start(session, site.name, values, site.signer, members, site.rand)
    await site.send(researcher, session.id(), key)
    sender, keys = await site.receive(MaskKeys, session.id())
    if sender != researcher:
        raise ProtocolAbort("gateway.not_the_coordinator", round="mask keys", parties=(sender,))
    announced, announcement = started.receive(keys.keys)
    await site.submit(queries.AnnounceContribution(handle, phase, announcement.digest))
    announcements = await site.account.until(
        lambda state: read_announcements(state, handle, phase, len(session.roster)), "every site's announcement"
    )
    contributed, contribution = announced.receive(announcements)
    await site.submit(queries.Contribute(handle, phase, contribution.point, contribution.salt))
    survivors = await site.account.until(lambda state: read_survivors(state, handle, phase), "the fixed survivors")
    _, masked = contributed.receive(survivors)
    await site.send(researcher, session.id(), masked)
    opened = await site.account.until(lambda state: read_opened(state, handle, phase), "the released sums")
    secure_aggregation.check_opening(session, survivors.contributions, opened)
    return opened


# --- the researcher -----------------------------------------------------------------------------


async def ask(
    researcher: Organisation, query: Query, handle: bytes, salt: bytes, notes: Sequence[DatasetNote] = ()
) -> Release:
    """The researcher's part: propose, coordinate both phases, finish. Returns the release.

    handle: 16 fresh bytes; salt: 32 fresh secret bytes. Raises Refused (ConsentDenied with the words of
    the site that denied), BudgetExhausted, ProtocolAbort; a query that opened nothing is closed again,
    which returns its reservation.
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
        await researcher.account.until(lambda state: _reserved(state, handle), "the reserved budget")
        counts = await _coordinate(researcher, request, cells.counts_layout(query))
        await _coordinate(researcher, request, cells.sums_layout(query, cells.passing(query, counts.totals)))
    except MedveilError:
        await _give_up(researcher, handle)
        raise
    return finish(query, salt, read_board(researcher.account.state, handle), notes)


async def _answers(researcher: Organisation, query: Query, handle: bytes) -> None:
    """Every site's answer; the first refusal in roster order is raised, after all have answered."""
    refused: dict[str, QueryAnswer] = {}
    for _ in query.roster:
        site, answer = await researcher.receive(QueryAnswer, request_session(handle))
        if not answer.accepted:
            refused[site] = answer
    for site in query.roster:
        if site in refused:
            answer = refused[site]
            raise ConsentDenied("gateway.site_refused", organisation=site, reason=answer.code, words=answer.words)


async def _coordinate(researcher: Organisation, request: QueryRequest, layout: Layout) -> Opened:
    """One phase: relay mask keys, fix the survivors, add the masked vectors up, release."""
    handle, phase = request.handle, layout.phase
    session = session_for(request.query, request.salt, handle, layout)
    keys = [(await researcher.receive(MaskKey, session.id()))[1] for _ in session.roster]
    collecting = secure_aggregation.collect(session, envelope_keys(researcher, session.roster), keys)
    for site in session.roster:
        await researcher.send(site, session.id(), MaskKeys(tuple(keys)))
    await researcher.account.until(
        lambda state: read_contributions(state, handle, phase, len(session.roster)), "every site's contribution"
    )
    await researcher.submit(queries.FixSurvivors(handle, phase))
    survivors = await researcher.account.until(
        lambda state: read_survivors(state, handle, phase), "the fixed survivors"
    )
    for _ in session.roster:
        _, masked = await researcher.receive(Masked, session.id())
        collecting = collecting.receive(masked)
    opened = collecting.finish(survivors)
    await researcher.submit(queries.Release(handle, phase, opened.totals, opened.blinding))
    return opened


async def _give_up(researcher: Organisation, handle: bytes) -> None:
    """Close a query that opened nothing; one that did stays spent."""
    state = researcher.account.state.get(queries.query_key(handle), queries.QueryState)
    if state is not None and state.status in ("proposed", "reserved"):
        await researcher.submit(queries.CloseQuery(handle))


# --- the board ----------------------------------------------------------------------------------


def _reserved(state: Machine, handle: bytes) -> Literal[True] | None:
    found = state.get(queries.query_key(handle), queries.QueryState)
    if found is not None and found.status == "closed":
        raise ProtocolAbort("gateway.query_closed", round="approval", parties=(found.researcher,))
    return True if found is not None and found.status in ("reserved", "spent") else None


def _phase(state: Machine, handle: bytes, phase: int) -> queries.PhaseState | None:
    return state.get(queries.phase_key(handle, phase), queries.PhaseState)


def read_announcements(state: Machine, handle: bytes, phase: int, needed: int) -> tuple[Announcement, ...] | None:
    """The announcements of a phase once there are `needed` of them."""
    found = _phase(state, handle, phase)
    if found is None or len(found.announced) < needed:
        return None
    return tuple(Announcement(handle, phase, entry.site, entry.digest) for entry in found.announced)


def read_contributions(state: Machine, handle: bytes, phase: int, needed: int) -> tuple[Contribution, ...] | None:
    """The contributions of a phase once there are `needed` of them."""
    found = _phase(state, handle, phase)
    if found is None or len(found.contributed) < needed:
        return None
    return tuple(Contribution(handle, phase, entry.site, entry.point, entry.salt) for entry in found.contributed)


def read_survivors(state: Machine, handle: bytes, phase: int) -> Survivors | None:
    """The survivors of a phase with their contributions, once they are fixed."""
    found = _phase(state, handle, phase)
    if found is None or not found.survivors:
        return None
    contributions = read_contributions(state, handle, phase, 0) or ()
    of_survivors = tuple(entry for entry in contributions if entry.site in found.survivors)
    return Survivors(handle, phase, tuple(sorted(found.survivors)), of_survivors)


def read_opened(state: Machine, handle: bytes, phase: int) -> Opened | None:
    """The released sums of a phase, once they are there."""
    found = state.get(queries.release_key(handle, phase), queries.ReleaseState)
    return None if found is None else Opened(found.totals, found.blinding)


def read_board(state: Machine, handle: bytes) -> Board:
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
