"""Erasure at an organisation's home: its vault, trail, grants and keys put together for `privacy.erasure`.

Whose extracts have to be deleted comes from the trail: what was released as an extract of a dataset that held rows of
the person, under a grant that rests on consent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from medveil.gateway import granting
from medveil.gateway.organisation import Organisation
from medveil.gateway.tables import SNAPSHOTS
from privacy import erasure as erasing
from privacy.audit.views import UseSeen, of_dataset
from privacy.erasure import Erasure, Given
from privacy.erasure_check import CheckReport, check_erasure, files_below
from privacy.erasure_plan import Ground, plan_erasure
from privacy.erasure_receipt import ErasureReceipt, verify_receipt
from privacy.grants import CONSENTS
from privacy.legal_holds import all_holds
from privacy.retention import ZONE
from privacy.snapshots import Snapshots
from privacy.vault import DataKey
from wire.dates import day_at
from wire.errors import VerificationError

EXTRACT = "extract"

_PIECE = 500


def snapshots_of(organisation: Organisation) -> Snapshots:
    """The snapshots beside its vault."""
    return Snapshots(organisation.vault, organisation.vault.path.parent / SNAPSHOTS)


def plan(
    organisation: Organisation,
    person: str,
    at: int,
    *,
    ground: Ground = "request",
    reference: str = "",
    rotate_within: int = erasing.ROTATE_WITHIN,
    zone: str = ZONE,
) -> Erasure:
    """Plan the erasure of a person at instant `at`, and keep the plan; nothing is erased yet.

    person: the identifier (private) as the tables have it, in the person column or as the record id. Raises Refused
    where nothing is held of it.
    """
    vault = organisation.vault
    keyed = vault.person_id(person)
    return _planned(organisation, keyed, vault.keys_of(keyed), at, ground, reference, rotate_within, zone)


def plan_due(
    organisation: Organisation, at: int, *, rotate_within: int = erasing.ROTATE_WITHIN, zone: str = ZONE
) -> tuple[Erasure, ...]:
    """Plans for what earlier erasures restricted and no duty or hold keeps any more; empty where there is nothing.

    One that is planned already and not carried out is planned again, with what is due by now.
    """
    found = []
    for earlier in erasing.erasures(organisation.vault):
        restricted = {one.key for one in earlier.plan.restrict}
        if not restricted or not earlier.done:
            continue
        person = earlier.plan.person
        keys = [key for key in organisation.vault.keys_of(person) if key.key in restricted]
        due = _due(organisation, person, keys, at, zone)
        if due:
            reference, follows = earlier.reference, earlier.plan.erasure
            found.append(
                _planned(organisation, person, due, at, "retention-over", reference, rotate_within, zone, follows)
            )
    return tuple(found)


def apply(
    organisation: Organisation,
    name: str,
    clock: Callable[[], int],
    *,
    snapshots: Snapshots | None = None,
    zone: str = ZONE,
    fault: Callable[[str], None] = lambda step: None,
) -> Erasure:
    """Carry out an erasure that was planned, from wherever it stopped.

    snapshots: those of a gateway that runs. Raises what vault, trail and snapshots raise; then call again.
    """
    vault, trail = organisation.vault, organisation.audit
    kept = snapshots or snapshots_of(organisation)

    def recut(dataset: str, _persons: Sequence[bytes]) -> None:
        """Left out is what the vault shows no more; one that cannot be read is dropped, and made anew when needed."""
        try:
            if kept.info(dataset) is not None:
                kept.refresh(dataset)
        except VerificationError:
            kept.drop(dataset)
        kept.clear_leftovers()

    def given(datasets: Sequence[str]) -> list[Given]:
        return list(_given(organisation, datasets))

    return erasing.apply(vault, trail, name, clock, recut=recut, given=given, zone=zone, fault=fault)


def receipt_of(organisation: Organisation, name: str, at: int) -> ErasureReceipt:
    """The receipt of an erasure as it stands at instant `at`, under the newest envelope key, as a backup is."""
    return erasing.receipt(organisation.vault, name, organisation.keys.newest.envelope, at)


def rotate(organisation: Organisation, clock: Callable[[], int]) -> int:
    """Rotate the vault's key epoch, and note it in the erasures that wait for it; returns the new epoch."""
    began = clock()
    epoch = organisation.vault.rotate()
    erasing.note_rotation(organisation.vault, began, clock())
    return epoch


def check_signed(organisation: Organisation, receipt: ErasureReceipt) -> None:
    """Check that the receipt is of this organisation, under any envelope key it has had. Raises VerificationError."""
    if receipt.organisation != organisation.name:
        raise VerificationError("privacy.erasure_signature", organisation=receipt.organisation)
    keys = [generation.envelope.key for generation in organisation.keys.generations]
    signed = [key for key in keys if key.key_id() == receipt.signature.key_id]
    verify_receipt(receipt, (signed or keys)[-1])


def check(
    organisation: Organisation,
    receipt: ErasureReceipt,
    home: Path,
    *,
    files: Iterable[Path] | None = None,
    markers: Sequence[str] = (),
    besides: Sequence[Path] = (),
    server: bool = False,
) -> CheckReport:
    """Look through a home for what a receipt says is gone. besides: files not to read, such as the receipt itself.

    Raises VerificationError: not signed by this organisation.
    """
    check_signed(organisation, receipt)
    skipped = {path.resolve() for path in besides}
    found = (path for path in (files_below(home) if files is None else files) if path.resolve() not in skipped)
    kept = snapshots_of(organisation)
    datasets = {one.dataset for one in receipt.keys} | {one.dataset for one in receipt.restricted}
    held = {name: partial(kept.data_keys, name) for name in sorted(datasets) if kept.info(name) is not None}
    return check_erasure(receipt, organisation.vault, found, snapshots=held, markers=markers, server=server, root=home)


def _planned(
    organisation: Organisation,
    person: bytes,
    keys: Iterable[DataKey],
    at: int,
    ground: Ground,
    reference: str,
    rotate_within: int,
    zone: str,
    follows: bytes = b"",
) -> Erasure:
    vault, today = organisation.vault, day_at(at, zone)
    made = plan_erasure(
        organisation.rand(16), organisation.name, person, keys, all_holds(vault), today, ground, follows
    )
    return erasing.begin(vault, made, at, reference, rotate_within)


def _due(organisation: Organisation, person: bytes, keys: Sequence[DataKey], at: int, zone: str) -> list[DataKey]:
    """Those of `keys` that nothing keeps any more."""
    holds, today = all_holds(organisation.vault), day_at(at, zone)
    made = plan_erasure(bytes(16), organisation.name, person, keys, holds, today)
    going = {one.key for one in made.erase}
    return [key for key in keys if key.key in going]


def _given(organisation: Organisation, datasets: Sequence[str]) -> Iterator[Given]:
    consented = {terms.grant for terms in granting.issued_terms(organisation) if terms.legal_basis in CONSENTS}
    for dataset in datasets:
        for seen in _all_of(organisation, dataset):
            use = seen.intent.use
            if use.kind == EXTRACT and seen.ended is not None and seen.outcome == "released" and use.grant in consented:
                yield Given(use.recipient, dataset, use.grant, seen.intent.sequence, seen.ended.time)


def _all_of(organisation: Organisation, dataset: str) -> Iterator[UseSeen]:
    first = 1
    while found := of_dataset(organisation.audit, dataset, first, _PIECE):
        yield from found
        first = found[-1].intent.sequence + 1
