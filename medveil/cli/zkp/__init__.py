"""`medveil zkp`: credentials and proofs on files, for issuers, holders and verifiers; no gateway is called."""

from __future__ import annotations

import typer

from medveil.cli.zkp import contract, issuing, proving, wallets


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    zkp = typer.Typer(
        help="Credentials and proofs on files: issue, prove, verify, inspect. No gateway is called.",
        no_args_is_help=True,
    )
    app.add_typer(zkp, name="zkp")
    for part in (issuing, proving, contract, wallets):
        part.register(zkp)
