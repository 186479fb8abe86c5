"""The access chains against the ledger: whole, under grants that stood, and telling what the ledger tells.

A chain is its owner's own word. What this module makes sure of: no anchored entry is missing or changed;
every query that a site approved has its entry in the site's chain, to the right recipient, under a grant that
stood when it approved; what an entry calls released is on the ledger. What nobody can check: that a
grant's private terms cover the use, clocks within `SKEW`, and uses that left no trace anywhere but with two
who keep silent.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.contracts import access, models, queries
from medveil.gateway.query_board import is_summed
from medveil.verification.case import SKEW, Case, Use
from medveil.verification.evidence import Files, fails, of
from mpc.vector_commitment import check_sum
from privacy.audit import (
    OWN_KINDS,
    START,
    UNKNOWN,
    AccessBatch,
    Entry,
    EntryProof,
    verify_batch,
    verify_chain,
    verify_entry,
)
from privacy.decide import QUESTION, RULES
from privacy.grants.purposes import PURPOSES
from privacy.retention import LOG_MONTHS, SHARING_MONTHS, kept_over
from wire.errors import DecodeError, MedveilError, VerificationError
from wire.identifiers import check_name
from zkp.groups import decode_scalar

_DENYING = frozenset({"no-grant", "error", QUESTION, *(name for name, _ in RULES)})


def check_chains(case: Case, files: Files) -> None:
    """Every organisation's access chain: whole, as anchored, each use under a grant that stood."""
    batches = of(files, AccessBatch)
    members = case.trust.everybody
    for organisation in members:
        own = sorted(
            ((where, batch) for where, batch in batches if batch.organisation == organisation),
            key=lambda pair: pair[1].first,
        )
        for where, entry, anchored in _entries_of_chain(case, organisation, own):
            if entry.intent == 0:
                use = case.uses[organisation, entry.sequence] = Use(entry, where, anchored)
                _check_intent(case, use, members)
            elif (organisation, entry.intent) in case.uses:
                case.uses[organisation, entry.intent].outcome = entry
            case.held("entries of access chains stand under an anchored root, their grants on the ledger", where)
    for where, batch in batches:
        if batch.organisation not in members:
            raise VerificationError(
                "verify.not_anchored", file=where, organisation=batch.organisation, first=batch.first
            )
    for where, proof in of(files, EntryProof):
        _check_entry_proof(case, where, proof)


def _check_intent(case: Case, use: Use, members: Sequence[str]) -> None:
    """An entry is text of its owner: it may say nothing but what the product's own rules can say."""
    said = use.intent.use
    if said.recipient not in members:
        raise use.wrong("recipient")
    if len(said.query) not in (0, 32):
        raise use.wrong("query")
    if use.intent.time > use.anchored.time + SKEW:
        raise use.wrong("time")
    if said.kind in OWN_KINDS:  # done at home: no grant, nobody else
        if (said.recipient, said.rule, said.grant, said.allowed) != (use.owner, said.kind, "", True):
            raise use.wrong("rule")
        if said.purpose != UNKNOWN:
            raise use.wrong("purpose")
        return
    if (said.rule == "granted") != said.allowed or (not said.allowed and said.rule not in _DENYING):
        raise use.wrong("rule")
    if said.purpose not in PURPOSES and (said.allowed or said.purpose != UNKNOWN):
        raise use.wrong("purpose")
    if said.grant or said.allowed:
        try:
            check_name(said.grant, "grant")
        except DecodeError:
            raise use.wrong("grant") from None
    if said.allowed:
        case.check_grant(use)


def _entries_of_chain(
    case: Case, organisation: str, own: Sequence[tuple[str, AccessBatch]]
) -> list[tuple[str, Entry, access.BatchState]]:
    """All entries of one chain with file and batch, each batch as the ledger has it, none missing."""
    entries: list[tuple[str, Entry, access.BatchState]] = []
    begin = expected = _pruned(case, organisation, own[0][1].first) if own else 1
    head = own[0][1].previous_head if begin > 1 else START
    for where, batch in own:
        try:
            verify_batch(batch)
        except MedveilError as error:
            raise fails(where, error) from None
        anchored = case.machine.get(access.batch_key(organisation, batch.first), access.BatchState)
        if batch.first != expected or anchored is None or _said(batch) != _said(anchored):
            raise VerificationError("verify.not_anchored", file=where, organisation=organisation, first=batch.first)
        expected = batch.last + 1
        entries.extend((where, entry, anchored) for entry in batch.entries)
    chain = case.machine.get(access.chain_key(organisation), access.ChainState)
    if expected != (chain.last if chain else 0) + 1:
        raise VerificationError("verify.missing_access", organisation=organisation, first=expected)
    try:
        verify_chain([entry for _, entry, _ in entries], head, begin)
    except MedveilError as error:
        place = error.facts.get("sequence")
        where = next((where for where, entry, _ in entries if entry.sequence == place), own[0][0])
        raise fails(where, error) from None
    return entries


def _pruned(case: Case, organisation: str, first: int) -> int:
    """The first entry that a chain must show which begins with `first`: that one, if all before it was old enough."""
    expected, last = 1, 0
    while expected < first:
        anchored = case.machine.get(access.batch_key(organisation, expected), access.BatchState)
        if anchored is None or not _old(case, anchored.time, LOG_MONTHS):
            return 1
        expected, last = anchored.last + 1, anchored.time
    if expected != first:
        return 1
    if first > 1:
        case.pruned[organisation] = last
        case.held("entries that the law lets go may be missing", "the ledger", first - 1)
    return first


def _old(case: Case, time: int, months: int) -> bool:
    """Whether, at the head that is shown, `time` is that long ago."""
    return kept_over(case.head_time, time, months)


def _said(batch: AccessBatch | access.BatchState) -> tuple[int, int, bytes, bytes, bytes]:
    return batch.first, batch.last, batch.previous_head, batch.head, batch.root


def _check_entry_proof(case: Case, where: str, proof: EntryProof) -> None:
    try:
        verify_entry(proof)
    except MedveilError as error:
        raise fails(where, error) from None
    entry = proof.entry
    first = entry.sequence - proof.index
    anchored = case.machine.get(access.batch_key(entry.organisation, first), access.BatchState)
    if anchored is None or (anchored.last - first + 1, anchored.root) != (proof.size, proof.root):
        raise VerificationError("verify.not_anchored", file=where, organisation=entry.organisation, first=first)
    case.held("single access entries stand under an anchored root", where)


def check_queries(case: Case) -> None:
    """Every query that a site approved stands in the site's chain, and what left it for one is of the ledger."""
    for _, state in case.machine.items(queries.QUERIES, queries.QueryState):
        for site in state.approvals:
            use = case.tell(site, state.researcher, "query", state.salted_hash)
            if use is None and site in case.pruned:
                approved = case.history.times[case.history.approved[state.query, site]]
                if approved <= case.pruned[site] + SKEW and _old(case, approved, SHARING_MONTHS):
                    continue
            if use is None:
                case.finds("verify.unlogged_approval", organisation=site, query=state.query.hex())
                continue
            use.query = state
            case.check_grant_at_approval(use, state.query)
    found = case.machine.items(queries.QUERIES, queries.QueryState)
    released = {state.salted_hash: state for _, state in found if state.status == "released"}
    for use in case.uses.values():
        if use.intent.use.kind != "query" or use.ended != "released":
            continue
        answer = released.get(use.intent.use.query)
        if use.query is None and answer is not None and is_summed(case.machine, answer.query, use.owner):
            use.answer = answer
            case.held("a question that was answered before got the same answer", use.where)
        elif use.query is None or use.query.status not in ("spent", "released"):
            raise use.wrong("outcome")


def check_sums(case: Case) -> None:
    """What the ledger alone says of a query's sums: those posted open what was committed; those paid for are there.

    A query that is spent and not released broke off, or its researcher keeps what it opened: nobody can tell which.
    """
    for _, state in case.machine.items(queries.QUERIES, queries.QueryState):
        if state.status == "spent":
            case.finds("verify.unfinished_query", organisation=state.researcher, query=state.query.hex())
        if not all(_opens(case, state, posted) for posted in case.posted(state)):
            case.finds("verify.false_sums", organisation=state.researcher, query=state.query.hex())


def _opens(case: Case, query: queries.QueryState, posted: queries.ReleaseState) -> bool:
    """Whether posted sums open the sum of the commitments on the ledger: what cells mean is not needed for that."""
    phase = case.machine.get(queries.phase_key(query.query, posted.phase), queries.PhaseState)
    points = [entry.point for entry in phase.contributed if entry.site in phase.survivors] if phase is not None else []
    try:
        check_sum(points, posted.totals, decode_scalar(posted.blinding), case.backend)
    except (VerificationError, DecodeError, ValueError):
        return False
    return True


def check_scores(case: Case) -> None:
    """What was scored was scored under a model that its bureau had registered before."""
    registered = {
        (state.digest, state.owner): state.height for _, state in case.machine.items(b"models/", models.ModelState)
    }
    for use in case.uses.values():
        said = use.intent.use
        if said.kind == "score" and use.ended == "released":
            height = registered.get((said.query, said.recipient))
            if height is None or height >= use.anchored.height:
                raise use.wrong("query")
