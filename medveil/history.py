"""An exported ledger, replayed and read: what `medveil ledger` does.

Everything shown here has been replayed from genesis first: signatures, contracts, every header, the
cosigned head. Without a pinned trust file the export is checked against the genesis that it brings
itself, and says so: whoever made it could have made all of it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledger.contracts.membership import member
from ledger.export import LedgerExport, verify_export
from ledger.handovers import extend
from ledger.machine import Block, BlockOutcome
from ledger.pieces import read_whole, write_whole
from ledger.reading import Entry, Selection, known_kinds
from ledger.snapshots import LedgerSnapshot, take_snapshot
from medveil.shown_text import json_text
from wire.checkpoint import TrustFile, parse_note, read_trust, trust_of, verify_checkpoint
from wire.dates import format_instant, instant_of
from wire.errors import Refused
from wire.identifiers import check_name

_PIPED_WIDTH = 160
"""Columns of a table where there is no terminal to ask."""


@dataclass(frozen=True)
class History:
    """An export that replayed to its roots. entries: those selected; the counts are of all history.

    cosigners: the members that re-execute blocks and signed the head, which count; others: members that signed it
    and do not count; time: instant that k of the cosigners had reached.
    """

    path: str
    pinned: bool
    trust: TrustFile
    blocks: int
    envelopes: int
    ops: int
    refused: int
    keys: int
    state_root: bytes
    log_root: bytes
    size: int
    time: int
    cosigners: tuple[str, ...]
    others: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def verdict(self) -> str:
        """One line for people."""
        return "verified" if self.pinned else "consistent, not pinned"


def read_export(path: Path) -> LedgerExport:
    """The export at `path`, with its pieces, not yet verified.

    Raises Unavailable, DecodeError, Refused (another kind of file), VerificationError (a piece is missing).
    """
    from medveil.verification.kinds import register_all

    register_all()
    struct = read_whole(path)
    if not isinstance(struct, LedgerExport):
        raise Refused("history.no_export", file=str(path))
    return struct


def read_history(path: Path, trust: Path | None = None, selection: Selection | None = None) -> History:
    """Replay the export at `path` and pick the entries that `selection` holds (none without one).

    Raises what `read_export` and `ledger.export.verify_export` raise: VerificationError names block and entry;
    Refused for an organisation or a kind of op that nobody knows, where nothing selected would mislead.
    """
    kinds = known_kinds()
    if selection is not None and selection.organisation:
        check_name(selection.organisation, "organisation")
    if selection is not None and selection.kind and selection.kind not in kinds:
        contract = selection.kind.partition(".")[0]
        near = [
            kind for kind in kinds if kind.startswith(f"{contract}.") or (contract not in kinds and "." not in kind)
        ]
        raise Refused("history.unknown_kind", kind=selection.kind, known=", ".join(near))
    export = read_export(path)
    pinned = read_trust(trust) if trust is not None else trust_of(export.founding)
    picked: list[Entry] = []
    ops = refused = envelopes = 0

    def replayed(block: Block, outcome: BlockOutcome) -> None:
        nonlocal ops, refused, envelopes
        for entry in Selection().entries(block, outcome.results):
            envelopes += 1
            ops += len(entry.kinds)
            refused += not (entry.result.accepted or entry.result.took_effect)
            if selection is not None and selection.holds(entry):
                picked.append(entry)

    machine = verify_export(export, pinned, replayed)
    if selection is not None and selection.organisation and not picked:
        member(machine.view(), selection.organisation)
    known = extend(pinned, export.handovers).until(machine.height)
    checkpoint = verify_checkpoint(export.note, known)
    signed = [line.name for line in parse_note(export.note).lines if line.name != pinned.origin]
    counted = known.at(checkpoint.size - 1).re_executing
    return History(
        path=str(path),
        pinned=trust is not None,
        trust=known,
        blocks=len(export.blocks),
        envelopes=envelopes,
        ops=ops,
        refused=refused,
        keys=len(machine.state),
        state_root=machine.state.root,
        log_root=checkpoint.root,
        size=checkpoint.size,
        time=checkpoint.time,
        cosigners=tuple(name for name in signed if name in counted),
        others=tuple(name for name in signed if name not in counted),
        entries=tuple(picked),
    )


def write_snapshot(path: Path, trust: Path | None, out: Path) -> LedgerSnapshot:
    """Replay the export at `path` and write the state at its head to `out` (and pieces beside it); returns it.

    An engine or a replica starts from it instead of replaying. Raises what `read_export` and
    `ledger.export.verify_export` raise, Unavailable if the disk refuses.
    """
    export = read_export(path)
    machine = verify_export(export, read_trust(trust) if trust is not None else trust_of(export.founding))
    snapshot = take_snapshot(
        export.founding, machine.header, machine.state, machine.log, export.handovers, parse_note(export.note)
    )
    write_whole(out, snapshot)
    return snapshot


def instant(text: str, zone: str) -> int:
    """The instant that an ISO 8601 date or time names; without an offset of its own it is in `zone`.

    Raises ValueError if it is neither, for a zone that this machine does not know, and beyond the years 1 to 9999.
    """
    try:
        moment = datetime.fromisoformat(text)
        return instant_of(moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone)))
    except (KeyError, OverflowError, OSError):  # of a zone: not known; of a folder's name; of a time: out of range
        raise ValueError(f"no instant: {text!r} in {zone!r}") from None


# --- the screen --------------------------------------------------------------------------------------


def _print_json(body: object) -> None:
    sys.stdout.buffer.write(json_text(body))


def _facts(history: History) -> dict[str, object]:
    return {
        "file": history.path,
        "verdict": history.verdict,
        "pinned": history.pinned,
        "chain": history.trust.chain,
        "genesis": history.trust.genesis_hash.hex(),
        "blocks": history.blocks,
        "envelopes": history.envelopes,
        "ops": history.ops,
        "refused": history.refused,
        "state_keys": history.keys,
        "state_root": history.state_root.hex(),
        "log_root": history.log_root.hex(),
        "log_size": history.size,
        "cosigned_at": format_instant(history.time),
        "cosigners": list(history.cosigners),
        "others_who_signed": list(history.others),
        "needed_cosigners": history.trust.k,
    }


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def _say_verdict(console: Console, history: History) -> None:
    genesis = f"{history.trust.genesis_hash.hex()[:16]}…"
    console.print()
    if history.pinned:
        console.print(Text(f"verified: chain {history.trust.chain}, genesis {genesis}", style="bold"))
        return
    console.print(
        Text(
            f"consistent, not pinned: chain {history.trust.chain} says that its genesis is {genesis}, and nothing "
            "here proves it. Give --trust consortium.json, from somebody you trust.",
            style="bold",
        ),
        soft_wrap=True,
    )


def show_verified(history: History, as_json: bool) -> None:
    """Print what was checked, the roots and the verdict."""
    if as_json:
        _print_json(_facts(history))
        return
    console = _console()
    took = history.envelopes - history.refused
    others = f"; also signed by {', '.join(history.others)}, which do not replay and do not count"
    for line in (
        f"blocks replayed from genesis, each to the header it states ({history.blocks})",
        f"envelopes signed by their senders, for this chain ({history.envelopes}, {history.ops} ops)",
        f"contracts allowed {took} and refused {history.refused}, as the results say",
        f"log root {history.log_root.hex()} over {history.size} headers",
        f"state root {history.state_root.hex()} over {history.keys} keys",
        f"head signed by the sequencer, reached by {format_instant(history.time)}",
        f"head cosigned by {len(history.cosigners)}, needed {history.trust.k}: {', '.join(history.cosigners)}"
        + (others if history.others else ""),
    ):
        console.print(Text(f"  ok  {line}"), soft_wrap=True)
    _say_verdict(console, history)


def show_entries(history: History, as_json: bool) -> None:
    """Print the selected entries, then the verdict on the whole export."""
    if as_json:
        rows = [
            {
                "height": entry.height,
                "entry": entry.entry,
                "time": format_instant(entry.time),
                "organisation": entry.sender,
                "nonce": entry.result.nonce,
                "envelope": entry.result.envelope.hex(),
                "kinds": list(entry.kinds),
                "result": entry.result.in_words(),
                "codes": [op.code for op in entry.result.ops],
                "events": [
                    {"name": event.name, "subject": event.subject, "values": list(event.values)}
                    for event in entry.result.events
                ],
            }
            for entry in history.entries
        ]
        _print_json(_facts(history) | {"entries": rows})
        return
    console = _console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("block", "time", "organisation", "ops", "result", "what happened"):
        table.add_column(column, overflow="fold")
    for entry in history.entries:
        happened = (f"{event.name} {event.subject}".strip() for event in entry.result.events)
        table.add_row(
            *(
                Text(cell)
                for cell in (
                    f"{entry.height}.{entry.entry}",
                    format_instant(entry.time),
                    entry.sender,
                    _counted(entry.kinds),
                    entry.result.in_words(),
                    _counted(tuple(happened)),
                )
            )
        )
    console.print(table)
    console.print(Text(f"\n{len(history.entries)} of {history.envelopes} envelopes in {history.blocks} blocks"))
    _say_verdict(console, history)


def _counted(names: tuple[str, ...]) -> str:
    """Names in order of first appearance, with how often each stands there if more than once."""
    return ", ".join(
        name if names.count(name) == 1 else f"{names.count(name)} x {name}" for name in dict.fromkeys(names)
    )
