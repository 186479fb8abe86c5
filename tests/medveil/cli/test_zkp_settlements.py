"""`medveil zkp verify` and `inspect` on what settlement and reversal write."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from medveil.cli import app
from tests.zkp.claims import claim_of, derive_of, holdings_of, row
from tests.zkp.holders import holder, rand_of
from wire import canonical
from wire.errors import DecodeError, Refused, VerificationError
from zkp import payments, reversal, settlement
from zkp.groups import backend
from zkp.reversal import Redemption
from zkp.settlement import Settlement

ROW = row(deductible=0, band_1=0, band_2=0, remainder=True)


@pytest.fixture(scope="module")
def settled() -> tuple[Settlement, settlement.Outcome]:
    anna = holder()
    claim = claim_of(anna, ROW)
    return settlement.prove(claim, holdings_of(anna, claim), derive_of("anna", claim), rand_of("cli"))


def run(*arguments: str | Path) -> Result:
    done = CliRunner().invoke(app, ["zkp", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.mark.parametrize("curves", ["arkworks", "reference"])
def test_a_settlement(settled: tuple[Settlement, settlement.Outcome], tmp_path: Path, curves: str) -> None:
    path = tmp_path / "claim.evidence"
    path.write_bytes(canonical.encode(settled[0]))
    done = run("verify", path, "--backend", curves, "--json")
    assert done.exit_code == 3  # the statement is the prover's: the ledger makes its own
    said = json.loads(done.stdout)
    assert said["verdict"] == "consistent, not pinned"
    assert (said["payer"], said["layer"], said["year"], said["visit"]) == ("bureau-1", 1, 2025, 1)
    assert "420055" not in done.stdout and "I10" not in done.stdout


def test_a_settlement_that_was_altered(settled: tuple[Settlement, settlement.Outcome], tmp_path: Path) -> None:
    path = tmp_path / "claim.evidence"
    path.write_bytes(canonical.encode(msgspec.structs.replace(settled[0], note=bytes(settlement.NOTE_BYTES))))
    with pytest.raises(VerificationError):
        run("verify", path)


def test_a_redemption(settled: tuple[Settlement, settlement.Outcome], tmp_path: Path) -> None:
    message, outcome = settled
    group, anna = backend(), holder()
    bill = payments.pay(
        payments.registered(message.claim.bill, "hospital-1", message.claim.total, "CNY"), message.payment, "CNY"
    )
    _, voucher = payments.reverse(bill, 1, "bureau-1", group)
    taken = outcome.paid[0], outcome.deducted[0]
    owner = settlement.secrets_of(derive_of("anna", message.claim), anna.account, *taken)["owner"]
    held = reversal.Holdings(anna.encounter, anna.account, outcome.paid, (0, 0), owner)
    low = Redemption(
        "demo", message.claim.encounter_key, message.claim.account_key, voucher, "hospital-1", "bureau-1", bytes(32),
        "HPAYMT", "grant-1", message.claim.serial,
    )  # fmt: skip
    with pytest.raises(DecodeError) as caught:  # the account that has not paid has no visit to give back
        reversal.prove(low, held, lambda label: bytes(64), rand_of("cli"))
    assert caught.value.code == "credentials.bad_value"
    visited = holder("anna", visits=1)
    held = reversal.Holdings(visited.encounter, visited.account, outcome.paid, (0, 0), owner)
    true = msgspec.structs.replace(low, serial=reversal.account.spent_serial(visited.account))
    proof, _ = reversal.prove(true, held, lambda label: label.encode().ljust(64, b"."), rand_of("cli"))
    path = tmp_path / "redeemed.evidence"
    path.write_bytes(canonical.encode(proof))
    done = run("verify", path, "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["reversal"] == 0
    tree = json.loads(run("inspect", path).stdout)
    assert tree["redemption"]["voucher"]["payment"]["payer"] == "bureau-1"


def test_a_question_is_for_eligibility(settled: tuple[Settlement, settlement.Outcome], tmp_path: Path) -> None:
    path = tmp_path / "claim.evidence"
    path.write_bytes(canonical.encode(settled[0]))
    with pytest.raises(Refused):
        run("verify", path, "--question", path)
