"""One decision for every way out: what reads rows asks `privacy.decide`, or is at home with a reason.

HAPI's consent interceptor was not applied to bulk export for years: a way out that nobody had listed. Here they are
listed by the code itself: every file of the product that reads rows of a vault, of its snapshots or tables is found by
its syntax, and must ask for the decision in the same file, or stand below with why its rows stay at home.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("medveil", "privacy", "mpc", "connectors")

HOLDERS = ("vault", "tables", "snapshots", "kept")
"""What objects with rows are called, with or without a leading underscore."""
ROWS = {
    "vault": {"read", "record", "person", "open_stream"},
    "tables": {"engine", "records", "rows"},
    "snapshots": {"read", "table"},
    "kept": {"table"},
}
DECIDING = ({"decide_use", "still_granted"}, {"stage_extract"}, {"judge"})
"""Names of which one set must be called where rows are read: flows that release, extracts, which decide inside, and
what an officer is shown of a use before it is made."""

AT_HOME = {
    "medveil/gateway/tables.py": "the door to the tables itself: whoever passes it is found by this test",
    "medveil/gateway/loading.py": "the owner's own table as it was loaded: compared with its source, and committed to",
    "medveil/gateway/person_view.py": "whether a grant's filter reaches a person, for that organisation's own officer",
    "medveil/gateway/wallets.py": "passphrases of hosted wallets and whose bill it is: no rows; the proof was decided",
    "privacy/copies/snapshots.py": "the encrypted copy beside the vault, which is read through the tables",
}


def reads(path: Path) -> set[str]:
    """What of rows a file reads, as "vault.read"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            of = node.value
            name = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""
            holder = name.lstrip("_")
            if node.attr in ROWS.get(holder, ()):
                found.add(f"{holder}.{node.attr}")
    return found


def called(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    made = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        of.attr if isinstance(of, ast.Attribute) else of.id for of in made if isinstance(of, ast.Attribute | ast.Name)
    }


def readers() -> dict[str, set[str]]:
    return {
        str(path.relative_to(ROOT)): what
        for part in PARTS
        for path in sorted((ROOT / part).rglob("*.py"))
        if not path.is_relative_to(ROOT / "privacy" / "vault") and (what := reads(path))
    }


READERS = readers()


@pytest.mark.parametrize("path", READERS)
def test_rows_are_read_where_a_use_was_decided_or_at_home(path: str) -> None:
    if path not in AT_HOME:
        names = called(ROOT / path)
        assert any(asked <= names for asked in DECIDING), f"{path} reads {READERS[path]} and asks no decision"


def test_no_reason_is_left_over() -> None:
    assert AT_HOME.keys() <= READERS.keys()


def test_the_known_ways_out_are_seen() -> None:
    """Else the search would see nothing, and hold of everything."""
    assert {"medveil/gateway/serving.py", "medveil/gateway/scoring.py"} <= READERS.keys()
    assert READERS["medveil/gateway/scoring.py"] == {"tables.records"}


def test_a_way_out_that_asks_nobody_is_found(tmp_path: Path) -> None:
    path = tmp_path / "export.py"
    path.write_text("def export(self, at):\n    return self._vault.read('claims'), at.snapshots.table('claims')\n")
    assert reads(path) == {"vault.read", "snapshots.table"} and not any(asked <= called(path) for asked in DECIDING)
