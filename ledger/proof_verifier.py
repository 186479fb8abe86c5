"""Zero-knowledge proofs as the ledger checks them: those of many ops together, in one settlement.

A contract makes each statement from its own state and the op, never from the proof; `zkp` says what each means:

    statement               proof             module
    EligibilityRequest      Eligibility       zkp.eligibility
    Claim                   Settlement        zkp.settlement
    Redemption              Redeemed          zkp.reversal
    BillLimit               Presentation      zkp.bill_limit

All equations are weighted by SHAKE-256 over every proof's whole transcript (`zkp.batch`), so that every replica draws
the same weights and nobody can choose a proof after its weight. A proof that is malformed, or of another kind than its
statement, is named like a false one and spoils no other. Pure: no I/O, no chance, no clock; the verdict depends on the
pairs alone, not on their order, but for a chance of 2^-128. Everything here is public.

A batch is of statements that are known beforehand: where one op changes what another states (a second payment under
the same bill names the first one's commitment), the second is stated as if the first held, or waits for the next batch.

Not here: what a statement must agree with (`zkp.claim.check_bill`, keys and sets of the day, nonces, spent serials),
and tree proofs (`ledger.trees`, `wire.checkpoint`). docs/protocols/sigma-proofs.md. Not reviewed by outsiders.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wire.errors import VerificationError
from zkp import bill_limit, eligibility, reversal, settlement
from zkp.batch import Check, settle_all
from zkp.bill_limit import BillLimit, Presentation
from zkp.claim import Claim
from zkp.eligibility import Eligibility, EligibilityRequest
from zkp.groups import Backend, backend
from zkp.reversal import Redeemed, Redemption
from zkp.settlement import Settlement

Statement = EligibilityRequest | Claim | Redemption | BillLimit
"""What is proved. Public; of the verifier's own making."""

Proof = Eligibility | Settlement | Redeemed | Presentation
"""The message that proves it, of the kind in the same line of the table above."""


def verify_batch(statements: Sequence[Statement], proofs: Sequence[Proof], group: Backend | None = None) -> None:
    """Check that each of `proofs` proves the statement in its place. An empty batch holds.

    group: the library that computes, arkworks unless named; the verdict is the same. Raises `zkp.batch.BadProofs`, a
    VerificationError with the `places` (from 0) of all that do not hold, found by bisection; ValueError unless there
    are as many proofs as statements.
    """
    if len(statements) != len(proofs):
        raise ValueError(f"{len(statements)} statements but {len(proofs)} proofs")
    group = group or backend()
    settle_all([partial(_check, one, proof, group) for one, proof in zip(statements, proofs, strict=True)], group)


def _check(statement: Statement, proof: Proof, group: Backend) -> Check:
    match statement, proof:
        case EligibilityRequest(), Eligibility():
            return eligibility.check(proof, statement, group)
        case Claim(), Settlement():
            return settlement.check(proof, statement, group)
        case Redemption(), Redeemed():
            return reversal.check(proof, statement, group)
        case BillLimit(), Presentation():
            return bill_limit.check(proof, statement, group)
    raise VerificationError("zkp.other_kind", statement=type(statement).__name__, proof=type(proof).__name__)
