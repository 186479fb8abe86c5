"""The tree as a whole: JSON everywhere, a page that is never stale, completion in a real shell, light help."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

from medveil.cli import app, called

from .conftest import COMMAND

ROOT = Path(__file__).resolve().parents[3]


def verbs(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb by its words."""
    for word, inner in command.commands.items():
        if hasattr(inner, "commands"):
            assert inner.help
            yield from verbs(inner, (*name, word))
        else:
            yield (*name, word), inner


VERBS = dict(verbs(get_command(app)))


def test_the_whole_tree_is_there() -> None:
    firsts = {words[0] for words in VERBS}
    assert len(VERBS) > 60
    assert firsts >= {
        *("sign-in", "sign-out", "whoami", "people", "tokens", "members", "populations", "datasets", "grants"),
        *("queries", "bills", "eligibility", "models", "scores", "audit", "evidence", "jobs", "ledger", "trust"),
        *("init", "found", "join", "serve", "verify", "show", "doctor", "demo", "service", "receipts", "account"),
    }


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_says_what_it_does_and_takes_json(words: tuple[str, ...]) -> None:
    verb = VERBS[words]
    assert verb.help and verb.help.strip().endswith((".", ":"))
    options = {name: one for one in verb.params for name in one.opts}
    assert options["--json"].is_flag
    assert all(one.help for one in verb.params), [one.name for one in verb.params if not one.help]


def loaded(page: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"medveil_docs_{page}", ROOT / "docs" / f"{page}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_page_is_that_of_the_tree() -> None:
    """Write it again with: python docs/cli_page.py"""
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == loaded("cli_page").page(get_command(app))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("medveil jobs nothing", "medveil jobs nothing: no such verb"),
        ("medveil jobs follow x --nothing", "medveil jobs follow --nothing: no such option"),
        ("medveil --nothing jobs", "medveil --nothing: no such option"),
        ("medveil --gateway https://a.example jobs list --json --limit=3 --state done", ""),
        ("medveil queries release 00 --out x", ""),
    ],
)
def test_the_documents_commands_are_looked_up_down_the_tree(line: str, problem: str) -> None:
    assert list(loaded("check").check_command(ROOT, line)) == ([problem] if problem else [])


BASH = shutil.which("bash") or ""
ASK = """
set -e
source <(medveil --show-completion)
complete -p medveil >/dev/null
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE="${{COMP_WORDS[*]}}"
COMP_POINT=${{#COMP_LINE}}
_medveil_completion medveil "${{COMP_WORDS[COMP_CWORD]}}" ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("medveil jo", {"join", "jobs"}),
        ("medveil jobs ''", {"list", "show", "follow", "cancel"}),
        ("medveil queries re", {"release"}),
        ("medveil jobs list --st", {"--state"}),
        ("medveil jobs list --state d", {"done"}),
    ],
)
def test_completion_in_bash(words: str, offered: set[str]) -> None:
    """The script that the command gives a shell, sourced and asked by that shell."""
    environment = {**os.environ, "PATH": f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [BASH, "--norc", "--noprofile", "-c", ASK.format(words=words)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("arguments", [["--help"], ["jobs", "--help"], ["queries", "--help"], ["--show-completion"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys, medveil.cli as c, contextlib, io\n"
        f"sys.argv = ['medveil', *{arguments!r}]\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    c.main()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} | "
        "{name for name in sys.modules if name.startswith('medveil.')}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    found = set(done.stdout.split())
    heavy = {"httpx", "ssl", "asyncio", "msgspec", "sqlite3", "sqlalchemy", "fastapi", "uvicorn", "numpy"}
    heavy |= {"pydantic"} if arguments == ["--help"] else set()  # typer's own, once it has a verb's options to read
    heavy |= {"pandas", "pyarrow", "opendp", "cryptography", "nacl", "phe", "py_ecc", "py_arkworks_bls12381", "ledger"}
    heavy |= {"mpc", "zkp", "privacy", "wire", "connectors", "matplotlib", "medveil.client", "medveil.service"}
    assert "medveil.cli" in found and not found & heavy, sorted(found & heavy)


@pytest.mark.parametrize("name", sorted({words[0] for words in VERBS}))
def test_only_the_branch_that_is_called_is_made(name: str) -> None:
    branch = dict(verbs(get_command(called([name, "--json"]))))
    assert branch.keys() == {words for words in VERBS if words[0] == name}
    assert [one.name for one in get_command(called([name])).params] == [one.name for one in get_command(app).params]

    def help_of(command: Any) -> tuple[str, list[tuple[Any, ...]]]:
        shown = [(one.name, one.opts, one.required, one.default, getattr(one, "help", "")) for one in command.params]
        return command.help, shown

    assert all(help_of(command) == help_of(VERBS[words]) for words, command in branch.items())


@pytest.mark.parametrize("words", [[], ["--help"], ["--gateway", "jobs"], ["nothing"], ["--json", "jobs"]])
def test_the_whole_tree_where_no_branch_is_called(words: list[str]) -> None:
    assert called(words) is app


def test_no_garbage_is_looked_for_while_a_gateway_is_loaded(tmp_path: Path) -> None:
    program = (
        "import contextlib, gc, io, sys, medveil.cli as c\n"
        "seen = []\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('fastapi', 'medveil.service.process'): seen.append(gc.isenabled())\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"sys.argv = ['medveil', 'serve', {str(tmp_path / 'nothing')!r}]\n"
        "with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    c.main()\n"
        "print(seen, gc.isenabled())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[False, False] True"


def test_help_fits_a_narrow_terminal_without_other_characters() -> None:
    for width in ("40", "80"):
        environment = {**os.environ, "COLUMNS": width, "PYTHONIOENCODING": "ascii", "MEDVEIL_LANGUAGE": "zh"}
        done = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, env=environment, check=True)
        assert "jobs" in done.stdout and done.stdout.isascii() and "?" not in done.stdout


def test_json_is_json_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs that work on files, on the real command, piped."""
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("a passphrase of tests\n")
    environment = {**os.environ, "MEDVEIL_PASSPHRASE_FILE": str(passphrase)}

    def run(*arguments: object) -> Any:
        done = subprocess.run(
            [COMMAND, *map(str, arguments), "--json"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=60,
        )
        assert done.returncode in (0, 3), done.stderr
        return json.loads(done.stdout)

    homes = {}
    for name, role in (("bureau", "bureau"), ("hospital-1", "hospital"), ("insurer", "insurer")):
        homes[name] = run("init", tmp_path / name, "--organisation", name, "--role", role)
    trust = tmp_path / "consortium.json"
    cards = [home["card"] for home in homes.values()]
    founded = run("found", *cards, "--chain", "east", "--sequencer", "bureau", "--out", trust)
    assert founded["fingerprints"] == {name: home["fingerprint"] for name, home in homes.items()}
    joined = run("join", tmp_path / "insurer", trust, "--fingerprint", founded["genesis"])
    assert joined["member"] is True and joined["chain"] == "east"
    assert run("trust", "show", trust)["chain"] == "east"
    assert run("invite-admin", tmp_path / "insurer", "anna")["invitation"]
    assert run("show", homes["insurer"]["card"])["type"] == "medveil.member_card"
    assert {finding["check"] for finding in run("doctor")} >= {"signatures", "free space"}


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["queries", "ask"], "medveil.usage", 2),
        (["nonsense"], "medveil.usage", 2),
        (["jobs", "list", "--limit", "x"], "medveil.usage", 2),
        (["restore", "nothing", "nowhere"], "backup.not_there", 1),  # before a passphrase is asked for
        (["init", "home", "--role", "hospital"], "medveil.not_answered", 1),
        (["verify", "packed.zip"], "medveil.packed_evidence", 1),
    ],
)
def test_what_a_program_did_wrong_is_json_too(tmp_path: Path, arguments: list[str], code: str, exit_code: int) -> None:
    """The last line on standard error, with nothing on standard output; nobody is there to be asked."""
    (tmp_path / "packed.zip").write_bytes(b"PK")
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MEDVEIL_")}
    done = subprocess.run(
        [COMMAND, *arguments, "--json"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
        timeout=60,
        start_new_session=True,
    )
    said = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (said["code"], done.returncode, done.stdout) == (code, exit_code, "") and said["text"]


@pytest.mark.parametrize(
    "arguments",
    [["init", "home", "--role", "hospital"], ["members", "leave"]],
    ids=lambda arguments: arguments[0],
)
def test_where_nobody_can_answer_people_read_why(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        env={name: text for name, text in os.environ.items() if not name.startswith("MEDVEIL_")},
        cwd=tmp_path,
        check=False,
        timeout=60,
        start_new_session=True,
    )
    assert done.returncode == 1 and "Aborted" not in done.stderr
    assert "medveil: What the verb asked for was not typed: there is no terminal" in done.stderr
