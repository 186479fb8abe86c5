"""What may still leave of an extract: judged in one place, from the body to the last bytes that are sent.

    before rows are read       `basis_of`     decision, table and objections of then are kept with the extract
    intent and body, release   `decided`      decided again, and nobody is in it who must not be by now
    offer, each window         `let_leave`    the same, and the grant stands; the last window: it may have left
    rounds, erasures           `take_back_changed`, `take_back_of`     what may not leave any more goes

Of a table any erasure, restriction or objection since counts, whoever in it it is of: who is in a masked extract is
kept nowhere. What was only added stops nothing. An erasure takes back at once what was not delivered, before it says
that it is done; all else does not leave from the next window on, and is removed by the rounds, whatever it rests on.
What ends is noted first, then its file goes, then its request is answered anew: rounds, erasures and the next start
finish what was cut short in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from medveil.gateway.extract_bytes import remove
from medveil.gateway.extract_wanted import AskState, settle_wanted
from medveil.gateway.granting import judge
from medveil.gateway.made_extracts import (
    Basis,
    MadeExtract,
    find_made,
    made,
    made_of,
    made_path,
    moved,
    settling,
    stands,
)
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.recalling import call_back
from medveil.gateway.use_state import anchored, left_out, opt_outs
from privacy.decide import Decision, UseRequest, require
from privacy.erasure.deletion import Why
from privacy.grants.opt_outs import ScopeId
from wire.errors import ConsentDenied, MedveilError, Refused, Unavailable, VerificationError

CHANGED = "extracts.changed"


class Stays(NamedTuple):
    """Why an extract does not leave. for_good: it never may again, so that it is taken back."""

    error: MedveilError
    for_good: bool


# --- what it rests on ---------------------------------------------------------------------------


def basis_of(holder: Organisation, request: UseRequest, decision: Decision, clock: Clock) -> Basis:
    """What an allowed extract rests on as of now: asked for before its rows are read. Raises Refused for no table."""
    info = holder.vault.info(request.dataset)
    without = left_out(holder, decision, clock)
    return Basis(request, decision, info.number, info.changes, b"".join(sorted(without)))


def decided(holder: Organisation, basis: Basis, clock: Clock) -> Decision:
    """The decision of now: a denial, or one by which the same rows may leave as when they were read.

    Raises Refused (`CHANGED`): other rows or masks, or somebody is in them who must not be by now.
    """
    before, request = basis.decision, basis.request
    if _erased_since(holder, basis):
        raise Refused(CHANGED, grant=before.grant)
    again = judge(holder, request, clock(), before.grant)
    if again.allowed and (said(again) != said(before) or objecting_since(holder, basis, again.excluded, clock)):
        raise Refused(CHANGED, grant=before.grant)
    return again


def objecting_since(holder: Organisation, basis: Basis, scopes: Iterable[ScopeId], clock: Clock) -> frozenset[bytes]:
    """Keyed ids (secret) of those with rows in the table whom a use must leave out by now, and needed not then.

    scopes: of opt-outs, as a decision excludes them now.
    """
    since = opt_outs(holder).persons(scopes, clock()) - basis.without()
    table = basis.request.dataset
    return frozenset(one for one in since if any(key.dataset == table for key in holder.vault.keys_of(one)))


def said(decision: Decision) -> tuple[object, ...]:
    """What of a decision the rows of an extract depend on, beside who objects."""
    return decision.grant, decision.rows, decision.columns, decision.min_group


def _erased_since(holder: Organisation, basis: Basis) -> bool:
    """Whether rows of the table were erased or restricted since, or it was loaded anew."""
    try:
        info = holder.vault.info(basis.request.dataset)
    except Refused:
        return True
    return (info.number, info.changes) != (basis.table, basis.changes)


def what_keeps(holder: Organisation, one: MadeExtract, clock: Clock) -> Stays | None:
    """Why a released extract may not leave as of now; None: it may.

    A grant that is gone and rows that are others keep it for good; what can be put right, such as a review that is
    overdue, until it is.
    """
    facts = one.facts
    if not _stands(holder, one, clock()):
        return Stays(ConsentDenied("gateway.grant_gone", grant=facts.grant, dataset=facts.dataset), True)
    if one.basis is None:
        return Stays(Refused(CHANGED, grant=facts.grant), True)
    try:
        require(decided(holder, one.basis, clock))
    except (ConsentDenied, VerificationError) as error:  # damage at home may be mended, from a backup
        return Stays(error, False)
    except Refused as changed:
        return Stays(changed, True)
    return None


def _stands(holder: Organisation, one: MadeExtract, now: int) -> bool:
    """Whether the grant stands on the ledger, and the day of deletion has not come."""
    facts = one.facts
    (found,) = anchored(holder, [facts.grant]) or (None,)
    return (
        found is not None
        and not found.revoked
        and (found.issuer, found.commitment) == (holder.name, facts.commitment)
        and now < found.expires
        and now < facts.delete_by
    )


# --- the way out --------------------------------------------------------------------------------


def _no_fault(_step: str) -> None: ...


def note_released(
    holder: Organisation, extract: bytes, clock: Clock, fault: Callable[[str], None] = _no_fault
) -> MadeExtract:
    """Holder: the file stands: say so wherever that is not said yet, the trail first. Returns how the extract stands.

    fault: told when the trail has said it. Raises Refused for one whose use ended otherwise, Unavailable: then it is
    said later, and nothing leaves.
    """
    with settling:
        one = made_of(holder, extract)
        ended = holder.audit.ending(one.facts.audit)
        if ended == "":
            holder.audit.outcome(one.facts.audit, "released")
        elif ended != "released":
            raise Refused("privacy.audit_outcome", sequence=one.facts.audit, outcome="released")
        fault("outcome")
        if one.state == "staged":
            one = moved(holder, one, "released", clock())
        settle_wanted(holder, one.ask, extract, _answer(one))
        return one


def let_leave(holder: Organisation, extract: bytes, clock: Clock, *, last: bool) -> None:
    """Holder: whether something of an extract may leave now; last: its last bytes, after which it may have left.

    Raises ConsentDenied or Refused where it may not; where that is for good it is taken back.
    """
    with settling:
        one = made_of(holder, extract)
        if not one.undelivered:
            raise gone(one)
        keeps = what_keeps(holder, one, clock)
        if keeps is None:
            if last and one.state == "released":
                moved(holder, one, "leaving", clock())
            return
    if keeps.for_good:
        withdraw(holder, extract, keeps.error.code, clock)
    raise keeps.error


def goes_on(holder: Organisation, extract: bytes) -> None:
    """Holder: asked before each message of a window. Raises Refused for an extract that was taken back meanwhile."""
    one = made_of(holder, extract)
    if not one.undelivered:
        raise gone(one)


def note_delivered(holder: Organisation, extract: bytes, clock: Clock) -> MadeExtract:
    """Holder: the recipient has it: no copy stays here. Raises Refused for one that was taken back meanwhile."""
    with settling:
        one = made_of(holder, extract)
        if one.state == "leaving":
            one = moved(holder, one, "delivered", clock())
        if one.state != "delivered":
            raise gone(one)
        return _finished(holder, one)


def gone(one: MadeExtract) -> Refused:
    """What is said of an extract that is not on its way any more."""
    if one.state == "recalled":
        return Refused("gateway.extract_recalled", extract=one.extract.hex())
    if one.state == "withdrawn":
        return Refused("gateway.extract_withdrawn", extract=one.extract.hex())
    return Refused("gateway.extract_answered", ask=one.extract.hex())


# --- taking back --------------------------------------------------------------------------------


def withdraw(holder: Organisation, extract: bytes, code: str, clock: Clock, why: Why = "withdrawn") -> MadeExtract:
    """Holder: take back an extract that was not delivered; returns how it stands then.

    If it may have left, its recipient is to be told to delete it: the next round of recalls does so. Raises Refused
    where there is none, or it was delivered.
    """
    one = take_back(holder, extract, code, clock)
    if one.state == "recalled":
        call_back(holder, one.facts.audit, why, clock())
    return one


def take_back(holder: Organisation, extract: bytes, code: str, clock: Clock) -> MadeExtract:
    """As `withdraw`, for whoever notes the recall of what may have left: nothing more of it is sent."""
    with settling:
        one = made_of(holder, extract)
        if one.undelivered:
            one = moved(holder, one, "recalled" if may_have_left(holder, one) else "withdrawn", clock(), code)
        if one.state not in ("withdrawn", "recalled"):
            raise gone(one)
        return _finished(holder, one)


def may_have_left(holder: Organisation, one: MadeExtract) -> bool:
    """Whether the recipient of an extract may have it, or may have had it.

    One that is "released" and has no file here comes from a backup: what became of it since, nobody knows.
    """
    return one.may_have_left or (one.undelivered and not made_path(holder, one.extract).exists())


def take_back_changed(holder: Organisation, clock: Clock) -> tuple[MadeExtract, ...]:
    """Holder: take back all that is on its way and may never leave again; returns what may have left all the same.

    The ledger of now has to be known. Those that were taken back earlier are among them, as long as they are listed.
    What was cut short when it ended is finished.
    """

    def changed(extract: bytes) -> None:
        with settling:
            one = made_of(holder, extract)
            keeps = what_keeps(holder, one, clock) if one.undelivered else None
            if keeps is not None and keeps.for_good:
                take_back(holder, extract, keeps.error.code, clock)
            elif one.ended:
                _finished(holder, one)

    _each(made(holder), changed)
    return tuple(one for one in made(holder) if one.state == "recalled")


def take_back_of(holder: Organisation, dataset: str, clock: Clock) -> None:
    """Holder: rows of a table were erased or restricted: take back what is on its way with rows of before.

    No file of such an extract stands here when this returns. Raises Unavailable: then call again.
    """

    def erased(extract: bytes) -> None:
        one = as_it_stands(holder, extract, clock)
        if one is None:
            return
        if one.undelivered and (one.basis is None or _erased_since(holder, one.basis)):
            with suppress(Refused):  # it was delivered in this moment
                withdraw(holder, extract, "gateway.extract_recalled", clock, "erasure")
        elif one.ended:
            _finished(holder, one)
            if one.state == "recalled":  # its recall may not have been noted: one that was, stays as it is
                call_back(holder, one.facts.audit, "erasure", clock())

    with settling:  # one that is being released in this moment is seen when it is; a later one is judged anew
        found = made(holder)
    _each([one for one in found if one.facts.dataset == dataset], erased)


def as_it_stands(holder: Organisation, extract: bytes, clock: Clock) -> MadeExtract | None:
    """One that was listed, as it stands now: released, if its maker was killed before it said so; taken back, if its
    file is damaged by then. None: it is gone."""
    with settling:
        one = find_made(holder, extract)
        if one is None or one.state != "staged":
            return one
        whole = stands(holder, extract)
        if not whole and holder.audit.ending(one.facts.audit) != "released":
            return one
        try:
            one = note_released(holder, extract, clock)
        except Refused:  # the trail says otherwise
            remove(made_path(holder, extract))
            return one
        return one if whole else take_back(holder, extract, "gateway.extract_deleted", clock)


def finish_ended(holder: Organisation) -> None:
    """Holder: finish what was delivered or taken back by a process that was killed then: no file of it, no request."""

    def ended(extract: bytes) -> None:
        with settling:
            one = made_of(holder, extract)
            if one.ended:
                _finished(holder, one)

    _each(made(holder), ended)


def _finished(holder: Organisation, one: MadeExtract) -> MadeExtract:
    """What has ended leaves no file here, and no request that waits for it; again, nothing more."""
    remove(made_path(holder, one.extract))
    settle_wanted(holder, one.ask, one.extract, _answer(one))
    return one


def _each(found: Iterable[MadeExtract], work: Callable[[bytes], None]) -> None:
    """Do it for each; one that the disk refuses keeps no other, and is raised in the end."""
    trouble: Unavailable | None = None
    for one in found:
        try:
            work(one.extract)
        except Unavailable as error:
            trouble = trouble or error
    if trouble is not None:
        raise trouble


_ANSWER: dict[str, AskState] = {"delivered": "delivered", "withdrawn": "waiting", "recalled": "waiting"}


def _answer(one: MadeExtract) -> AskState:
    """How the request stands that an extract answers."""
    return _ANSWER.get(one.state, "released")
