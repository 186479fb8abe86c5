"""`medveil audit`, `medveil evidence`, `medveil service`: who used what, and how the gateway stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medveil.cli import screen
from medveil.cli.calling import Json, Key, calling, following

First = Annotated[int, typer.Option(min=1, help="Number of the first entry.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]


def _purpose(row: Any) -> str | None:
    """What a use was for; None for what was done at home, which is for nothing but itself."""
    from privacy.audit import OWN_KINDS

    return None if row.use.kind in OWN_KINDS else row.use.purpose


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    audit = typer.Typer(help="The audit trail: who used which of your data, and why.", no_args_is_help=True)
    app.add_typer(audit, name="audit")

    @audit.command("flows")
    def flows(
        first: First = 1,
        limit: Limit = 100,
        recipient: Annotated[str, typer.Option(help="Only uses by this organisation.")] = "",
        grant: Annotated[str, typer.Option(help="Only uses under this grant.")] = "",
        dataset: Annotated[str, typer.Option(help="Only uses of this dataset.")] = "",
        json: Json = False,
    ) -> None:
        """List uses of your data, from intent to outcome."""
        with calling() as client:
            found = client.audit.flows(first=first, limit=limit, recipient=recipient, grant=grant, dataset=dataset)
        if json:
            screen.print_json(found)
            return
        columns = (
            ("entry", "intent"),
            ("time", screen.instant("began")),
            ("used by", "use.recipient"),
            ("dataset", "use.dataset"),
            ("use", "use.kind"),
            ("purpose", _purpose),
            ("grant", "use.grant"),
            ("allowed", "use.allowed"),
            ("outcome", lambda flow: flow.outcome or "under way"),
        )
        screen.table(found.flows, columns)
        if found.next:
            screen.say(f"\nMore: --first {found.next}")

    @audit.command("entries")
    def entries(first: First = 1, limit: Limit = 100, json: Json = False) -> None:
        """List the entries of the trail."""
        with calling() as client:
            found = client.audit.entries(first=first, limit=limit)
        if json:
            screen.print_json(found)
            return
        columns = (
            ("entry", "sequence"),
            ("time", screen.instant("time")),
            ("who", "use.recipient"),
            ("dataset", "use.dataset"),
            ("use", "use.kind"),
            ("purpose", _purpose),
            ("rule", "use.rule"),
            ("ends", lambda entry: entry.intent or None),
            ("outcome", lambda entry: entry.outcome or None),
        )
        screen.table(found.entries, columns)
        screen.say(
            f"\nOn the ledger up to entry {found.anchored}.{f' More: --first {found.next}' if found.next else ''}"
        )

    @audit.command("anchor")
    def anchor(json: Json = False) -> None:
        """Put what is not there yet on the ledger."""
        with calling() as client:
            found = client.audit.anchor()
        if json:
            screen.print_json(found)
            return
        columns = (("first", "first"), ("last", "last"), ("root", "root"))
        screen.table(found.batches, columns, none="All of it was there.")

    _evidence(app)
    _service(app)


def _evidence(app: typer.Typer) -> None:
    evidence = typer.Typer(help="Evidence folders for medveil verify.", no_args_is_help=True)
    app.add_typer(evidence, name="evidence")

    @evidence.command("export")
    def export(
        out: Annotated[Path | None, typer.Option(readable=False, help="Fetch it to this .zip file.")] = None,
        collect: Annotated[
            bool, typer.Option("--collect", help="Ask the other members for what they keep, too.")
        ] = False,
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Have the gateway write an evidence folder, and fetch it."""
        with calling() as client:
            with following(json) as told:
                folder = client.evidence.export(collect=collect, key=key, told=told)
            if out is not None:
                client.evidence.fetch(folder, out)
        if json:
            screen.print_json({"evidence": folder, "file": str(out) if out else None})
        elif out is not None:
            screen.say(
                f"{out}: the evidence folder {folder}. Unpack it, then: medveil verify FOLDER --trust consortium.json"
            )
        else:
            screen.say(f"The gateway keeps it as {folder}: medveil evidence get {folder} OUT.zip")

    @evidence.command("list")
    def listed(json: Json = False) -> None:
        """List the folders that the gateway keeps."""
        with calling() as client:
            found = client.evidence.list()
        if json:
            screen.print_json(found)
            return
        screen.table(found.evidence, (("evidence", "evidence"), ("files", "files"), ("bytes", "bytes")))

    @evidence.command("get")
    def get(
        folder: Annotated[str, typer.Argument(help="Its id.")],
        out: Annotated[Path, typer.Argument(readable=False, help="The .zip file to write.")],
        json: Json = False,
    ) -> None:
        """Fetch an evidence folder as a .zip file."""
        with calling() as client:
            client.evidence.fetch(folder, out)
        if json:
            screen.print_json({"evidence": folder, "file": str(out)})
        else:
            screen.say(f"{out}: the evidence folder {folder}.")


def _service(app: typer.Typer) -> None:
    service = typer.Typer(help="The gateway itself.", no_args_is_help=True)
    app.add_typer(service, name="service")

    @service.command("show")
    def show(json: Json = False) -> None:
        """Show how the gateway stands."""
        with calling() as client:
            found = client.service.get()
        if json:
            screen.print_json(found)
            return
        pairs = [(name, value) for name, value in screen.of(found) if name != "started"]
        screen.facts([*pairs, ("started", screen.instant("started")(found))])

    @service.command("backup")
    def backup(key: Key = "", json: Json = False) -> None:
        """Have the gateway write a backup of itself while it runs."""
        with calling() as client, following(json) as told:
            done = client.service.backup(key=key, told=told)
        if json:
            screen.print_json(done)
        else:
            screen.say(f"The backup is written, on the gateway's machine: {screen.shown(done.result)}")
            screen.say("(A path that does not begin with / starts at the gateway's home.)")
