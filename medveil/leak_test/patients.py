"""The patients that are planted: made up, recognisable, drawn anew for each run so that nothing matches by chance.

What is planted is a marker: a text or a number, whose it is, and of which kind. Texts look as in real files (identity
numbers have their check digit, names a compound surname) and carry 33 bits of chance or more; amounts lie between 2^39
and 2^40 fen, so that each of their binary spellings has six bytes or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Rand = Callable[[int], bytes]

PATIENTS = 3
"""Planted at each hospital."""
ORDINARY = 150
"""Other rows at each hospital."""
NAME = "visits"
"""The dataset's layout, and its population."""
BROKEN = "broken"
"""The source whose table has a fault."""

PASSPHRASE, PASSWORD, SEED, SESSION = "passphrase", "password", "seed of codes", "session"
"""Kinds of an organisation's secrets."""
IDENTITY, BILLED_FOR, CLAIMED = "identity number of an insured", "diagnosis of a bill", "total of a bill"
"""What is in credentials."""
INSURED = "an insured person"

_SURNAMES = ("欧阳", "司马", "诸葛", "上官", "夏侯", "尉迟", "公孙", "令狐", "宇文", "慕容")
_RARE = "曦翀昶翊珩琰璟瑾筠翾蘅婧嫣妤姝懿翙旻昱昕晔晟暄曜杼栩桓桢梓楠槿沅沄泓洛浔涵淏淳渊湛溪滢漪澄澜瀚灏炜烨焓煜熠"
_LATIN = ("Ouyang", "Sima", "Zhuge", "Shangguan", "Xiahou", "Yuchi", "Gongsun", "Linghu", "Yuwen", "Murong")
_REGIONS = ("110101", "310115", "330106", "440305", "510107", "420106")
_STREETS = ("文三路", "解放大道", "天府五街", "深南中路", "世纪大道", "长安街")
_CHECK = "10X98765432"
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


@dataclass(frozen=True)
class Marker:
    """One thing that is searched for. kind: what it is; owner: the organisation at home with it; patient: which of
    the owner's, 0 for none; text or number (in fen): the thing itself, kept out of every message."""

    kind: str
    owner: str
    patient: int
    text: str = field(default="", repr=False)
    number: int | None = field(default=None, repr=False)

    def named(self) -> str:
        """What a report says of it."""
        return f"{self.kind} of {f'patient {self.patient} of ' if self.patient else ''}{self.owner}"


@dataclass(frozen=True)
class Patient:
    """A planted patient. cost: of the visit, in fen; billed: of the bill, in fen."""

    name: str
    latin: str
    identity: str
    phone: str
    address: str
    diagnosis: str
    remark: str
    visit: str
    wallet: str
    cost: int
    billed: int

    def __repr__(self) -> str:
        return "Patient()"


@dataclass(frozen=True)
class Planted:
    """What is planted at one hospital. cell: a cell that is no number, in the table with a fault; filtered: the
    number in a grant's row filter."""

    hospital: str
    patients: tuple[Patient, ...]
    cell: str
    filtered: int

    def __repr__(self) -> str:
        return f"Planted({self.hospital!r})"

    def markers(self) -> Iterator[Marker]:
        """Everything of it that is searched for."""
        for number, one in enumerate(self.patients, 1):
            texts = {
                "name": one.name,
                "name in Latin letters": one.latin,
                "identity number": one.identity,
                "phone": one.phone,
                "address": one.address,
                "diagnosis": one.diagnosis,
                "remark": one.remark,
                "record id": one.visit,
                "wallet": one.wallet,
            }
            for kind, text in texts.items():
                yield Marker(kind, self.hospital, number, text)
            yield Marker("cost", self.hospital, number, number=one.cost)
            yield Marker("bill's amount", self.hospital, number, number=one.billed)
        yield Marker("faulty cell", self.hospital, 0, self.cell)
        yield Marker("filter of a grant", self.hospital, 0, number=self.filtered)


@dataclass(frozen=True)
class Insured:
    """Whose credentials lie in files. classes: what a bill of hers says of each class, in fen."""

    identity: str
    diagnosis: str
    classes: tuple[int, ...]

    def markers(self) -> Iterator[Marker]:
        """Everything of her that is searched for."""
        yield Marker(IDENTITY, INSURED, 0, self.identity)
        yield Marker(BILLED_FOR, INSURED, 0, self.diagnosis)
        yield Marker(CLAIMED, INSURED, 0, number=sum(self.classes))

    def __repr__(self) -> str:
        return "Insured()"


def insured(rand: Rand) -> Insured:
    """Draw her."""
    classes = tuple(2**31 + _below(rand, 2**31) for _ in range(8))
    return Insured(identity_number(rand), f"I10.x{_digits(rand, 8)}", classes)


def typed(organisation: str, rand: Rand) -> Marker:
    """What a caller types at a gateway where it does not belong."""
    return Marker("what a caller typed", organisation, 0, f"typed{_digits(rand, 20)}")


def plant(hospital: str, rand: Rand) -> Planted:
    """Draw what is planted at a hospital."""
    patients = tuple(_patient(rand) for _ in range(PATIENTS))
    return Planted(hospital, patients, f"cell{_digits(rand, 16)}", _amount(rand))


def _patient(rand: Rand) -> Patient:
    surname = _below(rand, len(_SURNAMES))
    given = "".join(_RARE[_below(rand, len(_RARE))] for _ in range(2))
    street = _STREETS[_below(rand, len(_STREETS))]
    return Patient(
        name=_SURNAMES[surname] + given + _RARE[_below(rand, len(_RARE))] + _RARE[_below(rand, len(_RARE))],
        latin=f"{_LATIN[surname]} {_letters(rand, 9)}",
        identity=identity_number(rand),
        phone=f"1{3 + _below(rand, 7)}{_digits(rand, 9)}",
        address=f"{street}{_digits(rand, 5)}号{_digits(rand, 2)}室",
        diagnosis=f"E11.900x{_digits(rand, 8)}",
        remark=f"transferred from ward {_letters(rand, 8)}, {_digits(rand, 6)}",
        visit=f"V{_digits(rand, 14)}",
        wallet=f"person-{_digits(rand, 14)}",
        cost=_amount(rand),
        billed=_amount(rand),
    )


def identity_number(rand: Rand) -> str:
    """An identity number (GB 11643): region, birth day, sequence, check digit."""
    year, month, day = 1930 + _below(rand, 80), 1 + _below(rand, 12), 1 + _below(rand, 28)
    body = f"{_REGIONS[_below(rand, len(_REGIONS))]}{year:04}{month:02}{day:02}{_below(rand, 1000):03}"
    total = sum(int(digit) * weight for digit, weight in zip(body, _WEIGHTS, strict=True))
    return body + _CHECK[total % 11]


def _below(rand: Rand, limit: int) -> int:
    return int.from_bytes(rand(8), "big") % limit


def _digits(rand: Rand, count: int) -> str:
    return f"{_below(rand, 10**count) if count < 18 else int.from_bytes(rand(16), 'big') % 10**count:0{count}d}"


def _letters(rand: Rand, count: int) -> str:
    return "".join(chr(97 + one % 26) for one in rand(count))


def _amount(rand: Rand) -> int:
    while True:
        found = 2**39 + _below(rand, 2**39)
        if found % 100 and all(found.to_bytes(5, "big")):  # with fen, and without a byte of zeros
            return found


LAYOUT = f"""
version = 1
name = "{NAME}"
population = "{NAME}"
unit = "person"
person = "identity"
rows_per_person = 2
colluders = 1
record_id = "visit"
ignored = ["name", "latin", "phone", "address", "remark"]
about = "Made up for the leak test."
about_zh = "为泄漏测试编造。"
split_rule = "As made."
split_rule_zh = "原样。"

[[columns]]
name = "cost"
kind = "number"
title = "Cost"
title_zh = "费用"
unit = "yuan"
unit_zh = "元"
scale = 100
low = 0
high = 20000000000

[[columns]]
name = "age"
kind = "number"
title = "Age"
title_zh = "年龄"
low = 0
high = 120

[[columns]]
name = "days"
kind = "number"
title = "Days in hospital"
title_zh = "住院天数"
low = 0
high = 60

[[columns]]
name = "sex"
kind = "category"
title = "Sex"
title_zh = "性别"
values = ["female", "male"]

[[columns]]
name = "diagnosis"
kind = "category"
title = "Diagnosis"
title_zh = "诊断"
values = ["I10", "J18", "K35"]
"""
"""The declaration: every planted diagnosis is one that it does not declare."""

_HEADER = "visit,identity,name,latin,phone,address,remark,cost,age,days,sex,diagnosis"


def write_tables(folder: Path, planted: Sequence[Planted]) -> None:
    """The tables to load, a site for each hospital in order: planted patients among ordinary rows."""
    folder.mkdir(parents=True)
    (folder / "dataset.toml").write_text(LAYOUT, encoding="utf-8")
    for site, one in enumerate(planted, 1):
        rows = [
            f"o-{site}-{row},q-{site}-{row // 2},-,-,-,-,-,{10 * row + site}.50,{row % 100},{row % 30},"
            f"{'fe' * (row % 2)}male,{('I10', 'J18', 'K35')[row % 3]}"
            for row in range(ORDINARY)
        ]
        rows[7:7] = [_row(patient) for patient in one.patients]
        text = "\n".join([_HEADER, *rows]) + "\n"
        (folder / f"site-{site}.csv").write_text(text, encoding="utf-8")


def write_broken(folder: Path, one: Planted) -> None:
    """A source whose table cannot be loaded: a cell of a number column, in a patient's row, is no number."""
    folder.mkdir(mode=0o700)
    (folder / "dataset.toml").write_text(LAYOUT.replace(f'name = "{NAME}"', f'name = "{BROKEN}"', 1), encoding="utf-8")
    good, bad = _row(one.patients[0]), _row(one.patients[1])
    bad = bad.replace(yuan(one.patients[1].cost), one.cell)
    (folder / "rows.csv").write_text("\n".join([_HEADER, good, bad]) + "\n", encoding="utf-8")


def yuan(fen: int) -> str:
    """An amount as a decimal."""
    return f"{fen // 100}.{fen % 100:02}"


def _row(one: Patient) -> str:
    texts = (one.visit, one.identity, one.name, one.latin, one.phone, one.address, f'"{one.remark}"')
    return ",".join((*texts, yuan(one.cost), "63", "12", "female", one.diagnosis))
