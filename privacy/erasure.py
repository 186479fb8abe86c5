"""Erasing one person's data: restart it anywhere, and it ends with nothing decryptable and a receipt.

    1  the plan is kept                      a private document of the vault
    2  intent in the audit trail             one for each dataset; no log, no erasure
    3  keys destroyed                        register, then one transaction of the vault (`Vault.destroy`)
    4  keys restricted that must be kept     from here on no read, query or snapshot shows their rows
    5  snapshots cut anew without them       one dataset after the other
    6  recipients of extracts to be told     those whose grant rests on consent
    7  outcome in the audit trail
    later, by stated dates: recipients told and their acknowledgements, rotation of the key epoch

Each step may be done twice. A process that is killed leaves the plan; `apply` takes it up again, `unfinished` lists
what waits. What cannot be done now (a token that does not answer) raises, and the erasure goes on when it is called
again. Holds are looked at once more just before keys are destroyed: one that was placed meanwhile keeps them.

Rotation makes older copies of the vault useless: whoever has such a copy and no copy of the key file of then cannot
unwrap what is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Protocol

import msgspec

from privacy.audit import AuditTrail, own_use
from privacy.erasure_plan import ErasurePlan, PlannedKey, still_erasable
from privacy.erasure_receipt import (
    BEYOND,
    NOTICE_HEADER,
    RECEIPT_HEADER,
    UNSIGNED,
    DeleteNotice,
    Deletion,
    DestroyedKey,
    ErasureReceipt,
    Told,
    Trace,
    sign_notice,
    sign_receipt,
)
from privacy.grants import Reference
from privacy.legal_holds import all_holds
from privacy.retention import ZONE
from wire.canonical import Wire, decode, encode
from wire.dates import Instant, day_at
from wire.domains import ERASURE_INTENT, digest
from wire.errors import Refused
from wire.identifiers import Name
from wire.signing import Signer

KIND = "erasure"
"""The kind of document that keeps an erasure, under its id in hex."""
DAY_MS = 86_400_000
ROTATE_WITHIN = 30 * DAY_MS
"""Milliseconds after which the key epoch is to be rotated, unless the caller says sooner."""
DELETE_WITHIN = 15 * DAY_MS
"""Milliseconds that a recipient is given to delete an extract."""


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

    def put_document(self, kind: str, name: str, content: bytes) -> None:
        """Keep a document."""
        ...

    def document(self, kind: str, name: str) -> bytes:
        """A document's content."""
        ...

    def documents(self, kind: str) -> tuple[str, ...]:
        """Names of the documents of one kind."""
        ...


Recut = Callable[[str, Sequence[bytes]], None]
"""(dataset, keyed persons): cut the dataset's snapshot anew without what is erased or restricted of them."""


class Given(Wire, frozen=True, tag="privacy.extract_given"):
    """An extract that rests on consent and may hold rows of the person. told, deleted: instants, 0 for not yet."""

    recipient: Name
    dataset: Name
    grant: Name
    entry: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    released: Instant
    told: Instant = 0
    deleted: Instant = 0


class Erasure(Wire, frozen=True, tag="privacy.erasure"):
    """An erasure and how far it came. Private. Instants are 0 for what is not done yet.

    reference: the person's request, as filed. marks: of the keys that are destroyed, in the plan's order; marked: once
    they are known and holds were looked at again. recut: the datasets whose snapshots are cut anew. issues: how many
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

    Raises Refused for another plan of the same id, and for one with nothing to do.
    """
    made = Erasure(plan, reference, at, at + rotate_within)
    if made.name in vault.documents(KIND):
        found = erasure(vault, made.name)
        if found.plan != plan:
            raise Refused("privacy.erasure_exists", erasure=made.name)
        return found
    if not plan.erase and not plan.restrict:
        raise Refused("privacy.nothing_to_erase", organisation=plan.organisation)
    _keep(vault, made)
    return made


def erasure(vault: ErasableVault, name: str) -> Erasure:
    """The erasure of that id (hex). Raises Refused where there is none."""
    if name not in vault.documents(KIND):
        raise Refused("privacy.no_erasure", erasure=name[:64])
    return decode(Erasure, vault.document(KIND, name))


def erasures(vault: ErasableVault) -> tuple[Erasure, ...]:
    """All of them, the oldest first."""
    found = (decode(Erasure, vault.document(KIND, name)) for name in vault.documents(KIND))
    return tuple(sorted(found, key=lambda one: (one.requested, one.plan.erasure)))


def unfinished(vault: ErasableVault) -> tuple[Erasure, ...]:
    """Those that were begun, and that `apply` has to go on with; not plans that nobody began to carry out."""
    return tuple(one for one in erasures(vault) if one.traces and not one.done)


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
    step that is done, for tests that stop there. Raises what vault and trail raise; then call again.
    """
    made = erasure(vault, name)
    plan = made.plan

    def keep(**changes: object) -> Erasure:
        changed = msgspec.structs.replace(made, **changes)
        _keep(vault, changed)
        return changed

    if made.done:
        return made
    if not made.traces:
        traces = []
        for dataset in plan.datasets:
            about = digest(ERASURE_INTENT, plan.erasure, dataset.encode())
            use = own_use(plan.organisation, dataset, "erasure", about)
            traces.append(Trace(dataset, trail.intent(use, about[:16], persons=[plan.person])))
            fault("intent")
        made = keep(traces=tuple(traces))
        fault("traces")
    if not made.marked:
        plan = still_erasable(plan, all_holds(vault), day_at(clock(), zone))
        marks = vault.marks([one.key for one in plan.erase])
        made = keep(plan=plan, marks=tuple(marks.get(one.key, b"") for one in plan.erase), marked=True)
        fault("marks")
    if not made.destroyed:
        vault.destroy([one.key for one in plan.erase], tombstone(plan.erasure))
        fault("destroy")
        made = keep(destroyed=clock())
        fault("destroyed")
    if not made.restricted:
        vault.restrict(list(vault.marks([one.key for one in plan.restrict])))  # another erasure may have taken some
        fault("restrict")
        made = keep(restricted=clock())
        fault("restricted")
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
            _keep(vault, msgspec.structs.replace(one, rotated=at))
            count += 1
    return count


# ---- recipients


def notices(vault: ErasableVault, signer: Signer, at: int, within: int = DELETE_WITHIN) -> tuple[DeleteNotice, ...]:
    """What recipients have still to be told or have not acknowledged, signed: the same extract in the same words."""
    found = []
    for one in erasures(vault):
        for given in one.given:
            if not given.deleted:
                found.append(sign_notice(_notice(one, given, (given.told or at) + within), signer))
    return tuple(found)


def told(vault: ErasableVault, notice: DeleteNotice, at: int) -> None:
    """Note that a notice has reached its recipient. Again, it changes nothing. Raises Refused for one not of here."""
    _note(vault, notice.id(), notice.erasure.hex(), "told", at)


def acknowledged(vault: ErasableVault, deletion: Deletion) -> None:
    """Note a recipient's word, which `verify_deletion` has checked. Raises Refused for one to no notice of here."""
    for one in erasures(vault):
        for given in one.given:
            if _notice(one, given, 0).id() == deletion.notice and given.recipient == deletion.recipient:
                _note(vault, deletion.notice, one.name, "deleted", deletion.at)
                return
    raise Refused("privacy.no_notice", organisation=deletion.recipient)


def _note(vault: ErasableVault, notice: bytes, name: str, field: str, at: int) -> None:
    one = erasure(vault, name)
    changed = []
    for given in one.given:
        ours = _notice(one, given, 0).id() == notice
        if ours and not getattr(given, field):
            given = msgspec.structs.replace(given, **{field: at})
        changed.append((ours, given))
    if not any(ours for ours, _ in changed):
        raise Refused("privacy.no_notice", organisation=one.plan.organisation)
    _keep(vault, msgspec.structs.replace(one, given=tuple(given for _, given in changed)))


def _notice(one: Erasure, given: Given, delete_by: int) -> DeleteNotice:
    return DeleteNotice(
        NOTICE_HEADER,
        one.plan.erasure,
        one.plan.organisation,
        given.recipient,
        given.dataset,
        given.grant,
        given.entry,
        given.released,
        delete_by,
        UNSIGNED,
    )


# ---- the receipt


def receipt(vault: ErasableVault, name: str, signer: Signer, at: int) -> ErasureReceipt:
    """The receipt of an erasure as it stands at instant `at`, signed; a later one has a higher issue.

    Raises Refused before it is carried out.
    """
    one = erasure(vault, name)
    if not one.done:
        raise Refused("privacy.erasure_under_way", erasure=one.name)
    one = msgspec.structs.replace(one, issues=one.issues + 1)
    _keep(vault, one)
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


def _keep(vault: ErasableVault, made: Erasure) -> None:
    vault.put_document(KIND, made.name, encode(made))
