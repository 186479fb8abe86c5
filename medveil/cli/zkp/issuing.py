"""`medveil zkp key | offer | apply | issue | take`: from an issuer's key to a holder's credential."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medveil.cli.zkp.options import IssuerFolder, Json, Out, WalletFile, handle_in, passphrase, written


def register(zkp: typer.Typer) -> None:
    """Add the verbs to the tree."""

    @zkp.command("key")
    def key(
        kind: Annotated[Literal["person", "account", "encounter"], typer.Argument(help="What it will sign.")],
        folder: IssuerFolder,
        issuer: Annotated[str, typer.Option(help="The organisation whose key it is.")],
        out: Out,
        json: Json = False,
    ) -> None:
        """Issuer: make a key for one kind of credential; writes the public key to hand out.

        The passphrase of the folder comes from MEDVEIL_PASSPHRASE_FILE, or is asked for.
        """
        import secrets

        from medveil.credentials import issuing

        made = issuing.make_issuer(folder, passphrase(str(folder), fresh=True), kind, issuer, secrets.token_bytes)
        sentence = f"public key of {issuer} for {kind} credentials. {folder} holds the secret one."
        written(out, made, json, sentence, kind=kind, issuer=issuer, key=made.key.hex())

    @zkp.command("offer")
    def offer(
        folder: IssuerFolder,
        chain: Annotated[str, typer.Option(help="Name of the consortium's ledger.")],
        out: Out,
        person_key: Annotated[
            Path | None,
            typer.Option(readable=False, help="Whose person credentials are taken; of account and encounter."),
        ] = None,
        renews: Annotated[
            Path | None,
            typer.Option(readable=False, help="The key of the person credential in whose place this one is."),
        ] = None,
        payer: Annotated[str, typer.Option(help="Of an account: who pays.")] = "",
        layer: Annotated[int, typer.Option(help="Of an account: which layer.")] = 0,
        year: Annotated[int, typer.Option(help="Of an account: which year.")] = 0,
        bill: Annotated[str, typer.Option(help="Of an encounter: the bill's handle, in hex.")] = "",
        disclose: Annotated[
            list[str] | None,
            typer.Option(help="An attribute of the person that the holder shows; once for each."),
        ] = None,
        json: Json = False,
    ) -> None:
        """Issuer: offer one credential to one holder: a fresh nonce to answer. An offer is good for one answer.

        With --renews the holder shows the handle of her old person credential, and gets one over the same secret.
        """
        import secrets

        from medveil.credentials import files, issuing
        from zkp.issuance import AccountScope

        person, older = (
            None if path is None else files.read(path, files.CredentialKey) for path in (person_key, renews)
        )
        scope = AccountScope(chain, payer, layer, year) if payer else None
        made = issuing.offer(
            folder,
            passphrase(str(folder)),
            chain,
            secrets.token_bytes,
            person=person,
            renews=older,
            disclose=disclose or (),
            scope=scope,
            bill=handle_in(bill),
        )
        written(out, made, json, f"offer of one {made.kind} credential. Hand it to the holder.", kind=made.kind)

    @zkp.command("apply")
    def apply(
        wallet: WalletFile,
        offer: Annotated[Path, typer.Argument(readable=False, help="The issuer's offer.")],
        out: Out,
        renew: Annotated[
            bool, typer.Option("--renew", help="Your bureau renews your person credential: show it the handle.")
        ] = False,
        json: Json = False,
    ) -> None:
        """Holder: apply for what is offered. You show of yourself what the offer names: it is printed.

        For a first person credential the wallet is made if there is none. Its passphrase has 8 characters or more; it
        comes from MEDVEIL_PASSPHRASE_FILE, or is asked for.
        """
        import secrets

        from medveil.credentials import files, issuing

        made = files.read(offer, files.Offer)
        secret = passphrase(str(wallet), fresh=not wallet.exists())
        application = issuing.apply(wallet, secret, made, secrets.token_bytes, renew=renew)
        sentence = f"application for one {made.kind} credential of {made.occasion.issuer}. Hand it to the issuer."
        if made.disclose:
            sentence += f" It shows: {', '.join(made.disclose)}."
        written(out, application, json, sentence, kind=made.kind, disclosed=list(made.disclose))

    @zkp.command("issue")
    def issue(
        folder: IssuerFolder,
        application: Annotated[Path, typer.Argument(readable=False, help="The holder's application.")],
        values: Annotated[
            Path,
            typer.Option(readable=False, help='JSON: attributes, days as dates (null: no end), "shown". "-": stdin.'),
        ],
        out: Out,
        person: Annotated[
            str, typer.Option(help="Of a first person credential: your own id of whom it is for; each gets one.")
        ] = "",
        json: Json = False,
    ) -> None:
        """Issuer: check an application and sign. The same application again gets the same answer, other values none.

        Under "shown" stands what the holder must have shown of her person credential: it is compared, so that nobody
        insured can lend herself to somebody else.
        """
        from medveil.cli.terms import parse_json, read_text
        from medveil.credentials import files, issuing

        asked = files.read(application, files.Application)
        said = parse_json("--values", read_text(values))
        answer = issuing.issue(folder, passphrase(str(folder)), asked, said, person)
        sentence = f"{answer.offer.kind} credential, for its holder alone: it says what was signed."
        facts: dict[str, str] = {"kind": answer.offer.kind}
        if answer.total_blinding is not None:
            facts["total_commitment"] = issuing.total_commitment(answer).hex()
            sentence += f"\nRegister the bill's total on the ledger as {facts['total_commitment']}"
        written(out, answer, json, sentence, **facts)

    @zkp.command("take")
    def take(
        wallet: WalletFile,
        answer: Annotated[Path, typer.Argument(readable=False, help="The issuer's answer.")],
        json: Json = False,
    ) -> None:
        """Holder: check the signature and keep the credential. Read what it says about you."""
        import secrets

        from medveil.cli import screen
        from medveil.credentials import files, issuing

        found = files.read(answer, files.Answer)
        said = issuing.take(wallet, passphrase(str(wallet)), found, secrets.token_bytes)
        if json:
            screen.print_json(said)
        else:
            screen.facts(said.items())
