"""Levels of data after GB/T 39725: what each column is, and what follows for its encryption and masking.

The data officer classifies a dataset: each column has a level 1..5 and says what it holds, the dataset whether
children may be in it and its statutory class. Both are public within the organisation and say nothing about
any person. Defaults follow from them; a grant may name other masks for its fields (`privacy.grants.terms`), and
`privacy.rules` judges levels, classes and masks.

| level | what it is | cells in a copy of records | suite |
|---|---|---|---|
| 1 | public | as they are | AES-256-GCM |
| 2 | aggregate | as they are | AES-256-GCM |
| 3 | de-identified, for named teams | as they are | AES-256-GCM |
| 4 | identified, for treating staff | masked by what they hold | AES-256-GCM; identity numbers and addresses SM4-GCM |
| 5 | stigmatised disease | left out | SM4-GCM |

What nobody classified: a whole dataset counts as level 4, plain cells; one column of a classified dataset counts
as level 5, so that a forgotten column does not leave.

Spec: GB/T 39725-2020 (health data security guide), section on data levels; the defaults are medveil's own. The
statutory class is that of the Data Security Law, article 21, and another thing than the level.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec

from privacy.grants.purposes import covering
from privacy.masking.masks import Mask, MaskKind
from privacy.masking.regions import REGION_LEVELS
from privacy.predicate import And, Between, Compare, Fixed, In, Predicate
from privacy.suites import AES_256_GCM, SM4_GCM
from wire.canonical import Wire
from wire.errors import Refused
from wire.identifiers import Name

PUBLIC, AGGREGATE, DE_IDENTIFIED, IDENTIFIED, STIGMATISED = 1, 2, 3, 4, 5
UNCLASSIFIED = IDENTIFIED
"""Level of every column of a dataset that nobody classified."""

Level = Annotated[int, msgspec.Meta(ge=PUBLIC, le=STIGMATISED)]

Content = Literal["plain", "name", "identity-number", "phone", "address", "date", "free-text"]
CONTENTS: tuple[Content, ...] = ("plain", "name", "identity-number", "phone", "address", "date", "free-text")
IDENTIFYING: frozenset[Content] = frozenset(("name", "identity-number", "phone", "address"))
"""What names a person by itself."""

StatutoryClass = Literal["general", "important", "core"]
STATUTORY_CLASSES: tuple[StatutoryClass, ...] = ("general", "important", "core")
"""Data Security Law, article 21, the mildest first."""

_BY_CONTENT: dict[Content, MaskKind] = {
    "plain": "keep",
    "name": "surname",
    "identity-number": "identity",
    "phone": "phone",
    "address": "region",
    "date": "shift",
    "free-text": "drop",
}
_FITS: dict[MaskKind, frozenset[Content]] = {
    "keep": frozenset(CONTENTS),
    "drop": frozenset(CONTENTS),
    "surname": frozenset(("name",)),
    "identity": frozenset(("identity-number",)),
    "phone": frozenset(("phone",)),
    "region": frozenset(("address",)),
    "band": frozenset(("plain",)),
    "shift": frozenset(("date",)),
    "pseudonym": frozenset(("plain", "name", "identity-number", "phone")),
}

ADULT_CONSENT = 14
"""Age from which nobody else has to consent for a person (PIPL 31)."""

_FINEST = "county"

ColumnName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class ColumnFacts(Wire, frozen=True, tag="privacy.column_facts"):
    """A column as the data officer classified it."""

    name: ColumnName
    level: Level
    content: Content = "plain"


class DatasetFacts(Wire, frozen=True, tag="privacy.dataset_facts"):
    """A dataset as the data officer classified it.

    minors: whether persons under 14 may be in it. age_column: the number column with the age in years, by which a
    row filter can leave them out, or "".
    """

    dataset: Name
    columns: Annotated[tuple[ColumnFacts, ...], msgspec.Meta(max_length=1000)] = ()
    minors: bool = False
    age_column: Annotated[str, msgspec.Meta(max_length=64)] = ""
    statutory_class: StatutoryClass = "general"

    def column(self, name: str) -> ColumnFacts:
        """The facts of a column. One that is not classified: see the module."""
        for column in self.columns:
            if column.name == name:
                return column
        return ColumnFacts(name, STIGMATISED if self.columns else UNCLASSIFIED)


class LevelTitle(NamedTuple):
    """A level in words."""

    english: str
    chinese: str

    def text(self, language: str = "en") -> str:
        """In "en" or "zh"."""
        return self.chinese if language == "zh" else self.english


LEVELS: dict[int, LevelTitle] = {
    PUBLIC: LevelTitle("public", "可完全公开"),
    AGGREGATE: LevelTitle("aggregate, for wide use", "可较大范围使用"),
    DE_IDENTIFIED: LevelTitle("de-identified, for named teams", "去标识化，限指定团队"),
    IDENTIFIED: LevelTitle("identified, for treating staff", "可识别个人，限诊疗人员"),
    STIGMATISED: LevelTitle("stigmatised disease, strictly limited", "敏感病种，严格限制"),
}


def suite_of(column: ColumnFacts) -> int:
    """The suite that seals a column's cells unless somebody chose another: an id of `privacy.suites`.

    SM4, which the assessment of commercial cryptography asks for, where a cell names a person or can harm one most;
    those cells are sealed apart from the rest of their row.
    """
    if column.level == STIGMATISED or (column.level == IDENTIFIED and column.content in ("identity-number", "address")):
        return SM4_GCM
    return AES_256_GCM


def default_mask(column: ColumnFacts, purpose: str) -> MaskKind:
    """What becomes of a column's cells in a copy of records, unless the grant says otherwise.

    purpose: for treatment, or what patients ask for themselves, nothing is masked.
    """
    if column.level <= DE_IDENTIFIED or unmasked(purpose):
        return "keep"
    return "drop" if column.level == STIGMATISED else _BY_CONTENT[column.content]


def unmasked(purpose: str) -> bool:
    """Whether nothing is masked for a purpose: treatment, and what patients ask for themselves."""
    return not covering(purpose).isdisjoint(("TREAT", "PATRQT"))


def fits(mask: MaskKind, content: Content) -> bool:
    """Whether a mask says anything about such cells: a phone number has no surname."""
    return content in _FITS[mask]


def mask_text(mask: Mask) -> str:
    """A mask as people write it: its kind, then what differs from the ordinary: "region:province", "band:0,18,65"."""
    parts: list[str] = [mask.kind]
    if mask.level != _FINEST:
        parts.append(mask.level)
    if mask.edges:
        parts.append(",".join(str(edge) for edge in mask.edges))
    return ":".join(parts)


def mask_of(field: str, text: str) -> Mask:
    """The mask that `mask_text` wrote. Raises Refused for what is none."""
    kind, *more = text.split(":")
    level: str = _FINEST
    edges: tuple[int, ...] = ()
    try:
        for part in more:
            if part in REGION_LEVELS:
                level = part
            else:
                edges = tuple(int(edge) for edge in part.split(","))
        made = msgspec.convert(("privacy.mask", field, kind, edges, level), Mask)
    except (ValueError, msgspec.ValidationError):
        raise Refused("privacy.mask_text", field=field[:64]) from None
    if mask_text(made) != text:
        raise Refused("privacy.mask_text", field=field[:64])
    return made


def adults_only(predicate: Predicate | None, age_column: str) -> bool:
    """Whether a row filter plainly lets in nobody under 14: a part that all rows must pass bounds the age.

    Rows without an age do not pass such a part either. Anything less plain is no.
    """
    match predicate:
        case And(parts):
            return any(adults_only(part, age_column) for part in parts)
        case Compare(field, operator, value) if field == age_column and not isinstance(value, str):
            return operator in ("ge", "gt", "eq") and _number(value) >= ADULT_CONSENT
        case Between(field, low, _) if field == age_column:
            return _number(low) >= ADULT_CONSENT
        case In(field, values) if field == age_column:
            return all(not isinstance(value, str) and _number(value) >= ADULT_CONSENT for value in values)
    return False


def _number(value: int | Fixed) -> float:
    return value.as_float() if isinstance(value, Fixed) else value
