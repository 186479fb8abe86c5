"""Made-up patients of hospital-1, for the step "At home": the data sets of the demo name nobody.

Every combination of county, sex, age band and department has seven or eight patients, but for three old women of
another county: the group that a data officer must see before a copy leaves. Two visits each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from connectors.dataset import parse_layout
from connectors.files import read_csv
from connectors.layout import Layout
from privacy.grants.levels import DE_IDENTIFIED, IDENTIFIED, STIGMATISED, ColumnFacts, DatasetFacts

NAME: Final = "synthetic-visits"
TABLE: Final = "patients"
PATIENTS: Final = 120
RARE: Final = 3
VISITS: Final = 2

_COUNTIES: Final = ("330122", "330125")
_ELSEWHERE: Final = "330127"
_BORN: Final = ("1980", "1960")
_RARE_BORN: Final = "1940"
_DEPARTMENTS: Final = ("cardiology", "endocrinology")
_DIAGNOSES: Final = ("I10", "E11", "I10", "F32")

_DECLARATION: Final = f"""
version = 1
name = "{NAME}"
population = "{NAME}"
unit = "person"
person = "identity"
rows_per_person = {VISITS}
colluders = 1
record_id = "visit"
about = "Made up for the demo."
about_zh = "为演示编造。"
split_rule = "As made."
split_rule_zh = "原样。"

[[columns]]
name = "department"
kind = "category"
title = "Department"
title_zh = "科室"
values = ["cardiology", "endocrinology"]

[[columns]]
name = "charge"
kind = "number"
title = "Charge"
title_zh = "费用"
unit = "yuan"
unit_zh = "元"
low = 0
high = 100000

[[columns]]
name = "diagnosis"
kind = "category"
title = "Diagnosis"
title_zh = "诊断"
values = ["I10", "E11", "F32"]
"""

LAYOUT: Final[Layout] = parse_layout(_DECLARATION.encode(), "dataset.toml")


class Patient(NamedTuple):
    """One of them. identity: number after GB 11643, as the table names the person."""

    identity: str
    department: str
    diagnosis: str


def patients() -> tuple[Patient, ...]:
    """All of them, in the table's order; the rare ones come last."""
    found = []
    for number in range(PATIENTS):
        county, born, department = (number >> 1) & 1, (number >> 2) & 1, (number >> 3) & 1
        identity = _identity(_COUNTIES[county], _BORN[born], 2 * (number // 2) + (number & 1))
        found.append(Patient(identity, _DEPARTMENTS[department], _DIAGNOSES[number % len(_DIAGNOSES)]))
    for number in range(RARE):
        found.append(Patient(_identity(_ELSEWHERE, _RARE_BORN, 2 * number), _DEPARTMENTS[0], _DIAGNOSES[0]))
    return tuple(found)


def _identity(county: str, year: str, order: int) -> str:
    """order: its last bit is the sex, 0 for a woman."""
    from stdnum.cn import ric

    body = f"{county}{year}{1 + order % 12:02}{1 + order % 28:02}{order:03}"
    return body + str(ric.calc_check_digit(body + "0"))


def charge(number: int, visit: int) -> int:
    """What a visit of the patient of that place cost, in yuan."""
    return 100 + (7919 * number + 1543 * visit) % 4000


def facts(dataset: str) -> DatasetFacts:
    """How hospital-1's data officer classifies the table."""
    columns = (
        ColumnFacts("identity", IDENTIFIED, "identity-number"),
        ColumnFacts("department", DE_IDENTIFIED),
        ColumnFacts("charge", DE_IDENTIFIED),
        ColumnFacts("diagnosis", STIGMATISED),
    )
    return DatasetFacts(dataset, columns)


def write_source(folder: Path) -> pa.Table:
    """Write declaration and table into the new `folder`, as a hospital has them to load; returns the table as read."""
    folder.mkdir(mode=0o700, parents=True)
    (folder / "dataset.toml").write_text(_DECLARATION, encoding="utf-8")
    lines = ["visit,identity,department,charge,diagnosis"]
    for number, one in enumerate(patients()):
        for visit in range(VISITS):
            cost = charge(number, visit)
            lines.append(f"v-{number}-{visit},{one.identity},{one.department},{cost},{one.diagnosis}")
    path = folder / f"{TABLE}.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_csv(path, LAYOUT)
