"""`medveil zkp wallet | catch-up | abandon | seed | restore`: what a holder has, and where it stands."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer

from medveil.cli.zkp.options import ContractFile, Json, Out, WalletFile, passphrase, written


def register(zkp: typer.Typer) -> None:
    """Add the verbs to the tree."""

    @zkp.command("wallet")
    def wallet_(wallet: WalletFile, json: Json = False) -> None:
        """Holder: show the accounts of your wallet, what is left in each, and the payments it made."""
        from medveil.cli import screen
        from medveil.credentials import updating, wallets

        with wallets.opened(wallet, passphrase(str(wallet))) as kept:
            accounts, payments = updating.accounts(kept.wallet), updating.payments(kept.wallet)
        if json:
            screen.print_json({"accounts": accounts, "payments": payments})
            return
        _accounts(accounts)
        if payments:
            screen.say("")
            names = ("bill", "payer", "layer", "year", "paid", "deducted")
            screen.table(payments, [(name, itemgetter(name)) for name in names])

    @zkp.command("catch-up")
    def catch_up(wallet: WalletFile, contract: ContractFile, json: Json = False) -> None:
        """Holder: bring your accounts to where the contract has them, whatever was cut short before."""
        import secrets

        from medveil.cli import screen
        from medveil.credentials import updating

        found = updating.catch_up(wallet, passphrase(str(wallet)), contract, secrets.token_bytes)
        if json:
            screen.print_json({"accounts": found})
        else:
            _accounts(found)

    @zkp.command("abandon")
    def abandon(
        wallet: WalletFile,
        op: Annotated[Path, typer.Argument(readable=False, help="The claim or redemption that was refused.")],
        json: Json = False,
    ) -> None:
        """Holder: give up a claim that the contract has refused, so that the account can make another."""
        import secrets

        from medveil.cli import screen
        from medveil.cli.zkp.options import read_op
        from medveil.credentials import updating

        found = updating.abandon(wallet, passphrase(str(wallet)), read_op(op), secrets.token_bytes)
        if json:
            screen.print_json({"accounts": found})
        else:
            _accounts(found)

    @zkp.command("opening")
    def opening_(
        wallet: WalletFile,
        claim: Annotated[Path, typer.Argument(readable=False, help="Your claim, final and caught up.")],
        out: Out,
        json: Json = False,
    ) -> None:
        """Holder: open the amount of a payment to its payer. Whoever has the file reads the amount."""
        from medveil.cli.zkp.options import read_op
        from medveil.credentials import opening
        from wire.errors import Refused
        from zkp.settlement import Settlement

        op = read_op(claim)
        if not isinstance(op, Settlement):
            raise Refused("credential_files.other_kind", file=str(claim), expected="Settlement")
        made = opening.opened(wallet, passphrase(str(wallet)), op)
        written(out, made, json, f"opening for {op.claim.row.payer} alone.", payer=op.claim.row.payer)

    @zkp.command("seed")
    def seed(wallet: WalletFile, out: Out, json: Json = False) -> None:
        """Holder: write down the wallet's seed, from which a lost wallet is made again.

        Whoever has the seed has the wallet, without its passphrase: keep it on paper or on a device apart.
        """
        from medveil.cli import screen
        from medveil.credentials import wallets

        with wallets.opened(wallet, passphrase(str(wallet))) as kept:
            wallets.write_seed(out, kept.wallet.seed)
        if json:
            screen.print_json({"file": str(out)})
        else:
            screen.say(f"{out}: the seed of {wallet}. Whoever has it has the wallet; print it and remove the file.")

    @zkp.command("restore")
    def restore(
        wallet: WalletFile,
        seed: Annotated[Path, typer.Option(readable=False, help="What medveil zkp seed wrote; for your eyes only.")],
        chain: Annotated[str, typer.Option(help="Name of the consortium's ledger.")],
        json: Json = False,
    ) -> None:
        """Holder: make a lost wallet again from its seed, under a new passphrase.

        It is empty at first. Apply to each issuer again: the wallet asks with the same commitment, so that the issuer
        gives the same answer.
        """
        import secrets

        from medveil.cli import screen
        from medveil.credentials import wallets
        from medveil.service.home.config import secret_in
        from wire.identifiers import check_name

        known = wallets.parse_seed(secret_in(seed), seed)
        check_name(chain, "chain")
        wallets.restore(wallet, passphrase(str(wallet), fresh=True), chain, known, secrets.token_bytes)
        if json:
            screen.print_json({"file": str(wallet), "chain": chain})
        else:
            screen.say(f"{wallet}: the wallet of this seed, without credentials. Apply to each issuer again.")


def _accounts(found: list[dict[str, Any]]) -> None:
    from medveil.cli import screen

    names = ("payer", "layer", "year", "visits", "cap", "deductible", "step")
    screen.table(found, [(name, itemgetter(name)) for name in names])
