"""The main job over real gateways: a process for each organisation, TLS between them, everything through their APIs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

DATASET = """
version = 1
name = "costs"
population = "costs"
unit = "row"
rows_per_person = 1
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
low = 0
high = 1000000

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
edges = [0, 100000, 1000000]
minimum = 20
"""


@pytest.mark.timeout(300)
def test_a_process_for_each_organisation(medveil: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "dataset.toml").write_text(DATASET, encoding="utf-8")
    for site in range(3):
        rows = [f"P{site}{row:04},{1000 * row + site},{'fe' * (row % 2)}male" for row in range(150)]
        (data / f"site-{site}.csv").write_text("\n".join(["identity,cost,sex", *rows]) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    done = medveil("demo", "--processes", "--data", data, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert len(facts["join"]["organisations"]) == 7 and facts["join"]["k"] == 5
    assert [site["rows"] for site in facts["load"]["sites"]] == [150, 150, 150]
    assert facts["query"]["budget_after_nano"] == 750_000_000 and len(facts["query"]["groups"]) == 2
    told = facts["query"]["explained"]
    assert told[0].startswith("First 2 numbers") and "which has 1 available: 0.75 would be left" in told[-1]
    assert facts["score"]["agree"] and facts["score"]["records"] == 150
    assert facts["grant"]["rule"] == "purpose" and "over the limit" in facts["limit"]["refusal"]
    assert facts["settle"]["agree"] and [one["payer"] for one in facts["settle"]["payments"]] == ["bureau", "insurer-1"]
    assert facts["eligibility"]["members"] == 1000 and len(facts["settle"]["refusals"]) == 5
    at_home = facts["at_home"]
    assert (at_home["extract"]["rows_after"], at_home["extract"]["received"]) == (244, 238)
    assert "按规则 level 拒绝" in at_home["explained_zh"][0] and len(at_home["refusals"]) == 3
    assert at_home["erasure"]["found"] == [] and at_home["erasure"]["told"] == ["researcher-1"]
    outcomes = [flow["outcome"] for flow in facts["audit"]["flows"]]
    assert outcomes.count("released") == 6 and outcomes.count("denied (purpose)") == 3
    receipt = medveil("verify", out / "receipts" / "erasure.evidence", "--trust", out / "consortium.json")
    assert receipt.returncode == 0 and "verified" in receipt.stdout, receipt.stderr
    verified = medveil("verify", out / "evidence", "--trust", out / "consortium.json")
    assert verified.returncode == 0 and "verified: chain medveil-demo" in verified.stdout, verified.stderr
    homes = {path.name for path in (out / "sites" / "homes").iterdir()}
    assert homes == {"bureau", "insurer-1", "regulator", "researcher-1", "hospital-1", "hospital-2", "hospital-3"}
    assert not (out / "sites" / "data").exists()
    for path in out.rglob("*"):
        if path.is_file():
            assert b"P00017" not in path.read_bytes(), path
