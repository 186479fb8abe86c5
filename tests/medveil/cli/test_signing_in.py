"""Signing in from the command line, what is kept and what is not, accounts, programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyotp
import pytest
from service.staffed import PASSWORD

from medveil.cli.kept import FILE, Kept, keep, read_sessions
from medveil.service.accounts.rights import rights_of
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError

from .conftest import COMMAND

sys.path.append(str(Path(__file__).parent.parent))

from client.test_deadlines import FOR_EVER, HEAD, dripping
from client.wayward import Wayward


def test_a_session_is_kept_and_ended(service: Any, person: Any) -> None:
    said = person.sign_in(service.address, "officer").output
    assert f"Signed in to {service.address} as officer" in said and "No trust file is pinned" in said
    assert "gateway of north" in said
    file = person.config / FILE
    assert file.stat().st_mode & 0o777 == 0o600 and person.config.stat().st_mode & 0o777 == 0o700
    kept = read_sessions().gateways[service.address]
    assert kept.session and kept.session not in said and PASSWORD not in file.read_text()
    me = json.loads(person.run("whoami", "--json").output)
    assert (me["name"], me["roles"], me["gateway"]) == ("officer", ["officer"], service.address)
    assert "officer" in person.run("whoami").output
    person.run("sign-out")
    after = read_sessions().gateways[service.address]
    assert (after.session, after.device) == ("", kept.device)
    refused = person.run("whoami", code=1).exception
    assert isinstance(refused, Refused) and refused.code == "client.not_signed_in"
    person.sign_in(service.address, "officer", "--json")
    assert read_sessions().gateways[service.address].device == kept.device  # known from before
    person.run("sign-out", "--everywhere", "--json")
    assert not read_sessions().gateways[service.address].device


def test_a_password_is_typed_and_shown_nowhere(service: Any, person: Any) -> None:
    result = person.run("sign-in", service.address, "clerk", typed=PASSWORD + "\n")
    assert PASSWORD not in result.output and "Password" in result.output
    wrong = person.run("sign-in", service.address, "clerk", typed="hunter2 hunter2\n", code=1)
    assert isinstance(wrong.exception, Refused) and wrong.exception.code == "accounts.not_signed_in"
    assert "hunter2" not in wrong.output and "hunter2" not in str(wrong.exception)


def test_no_secret_stands_in_the_arguments_of_any_verb() -> None:
    """Whoever may list processes reads arguments: passwords, codes and invitations are asked for."""
    from typer.main import get_command

    from medveil.cli import app

    def names(command: Any) -> set[str]:
        found = {parameter.name for parameter in command.params}
        for inner in getattr(command, "commands", {}).values():
            found |= names(inner)
        return found

    assert not {"password", "code", "invitation", "session", "secret", "passphrase"} & (
        names(get_command(app)) - {"session"}  # the session of a score is no secret
    )


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [
        ("{}", 0o644, "client.open_file"),
        ("{", 0o600, "client.bad_file"),
        ("[]", 0o600, "client.bad_file"),
        ('{"version": 9}', 0o600, "client.bad_file"),
        ("x" * 100_000, 0o600, "client.bad_file"),
    ],
)
def test_a_file_of_sessions_that_is_none_or_open_to_others(person: Any, content: str, mode: int, code: str) -> None:
    person.config.mkdir(mode=0o700)
    file = person.config / FILE
    file.write_text(content)
    file.chmod(mode)
    refused = person.run("whoami", code=1).exception
    assert isinstance(refused, (Refused, DecodeError)) and refused.code == code


def test_two_gateways(service: Any, person: Any, tmp_path: Path) -> None:
    person.sign_in(service.address, "officer")
    other = service.address.replace("127.0.0.1", "localhost")
    person.sign_in(other, "auditor")
    assert json.loads(person.run("whoami", "--json").output)["name"] == "auditor"
    assert json.loads(person.run("--gateway", service.address, "whoami", "--json").output)["name"] == "officer"
    assert person.run("--gateway", "https://other.example", "whoami", code=1).exception.code == "client.not_signed_in"
    assert person.run("--gateway", "http://other.example", "whoami", code=1).exception.code == "client.plain_http"


def test_people_and_their_first_hour(service: Any, person: Any) -> None:
    person.sign_in(service.address, "admin")
    invited = json.loads(person.run("people", "add", "mei", "--role", "clerk", "--role", "auditor", "--json").output)
    new = "eight dry lanterns sing"
    accepted = person.run("accept", service.address, typed=f"{invited['invitation']}\n{new}\n{new}\n")
    assert "mei has its password" in accepted.output and new not in accepted.output
    for name, role, words in (("Bob", "clerk", "lower-case letters a-z"), ("bob", "boss", "officer, researcher")):
        said = person.run("people", "add", name, "--role", role, code=1).exception
        assert said.code == "http.does_not_fit" and words in said.text() and name not in said.text()
    listed = person.run("people", "list").output
    assert "mei" in listed and "auditor, clerk" in listed
    for verb in (("roles", "mei", "--role", "officer"), ("disable", "mei"), ("enable", "mei")):
        assert "mei" in person.run("people", *verb).output
    assert json.loads(person.run("people", "roles", "mei", "--role", "clerk", "--json").output)["roles"] == ["clerk"]
    assert "works once" in person.run("people", "reset", "mei", "--codes").output
    assert "signed out" in person.run("people", "sign-out", "mei").output
    (own,) = json.loads(person.run("account", "sessions", "--json").output)["sessions"]
    assert own["own"] and own["session"] in person.run("account", "sessions").output
    log = json.loads(person.run("security-log", "show", "--limit", "3", "--json").output)
    assert len(log["entries"]) == 3
    assert "who" in person.run("security-log", "show").output
    chain = json.loads(person.run("security-log", "check", "--json").output)
    assert chain["holds"]
    person.run("security-log", "check", "--entries", chain["entries"], "--head", "0" * 64, code=1)


def test_ones_own_account(service: Any, person: Any) -> None:
    person.sign_in(service.address, "officer")
    new = "eight dry lanterns sing"
    person.run("account", "password", typed=f"{PASSWORD}\n{new}\n{new}\n")
    assert json.loads(person.run("whoami", "--json").output)["name"] == "officer"  # with the new session
    environment = {**os.environ, "MEDVEIL_PASSWORD_FILE": str(person.password)}
    person.password.write_text(new)
    with subprocess.Popen(
        [COMMAND, "account", "codes", "--json"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        uri = next(line.strip() for line in process.stderr if "otpauth:" in line)
        seed = pyotp.parse_uri(uri)
        assert isinstance(seed, pyotp.TOTP)
        said, _ = process.communicate(seed.at(service.clock.now // 1000) + "\n", timeout=60)
    assert len(json.loads(said)["recovery_codes"]) == 10 and "otpauth" not in said
    service.clock.now += 30_000
    code = seed.at(service.clock.now // 1000)
    again = person.process("sign-in", service.address, "officer", env=environment, input=f"{code}\n")
    assert again.returncode == 0 and code not in again.stdout
    codes = person.process("account", "recovery-codes", env=environment)
    assert codes.returncode == 0 and len(codes.stdout.splitlines()) == 11


def test_a_program_made_and_used_from_the_command_line(service: Any, person: Any, tmp_path: Path) -> None:
    person.sign_in(service.address, "officer")
    file = tmp_path / "loader.json"
    issued = ("tokens", "issue", "loader", "--scope", "jobs.read", "--scope", "jobs.cancel", "--out", file)
    said = person.run(*issued).output
    secrets = json.loads(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    assert secrets["token"] not in said and secrets["key"] not in said
    assert person.run(*issued, code=1).exception.code == "client.file_exists"
    me = json.loads(person.run("--program", file, "whoami", "--json").output)
    assert (me["kind"], me["owner"], me["rights"]) == ("program", "officer", ["jobs.cancel", "jobs.read"])
    unknown = person.run("--program", file, "jobs", "cancel", "0" * 32, code=1).exception  # signed, and admitted
    assert isinstance(unknown, MedveilError) and unknown.code == "jobs.unknown"
    signing_out = person.run("--program", file, "sign-out", code=1).exception  # a program has no session to end
    assert isinstance(signing_out, MedveilError) and signing_out.code != "medveil.fault"
    assert "loader" in person.run("tokens", "list").output  # and the person's session is still kept
    person.run("tokens", "revoke", me["name"])
    assert person.run("--program", file, "whoami", code=1).exception.code == "tokens.revoked"
    file.chmod(0o644)
    assert person.run("--program", file, "whoami", code=1).exception.code == "client.open_file"


def test_a_password_file_that_is_no_text(service: Any, person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    person.password.write_bytes(b"\xff\xfe")
    monkeypatch.setenv("MEDVEIL_PASSWORD_FILE", str(person.password))
    assert person.run("sign-in", service.address, "officer", code=1).exception.code == "client.bad_file"


def test_as_a_process(service: Any, person: Any) -> None:
    """Exit codes, sentences, JSON errors, on the real command."""
    password = {**os.environ, "MEDVEIL_PASSWORD_FILE": str(person.password)}
    signed_in = person.process("sign-in", service.address, "researcher", env=password)
    assert (signed_in.returncode, signed_in.stderr) == (0, "")
    assert json.loads(person.process("whoami", "--json").stdout)["name"] == "researcher"
    refused = person.process("people", "list")
    assert refused.returncode == 1 and refused.stdout == "" and refused.stderr.startswith("medveil: ")
    said = json.loads(person.process("people", "list", "--json").stderr)["error"]
    assert said["code"] == "rights.not_yours" and "people.read" in said["text"]
    chinese = {**os.environ, "MEDVEIL_LANGUAGE": "zh", "PYTHONIOENCODING": "utf-8"}
    assert "people.read" in (text := person.process("people", "list", env=chinese).stderr) and "\u6743" in text
    ascii_only = chinese | {"PYTHONIOENCODING": "ascii"}
    plain = person.process("people", "list", env=ascii_only)
    assert plain.stderr.isascii() and "?" not in plain.stderr and "people.read" in plain.stderr
    assert person.process("whoami", env=ascii_only).stdout.isascii()
    assert person.process("people", "nonsense").returncode == 2
    person.password.chmod(0o644)
    open_file = person.process("sign-in", service.address, "researcher", env=password)
    assert open_file.returncode == 1 and "600" in open_file.stderr


def test_nobody_there(person: Any) -> None:
    result = person.run("accept", "http://localhost:1", typed="x\ny\ny\n", code=1)
    assert result.exception.code == "client.unreachable"


def test_whose_gateway_it_is_is_asked_at_the_first_sign_in_and_kept(service: Any, person: Any, tmp_path: Path) -> None:
    """Another organisation's gateway at the same address is refused, and hears neither session nor password."""
    said = {"organisation": "north"}

    def rule(_number: int, request: bytes) -> Any:
        asked = b" /v1/organisation " in request
        return (lambda _: json.dumps(said).encode()) if asked else "pass"

    with Wayward(service.running.port, rule) as network:
        told = json.loads(person.sign_in(network.address, "officer", "--json").output)
        assert told["organisation"] == "north"
        assert json.loads(person.run("--gateway", "north", "whoami", "--json").output)["gateway"] == network.address
        file = tmp_path / "reader.json"
        person.run("tokens", "issue", "reader", "--scope", "jobs.read", "--out", file)
        person.run("--program", file, "whoami")
        said["organisation"] = "south"
        before = len(network.seen)
        for verb in (
            ("whoami",),
            ("--program", file, "whoami"),
            ("sign-in", network.address, "officer"),
            ("sign-in", network.address, "officer", "--organisation", "north"),
        ):
            refused = person.run(*verb, typed=PASSWORD + "\n", code=1).exception
            assert isinstance(refused, VerificationError) and refused.code == "client.other_gateway"
            assert (refused.facts["organisation"], refused.facts["found"]) == ("north", "south")
        for request in network.seen[before:]:
            assert request.startswith(b"GET /v1/organisation ") and b"authorization" not in request.lower()
        person.sign_in(network.address, "officer", "--organisation", "south")  # it was told to be another's by now
        assert json.loads(person.run("whoami", "--json").output)["name"] == "officer"
        person.run("sign-out")
        assert read_sessions().gateways[network.address].organisation == "south"


@pytest.mark.parametrize("verb", [("accept",), ("sign-in",)])
def test_a_secret_is_not_typed_where_no_terminal_hides_it(service: Any, person: Any, verb: tuple[str, ...]) -> None:
    name = () if verb == ("accept",) else ("officer",)
    for language, words in (("en", "no terminal"), ("zh", "\u7ec8\u7aef")):
        environment = {**os.environ, "MEDVEIL_LANGUAGE": language, "PYTHONIOENCODING": "utf-8"}
        ended = person.process(
            *verb, service.address, *name, input="hunter2 hunter2\n" * 3, env=environment, start_new_session=True
        )
        assert ended.returncode == 1 and "Warning" not in ended.stderr and words in ended.stderr
        assert "hunter2" not in ended.stderr + ended.stdout


def test_a_deadline_of_ones_own(person: Any) -> None:
    with dripping(HEAD, FOR_EVER) as server:
        address = f"http://127.0.0.1:{server.port}"
        keep(address, Kept("ada", "secret"))
        late = person.run("--deadline", "1", "whoami", code=1).exception
        assert isinstance(late, Unavailable) and late.code == "client.too_slow" and late.facts["seconds"] == 1
    assert person.run("--deadline", "0", "whoami", code=2)


@pytest.mark.parametrize(
    "verb",
    [
        ("queries", "show"),
        ("queries", "release"),
        ("jobs", "show"),
        ("bills", "show"),
        ("receipts", "get"),
    ],
)
@pytest.mark.parametrize("given", ["", "12", "z" * 32, "z" * 64, "0" * 33])
def test_what_is_no_handle_is_said_in_words(person: Any, verb: tuple[str, str], given: str) -> None:
    """Before anything is asked: nobody is signed in here."""
    said = " ".join(person.run(*verb, given, code=2).output.split())
    assert "digits from 0 to 9 and a to f" in said
    wanted = "f" * (64 if verb[0] == "receipts" else 32)
    assert person.run(*verb, wanted.upper(), code=1).exception.code == "client.not_signed_in"


def test_the_scopes_that_are_possible_are_listed_whole(service: Any, person: Any, tmp_path: Path) -> None:
    person.sign_in(service.address, "officer")
    refused = person.run("tokens", "issue", "x", "--scope", "people.read", "--out", tmp_path / "x", code=1).exception
    assert isinstance(refused, Refused) and refused.code == "tokens.beyond_rights"
    possible = rights_of({"officer"}, programs=True)
    assert len(", ".join(possible)) > 300 and all(right in str(refused) for right in possible)
