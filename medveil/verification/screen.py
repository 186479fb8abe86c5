"""How verification looks on a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medveil.shown_text import json_text
from medveil.verification.report import Report
from privacy.grants.consent_receipt import ConsentReceipt
from wire.dates import format_instant
from wire.errors import Unavailable

_PIPED_WIDTH = 160
"""Columns of the table where there is no terminal to ask."""


def show_report(report: Report, as_json: bool, language: str = "en") -> None:
    """Print the checks, the data-flow table and the verdict."""
    if as_json:
        said = [{"code": finding.code, "text": finding.text()} for finding in report.findings]
        body = msgspec.to_builtins(report) | {"findings": said, "verdict": report.verdict}
        sys.stdout.buffer.write(json_text(body))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    for check in report.checks:
        console.print(Text(f"  ok  {check.text(language)} ({check.count})  {check.where}"), soft_wrap=True)
    if report.flows:
        console.print(Text("\nWho used what, for which purpose, under which grant", style="bold"))
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("time", "data of", "used by", "dataset", "use", "purpose", "grant", "outcome"):
            table.add_column(column, overflow="fold")
        for flow in report.flows:
            table.add_row(
                *(
                    Text(cell)
                    for cell in (
                        format_instant(flow.time),
                        flow.owner,
                        flow.who,
                        flow.dataset,
                        flow.kind,
                        flow.purpose or "none",
                        flow.grant or "none",
                        flow.outcome,
                    )
                )
            )
        console.print(table)
    console.print()
    for finding in report.findings:
        console.print(Text(f"finding: {finding.text(language)}", style="yellow"), soft_wrap=True)
    if report.pinned:
        verdict = f"{report.verdict}: chain {report.chain}, genesis {report.genesis[:16]}…"
        if report.head_time:  # a split view reaches no head
            verdict += f", as of block {report.height}, cosigned {format_instant(report.head_time)}"
        console.print(Text(verdict, style="bold"), soft_wrap=True)
    else:
        console.print(
            Text(
                f"consistent, not pinned: chain {report.chain} says that its genesis is {report.genesis[:16]}…, and "
                "nothing here proves it. Give --trust consortium.json, from somebody you trust.",
                style="bold",
            ),
            soft_wrap=True,
        )


def show_file(path: Path) -> None:
    """Print one evidence file as JSON (bytes as hex)."""
    from medveil.verification.kinds import register_all
    from wire import evidence

    register_all()
    if not path.exists():
        raise Unavailable("verify.nothing_there", path=str(path))
    try:
        data = evidence.read_file(path)
    except OSError:
        raise Unavailable("wire.unreadable", file=str(path)) from None
    struct = evidence.read(data)
    sys.stdout.buffer.write(json_text(_readable(struct)))


def _readable(value: Any) -> Any:
    """A Wire struct with its field names; bytes as lower-case hex, those of a Consent as the JSON that they are."""
    if isinstance(value, ConsentReceipt):
        return _named(value) | {"consent": _json(value.consent)}
    if isinstance(value, msgspec.Struct):
        return _named(value)
    if isinstance(value, tuple):
        return [_readable(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    return value


def _named(value: msgspec.Struct) -> dict[str, Any]:
    named = {"type": type(value).__struct_config__.tag}
    return named | {name: _readable(getattr(value, name)) for name in value.__struct_fields__}


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return data.hex()
