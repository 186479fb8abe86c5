"""`medveil zkp`: credentials and proofs on files, for issuers, holders and verifiers; no gateway is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from wire.canonical import Wire

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Out = Annotated[Path, typer.Option("--out", readable=False, help="Where to write it; must not be there yet.")]
IssuerFolder = Annotated[Path, typer.Argument(readable=False, help="The issuer's folder, made by zkp key.")]
WalletFile = Annotated[Path, typer.Argument(readable=False, help="The holder's wallet, a file.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    zkp = typer.Typer(
        help="Credentials and proofs on files: issue, prove, verify, inspect. No gateway is called.",
        no_args_is_help=True,
    )
    app.add_typer(zkp, name="zkp")
    _issuing(zkp)
    _wallets(zkp)
    _sets(zkp)
    _proving(zkp)


def _passphrase(what: str, fresh: bool = False) -> str:
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


def _written(out: Path, struct: Wire, json: bool, sentence: str, **facts: Any) -> None:
    from medveil.cli import screen
    from medveil.credentials import files

    files.write(out, struct)
    if json:
        screen.print_json({"file": str(out), **facts})
    else:
        screen.say(f"{out}: {sentence}")


def _handle(text: str) -> bytes | None:
    try:
        handle = bytes.fromhex(text)
    except ValueError:
        handle = b"?"
    if len(handle) not in (0, 16):
        raise typer.BadParameter("--bill is a handle: 32 hex digits")
    return handle or None


def _issuing(zkp: typer.Typer) -> None:
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

        made = issuing.make_issuer(folder, _passphrase(str(folder), fresh=True), kind, issuer, secrets.token_bytes)
        sentence = f"public key of {issuer} for {kind} credentials. {folder} holds the secret one."
        _written(out, made, json, sentence, kind=kind, issuer=issuer, key=made.key.hex())

    @zkp.command("offer")
    def offer(
        folder: IssuerFolder,
        chain: Annotated[str, typer.Option(help="Name of the consortium's ledger.")],
        out: Out,
        person_key: Annotated[
            Path | None,
            typer.Option(readable=False, help="Whose person credentials are taken; of account and encounter."),
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
        """Issuer: offer one credential to one holder: a fresh nonce to answer."""
        import secrets

        from medveil.credentials import files, issuing
        from zkp.issuance import AccountScope

        person = None if person_key is None else files.read(person_key, files.CredentialKey)
        scope = AccountScope(chain, payer, layer, year) if payer else None
        made = issuing.offer(
            folder,
            _passphrase(str(folder)),
            chain,
            secrets.token_bytes,
            person=person,
            disclose=disclose or (),
            scope=scope,
            bill=_handle(bill),
        )
        _written(out, made, json, f"offer of one {made.kind} credential. Hand it to the holder.", kind=made.kind)

    @zkp.command("apply")
    def apply(
        wallet: WalletFile,
        offer: Annotated[Path, typer.Argument(readable=False, help="The issuer's offer.")],
        out: Out,
        json: Json = False,
    ) -> None:
        """Holder: apply for what is offered. What you show of yourself is what the offer names.

        The wallet is made if there is none. Its passphrase has 8 characters or more; it comes from
        MEDVEIL_PASSPHRASE_FILE, or is asked for.
        """
        import secrets

        from medveil.credentials import files, issuing

        made = files.read(offer, files.Offer)
        secret = _passphrase(str(wallet), fresh=not wallet.exists())
        application = issuing.apply(wallet, secret, made, secrets.token_bytes)
        sentence = f"application for one {made.kind} credential of {made.occasion.issuer}. Hand it to the issuer."
        _written(out, application, json, sentence, kind=made.kind, disclosed=list(made.disclose))

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
            str, typer.Option(help="Of a person credential: your own id of whom it is for; each gets one.")
        ] = "",
        json: Json = False,
    ) -> None:
        """Issuer: check an application and sign. The same application again gets the same answer.

        Under "shown" stands what the holder must have shown of her person credential: it is compared, so that nobody
        insured can lend herself to somebody else.
        """
        from medveil.cli.terms import parse_json, read_text
        from medveil.credentials import files, issuing

        asked = files.read(application, files.Application)
        said = parse_json("--values", read_text(values))
        answer = issuing.issue(folder, _passphrase(str(folder)), asked, said, person)
        sentence = f"{answer.offer.kind} credential, for its holder alone: it says what was signed."
        facts: dict[str, str] = {"kind": answer.offer.kind}
        if answer.total_blinding is not None:
            facts["total_commitment"] = issuing.total_commitment(answer).hex()
            sentence += f"\nRegister the bill's total on the ledger as {facts['total_commitment']}"
        _written(out, answer, json, sentence, **facts)

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
        said = issuing.take(wallet, _passphrase(str(wallet)), found, secrets.token_bytes)
        if json:
            screen.print_json(said)
        else:
            screen.facts(said.items())


def _wallets(zkp: typer.Typer) -> None:
    @zkp.command("seed")
    def seed(wallet: WalletFile, out: Out, json: Json = False) -> None:
        """Holder: write down the wallet's seed, from which a lost wallet is made again.

        Whoever has the seed has the wallet, without its passphrase: keep it on paper or on a device apart.
        """
        from medveil.cli import screen
        from medveil.credentials import wallets

        with wallets.opened(wallet, _passphrase(str(wallet))) as kept:
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
        wallets.restore(wallet, _passphrase(str(wallet), fresh=True), chain, known, secrets.token_bytes)
        if json:
            screen.print_json({"file": str(wallet), "chain": chain})
        else:
            screen.say(f"{wallet}: the wallet of this seed, without credentials. Apply to each issuer again.")


def _sets(zkp: typer.Typer) -> None:
    @zkp.command("publish")
    def publish(
        kind: Annotated[Literal["active", "covered", "filed"], typer.Argument(help="What stands in the set.")],
        members: Annotated[Path, typer.Argument(readable=False, help='Text, one member a line. "-": stdin.')],
        name: Annotated[str, typer.Option(help="Name of the set.")],
        version: Annotated[
            int, typer.Option(min=1, max=2**31 - 1, help="A version that this set has not had; of active, the epoch.")
        ],
        out: Out,
        json: Json = False,
    ) -> None:
        """Bureau: sign one version of a set under a key that is drawn for it and forgotten.

        A line is a handle in hex (active), a code (covered), or handle, code, first and last day or "-" (filed).
        """
        import secrets

        from medveil.cli.terms import read_text
        from medveil.credentials import proving

        rows = proving.parse_members(kind, read_text(members).splitlines())
        made = proving.publish(kind, name, version, rows, secrets.token_bytes)
        count = len(made.published)
        _written(out, made, json, f"set {name}, version {version}, {count} members.", members=count)


def _proving(zkp: typer.Typer) -> None:
    @zkp.command("ask")
    def ask(
        terms: Annotated[
            Path, typer.Argument(readable=False, help='JSON: chain, bill, hospital, service_day, audience, purpose, '
                                 'grant, policy, version, row, and codes and ages as you ask. "-": stdin.')
        ],
        person_key: Annotated[Path, typer.Option(readable=False, help="The bureau's public key.")],
        encounter_key: Annotated[Path, typer.Option(readable=False, help="The hospital's public key.")],
        active: Annotated[Path, typer.Option(readable=False, help="The newest set of active credentials.")],
        out: Out,
        diagnoses: Annotated[
            Path | None, typer.Option(readable=False, help="The newest set in which the diagnosis must stand.")
        ] = None,
        json: Json = False,
    ) -> None:  # fmt: skip
        """Verifier: ask whether one bill's patient is insured as your terms say, with a fresh nonce."""
        import secrets

        from medveil.cli.terms import parse_json, read_text
        from medveil.credentials import files, proving

        made = proving.ask(
            parse_json("TERMS", read_text(terms)),
            files.read(person_key, files.CredentialKey),
            files.read(encounter_key, files.CredentialKey),
            files.read(active, files.SetFile),
            None if diagnoses is None else files.read(diagnoses, files.SetFile),
            secrets.token_bytes,
        )
        _written(out, made, json, "question, good for one answer. Keep it: the answer is verified against it.")

    @zkp.command("prove")
    def prove(
        wallet: WalletFile,
        question: Annotated[Path, typer.Argument(readable=False, help="The verifier's question.")],
        sets: Annotated[list[Path], typer.Option("--set", readable=False, help="A set that is asked for, whole.")],
        out: Out,
        filings: Annotated[
            Path | None, typer.Option(readable=False, help="Your filings, a line each, where one is asked for.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Holder: prove what is asked. If it does not hold, nothing is proved, and you read which condition fails."""
        import secrets

        from medveil.cli.terms import read_text
        from medveil.credentials import files, proving

        asked = files.read(question, files.Question)
        mine = [] if filings is None else proving.parse_members("filed", read_text(filings).splitlines())
        published = [files.read(path, files.SetFile) for path in sets]
        proof = proving.prove(wallet, _passphrase(str(wallet)), asked, published, mine, secrets.token_bytes)
        sentence = f"proof for {asked.request.audience}, of this bill and question alone."
        _written(out, proof, json, sentence, audience=asked.request.audience)

    @zkp.command("verify")
    def verify(
        proof: Annotated[
            Path, typer.Argument(readable=False, help="A proof of eligibility, settlement or redemption.")
        ],
        question: Annotated[
            Path | None,
            typer.Option(readable=False, help="The question you asked; without it nothing is verified."),
        ] = None,
        backend: Annotated[
            str, typer.Option(help="Curve library: arkworks, or reference (py_ecc, slow, independent).")
        ] = "arkworks",
        json: Json = False,
    ) -> None:
        """Check a proof against your own question; says what it shows.

        Exit code 0: verified. 1: it does not hold. 3: it holds for the statement that came with it; keys, sets and
        terms in there are the prover's own words.
        """
        from medveil.cli import screen
        from medveil.credentials import files, proving
        from zkp.eligibility import Eligibility
        from zkp.groups import BACKENDS
        from zkp.reversal import Redeemed
        from zkp.settlement import Settlement

        if backend not in BACKENDS:
            raise typer.BadParameter(f"--backend is one of {', '.join(BACKENDS)}")
        found = files.read_any(proof)
        if not isinstance(found, Eligibility | Settlement | Redeemed):
            from wire.errors import Refused

            raise Refused("credential_files.no_proof")
        asked = None if question is None else files.read(question, files.Question)
        pinned = proving.verify(found, asked, backend)
        verdict = "verified" if pinned else "consistent, not pinned"
        facts = [("verdict", verdict), *proving.statement(found)]
        if json:
            screen.print_json({name.replace(" ", "_"): value for name, value in facts})
        else:
            screen.facts(facts)
        if not pinned:
            raise typer.Exit(3)

    @zkp.command("inspect")
    def inspect(
        path: Annotated[Path, typer.Argument(readable=False, help="Any file of these verbs.")],
        json: Annotated[bool, typer.Option("--json", help="It is JSON either way.")] = False,
    ) -> None:
        """Print a key, offer, application, answer, set, question or proof as JSON. Shows, does not verify."""
        from medveil.cli import screen
        from medveil.credentials import files, proving

        screen.print_json(proving.as_tree(files.read_any(path)))
