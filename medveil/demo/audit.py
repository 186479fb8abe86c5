"""Step 7: the bureau exports evidence, the regulator checks it offline, and reads who used what."""

from __future__ import annotations

import shutil
from pathlib import Path

from ledger.envelope import open_envelope
from ledger.export import EXPORT, LedgerExport
from ledger.pieces import BLOCKS, read_whole, write_whole
from medveil.demo.facts import AuditFacts, FlowFacts
from medveil.demo.play import BUREAU, REGULATOR, Play, now
from medveil.gateway.accounting import anchor_audit
from medveil.verification import Report, verify
from medveil.verification.kinds import MODEL, ModelEvidence
from mpc.release import Release
from mpc.scoring import ScoreModel
from wire.canonical import Wire, encode
from wire.dates import format_instant
from wire.errors import MedveilError, Refused
from wire.evidence import SUFFIX, Header, write_manifest
from zkp.bill_limit import Presentation


async def export(play: Play, release: Release, presentation: Presentation, model: ScoreModel) -> Path:
    """Anchor every audit trail, then write ``evidence/`` with a manifest signed by the bureau."""
    for organisation in play.consortium.organisations.values():
        await anchor_audit(organisation)
    folder = play.folder / "evidence"
    kinds: dict[str, str] = {}

    def write(name: str, struct: Wire, header: Header) -> None:
        path = folder / (name + SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(struct))
        kinds[name + SUFFIX] = header.kind

    folder.mkdir(parents=True, exist_ok=True)
    main, *pieces = write_whole(folder / ("ledger" + SUFFIX), await play.consortium.engine.export())
    kinds |= {main.name: EXPORT.kind} | {piece.name: BLOCKS.kind for piece in pieces}
    write("releases/query-1", release, release.header)
    write("presentations/bill-1", presentation, presentation.header)
    write(f"models/{model.model}", ModelEvidence(MODEL, model), MODEL)
    for name, organisation in play.consortium.organisations.items():
        for batch in organisation.audit.batches():
            write(f"access/{name}-{batch.first}", batch, batch.header)
        for number, receipt in enumerate(organisation.account.receipts, start=1):
            write(f"receipts/{name}-{number}", receipt, receipt.header)
    bureau = play.consortium[BUREAU]
    write_manifest(folder, kinds, play.consortium.trust.chain, BUREAU, now(), bureau.signer)
    return folder


def audit(play: Play, folder: Path) -> AuditFacts:
    """The regulator's check, and the same after one byte of a copy was changed."""
    trust = play.folder / "consortium.json"
    report = verify(folder, trust=trust)
    file, says = _tamper(play, folder, trust)
    blocks = next(check.count for check in report.checks if check.what.startswith("blocks"))
    envelopes = next(check.count for check in report.checks if check.what.startswith("envelopes"))
    ledger = read_whole(folder / ("ledger" + SUFFIX))
    assert isinstance(ledger, LedgerExport)  # it was written as one
    signed = [open_envelope(envelope) for block in ledger.blocks for envelope in block.envelopes]
    facts = AuditFacts(
        checks=[f"{check.what} ({check.count})" for check in report.checks],
        flows=_flows(report),
        tampered_file=file,
        tampered_says=says,
        blocks=blocks,
        envelopes=envelopes,
        operations=sum(len(one.envelope.ops) for one in signed),
    )
    _tell(play, facts)
    return facts


def _flows(report: Report) -> list[FlowFacts]:
    return [
        FlowFacts(
            format_instant(flow.time),
            flow.owner,
            flow.who,
            flow.dataset,
            flow.kind,
            flow.purpose,
            flow.grant,
            flow.outcome,
        )
        for flow in report.flows
    ]


def _tamper(play: Play, folder: Path, trust: Path) -> tuple[str, str]:
    """Change one byte in the middle of a copy of the ledger; the check must fail and say where."""
    copy = play.folder / "tampered"
    shutil.copytree(folder, copy)
    try:
        name = "ledger" + SUFFIX
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        try:
            verify(copy, trust=trust)
        except MedveilError as error:
            return f"evidence/{name}", error.text()
        raise Refused("demo.cheat_worked", what="a changed byte")
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _tell(play: Play, facts: AuditFacts) -> None:
    say = play.narrator.say
    say(f"{REGULATOR} runs: medveil verify evidence --trust consortium.json")
    for line in facts.checks:
        say(f"ok  {line}", style="green")
    say(f"One byte of a copy of {facts.tampered_file} changed: {facts.tampered_says}", style="yellow")
    say("Who used what, for which purpose, under which grant:")
    play.narrator.table(
        ["data of", "used by", "dataset", "use", "purpose", "grant", "outcome"],
        [
            [flow.owner, flow.who, flow.dataset, flow.kind, flow.purpose, flow.grant or "none", flow.outcome]
            for flow in facts.flows
        ],
        keys=2,
    )
