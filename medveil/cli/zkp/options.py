"""What the verbs of `medveil zkp` have in common: arguments, the passphrase, how a file is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from wire.canonical import Wire
    from zkp.wallet import Op

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Out = Annotated[Path, typer.Option("--out", readable=False, help="Where to write it; must not be there yet.")]
IssuerFolder = Annotated[Path, typer.Argument(readable=False, help="The issuer's folder, made by zkp key.")]
ContractFile = Annotated[Path, typer.Argument(readable=False, help="The contract's file, made by zkp contract.")]
Bill = Annotated[str, typer.Option(help="The bill's handle, in hex.")]
WalletFile = Annotated[Path, typer.Argument(readable=False, help="The holder's wallet, a file.")]


def passphrase(what: str, fresh: bool = False) -> str:
    """From MEDVEIL_PASSPHRASE_FILE, or asked for on a terminal."""
    import os
    import sys

    from medveil.service.home.config import secret_in
    from wire.errors import Refused

    named = os.environ.get("MEDVEIL_PASSPHRASE_FILE")
    if named:
        return secret_in(Path(named))
    if not sys.stdin.isatty():
        raise Refused("credential_files.no_passphrase")
    return str(typer.prompt(f"Passphrase of {what}", hide_input=True, confirmation_prompt=fresh, err=True))


def written(out: Path, struct: Wire, json: bool, sentence: str, **facts: Any) -> None:
    """Write a file and say so. Raises Refused, Unavailable."""
    from medveil.cli import screen
    from medveil.credentials import files

    files.write(out, struct)
    if json:
        screen.print_json({"file": str(out), **facts})
    else:
        screen.say(f"{out}: {sentence}")


def read_op(path: Path) -> Op:
    """A settlement or redemption. Raises Unavailable, DecodeError, Refused."""
    from medveil.credentials import files
    from wire.errors import Refused
    from zkp.reversal import Redeemed
    from zkp.settlement import Settlement

    found = files.read_any(path)
    if not isinstance(found, Settlement | Redeemed):
        raise Refused("credential_files.other_kind", file=str(path), expected="Settlement")
    return found


def handle_in(text: str, option: str = "--bill") -> bytes | None:
    """A bill's handle as written; None if nothing is. Raises typer.BadParameter."""
    try:
        handle = bytes.fromhex(text)
    except ValueError:
        handle = b"?"
    if len(handle) not in (0, 16):
        raise typer.BadParameter(f"{option} is a handle: 32 hex digits")
    return handle or None
