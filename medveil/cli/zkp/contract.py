"""`medveil zkp policy | contract | register | ..`: the settlement contract, played on one file that everybody reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medveil.cli.zkp.options import Bill, ContractFile, IssuerFolder, Json, Out, handle_in, passphrase, read_op, written

Payer = Annotated[str, typer.Option(help="Who pays.")]
Layer = Annotated[int, typer.Option(min=1, max=99, help="On which layer.")]
Purpose = Annotated[str, typer.Option(help="Under which purpose it is asked; a code of ActReason or DUO.")]
Grant = Annotated[str, typer.Option(help="Under which grant it is asked.")]


def register(zkp: typer.Typer) -> None:
    """Add the verbs to the tree."""
    _terms(zkp)
    _bills(zkp)
    _ops(zkp)


def _terms(zkp: typer.Typer) -> None:
    @zkp.command("policy")
    def policy(
        rows: Annotated[Path, typer.Argument(readable=False, help='JSON: {"rows": [..]}. "-": stdin.')],
        out: Out,
        json: Json = False,
    ) -> None:
        """Payer: write a policy table. Rows between which a claim could choose are refused."""
        from medveil.cli.terms import parse_json, read_text
        from medveil.credentials import policy_table

        made = policy_table.parse(parse_json("ROWS", read_text(rows)))
        written(out, made, json, f"policy table of {len(made.rows)} rows.", rows=len(made.rows))

    @zkp.command("contract")
    def contract_(
        contract: Annotated[Path, typer.Argument(readable=False, help="The contract's file.")],
        chain: Annotated[str, typer.Option(help="Name of the consortium's ledger.")],
        keys: Annotated[
            list[Path],
            typer.Option("--key", readable=False, help="A public key: for people, for accounts, of each hospital."),
        ],
        levels: Annotated[
            list[str], typer.Option("--level", help="A hospital's level in the registry, as hospital-1=3.")
        ],
        sets: Annotated[
            list[Path], typer.Option("--set", readable=False, help="The newest set of active credentials, and others.")
        ],
        policy: Annotated[Path, typer.Option(readable=False, help="The policy table.")],
        json: Json = False,
    ) -> None:
        """Contract: make its file, or have it go by other keys, newer sets or another table from now on.

        It stands for the ledger on one machine: public, unsigned, and whoever can write it is the ledger.
        """
        from medveil.cli import screen
        from medveil.credentials import contract as contracts
        from medveil.credentials import files
        from medveil.credentials.policy_table import PolicyTable

        of_level = dict(text.partition("=")[::2] for text in levels if "=" in text)
        if len(of_level) != len(levels):
            raise typer.BadParameter("--level is a hospital's name and level, once for each: hospital-1=3")
        made = contracts.agree(
            contract,
            chain,
            [files.read(path, files.CredentialKey) for path in keys],
            [files.read(path, files.SetFile) for path in sets],
            of_level,
            files.read(policy, PolicyTable),
        )
        counts = {"hospitals": len(made.hospitals), "rows": len(made.rows), "bills": len(made.bills)}
        if json:
            screen.print_json({"file": str(contract), **counts})
        else:
            said = ", ".join(f"{name} {count}" for name, count in counts.items())
            screen.say(f"{contract}: contract of {chain}: {said}.")


def _bills(zkp: typer.Typer) -> None:
    @zkp.command("register")
    def register_(
        contract: ContractFile,
        answer: Annotated[Path, typer.Argument(readable=False, help="The encounter that you issued.")],
        currency: Annotated[str, typer.Option(help="Three letters.")] = "CNY",
        replaces: Annotated[str, typer.Option(help="The handle of a red bill in whose place it stands.")] = "",
        json: Json = False,
    ) -> None:
        """Hospital: register the bill of an encounter: handle and commitment to the total, nothing else of it.

        With --replaces it is paid after what was reversed under the red one has gone back into its account.
        """
        from medveil.cli import screen
        from medveil.credentials import contract as contracts
        from medveil.credentials import files

        red = _handle(replaces, "--replaces") if replaces else None
        bill = contracts.register(contract, files.read(answer, files.Answer), currency, red)
        if json:
            screen.print_json({"bill": bill.handle.hex(), "total_commitment": bill.total.hex()})
        else:
            screen.say(f"{contract}: bill {bill.handle.hex()} of {bill.hospital} is registered.")

    @zkp.command("ask-claim")
    def ask_claim(
        contract: ContractFile,
        bill: Bill,
        payer: Payer,
        layer: Layer,
        grant: Grant,
        out: Out,
        purpose: Purpose = "HPAYMT",
        json: Json = False,
    ) -> None:
        """Payer: ask for the claim of one bill: what the contract has of it, the rows, and a fresh nonce."""
        import secrets

        from medveil.credentials import contract as contracts

        made = contracts.ask_claim(contract, _handle(bill), payer, layer, purpose, grant, secrets.token_bytes)
        sentence = "question, good for one claim. Hand it to the holder."
        written(out, made, json, sentence, payer=payer, layer=layer, standing=len(made.bill.standing))

    @zkp.command("ask-redemption")
    def ask_redemption(
        contract: ContractFile,
        bill: Bill,
        grant: Grant,
        out: Out,
        number: Annotated[int, typer.Option(min=0, help="Which reversal under the bill.")] = 0,
        purpose: Purpose = "HPAYMT",
        json: Json = False,
    ) -> None:
        """Payer: ask for the redemption of a voucher that a reversal has posted."""
        import secrets

        from medveil.credentials import contract as contracts

        made = contracts.ask_redemption(contract, _handle(bill), number, purpose, grant, secrets.token_bytes)
        written(out, made, json, "question, good for one redemption. Hand it to the holder.", reversal=number)

    @zkp.command("amount")
    def amount(
        contract: ContractFile,
        opening: Annotated[Path, typer.Argument(readable=False, help="What the holder opened to you.")],
        json: Json = False,
    ) -> None:
        """Payer: read the amount of a payment from its opening, checked against what stands in the contract."""
        from medveil.cli import screen
        from medveil.credentials import files
        from medveil.credentials import opening as openings

        said = files.read(opening, openings.OpeningFile).opening
        bill, payment = openings.amount(contract, said)
        facts = {"bill": bill, "payer": payment.payer, "layer": payment.layer, "paid": said.paid}
        if json:
            screen.print_json(facts)
        else:
            screen.facts(facts.items())

    @zkp.command("reverse")
    def reverse(contract: ContractFile, bill: Bill, payer: Payer, layer: Layer, json: Json = False) -> None:
        """Payer: take a payment back, the highest layer first. Posts the voucher that its holder redeems once."""
        from medveil.cli import screen
        from medveil.credentials import contract as contracts

        voucher = contracts.reverse(contract, _handle(bill), payer, layer)
        if json:
            screen.print_json({"bill": bill, "reversal": voucher.number, "payer": payer, "layer": layer})
        else:
            screen.say(f"{contract}: the payment of {payer} is reversed; its voucher is number {voucher.number}.")

    @zkp.command("cancel")
    def cancel(contract: ContractFile, bill: Bill, json: Json = False) -> None:
        """Hospital: turn a bill red. Refused while a payment stands under it; then it takes none."""
        from medveil.cli import screen
        from medveil.credentials import contract as contracts

        contracts.cancel(contract, _handle(bill))
        if json:
            screen.print_json({"bill": bill, "red": True})
        else:
            screen.say(f"{contract}: bill {bill} is red.")


def _ops(zkp: typer.Typer) -> None:
    @zkp.command("post")
    def post(
        contract: ContractFile,
        op: Annotated[Path, typer.Argument(readable=False, help="A claim or redemption, as zkp prove wrote it.")],
        json: Json = False,
    ) -> None:
        """Contract: check a claim or redemption against what stands there, and take it. It is final then.

        The same again changes nothing.
        """
        from medveil.cli import screen
        from medveil.credentials import contract as contracts

        known = contracts.post(contract, read_op(op)).hex()
        if json:
            screen.print_json({"op": known})
        else:
            screen.say(f"{contract}: final, as op {known}.")

    @zkp.command("answer")
    def answer(folder: IssuerFolder, contract: ContractFile, json: Json = False) -> None:
        """Bureau: sign the next account of each final op, and post it. The answer to an op is always the same."""
        from medveil.cli import screen
        from medveil.credentials import updating

        count = updating.answer(folder, passphrase(str(folder)), contract)
        if json:
            screen.print_json({"answered": count})
        else:
            screen.say(f"{contract}: ops answered: {count}.")


def _handle(text: str, option: str = "--bill") -> bytes:
    handle = handle_in(text, option)
    if handle is None:
        raise typer.BadParameter(f"{option} is a handle: 32 hex digits")
    return handle
