"""Recalls between gateways: an extract that was given away has to be deleted, and its recipient says that it is.

    issuer -> recipient   DeleteNotice   after an erasure, or when a consent was revoked: for each extract concerned
    recipient             deletes the sealed file that it holds, and keeps the notice: what comes later is deleted too
    recipient -> issuer   Deletion       signed; also unasked, when the day of deletion has come
    issuer                keeps it in the book of recalls, and notes it in the erasures that list the extract

The rounds of `keep_up` begin all of it; each message is an opening of its own, and sending, deleting and noting may be
done twice. A notice that is not answered is sent again once a day: the post gives a message up after a week. Killed
anywhere, the next round goes on: what was found is kept before anybody is told, and the file goes before that is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from threading import RLock
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

import msgspec

from ledger.contracts import grants as board
from medveil.gateway import granting
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.organisation import Clock, Organisation
from privacy.audit import Entry
from privacy.audit.views import of_grant
from privacy.erasure import recalls, steps
from privacy.erasure.deletion import (
    DELETION_HEADER,
    REACH,
    UNSIGNED,
    DeleteNotice,
    Deletion,
    Found,
    Reach,
    Why,
    sign_deletion,
    verify_deletion,
    verify_notice,
)
from privacy.erasure.recalls import DELETE_WITHIN, Recall
from privacy.grants.terms import CONSENTS
from wire.canonical import Wire, decode, encode
from wire.dates import Instant
from wire.errors import MedveilError, Refused

AGAIN_MS = 86_400_000
"""Milliseconds after which a notice is sent again that was not answered."""
MOST_NOTICES = 1000
"""Notices of one issuer that are kept about extracts which never came."""
ANSWERED_MS = 3_600_000
"""Milliseconds for which the same notice, sent again, is not answered again: the post has the answer."""

_NOTICE = "delete-notice"
_SAID = "deletion-said"
_PIECE = 500

Fault = Callable[[str], None]


class Arrived(NamedTuple):
    """An extract that came here. deleted: when, 0 for not; why: it was."""

    extract: bytes
    issuer: str
    deleted: int
    why: Why


class Extracts(Protocol):
    """What a recall needs of the extracts at this gateway. Each may be called twice for the same."""

    def arrived(self) -> Iterable[Arrived]:
        """Every extract that came here, deleted ones too."""
        ...

    def came(self, extract: bytes) -> Arrived | None:
        """One that came here, a deleted one too; None where it never did."""
        ...

    def opened(self, extract: bytes) -> bool:
        """Whether somebody opened one here."""
        ...

    def forget(self, extract: bytes, why: Why) -> None:
        """Recipient: delete the sealed file of one that came here."""
        ...

    def withdraw(self, extract: bytes) -> None:
        """Issuer: let an extract of its own that is still here go no further."""
        ...

    def taken_back(self) -> Iterable[int]:
        """Issuer: let go no further what may not leave any more, whatever it rests on. The entries that announced those
        which may have left all the same, and all that were found so before."""
        ...

    def may_have_left(self, extract: bytes) -> bool:
        """Issuer: whether the recipient of a released extract may have it, or have had it."""
        ...


class _Said(Wire, frozen=True, tag="medveil.deletion_said"):
    """What a recipient says of one extract. sent: when it was handed to the post, 0 for not yet."""

    deletion: Deletion
    sent: Instant


_writing = RLock()
"""Held, in a thread, while what is kept of recalls and erasures is read and written again."""
arriving = RLock()
"""Held, in a thread, while an extract that came is listed or deleted, and while a notice about one is taken."""


def no_fault(step: str) -> None:
    """Nothing is wrong."""


async def keep_up(organisation: Organisation, extracts: Extracts, clock: Clock, fault: Fault = no_fault) -> None:
    """A round at both ends: find what has to be recalled, tell recipients, say what was deleted here.

    fault: told each step that is durable. Raises Unavailable while the ledger does not answer; and the first error, of
    what could not be found or a recipient that could not be told, after all else was done.
    """
    state = await organisation.account.caught_up()
    trouble: MedveilError | None = None
    try:
        await asyncio.to_thread(find_recalls, organisation, extracts, state, clock(), fault)
    except MedveilError as error:  # who has to be told already is told all the same
        trouble = error
    away: set[str] = set()  # who could not be told something is told no more in this round
    for one in await asyncio.to_thread(recalls.recalls, organisation.vault):
        if one.recipient not in away:
            try:
                await _tell(organisation, one, clock(), fault)
            except MedveilError as error:
                away.add(one.recipient)
                trouble = trouble or error
    for said in await asyncio.to_thread(_unsaid, organisation, extracts, clock, fault):
        if said.deletion.organisation not in away:
            try:
                await _send(organisation, said, clock, fault)
            except MedveilError as error:
                away.add(said.deletion.organisation)
                trouble = trouble or error
    if trouble is not None:
        raise trouble


# --- the issuer ---------------------------------------------------------------------------------


def find_recalls(
    issuer: Organisation, extracts: Extracts, state: FinalState, at: int, fault: Fault = no_fault
) -> tuple[Recall, ...]:
    """Issuer: keep an entry for each extract that has to be deleted and has none; returns the new ones.

    Those of erasures that were carried out; all that were released under a grant that rests on consent and is revoked
    in `state`; and what was taken back, for whatever reason, when it may have left. What has not left yet does not
    leave any more.
    """
    with _writing:
        return _found(issuer, extracts, state, at, fault)


def _found(issuer: Organisation, extracts: Extracts, state: FinalState, at: int, fault: Fault) -> tuple[Recall, ...]:
    known = {one.entry: one for one in recalls.recalls(issuer.vault)}
    new, looked_at = [], set[int]()  # one extract may be in any number of erasures

    def recall(entry: int, released: int, why: Why) -> None:
        if entry in looked_at:
            return
        looked_at.add(entry)
        found = issuer.audit.entries(entry, entry)
        if not found:  # a pruned entry is of an extract whose day is long over
            return
        extracts.withdraw(found[0].nonce)  # also of one that its recipient said something about before
        if entry in known:
            return
        known[entry] = recalls.recall(issuer.vault, _entry(found[0], released, why, at))
        new.append(known[entry])
        fault("recalled")

    for erasure in steps.erasures(issuer.vault):
        for given in erasure.given:
            released = given.released or _released(issuer, given.entry)
            if released and not given.deleted:
                recall(given.entry, released, "erasure")
            one = known.get(given.entry)
            if one is not None and ((one.told and not given.told) or (one.deleted and not given.deleted)):
                # It was killed between both notes, or the extract is in an earlier erasure, too.
                steps.note_given(issuer.vault, one.entry, told=one.told, deleted=one.deleted)
    revoked, through = _of_revoked(issuer, state)
    for entry, released in revoked:
        recall(entry, released, "consent-revoked")
    for entry in extracts.taken_back():
        if (ended := issuer.audit.end(entry)) is not None and ended.outcome == "released":
            recall(entry, ended.time, "withdrawn")
    _through.setdefault(issuer, set()).update(through)  # once they are kept: a full disk has them looked at again
    return tuple(new)


def call_back(issuer: Organisation, entry: int, why: Why, at: int) -> None:
    """Issuer: keep an entry for the extract that the use `entry` released, so that its recipient is told."""
    with _writing:
        found, ended = issuer.audit.entries(entry, entry), issuer.audit.end(entry)
        if found and ended is not None and ended.outcome == "released":
            recalls.recall(issuer.vault, _entry(found[0], ended.time, why, at))


def _entry(intent: Entry, released: int, why: Why, at: int) -> Recall:
    use, within = intent.use, at + DELETE_WITHIN
    return Recall(intent.nonce, use.recipient, use.dataset, use.grant, intent.sequence, released, why, at, within)


def _released(issuer: Organisation, entry: int) -> int:
    """When a use that was under way while extracts were listed released one; 0 for not (yet), and that is noted."""
    ended = issuer.audit.end(entry)
    if ended is not None and ended.outcome == "released":
        steps.note_given(issuer.vault, entry, released=ended.time)
        return ended.time
    if ended is not None:
        steps.drop_given(issuer.vault, entry)
    return 0


_through: WeakKeyDictionary[Organisation, set[str]] = WeakKeyDictionary()
"""Revoked grants whose uses have all been looked at: there will be no others."""


def _of_revoked(issuer: Organisation, state: FinalState) -> tuple[list[tuple[int, int]], list[str]]:
    """(entry, when it was released) of the extracts under consents that are revoked now, and which of those consents
    have no other use under way.
    """
    before, through, found = _through.get(issuer, set()), [], []
    for checked in granting.issued(issuer):
        terms = checked.terms
        if terms.legal_basis not in CONSENTS or "extract" not in terms.uses or terms.grant in before:
            continue
        entry = state.get(board.grant_key(terms.grant), board.GrantState)
        if entry is None or entry.revoked_at is None:
            continue
        first, ended = 1, True
        while some := of_grant(issuer.audit, terms.grant, first, _PIECE):
            for seen in some:
                if seen.intent.use.kind != "extract":
                    continue
                ended = ended and seen.ended is not None
                if seen.ended is not None and seen.outcome == "released":
                    found.append((seen.intent.sequence, seen.ended.time))
            first = some[-1].intent.sequence + 1
        if ended:
            through.append(terms.grant)
    return found, through


async def _tell(issuer: Organisation, one: Recall, at: int, fault: Fault) -> None:
    if one.heard is not None or (one.asked and at - one.asked < AGAIN_MS):
        return
    if issuer.trust.latest.find(one.recipient) is None:  # it left: nobody carries anything to it
        return
    session = issuer.rand(16)
    await issuer.send(one.recipient, session, recalls.notice(one, issuer.name, issuer.signer))
    await issuer.forget(session, one.recipient)
    fault("sent")
    await asyncio.to_thread(_note_told, issuer, one.extract, at, fault)


def _note_told(issuer: Organisation, extract: bytes, at: int, fault: Fault) -> None:
    with _writing:
        one = recalls.note_told(issuer.vault, extract, at)
        fault("told")
        steps.note_given(issuer.vault, one.entry, told=one.told)


async def take_deletion(
    issuer: Organisation, extracts: Extracts, sender: str, deletion: Deletion, at: int, fault: Fault = no_fault
) -> Recall:
    """Issuer: keep what `sender` says of an extract that it was given; returns the entry as it stands then.

    Raises VerificationError (not its own word, or not to this organisation), Refused (it was never given that one; or
    it deleted one that has not left, and was not asked to: then nothing is kept of it, and the extract goes its way).
    """
    if deletion.recipient != sender:
        raise Refused("privacy.no_notice", organisation=sender)
    verify_deletion(deletion, issuer.envelope_keys(sender), issuer.name)
    return await asyncio.to_thread(_hear, issuer, extracts, deletion, at, fault)


def _hear(issuer: Organisation, extracts: Extracts, deletion: Deletion, at: int, fault: Fault) -> Recall:
    with _writing:
        known = recalls.recall_of(issuer.vault, deletion.extract)
        asked = known is not None and known.told > 0
        if deletion.found == "deleted" and not asked and not extracts.may_have_left(deletion.extract):
            raise Refused("privacy.no_notice", organisation=deletion.recipient)
        if known is None:
            if deletion.found != "deleted":  # nobody asked: kept, it would stand as the answer to who asks later
                raise Refused("privacy.no_notice", organisation=deletion.recipient)
            recalls.recall(issuer.vault, _unasked(issuer, deletion, at))
            fault("recalled")
        one = recalls.note_heard(issuer.vault, deletion)
        fault("heard")
        steps.note_given(issuer.vault, one.entry, deleted=one.deleted)
        return one


def _unasked(issuer: Organisation, deletion: Deletion, at: int) -> Recall:
    """The entry of an extract that its recipient deleted by itself. Raises Refused where it was never given it."""
    for intent in issuer.audit.intents("nonce", deletion.extract):  # an extract's id is the nonce of its entry
        if (intent.use.kind, intent.use.recipient) == ("extract", deletion.recipient):
            ended = issuer.audit.end(intent.sequence)
            if ended is not None and ended.outcome == "released":
                return msgspec.structs.replace(_entry(intent, ended.time, "due", at), delete_by=at)
    raise Refused("privacy.no_notice", organisation=deletion.recipient)


# --- the recipient ------------------------------------------------------------------------------


async def take_notice(
    recipient: Organisation,
    extracts: Extracts,
    sender: str,
    notice: DeleteNotice,
    clock: Clock,
    fault: Fault = no_fault,
) -> Deletion:
    """Recipient: delete the extract that `sender` names, and answer; returns the answer. Again, it is said again.

    Raises VerificationError for what is not `sender`'s notice to this organisation, Refused for one too many about
    extracts that never came, Unavailable (disk, post): then it is taken again.
    """
    said = await asyncio.to_thread(_noticed, recipient, extracts, sender, notice, clock, fault)
    if said.sent and clock() - said.sent < ANSWERED_MS:
        return said.deletion
    return await _send(recipient, said, clock, fault)


def _noticed(
    recipient: Organisation, extracts: Extracts, sender: str, notice: DeleteNotice, clock: Clock, fault: Fault
) -> _Said:
    """Keep a notice and do what it says; what there is to say to that."""
    if notice.organisation != sender:
        raise Refused("privacy.no_notice", organisation=sender)
    verify_notice(notice, recipient.envelope_keys(sender), recipient.name)
    name = _name(sender, notice.extract)
    with arriving:
        if name not in (kept := _notices(recipient)):
            came = _find(extracts, sender, notice.extract) is not None
            if not came and sum(one.startswith(f"{sender} ") for one in kept) >= MOST_NOTICES:
                raise Refused("gateway.too_many_notices", organisation=sender, notices=MOST_NOTICES)
            recipient.vault.put_document(_NOTICE, name, encode(notice))
            _kept_notices[recipient] = recipient.vault.revision(_NOTICE), kept | {name}
            fault("kept")
        return _done(recipient, extracts, notice, clock, fault)


def is_recalled(recipient: Organisation, issuer: str, extract: bytes) -> bool:
    """Recipient: whether its issuer has asked for an extract to be deleted; one that comes later is not to be kept."""
    return recipient.vault.find_document(_NOTICE, _name(issuer, extract)) is not None


_kept_notices: WeakKeyDictionary[Organisation, tuple[int, frozenset[str]]] = WeakKeyDictionary()
"""Names of the notices that are kept, and the vault's revision of which they are."""


def _notices(recipient: Organisation) -> frozenset[str]:
    """Read from the vault, where each name is sealed, only when others wrote since. Call it with `arriving` held."""
    revision = recipient.vault.revision(_NOTICE)
    known = _kept_notices.get(recipient)
    if known is None or known[0] != revision:
        known = _kept_notices[recipient] = revision, frozenset(recipient.vault.documents(_NOTICE))
    return known[1]


def _done(recipient: Organisation, extracts: Extracts, notice: DeleteNotice, clock: Clock, fault: Fault) -> _Said:
    """Delete what a notice names; what there is to say to that, as it is kept."""
    issuer, extract = notice.organisation, notice.extract
    with arriving:
        said = _said(recipient, issuer, extract)
        if said is not None and said.deletion.found != "not-held":
            return said
        found = _find(extracts, issuer, extract)
        if found is not None and not found.deleted:
            extracts.forget(extract, notice.why)
            found = _find(extracts, issuer, extract)  # with its instant: said once more, it is the same
            fault("deleted")
        if said is None or found is not None:
            said = _Said(_word(recipient, extracts, issuer, extract, found, notice.id(), notice.why, clock()), 0)
            _keep(recipient, said)
            fault("said")
        return said


def _unsaid(recipient: Organisation, extracts: Extracts, clock: Clock, fault: Fault) -> tuple[_Said, ...]:
    """What came after its notice is deleted; what was deleted here is to be said to its issuer, once: what is not."""
    arrived = {(one.issuer, one.extract): one for one in extracts.arrived()}
    for name in recipient.vault.documents(_NOTICE):
        notice = decode(DeleteNotice, recipient.vault.document(_NOTICE, name))
        said = _said(recipient, notice.organisation, notice.extract)
        came = (notice.organisation, notice.extract) in arrived
        if said is None or (said.deletion.found == "not-held" and came):
            _done(recipient, extracts, notice, clock, fault)
    for one in arrived.values():
        with arriving:
            if one.deleted and _said(recipient, one.issuer, one.extract) is None:
                said = _Said(_word(recipient, extracts, one.issuer, one.extract, one, b"", one.why, clock()), 0)
                _keep(recipient, said)
                fault("said")
    every = (decode(_Said, recipient.vault.document(_SAID, name)) for name in recipient.vault.documents(_SAID))
    return tuple(said for said in every if not said.sent)


def _word(
    recipient: Organisation,
    extracts: Extracts,
    issuer: str,
    extract: bytes,
    found: Arrived | None,
    notice: bytes,
    why: Why,
    at: int,
) -> Deletion:
    """What is said of an extract. found: as it came here, None if it never did."""
    held: Found = "not-held" if found is None else "deleted"
    beyond: tuple[Reach, ...] = ("copies",) if found is None or not extracts.opened(extract) else REACH
    when = found.deleted if found is not None and found.deleted else at
    return sign_deletion(
        Deletion(DELETION_HEADER, notice, issuer, recipient.name, extract, held, why, when, beyond, UNSIGNED),
        recipient.signer,
    )


async def _send(recipient: Organisation, said: _Said, clock: Clock, fault: Fault) -> Deletion:
    issuer = said.deletion.organisation
    if recipient.trust.latest.find(issuer) is not None:  # else nobody is there to hear it
        session = recipient.rand(16)
        await recipient.send(issuer, session, said.deletion)
        await recipient.forget(session, issuer)
        fault("answered")
    await asyncio.to_thread(_note_sent, recipient, said, clock())
    return said.deletion


def _note_sent(recipient: Organisation, said: _Said, at: Instant) -> None:
    with arriving:
        kept = _said(recipient, said.deletion.organisation, said.deletion.extract)
        if kept is None or kept.deletion == said.deletion:  # else there is something else to say meanwhile
            _keep(recipient, _Said(said.deletion, at))


def _find(extracts: Extracts, issuer: str, extract: bytes) -> Arrived | None:
    one = extracts.came(extract)
    return one if one is not None and one.issuer == issuer else None


def _said(recipient: Organisation, issuer: str, extract: bytes) -> _Said | None:
    found = recipient.vault.find_document(_SAID, _name(issuer, extract))
    return None if found is None else decode(_Said, found)


def _keep(recipient: Organisation, said: _Said) -> None:
    recipient.vault.put_document(_SAID, _name(said.deletion.organisation, said.deletion.extract), encode(said))


def _name(issuer: str, extract: bytes) -> str:
    return f"{issuer} {extract.hex()}"
