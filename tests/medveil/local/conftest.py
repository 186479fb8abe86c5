"""Tables of three small hospitals."""

from __future__ import annotations

from pathlib import Path

import pytest

DATASET = """
version = 1
name = "costs"
population = "costs"
unit = "row"
rows_per_person = 1
colluders = 1
about = "Made up for a test."
about_zh = "测试数据。"
split_rule = "As made."
split_rule_zh = "原样。"

[[columns]]
name = "cost"
kind = "number"
title = "Cost"
title_zh = "费用"
low = 0
high = 1000

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
edges = [0, 500, 1000]
minimum = 20
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of three tables."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "dataset.toml").write_text(DATASET, encoding="utf-8")
    for site in range(3):
        rows = [f"{(37 * row + site) % 1000},{'fe' * (row % 2)}male" for row in range(150)]
        (folder / f"site-{site}.csv").write_text("\n".join(["cost,sex", *rows]) + "\n", encoding="utf-8")
    return folder
