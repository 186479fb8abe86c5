"""`models`: encrypted scoring models that a regulator has reviewed.

The bureau registers the digest of key, ciphertexts and declared ranges; the reviewer, who was shown
weights and randomness, signed that digest with its envelope key under the domain MODEL_REVIEW.
Hospitals evaluate no other model: weights such as 1, 10^3, 10^6 would read a record from one score.

State key: ``models/<model>`` -> ModelState.
"""

from __future__ import annotations

from ledger.contracts.contract import Context, Contract, Event, View, state_key
from ledger.contracts.membership import member, require_role
from wire.canonical import Wire
from wire.domains import MODEL_REVIEW
from wire.errors import Refused, VerificationError
from wire.identifiers import Hash, Name
from wire.keyset import Height
from wire.signing import Signature, verify

NAME = "models"


class RegisterModel(Wire, frozen=True, tag="models.register"):
    """A reviewed model of the sender. review: the reviewer's signature of `digest`."""

    model: Name
    digest: Hash
    reviewer: Name
    review: Signature


class ModelState(Wire, frozen=True, tag="models.model"):
    """A registered model."""

    model: Name
    owner: Name
    digest: Hash
    reviewer: Name
    review: Signature
    height: Height


def model_key(model: str) -> bytes:
    """State key of a model."""
    return state_key(NAME, model)


def register(op: RegisterModel, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Register a model once, with the review of a regulator that is not its owner."""
    require_role(view, sender, "bureau")
    if view.get(model_key(op.model), ModelState) is not None:
        raise Refused("models.exists", model=op.model)
    reviewer = member(view, op.reviewer)
    if "regulator" not in reviewer.roles or reviewer.suspended or op.reviewer == sender:
        raise Refused("models.reviewer", model=op.model, organisation=op.reviewer)
    try:
        verify(reviewer.keys.envelope.key, MODEL_REVIEW, op.digest, op.review)
    except VerificationError:
        raise Refused("models.review", model=op.model, organisation=op.reviewer) from None
    view.put(model_key(op.model), ModelState(op.model, sender, op.digest, op.reviewer, op.review, context.height))
    return (Event("models.registered", op.model),)


CONTRACT = Contract(NAME, 1, {RegisterModel: register})
