"""`medveil backup` and `medveil restore`: an organisation's home, copied and brought back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medveil.cli import screen

HomeFolder = Annotated[Path, typer.Argument(readable=False, help="The organisation's home.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""

    @app.command("backup")
    def backup(
        home: HomeFolder,
        out: Annotated[Path, typer.Argument(readable=False, help="The backup: a folder that is not there yet.")],
        json: Json = False,
    ) -> None:
        """Back up the home of a gateway that is stopped; a running one is asked by medveil service backup.

        The passphrase of the keys comes from MEDVEIL_PASSPHRASE_FILE or gateway.toml, and is not in the backup.
        """
        import secrets

        from medveil.service.home.backup import make_backup
        from medveil.service.home.config import FILE, passphrase, read_config
        from medveil.service.home.home import Home

        secret = passphrase(read_config(home / FILE))
        with Home.open(home, secret, secrets.token_bytes, _now) as opened:
            body = make_backup(opened, out, _now).body
            by_token = opened.config.keys.provider == "pkcs11"
        if json:
            _print_json({"backup": str(out), "organisation": body.organisation, "files": len(body.files)})
            return
        size = sum(file.length for file in body.files)
        typer.echo(f"{out}: {len(body.files)} files of {body.organisation}, {size:,} bytes, listed and signed.")
        if by_token:
            typer.echo("Its keys are on a token: back that up by itself. The token's PIN is not in it either.")
        else:
            typer.echo("The passphrase of its keys is not in it: keep that elsewhere.")
        if body.database == "postgresql":
            typer.echo("Its people, tokens and jobs are in PostgreSQL: dump that database now, with pg_dump.")

    @app.command("restore")
    def restore(
        backup: Annotated[Path, typer.Argument(readable=False, help="What `medveil backup` wrote.")],
        home: Annotated[Path, typer.Argument(readable=False, help="The home to make: empty, or not there yet.")],
        moved: Annotated[
            bool,
            typer.Option("--moved", help="The original was not started since the backup: this is a move, not a loss."),
        ] = False,
        erased: Annotated[
            Path | None,
            typer.Option(
                readable=False,
                help="The lost home, or a folder with its files `erased` and `safeguards`, if they are left.",
            ),
        ] = None,
        vault_database: Annotated[
            str, typer.Option(help='Where records are to lie: "sqlite" or postgresql://user@host/name; else as before.')
        ] = "",
        vault_password_file: Annotated[str, typer.Option(help="File of mode 600 with that database's password.")] = "",
        blobs: Annotated[
            str,
            typer.Option(help='Where large documents are to lie: "home", file:///path or s3://bucket/folder.'),
        ] = "",
        json: Json = False,
    ) -> None:
        """Make a home of a backup. The original must never run again beside it.

        The passphrase of the keys comes from MEDVEIL_PASSPHRASE_FILE, their token's PIN from MEDVEIL_PIN_FILE; or they
        are asked for.
        """
        import os
        import secrets

        from medveil.service.home.backup import FILES, read_backup
        from medveil.service.home.config import FILE, Config, VaultPlace, passphrase, read_config
        from medveil.service.home.restore import kept_apart
        from medveil.service.home.restore import restore as bring_back
        from wire.dates import format_instant

        read_backup(backup)  # that it is none is said before a passphrase is asked for
        listed = backup / FILES / FILE
        config = read_config(listed) if listed.exists() else Config(1, "any")
        by_token = config.keys.provider == "pkcs11"
        if os.environ.get("MEDVEIL_PIN_FILE" if by_token else "MEDVEIL_PASSPHRASE_FILE"):
            secret = passphrase(config)
        else:
            secret = screen.typed("PIN of its token" if by_token else "Passphrase of its keys", hidden=True)
        vault = None
        if vault_database or blobs:
            before = config.vault
            password_file = vault_password_file if vault_database else before.password_file
            stored = "" if blobs == "home" else blobs or before.blobs
            vault = VaultPlace(vault_database or before.database, password_file, stored)
        back = bring_back(backup, home, secret, secrets.token_bytes, _now, moved=moved, erased=erased, vault=vault)
        body = back.manifest.body
        if json:
            facts = {"home": str(home), "organisation": body.organisation, "backed_up": body.created}
            _print_json({**facts, "erased_again": back.again})
            return
        typer.echo(f"{home}: the home of {body.organisation} as of {format_instant(body.created)}.")
        if body.database == "postgresql":
            typer.echo("Bring its PostgreSQL database back from the dump of that moment.")
        if back.again:
            typer.echo(
                f"Of {back.again} persons who were erased since, the backup has rows that the lost home had under"
            )
            typer.echo(
                "other keys, such as of a table that was loaded over. They are out of use, and the gateway erases"
            )
            typer.echo("them: `medveil erasure show`.")
        if moved:
            return
        typer.echo("When it is started it cosigns and uses nothing until the consortium has gone on without it for")
        typer.echo("five minutes; a sequencer takes its blocks back from the members first.")
        typer.echo(
            "Sessions, invitations, programs' tokens and recovery codes end then, since some of them were used up or"
        )
        typer.echo("ended after the backup: invite again who had not come, have tokens made anew.")
        typer.echo("People, passwords, records and grants are those of that day: go through what changed since.")
        if erased is None:
            typer.echo("What was erased since is there again, and who was restricted, held or opted out since is not:")
            typer.echo("say all of it again, or restore with --erased and the lost home, if its files `erased` and")
            typer.echo("`safeguards` are left.")
        elif not kept_apart(erased)[1].is_file():
            typer.echo(
                "No file `safeguards` was there: legal holds, opt-outs, restrictions, recalls and erasures under way"
            )
            typer.echo("are those of that day. Say again what came since.")

    @app.command("restore-trail")
    def restore_trail(
        home: HomeFolder,
        evidence: Annotated[
            Path,
            typer.Argument(readable=False, help="An evidence folder that is newer than the backup, whoever's."),
        ],
        json: Json = False,
    ) -> None:
        """Give a restored home back the entries of its audit trail that are in evidence; its gateway is stopped.

        The folder is verified first, by the trust file that the home has pinned.
        """
        import secrets

        from medveil.service.home.config import FILE, passphrase, read_config
        from medveil.service.home.home import CONSORTIUM, Home
        from medveil.verification import verify
        from privacy.audit import AccessBatch
        from wire import evidence as files

        secret = passphrase(read_config(home / FILE))
        with Home.open(home, secret, secrets.token_bytes, _now) as opened:
            verify(evidence, trust=home / CONSORTIUM)
            trail, found = opened.organisation.audit, []
            for path in sorted(evidence.rglob(f"*{files.SUFFIX}")):
                read = files.read(files.read_file(path)) if path.parent.name == "access" else None
                if isinstance(read, AccessBatch) and read.organisation == opened.organisation.name:
                    found.append(read)
            new = sum(trail.take_back(batch) for batch in sorted(found, key=lambda batch: batch.first))
            last, name = trail.last, opened.organisation.name
        if json:
            _print_json({"organisation": name, "entries": new, "last": last})
            return
        typer.echo(f"{home}: {new} entries taken back; the trail of {name} ends with entry {last}.")


def _now() -> int:
    import time

    return time.time_ns() // 1_000_000


def _print_json(facts: dict[str, object]) -> None:
    import json

    typer.echo(json.dumps(facts, ensure_ascii=False))
