"""Step 10: the bureau exports evidence, the regulator checks it offline, and reads who used what."""

from __future__ import annotations

import shutil
from pathlib import Path

from ledger.envelope import open_envelope
from ledger.export import LedgerExport
from ledger.pieces import read_whole
from medveil.demo.facts import AuditFacts, FlowFacts
from medveil.demo.play import BUREAU, REGULATOR, Play
from medveil.verification import Report, verify
from wire.dates import format_instant
from wire.errors import MedveilError, Refused
from wire.evidence import SUFFIX


async def export(play: Play) -> Path:
    """Have the bureau write ``evidence/``, with what every other member shows, and a manifest signed by it."""
    folder = play.folder / "evidence"
    exported = await play.desks[BUREAU].export_evidence(folder)
    for gap in exported.gaps:
        raise Refused("demo.no_evidence", organisation=gap.organisation, words=gap.words)
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
            [flow.owner, flow.who, flow.dataset, flow.kind, flow.purpose or "none", flow.grant or "none", flow.outcome]
            for flow in facts.flows
        ],
        keys=2,
    )
