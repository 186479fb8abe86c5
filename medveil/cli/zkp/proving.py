"""`medveil zkp publish | ask | prove | verify | inspect`: sets, questions, proofs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medveil.cli.zkp.options import Json, Out, WalletFile, passphrase, written


def register(zkp: typer.Typer) -> None:
    """Add the verbs to the tree."""

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
        from medveil.credentials import sets

        rows = sets.parse_members(kind, read_text(members).splitlines())
        made = sets.publish(kind, name, version, rows, secrets.token_bytes)
        count = len(made.published)
        written(out, made, json, f"set {name}, version {version}, {count} members.", members=count)

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
        written(out, made, json, "question, good for one answer. Keep it: the answer is verified against it.")

    @zkp.command("prove")
    def prove(
        wallet: WalletFile,
        question: Annotated[Path, typer.Argument(readable=False, help="The verifier's question.")],
        out: Out,
        sets: Annotated[
            list[Path] | None,
            typer.Option("--set", readable=False, help="A set that is asked for, whole; of a redemption none."),
        ] = None,
        filings: Annotated[
            Path | None, typer.Option(readable=False, help="Your filings, a line each, where one is asked for.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Holder: prove what is asked: eligibility, a settlement, or a redemption.

        If it does not hold, nothing is proved, and you read which condition fails. The wallet notes a settlement before
        it is written: cut short, the same line goes on, and gives the same proof.
        """
        import secrets

        from medveil.cli.terms import read_text
        from medveil.credentials import claiming, files, proving
        from medveil.credentials.sets import parse_members
        from wire.errors import Refused

        asked = files.read_any(question)
        mine = [] if filings is None else parse_members("filed", read_text(filings).splitlines())
        published = [files.read(path, files.SetFile) for path in sets or ()]
        rand = secrets.token_bytes
        if isinstance(asked, files.Question):
            audience, secret = asked.request.audience, passphrase(str(wallet))
            written(
                out,
                proving.prove(wallet, secret, asked, published, mine, rand),
                json,
                f"proof for {audience}, of this bill and question alone.",
                audience=audience,
            )
        elif isinstance(asked, claiming.SettlementQuestion):
            op = claiming.settle(wallet, passphrase(str(wallet)), asked, published, mine, rand)
            row = op.claim.row
            sentence = f"claim on {row.payer}, layer {row.layer}. Post it before anything else is claimed from it."
            written(out, op, json, sentence, payer=row.payer, layer=row.layer, policy=row.policy, visit=row.visit)
        elif isinstance(asked, claiming.RedemptionQuestion):
            redeemed = claiming.redeem(wallet, passphrase(str(wallet)), asked, rand)
            payment = asked.voucher.payment
            sentence = f"redemption of what {payment.payer}, layer {payment.layer}, had paid. Post it."
            written(out, redeemed, json, sentence, payer=payment.payer, layer=payment.layer)
        else:
            raise Refused("credential_files.other_kind", file=str(question), expected="Question")

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
        asked = None if question is None else files.read_any(question)
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
        """Print any file of these verbs as JSON, wallets and issuers' folders apart. Shows, does not verify."""
        from medveil.cli import screen
        from medveil.credentials import files, proving

        screen.print_json(proving.as_tree(files.read_any(path)))
