"""A malicious bureau changes a release and signs the folder again: no statement of it may change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

replace = msgspec.structs.replace


def releases(release: Any) -> Iterator[tuple[str, Any]]:
    """The release with one statement changed at a time."""
    (result,), noise, epsilon = release.results, release.noise[0], release.epsilons[0]
    group, hidden = result.groups[0], result.hidden[0]

    def with_result(**changes: Any) -> Any:
        return replace(release, results=(replace(result, **changes),))

    def with_group(**changes: Any) -> Any:
        return with_result(groups=(replace(group, **changes), *result.groups[1:]))

    yield "count", with_group(count=replace(group.count, value="1"))
    yield "interval", with_group(mean=replace(group.mean, low="0"))
    yield "mean", with_group(mean=replace(group.mean, value=group.mean.high))
    yield "sd", with_group(sd=replace(group.sd, value=None))
    yield "bins", with_group(bins=group.bins[:-1])
    yield "label", with_group(label="ward=all")
    yield "group left out", with_result(groups=result.groups[1:])
    yield "hidden left out", with_result(hidden=())
    yield "hidden number", with_result(hidden=(replace(hidden, noisy_count="1"), *result.hidden[1:]))
    yield "hidden minimum", with_result(hidden=(replace(hidden, minimum=2), *result.hidden[1:]))
    yield (
        "hidden shown as a group",
        with_result(groups=(*result.groups, replace(group, label=hidden.label, values=hidden.values)), hidden=()),
    )
    yield "measure", with_result(measure="age")
    yield "measure left out", replace(release, results=())
    yield "measure twice", replace(release, results=release.results * 2)
    yield "noise of another measure", replace(release, noise=(replace(noise, measure="age"), *release.noise[1:]))
    yield "spread", replace(release, spread="one-site")
    yield "noise", replace(release, noise=(replace(noise, pooled="0"), *release.noise[1:]))
    yield "noise kind left out", replace(release, noise=release.noise[1:])
    yield "epsilon", replace(release, epsilons=(replace(epsilon, epsilon="0.1"), *release.epsilons[1:]))
    yield "delta", replace(release, epsilons=(replace(epsilon, delta="1e-12"), *release.epsilons[1:]))
    yield "budget before", replace(release, budget_before_nano=release.budget_before_nano + 1)
    yield "budget after", replace(release, budget_after_nano=release.budget_before_nano)
    yield "rho", replace(release, rho_nano=release.rho_nano - 1)
    yield "unit", replace(release, unit="person")
    yield "rows of one unit", replace(release, rows_of_one_unit=2)
    yield "rows per person", replace(release, rows_per_person=2)
    yield "sites", replace(release, sites=release.sites[:-1])
    yield "lost", replace(release, lost=(release.sites[0],))
    yield "salt", replace(release, salt=bytes(32))
    yield "handle", replace(release, handle=bytes(16))
    yield "purpose", replace(release, query=replace(release.query, purpose="GRU"))
    yield "minimum", replace(release, query=replace(release.query, minimum_group=11))
    yield (
        "bounds",
        replace(
            release, query=replace(release.query, measures=(replace(release.query.measures[0], high=101, edges=()),))
        ),
    )
    phase, second = release.phases
    survivors = phase.survivors
    totals = (phase.opened.totals[0] + 1, *phase.opened.totals[1:])
    yield "totals", replace(release, phases=(replace(phase, opened=replace(phase.opened, totals=totals)), second))
    for what, other in (
        ("contributions", replace(survivors, contributions=survivors.contributions[::-1])),
        ("survivors of a phase", replace(survivors, sites=survivors.sites[1:])),
    ):
        yield what, replace(release, phases=(replace(phase, survivors=other), second))
    yield "parties", replace(release, phases=(replace(phase, parties=second.parties), second))
    yield "survivors", replace(release, survivors=release.survivors[::-1])
    yield "phases", replace(release, phases=release.phases[::-1])


def test_every_statement_of_a_release(case: Any, tmp_path: Path) -> None:
    name = "releases/query-1.evidence"
    seen = []
    for what, changed in releases(case.structs[name]):
        assert changed != case.structs[name], what
        case.fails(tmp_path / "evidence", name, changed)
        seen.append(what)
    assert len(seen) == 39
