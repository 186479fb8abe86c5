"""A release against what the ledger declares: the parts of a question that its gateway filled in.

A question may leave open which sites answer, how wide the measure's bounds are, which table and which groups there
are. What stands for them is not the gateway's to choose: it follows from declarations on the ledger. The gateway
shows these as proven values of its head; the query is worked out again from them by the very function that the
gateway has for it (`medveil.gateway.question.make_query`), and must be the one that was released.

What was declared changes: a table that was registered after the question was proposed was not asked, and a table that
was superseded or retired since still counts as it was. So a site that was left out is found out as long as the table
that it had then is still current.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from wire.errors import Refused, VerificationError

if TYPE_CHECKING:
    from ledger.contracts.datasets import DatasetState, PopulationState
    from ledger.receipts import ProvenValue
    from medveil.gateway.ledger_account import LedgerState
    from mpc.query import Query
    from mpc.query_document import QueryDocument
    from mpc.release import Release


class Declared(NamedTuple):
    """What was proven beside a release. proposed: height of the block in which the query was proposed. superseded: its
    tables that are asked no more. height: of the block that it was proven for, and may be newer;
    not_asked: owners of the population whose sites were not; available: the population's budget there, in 10^-9 rho.
    """

    proposed: int
    superseded: tuple[str, ...]
    height: int
    not_asked: tuple[str, ...]
    available: int


def check_declared(release: Release, proofs: Sequence[ProvenValue], asked: QueryDocument | None) -> Declared:
    """Check a release against what the ledger says of it, and of what was asked. proofs: each verified.

    asked: the question, if it is known. Raises VerificationError.
    """
    from ledger.contracts import datasets, queries
    from medveil.gateway.query_board import check_declared as check_terms
    from medveil.gateway.query_board import read_board
    from medveil.verification.proven import ProvenState
    from mpc.release import verify_release

    name, query = release.handle.hex(), release.query
    state = ProvenState.of(proofs)
    try:
        board = read_board(state, release.handle)
        population = datasets.population(state.view(), query.population)
        tables = [_table(state, one, name) for one in sorted({*population.datasets, *query.datasets})]
    except Refused as refused:
        raise VerificationError("client.no_proof", query=name, what=refused.code) from None
    verify_release(release, board)
    proposed = queries.query(state.view(), release.handle).height
    if any(one.block.height < proposed for one in proofs):
        raise VerificationError("client.no_proof", query=name, what=f"block {proposed}")
    try:
        check_terms(query, state, query.person)
    except Refused:
        raise _differs(name, "declared") from None
    if asked is not None:
        _check_chosen(name, query, asked, [one for one in tables if one.current and one.height < proposed])
        _check_filled_in(name, query, asked, population, [one for one in tables if one.dataset in query.datasets])
    owners = tuple(owner for owner in population.owners if owner not in query.roster)
    gone = tuple(one.dataset for one in tables if one.dataset in query.datasets and not one.current)
    return Declared(proposed, gone, min(one.block.height for one in proofs), owners, population.available)


def _differs(query: str, field: str) -> VerificationError:
    return VerificationError("client.other_release", query=query, field=field)


def _table(state: LedgerState, name: str, query: str) -> DatasetState:
    from ledger.contracts import datasets

    found = state.get(datasets.dataset_key(name), datasets.DatasetState)
    if found is None:
        raise VerificationError("client.no_proof", query=query, what=name)
    return found


def _check_chosen(handle: str, query: Query, asked: QueryDocument, then: Sequence[DatasetState]) -> None:
    """Check that nobody was left out, and no table taken for another. then: tables that were there, and still are."""
    chosen = dict(zip(query.roster, query.datasets, strict=True))
    for table in then:
        if table.population != query.population or table.dataset in query.datasets:
            continue
        if table.owner not in chosen:
            if not asked.roster:
                raise _differs(handle, "roster")
        elif chosen[table.owner] not in asked.datasets:
            raise _differs(handle, "datasets")


def _check_filled_in(
    handle: str, query: Query, asked: QueryDocument, population: PopulationState, tables: Sequence[DatasetState]
) -> None:
    """Check that the query is what the question becomes over these tables, as they were when it was asked."""
    from ledger.contracts import datasets
    from ledger.machine import StateView
    from ledger.trees.state import StateTree
    from medveil.gateway.question import make_query
    from medveil.verification.proven import ProvenState
    from mpc.history import question_of

    view = StateView(StateTree())
    names = tuple(sorted(query.datasets))
    view.put(datasets.population_key(query.population), msgspec.structs.replace(population, datasets=names))
    for table in tables:
        before = msgspec.structs.replace(table, superseded_by=None, retired_at=None)
        view.put(datasets.dataset_key(table.dataset), before)
    document = msgspec.structs.replace(asked, roster=query.roster, datasets=query.datasets)
    try:
        wanted = question_of(make_query(document, ProvenState(view), query.chain))
    except Refused:
        raise _differs(handle, "declared") from None
    found = question_of(query)
    for field in found.__struct_fields__:
        if getattr(found, field) != getattr(wanted, field):
            raise _differs(handle, _FIELDS.get(field, field))


_FIELDS = {"rho_nano": "rho", "delta_exponent": "delta"}
"""What a query document calls them."""
