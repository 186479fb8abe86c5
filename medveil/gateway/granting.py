"""Grants between gateways: the data officer signs and anchors, the recipient keeps its copy; uses are decided by them.

    issuer -> ledger       AnchorGrant     salted commitment, period, epoch
    issuer -> recipient    SignedGrant     the full terms, sealed

Every use of data begins with `decide_use` and ends with `end_use`; what is refused before there is anything to decide
is written by `log_denial`. They may be cut short and called again by the same
flow (`medveil.gateway.steps`): one decision, one intent and one outcome is all that the audit trail shows of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from ledger.contracts import grants as board
from ledger.receipts import Receipt
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.organisation import Organisation, Refusal, told_facts
from medveil.gateway.steps import Steps
from medveil.gateway.use_state import state_of
from privacy.audit import UNKNOWN, AccessKind, EntryId, Outcome, Use, use_of
from privacy.decide import Decision, GrantBook, UseRequest, decide, not_a_question
from privacy.grants.purposes import PURPOSES
from privacy.grants.terms import (
    AnyTerms,
    CheckedGrant,
    GrantTerms,
    SignedGrant,
    check_grant,
    grant_commitment,
    sign_grant,
)
from wire.canonical import Wire, decode, encode
from wire.errors import MedveilError, ProtocolAbort, Refused
from wire.identifiers import Handle
from wire.signing import VerifyKey

_ISSUED = "grant-issued"
_HELD = "grant-held"
NO_DATASET = "unknown"
"""Stands in the audit trail for a dataset that the holder does not have."""


class Decided(Wire, frozen=True, tag="medveil.decided"):
    """What a flow keeps of its decision. nonce: by which its intent is found again."""

    decision: Decision
    nonce: Handle


class Intended(Wire, frozen=True, tag="medveil.intended"):
    """What a flow keeps of its intent: the sequence number in the audit trail."""

    intent: EntryId


class Delivery(Wire, frozen=True, tag="medveil.grant_delivery"):
    """What a flow keeps of its delivery: the channel session, drawn for it, in which it sends the grant."""

    session: Handle


# --- the issuer ---------------------------------------------------------------------------------


async def issue(officer: Organisation, terms: GrantTerms, steps: Steps) -> SignedGrant:
    """Data officer: sign the terms, keep them, anchor their commitment, send them to the recipient.

    Again with the same terms it changes nothing, and the recipient gets it again, which may not have taken it. Raises
    Refused for terms that do not check or are not the officer's
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

    async def delivering() -> Delivery:
        return Delivery(officer.rand(16))

    # A session of its own each time: in one that has begun, what the recipient let go would never be looked at again.
    session = (await steps.once("delivery", Delivery, delivering)).session
    await officer.send(terms.recipient, session, signed)
    await officer.forget(session, terms.recipient)
    return signed


async def revoke(officer: Organisation, grant: str) -> Receipt:
    """Data officer: revoke a grant for good, from the block on that carries it. Raises Refused as the contract does."""
    return await officer.submit(board.RevokeGrant(grant))


class _Shelf(NamedTuple):
    """The grants of one issuer as they were read and checked once, and the book that decisions look them up in."""

    revision: int
    from_height: int
    grants: tuple[CheckedGrant, ...]
    book: GrantBook


_shelves: WeakKeyDictionary[Organisation, _Shelf] = WeakKeyDictionary()


def _shelf(officer: Organisation) -> _Shelf:
    """Read anew when the vault's grants or the members' keys have changed; what the ledger says of them is not here."""
    kept, vault = _shelves.get(officer), officer.vault
    revision, from_height = vault.revision(_ISSUED), officer.trust.latest.from_height
    if kept is not None and (kept.revision, kept.from_height) == (revision, from_height):
        return kept
    found = [decode(SignedGrant, vault.document(_ISSUED, name)) for name in vault.documents(_ISSUED)]
    grants = tuple(check_grant(signed, _signing_key(officer, officer.name, signed)) for signed in found)
    _shelves[officer] = _Shelf(revision, from_height, grants, GrantBook(grants))
    return _shelves[officer]


def book_of(officer: Organisation) -> GrantBook:
    """The same, as decisions look them up."""
    return _shelf(officer).book


def issued(officer: Organisation) -> list[CheckedGrant]:
    """The grants that this organisation issued, their signatures checked, those of its earlier keys too."""
    return list(_shelf(officer).grants)


def issued_terms(officer: Organisation) -> list[AnyTerms]:
    """The terms of every grant that this organisation issued, as its vault has them: also before it has joined."""
    return [
        decode(SignedGrant, officer.vault.document(_ISSUED, name)).terms for name in officer.vault.documents(_ISSUED)
    ]


def records_kept(officer: Organisation) -> dict[str, int]:
    """By grant that this organisation issued: until when it keeps the records of sharing under it."""
    every = (one if isinstance(one, GrantTerms) else one.in_version_2() for one in issued_terms(officer))
    return {terms.grant: terms.records_until for terms in every}


def signed_terms(officer: Organisation, grant: str) -> AnyTerms:
    """The terms of a grant that this organisation issued, in the version in which they were signed. Raises Refused."""
    return decode(SignedGrant, officer.vault.document(_ISSUED, grant)).terms


def _signing_key(organisation: Organisation, issuer: str, signed: SignedGrant) -> VerifyKey:
    """The issuer's envelope key that signed, of all it has had as a member; its present one if none did."""
    epochs = reversed(organisation.trust.epochs)
    keys = [found.keys.envelope.key for epoch in epochs if (found := epoch.find(issuer)) is not None]
    if not keys:
        raise Refused("organisations.unknown", organisation=issuer)
    return next((key for key in keys if key.key_id() == signed.signature.key_id), keys[0])


# --- the recipient ------------------------------------------------------------------------------


def check_delivered(recipient: Organisation, sender: str, signed: SignedGrant) -> CheckedGrant:
    """Recipient: check that `sender` signed the grant that it delivered, and that it is for this organisation.

    Whether it stands is the ledger's to say: `take`. Raises VerificationError, ProtocolAbort, Refused (no member).
    """
    checked = check_grant(signed, _signing_key(recipient, sender, signed))
    if (checked.terms.issuer, checked.terms.recipient) != (sender, recipient.name):
        raise ProtocolAbort("gateway.grant_of_others", round="delivery", parties=(sender,))
    return checked


async def take(recipient: Organisation, sender: str, signed: SignedGrant) -> CheckedGrant:
    """Recipient: take a grant that `sender` delivered, if it is its own and stands on the ledger as it is; keep it.

    Again with the same grant it changes nothing. Raises VerificationError (signature), ProtocolAbort (of or for
    somebody else), Refused (not on the ledger), Unavailable (the ledger cannot be asked: try again).
    """
    checked = check_delivered(recipient, sender, signed)
    terms = checked.terms
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


def judge(holder: Organisation, request: UseRequest, at: int, grant: str = "") -> Decision:
    """Whether a use of the holder's data is allowed at instant `at`. Writes nothing: see `decide_use`.

    grant: the id of the one grant that may allow it, or "" for any.
    """
    book = _shelf(holder).book
    parties = (holder.name, request.recipient, request.dataset)
    named = (request.person,) if request.person else ()
    between = [entry.checked for entry in book.of(*parties) if grant in ("", entry.terms.grant)]
    return decide(request, between if grant else book, state_of(holder, between, at, named), at)


async def decide_use(
    holder: Organisation,
    request: UseRequest,
    steps: Steps,
    at: int,
    query: bytes | Callable[[Decision], Awaitable[bytes]] = b"",
) -> tuple[Decision, EntryId]:
    """Decide a use of the holder's data at instant `at`, and write it into the audit trail before anything else.

    A denial is written as such, intent and outcome. query: salted hash of the query or statement, or empty; or what
    gives it once it is decided, in the flow's own steps. A flow
    decides once: taken up again it gets the same decision and intent, whatever `at` is by then; ask `still_granted`
    before anything leaves. Raises Refused if the trail says already that an allowed use ended without a release,
    Unavailable while the ledger of today cannot be known.
    """
    await holder.account.present()  # a process that has just begun knows neither grants nor revocations

    async def deciding() -> Decided:
        return Decided(judge(holder, request, at), holder.rand(16))

    async def intending() -> Intended:
        persons = (request.person,) if request.person else ()
        return Intended(holder.audit.intent(use_of(request, decided.decision, about), decided.nonce, persons=persons))

    decided = await steps.once("decision", Decided, deciding)
    about = query if isinstance(query, bytes) else await query(decided.decision)
    intent = (await steps.once("intent", Intended, intending)).intent
    if not decided.decision.allowed:
        await end_use(holder, intent, "denied")
    elif holder.audit.ending(intent) not in ("", "released"):
        raise Refused("gateway.use_ended", organisation=holder.name, sequence=intent)
    return decided.decision, intent


async def log_denial(
    holder: Organisation,
    recipient: str,
    dataset: str,
    kind: AccessKind,
    error: MedveilError,
    steps: Steps,
    purpose: str = UNKNOWN,
    query: bytes = b"",
) -> None:
    """Write into the audit trail, once in a flow, that `recipient` asked for what `error` refuses: no grant was asked.

    dataset: one of the holder's, or `NO_DATASET`: names that a requester made up are not published. query: salted
    hash, or empty. Raises as `AuditTrail.intent`.
    """
    decision = not_a_question(recipient, dataset, error.code)
    known = purpose if purpose in PURPOSES else UNKNOWN
    use = Use(recipient, dataset, kind, known, "", query, decision.allowed, decision.rule)

    async def deciding() -> Decided:
        return Decided(decision, holder.rand(16))

    async def intending() -> Intended:
        return Intended(holder.audit.intent(use, decided.nonce))

    decided = await steps.once("denial", Decided, deciding)
    intent = (await steps.once("denied", Intended, intending)).intent
    await end_use(holder, intent, "denied")


async def end_use(holder: Organisation, intent: EntryId, outcome: Outcome) -> None:
    """Write how a use ended, once; "released" from the moment on at which something may have left.

    What the trail says already stays: calling again is harmless, also with "aborted" after "released". Raises Refused
    for "released" after anything else: that would be a release without a log.
    """
    ended = holder.audit.ending(intent)
    if ended == "":
        holder.audit.outcome(intent, outcome)
    elif outcome == "released" and ended != "released":
        raise Refused("privacy.audit_outcome", sequence=intent, outcome=outcome)


def refusal_of(decision: Decision) -> Refusal:
    """What the recipient is told of a denial; of an opt-out not what else it covers."""
    if decision.rule == "opt-out":
        decision = msgspec.structs.replace(decision, missing="person")
    return Refusal(decision.code, decision.text(), told_facts(decision.facts()))


def still_granted(holder: Organisation, request: UseRequest, decision: Decision, at: int) -> bool:
    """Whether the grant that allowed a running use still stands, for the same rows, masks and left out persons.

    Asked again before each step that releases; a grant renewed under way counts if it still allows the use. A scope
    of opt-outs that came up under way ends it: it may have read rows that it must leave out now.
    """
    again = judge(holder, request, at)
    same = (again.grant, again.rows, again.columns) == (decision.grant, decision.rows, decision.columns)
    return again.allowed and same and set(again.excluded) <= set(decision.excluded)
