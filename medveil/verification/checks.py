"""The check of each kind of evidence against the replayed ledger, and what must not be missing."""

from __future__ import annotations

from ledger.contracts import bills, models, queries
from ledger.export import LedgerExport
from ledger.receipts import ProvenValue, Receipt, verify_receipt, verify_value
from medveil.gateway.eligibility import DATASET
from medveil.verification.case import Case, Use
from medveil.verification.consents import check_consents
from medveil.verification.evidence import Files, fails, of
from medveil.verification.kinds import ModelEvidence
from medveil.verification.releases import check_steps, tell_steps
from medveil.verification.uses import check_chains, check_queries, check_scores
from mpc.release import Release
from mpc.scoring import check_model, model_digest
from privacy.audit import AccessBatch, EntryProof
from privacy.grants.consent_receipt import ConsentReceipt
from wire.canonical import encode
from wire.checkpoint import parse_note
from wire.domains import PRESENTATION, digest
from wire.errors import MedveilError, VerificationError
from zkp import bill_limit
from zkp.bill_limit import Bill, Presentation
from zkp.groups import backend

CHECKED = (
    LedgerExport,
    Receipt,
    ProvenValue,
    AccessBatch,
    EntryProof,
    Release,
    Presentation,
    ModelEvidence,
    ConsentReceipt,
)
"""The kinds that `check_files`, or its caller, looks into. A file of any other is not passed over."""


def check_files(case: Case, files: Files) -> None:
    """Check every file but the ledger itself, then that nothing the ledger promises is missing.

    Raises VerificationError naming the file, and the entry in it.
    """
    for where, struct in files:
        if not isinstance(struct, CHECKED):
            raise VerificationError("verify.unchecked_kind", file=where)
    _receipts(case, files)
    check_chains(case, files)
    check_queries(case)
    _releases(case, files)
    _presentations(case, files)
    _models(case, files)
    check_scores(case)
    check_consents(case, files)


def _receipts(case: Case, files: Files) -> None:
    """Receipts and proven values: each leads to a head, and the head is one of this very history."""
    for where, receipt in of(files, Receipt):
        try:
            verify_receipt(receipt, case.trust)
        except MedveilError as error:
            raise fails(where, error) from None
        _same_history(case, where, receipt.note)
        case.held("receipts lead from a signed envelope to a cosigned head", where)
    for where, proven in of(files, ProvenValue):
        try:
            verify_value(proven, case.trust)
        except MedveilError as error:
            raise fails(where, error) from None
        _same_history(case, where, proven.note)
        case.held("values are proven in the state tree of a cosigned head", where)


def _same_history(case: Case, where: str, note: bytes) -> None:
    """The ledger in this folder goes as far as a head that was shown with it, and is the same up to there."""
    head, log = parse_note(note).checkpoint, case.machine.log
    if head.size > log.size:
        raise VerificationError("verify.ledger_cut", file=where, height=head.size - 1, end=log.size - 1)
    if log.root(head.size) != head.root:
        raise VerificationError("verify.other_history", file=where, height=head.size - 1)


def _releases(case: Case, files: Files) -> None:
    shown = set()
    for where, release in of(files, Release):
        try:
            check_steps(release, case.machine, case.trust.chain, case.backend)
        except MedveilError as error:
            raise fails(where, error) from None
        uses = {use.owner: use for use in case.uses.values() if use.query and use.query.query == release.handle}
        for site, dataset in zip(release.query.roster, release.query.datasets, strict=True):
            if site not in uses:
                raise VerificationError("verify.no_access_entry", file=where, organisation=site)
            said = uses[site].intent.use
            if (said.dataset, said.purpose) != (dataset, release.query.purpose):
                raise _other_entry(where, uses[site])
            if any(site in one.sites for one in release.survivors):
                _must_have_left(uses[site])
        shown.add(release.handle)
        tell_steps(case, where, release)
    for _, state in case.machine.items(queries.QUERIES, queries.QueryState):
        if state.status == "released" and state.query not in shown:
            case.finds("verify.withheld_release", organisation=state.researcher, query=state.query.hex())


def _other_entry(where: str, use: Use) -> VerificationError:
    return VerificationError(
        "verify.other_access_entry", file=where, organisation=use.owner, sequence=use.intent.sequence
    )


def _must_have_left(use: Use) -> None:
    """What is shown to outsiders has left: an entry that says otherwise is wrong (one without an outcome is not)."""
    if use.ended not in ("released", "unfinished"):
        raise use.wrong("outcome")


def _presentations(case: Case, files: Files) -> None:
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
            raise fails(where, error) from None
        nonces.add(presentation.nonce)
        asked = digest(PRESENTATION, encode(presentation.request))
        use = case.tell(state.hospital, presentation.audience, "proof", asked)
        if use is None:
            raise VerificationError("verify.no_access_entry", file=where, organisation=state.hospital)
        said = use.intent.use
        if (said.grant, said.dataset, said.purpose) != (presentation.grant, DATASET, presentation.purpose):
            raise _other_entry(where, use)
        _must_have_left(use)
        case.held("a bill's amount is within the limit, by its commitment on the ledger", where)
    for use in case.uses.values():
        if use.intent.use.kind == "proof" and use.ended == "released" and not use.told:
            case.finds(
                "verify.withheld_proof",
                organisation=use.owner,
                sequence=str(use.intent.sequence),
                recipient=use.intent.use.recipient,
            )


def _models(case: Case, files: Files) -> None:
    """By digest: a model that its bureau registered under two names is one model, and is shown once."""
    registered = [state for _, state in case.machine.items(b"models/", models.ModelState)]
    shown: set[bytes] = set()
    for where, evidence in of(files, ModelEvidence):
        name = model_digest(evidence.model)
        try:
            if not any(state.digest == name for state in registered):
                raise VerificationError("verify.missing", what="model on the ledger", name=evidence.model.model)
            check_model(evidence.model)
        except MedveilError as error:
            raise fails(where, error) from None
        shown.add(name)
        case.held("score models are the reviewed and registered ones", where)
    for state in registered:
        if state.digest not in shown:
            case.finds("verify.withheld_model", organisation=state.owner, model=state.model)
