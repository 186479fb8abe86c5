"""``medveil demo`` as a person runs it: a fresh process, wall time of each step and of the whole."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import msgspec

from benchmarks.machine import ROOT
from benchmarks.measure import CannotRun, Effort, Figure, effort, spread

DECLARATION = """
version = 1
name = "visits"
population = "visits"
unit = "row"
[[columns]]
name = "visits"
kind = "number"
title = "Visits"
low = 0
high = 60
[[columns]]
name = "age"
kind = "number"
title = "Age"
low = 0
high = 120
[[columns]]
name = "sex"
kind = "category"
title = "Sex"
values = ["female", "male"]
[study]
title = "Visits by sex"
measure = "visits"
groups = ["sex"]
edges = [0, 5, 60]
minimum = 10
"""


class Facts(msgspec.Struct):
    """What the bench reads of ``medveil demo --json``: step title -> seconds."""

    seconds: dict[str, float]


def small_folder(folder: Path, sites: tuple[str, ...] = ("east", "north", "south")) -> Path:
    """Sites of 40 made-up rows."""
    folder.mkdir()
    (folder / "dataset.toml").write_text(DECLARATION, encoding="utf-8")
    for site in sites:
        rows = (f"{one % 61},{one % 100},{('female', 'male')[one & 1]}" for one in secrets.token_bytes(40))
        (folder / f"{site}.csv").write_text("\n".join(("visits,age,sex", *rows)) + "\n", encoding="utf-8")
    return folder


def run(quick: bool) -> Iterator[Figure]:
    """The default data three times; with --quick three sites of 40 rows once. No peer: nothing else does this job."""
    much: Effort = effort(quick, Effort(3, 0.0))
    wholes: list[float] = []
    steps: dict[str, list[float]] = {}
    with TemporaryDirectory(prefix="medveil-bench-") as name:
        # By this interpreter from this checkout, which need not be the one that the command is installed from.
        command = [sys.executable, "-c", "from medveil.cli import main; main()", "demo", "--json"]
        command += ["--out", f"{name}/out"]
        if quick:
            command += ["--data", str(small_folder(Path(name) / "data"))]
        for _ in range(1 if quick else much.rounds):
            began = perf_counter()
            done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=600)
            wholes.append(perf_counter() - began)
            if done.returncode:
                raise CannotRun(f"medveil demo failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
            for title, seconds in msgspec.json.decode(done.stdout, type=Facts).seconds.items():
                steps.setdefault(title, []).append(seconds)
    for title, times in steps.items():
        figure = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        yield Figure(figure, median(times), "s", spread=spread(times), rounds=len(times))
    yield Figure("whole", median(wholes), "s", spread=spread(wholes), rounds=len(wholes))
