"""``python -m benchmarks``: run benches, print their figures by name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib import import_module

from benchmarks import report
from benchmarks.machine import commit, machine
from benchmarks.measure import CannotRun, Figure
from wire.errors import Unavailable

BENCHES = ("wire", "zkp", "ledger", "vault", "sums", "scoring", "gateway", "demo")

Run = Callable[[bool], Iterator[Figure]]


def bench(name: str) -> Run:
    """The `run(quick)` of a bench. Imported when it runs, so that one needs only what it measures."""
    run: Run = import_module(f"benchmarks.{name}").run
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches named, or all. Returns 0, or 1 if one could not run (said on standard error)."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Side-by-side figures: medveil and a peer in turn, medians. "
        "ratio = medveil's value / the peer's: below 1 is better for times and sizes, above 1 for rates.",
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"benches to run: {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object a figure, one a line")
    parser.add_argument("--quick", action="store_true", help="small inputs, few rounds: seconds a bench")
    parser.add_argument("--compare", action="store_true", help="also show the newest committed baseline")
    parser.add_argument("--save", action="store_true", help="write the figures as today's baseline")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.name if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")

    here, revision = machine(), commit()
    figures: list[report.Row] = []
    failed = False
    for name in dict.fromkeys(chosen.name or BENCHES):
        try:
            for figure in bench(name)(chosen.quick):
                figures.append(report.row(name, figure, here, revision, chosen.quick))
                if chosen.json:
                    print(report.line(figures[-1]), flush=True)
        except (CannotRun, Unavailable, ImportError) as error:
            failed = True
            print(f"The bench {name} cannot run here: {error}", file=sys.stderr)

    if not chosen.json and figures:
        print(report.table(figures))
        print(f"\n{here}; commit {revision}{'; quick' if chosen.quick else ''}")
        print("ratio = medveil's value / the peer's, pairs taken in turn; +- is half the quartile range.")
    if chosen.compare:
        known = report.baselines()
        text = (
            report.comparison(figures, report.read_baseline(known[-1]), known[-1].stem)
            if known
            else "There is no baseline yet: --save writes one."
        )
        print(("" if chosen.json else "\n") + text, file=sys.stderr if chosen.json else sys.stdout)
    if chosen.save and figures:
        path = report.BASELINES / f"{date.today().isoformat()}.json"
        report.write_baseline(path, figures)
        print(f"Written: {path.relative_to(report.BASELINES.parent.parent)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
