"""`medveil extract`: what a recipient does on its own machine with an extract that a grant brought it.

What a gateway does with extracts is in `medveil.cli.extract_calls`.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medveil.cli import extract_calls, screen
from medveil.cli.ending import ending_tidily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medveil.extracts.opening import Recipient
    from privacy.copies.extract_file import ExtractFacts

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
ExtractFile = Annotated[Path, typer.Argument(readable=False, metavar="FILE", help="The extract.")]
Trust = Annotated[Path | None, typer.Option(readable=False, help="The trust file consortium.json that you pinned.")]
HomeFolder = Annotated[
    Path | None,
    typer.Option("--home", readable=False, help="Your organisation's home, its gateway stopped: with its own keys."),
]
KeyFolder = Annotated[
    Path | None, typer.Option("--keys", readable=False, help="Your own key folder, made by extract key.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    extract = typer.Typer(
        help="Extracts: encrypted copies of granted rows, for one recipient.",
        no_args_is_help=True,
    )
    app.add_typer(extract, name="extract")
    _keys(extract)
    _opening(extract)
    extract_calls.register(extract)


def _keys(extract: typer.Typer) -> None:
    @extract.command("key")
    def key(
        folder: Annotated[Path, typer.Argument(readable=False, help="The key folder to make.")],
        organisation: Annotated[str, typer.Option(help="Your organisation.")],
        out: Annotated[Path, typer.Option("--out", readable=False, help="Where to write the public key.")],
        suite: Annotated[
            Literal["x25519", "hybrid"],
            typer.Option(help="hybrid: X25519 with ML-KEM-768, against quantum computers to come."),
        ] = "hybrid",
        json: Json = False,
    ) -> None:
        """Make a key of your own that extracts are sealed to; the public part is for the issuer.

        The passphrase of the folder comes from MEDVEIL_PASSPHRASE_FILE, or is asked for.
        """
        import secrets
        import shutil

        from medveil.client.credentials import write_private
        from medveil.extracts.key_folder import make_key
        from wire.canonical import encode
        from wire.errors import Refused

        if out.exists():
            raise Refused("client.file_exists", file=str(out))
        made = make_key(folder, _passphrase(folder, fresh=True), organisation, suite, secrets.token_bytes)
        try:
            write_private(out, encode(made), new=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # nobody has its public key, nor could get it
            raise
        said = made.key.key_id().hex()
        if json:
            screen.print_json({"file": str(out), "organisation": organisation, "suite": suite, "key": said})
        else:
            screen.say(f"{out}: public key {said} of {organisation}. {folder} holds the secret one.")
            screen.say("Tell the issuer these digits by another way, so that nobody puts another key in its place.")


def _opening(extract: typer.Typer) -> None:
    @extract.command("inspect")
    def inspect(
        path: ExtractFile, trust: Trust = None, home: HomeFolder = None, keys: KeyFolder = None, json: Json = False
    ) -> None:
        """Show for whom an extract is; with your keys and --trust, also what its issuer signed. No row is read.

        The passphrase of the keys comes from MEDVEIL_PASSPHRASE_FILE, or is asked for.
        """
        from medveil.extracts.opening import read_cover

        cover = read_cover(path)
        if home is None and keys is None:
            said = {
                "issuer": cover.issuer,
                "recipient": cover.recipient,
                "extract": cover.extract.hex(),
                "sealed to": cover.seal_key.hex(),
            }
            _show(said, json)
            if not json:
                screen.say("Anybody could have written this. Your keys and --trust show what the issuer signed.")
            return
        with _recipient(trust, home, keys) as recipient:
            _show(_said(recipient.inspect(path)), json)

    @extract.command("open")
    def open_(
        path: ExtractFile,
        trust: Trust = None,
        home: HomeFolder = None,
        keys: KeyFolder = None,
        out: Annotated[
            Path | None,
            typer.Option(readable=False, help="Write the rows in the clear to this new .csv, .parquet or .arrow file."),
        ] = None,
        json: Json = False,
    ) -> None:
        """Check an extract and open it: signature, hash, key, rows. Decrypted in memory; written only with --out.

        The passphrase of the keys comes from MEDVEIL_PASSPHRASE_FILE, or is asked for.
        """
        import time

        from medveil.extracts.opening import FORMATS, write_plain
        from wire.dates import format_instant

        if out is not None and out.suffix not in FORMATS:
            raise typer.BadParameter(f"--out ends in one of {', '.join(FORMATS)}")
        with _recipient(trust, home, keys) as recipient:
            facts, rows = recipient.open(path, time.time_ns() // 1_000_000)
        if out is not None:
            with ending_tidily():
                write_plain(rows, out)
        _show(_said(facts) | ({"written": str(out)} if out is not None else {}), json)
        if out is not None and not json:
            screen.say(f"{out} is not encrypted. Guard it, and delete it by {format_instant(facts.delete_by)}.")


def _passphrase(of: Path, fresh: bool = False) -> str:
    """From MEDVEIL_PASSPHRASE_FILE, or asked for on a terminal."""
    import os

    from medveil.service.home.config import secret_in

    named = os.environ.get("MEDVEIL_PASSPHRASE_FILE")
    return secret_in(Path(named)) if named else screen.typed(f"Passphrase of {of}", hidden=True, twice=fresh)


@contextmanager
def _recipient(trust: Path | None, home: Path | None, keys: Path | None) -> Iterator[Recipient]:
    """Who opens, while its home is held. The home brings the trust file that it pinned, if none is named."""
    import secrets
    import time

    from medveil.extracts.key_folder import open_key
    from medveil.extracts.opening import Recipient
    from wire.checkpoint import read_trust

    if (home is None) == (keys is None):
        raise typer.BadParameter("name either --home or --keys: whose keys open it")
    if keys is not None:
        if trust is None:
            raise typer.BadParameter("name the trust file with --trust: it says which keys are the issuer's")
        pinned = read_trust(trust)
        organisation, own = open_key(keys, _passphrase(keys))
        yield Recipient(organisation, [own], pinned)
        return
    from medveil.service.home.config import FILE, passphrase, read_config
    from medveil.service.home.home import CONSORTIUM, Home

    assert home is not None
    pinned = read_trust(trust if trust is not None else home / CONSORTIUM)
    secret = passphrase(read_config(home / FILE))
    with Home.open(home, secret, secrets.token_bytes, lambda: time.time_ns() // 1_000_000) as opened:
        own_keys = [generation.seal for generation in opened.organisation.keys.generations]
        yield Recipient(opened.organisation.name, own_keys, pinned)


def _said(facts: ExtractFacts) -> dict[str, Any]:
    """What the issuer signed, for people and programs."""
    from wire.dates import format_instant

    return {
        "issuer": facts.cover.issuer,
        "recipient": facts.cover.recipient,
        "dataset": facts.dataset,
        "grant": facts.grant,
        "purpose": facts.purpose,
        "rows": facts.rows,
        "columns": {column.name: column.mask or "as it is" for column in facts.columns},
        "made": format_instant(facts.made),
        "delete by": format_instant(facts.delete_by),
        "privacy": "no noise: rows of single persons, outside differential privacy",
        "risk report": facts.risk.hex(),
        "audit entry": facts.audit,
        "extract": facts.cover.extract.hex(),
    }


def _show(said: dict[str, Any], json: bool) -> None:
    if json:
        screen.print_json({name.replace(" ", "_"): value for name, value in said.items()})
    else:
        screen.facts(said.items())
