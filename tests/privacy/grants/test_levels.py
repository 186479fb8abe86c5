"""Levels and what follows from them; what nobody classified is the strictest that keeps a house running."""

from __future__ import annotations

from typing import Any

import pytest

from privacy.grants.levels import (
    CONTENTS,
    IDENTIFYING,
    LEVELS,
    STATUTORY_CLASSES,
    ColumnFacts,
    Content,
    DatasetFacts,
    StatutoryClass,
    adults_only,
    default_mask,
    fits,
    mask_of,
    mask_text,
    suite_of,
)
from privacy.masking.masks import MASK_KINDS, Mask
from privacy.predicate import And, Between, Compare, Fixed, In, IsNull, Not, Or, Predicate
from privacy.suites import AES_256_GCM, SM4_GCM
from wire.canonical import decode, encode
from wire.errors import Refused


def test_the_lists_are_the_types() -> None:
    assert Content.__args__ == CONTENTS  # type: ignore[attr-defined]
    assert StatutoryClass.__args__ == STATUTORY_CLASSES  # type: ignore[attr-defined]
    assert all(level.text() != level.text("zh") for level in LEVELS.values())
    assert tuple(LEVELS) == (1, 2, 3, 4, 5)


def test_what_is_not_classified() -> None:
    nobody = DatasetFacts("claims")
    assert nobody.column("anything").level == 4
    some = DatasetFacts("claims", (ColumnFacts("cost", 2),))
    assert some.column("cost").level == 2
    assert some.column("forgotten").level == 5
    assert decode(DatasetFacts, encode(some)) == some


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_defaults(level: Any, content: Any) -> None:
    column = ColumnFacts("c", level, content)
    mask = default_mask(column, "HRESCH")
    assert fits(mask, content)
    assert (mask == "keep") == (level <= 3 or (level == 4 and content == "plain"))
    assert (mask == "drop") == (level == 5 or (level == 4 and content == "free-text"))
    for treating in ("TREAT", "ERTREAT", "PATRQT", "FAMRQT", "CC"):
        assert default_mask(column, treating) == "keep"
    assert default_mask(column, "no such purpose") == mask
    sm4 = level == 5 or (level == 4 and content in ("identity-number", "address"))
    assert suite_of(column) == (SM4_GCM if sm4 else AES_256_GCM)


def test_what_a_mask_is_made_for() -> None:
    for mask in MASK_KINDS:
        made_for = {content for content in CONTENTS if fits(mask, content)}
        match mask:
            case "keep" | "drop":
                assert made_for == set(CONTENTS)
            case "pseudonym":
                assert made_for == {"plain", "name", "identity-number", "phone"}
            case _:
                assert len(made_for) == 1
    assert set(CONTENTS) >= IDENTIFYING


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (Mask("c", "keep"), "keep"),
        (Mask("c", "region", level="province"), "region:province"),
        (Mask("c", "band", (0, 18, 65)), "band:0,18,65"),
        (Mask("c", "band", (-5, 0)), "band:-5,0"),
        (Mask("c", "identity", (0, 65), "prefecture"), "identity:prefecture:0,65"),
    ],
)
def test_masks_as_people_write_them(mask: Mask, text: str) -> None:
    assert mask_text(mask) == text
    assert mask_of("c", text) == mask


@pytest.mark.parametrize(
    "text",
    [
        "",
        "blur",
        "band:",
        "band:0,x",
        "region:village",
        "region:county",
        "band:0, 18",
        "keep:",
        "band:00,18",
        "a:b:c:d",
    ],
)
def test_what_is_no_mask(text: str) -> None:
    with pytest.raises(Refused) as refused:
        mask_of("c", text)
    assert refused.value.code == "privacy.mask_text"


AGE = "age"
GROWN = Compare(AGE, "ge", 14)


@pytest.mark.parametrize(
    ("predicate", "plain"),
    [
        (GROWN, True),
        (Compare(AGE, "gt", 14), True),
        (Compare(AGE, "eq", 30), True),
        (Between(AGE, 14, 17), True),
        (In(AGE, (14, 15)), True),
        (And((Compare("cost", "lt", 10), GROWN)), True),
        (And((And((GROWN,)), IsNull("cost"))), True),
        (Compare(AGE, "ge", Fixed(145, 10)), True),
        (Compare(AGE, "ge", 13), False),
        (Compare(AGE, "gt", 13), False),
        (Compare(AGE, "le", 14), False),
        (Compare(AGE, "ne", 13), False),
        (Compare("cost", "ge", 14), False),
        (Between(AGE, 13, 99), False),
        (In(AGE, (13, 20)), False),
        (In(AGE, ("20", "30")), False),
        (Or((GROWN, Compare("cost", "ge", 1))), False),
        (Not(Compare(AGE, "lt", 14)), False),
        (IsNull(AGE), False),
        (None, False),
    ],
)
def test_adults_only_is_plain_or_it_is_not(predicate: Predicate | None, plain: bool) -> None:
    assert adults_only(predicate, AGE) is plain
