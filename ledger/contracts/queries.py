"""`queries`: a query's life on the ledger, from proposal to released sums.

    propose -> every roster member approves -> budget RESERVED
      for phase 1, 2, ...:
        roster members announce H(query, phase, site, C_i, salt)
        the researcher fixes the parties                  at least t of those who announced; nobody announces any more
        the parties contribute C_i and salt
        the researcher fixes the survivors                at least t of those who contributed; the first time SPENDS
        the researcher releases totals X and blinding R   anyone checks sum C_i = Com(X, R) over the survivors
    close: before the first survivors, by the researcher or a roster member: the reservation goes back

t = floor(2n / 3) + 1 of the n sites of the roster. Announcing first keeps a site from choosing its commitment
after it saw another's. Fixing the parties says who masks with whom, under which keys; fixing the survivors is
what allows sites to unmask, once. A later phase takes its parties from all of the roster again. Budget is whole
nano-rho, never below zero; after the first survivors nothing is returned, whatever happens later.
A site that has superseded or retired a table since the proposal neither approves nor announces in phase 1:
the query is about a table that is no more, to be closed and proposed anew.
The contract does not open commitments: it records what `medveil verify` checks with the curve.

Sums of one population over sets of sites that differ by one or two, subtracted, are about these sites alone. So each
population has a book of the sets over which sums were fixed, opened or not, and a phase keeps with its survivors the
earlier sets that are near: what was earlier is for the order of the ledger to say.

State keys: ``queries/query/<handle>`` -> QueryState; ``queries/phase/<handle>/<phase>`` -> PhaseState;
``queries/release/<handle>/<phase>`` -> ReleaseState; ``queries/sets/<population>`` -> SummedSets;
``queries/set/<population>/<number>`` -> SummedSet, from 1.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from ledger.contracts import datasets
from ledger.contracts.contract import Context, Contract, Event, Ids, Nano, Point, View, state_key
from ledger.contracts.membership import require_role
from wire.canonical import Wire
from wire.commitment import contribution_digest
from wire.errors import Refused
from wire.identifiers import Handle, Hash, Name
from wire.keyset import Height
from wire.secure_sum import FEWEST_SITES, apart, threshold

NAME = "queries"
NO_KEYS = bytes(32)
"""Of a phase whose parties are not fixed."""

Phase = Annotated[int, msgspec.Meta(ge=1, le=4)]
Roster = Annotated[tuple[Name, ...], msgspec.Meta(min_length=FEWEST_SITES, max_length=200)]
Sites = Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=200)]
Total = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Totals = Annotated[tuple[Total, ...], msgspec.Meta(max_length=2**17)]
"""Cells in order. A later phase has none where nothing of the one before may be asked further."""


class ProposeQuery(Wire, frozen=True, tag="queries.propose"):
    """A query over `population`, by a researcher. salted_hash: of the query, which the roster has in full.

    roster: distinct owners of current datasets in the population; rho_nano: all it will cost; phases: 1..4.
    """

    query: Handle
    salted_hash: Hash
    population: Name
    roster: Roster
    rho_nano: Nano
    phases: Phase


class ApproveQuery(Wire, frozen=True, tag="queries.approve"):
    """A roster member's approval. The last one reserves the budget."""

    query: Handle


class AnnounceContribution(Wire, frozen=True, tag="queries.announce"):
    """digest: `wire.commitment.contribution_digest` of what the sender will contribute."""

    query: Handle
    phase: Phase
    digest: Hash


class Contribute(Wire, frozen=True, tag="queries.contribute"):
    """The announced vector commitment of the sender, and the salt of its digest."""

    query: Handle
    phase: Phase
    point: Point
    salt: Hash


class FixParties(Wire, frozen=True, tag="queries.fix_parties"):
    """By the researcher: who takes part. sites: who announced, at least t, in the roster's order.

    keys: digest of the mask keys under which they take part (`mpc.sum_messages.keys_digest`).
    """

    query: Handle
    phase: Phase
    sites: Sites
    keys: Hash


class FixSurvivors(Wire, frozen=True, tag="queries.fix_survivors"):
    """By the researcher: whose contributions are summed. sites: parties that contributed, at least t, in the roster's
    order."""

    query: Handle
    phase: Phase
    sites: Sites


class Release(Wire, frozen=True, tag="queries.release"):
    """By the researcher: the noisy sums of a phase (cells in order) and the sum of blindings (32 bytes, big-endian)."""

    query: Handle
    phase: Phase
    totals: Totals
    blinding: Hash


class CloseQuery(Wire, frozen=True, tag="queries.close"):
    """Give up before anything was opened."""

    query: Handle


Status = Literal["proposed", "reserved", "spent", "released", "closed"]


class QueryState(Wire, frozen=True, tag="queries.query"):
    """A query now. approvals: in order of arrival; height: of the proposal; changes: of the population's tables, then.

    budget_before: what the population had available just before this query was reserved, 0 until then.
    """

    query: Handle
    researcher: Name
    salted_hash: Hash
    population: Name
    roster: Roster
    rho_nano: Nano
    phases: Phase
    status: Status
    approvals: Ids
    height: Height
    changes: datasets.Count
    budget_before: datasets.Count


class Announcement(Wire, frozen=True, tag="queries.announcement"):
    """A site's digest."""

    site: Name
    digest: Hash


class Contribution(Wire, frozen=True, tag="queries.contribution"):
    """A site's vector commitment and salt."""

    site: Name
    point: Point
    salt: Hash


class SummedSets(Wire, frozen=True, tag="queries.summed_sets"):
    """How many different sets of sites a population's sums are over."""

    sets: Annotated[int, msgspec.Meta(ge=1)]


class SummedSet(Wire, frozen=True, tag="queries.summed_set"):
    """One of them, sorted. query, phase: the latest of its sums; sums: how many there are."""

    sites: Ids
    query: Handle
    phase: Phase
    sums: Annotated[int, msgspec.Meta(ge=1)]


class NearSet(Wire, frozen=True, tag="queries.near_set"):
    """Earlier sums over a set that differs from a phase's survivors in `sites`, one or two, sorted.

    query, phase, sums: as `SummedSet` had them when the survivors were fixed.
    """

    query: Handle
    phase: Phase
    sums: Annotated[int, msgspec.Meta(ge=1)]
    sites: Ids


class PhaseState(Wire, frozen=True, tag="queries.phase"):
    """A phase now, in order of arrival.

    parties, survivors: in the roster's order. Until they are fixed they are empty, and keys is `NO_KEYS`. near: in the
    order in which the population first had sums over these sets.
    """

    query: Handle
    phase: Phase
    announced: tuple[Announcement, ...]
    parties: Ids
    keys: Hash
    contributed: tuple[Contribution, ...]
    survivors: Ids
    near: tuple[NearSet, ...]


class ReleaseState(Wire, frozen=True, tag="queries.released"):
    """What a phase released."""

    query: Handle
    phase: Phase
    totals: Totals
    blinding: Hash
    height: Height


QUERIES = state_key(NAME, "query", "")
"""What the state keys of all queries begin with."""


def query_key(query: bytes) -> bytes:
    """State key of a query."""
    return state_key(NAME, "query", query)


def phase_key(query: bytes, phase: int) -> bytes:
    """State key of a phase."""
    return state_key(NAME, "phase", query, phase)


def release_key(query: bytes, phase: int) -> bytes:
    """State key of a phase's release."""
    return state_key(NAME, "release", query, phase)


def sets_key(population: str) -> bytes:
    """State key of how many sets of sites a population's sums are over."""
    return state_key(NAME, "sets", population)


def set_key(population: str, number: int) -> bytes:
    """State key of one of them, from 1."""
    return state_key(NAME, "set", population, number)


def query(view: View, handle: bytes) -> QueryState:
    """The query under that handle. Raises Refused."""
    state = view.get(query_key(handle), QueryState)
    if state is None:
        raise Refused("queries.unknown", query=handle.hex())
    return state


def _phase(view: View, handle: bytes, phase: int) -> PhaseState:
    return view.get(phase_key(handle, phase), PhaseState) or PhaseState(handle, phase, (), (), NO_KEYS, (), (), ())


def propose(op: ProposeQuery, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Put a query up for approval; refused at once if the budget cannot cover it."""
    require_role(view, sender, "researcher")
    if view.get(query_key(op.query), QueryState) is not None:
        raise Refused("queries.exists", query=op.query.hex())
    state = datasets.check_available(view, op.population, op.rho_nano)
    for at, site in enumerate(op.roster):
        if site in op.roster[:at]:
            raise Refused("queries.roster_twice", query=op.query.hex(), organisation=site)
        if site not in state.owners:
            raise Refused("datasets.not_owner", organisation=site, population=op.population)
        if not state.provides(site):
            raise Refused("datasets.no_table", organisation=site, population=op.population)
    view.put(
        query_key(op.query),
        QueryState(
            query=op.query,
            researcher=sender,
            salted_hash=op.salted_hash,
            population=op.population,
            roster=op.roster,
            rho_nano=op.rho_nano,
            phases=op.phases,
            status="proposed",
            approvals=(),
            height=context.height,
            changes=state.changes,
            budget_before=0,
        ),
    )
    return (Event("queries.proposed", op.query.hex(), (op.rho_nano, op.phases)),)


def approve(op: ApproveQuery, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Record an approval; the last one reserves the budget, or is refused if it is gone by now."""
    state = _of_roster(view, op.query, sender)
    if state.status != "proposed":
        raise _wrong_status(state)
    if sender in state.approvals:
        raise Refused("queries.approved", query=op.query.hex(), organisation=sender)
    _check_tables(view, state, sender)
    approvals = (*state.approvals, sender)
    events = [Event("queries.approved", op.query.hex(), (len(approvals),))]
    status: Status = "proposed"
    before = 0
    if len(approvals) == len(state.roster):
        before = datasets.reserve(view, state.population, state.rho_nano)
        status = "reserved"
        events.append(Event("queries.reserved", op.query.hex(), (state.rho_nano,)))
    state = msgspec.structs.replace(state, approvals=approvals, status=status, budget_before=before)
    view.put(query_key(op.query), state)
    return tuple(events)


def announce(op: AnnounceContribution, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Record a digest. A phase opens when the one before it is released; its parties are fixed from who announced."""
    state = _of_roster(view, op.query, sender)
    phase = _open_phase(view, state, op.phase)
    if phase.parties:
        raise Refused("queries.parties_fixed", query=op.query.hex(), phase=op.phase)
    if state.status == "reserved":  # nothing is spent yet: the query can be closed and asked again
        _check_tables(view, state, sender)
    if any(entry.site == sender for entry in phase.announced):
        raise Refused("queries.announced", query=op.query.hex(), phase=op.phase, organisation=sender)
    announced = (*phase.announced, Announcement(sender, op.digest))
    view.put(phase_key(op.query, op.phase), msgspec.structs.replace(phase, announced=announced))
    return (Event("queries.announced", op.query.hex(), (op.phase, len(announced))),)


def contribute(op: Contribute, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Record a party's commitment that matches its digest."""
    state = _of_roster(view, op.query, sender)
    phase = _open_phase(view, state, op.phase)
    if not phase.parties:
        raise Refused("queries.no_parties", query=op.query.hex(), phase=op.phase)
    if sender not in phase.parties:
        raise Refused("queries.not_listed", query=op.query.hex(), phase=op.phase, organisation=sender)
    if any(entry.site == sender for entry in phase.contributed):
        raise Refused("queries.contributed", query=op.query.hex(), phase=op.phase, organisation=sender)
    (announced,) = (entry.digest for entry in phase.announced if entry.site == sender)
    if not hmac.compare_digest(announced, contribution_digest(op.query, op.phase, sender, op.point, op.salt)):
        raise Refused("queries.digest", query=op.query.hex(), phase=op.phase, organisation=sender)
    contributed = (*phase.contributed, Contribution(sender, op.point, op.salt))
    view.put(phase_key(op.query, op.phase), msgspec.structs.replace(phase, contributed=contributed))
    return (Event("queries.contributed", op.query.hex(), (op.phase, len(contributed))),)


def fix_parties(op: FixParties, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Fix who takes part in a phase, once."""
    state = _of_researcher(view, op.query, sender)
    phase = _open_phase(view, state, op.phase)
    if phase.parties:
        raise Refused("queries.parties_fixed", query=op.query.hex(), phase=op.phase)
    _check_listed(state, op.phase, op.sites, [entry.site for entry in phase.announced])
    view.put(phase_key(op.query, op.phase), msgspec.structs.replace(phase, parties=op.sites, keys=op.keys))
    return (Event("queries.parties", op.query.hex(), (op.phase, len(op.sites))),)


def fix_survivors(op: FixSurvivors, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Fix whose contributions are summed, once; the first time, the reservation is spent."""
    state = _of_researcher(view, op.query, sender)
    phase = _open_phase(view, state, op.phase)
    _check_listed(state, op.phase, op.sites, [entry.site for entry in phase.contributed])
    events = [Event("queries.survivors", op.query.hex(), (op.phase, len(op.sites)))]
    if state.status == "reserved":
        datasets.spend(view, state.population, state.rho_nano)
        view.put(query_key(op.query), msgspec.structs.replace(state, status="spent"))
        events.append(Event("queries.spent", op.query.hex(), (state.rho_nano,)))
    near = _summed(view, state.population, op)
    view.put(phase_key(op.query, op.phase), msgspec.structs.replace(phase, survivors=op.sites, near=near))
    return tuple(events)


def _summed(view: View, population: str, op: FixSurvivors) -> tuple[NearSet, ...]:
    """Enter a phase's survivors in its population's book; returns the earlier sets that are near.

    Takes as long as there are different sets, however many sums.
    """
    sites, found = tuple(sorted(op.sites)), view.get(sets_key(population), SummedSets)
    known, sums, near = 0 if found is None else found.sets, 1, list[NearSet]()
    place = known + 1
    for number in range(1, known + 1):
        one = view.get(set_key(population, number), SummedSet)
        if one is None:
            raise ValueError("a population's book of sums has no gaps")
        if one.sites == sites:
            place, sums = number, one.sums + 1
        elif differing := apart(one.sites, sites):
            near.append(NearSet(one.query, one.phase, one.sums, differing))
    if place > known:
        view.put(sets_key(population), SummedSets(place))
    view.put(set_key(population, place), SummedSet(sites, op.query, op.phase, sums))
    return tuple(near)


def release(op: Release, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Record the sums of a phase, once, after its survivors were fixed."""
    state = _of_researcher(view, op.query, sender)
    if not _phase(view, op.query, op.phase).survivors:
        raise Refused("queries.not_fixed", query=op.query.hex(), phase=op.phase)
    if view.get(release_key(op.query, op.phase), ReleaseState) is not None:
        raise Refused("queries.released", query=op.query.hex(), phase=op.phase)
    released = ReleaseState(op.query, op.phase, op.totals, op.blinding, context.height)
    view.put(release_key(op.query, op.phase), released)
    if op.phase == state.phases:
        view.put(query_key(op.query), msgspec.structs.replace(state, status="released"))
    return (Event("queries.released", op.query.hex(), (op.phase, len(op.totals))),)


def close(op: CloseQuery, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Close a query that has opened nothing; a reservation goes back whole."""
    state = query(view, op.query)
    if sender != state.researcher and sender not in state.roster:
        raise Refused("queries.not_party", query=op.query.hex(), organisation=sender)
    if state.status not in ("proposed", "reserved"):
        raise _wrong_status(state)
    if state.status == "reserved":
        datasets.give_back(view, state.population, state.rho_nano)
    view.put(query_key(op.query), msgspec.structs.replace(state, status="closed"))
    return (Event("queries.closed", op.query.hex(), (state.rho_nano if state.status == "reserved" else 0,)),)


def _check_listed(state: QueryState, phase: int, sites: Sequence[str], able: Sequence[str]) -> None:
    """Refuse a list of fewer than t sites, of one that is not `able`, or in another order than the roster's."""
    for site in sites:
        if site not in able:
            raise Refused("queries.not_listed", query=state.query.hex(), phase=phase, organisation=site)
    if list(sites) != [site for site in state.roster if site in sites]:
        raise Refused("queries.roster_order", query=state.query.hex(), phase=phase)
    need = threshold(len(state.roster))
    if len(sites) < need:
        raise Refused("queries.too_few_sites", query=state.query.hex(), phase=phase, have=len(sites), need=need)


def _wrong_status(state: QueryState) -> Refused:
    return Refused("queries.status", query=state.query.hex(), status=state.status)


def _of_roster(view: View, handle: bytes, sender: str) -> QueryState:
    state = query(view, handle)
    if sender not in state.roster:
        raise Refused("queries.not_party", query=handle.hex(), organisation=sender)
    return state


def _of_researcher(view: View, handle: bytes, sender: str) -> QueryState:
    state = query(view, handle)
    if sender != state.researcher:
        raise Refused("queries.not_party", query=handle.hex(), organisation=sender)
    return state


def _check_tables(view: View, state: QueryState, site: str) -> None:
    """Refuse to go on with a query about tables that `site` has superseded or retired since it was proposed."""
    if datasets.changed_since(view, state.population, site, state.changes):
        raise Refused("queries.superseded", query=state.query.hex(), organisation=site)


def _open_phase(view: View, state: QueryState, number: int) -> PhaseState:
    """The phase, if it is the one that takes steps now: budget held, the phase before released, not yet fixed."""
    if state.status not in ("reserved", "spent"):
        raise _wrong_status(state)
    phase = _phase(view, state.query, number)
    before = number == 1 or view.get(release_key(state.query, number - 1), ReleaseState) is not None
    if number > state.phases or not before or phase.survivors:
        raise Refused("queries.phase", query=state.query.hex(), phase=number)
    return phase


CONTRACT = Contract(
    NAME,
    1,
    {
        ProposeQuery: propose,
        ApproveQuery: approve,
        AnnounceContribution: announce,
        FixParties: fix_parties,
        Contribute: contribute,
        FixSurvivors: fix_survivors,
        Release: release,
        CloseQuery: close,
    },
)
