"""The evidence folder: what `medveil verify` checks offline, written by one organisation and signed by it.

    ledger.evidence          all final history, in pieces where one file cannot hold it
    releases/query-1         what queries released          presentations/bill-1   proofs about bills
    models/<name>            reviewed models, no weights
    access/<member>-<first>  batches of access chains        receipts/<member>-<n>  receipts of envelopes
    manifest.json            every file's hash, signed by the exporter

The folder appears whole or not at all. Written with `collect`, it holds what the other members show
(`medveil.gateway.collecting`) and should pass every check; without, it holds the exporter's own part.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from ledger.contracts import access, bills, models, queries
from ledger.export import EXPORT
from ledger.pieces import BLOCKS, write_whole
from ledger.receipts import Receipt, verify_receipt
from medveil.gateway.accounting import anchor_audit
from medveil.gateway.collecting import (
    SUPERVISORS,
    AccessWanted,
    Asked,
    Evidence,
    EvidenceRequest,
    Gap,
    booked_until,
    own_envelopes,
    receipts_of,
    results,
)
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.long_work import at_length
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.query_board import read_board
from medveil.gateway.steps import Steps
from medveil.verification.kinds import MODEL, ModelEvidence
from mpc.query import SUMS
from mpc.release import Release, verify_release
from mpc.scoring import ScoreModel, check_model, model_digest
from privacy.audit import AccessBatch, verify_batch
from wire.canonical import Wire, encode
from wire.checkpoint import parse_note
from wire.domains import PRESENTATION, digest
from wire.errors import ProtocolAbort, Refused, Unavailable
from wire.evidence import SUFFIX, Header, write_manifest
from wire.identifiers import Handle, Name
from zkp import bill_limit
from zkp.bill_limit import Bill, Presentation

_WHOLE = "whole"
_LEDGER = "ledger"
_BEGUN = ".partial"


class _Sessions(Wire, frozen=True, tag="medveil.evidence_sessions"):
    """Whom an export asks, each in a session of its own."""

    sessions: tuple[tuple[Name, Handle], ...]


class _ChainEnd(Wire, frozen=True, tag="medveil.chain_end"):
    """Where a member's access chain ends in the exported ledger; 0 for one that has none."""

    organisation: Name
    last: Annotated[int, msgspec.Meta(ge=0)]


class _Ledger(Wire, frozen=True, tag="medveil.evidence_ledger"):
    """The ledger is written: its files, how far it reaches, and who had answered by then."""

    files: tuple[tuple[str, str], ...]
    size: int
    ends: tuple[_ChainEnd, ...]
    gaps: tuple[Gap, ...]


class Exported(Wire, frozen=True, tag="medveil.exported"):
    """An evidence folder that stands. gaps: members whose part is missing, and why."""

    files: int
    height: int
    gaps: tuple[Gap, ...]


async def export_folder(
    organisation: Organisation, folder: Path, steps: Steps, clock: Clock, collect: bool = True
) -> Exported:
    """Write the evidence folder `folder`, which must not exist; with `collect`, with what the other members show.

    Raises Refused where the organisation may not collect from others or something else stands at `folder`,
    Unavailable (disk, ledger). Members that do not answer are no error: `Exported.gaps` names them.
    """
    sessions = await _sessions(organisation, steps, collect)
    begun = folder.with_name("." + folder.name + _BEGUN)
    try:
        if folder.exists() and not await steps.kept(_WHOLE):
            raise Refused("gateway.evidence_exists", folder=folder.name)
        exporting = _Export(organisation, begun, steps, sessions)
        exported = await steps.once(_WHOLE, Exported, lambda: exporting.write(clock))
        if begun.exists():
            begun.replace(folder)
    except OSError:
        raise Unavailable("gateway.evidence_unwritable", folder=folder.name) from None
    for member, session in sessions:
        await organisation.forget(session, member)
    return exported


async def _sessions(organisation: Organisation, steps: Steps, collect: bool) -> tuple[tuple[str, bytes], ...]:
    async def drawing() -> _Sessions:
        if not collect:
            return _Sessions(())
        if not set(organisation.roles) & set(SUPERVISORS):
            raise Refused("organisations.role", organisation=organisation.name, roles=", ".join(SUPERVISORS))
        others = [one.organisation for one in organisation.trust.members if one.organisation != organisation.name]
        return _Sessions(tuple((other, organisation.rand(16)) for other in others))

    return (await steps.once("sessions", _Sessions, drawing)).sessions


class _Export:
    """One export under way. begun: the folder that it is built in."""

    def __init__(
        self, organisation: Organisation, begun: Path, steps: Steps, sessions: Sequence[tuple[str, bytes]]
    ) -> None:
        self._organisation = organisation
        self._begun = begun
        self._steps = steps
        self._asked = Asked(organisation, dict(sessions), steps)
        self._kinds: dict[str, str] = {}

    async def write(self, clock: Clock) -> Exported:
        me, asked = self._organisation, self._asked
        if await self._steps.kept(_LEDGER):  # who had not answered by then is not waited for again
            gone = {gap.organisation for gap in (await self._steps.once(_LEDGER, _Ledger, self._ledger)).gaps}
            asked.keep([member for member in asked.present if member not in gone])
        await anchor_audit(me)
        own = Evidence(receipts=await receipts_of(me, await own_envelopes(me)))
        receipts = await asked.all(lambda member, session: EvidenceRequest(session), self._check_receipts)
        ledger = await self._steps.once(_LEDGER, _Ledger, self._ledger)
        ends = {end.organisation: end.last for end in ledger.ends}
        shown = await asked.all(
            lambda member, session: AccessWanted(ends.get(member, 0)),
            lambda member, found: self._check_shown(member, found, ends.get(member, 0)),
        )
        own = own.joined(results(me)).joined(Evidence(batches=await booked_until(me, ends.get(me.name, 0))))
        everybody = {me.name: own, **{member: receipts[member].joined(shown[member]) for member in asked.present}}
        state = await me.account.caught_up()
        fitting = {name: _fitting(evidence, everybody, state, ledger.size) for name, evidence in everybody.items()}
        await at_length(self._write, fitting, ledger, clock())
        gaps = {gap.organisation: gap for gap in (*ledger.gaps, *asked.gaps)}
        return Exported(len(self._kinds), ledger.size - 1, tuple(gaps[name] for name in sorted(gaps)))

    async def _ledger(self) -> _Ledger:
        """Write the ledger, which holds by now all that the parts refer to."""
        export = await self._organisation.account.export()
        size = parse_note(export.note).checkpoint.size
        if self._begun.exists():  # of a run that was cut short
            await asyncio.to_thread(shutil.rmtree, self._begun)
        self._begun.mkdir(mode=0o700, parents=True)
        main, *pieces = await at_length(write_whole, self._begun / ("ledger" + SUFFIX), export)
        files = ((main.name, EXPORT.kind), *((piece.name, BLOCKS.kind) for piece in pieces))
        state = self._organisation.account.state
        ends = tuple(_ChainEnd(name, _chain_end(state, name, size)) for name in self._organisation.trust.everybody)
        return _Ledger(files, size, ends, tuple(self._asked.gaps))

    # --- what members send is checked before it is believed

    async def _check_receipts(self, member: str, found: Evidence) -> None:
        if found != Evidence(receipts=found.receipts):
            raise _bad(member)
        head = (await self._organisation.account.caught_up()).height + 1
        for receipt in found.receipts:
            verify_receipt(receipt, self._organisation.trust)
            if parse_note(receipt.note).checkpoint.size > head:
                raise _bad(member)

    async def _check_shown(self, member: str, found: Evidence, last: int) -> None:
        if found.receipts:
            raise _bad(member)
        expected = self._begin(member, found.batches)
        for batch in found.batches:
            verify_batch(batch)
            if (batch.organisation, batch.first) != (member, expected):
                raise _bad(member)
            expected = batch.last + 1
        if expected != last + 1:
            raise _bad(member)
        state = await self._organisation.account.caught_up()
        for release in found.releases:
            verify_release(release, read_board(state, release.handle))
        for shown in found.presentations:
            bill = state.get(bills.bill_key(shown.handle), bills.BillState)
            if bill is None or shown.audience != member:
                raise _bad(member)
            bill_limit.verify(shown, shown.request, Bill(bill.handle, bill.commitment, bill.currency))
        for model in found.models:
            registered = state.get(models.model_key(model.model), models.ModelState)
            if registered is None or (registered.owner, registered.digest) != (member, model_digest(model)):
                raise _bad(member)
            await asyncio.to_thread(check_model, model)

    def _begin(self, member: str, batches: Sequence[AccessBatch]) -> int:
        """The entry with which a member's chain begins: 1, or after what it has pruned, where the ledger knows a batch
        that begins there. Whether that was old enough, `medveil verify` says."""
        if not batches or batches[0].first == 1:
            return 1
        key = access.batch_key(member, batches[0].first)
        anchored = self._organisation.account.state.get(key, access.BatchState)
        if anchored is None or anchored.previous_head != batches[0].previous_head:
            raise _bad(member)
        return batches[0].first

    # --- files

    def _write(self, everybody: dict[str, Evidence], ledger: _Ledger, at: int) -> None:
        """Write every part and the manifest, in a thread."""
        self._kinds |= dict(ledger.files)
        releases = {one.handle: one for evidence in everybody.values() for one in evidence.releases}
        for number, release in enumerate(releases.values(), start=1):
            self._put(f"releases/query-{number}", release, release.header)
        proofs = {one.nonce: one for evidence in everybody.values() for one in evidence.presentations}
        for number, presentation in enumerate(proofs.values(), start=1):
            self._put(f"presentations/bill-{number}", presentation, presentation.header)
        for name, evidence in everybody.items():
            for model in evidence.models:
                self._put(f"models/{model.model}", ModelEvidence(MODEL, model), MODEL)
            for batch in evidence.batches:
                self._put(f"access/{name}-{batch.first}", batch, batch.header)
            for number, receipt in enumerate(evidence.receipts, start=1):
                self._put(f"receipts/{name}-{number}", receipt, receipt.header)
        me = self._organisation
        write_manifest(self._begun, self._kinds, me.trust.chain, me.name, at, me.signer)

    def _put(self, name: str, struct: Wire, header: Header) -> None:
        path = self._begun / (name + SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(struct))
        self._kinds[name + SUFFIX] = header.kind


def _chain_end(state: FinalState, organisation: str, size: int) -> int:
    """The last entry of a member's access chain that a ledger of that log size has anchored; 0 for none."""
    last = 0
    while True:
        batch = state.get(access.batch_key(organisation, last + 1), access.BatchState)
        if batch is None or batch.height >= size:
            return last
        last = batch.last


def _fitting(evidence: Evidence, everybody: dict[str, Evidence], state: FinalState, size: int) -> Evidence:
    """What of `evidence` the ledger of that log size and everybody's batches know: what came later is left out."""
    used = {
        (batch.organisation, entry.use.query)
        for one in everybody.values()
        for batch in one.batches
        for entry in batch.entries
        if entry.intent == 0
    }

    def released(release: Release) -> bool:
        query = queries.query(state.view(), release.handle)
        sums = state.get(queries.release_key(release.handle, SUMS), queries.ReleaseState)
        logged = all((site, query.salted_hash) in used for site in query.roster)
        return sums is not None and sums.height < size and logged

    def proven(shown: Presentation) -> bool:
        bill = state.get(bills.bill_key(shown.handle), bills.BillState)
        asked = digest(PRESENTATION, encode(shown.request))
        return bill is not None and bill.height < size and (bill.hospital, asked) in used

    def registered(model: ScoreModel) -> bool:
        found = state.get(models.model_key(model.model), models.ModelState)
        return found is not None and found.height < size

    def seen(receipt: Receipt) -> bool:  # a run that was cut short has its ledger, and asks for receipts again
        return parse_note(receipt.note).checkpoint.size <= size

    return Evidence(
        tuple(filter(released, evidence.releases)),
        tuple(filter(proven, evidence.presentations)),
        tuple(filter(registered, evidence.models)),
        tuple(filter(seen, evidence.receipts)),
        evidence.batches,
    )


def _bad(member: str) -> ProtocolAbort:
    return ProtocolAbort("gateway.bad_evidence", round="evidence", parties=(member,))
