"""The list beside OWASP ASVS is whole: every requirement of levels 1 and 2 once, each with something that is there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "asvs.md").read_text(encoding="utf-8")

SECTIONS = """
1.1:2 1.2:9 1.3:11 1.4:3 1.5:2 2.1:3 2.2:3 2.3:4 2.4:1 3.2:2 3.3:4 3.4:6 3.5:5 3.7:2 4.1:3 4.2:1 4.3:2 4.4:4
5.1:1 5.2:3 5.3:2 5.4:3 6.1:3 6.2:12 6.3:4 6.4:4 6.5:5 6.6:3 6.8:4 7.1:3 7.2:4 7.3:2 7.4:5 7.5:2 7.6:2 8.1:2 8.2:3
8.3:1 8.4:1 9.1:3 9.2:4 10.1:2 10.2:2 10.3:4 10.4:11 10.5:5 10.6:2 10.7:3 11.1:2 11.2:3 11.3:3 11.4:4 11.5:1 11.6:1
12.1:3 12.2:2 12.3:4 13.1:1 13.2:5 13.3:2 13.4:5 14.1:2 14.2:4 14.3:3 15.1:3 15.2:3 15.3:7 16.1:1 16.2:5 16.3:4
16.4:3 16.5:3 17.1:1 17.2:4 17.3:2
"""
"""Sections of ASVS 5.0.0, and how many requirements of levels 1 and 2 each has: they come first, without gaps."""

ROW = re.compile(
    r"^\| (\d+\.\d+\.\d+) \| ([12]) \| ([^|]+) \| \*\*(holds|partly|not)\*\*([^|]*) \| ([^|]+) \|$", re.MULTILINE
)


def _wanted() -> set[str]:
    return {
        f"{section}.{number}"
        for section, count in (entry.split(":") for entry in SECTIONS.split())
        for number in range(1, int(count) + 1)
    }


def test_every_requirement_is_in_the_list_or_said_not_to_apply() -> None:
    applies = [row[0] for row in ROW.findall(PAGE)]
    rest = re.findall(r"\d+\.\d+\.\d+", PAGE.split("## What does not apply")[1])
    assert Counter(applies + rest) == Counter(_wanted())
    assert (
        len(applies)
        == sum(line.startswith(tuple("123456789"), 2) for line in PAGE.splitlines() if line[:2] == "| ") - 9
    )


def test_each_shows_something_that_is_there() -> None:
    for requirement, _, _, _, _, shown in ROW.findall(PAGE):
        paths = re.findall(r"`([^`]+)`", shown)
        assert paths, requirement
        for path in paths:
            assert (ROOT / path).is_file(), (requirement, path)


def test_what_holds_is_counted_and_mostly_shown_by_a_test() -> None:
    rows = ROW.findall(PAGE)
    counts = Counter(row[3] for row in rows)
    said = re.search(r"each of the (\d+) that apply .*?(\d+) hold, (\d+) hold in part, (\d+) do not", PAGE, re.DOTALL)
    assert said is not None
    assert [int(number) for number in said.groups()] == [len(rows), counts["holds"], counts["partly"], counts["not"]]
    assert all(row[4].strip(": ,;") for row in rows if row[3] != "holds"), "what is missing is said"
    tested = [row for row in rows if "`tests/" in row[5]]
    assert len(tested) > len(rows) / 2


RUNS = {"eval", "exec", "compile", "__import__"}
NOT_IMPORTED = {"pickle", "marshal", "shelve", "yaml", "xml", "lxml", "smtplib", "ldap3"}
STARTS = "privacy/keys/pkcs11_keys.py"
"""The one file that may import subprocess: it starts this program's own interpreter on a module of its own."""


def test_the_product_runs_nothing_that_it_is_given() -> None:
    """What items 1.2.5, 1.3.2 and 1.5.2 rest on: no commands, no code from data, no unsafe formats."""
    seen = 0
    for package in ("medveil", "ledger", "mpc", "connectors", "zkp", "privacy", "wire"):
        for path in sorted((ROOT / package).rglob("*.py")):
            seen += 1
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                roots = {name.split(".")[0] for name in names}
                assert not roots & NOT_IMPORTED, path
                assert "subprocess" not in roots or path == ROOT / STARTS, path
                if isinstance(node, ast.Call):
                    assert not (isinstance(node.func, ast.Name) and node.func.id in RUNS), (path, node.lineno)
                    called = ast.unparse(node.func)
                    assert called not in ("os.system", "os.popen") and not called.startswith("os.exec"), path
    assert seen > 100
    tree = ast.parse((ROOT / STARTS).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    started = [call for call in calls if ast.unparse(call.func).startswith("subprocess.")]
    (command,) = [call.args[0] for call in started]
    assert ast.unparse(command).startswith("[sys.executable, '-P', '-m', 'privacy.keys.token_process', ")
    assert not any(keyword.arg == "shell" for call in started for keyword in call.keywords)
