"""The documents hold, and the check that says so finds what does not."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE")
BOOKS = ("docs/architecture.md", "docs/threat-model.md", "docs/limitations.md")


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("medveil_docs_check", ROOT / "docs" / "check.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_claim_that_can_be_checked_holds(check: ModuleType) -> None:
    assert list(check.problems(ROOT)) == []


@pytest.mark.parametrize("name", PAGES + BOOKS)
def test_the_expected_documents_are_there(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8")) > 500


def test_decisions_are_numbered_without_gaps() -> None:
    records = sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    for name in records:
        text = (ROOT / "docs" / "adr" / name).read_text(encoding="utf-8")
        assert text.startswith(f"# {int(name[:4])}. ")
        for heading in ("Context", "Decision", "Consequences"):
            assert re.search(rf"^## {heading}$", text, re.MULTILINE), f"{name}: {heading}"
        assert len(text.splitlines()) < 80


def test_the_makefile_has_the_targets_that_are_promised(check: ModuleType) -> None:
    assert check.make_targets(ROOT) >= {
        *("env", "demo", "test", "test-long", "check", "fmt", "bench", "docs", "peers"),
    }


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("[a](missing.md)", "link to missing.md"),
        ("[a](other.md#nothing)", "no such heading"),
        ("`wire/nothing.py`", "wire/nothing.py is not there"),
        ("`wire.dates.nothing`", "there is no nothing"),
        ("`wire.nothing_of_the_kind`", "no error has this code"),
        ("`make nothing`", "make nothing: no such target"),
        ("`medveil nothing`", "medveil nothing: no such verb"),
        ("```sh\nmake test nothing\n```", "make nothing"),
        ("```sh\n.venv/bin/medveil verify x --nothing y\n```", "medveil verify --nothing"),
        ("```console\n$ cd x && curl y\nmade up output\n```", "command curl"),
        ("```sh\n.venv/bin/python -m pytest tests/nothing.py\n```", "tests/nothing.py is not there"),
        ("```sh\npython -m pytest tests/test_frame_docs.py::test_nothing\n```", "no such test"),
        ("```sh\npython -m pip install 'medveil[nothing]'\n```", "no such extra"),
        ("```sh\npython -m benchmarks nothing\n```", "no such benchmark"),
        ("```python\nfrom wire.dates import nothing\n```", "there is no nothing"),
        ("```python\nimport (\n```", "does not compile"),
        ("```sh\necho 'unfinished\n```", "no shell reads"),
    ],
)
def test_what_does_not_hold_is_found(check: ModuleType, tmp_path: Path, page: str, problem: str) -> None:
    for name in ("Makefile", "pyproject.toml", "wire", "tests", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "README.md").write_text(f"# Title\n\n{page}\n")
    (tmp_path / "other.md").write_text("# Something `else`, here\n")
    found = list(check.problems(tmp_path))
    assert any(problem in line for line in found), found


def test_what_holds_is_left_alone(check: ModuleType, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "wire", "tests", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "README.md").write_text(
        "# Title\n\n[a](other.md#something-else-here) `wire.dates.day_of` `wire.not_canonical` `DIR/evidence`\n"
        "```sh\nmake test ARGS=-x  # a comment\nMEDVEIL_REQUIRE=data .venv/bin/python -m pytest tests/wire\n```\n"
        "```python\nfrom wire.dates import day_of\n```\n"
    )
    (tmp_path / "other.md").write_text("# Something `else`, here\n")
    assert [line for line in check.problems(tmp_path) if line.startswith(("README", "other"))] == []
