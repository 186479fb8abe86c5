"""`medveil zkp`: from an issuer's key to a verified proof, by files alone, as three parties would."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from medveil.cli import app
from medveil.credentials import files, folder, issuing, wallets
from wire.canonical import encode
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError
from zkp.credentials import PERSON
from zkp.groups import backend, decode_scalar
from zkp.pedersen import check_opening
from zkp.wallet import bill_of, with_person

HANDLE, BILL, ROW = "0a" * 16, "0b" * 16, "0c" * 32
PERSON_VALUES: dict[str, Any] = {
    "scheme": "390", "insutype": "310", "psn_type": "11", "region": "330100", "sex": "2", "birth": "1980-02-29",
    "valid_from": "2020-01-01", "valid_to": None, "handle": HANDLE,
}  # fmt: skip
ENCOUNTER_VALUES: dict[str, Any] = {
    "bill": BILL, "hospital": "hospital-1", "level": "3", "med_type": "21", "day": "2025-12-11", "diagnosis": "I10",
    "total": 500, **{f"class_{number}": 50 for number in range(1, 9)},
}  # fmt: skip
ENCOUNTER_VALUES["shown"] = {"birth": "1980-02-29", "sex": "2"}
PATIENT = ("--disclose", "birth", "--disclose", "sex", "--bill", BILL)
ACCOUNT_VALUES = {
    "payer": "bureau-1", "layer": 1, "year": 2025, "visits": 0, "cap": 9, "deductible": 5, "shown": {"psn_type": "11"},
}  # fmt: skip
TERMS: dict[str, Any] = {
    "chain": "demo", "bill": BILL, "hospital": "hospital-1", "service_day": "2025-12-11", "audience": "insurer-1",
    "purpose": "ELIGVER", "grant": "grant-1", "policy": "basic", "version": 1, "row": ROW, "insutype": "310",
    "med_type": "21", "youngest": 18, "oldest": 60,
}  # fmt: skip


@pytest.fixture(autouse=True)
def passphrase(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path_factory.mktemp("secret") / "passphrase"
    path.write_text("correct horse\n")
    path.chmod(0o600)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(path))


class Desk:
    """A place where all files lie; `run` is the command line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *arguments: str | Path, code: int = 0) -> Result:
        done = CliRunner().invoke(app, ["zkp", *map(str, arguments)])
        if done.exit_code != code or (done.exception and not isinstance(done.exception, SystemExit)):
            raise done.exception or AssertionError(done.output)
        return done

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def put(self, name: str, content: Any) -> Path:
        path = self / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def credential(
        self, kind: str, values: dict[str, Any], *offered: str | Path, person: str = "", me: str = "me"
    ) -> None:
        """One credential, from offer to the holder's wallet."""
        offer, asked, answer = (self / f"{me}-{kind}.{name}" for name in ("offer", "application", "answer"))
        self.run("offer", self / f"{kind}-issuer", "--chain", "demo", "--out", offer, *offered)
        self.run("apply", self / me, offer, "--out", asked)
        whose = ("--person", person) if person else ()
        said = self.put(f"{me}-{kind}.json", values)
        self.run("issue", self / f"{kind}-issuer", asked, "--values", said, "--out", answer, *whose)
        self.run("take", self / me, answer)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Keys, three credentials, three sets."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    secret = desk.put("pass", "correct horse")
    secret.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDVEIL_PASSPHRASE_FILE", str(secret))
        for kind, name in (("person", "bureau-1"), ("account", "bureau-1"), ("encounter", "hospital-1")):
            desk.run("key", kind, desk / f"{kind}-issuer", "--issuer", name, "--out", desk / f"{kind}.key")
        taken = ("--person-key", desk / "person.key")
        desk.credential("person", PERSON_VALUES, person="4711")
        desk.credential("encounter", ENCOUNTER_VALUES, *taken, *PATIENT)
        account = ("--payer", "bureau-1", "--layer", "1", "--year", "2025", "--disclose", "psn_type")
        desk.credential("account", ACCOUNT_VALUES, *taken, *account)
        for kind, line in (("active", HANDLE), ("covered", "I10"), ("filed", f"{HANDLE} I10 2025-01-01 -")):
            members = desk.put(f"{kind}.txt", f"{line}\n")
            desk.run("publish", kind, members, "--name", kind, "--version", "7", "--out", desk / f"{kind}.set")
    return desk


def asked(made: Desk, tmp_path: Path, terms: dict[str, Any] | None = None, *more: str | Path) -> Path:
    tmp_path.mkdir(exist_ok=True)
    question = tmp_path / "question"
    path = tmp_path / "terms.json"
    path.write_text(json.dumps(terms or TERMS))
    keys = ("--person-key", made / "person.key", "--encounter-key", made / "encounter.key")
    made.run("ask", path, *keys, "--active", made / "active.set", *more, "--out", question)
    return question


def proved(made: Desk, tmp_path: Path, question: Path, *more: str | Path) -> Path:
    proof = tmp_path / "proof"
    made.run("prove", made / "me", question, "--set", made / "active.set", *more, "--out", proof)
    return proof


def test_from_keys_to_a_verified_proof(made: Desk, tmp_path: Path) -> None:
    question = asked(made, tmp_path)
    proof = proved(made, tmp_path, question)
    done = made.run("verify", proof, "--question", question)
    assert re.search(r"^verdict: +verified$", done.output, re.M) and BILL in done.output
    assert "I10" not in done.output and "1980-" not in done.output
    as_json = json.loads(made.run("verify", proof, "--question", question, "--backend", "reference", "--json").output)
    assert as_json["verdict"] == "verified" and as_json["audience"] == "insurer-1" and as_json["age"] == "18 to 60"
    with pytest.raises(VerificationError):
        made.run("verify", proof, "--question", asked(made, tmp_path / "two", {**TERMS, "audience": "insurer-2"}))


def test_the_terms_of_the_page_can_be_asked(made: Desk, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "protocols" / "eligibility.md").read_text(encoding="utf-8")
    terms = re.search(r"^    (\{.*?\})$", page, re.MULTILINE | re.DOTALL)
    assert terms is not None
    question = asked(made, tmp_path, json.loads(terms[1]))
    assert "verified" in made.run("verify", proved(made, tmp_path, question), "--question", question).output


def test_without_the_question_nothing_is_verified(made: Desk, tmp_path: Path) -> None:
    proof = proved(made, tmp_path, asked(made, tmp_path))
    done = made.run("verify", proof, code=3)
    assert "consistent, not pinned" in done.output and "verified" not in done.output
    data = bytearray(proof.read_bytes())
    data[-1] ^= 1
    proof.write_bytes(bytes(data))
    with pytest.raises(VerificationError):
        made.run("verify", proof)


@pytest.mark.parametrize("kind", ["covered", "filed"])
def test_with_a_diagnosis(made: Desk, tmp_path: Path, kind: str) -> None:
    question = asked(made, tmp_path, None, "--diagnoses", made / f"{kind}.set")
    filings = ("--filings", made / "filed.txt") if kind == "filed" else ()
    proof = proved(made, tmp_path, question, "--set", made / f"{kind}.set", *filings)
    assert f"{kind}, version 7" in made.run("verify", proof, "--question", question).output
    with pytest.raises(Refused) as caught:
        proved(made, tmp_path / "x", question)
    assert caught.value.code == "credential_files.no_set"


def test_the_prover_says_what_fails_and_writes_nothing(made: Desk, tmp_path: Path) -> None:
    question = asked(made, tmp_path, {**TERMS, "oldest": 40})
    with pytest.raises(Refused) as caught:
        proved(made, tmp_path, question)
    assert caught.value.facts["attribute"] == "person.birth"
    assert not (tmp_path / "proof").exists()


def test_inspect_shows_each_file(made: Desk) -> None:
    for name, tag in [
        ("person.key", "credential_key"),
        ("me-account.offer", "credential_offer"),
        ("me-account.application", "credential_application"),
        ("me-person.answer", "credential_answer"),
        ("active.set", "set_file"),
    ]:
        shown = json.loads(made.run("inspect", made / name).output)
        assert shown["type"] == f"medveil.{tag}"
        assert shown["header"]["suite"] == 1 and shown["header"]["version"] == 1


def test_asked_again_the_answer_is_the_same(made: Desk, tmp_path: Path) -> None:
    """By the same application, and by one to a fresh offer: the wallet asks with the same commitment."""
    again = tmp_path / "again"
    values = made / "me-encounter.json"
    made.run("issue", made / "encounter-issuer", made / "me-encounter.application", "--values", values, "--out", again)
    assert again.read_bytes() == (made / "me-encounter.answer").read_bytes()
    made.run("take", made / "me", again)
    fresh = [tmp_path / f"fresh.{part}" for part in ("offer", "application", "answer")]
    offered = ("--person-key", made / "person.key", *PATIENT)
    made.run("offer", made / "encounter-issuer", "--chain", "demo", "--out", fresh[0], *offered)
    made.run("apply", made / "me", fresh[0], "--out", fresh[1])
    made.run("issue", made / "encounter-issuer", fresh[1], "--values", values, "--out", fresh[2])
    one, two = (files.read(path, files.Answer) for path in (again, fresh[2]))
    assert (one.signature, one.total_blinding) == (two.signature, two.total_blinding)


def test_a_wallet_keeps_the_opening_of_what_the_hospital_registers(made: Desk, tmp_path: Path) -> None:
    answer = files.read(made / "me-encounter.answer", files.Answer)
    out = tmp_path / "again"
    done = made.run(
        "issue", made / "encounter-issuer", made / "me-encounter.application", "--json", "--out", out,
        "--values", made / "me-encounter.json",
    )  # fmt: skip
    registered = bytes.fromhex(json.loads(done.output)["total_commitment"])
    assert registered == issuing.total_commitment(answer)
    with wallets.opened(made / "me", "correct horse") as kept:
        opening = bill_of(kept.wallet, bytes.fromhex(BILL)).total_blinding
    check_opening(backend().decode(registered), 500, decode_scalar(opening))


def test_each_is_issued_once(made: Desk, tmp_path: Path) -> None:
    """The same person, or bill, or account, for another application."""
    taken = ("--person-key", made / "person.key")
    scope = ("--payer", "bureau-1", "--layer", "1", "--year", "2025", "--disclose", "psn_type")
    twin = tmp_path / "twin"  # her person credential, and another seed
    wallets.create(twin, "correct horse", "demo", lambda length: b"2" * length)
    with wallets.opened(made / "me", "correct horse") as mine, wallets.opened(twin, "correct horse") as other:
        assert mine.wallet.person is not None
        other.save(with_person(other.wallet, mine.wallet.person), lambda length: b"3" * length)
    for kind, offered, whose, holder, values in [
        ("person", (), ("--person", "4711"), tmp_path / "she", PERSON_VALUES),
        ("encounter", (*taken, *PATIENT), (), twin, ENCOUNTER_VALUES),
        ("account", (*taken, *scope), (), twin, ACCOUNT_VALUES),
    ]:
        offer, application = tmp_path / f"{kind}.offer", tmp_path / f"{kind}.application"
        made.run("offer", made / f"{kind}-issuer", "--chain", "demo", "--out", offer, *offered)
        made.run("apply", holder, offer, "--out", application)
        said = made.put("said.json", values)
        with pytest.raises(Refused) as caught:
            made.run("issue", made / f"{kind}-issuer", application, "--values", said, "--out", tmp_path / "no", *whose)
        assert caught.value.code == "credentials.issued_before"
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "shown",
    [{"birth": "1980-02-29", "sex": "1"}, {"sex": "2"}, {}, None, {"birth": "1980-02-29", "sex": "2", "region": "1"}],
)
def test_somebody_insured_does_not_lend_herself(made: Desk, tmp_path: Path, shown: Any) -> None:
    """The hospital compares what the holder shows with its patient."""
    said = made.put("said.json", {**ENCOUNTER_VALUES, "shown": shown})
    with pytest.raises(MedveilError):
        made.run(
            "issue", made / "encounter-issuer", made / "me-encounter.application", "--values", said,
            "--out", tmp_path / "no",
        )  # fmt: skip
    assert not (tmp_path / "no").exists()


def test_an_application_to_nobodys_offer(made: Desk, tmp_path: Path) -> None:
    made.run("key", "encounter", tmp_path / "other", "--issuer", "hospital-2", "--out", tmp_path / "other.key")
    with pytest.raises(Refused) as caught:
        made.run(
            "issue", tmp_path / "other", made / "me-encounter.application",
            "--values", made / "me-encounter.json", "--out", tmp_path / "x",
        )  # fmt: skip
    assert caught.value.code == "credential_files.no_offer"


FOR_BILL = ["encounter-issuer", "--person-key", "person.key", "--bill", BILL]


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["encounter-issuer"], "credential_files.person_key"),
        (["person-issuer", "--person-key", "person.key"], "credential_files.person_key"),
        (["encounter-issuer", "--person-key", "account.key"], "credential_files.person_key"),
        (["account-issuer", "--person-key", "person.key"], "credential_files.scope"),
        (["encounter-issuer", "--person-key", "person.key"], "credential_files.bill"),
        (["person-issuer", "--bill", BILL], "credential_files.bill"),
        ([*FOR_BILL, "--disclose", "secret"], "credential_files.disclose"),
        (["person-issuer", "--disclose", "sex"], "credential_files.disclose"),
        (["encounter-issuer", "--person-key", "active.set"], "credential_files.other_kind"),
    ],
)
def test_no_offers(made: Desk, tmp_path: Path, arguments: list[str], code: str) -> None:
    whole = [str(made / word) if word[0] != "-" and (made / word).exists() else word for word in arguments]
    with pytest.raises(Refused) as caught:
        made.run("offer", whole[0], "--chain", "demo", "--out", tmp_path / "x", *whole[1:])
    assert caught.value.code == code


@pytest.mark.parametrize(
    "changes",
    [{"birth": "1980-02-30"}, {"birth": 5.5}, {"handle": "0a"}, {"more": 1}, {"sex": None}, {"valid_from": True}],
)
def test_no_values(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        files.parse_values(PERSON, {**PERSON_VALUES, **changes}, files.known_names("person"))


def test_values_are_read_as_they_are_written() -> None:
    parsed = files.parse_values(PERSON, PERSON_VALUES, files.known_names("person"))
    assert parsed["valid_to"] == 65535 and parsed["birth"] == (date(1980, 2, 29) - date(1900, 1, 1)).days
    assert files.readable(PERSON, parsed) == PERSON_VALUES


@pytest.mark.parametrize(
    "kind, line", [("active", "0a"), ("covered", "a b"), ("filed", f"{HANDLE} I10 2025"), ("active", "zz")]
)
def test_no_members(made: Desk, tmp_path: Path, kind: str, line: str) -> None:
    members = tmp_path / "members"
    members.write_text(f"\n{line}\n")
    with pytest.raises(DecodeError) as caught:
        made.run("publish", kind, members, "--name", "x", "--version", "1", "--out", tmp_path / "set")
    assert caught.value.code == "credential_files.member"


@pytest.mark.parametrize(
    "changes, code",
    [
        ({"bill": 5}, "term"),
        ({"bill": "0b"}, "term"),
        ({"service_day": "yesterday"}, "term"),
        ({"service_day": "2025-02-30"}, "term"),
        ({"row": ""}, "term"),
        ({"youngest": "18"}, "term"),
        ({"oldest": 151}, "term"),
        ({"version": 0}, "term"),
        ({"version": 2**70}, "term"),
        ({"audience": "Insurer 1"}, "term"),
        ({"region": 330100}, "term"),
        ({"chain": None}, "term"),
        ({"nonce": "00"}, "question"),
        ({"diagnoses": None}, "question"),
        ({"plan": "basic"}, "question"),
    ],
)
def test_no_terms(made: Desk, tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    with pytest.raises(DecodeError) as caught:
        asked(made, tmp_path, {**TERMS, **changes})
    assert caught.value.code == f"credential_files.{code}"
    (name,) = changes
    assert caught.value.facts["term"] == name and name in caught.value.text("en")
    assert not (tmp_path / "question").exists()


@pytest.mark.parametrize("name", ["chain", "bill", "row", "version", "grant", "service_day"])
def test_a_term_left_out(made: Desk, tmp_path: Path, name: str) -> None:
    with pytest.raises(DecodeError) as caught:
        asked(made, tmp_path, {key: value for key, value in TERMS.items() if key != name})
    assert (caught.value.code, caught.value.facts["term"]) == ("credential_files.question", name)


def test_another_hospitals_key(made: Desk, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        asked(made, tmp_path, {**TERMS, "hospital": "h2"})
    assert caught.value.code == "credential_files.keys"


def test_names_and_numbers_of_options(made: Desk, tmp_path: Path) -> None:
    members, out = made / "active.txt", tmp_path / "set"
    for version in ("0", "-1", str(2**31)):
        made.run("publish", "active", members, "--name", "x", "--version", version, "--out", out, code=2)
    with pytest.raises(DecodeError) as caught:
        made.run("publish", "active", members, "--name", "a b", "--version", "1", "--out", out)
    assert caught.value.code == "wire.bad_name"
    for handle in ("zz", "0b"):
        taken = ("--person-key", made / "person.key", "--bill", handle)
        made.run("offer", made / "encounter-issuer", "--chain", "demo", *taken, "--out", out, code=2)
    assert not out.exists()


def test_no_file_is_written_over(made: Desk) -> None:
    with pytest.raises(Refused) as caught:
        made.run("offer", made / "person-issuer", "--chain", "demo", "--out", made / "person.key")
    assert caught.value.code == "client.file_exists"


# ------------------------------------------------------------------------------------------ secrets


def test_folders_hold_nothing_in_the_open(made: Desk) -> None:
    with wallets.opened(made / "me", "correct horse") as kept:
        held = kept.wallet
    assert held.person is not None and len(held.bills) == len(held.accounts) == 1
    with folder.opened(made / "encounter-issuer", "correct horse") as opened:
        issuer = opened.read()
    assert repr(held) == "Wallet(...)" and repr(issuer) == "IssuerState(...)"
    secrets = [issuer.material, held.seed, bytes.fromhex(HANDLE), held.person.signature, b"330100"]
    for path in [made / "me", *(made / "encounter-issuer").iterdir()]:
        assert not any(secret in path.read_bytes() for secret in secrets)
    assert not ((made / "me").stat().st_mode | (made / "encounter-issuer").stat().st_mode) & 0o077
    public = [path for path in made.path.iterdir() if path.suffix in {".key", ".offer", ".application", ".set"}]
    assert len(public) == 12 and held.seed not in b"".join(path.read_bytes() for path in public)
    assert not any(issuer.material in path.read_bytes() for path in public)


def test_another_passphrase_or_place_and_in_use(made: Desk, tmp_path: Path) -> None:
    for what, path, nowhere in (
        (wallets.opened, made / "me", "credential_files.no_wallet"),
        (folder.opened, made / "encounter-issuer", "credential_files.no_folder"),
    ):
        with pytest.raises(VerificationError), what(path, "wrong passphrase"):
            pass
        with pytest.raises(Unavailable) as caught, what(tmp_path / "nothing", "correct horse"):
            pass
        assert caught.value.code == nowhere
        with what(path, "correct horse"), pytest.raises(Unavailable) as caught, what(path, "correct horse"):
            pass
        assert caught.value.code == "credential_files.in_use"


def test_a_wallet_is_of_one_consortium(made: Desk, tmp_path: Path) -> None:
    made.run("offer", made / "person-issuer", "--chain", "other", "--out", tmp_path / "offer")
    with pytest.raises(Refused) as caught:
        made.run("apply", made / "me", tmp_path / "offer", "--out", tmp_path / "x")
    assert caught.value.code == "credential_files.other_chain"


def test_an_answer_to_somebody_else(made: Desk, tmp_path: Path) -> None:
    made.run("offer", made / "person-issuer", "--chain", "demo", "--out", tmp_path / "offer")
    made.run("apply", tmp_path / "she", tmp_path / "offer", "--out", tmp_path / "application")
    with pytest.raises(VerificationError):
        made.run("take", tmp_path / "she", made / "me-person.answer")


def test_without_a_terminal_the_passphrase_is_not_guessed(
    made: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDVEIL_PASSPHRASE_FILE")
    with pytest.raises(Refused) as caught:
        made.run("take", made / "me", made / "me-person.answer")
    assert caught.value.code == "credential_files.no_passphrase"


def test_a_killed_issuer_does_not_sign_twice(made: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The register is on disk before the answer is: killed in between, the same application gets the same answer, and
    another one for the same person none."""
    desk, applications = made / "person-issuer", []
    values = {**PERSON_VALUES, "handle": "0d" * 16}
    for holder in ("one", "two"):
        offer, application = tmp_path / f"{holder}.offer", tmp_path / f"{holder}.application"
        made.run("offer", desk, "--chain", "demo", "--out", offer)
        made.run("apply", tmp_path / holder, offer, "--out", application)
        applications.append(files.read(application, files.Application))
    with monkeypatch.context() as patch:
        patch.setattr(issuing, "Answer", None)  # stops after the register was written
        with pytest.raises(TypeError):
            issuing.issue(desk, "correct horse", applications[0], values, "4712")
    with pytest.raises(Refused):
        issuing.issue(desk, "correct horse", applications[1], values, "4712")
    one, two = (encode(issuing.issue(desk, "correct horse", applications[0], values, "4712")) for _ in range(2))
    assert one == two


# ------------------------------------------------------------------------------------------ lost and found


def test_a_lost_wallet_comes_back_from_its_seed(made: Desk, tmp_path: Path) -> None:
    """Each issuer answers as before, though it signs nothing twice: and the new wallet proves."""
    seed, found = tmp_path / "seed", tmp_path / "found"
    done = made.run("seed", made / "me", "--out", seed)
    assert seed.stat().st_mode & 0o777 == 0o600
    assert seed.read_text().strip() not in done.output
    made.run("restore", found, "--seed", seed, "--chain", "demo")
    taken = ("--person-key", made / "person.key")
    account = ("--payer", "bureau-1", "--layer", "1", "--year", "2025", "--disclose", "psn_type")
    for kind, offered, whose in (
        ("person", (), ("--person", "4711")),
        ("encounter", (*taken, *PATIENT), ()),
        ("account", (*taken, *account), ()),
    ):
        offer, application, answer = (tmp_path / f"{kind}.{part}" for part in ("offer", "application", "answer"))
        made.run("offer", made / f"{kind}-issuer", "--chain", "demo", "--out", offer, *offered)
        made.run("apply", found, offer, "--out", application)
        values = made / f"me-{kind}.json"
        made.run("issue", made / f"{kind}-issuer", application, "--values", values, "--out", answer, *whose)
        made.run("take", found, answer)
    with wallets.opened(made / "me", "correct horse") as before, wallets.opened(found, "correct horse") as after:
        assert before.wallet == after.wallet
    question = asked(made, tmp_path)
    made.run("prove", found, question, "--set", made / "active.set", "--out", tmp_path / "proof")
    made.run("verify", tmp_path / "proof", "--question", question)


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "00" * 33])
def test_no_seed(made: Desk, tmp_path: Path, text: str) -> None:
    seed = tmp_path / "seed"
    seed.write_text(text)
    seed.chmod(0o600)
    with pytest.raises(DecodeError) as caught:
        made.run("restore", tmp_path / "wallet", "--seed", seed, "--chain", "demo")
    assert caught.value.code == "credential_files.seed" and set(caught.value.facts) == {"file"}
    seed.chmod(0o644)
    with pytest.raises(Refused):  # others may read it
        made.run("restore", tmp_path / "wallet", "--seed", seed, "--chain", "demo")
    assert not (tmp_path / "wallet").exists()


def test_neither_seed_nor_wallet_is_written_over(made: Desk, tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    made.run("seed", made / "me", "--out", seed)
    for arguments in (
        ("seed", made / "me", "--out", seed),
        ("restore", made / "me", "--seed", seed, "--chain", "demo"),
    ):
        with pytest.raises(Refused) as caught:
            made.run(*arguments)
        assert caught.value.code == "client.file_exists"
