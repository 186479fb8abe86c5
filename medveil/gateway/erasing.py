"""Erasure at an organisation's home: its vault, trail, grants and keys put together for `privacy.erasure.steps`.

Whose extracts have to be deleted comes from the trail: what was released as an extract of a dataset that held rows of
the person, under a grant that rests on consent.

A gateway that runs does the same beside its queries, with the snapshots that they read: one erasure after the other;
those that wait for their turn hold no thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary

import msgspec

from medveil.gateway import granting
from medveil.gateway.extract_leaving import take_back_of
from medveil.gateway.organisation import Organisation
from medveil.gateway.tables import SNAPSHOTS, snapshots_of
from medveil.gateway.wallets import DATASETS as OF_WALLETS
from medveil.gateway.wallets import Wallets
from privacy.audit.views import UseSeen, of_dataset
from privacy.copies.snapshots import Snapshots
from privacy.erasure import steps as erasing
from privacy.erasure.check import CheckReport, Leftover, check_erasure, files_below
from privacy.erasure.plan import Ground, PlannedKey, plan_erasure
from privacy.erasure.recalls import recalls
from privacy.erasure.receipt import ErasureReceipt, verify_receipt
from privacy.erasure.steps import Erasure, Given
from privacy.grants.terms import CONSENTS
from privacy.legal_holds import all_holds
from privacy.retention import ZONE
from privacy.vault import DataKey
from wire.dates import day_at
from wire.errors import Refused, VerificationError

EXTRACT = "extract"

_PIECE = 500
_carrying_out = Lock()
"""Held by the erasure that is carried out: two callers for one plan follow one another."""
_turns: WeakKeyDictionary[Organisation, asyncio.Lock] = WeakKeyDictionary()
"""Of each home whose gateway runs: jobs and the upkeep wait here, before they take a thread."""


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

    person: the identifier (private) of the person column, or the record id, in any spelling
    (`privacy.vault.person_names`). Raises Refused where nothing is held of it.
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
    return tuple(
        _planned(
            organisation,
            organisation.vault.person_id(earlier.plan.person),
            keys,
            at,
            "retention-over",
            earlier.reference,
            rotate_within,
            zone,
            earlier.plan.erasure,
        )
        for earlier, keys in _all_due(organisation, at, zone)
    )


def due(organisation: Organisation, at: int, *, zone: str = ZONE) -> tuple[tuple[Erasure, tuple[PlannedKey, ...]], ...]:
    """What `plan_due` would plan at instant `at`, each with the erasure that restricted it. Nothing is kept of it."""
    return tuple(
        (earlier, tuple(PlannedKey(key.key, key.dataset, key.rows, (), 0) for key in keys))
        for earlier, keys in _all_due(organisation, at, zone)
    )


def _all_due(organisation: Organisation, at: int, zone: str) -> Iterator[tuple[Erasure, list[DataKey]]]:
    for earlier in erasing.erasures(organisation.vault):
        restricted = {one.key for one in earlier.plan.restrict}
        if not restricted or not earlier.done:
            continue
        person = organisation.vault.person_id(earlier.plan.person)
        keys = [key for key in organisation.vault.keys_of(person) if key.key in restricted]
        found = _due(organisation, person, keys, at, zone)
        if found:
            yield earlier, found


def apply(
    organisation: Organisation,
    name: str,
    clock: Callable[[], int],
    *,
    snapshots: Snapshots | None = None,
    wallets: Wallets | None = None,
    zone: str = ZONE,
    fault: Callable[[str], None] = lambda step: None,
) -> Erasure:
    """Carry out an erasure that was planned, from wherever it stopped.

    snapshots, wallets: those of a gateway that runs. Raises what vault, trail, snapshots and wallets raise; then call
    again.
    """
    vault, trail = organisation.vault, organisation.audit
    kept = snapshots or snapshots_of(organisation)

    def recut(dataset: str, _persons: Sequence[bytes]) -> None:
        """Left out is what the vault shows no more; one that cannot be read is dropped, and made anew when needed.

        An extract with rows of before that is not delivered yet goes no further.
        """
        if dataset in OF_WALLETS:
            (wallets or Wallets(organisation)).sweep()
            return
        try:
            if kept.info(dataset) is not None:
                kept.refresh(dataset)
        except (VerificationError, Refused):  # Refused: loaded over since, and to have no snapshot any more
            kept.drop(dataset)
        kept.clear_leftovers()
        take_back_of(organisation, dataset, clock)

    def given(datasets: Sequence[str]) -> list[Given]:
        return list(_given(organisation, datasets))

    with _carrying_out:
        return erasing.apply(vault, trail, name, clock, recut=recut, given=given, zone=zone, fault=fault)


async def carry_out(
    organisation: Organisation, name: str, clock: Callable[[], int], snapshots: Snapshots, wallets: Wallets
) -> Erasure:
    """`apply` beside queries, in a thread, when it is its turn. Raises as that."""
    async with _turn(organisation):
        return await asyncio.to_thread(apply, organisation, name, clock, snapshots=snapshots, wallets=wallets)


def receipt_of(organisation: Organisation, name: str, at: int) -> ErasureReceipt:
    """The receipt of an erasure as it stands at instant `at`, under the newest envelope key, as a backup is."""
    return erasing.receipt(organisation.vault, name, organisation.keys.newest.envelope, at)


def rotate(organisation: Organisation, clock: Callable[[], int]) -> int:
    """Rotate the vault's key epoch, and note it in the erasures that wait for it; returns the new epoch."""
    began = clock()
    epoch = organisation.vault.rotate()
    erasing.note_rotation(organisation.vault, began, clock())
    return epoch


async def rotate_beside(organisation: Organisation, clock: Callable[[], int]) -> int:
    """`rotate` beside queries, in a thread, when no erasure is carried out. Raises as that."""
    async with _turn(organisation):
        return await asyncio.to_thread(rotate, organisation, clock)


def _turn(organisation: Organisation) -> asyncio.Lock:
    return _turns.setdefault(organisation, asyncio.Lock())


def rotation_due(organisation: Organisation) -> int:
    """The instant by which the vault's key epoch has to be rotated for what was erased; 0 for no need."""
    return erasing.rotation_due(organisation.vault)


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
    snapshots: Snapshots | None = None,
) -> CheckReport:
    """Look through a home for what a receipt says is gone. besides: files not to read, such as the receipt itself.

    snapshots: those of a gateway that runs.
    Raises VerificationError: not signed by this organisation.
    """
    check_signed(organisation, receipt)
    skipped = {path.resolve() for path in besides}
    looked_into = files_below(home, *_elsewhere(organisation, home)) if files is None else files
    found = (path for path in looked_into if path.is_symlink() or path.resolve() not in skipped)
    kept = snapshots or snapshots_of(organisation)
    datasets = {one.dataset for one in receipt.keys} | {one.dataset for one in receipt.restricted}
    held = {name: partial(kept.data_keys, name) for name in sorted(datasets) if kept.info(name) is not None}
    server = organisation.vault.engine == "postgresql"
    report = check_erasure(
        receipt, organisation.vault, found, snapshots=held, markers=markers, server=server, root=home
    )
    lost = [Leftover("privacy.leftover_wallet", {"folder": one.name}) for one in Wallets(organisation).lost()]
    return msgspec.structs.replace(report, leftovers=(*report.leftovers, *lost))


def _elsewhere(organisation: Organisation, home: Path) -> list[Path]:
    """The folders of vault and snapshots, where links lead to them out of the home."""
    vault = organisation.vault.path
    places = [place.resolve() for place in (vault, vault.parent / SNAPSHOTS)]
    return [place for place in places if place.is_dir() and not place.is_relative_to(home.resolve())]


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
    """Extracts that rest on consent, those that are being made too: whether they were released shows later."""
    consented = {terms.grant for terms in granting.issued_terms(organisation) if terms.legal_basis in CONSENTS}
    recalled = {one.entry: one for one in recalls(organisation.vault)}
    for dataset in datasets:
        for seen in _all_of(organisation, dataset):
            use, entry = seen.intent.use, seen.intent.sequence
            if use.kind != EXTRACT or use.grant not in consented or seen.outcome not in ("", "released"):
                continue
            known = recalled.get(entry)
            told, deleted = (known.told, known.deleted) if known is not None else (0, 0)
            released = seen.ended.time if seen.ended is not None else 0
            if use.allowed:
                yield Given(use.recipient, dataset, use.grant, entry, released, told, deleted)


def _all_of(organisation: Organisation, dataset: str) -> Iterator[UseSeen]:
    first = 1
    while found := of_dataset(organisation.audit, dataset, first, _PIECE):
        yield from found
        first = found[-1].intent.sequence + 1
