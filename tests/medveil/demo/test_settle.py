"""Eligibility and settlement as the demo plays them: what comes out, what lies in the open, what cannot be altered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from connectors.dataset import load_layout
from ledger.engines.clock import steady
from medveil.cli import app
from medveil.consortium import local_consortium
from medveil.credentials import files
from medveil.credentials.files import CredentialKey, Question, SetFile
from medveil.demo.desk import LocalDesk
from medveil.demo.eligibility import ask_eligibility
from medveil.demo.facts import EligibilityFacts, SettleFacts
from medveil.demo.insured import DIAGNOSIS, Insured, sign_up
from medveil.demo.join_and_load import founders
from medveil.demo.narrator import Narrator
from medveil.demo.play import BUREAU, CHAIN, ZONE, Play, now, rand
from medveil.demo.policy import AMOUNTS, TOTAL, layers
from medveil.demo.settle import settle
from medveil.verification import verify as verify_evidence
from wire import evidence
from wire.errors import DecodeError, MedveilError, Refused, VerificationError
from zkp import eligibility, settlement
from zkp.account import spent_serial
from zkp.credentials import PERSON
from zkp.eligibility import Eligibility
from zkp.groups import backend
from zkp.settlement import Settlement

Played = tuple[Path, Insured, EligibilityFacts, SettleFacts, str]


async def _play(folder: Path) -> tuple[Insured, EligibilityFacts, SettleFacts]:
    async with local_consortium(folder, CHAIN, founders(3), BUREAU, ZONE, rand, now, steady=steady) as consortium:
        members, homes = consortium.organisations, consortium.homes
        desks = {name: LocalDesk(member, homes[name], now) for name, member in members.items()}
        layout = load_layout("randhie")
        narrator, sites = Narrator(), folder / "sites"
        play = Play(desks, consortium.trust, consortium.post.carried, narrator, folder, sites, folder / "data", layout)
        insured = sign_up(play)
        return insured, await ask_eligibility(play, insured), await settle(play, insured)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("settle")
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr(Narrator, "say", lambda self, line, style="": said.append(line))
        insured, asked, settled = asyncio.run(_play(folder))
    yield folder / "proofs", insured, asked, settled, "\n".join(said)


def proof(folder: Path, name: str) -> object:
    return files.read_any(folder / f"{name}.evidence")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["zkp", *map(str, arguments)])


def test_what_is_paid_is_the_plain_amount(played: Played) -> None:
    _, _, _, settled, said = played
    assert settled.agree
    assert [(one.layer, one.payer, one.paid) for one in settled.payments] == [
        (1, "bureau", "8968.93 CNY"),
        (2, "insurer-1", "2145.26 CNY"),
    ]
    assert (settled.total, settled.left) == ("12480.50 CNY", "1366.31 CNY")
    assert [(one.cap_before, one.cap_after) for one in settled.payments] == [
        ("400000.00 CNY", "391031.07 CNY"),
        ("5000.00 CNY", "2854.74 CNY"),
    ]
    assert "Both equal plain arithmetic; 1366.31 CNY of 12480.50 CNY stay with her" in said


def test_every_way_to_cheat_is_refused_in_words(played: Played) -> None:
    _, _, asked, settled, said = played
    twice, lower, *altered = settled.refusals
    assert "stands paid, by insurer-1" in twice and "closes layer 1 below it" in lower
    assert len(altered) == 3 and all(line.endswith("does not hold for this statement.") for line in altered)
    older, passed_on = asked.refusals
    assert "person.birth is outside" in older and passed_on.endswith("does not hold for this statement.")
    for line in (*settled.refusals, *asked.refusals):
        assert line in said


def test_the_insurer_verifies_with_its_own_question(played: Played) -> None:
    folder, _, asked, _, _ = played
    done = run(
        "verify", folder / "eligibility.evidence", "--question", folder / "eligibility-question.evidence", "--json"
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["verdict"], said["bill"], said["audience"]) == ("verified", asked.handle, "insurer-1")
    assert (folder / "eligibility.evidence").stat().st_size == asked.proof_bytes


@pytest.mark.parametrize("number", [1, 2])
def test_a_payer_verifies_with_its_own_question(played: Played, number: int) -> None:
    folder, _, asked, settled, _ = played
    path = folder / f"settlement-{number}.evidence"
    assert run("verify", path).exit_code == 3, "its statement came with it"
    other = run("verify", path, "--question", folder / f"settlement-{3 - number}-question.evidence")
    assert isinstance(other.exception, VerificationError), "the other payer asked something else"
    done = run("verify", path, "--question", folder / f"settlement-{number}-question.evidence", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["verdict"] == "verified"
    assert (said["bill"], said["layer"], said["payer"]) == (
        asked.handle,
        number,
        settled.payments[number - 1].payer,
    )


def test_a_proof_alone_sends_to_the_command_that_checks_it(played: Played) -> None:
    folder = played[0]
    pinned = folder.parent / "consortium.json"
    for name, trust in (("eligibility", pinned), ("settlement-1", pinned), ("settlement-1", None)):
        with pytest.raises(Refused) as refused:
            verify_evidence(folder / f"{name}.evidence", trust=trust)
        assert refused.value.code == "verify.needs_question" and "medveil zkp verify" in refused.value.fix
    with pytest.raises(Refused) as refused:
        verify_evidence(folder / "person-key.evidence", trust=pinned)
    assert refused.value.code == "verify.needs_folder"


def test_the_independent_curve_library_agrees(played: Played) -> None:
    found = proof(played[0], "eligibility")
    assert isinstance(found, Eligibility)
    eligibility.verify(found, found.request, backend("reference"))


def test_the_second_layer_builds_on_the_first(played: Played) -> None:
    folder, insured, _, _, _ = played
    first, second = proof(folder, "settlement-1"), proof(folder, "settlement-2")
    assert isinstance(first, Settlement) and isinstance(second, Settlement)
    assert first.claim.standing == () and second.claim.standing == (first.paid,)
    assert first.claim.total == second.claim.total == insured.total
    assert first.claim.serial != second.claim.serial
    settlement.verify_batch([(one, one.claim) for one in (first, second)])
    without = msgspec.structs.replace(second.claim, standing=())
    with pytest.raises(VerificationError):
        settlement.verify(msgspec.structs.replace(second, claim=without), without)


def test_keys_and_sets_are_those_of_the_proofs(played: Played) -> None:
    folder, insured, _, _, _ = played
    found = proof(folder, "settlement-2")
    assert isinstance(found, Settlement) and found.claim.diagnoses is not None
    for kind, key in (
        ("person", found.claim.person_key),
        ("account", found.claim.account_key),
        ("encounter", found.claim.encounter_key),
    ):
        shown = proof(folder, f"{kind}-key")
        assert isinstance(shown, CredentialKey) and (shown.kind, shown.key) == (kind, key)
    for of_set in (found.claim.active, found.claim.diagnoses):
        published = proof(folder, f"set-{of_set.name}")
        assert isinstance(published, SetFile) and published.published.key == of_set
    assert len(insured.active) == 1000
    question = proof(folder, "eligibility-question")
    assert isinstance(question, Question) and question.request.active == found.claim.active


def test_what_is_hidden_stands_in_no_file(played: Played) -> None:
    folder, insured, _, settled, _ = played
    person = insured.wallet.person
    assert person is not None
    birth = person.get(PERSON, "birth")
    assert isinstance(birth, int)
    hidden: list[bytes] = [DIAGNOSIS.encode(), insured.wallet.seed]
    for name in ("handle", "secret"):
        value = person.get(PERSON, name)
        assert isinstance(value, bytes)
        hidden += [value, value.hex().encode()]
    amounts = [
        TOTAL,
        *(one for one in AMOUNTS if one),
        *(layer.deductible for layer in layers(2026) if layer.deductible),
    ]
    amounts += [int(one.paid.split()[0].replace(".", "")) for one in settled.payments]
    for amount in amounts:
        hidden += [str(amount).encode(), b"%d.%02d" % divmod(amount, 100), amount.to_bytes(8, "big")]
    hidden += [msgspec.msgpack.encode(amount) for amount in amounts if amount > 2**16]  # shorter ones occur by chance
    hidden.append(birth.to_bytes(8, "big"))
    paths = list(folder.iterdir())
    assert len(paths) == 11
    for path in paths:
        for value in hidden:
            assert value not in path.read_bytes(), path.name


def test_any_changed_byte_of_a_proof_is_refused(played: Played) -> None:
    folder = played[0]
    question = proof(folder, "eligibility-question")
    assert isinstance(question, Question)
    tried = 0
    for name in ("eligibility", "settlement-1", "settlement-2"):
        data = (folder / f"{name}.evidence").read_bytes()
        for place in range(0, len(data), len(data) // 60):
            changed = bytearray(data)
            changed[place] ^= 1 << (place % 8)
            with pytest.raises((VerificationError, DecodeError, Refused)):
                found = evidence.read(bytes(changed))
                if isinstance(found, Settlement):
                    settlement.verify(found, found.claim)
                else:
                    assert isinstance(found, Eligibility)
                    eligibility.verify(found, question.request)
            tried += 1
    assert tried >= 180


def test_the_wallet_goes_on_with_the_next_accounts(played: Played) -> None:
    """Each account has a new serial that was not shown yet; the spent one proves nothing more."""
    folder, insured, _, _, _ = played
    first, second = proof(folder, "settlement-1"), proof(folder, "settlement-2")
    assert isinstance(first, Settlement) and isinstance(second, Settlement)
    following = {spent_serial(one.current) for one in insured.wallet.accounts}
    assert len(following) == 2 and not following & {first.claim.serial, second.claim.serial}
    assert all(one.step is None for one in insured.wallet.accounts)
    with pytest.raises(MedveilError) as caught:
        insured.prepare(msgspec.structs.replace(first.claim, nonce=bytes(32)))
    assert caught.value.code == "wallet.behind"
