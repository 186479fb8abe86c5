"""Recognisable people are planted in the input, and searched for in everything an outsider gets."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

PEOPLE = [
    ("OuyangXiaoming", "110101199003077758", 73519264),
    ("ZhugeMingyue", "310115198512253347", 61840937),
    ("SimaGuang", "440305200001018899", 58206143),
]

DATASET = """
version = 1
name = "planted"
population = "planted"
unit = "row"
colluders = 1
record_id = "identity"
about = "Made up for a test."
about_zh = "测试数据。"
split_rule = "As made."
split_rule_zh = "原样。"

[[columns]]
name = "cost"
kind = "number"
title = "Cost"
title_zh = "费用"
unit = "fen"
unit_zh = "分"
low = 0
high = 100000000

[[columns]]
name = "age"
kind = "number"
title = "Age"
title_zh = "年龄"
low = 0
high = 120

[[columns]]
name = "sex"
kind = "category"
title = "Sex"
title_zh = "性别"
values = ["female", "male"]

[study]
title = "Cost by sex"
title_zh = "按性别的费用"
measure = "cost"
groups = ["sex"]
other = false
edges = [0, 25000000, 50000000, 75000000, 100000000]
minimum = 20
"""


@pytest.fixture(scope="module")
def planted(medveil: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over three sites whose first rows are recognisable people."""
    folder = tmp_path_factory.mktemp("planted")
    data = folder / "data"
    data.mkdir()
    (data / "dataset.toml").write_text(DATASET, encoding="utf-8")
    for site, (name, identity, cost) in enumerate(PEOPLE):
        lines = ["identity,cost,age,sex", f"{name}-{identity},{cost},63,female"]
        lines += [f"P{site}{row:04},{1000 * row + site},{20 + row % 60},{'fe' * (row % 2)}male" for row in range(150)]
        lines.append(lines[-1])  # one duplicate record id
        (data / f"site-{site}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = medveil("demo", "--data", data, "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    for name, identity, cost in PEOPLE:
        assert name not in done.stdout and identity not in done.stdout and str(cost) not in done.stdout
    return folder / "out"


def spellings(text: str) -> Iterator[bytes]:
    """The ways in which a text could stand in a file."""
    raw = text.encode()
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")
    for shift in range(3):  # base64 of the text at each alignment, without the characters that its neighbours share
        encoded = base64.b64encode(bytes(shift) + raw)
        yield encoded[4:-4] if shift else encoded[:-4]


def numbers(value: int) -> Iterator[bytes]:
    """The ways in which a number of the input could stand in a file."""
    yield str(value).encode()
    for order in ("big", "little"):
        yield value.to_bytes(4, order)  # type: ignore[arg-type]
    yield f"{value / 100:.2f}".encode()


def searched(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def test_outsiders_get_not_one_private_byte(planted: Path) -> None:
    files = [*searched(planted / "evidence"), (planted / "consortium.json", (planted / "consortium.json").read_bytes())]
    assert len(files) > 40
    for name, identity, cost in PEOPLE:
        hunted = [
            *spellings(name),
            *spellings(identity),
            *spellings(identity[-8:]),
            *numbers(cost),
        ]
        for path, content in files:
            for spelling in hunted:
                assert spelling not in content, f"{path.name} holds {spelling!r}"


def test_the_other_organisations_and_the_ledger_hold_nothing_either(planted: Path) -> None:
    """Nor does anything stand in clear at home: vaults are encrypted, ids are keyed."""
    for path, content in searched(planted / "sites"):
        for name, identity, _ in PEOPLE:
            for spelling in (*spellings(name), *spellings(identity)):
                assert spelling not in content, f"{path.relative_to(planted)} holds {spelling!r}"


def test_the_report_names_nobody(planted: Path) -> None:
    page = (planted / "report.html").read_bytes()
    for name, identity, cost in PEOPLE:
        for spelling in (*spellings(name), *spellings(identity), str(cost).encode()):
            assert spelling not in page


def test_the_secret_weights_and_the_bill_stay_secret(planted: Path, default_run: tuple[Path, str]) -> None:
    out, _ = default_run
    for folder in (planted, out):
        for path, content in searched(folder / "evidence"):
            for amount in (b"328640", b"3286.40", (328640).to_bytes(4, "big")):
                assert amount not in content, path.name


def test_duplicates_are_counted_and_small_sites_take_part(planted: Path, medveil: Run) -> None:
    assert medveil("verify", planted / "evidence", "--trust", planted / "consortium.json").returncode == 0
    page = (planted / "report.html").read_text(encoding="utf-8")
    assert "<td>1</td>" in page  # the duplicate at each site
