"""Grants between gateways: the data officer signs and anchors, the recipient keeps its copy.

issuer -> ledger       AnchorGrant     salted commitment, period, epoch
issuer -> recipient    SignedGrant     the full terms, sealed
"""

from __future__ import annotations

from ledger.contracts import grants as board
from medveil.gateway.organisation import Organisation
from privacy.audit import EntryId, use_of
from privacy.decide import AnchoredGrant, Decision, GrantState, UseRequest, decide
from privacy.grants import CheckedGrant, GrantTerms, SignedGrant, check_grant, grant_commitment, sign_grant
from wire.canonical import decode, encode
from wire.domains import GRANT, digest
from wire.errors import ProtocolAbort, Refused

_ISSUED = "grant-issued"
_HELD = "grant-held"


def _session(grant: str) -> bytes:
    return digest(GRANT, b"delivery", grant.encode())[:16]


async def issue(officer: Organisation, terms: GrantTerms) -> SignedGrant:
    """Data officer: sign the terms, keep them, anchor their commitment, send them to the recipient.

    Raises Refused for an id that is taken, before anything is kept: the terms of an earlier grant stay.
    """
    taken = (await officer.account.caught_up()).get(board.grant_key(terms.grant), board.GrantState)
    if taken is not None:
        raise Refused("grants.exists", grant=terms.grant)
    signed = sign_grant(terms, officer.signer, officer.salt_key)
    officer.vault.put_document(_ISSUED, terms.grant, encode(signed))
    commitment = grant_commitment(terms, officer.salt_key)
    await officer.submit(board.AnchorGrant(terms.grant, commitment, terms.not_before, terms.expires, terms.epoch))
    await officer.send(terms.recipient, _session(terms.grant), signed)
    return signed


async def accept(recipient: Organisation, grant: str) -> CheckedGrant:
    """Recipient: take delivery of a grant, check it against its issuer's key, keep it."""
    sender, signed = await recipient.receive(SignedGrant, _session(grant))
    checked = check_grant(signed, recipient.trust.member(sender).keys.envelope.key)
    if (checked.terms.issuer, checked.terms.recipient, checked.terms.grant) != (sender, recipient.name, grant):
        raise ProtocolAbort("gateway.grant_of_others", round="delivery", parties=(sender,))
    recipient.vault.put_document(_HELD, grant, encode(signed))
    return checked


def issued(officer: Organisation) -> list[CheckedGrant]:
    """The grants that this organisation issued, their signatures checked again."""
    return [
        check_grant(decode(SignedGrant, officer.vault.document(_ISSUED, name)), officer.signer.key)
        for name in officer.vault.documents(_ISSUED)
    ]


def anchored(organisation: Organisation) -> GrantState:
    """The ledger's grants as this organisation replayed them."""
    found = organisation.account.state.items(b"grants/", board.GrantState)
    return GrantState(
        tuple(
            AnchoredGrant(
                state.grant,
                state.issuer,
                state.commitment,
                state.not_before,
                state.expires,
                state.epoch,
                state.revoked_at is not None,
            )
            for _, state in found
        )
    )


def decide_use(holder: Organisation, request: UseRequest, at: int, query: bytes = b"") -> tuple[Decision, EntryId]:
    """Decide a use of the holder's data at instant `at`, and write it into the audit trail before anything else.

    A denial is written as such, intent and outcome. query: salted hash of the query or statement, or empty.
    """
    decision = decide(request, issued(holder), anchored(holder), at)
    intent = holder.audit.intent(use_of(request, decision, query))
    if not decision.allowed:
        holder.audit.outcome(intent, "denied")
    return decision, intent


def still_granted(holder: Organisation, request: UseRequest, decision: Decision, at: int) -> bool:
    """Whether the grant that allowed a running use still stands, for the same rows.

    Asked again before each step that releases; a grant renewed under way counts if it still allows the use.
    """
    again = decide(request, issued(holder), anchored(holder), at)
    return again.allowed and (again.grant, again.rows) == (decision.grant, decision.rows)
