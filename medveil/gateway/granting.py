"""Grants between gateways: the data officer signs and anchors, the recipient keeps its copy; uses are decided by them.

    issuer -> ledger       AnchorGrant     salted commitment, period, epoch
    issuer -> recipient    SignedGrant     the full terms, sealed

Every use of data begins with `decide_use` and ends with `end_use`. Both may be cut short and called again by the same
flow (`medveil.gateway.steps`): one decision, one intent and one outcome is all that the audit trail shows of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ledger.contracts import grants as board
from ledger.receipts import Receipt
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.organisation import Organisation
from medveil.gateway.steps import Steps
from privacy.audit import EntryId, Outcome, use_of
from privacy.decide import AnchoredGrant, Decision, GrantState, UseRequest, decide
from privacy.grants import CheckedGrant, GrantTerms, SignedGrant, check_grant, grant_commitment, sign_grant
from wire.canonical import Wire, decode, encode
from wire.domains import GRANT, digest
from wire.errors import ProtocolAbort, Refused
from wire.identifiers import Handle
from wire.signing import VerifyKey

_ISSUED = "grant-issued"
_HELD = "grant-held"


class Decided(Wire, frozen=True, tag="medveil.decided"):
    """What a flow keeps of its decision. nonce: by which its intent is found again."""

    decision: Decision
    nonce: Handle


class Intended(Wire, frozen=True, tag="medveil.intended"):
    """What a flow keeps of its intent: the sequence number in the audit trail."""

    intent: EntryId


def delivery_session(grant: str) -> bytes:
    """The channel session in which a grant is delivered."""
    return digest(GRANT, b"delivery", grant.encode())[:16]


# --- the issuer ---------------------------------------------------------------------------------


async def issue(officer: Organisation, terms: GrantTerms, steps: Steps) -> SignedGrant:
    """Data officer: sign the terms, keep them, anchor their commitment, send them to the recipient.

    Again with the same terms it changes nothing. Raises Refused for terms that do not check or are not the officer's
    to give, for a recipient that is no member, for an id that other terms have taken (grants.exists; then the earlier
    terms stay) and for a grant that was revoked.
    """
    if terms.issuer != officer.name:
        raise Refused("privacy.grant_form", grant=terms.grant[:64], field="issuer")
    if officer.trust.latest.find(terms.recipient) is None:
        raise Refused("organisations.unknown", organisation=terms.recipient)
    signed = sign_grant(terms, officer.signer, officer.salt_key)
    commitment = grant_commitment(terms, officer.salt_key)

    def stands(state: FinalState) -> bool:
        found = state.get(board.grant_key(terms.grant), board.GrantState)
        if found is None:
            return False
        if (found.issuer, found.commitment, found.epoch) != (officer.name, commitment, terms.epoch):
            raise Refused("grants.exists", grant=terms.grant)
        if found.revoked_at is not None:
            raise Refused("grants.revoked", grant=terms.grant)
        return True

    await steps.boundary()
    if not stands(await officer.account.caught_up()):
        # Kept before the ledger has it; and after, where another with the same id was being issued at the same time.
        officer.vault.put_document(_ISSUED, terms.grant, encode(signed))
        anchor = board.AnchorGrant(terms.grant, commitment, terms.not_before, terms.expires, terms.epoch)
        await officer.ensure(stands, anchor)
    officer.vault.put_document(_ISSUED, terms.grant, encode(signed))
    await officer.send(terms.recipient, delivery_session(terms.grant), signed)
    return signed


async def revoke(officer: Organisation, grant: str) -> Receipt:
    """Data officer: revoke a grant for good, from the block on that carries it. Raises Refused as the contract does."""
    return await officer.submit(board.RevokeGrant(grant))


def issued(officer: Organisation) -> list[CheckedGrant]:
    """The grants that this organisation issued, their signatures checked again, those of its earlier keys too."""
    found = [decode(SignedGrant, officer.vault.document(_ISSUED, name)) for name in officer.vault.documents(_ISSUED)]
    return [check_grant(signed, _signing_key(officer, officer.name, signed)) for signed in found]


def _signing_key(organisation: Organisation, issuer: str, signed: SignedGrant) -> VerifyKey:
    """The issuer's envelope key that signed, of all it has had as a member; its present one if none did."""
    epochs = reversed(organisation.trust.epochs)
    keys = [found.keys.envelope.key for epoch in epochs if (found := epoch.find(issuer)) is not None]
    if not keys:
        raise Refused("organisations.unknown", organisation=issuer)
    return next((key for key in keys if key.key_id() == signed.signature.key_id), keys[0])


# --- the recipient ------------------------------------------------------------------------------


async def take(recipient: Organisation, sender: str, signed: SignedGrant) -> CheckedGrant:
    """Recipient: take a grant that `sender` delivered, if it is its own and stands on the ledger as it is; keep it.

    Again with the same grant it changes nothing. Raises VerificationError (signature), ProtocolAbort (of or for
    somebody else), Refused (not on the ledger), Unavailable (the ledger cannot be asked: try again).
    """
    checked = check_grant(signed, _signing_key(recipient, sender, signed))
    terms = checked.terms
    if (terms.issuer, terms.recipient) != (sender, recipient.name):
        raise ProtocolAbort("gateway.grant_of_others", round="delivery", parties=(sender,))
    found = (await recipient.account.caught_up()).get(board.grant_key(terms.grant), board.GrantState)
    if found is None or (found.issuer, found.commitment) != (sender, checked.commitment):
        raise Refused("gateway.grant_not_anchored", grant=terms.grant, organisation=sender)
    recipient.vault.put_document(_HELD, terms.grant, encode(signed))
    return checked


def held(recipient: Organisation) -> list[CheckedGrant]:
    """The grants that this organisation was given, as their issuers signed them."""
    found = [decode(SignedGrant, recipient.vault.document(_HELD, name)) for name in recipient.vault.documents(_HELD)]
    return [check_grant(signed, _signing_key(recipient, signed.terms.issuer, signed)) for signed in found]


# --- uses ---------------------------------------------------------------------------------------


def anchored(organisation: Organisation, grants: Iterable[CheckedGrant]) -> GrantState:
    """What the ledger says of `grants`, as this organisation replayed it."""
    state = organisation.account.state
    names = dict.fromkeys(checked.terms.grant for checked in grants)
    found = (state.get(board.grant_key(name), board.GrantState) for name in names)
    return GrantState(
        tuple(
            AnchoredGrant(
                one.grant,
                one.issuer,
                one.commitment,
                one.not_before,
                one.expires,
                one.epoch,
                one.revoked_at is not None,
            )
            for one in found
            if one is not None
        )
    )


def judge(holder: Organisation, request: UseRequest, at: int) -> Decision:
    """Whether a use of the holder's data is allowed at instant `at`. Writes nothing: see `decide_use`."""
    grants = issued(holder)
    return decide(request, grants, anchored(holder, grants), at)


async def decide_use(
    holder: Organisation, request: UseRequest, steps: Steps, at: int, query: bytes = b""
) -> tuple[Decision, EntryId]:
    """Decide a use of the holder's data at instant `at`, and write it into the audit trail before anything else.

    A denial is written as such, intent and outcome. query: salted hash of the query or statement, or empty. A flow
    decides once: taken up again it gets the same decision and intent, whatever `at` is by then; ask `still_granted`
    before anything leaves. Raises Refused if the trail says already that an allowed use ended without a release.
    """

    async def deciding() -> Decided:
        return Decided(judge(holder, request, at), holder.rand(16))

    async def intending() -> Intended:
        return Intended(holder.audit.intent(use_of(request, decided.decision, query), decided.nonce))

    decided = await steps.once("decision", Decided, deciding)
    intent = (await steps.once("intent", Intended, intending)).intent
    if not decided.decision.allowed:
        await end_use(holder, intent, "denied", steps)
    elif holder.audit.ending(intent) not in ("", "released"):
        raise Refused("gateway.use_ended", organisation=holder.name, sequence=intent)
    return decided.decision, intent


async def end_use(holder: Organisation, intent: EntryId, outcome: Outcome, steps: Steps) -> None:
    """Write how a use ended, once; "released" from the moment on at which something may have left.

    What the trail says already stays: calling again is harmless, also with "aborted" after "released". Raises Refused
    for "released" after anything else: that would be a release without a log.
    """
    ended = holder.audit.ending(intent)
    if ended == "":
        holder.audit.outcome(intent, outcome)
    elif outcome == "released" and ended != "released":
        raise Refused("privacy.audit_outcome", sequence=intent, outcome=outcome)


def still_granted(holder: Organisation, request: UseRequest, decision: Decision, at: int) -> bool:
    """Whether the grant that allowed a running use still stands, for the same rows.

    Asked again before each step that releases; a grant renewed under way counts if it still allows the use.
    """
    again = judge(holder, request, at)
    return again.allowed and (again.grant, again.rows) == (decision.grant, decision.rows)
