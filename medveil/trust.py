"""The trust file as its keeper handles it: look at it, and bring it up to date as members and keys change."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from ledger.export import LedgerExport
from ledger.handovers import extend
from ledger.receipts import ProvenValue
from ledger.snapshots import LedgerSnapshot
from wire import evidence
from wire.checkpoint import TrustFile, read_trust, write_trust
from wire.errors import Refused, Unavailable


def update_trust(path: Path, files: Sequence[Path], out: Path | None = None) -> tuple[TrustFile, TrustFile]:
    """Extend the trust file at `path` by the handovers in `files`, and write it to `out` (by default in its place).

    files: ledger exports, snapshots, or single handovers (proven values), in any order. Each change must be handed
    over by the members before it: nothing else in the files is looked at. Returns the file before and after.

    Raises VerificationError or QuorumNotMet for a handover that does not hold, Refused for a file without any,
    Unavailable and DecodeError for files that cannot be read. The file is written whole or not at all.
    """
    from medveil.verification.kinds import register_all

    register_all()
    before = read_trust(path)
    found: list[ProvenValue] = []
    for file in files:
        try:
            data = evidence.read_file(file)
        except OSError:
            raise Unavailable("wire.unreadable", file=str(file)) from None
        struct = evidence.read(data)
        if isinstance(struct, (LedgerExport, LedgerSnapshot)):
            found += struct.handovers
        elif isinstance(struct, ProvenValue):
            found.append(struct)
        else:
            raise Refused("trust.no_handover", file=str(file), kind=struct.header.kind)
    found.sort(key=lambda one: one.block.height)
    after = extend(before, found)
    if after != before or out is not None:
        write_trust(out or path, after)
    return before, after


def describe(trust: TrustFile) -> dict[str, object]:
    """The trust file's facts: for JSON."""
    return {
        "chain": trust.chain,
        "genesis": trust.genesis_hash.hex(),
        "sequencer": trust.sequencer,
        "zone": trust.zone,
        "epochs": [
            {
                "from_height": epoch.from_height,
                "needed_cosigners": epoch.k,
                "members": [
                    {
                        "organisation": member.organisation,
                        "roles": list(member.roles),
                        "tier": member.tier,
                        "re_executes": member.re_executes,
                        "envelope_key": member.keys.envelope.key.key_id().hex(),
                        "cosign_key": member.keys.cosign.key.key_id().hex(),
                    }
                    for member in epoch.members
                ],
            }
            for epoch in trust.epochs
        ],
    }


def show_trust(trust: TrustFile, as_json: bool) -> None:
    """Print whom the file names, since when, and what to compare with somebody you trust."""
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(describe(trust)), indent=2) + b"\n")
        return
    console = Console(highlight=False)
    lines = [
        f"chain {trust.chain}",
        f"genesis {trust.genesis_hash.hex()}",
        f"blocks are ordered by {trust.sequencer}; civil days are those of {trust.zone}",
    ]
    for epoch, changes in zip(trust.epochs, (None, *trust.changes), strict=True):
        since = "from genesis" if changes is None else f"from block {epoch.from_height}"
        lines.append(f"{since}: {len(epoch.members)} members, {epoch.k} of {len(epoch.re_executing)} make a head final")
        before = trust.at(epoch.from_height - 1)
        shown = (
            [change.organisation for change in changes.changes] if changes else [m.organisation for m in epoch.members]
        )
        for name in shown:
            member = epoch.find(name)
            if member is None:
                lines.append(f"  {name} left")
                continue
            news = "" if changes is None else "joined, " if before.find(name) is None else "new keys, "
            place = f"{', '.join(member.roles)}{f' ({member.tier})' if member.tier else ''}"
            lines.append(f"  {name}: {news}{place}, envelope key {member.keys.envelope.key.key_id().hex()}")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def say_update(before: TrustFile, after: TrustFile, path: Path) -> None:
    """Print what an update brought."""
    console = Console(highlight=False)
    new = after.changes[len(before.changes) :]
    if not new:
        console.print(Text(f"{path} knows them already: nothing changed."), soft_wrap=True)
    for changes, epoch in zip(new, after.epochs[len(before.epochs) :], strict=True):
        earlier = after.at(changes.from_height - 1)
        for change in changes.changes:
            became = (
                "left" if change.member is None else "has new keys" if earlier.find(change.organisation) else "joined"
            )
            told = f"from block {epoch.from_height}: {change.organisation} {became}"
            console.print(Text(f"  ok  {told}, handed over by {earlier.k} members"), soft_wrap=True)
