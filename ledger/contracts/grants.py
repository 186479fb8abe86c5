"""`grants`: salted commitments to consent-scoped permissions, and their revocation.

The terms stay with issuer and recipient; the ledger shows that a grant exists, who issued it, from
when to when it holds, its revocation epoch and whether it was revoked. Times are checked by whoever
decides a use, against the block's time; a revocation holds from the block that carries it.

State key: ``grants/<grant>`` -> GrantState.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ledger.contracts.contract import Context, Contract, Event, View, state_key
from wire.canonical import Wire
from wire.dates import Instant
from wire.errors import Refused
from wire.identifiers import Hash, Name
from wire.keyset import Height

NAME = "grants"

Epoch = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class AnchorGrant(Wire, frozen=True, tag="grants.anchor"):
    """Anchor a grant of the sender. commitment: salted, to the full terms; instants in ms UTC."""

    grant: Name
    commitment: Hash
    not_before: Instant
    expires: Instant
    epoch: Epoch


class RevokeGrant(Wire, frozen=True, tag="grants.revoke"):
    """Revoke a grant. Only its issuer."""

    grant: Name


class GrantState(Wire, frozen=True, tag="grants.grant"):
    """A grant now. revoked_at: time of the block that revoked it, or None; height: of anchoring."""

    grant: Name
    issuer: Name
    commitment: Hash
    not_before: Instant
    expires: Instant
    epoch: Epoch
    height: Height
    revoked_at: Instant | None


def grant_key(grant: str) -> bytes:
    """State key of a grant."""
    return state_key(NAME, grant)


def anchor(op: AnchorGrant, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Anchor a new grant. An id is used once, by anybody."""
    if view.get(grant_key(op.grant), GrantState) is not None:
        raise Refused("grants.exists", grant=op.grant)
    if op.expires <= op.not_before or op.expires <= context.time:
        raise Refused("grants.period", grant=op.grant)
    state = GrantState(
        op.grant, sender, op.commitment, op.not_before, op.expires, op.epoch, context.height, revoked_at=None
    )
    view.put(grant_key(op.grant), state)
    return (Event("grants.anchored", op.grant, (op.epoch,)),)


def revoke(op: RevokeGrant, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Revoke a grant for good."""
    state = view.get(grant_key(op.grant), GrantState)
    if state is None:
        raise Refused("grants.unknown", grant=op.grant)
    if state.issuer != sender:
        raise Refused("grants.not_issuer", grant=op.grant, organisation=sender)
    if state.revoked_at is not None:
        raise Refused("grants.revoked", grant=op.grant)
    view.put(grant_key(op.grant), msgspec.structs.replace(state, revoked_at=context.time))
    return (Event("grants.revoked", op.grant, (state.epoch,)),)


CONTRACT = Contract(NAME, 1, {AnchorGrant: anchor, RevokeGrant: revoke})
