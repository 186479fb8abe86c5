"""A release against the ledger, step by step, and the certificate that carries all of it in one file.

    query -> approvals -> announcements -> parties -> survivors -> sum -> noise -> what is hidden -> label -> debit

A *certificate* is a release with the values of the ledger that it rests on, each proven under a cosigned head, and the
changes of members since genesis: `medveil verify FILE --trust consortium.json` needs nothing else. In a folder the same
steps are taken against the replayed ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from ledger.contracts import datasets, queries
from ledger.handovers import extend
from ledger.receipts import ProvenValue, verify_value
from medveil.gateway.ledger_account import LedgerState
from medveil.gateway.query_board import check_declared, read_board
from medveil.verification.case import Case
from medveil.verification.proven import ProvenState
from mpc.query import PHASES, SUMS, check_query
from mpc.release import Release, verify_release
from wire.canonical import Wire
from wire.checkpoint import TrustFile
from wire.commitment import contribution_digest
from wire.errors import Refused, VerificationError
from wire.evidence import Header, register
from wire.secure_sum import threshold

STEPS = (
    "verify.step_query",
    "verify.step_approvals",
    "verify.step_announced",
    "verify.step_parties",
    "verify.step_survivors",
    "verify.step_sum",
    "verify.step_noise",
    "verify.step_hidden",
    "verify.step_label",
    "verify.step_debit",
)
"""What `check_steps` checks, in order; each is a sentence of the catalogues."""


class Certificate(Wire, frozen=True, tag="medveil.release_certificate"):
    """A release, what the ledger says of it, and the handovers from genesis on. Public.

    proofs: of the query, its phases and their sums, the population and its tables, each in a block at or after the last
    of its sums.
    """

    header: Header
    release: Release
    proofs: Annotated[tuple[ProvenValue, ...], msgspec.Meta(max_length=2000)]
    handovers: Annotated[tuple[ProvenValue, ...], msgspec.Meta(max_length=10_000)]


CERTIFICATE = register("release-certificate", 1, Certificate)


def certify(release: Release, proofs: Sequence[ProvenValue], handovers: Sequence[ProvenValue]) -> Certificate:
    """The certificate of a release, without the notes, which nothing proves. proofs: those that it was verified by."""
    return Certificate(CERTIFICATE, msgspec.structs.replace(release, notes=()), tuple(proofs), tuple(handovers))


def check_certificate(certificate: Certificate, trust: TrustFile, backend: str) -> tuple[TrustFile, ProvenValue]:
    """Check a certificate under a pinned trust file. Returns the trust file as it is at its end, and its oldest proof.

    Raises VerificationError, QuorumNotMet, DecodeError.
    """
    if not certificate.proofs:
        raise VerificationError("verify.missing", what="proof", name=certificate.release.handle.hex())
    if certificate.release.notes:  # nothing in a certificate is anybody's word alone
        raise VerificationError("verify.noted", query=certificate.release.handle.hex())
    trust = extend(trust, certificate.handovers)
    for proven in certificate.proofs:
        verify_value(proven, trust)
    handle = certificate.release.handle
    if len({one.key for one in certificate.proofs}) != len(certificate.proofs):
        raise VerificationError("verify.proven_twice", query=handle.hex())
    state = ProvenState.of(certificate.proofs)
    check_steps(certificate.release, state, trust.chain, backend)
    oldest = min(certificate.proofs, key=lambda one: one.block.height)
    last = state.get(queries.release_key(handle, SUMS), queries.ReleaseState)
    if last is None or oldest.block.height < last.height:
        raise VerificationError("verify.missing", what="sums on the ledger", name=handle.hex())
    return trust, oldest


def check_steps(release: Release, state: LedgerState, chain: str, backend: str) -> None:
    """Check every one of `STEPS`. state: the replayed ledger, or what was proven of it.

    Raises VerificationError that says what does not hold, or Refused for what the ledger does not have.
    """
    handle, query = release.handle, release.query
    if query.chain != chain:
        raise VerificationError("verify.other_chain", chain=query.chain, expected=chain)
    try:
        check_query(query)  # else it may not even be readable
        check_declared(query, state, query.person)
    except Refused as error:
        raise VerificationError("mpc.release_unsound", query=handle.hex(), why=error.code) from None
    for number in range(1, PHASES + 1):
        _check_phase(state, handle, number, len(query.roster))
    board = read_board(state, handle)
    if set(board.approvals) != set(board.roster):
        raise VerificationError("mpc.not_approved", query=handle.hex())
    verify_release(release, board, backend)  # sum, noise, what is hidden, label and debit follow from the board
    asked = queries.query(state.view(), handle)
    population = datasets.population(state.view(), asked.population)
    if asked.phases != PHASES:  # what other phases opened is in no release, and its price is in none
        raise VerificationError("mpc.phases_missing", query=handle.hex(), phases=PHASES)
    if asked.status != "released" or population.spent < asked.rho_nano:
        raise VerificationError("verify.not_debited", query=handle.hex())


def tell_steps(case: Case, where: str, release: Release) -> None:
    """Note in a report every step that held of a release, and what it discloses of single sites."""
    for step in STEPS:
        case.step(step, where)
    for record in release.phases:
        for near in record.near:
            code, facts = near.said(release.handle, record.phase)
            case.step(code, where, **facts)


def _check_phase(state: LedgerState, handle: bytes, number: int, sites: int) -> None:
    """Each contribution is what was announced; parties announced, survivors contributed, both are enough."""
    phase = state.get(queries.phase_key(handle, number), queries.PhaseState)
    if phase is None:
        raise VerificationError("mpc.phases_missing", query=handle.hex(), phases=number)
    announced = {one.site: one.digest for one in phase.announced}
    for one in phase.contributed:
        if announced.get(one.site) != contribution_digest(handle, number, one.site, one.point, one.salt):
            raise VerificationError("verify.not_announced", query=handle.hex(), phase=number, organisation=one.site)
    contributed = {one.site for one in phase.contributed}
    for listed, able in ((phase.parties, announced.keys()), (phase.survivors, contributed & set(phase.parties))):
        if len(listed) < threshold(sites) or not set(listed) <= set(able):
            raise VerificationError("mpc.not_the_roster", phase=number)
