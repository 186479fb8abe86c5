"""Verification of an evidence folder, or of one file that stands alone."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ledger.export import LedgerExport, verify_export
from ledger.handovers import extend
from ledger.machine import Machine
from ledger.pieces import LedgerBlocks, join, read_whole
from ledger.receipts import ProvenValue, Receipt, check_age, verify_receipt, verify_value
from ledger.snapshots import LedgerSnapshot, verify_snapshot
from ledger.split_view import SplitView, verify_split_view
from medveil.verification import checks
from medveil.verification.case import Case, History
from medveil.verification.consents import check_signed
from medveil.verification.evidence import of
from medveil.verification.kinds import register_all
from medveil.verification.releases import Certificate, check_certificate, tell_steps
from medveil.verification.report import Check, Report
from medveil.verification.signed import SIGNED, check_statement
from medveil.verification.uses import check_sums
from privacy.grants.consent_receipt import ConsentReceipt
from wire import evidence
from wire.checkpoint import TrustFile, parse_note, read_trust, trust_of, verify_checkpoint
from wire.errors import MedveilError, Refused, Unavailable, VerificationError
from wire.evidence import Manifest, check_manifest, read_manifest
from zkp import eligibility, reversal, settlement
from zkp.groups import BACKENDS


def verify(
    path: str | Path,
    trust: str | Path | TrustFile | None = None,
    backend: str = "arkworks",
    at_least: int = 0,
    newer_than: int | None = None,
) -> Report:
    """Check an evidence folder, or one evidence file, offline. Returns the report or raises.

    trust: the consortium's trust file (path or struct) that *you* pinned. Without it the evidence is
    only checked against the genesis it brings itself, and the report says ``pinned=False``: whoever
    made it could have made all of it. backend: curve library for proofs, "arkworks" or "reference".
    at_least: block height that the evidence must reach. Evidence is true as of its head: an exporter may
    leave out what happened later, so compare `Report.height` with a head that you know. newer_than: instant
    (ms UTC) at or after which k members must have cosigned that head; a value proven alone must then be of
    its latest block.

    Raises VerificationError naming the file and the entry that does not hold; DecodeError (damaged);
    QuorumNotMet; Unavailable (not readable); Refused (a file that cannot be checked alone).
    """
    if backend not in BACKENDS:
        raise Refused("verify.unknown_backend", backend=backend, known=", ".join(BACKENDS))
    register_all()
    path = Path(path)
    if not path.exists():
        raise Unavailable("verify.nothing_there", path=str(path))
    pinned = trust if isinstance(trust, TrustFile) or trust is None else read_trust(Path(trust))
    if path.is_dir():
        report = _verify_folder(path, pinned, backend)
    else:
        report = _verify_file(path, pinned, backend, newer_than)
    if report.height < at_least:
        raise VerificationError("verify.too_old", height=report.height, least=at_least)
    if newer_than is not None:
        check_age(report.head_time, newer_than)
    return report


def _read(path: Path, name: str) -> Any:
    try:
        data = evidence.read_file(path)
    except OSError:
        raise Unavailable("wire.unreadable", file=name) from None
    return evidence.read(data)


def _verify_folder(folder: Path, pinned: TrustFile | None, backend: str) -> Report:
    manifest = read_manifest(folder)
    trust = _trust_of_folder(folder, manifest, pinned)
    _check_files(folder, manifest, trust)
    files = []
    for listed in manifest.body.files:
        try:
            struct = _read(folder / listed.path, listed.path)
        except MedveilError as error:
            raise VerificationError("verify.file_fails", file=listed.path, detail=error.message) from None
        if struct.header.kind != listed.kind:
            raise VerificationError("verify.other_kind", file=listed.path, kind=listed.kind)
        files.append((listed.path, struct))
    exports = of(files, LedgerExport)
    if len(exports) != 1:
        raise VerificationError("verify.one_ledger", folder=str(folder), count=len(exports))
    (where, main) = exports[0]
    try:
        export = join(main, [struct for _, struct in sorted(of(files, LedgerBlocks), key=_number)])
    except MedveilError as error:
        raise VerificationError("verify.file_fails", file=where, detail=error.message) from None
    assert isinstance(export, LedgerExport)
    files = [(path, struct) for path, struct in files if not isinstance(struct, LedgerBlocks)]
    history = History([export.founding.time])
    try:
        machine = verify_export(export, trust, history.see)
    except MedveilError as error:
        raise VerificationError("verify.file_fails", file=where, detail=error.message) from None
    case = Case(trust, machine, history, backend)
    case.held("files are as the exporter signed them", evidence.MANIFEST_NAME, len(manifest.body.files))
    _ledger_held(case, export, where)
    checks.check_files(case, files)
    return _report(str(folder), pinned is not None, manifest.body.exporter, case)


def _number(file: tuple[str, LedgerBlocks]) -> int:
    return file[1].number


def _reaches(case: Case, note: bytes, height: int, block_time: int) -> None:
    """Note how far the evidence reaches."""
    case.height, case.block_time = height, block_time
    case.head_time = verify_checkpoint(note, case.trust).time


def _ledger_held(case: Case, export: LedgerExport, where: str) -> None:
    _reaches(case, export.note, case.machine.height, case.machine.time)
    envelopes = sum(len(block.envelopes) for block in export.blocks)
    case.held("blocks replayed to the same roots, the head cosigned by k of n", where, len(export.blocks))
    case.held("envelopes signed by their senders and allowed by the contracts", where, envelopes)
    check_sums(case)


def _trust_of_folder(folder: Path, manifest: Manifest, pinned: TrustFile | None) -> TrustFile:
    """The pinned trust file, with the members as they were at the head that the folder's ledger reaches.

    Without a pinned one, the genesis that the evidence brings itself: nothing to rely on, but enough to check
    consistency. An export that does not hold is found out later, with its place.
    """
    for listed in manifest.body.files:
        if listed.kind == "ledger-export":
            try:
                export = _read(folder / listed.path, listed.path)
                trust = pinned if pinned is not None else trust_of(export.founding)
                with contextlib.suppress(MedveilError):
                    trust = extend(trust, export.handovers).until(parse_note(export.note).checkpoint.size - 1)
                return trust
            except AttributeError:
                break
            except MedveilError as error:
                if pinned is None:
                    raise VerificationError("verify.file_fails", file=listed.path, detail=error.message) from None
                break
    if pinned is None:
        raise VerificationError("verify.one_ledger", folder=str(folder), count=0)
    return pinned


def _check_files(folder: Path, manifest: Manifest, trust: TrustFile) -> None:
    """The signed manifest against the files; a changed file is looked into, to say where."""
    body = manifest.body
    if body.chain != trust.chain:
        raise VerificationError("verify.other_chain", chain=body.chain, expected=trust.chain)
    try:
        check_manifest(folder, manifest, trust.member(body.exporter).keys.envelope.key)
    except VerificationError as error:
        file = str(error.facts.get("file", ""))
        if error.code != "wire.file_changed":
            raise
        raise VerificationError("verify.file_changed", file=file, detail=_inside(folder / file, file, trust)) from None


def _inside(path: Path, name: str, trust: TrustFile) -> str:
    """What is wrong inside a changed file, as far as the file alone can tell."""
    try:
        struct = _read(path, name)
        if isinstance(struct, LedgerExport):
            verify_export(struct, trust)
        elif isinstance(struct, Receipt):
            verify_receipt(struct, trust)
    except MedveilError as error:
        return error.message
    return "what it says still holds together; the bytes are not those that were signed."


def _verify_file(path: Path, pinned: TrustFile | None, backend: str, newer_than: int | None) -> Report:
    struct: Any = read_whole(path)
    if struct.header in (eligibility.HEADER, settlement.HEADER, reversal.HEADER):
        raise Refused("verify.needs_question", file=str(path), kind=struct.header.kind)
    if pinned is None:
        if not isinstance(struct, LedgerExport):
            raise Refused("verify.needs_trust", file=str(path))
        trust = trust_of(struct.founding)
    else:
        trust = pinned
    if isinstance(struct, (LedgerExport, LedgerSnapshot)):
        trust = extend(trust, struct.handovers)
    case = Case(trust, Machine(trust.founding), History([trust.founding.time]), backend)
    name = path.name
    if isinstance(struct, LedgerExport):
        case.machine = verify_export(struct, trust)
        _ledger_held(case, struct, name)
    elif isinstance(struct, Receipt):
        verify_receipt(struct, trust)
        _reaches(case, struct.note, struct.block.height, struct.block.time)
        case.held("envelope signed by its sender", name)
        case.held("result included in the block, the block in the log", name)
        case.held("head cosigned by k of n", name)
        if not struct.result.accepted:
            said = "took this envelope in part" if struct.result.took_effect else "refused this envelope"
            case.held(f"the ledger {said}: {struct.result.in_words()}", name)
    elif isinstance(struct, ProvenValue):
        verify_value(struct, trust, newer_than)
        _reaches(case, struct.note, struct.block.height, struct.block.time)
        case.held("value in the state tree, the block in the log" if struct.value is not None else "absence", name)
        case.held("head cosigned by k of n", name)
    elif isinstance(struct, Certificate):
        case.trust, oldest = check_certificate(struct, trust, backend)
        _reaches(case, oldest.note, oldest.block.height, oldest.block.time)
        case.held("values in the state tree, the block in the log", name, len(struct.proofs))
        case.held("head cosigned by k of n", name)
        tell_steps(case, name, struct.release)
    elif isinstance(struct, LedgerSnapshot):
        case.machine = verify_snapshot(struct, trust)
        _reaches(case, struct.note, struct.block.height, struct.block.time)
        case.held("state and log lead to the head", name)
        check_sums(case)
        case.held("head cosigned by k of n", name)
    elif isinstance(struct, SplitView):
        both = ", ".join(verify_split_view(struct, trust)) or "nobody"
        case.held("two heads of this ledger, signed by its sequencer, that contradict each other", name)
        case.held(f"cosigned both of them: {both}", name)
    elif isinstance(struct, ConsentReceipt):
        check_signed(struct, trust)
        case.held(f"signed by {struct.issuer}; whether its grant stands is for the ledger to say", name)
    elif isinstance(struct, SIGNED):
        case.held(check_statement(struct, trust), name)
    else:
        raise Refused("verify.needs_folder", file=str(path), kind=struct.header.kind)
    return _report(str(path), pinned is not None, "", case)


def _report(path: str, pinned: bool, exporter: str, case: Case) -> Report:
    checked: list[Check] = case.checks
    return Report(
        path=path,
        pinned=pinned,
        height=case.height,
        block_time=case.block_time,
        head_time=case.head_time,
        chain=case.trust.chain,
        genesis=case.trust.genesis_hash.hex(),
        exporter=exporter,
        backend=case.backend,
        checks=checked,
        flows=case.flows(),
        findings=case.findings,
    )
