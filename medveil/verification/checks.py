"""The check of each kind of evidence against the replayed ledger, and what must not be missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.contracts import access, bills, models, queries
from ledger.receipts import ProvenValue, Receipt, verify_receipt, verify_value
from medveil.gateway.querying import check_declared, read_board
from medveil.verification.case import Case
from medveil.verification.kinds import ModelEvidence
from mpc.release import Release, verify_release
from mpc.scoring import check_model, model_digest
from privacy.audit import AccessBatch, Entry, EntryProof, verify_batch, verify_chain, verify_entry
from wire.canonical import Wire, encode
from wire.domains import PRESENTATION, digest
from wire.errors import MedveilError, VerificationError
from zkp import bill_limit
from zkp.bill_limit import Bill, Presentation
from zkp.groups import backend

Files = Sequence[tuple[str, Wire]]
"""Evidence structs with the path of each."""


def of(files: Files, kind: type[Any]) -> list[tuple[str, Any]]:
    """The files of one kind."""
    return [(where, struct) for where, struct in files if isinstance(struct, kind)]


def _fail(where: str, error: MedveilError) -> VerificationError:
    return VerificationError("verify.file_fails", file=where, detail=error.message)


def check_files(case: Case, files: Files) -> None:
    """Check every file but the ledger itself, then that nothing the ledger promises is missing.

    Raises VerificationError naming the file, and the entry in it.
    """
    for check in (_receipts, _access, _releases, _presentations, _models):
        check(case, files)


def _receipts(case: Case, files: Files) -> None:
    for where, receipt in of(files, Receipt):
        try:
            verify_receipt(receipt, case.trust)
        except MedveilError as error:
            raise _fail(where, error) from None
        case.held("receipts lead from a signed envelope to a cosigned head", where)
    for where, proven in of(files, ProvenValue):
        try:
            verify_value(proven, case.trust)
        except MedveilError as error:
            raise _fail(where, error) from None
        case.held("values are proven in the state tree of a cosigned head", where)


def _access(case: Case, files: Files) -> None:
    """Every organisation's access chain: whole, as anchored, each use under a grant that stood."""
    batches = of(files, AccessBatch)
    members = [member.organisation for member in case.trust.members]
    for organisation in members:
        chain = case.machine.get(access.chain_key(organisation), access.ChainState)
        own = sorted(
            ((where, batch) for where, batch in batches if batch.organisation == organisation),
            key=lambda pair: pair[1].first,
        )
        for where, entry in _entries_of_chain(case, organisation, chain, own):
            if entry.intent == 0:
                case.uses[organisation, entry.sequence] = (entry, None)
                if entry.use.allowed:
                    case.check_grant(entry, where)
            else:
                intent, _ = case.uses[organisation, entry.intent]
                case.uses[organisation, entry.intent] = (intent, entry)
            case.held("entries of access chains stand under an anchored root, their grants on the ledger", where)
    for where, batch in batches:
        if batch.organisation not in members:
            raise VerificationError(
                "verify.not_anchored", file=where, organisation=batch.organisation, first=batch.first
            )
    for where, proof in of(files, EntryProof):
        _check_entry_proof(case, where, proof)


def _entries_of_chain(
    case: Case, organisation: str, chain: access.ChainState | None, own: Sequence[tuple[str, AccessBatch]]
) -> list[tuple[str, Entry]]:
    """All entries of one chain with their files, each batch as the ledger has it, none missing."""
    entries: list[tuple[str, Entry]] = []
    expected = 1
    for where, batch in own:
        try:
            verify_batch(batch)
        except MedveilError as error:
            raise _fail(where, error) from None
        said = (batch.first, batch.last, batch.previous_head, batch.head, batch.root)
        if batch.first != expected or said != _anchored(case, organisation, batch.first):
            raise VerificationError("verify.not_anchored", file=where, organisation=organisation, first=batch.first)
        expected = batch.last + 1
        entries.extend((where, entry) for entry in batch.entries)
    if expected != (chain.last if chain else 0) + 1:
        raise VerificationError("verify.missing_access", organisation=organisation, first=expected)
    try:
        verify_chain([entry for _, entry in entries])
    except MedveilError as error:
        raise _fail(own[0][0], error) from None
    return entries


def _anchored(case: Case, organisation: str, first: int) -> tuple[int, int, bytes, bytes, bytes] | None:
    state = case.machine.get(access.batch_key(organisation, first), access.BatchState)
    return None if state is None else (state.first, state.last, state.previous_head, state.head, state.root)


def _check_entry_proof(case: Case, where: str, proof: EntryProof) -> None:
    try:
        verify_entry(proof)
    except MedveilError as error:
        raise _fail(where, error) from None
    entry = proof.entry
    first = entry.sequence - proof.index
    anchored = _anchored(case, entry.organisation, first)
    if anchored is None or (anchored[1] - first + 1, anchored[4]) != (proof.size, proof.root):
        raise VerificationError("verify.not_anchored", file=where, organisation=entry.organisation, first=first)
    case.held("single access entries stand under an anchored root", where)


def _releases(case: Case, files: Files) -> None:
    shown = set()
    for where, release in of(files, Release):
        try:
            board = read_board(case.machine, release.handle)
            verify_release(release, board, backend=case.backend)
            check_declared(release.query, case.machine, release.query.person)
        except MedveilError as error:
            raise _fail(where, error) from None
        query = case.machine.get(queries.query_key(release.handle), queries.QueryState)
        for site in release.sites:
            if query is None or case.allowed_use(site, query.researcher, "query", query.salted_hash) is None:
                raise VerificationError("verify.no_access_entry", file=where, organisation=site)
        shown.add(release.handle)
        case.held("released sums open the sum of the sites' commitments; numbers, noise and budget follow", where)
    for _, state in case.machine.items(b"queries/query/", queries.QueryState):
        if state.status == "released" and state.query not in shown:
            raise VerificationError("verify.missing", what="release", name=state.query.hex())


def _presentations(case: Case, files: Files) -> None:
    answered: dict[bytes, str] = {}
    nonces: set[bytes] = set()
    for where, presentation in of(files, Presentation):
        state = case.machine.get(bills.bill_key(presentation.handle), bills.BillState)
        try:
            if state is None:
                raise VerificationError("verify.missing", what="bill on the ledger", name=presentation.handle.hex())
            if presentation.chain != case.trust.chain or presentation.nonce in nonces:
                raise VerificationError("verify.replayed", name=presentation.nonce.hex())
            bill = Bill(state.handle, state.commitment, state.currency)
            bill_limit.verify(presentation, presentation.request, bill, backend(case.backend))
        except MedveilError as error:
            raise _fail(where, error) from None
        nonces.add(presentation.nonce)
        asked = digest(PRESENTATION, encode(presentation.request))
        entry = case.allowed_use(state.hospital, presentation.audience, "proof", asked)
        if entry is None or entry.use.grant != presentation.grant:
            raise VerificationError("verify.no_access_entry", file=where, organisation=state.hospital)
        answered[asked] = where
        case.held("a bill's amount is within the limit, by its commitment on the ledger", where)
    for intent, outcome in case.uses.values():
        released = outcome is not None and outcome.outcome == "released"
        if intent.use.kind == "proof" and released and intent.use.query not in answered:
            raise VerificationError("verify.missing", what="presentation", name=intent.use.query.hex())


def _models(case: Case, files: Files) -> None:
    shown = set()
    for where, evidence in of(files, ModelEvidence):
        model = evidence.model
        state = case.machine.get(models.model_key(model.model), models.ModelState)
        try:
            if state is None or state.digest != model_digest(model):
                raise VerificationError("verify.missing", what="model on the ledger", name=model.model)
            check_model(model)
        except MedveilError as error:
            raise _fail(where, error) from None
        shown.add(model.model)
        case.held("score models are the reviewed and registered ones", where)
    for _, state in case.machine.items(b"models/", models.ModelState):
        if state.model not in shown:
            raise VerificationError("verify.missing", what="model", name=state.model)
