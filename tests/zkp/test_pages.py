"""The pages of the proofs: each says what is proved, how, on what it rests, what it gives away, and who has looked."""

from __future__ import annotations

from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[2] / "docs" / "protocols"
ZKP = PAGES.parents[1] / "zkp"
PROOFS = (
    "bbs", "bill-limit", "credentials", "eligibility", "membership", "range-proof", "settlement", "sigma-proofs",
)  # fmt: skip
HEADINGS = (
    "Statement", "Equations", "Assumptions", "Sources", "What it leaks", "Who must be honest", "Review status",
)  # fmt: skip


def sections(page: str) -> dict[str, str]:
    """What stands under each heading of the second level."""
    parts = (PAGES / f"{page}.md").read_text(encoding="utf-8").split("\n## ")
    return {part.split("\n", 1)[0]: part.split("\n", 1)[1].strip() for part in parts[1:]}


@pytest.mark.parametrize("page", PROOFS)
def test_a_page_has_every_part(page: str) -> None:
    found = sections(page)
    assert not [heading for heading in HEADINGS if len(found.get(heading, "")) < 40]


@pytest.mark.parametrize("page", PROOFS)
def test_a_page_says_who_reviewed_it_and_that_time_shows(page: str) -> None:
    status = sections(page)["Review status"]
    assert "no outside review" in status.lower()
    assert "Not constant-time" in status


def test_every_module_that_proves_has_its_page() -> None:
    text = "".join((PAGES / f"{page}.md").read_text(encoding="utf-8") for page in PROOFS)
    proving = [path.name for path in ZKP.glob("*.py") if "\ndef prove(" in path.read_text(encoding="utf-8")]
    assert len(proving) > 4
    assert not [name for name in proving if f"`zkp/{name}`" not in text]
