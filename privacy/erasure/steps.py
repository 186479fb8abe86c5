"""Erasing one person's data: restart it anywhere, and it ends with nothing decryptable and a receipt.

    1  the plan is kept                      a private document of the vault; from the first step on a second one,
                                             that it was begun, which a restore takes over when the trail is older
    2  intent in the audit trail             one for each dataset; no log, no erasure
    3  all its keys restricted               in one transaction: a read, query or snapshot shows all rows or none
    4  keys destroyed that nothing keeps     register, then one transaction of the vault (`Vault.destroy`)
    5  snapshots cut anew without them       one dataset after the other
    6  recipients of extracts to be told     those whose grant rests on consent
    7  outcome in the audit trail
    later, by stated dates: recipients told and their acknowledgements, rotation of the key epoch

Each step may be done twice. A process that is killed leaves the plan; `apply` takes it up again, `unfinished` lists
what waits. What cannot be done now (a token that does not answer) raises, and the erasure goes on when it is called
again. A plan that lacks rows, since they came after it was made, is refused before anything is written; of those that
come while it is carried out, `unplanned` says how many there are. Holds are looked at once more just before keys are
destroyed, at each attempt: one that was placed meanwhile keeps them, and none is placed in between.

Rotation makes older copies of the vault useless: whoever has such a copy and no copy of the key file of then cannot
unwrap what is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock
from typing import Annotated, Protocol

import msgspec

from privacy.audit import AuditTrail, EntryId, own_use
from privacy.erasure.plan import ErasurePlan, HeldKey, PlannedKey, still_erasable
from privacy.erasure.receipt import (
    BEYOND,
    MARK_BYTES,
    RECEIPT_HEADER,
    UNSIGNED,
    DestroyedKey,
    ErasureReceipt,
    Told,
    Trace,
    sign_receipt,
)
from privacy.grants.terms import Reference
from privacy.legal_holds import all_holds, fits, settling
from privacy.retention import ZONE
from wire.canonical import Wire, decode, encode
from wire.dates import Instant, day_at
from wire.domains import ERASURE_INTENT, digest
from wire.errors import Refused
from wire.identifiers import Name
from wire.signing import Signer

KIND = "erasure"
"""The kind of document that keeps an erasure, under its id in hex."""
BEGUN = "erasure-begun"
"""The kind of document that says since which instant one is carried out, under its id in hex; none: a mere plan."""
DAY_MS = 86_400_000
ROTATE_WITHIN = 30 * DAY_MS
"""Milliseconds after which the key epoch is to be rotated, unless the caller says sooner."""


class DataKey(HeldKey, Protocol):
    """What an erasure looks at of a data key: `privacy.vault.DataKey`."""

    @property
    def state(self) -> str:
        """active or restricted."""
        ...


class ErasableVault(Protocol):
    """What an erasure needs of `privacy.vault.Vault`."""

    def restrict(self, keys: Sequence[bytes]) -> int:
        """No read shows the rows of these keys from now on."""
        ...

    def destroy(self, keys: Sequence[bytes], receipt: bytes) -> int:
        """Destroy these keys with their rows."""
        ...

    def marks(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The first bytes of each key's wrap, of those that are there."""
        ...

    def registered(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """Those of these keys that the register of erasures names: nothing keeps them any more."""
        ...

    def keys_of(self, person: bytes) -> Sequence[DataKey]:
        """The data keys of a person, by keyed id."""
        ...

    def person_id(self, person: bytes) -> bytes:
        """The keyed id of a person, by one that it has or had before."""
        ...

    def put_document(self, kind: str, name: str, content: bytes) -> None:
        """Keep a document."""
        ...

    def document(self, kind: str, name: str) -> bytes:
        """A document's content."""
        ...

    def find_document(self, kind: str, name: str) -> bytes | None:
        """The same; None where there is none."""
        ...

    def documents(self, kind: str) -> tuple[str, ...]:
        """Names of the documents of one kind: each is unsealed for it."""
        ...

    def remove_document(self, kind: str, name: str) -> bool:
        """Delete a document; whether there was one."""
        ...


_writing = RLock()
"""Held while an erasure is read and written again: jobs, recalls and people change it side by side."""

Recut = Callable[[str, Sequence[bytes]], None]
"""(dataset, keyed persons): cut the dataset's snapshot anew without what is erased or restricted of them."""


class Given(Wire, frozen=True, tag="privacy.extract_given"):
    """An extract that rests on consent and may hold rows of the person.

    released: 0 while its use is under way. told, deleted: as the book of recalls (`privacy.erasure.recalls`) has them;
    instants, 0 for not yet.
    """

    recipient: Name
    dataset: Name
    grant: Name
    entry: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    released: Instant
    told: Instant = 0
    deleted: Instant = 0


class Erasure(Wire, frozen=True, tag="privacy.erasure"):
    """An erasure and how far it came. Private. Instants are 0 for what is not done yet.

    reference: the person's request, as filed. restricted: since when nothing shows the person. marks: of the keys that
    are destroyed, in the plan's order, of the last two wraps of each; marked: once they are known and holds were looked
    at again, which each attempt does anew. recut: the datasets whose snapshots are cut anew. issues: how many
    receipts were made.
    """

    plan: ErasurePlan
    reference: Reference
    requested: Instant
    rotate_by: Instant
    traces: tuple[Trace, ...] = ()
    marked: bool = False
    marks: tuple[bytes, ...] = ()
    destroyed: Instant = 0
    restricted: Instant = 0
    recut: tuple[Name, ...] = ()
    recut_at: Instant = 0
    given: tuple[Given, ...] = ()
    listed: bool = False
    done: Instant = 0
    rotated: Instant = 0
    issues: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0

    @property
    def name(self) -> str:
        """Its id in hex: the name of its document."""
        return self.plan.erasure.hex()


# ---- what is kept


def begin(
    vault: ErasableVault, plan: ErasurePlan, at: int, reference: str = "", rotate_within: int = ROTATE_WITHIN
) -> Erasure:
    """Keep a plan, so that `apply` carries it out. Again with the same plan it changes nothing.

    Raises Refused for another plan of the same id, for one with nothing to do, and for a reference that is too long.
    """
    if not fits(reference):
        raise Refused("privacy.erasure_form", field="reference")
    made = Erasure(plan, reference, at, at + rotate_within)
    kept = vault.find_document(KIND, made.name)
    if kept is not None:
        found = decode(Erasure, kept)
        if found.plan != plan:
            raise Refused("privacy.erasure_exists", erasure=made.name)
        return found
    if not plan.erase and not plan.restrict:
        raise Refused("privacy.nothing_to_erase", organisation=plan.organisation)
    _keep(vault, made)
    return made


def erasure(vault: ErasableVault, name: str) -> Erasure:
    """The erasure of that id (hex). Raises Refused where there is none."""
    found = vault.find_document(KIND, name)
    if found is None:
        raise Refused("privacy.no_erasure", erasure=name[:64])
    return decode(Erasure, found)


def erasures(vault: ErasableVault) -> tuple[Erasure, ...]:
    """All of them, the oldest first."""
    found = (decode(Erasure, vault.document(KIND, name)) for name in vault.documents(KIND))
    return tuple(sorted(found, key=lambda one: (one.requested, one.plan.erasure)))


def unfinished(vault: ErasableVault, trail: AuditTrail) -> tuple[Erasure, ...]:
    """Those that were begun, and that `apply` has to go on with; not plans that nobody began to carry out."""
    noted = set(vault.documents(BEGUN))
    waiting = (one for one in erasures(vault) if not one.done)
    return tuple(
        one
        for one in waiting
        if one.name in noted or one.traces or one.marks or one.restricted or any(_begun(trail, one.plan))
    )


def note_begun(vault: ErasableVault, name: str, at: int) -> None:
    """Note that the erasure `name` is carried out since instant `at`: it is `unfinished` until it is done."""
    if vault.find_document(BEGUN, name) is None:
        vault.put_document(BEGUN, name, at.to_bytes(8, "big"))


def begun(vault: ErasableVault) -> list[tuple[Erasure, int]]:
    """Erasures that are or were carried out, the oldest first, and since which instant; those of earlier versions since
    they restricted."""
    noted = {name: int.from_bytes(vault.document(BEGUN, name), "big") for name in vault.documents(BEGUN)}
    found = ((one, noted.get(one.name, one.restricted)) for one in erasures(vault))
    return [(one, at) for one, at in found if at]


def under_way(vault: ErasableVault) -> frozenset[str]:
    """Names of the erasures that were begun and are not done."""
    return frozenset(one.name for one, _ in begun(vault) if not one.done)


def unplanned(vault: ErasableVault, made: Erasure) -> int:
    """How many rows of the person may be used that the plan does not know: they came after it was made."""
    return sum(key.rows for key in _later(vault, made.plan))


# ---- what is done


def apply(
    vault: ErasableVault,
    trail: AuditTrail,
    name: str,
    clock: Callable[[], int],
    *,
    recut: Recut,
    given: Callable[[Sequence[str]], Sequence[Given]],
    zone: str = ZONE,
    fault: Callable[[str], None] = lambda step: None,
) -> Erasure:
    """Carry out the erasure `name`, from wherever it stopped; returns it as it is then.

    clock: instants. given: the extracts of these datasets that rest on consent. fault: called with the name of each
    step that is done, for tests that stop there. Raises Refused, and nothing is erased, where rows came after the plan
    was made; what vault and trail raise: then call again.
    """
    made = erasure(vault, name)
    plan = made.plan

    def keep(**changes: object) -> Erasure:
        return _changed(vault, name, **changes)

    if made.done:
        return made
    if not made.traces:
        _check_current(vault, trail, made)
        note_begun(vault, name, clock())
        fault("begun")
        traces = []
        for dataset in plan.datasets:
            about = _about(plan, dataset)
            use = own_use(plan.organisation, dataset, "erasure", about)
            traces.append(Trace(dataset, trail.intent(use, about[:16], persons=[plan.person])))
            fault("intent")
        made = keep(traces=tuple(traces))
        fault("traces")
    if not made.restricted:
        marks, known = vault.marks([one.key for one in plan.erase]), made.marks or [b""] * len(plan.erase)
        both = (_both(mark, marks.get(one.key, b"")) for one, mark in zip(plan.erase, known, strict=True))
        made = keep(marks=tuple(both))
        fault("marks")
        every = [one.key for one in (*plan.erase, *plan.restrict)]
        vault.restrict(list(vault.marks(every)))  # another erasure may have taken some
        fault("restrict")
        made = keep(restricted=clock())
        fault("restricted")
    if not made.destroyed:
        with settling:
            made = _reconsidered(vault, made, day_at(clock(), zone))
            plan = made.plan
            fault("marked")
            vault.destroy([one.key for one in plan.erase], tombstone(plan.erasure))
        fault("destroy")
        made = keep(destroyed=clock())
        fault("destroyed")
    for dataset in plan.datasets:
        if dataset not in made.recut:
            recut(dataset, [plan.person])
            fault("recut")
            made = keep(recut=(*made.recut, dataset), recut_at=clock())
            fault("recut kept")
    if not made.listed:
        made = keep(given=tuple(given(plan.datasets)), listed=True)
        fault("given")
    for trace in made.traces:
        if trail.ending(trace.entry) == "":
            trail.outcome(trace.entry, "done")
            fault("outcome")
    made = keep(done=clock())
    fault("done")
    return made


def _about(plan: ErasurePlan, dataset: str) -> bytes:
    """What the intent for one dataset is about (32 bytes); it begins with the intent's nonce."""
    return digest(ERASURE_INTENT, plan.erasure, dataset.encode())


def _begun(trail: AuditTrail, plan: ErasurePlan) -> list[EntryId]:
    """The open intents of an erasure that did not come to note them: of a process that was killed."""
    found = (trail.begun(_about(plan, dataset)[:16]) for dataset in plan.datasets)
    return [entry for entry in found if entry is not None]


def _later(vault: ErasableVault, plan: ErasurePlan) -> list[DataKey]:
    """Data keys of the person whose rows may be used and that the plan does not know."""
    known = {one.key for one in (*plan.erase, *plan.restrict)}
    return [key for key in vault.keys_of(plan.person) if key.key not in known and key.state == "active"]


def _check_current(vault: ErasableVault, trail: AuditTrail, made: Erasure) -> None:
    """Raises Refused where the plan of a whole person lacks some of the person's keys; what was begun of it has failed.

    One that erases what an earlier one restricted is of those keys alone; and one that had begun with the keys, before
    a restore say, goes on: rows that came after that are `unplanned`.
    """
    touched = made.marks or made.restricted or made.destroyed
    later = [] if made.plan.follows or touched else _later(vault, made.plan)
    if not later:
        return
    for entry in _begun(trail, made.plan):
        trail.outcome(entry, "failed")
    vault.remove_document(BEGUN, made.name)
    datasets = ", ".join(sorted({key.dataset for key in later}))
    raise Refused("privacy.erasure_stale", erasure=made.name, rows=sum(key.rows for key in later), datasets=datasets)


def _reconsidered(vault: ErasableVault, made: Erasure, today: int) -> Erasure:
    """The erasure as it is to be carried out on civil day `today`, kept.

    Days may lie between two attempts: a hold that was placed meanwhile keeps what is still there, and marks are of the
    wraps as they are now. What an attempt destroyed, or promised to the register, stays with its mark of then.
    """
    plan, before = made.plan, dict(zip([one.key for one in made.plan.erase], made.marks, strict=False))
    there = vault.marks([one.key for one in plan.erase])
    gone = vault.registered(list(there)) | {one.key for one in plan.erase if one.key not in there}
    left = tuple(one for one in plan.erase if one.key not in gone)
    open_still = msgspec.structs.replace(plan, erase=left, person=vault.person_id(plan.person))
    decided = still_erasable(open_still, all_holds(vault), today)
    going = gone | {one.key for one in decided.erase}
    erase = tuple(one for one in plan.erase if one.key in going)
    marks = tuple(_both(before.get(one.key, b""), there.get(one.key, b"")) for one in erase)
    plan = msgspec.structs.replace(decided, erase=erase)
    return _changed(vault, made.name, plan=plan, marks=marks, marked=True)


def _both(before: bytes, now: bytes) -> bytes:
    """The marks of a key's last two wraps. now: of the present one, or empty."""
    known = {before[start : start + MARK_BYTES] for start in range(0, len(before), MARK_BYTES)}
    return before if not now or now in known else (before + now)[-2 * MARK_BYTES :]


def tombstone(erasure: bytes) -> bytes:
    """The 32 bytes that the vault's register and tombstones hold of an erasure: they point to it, and say nothing."""
    return digest(ERASURE_INTENT, erasure)


def rotation_due(vault: ErasableVault) -> int:
    """The instant by which the key epoch has to be rotated for the erasures that were carried out; 0 for no need."""
    waiting = [one.rotate_by for one in erasures(vault) if one.destroyed and one.plan.erase and not one.rotated]
    return min(waiting, default=0)


def note_rotation(vault: ErasableVault, began: int, at: int) -> int:
    """Note that a rotation of the key epoch, begun at instant `began`, has ended at `at`; for how many erasures.

    Keys that were destroyed before it began were not wrapped again: what held them is useless now.
    """
    count = 0
    for one in erasures(vault):
        if one.destroyed and one.destroyed <= began and not one.rotated:
            _changed(vault, one.name, rotated=at)
            count += 1
    return count


def restored(vault: ErasableVault, *, rotate_again: bool) -> None:
    """After a restore: destroy what these erasures destroyed, where it is back; what was under way goes on.

    rotate_again: key epochs that were destroyed are back as well; the rotation is due again by the dates of before.
    Whether the audit trail has what was under way is not known: `apply` looks for its intents anew.
    """
    for one in erasures(vault):
        if one.destroyed:
            back = list(vault.marks([key.key for key in one.plan.erase]))
            if back:
                vault.destroy(back, tombstone(one.plan.erasure))
        if one.rotated and rotate_again:
            _changed(vault, one.name, rotated=0)
        if one.traces and not one.done:
            note_begun(vault, one.name, one.requested)
            _changed(vault, one.name, traces=())


# ---- recipients


def note_given(vault: ErasableVault, entry: int, *, released: int = 0, told: int = 0, deleted: int = 0) -> None:
    """Note instants of the extract that the use `entry` released, in every erasure that lists it; 0 leaves what is."""

    def noted(given: Given) -> Given:
        if given.entry != entry:
            return given
        instants = {"released": released, "told": told, "deleted": deleted}
        return msgspec.structs.replace(given, **{name: getattr(given, name) or at for name, at in instants.items()})

    with _writing:
        for one in erasures(vault):
            changed = tuple(noted(given) for given in one.given)
            if changed != one.given:
                _changed(vault, one.name, given=changed)


def drop_given(vault: ErasableVault, entry: int) -> None:
    """Note that the use `entry`, which was under way when extracts were listed, released nothing."""
    with _writing:
        for one in erasures(vault):
            left = tuple(given for given in one.given if given.entry != entry or given.released)
            if left != one.given:
                _changed(vault, one.name, given=left)


# ---- the receipt


def receipt(vault: ErasableVault, name: str, signer: Signer, at: int) -> ErasureReceipt:
    """The receipt of an erasure as it stands at instant `at`, signed; a later one has a higher issue.

    Raises Refused before it is carried out.
    """
    with _writing:
        one = erasure(vault, name)
        if not one.done:
            raise Refused("privacy.erasure_under_way", erasure=one.name)
        one = _changed(vault, name, issues=one.issues + 1)
    plan = one.plan
    made = ErasureReceipt(
        RECEIPT_HEADER,
        plan.erasure,
        plan.organisation,
        one.issues,
        plan.ground,
        one.reference,
        plan.person,
        plan.day,
        one.requested,
        one.destroyed if plan.erase else 0,
        tuple(
            DestroyedKey(key.key, key.dataset, key.rows, mark) for key, mark in zip(plan.erase, one.marks, strict=True)
        ),
        plan.restrict,
        one.recut_at,
        one.rotate_by if plan.erase else 0,
        one.rotated,
        one.traces,
        tuple(Told(to.recipient, to.dataset, to.grant, to.entry, to.told, to.deleted) for to in one.given),
        BEYOND,
        at,
        UNSIGNED,
    )
    return sign_receipt(made, signer)


def restricted_by(vault: ErasableVault) -> dict[bytes, tuple[Erasure, PlannedKey]]:
    """By key id: the erasure that restricted it last, for `plan_erasure` when its time has come."""
    return {one.key: (made, one) for made in erasures(vault) for one in made.plan.restrict}


def _changed(vault: ErasableVault, name: str, **changes: object) -> Erasure:
    """The erasure with these fields changed, kept; the others are as they stand by now."""
    with _writing:
        made = msgspec.structs.replace(erasure(vault, name), **changes)
        _keep(vault, made)
        return made


def _keep(vault: ErasableVault, made: Erasure) -> None:
    vault.put_document(KIND, made.name, encode(made))
