"""`grants`: salted commitments to consent-scoped permissions, and their revocation.

The terms stay with issuer and recipient; the ledger shows that a grant exists, who issued it, from
when to when it holds, its revocation epoch and whether it was revoked. Times are checked by whoever
decides a use, against the block's time; a revocation holds from the block that carries it.

A grant is revoked in two ways: for good, or by *epoch*: its issuer anchors new terms under the same id in
a higher epoch, and from that block on the earlier epochs are void. They stay readable, so that an earlier
use can still be judged by the terms of its time. A grant that ran out is listed as expired.

State key: ``grants/<grant>`` -> GrantState.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ledger.contracts.contract import Context, Contract, Event, View, state_key
from wire.canonical import Wire
from wire.dates import Instant
from wire.errors import Refused
from wire.identifiers import Hash, Name
from wire.keyset import Height

NAME = "grants"

MOST_EPOCHS = 100
"""Most epochs of one grant."""

Status = Literal["not-yet", "in-force", "expired", "revoked"]
Epoch = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class AnchorGrant(Wire, frozen=True, tag="grants.anchor"):
    """Anchor a grant of the sender. commitment: salted, to the full terms; instants in ms UTC."""

    grant: Name
    commitment: Hash
    not_before: Instant
    expires: Instant
    epoch: Epoch


class RevokeGrant(Wire, frozen=True, tag="grants.revoke"):
    """Revoke a grant for good. Only its issuer."""

    grant: Name


class RenewGrant(Wire, frozen=True, tag="grants.renew"):
    """New terms of the sender's grant, in a higher epoch: what was granted in earlier epochs is revoked."""

    grant: Name
    commitment: Hash
    not_before: Instant
    expires: Instant
    epoch: Epoch


class PastEpoch(Wire, frozen=True, tag="grants.past_epoch"):
    """An earlier epoch of a grant. height: of anchoring; revoked_at, revoked_height: of the block that ended it."""

    epoch: Epoch
    commitment: Hash
    not_before: Instant
    expires: Instant
    height: Height
    revoked_at: Instant
    revoked_height: Height


class GrantState(Wire, frozen=True, tag="grants.grant"):
    """A grant now. height: of anchoring this epoch; past: its earlier epochs, all revoked, in order.

    revoked_at, revoked_height: of the block that revoked it for good, or None. Blocks may have equal times: what
    was first is told by heights.
    """

    grant: Name
    issuer: Name
    commitment: Hash
    not_before: Instant
    expires: Instant
    epoch: Epoch
    height: Height
    revoked_at: Instant | None
    revoked_height: Height | None
    past: Annotated[tuple[PastEpoch, ...], msgspec.Meta(max_length=MOST_EPOCHS)]

    def as_of(self, height: Height) -> GrantState:
        """The grant in the epoch that was its latest after block `height`: what an earlier use is judged by.

        Before it was anchored at all: in its first epoch.
        """
        for number, past in enumerate(self.past):
            if past.revoked_height > height:
                return GrantState(
                    grant=self.grant,
                    issuer=self.issuer,
                    commitment=past.commitment,
                    not_before=past.not_before,
                    expires=past.expires,
                    epoch=past.epoch,
                    height=past.height,
                    revoked_at=past.revoked_at,
                    revoked_height=past.revoked_height,
                    past=self.past[:number],
                )
        return self

    def status(self, at: Instant) -> Status:
        """How the grant is to be listed at the instant `at`, ms UTC: its latest epoch."""
        if self.revoked_at is not None and self.revoked_at <= at:
            return "revoked"
        if at >= self.expires:
            return "expired"
        return "not-yet" if at < self.not_before else "in-force"


def grant_key(grant: str) -> bytes:
    """State key of a grant."""
    return state_key(NAME, grant)


def _check_period(op: AnchorGrant | RenewGrant, context: Context) -> None:
    if op.expires <= op.not_before or op.expires <= context.time:
        raise Refused("grants.period", grant=op.grant)


def anchor(op: AnchorGrant, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Anchor a new grant. An id is used once, by anybody."""
    if view.get(grant_key(op.grant), GrantState) is not None:
        raise Refused("grants.exists", grant=op.grant)
    _check_period(op, context)
    state = GrantState(
        grant=op.grant,
        issuer=sender,
        commitment=op.commitment,
        not_before=op.not_before,
        expires=op.expires,
        epoch=op.epoch,
        height=context.height,
        revoked_at=None,
        revoked_height=None,
        past=(),
    )
    view.put(grant_key(op.grant), state)
    return (Event("grants.anchored", op.grant, (op.epoch,)),)


def _of_issuer(view: View, grant: str, sender: str) -> GrantState:
    """The sender's own grant, if it is not revoked for good. Raises Refused."""
    state = view.get(grant_key(grant), GrantState)
    if state is None:
        raise Refused("grants.unknown", grant=grant)
    if state.issuer != sender:
        raise Refused("grants.not_issuer", grant=grant, organisation=sender)
    if state.revoked_at is not None:
        raise Refused("grants.revoked", grant=grant)
    return state


def renew(op: RenewGrant, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Put new terms in force and revoke all earlier epochs."""
    state = _of_issuer(view, op.grant, sender)
    if op.epoch <= state.epoch:
        raise Refused("grants.epoch", grant=op.grant, epoch=op.epoch, current=state.epoch)
    if len(state.past) >= MOST_EPOCHS:
        raise Refused("grants.too_many_epochs", grant=op.grant, limit=MOST_EPOCHS)
    _check_period(op, context)
    ended = PastEpoch(
        epoch=state.epoch,
        commitment=state.commitment,
        not_before=state.not_before,
        expires=state.expires,
        height=state.height,
        revoked_at=context.time,
        revoked_height=context.height,
    )
    state = msgspec.structs.replace(
        state,
        commitment=op.commitment,
        not_before=op.not_before,
        expires=op.expires,
        epoch=op.epoch,
        height=context.height,
        past=(*state.past, ended),
    )
    view.put(grant_key(op.grant), state)
    return (Event("grants.renewed", op.grant, (op.epoch,)),)


def revoke(op: RevokeGrant, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Revoke a grant for good."""
    state = _of_issuer(view, op.grant, sender)
    state = msgspec.structs.replace(state, revoked_at=context.time, revoked_height=context.height)
    view.put(grant_key(op.grant), state)
    return (Event("grants.revoked", op.grant, (state.epoch,)),)


CONTRACT = Contract(NAME, 1, {AnchorGrant: anchor, RenewGrant: renew, RevokeGrant: revoke})
