"""Step 4: count, mean, standard deviation and histogram by group over all sites, beside the plain answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.layout import Layout, local_plan, row_class
from medveil.demo.facts import GroupFacts, QueryFacts
from medveil.demo.play import CHAIN, RESEARCHER, Play, dataset_name, hospital_name
from medveil.gateway.explained_words import Section
from medveil.gateway.serving import SMALLEST_GROUP
from mpc.budget import split
from mpc.cells import prove_no_wrap
from mpc.query import VERSION, Measure, Query, check_query
from mpc.release import Release
from privacy.local import OTHER, LocalPlan
from wire.errors import Refused

RHO_NANO = 250_000_000
"""What the query costs: rho = 0.25."""
DELTA_EXPONENT = 6


def plan_query(play: Play, purpose: str, measure: str = "") -> Query:
    """The layout's own study as a query over all sites; `measure` puts another number column in its place."""
    datasets = {name: play.sites[name].dataset for name in play.sites}
    rows = max(site.prepared.table.num_rows for site in play.sites.values())
    return study_query(play.layout, play.trust.chain, datasets, rows, purpose, measure)


def check_question(layout: Layout, rows: Sequence[int]) -> None:
    """Whether the layout's study can be asked of sites with so many rows each: said before anything is written.

    Raises Refused naming what is in the way.
    """
    if not any(rows):
        raise Refused("demo.no_records", layout=layout.name)
    hospitals = [hospital_name(number) for number in range(1, len(rows) + 1)]
    datasets = {hospital: dataset_name(layout, hospital) for hospital in hospitals}
    query = study_query(layout, CHAIN, datasets, max(rows), "")
    if query.minimum_group < SMALLEST_GROUP:
        raise Refused("gateway.small_groups", minimum=query.minimum_group, least=SMALLEST_GROUP)
    check_query(query)
    prove_no_wrap(query)


def study_query(
    layout: Layout, chain: str, datasets: Mapping[str, str], rows: int, purpose: str, measure: str = ""
) -> Query:
    """The study of `layout` over `datasets` (by site); rows: of the largest table. Raises Refused without a study."""
    study = layout.study
    if study is None:
        raise Refused("demo.no_study", layout=layout.name)
    plan = local_plan(layout, row_class(rows))
    column = layout.column(measure or study.measure)
    edges = plan.edges if not measure else ()
    low, high = (plan.low, plan.high) if not measure else (column.low, column.high)
    return Query(
        version=VERSION,
        chain=chain,
        population=layout.population,
        roster=tuple(sorted(datasets)),
        datasets=tuple(datasets[name] for name in sorted(datasets)),
        measures=(Measure(column.name, low, high, column.scale, edges),),
        groups=plan.groups,
        filter=None,
        purpose=purpose,
        unit=layout.unit,
        person=plan.person,
        rows_per_person=layout.rows_per_person,
        spread="every-site",
        colluders=layout.colluders,
        max_rows=plan.max_rows,
        rho_nano=RHO_NANO,
        split=split(RHO_NANO, histogram=bool(edges)),
        delta_exponent=DELTA_EXPONENT,
        minimum_group=study.minimum,
    )


async def query(play: Play, purpose: str) -> QueryFacts:
    """Run the query through every gateway; then, in the demo only, the same on the pooled rows."""
    asked = plan_query(play, purpose)
    explained = await play.desks[RESEARCHER].explain(asked)
    told = _tell_before(play, explained)
    messages, carried = play.carried() if play.carried else (0, 0)
    release = await play.desks[RESEARCHER].ask(asked)
    now_messages, now_carried = play.carried() if play.carried else (0, 0)
    facts = _facts(play, release, now_messages - messages, now_carried - carried, told)
    _tell(play, facts)
    return facts


def _facts(play: Play, release: Release, messages: int, carried: int, explained: list[str]) -> QueryFacts:
    layout, asked = play.layout, release.query
    plan = local_plan(layout, asked.max_rows)
    (measure,), (result,) = asked.measures, release.results
    label = layout.label(measure.column)
    plain = plain_answer(play.pooled(plan), plan)
    shown = {group.label: group for group in result.groups}
    hidden = {group.label: group for group in result.hidden}
    groups = []
    for name, values in zip(plan.group_labels(), plan.combinations(), strict=True):
        count, mean, sd, bins = plain[name]
        found = shown.get(name)
        found_mean, found_sd = (found.mean, found.sd) if found else (None, None)
        reason = hidden[name].text() if found is None else ""
        groups.append(
            GroupFacts(
                label=", ".join(values) or "all",
                noisy_count=float(found.count.value or 0) if found else float(hidden[name].noisy_count),
                hidden=reason,
                count=_number(found.count.value) if found else None,
                mean=_number(found_mean.value) if found_mean else None,
                mean_low=float(found_mean.low) if found_mean else None,
                mean_high=float(found_mean.high) if found_mean else None,
                sd=_number(found_sd.value) if found_sd else None,
                histogram=[float(one.value or 0) for one in found.bins] if found else [],
                plain_count=count,
                plain_mean=mean,
                plain_sd=sd,
                plain_histogram=bins,
            )
        )
    return QueryFacts(
        measure=label.title,
        unit=label.unit,
        by=[layout.label(name.name).title for name in asked.groups],
        bounds=[measure.low / measure.scale, measure.high / measure.scale],
        edges=[edge / measure.scale for edge in measure.edges],
        rows_policy=(
            f"A group whose noisy pooled count is below {asked.minimum_group} has no mean, deviation or histogram: "
            "they were never asked of any site. Its noisy count is public and paid for, like the others'."
        ),
        minimum=asked.minimum_group,
        groups=groups,
        rho_nano=release.rho_nano,
        budget_before_nano=release.budget_before_nano,
        budget_after_nano=release.budget_after_nano,
        noise=[
            f"Noise on {_KINDS[one.kind]}: standard deviation {one.pooled} {_UNITS.get(one.unit, one.unit)} in the "
            f"pooled cell ({one.site} from each site)."
            for one in release.noise
        ],
        epsilons=[
            f"epsilon {one.epsilon} at delta {Decimal(one.delta):.0e} with {_HONEST[one.assumption]}."
            for one in release.epsilons
        ],
        privacy_unit=(
            f"{release.unit}: neighbouring inputs differ by {release.rows_of_one_unit} "
            f"row{'s' if release.rows_of_one_unit != 1 else ''} over all sites"
        ),
        sites=list(release.sites),
        messages=messages,
        bytes_carried=carried,
        explained=explained,
    )


_KINDS = {
    "gate": "the counts that decide which groups pass",
    "counts": "counts",
    "sums": "sums",
    "squares": "sums of squares",
    "bins": "histogram bins",
}
_UNITS = {"measure": "units of the measure", "measure squared": "squared units of the measure"}
_HONEST = {
    "all-honest": "every site adding its noise",
    "colluders": "the assumed colluders adding none",
    "one-honest": "one site's noise alone",
}


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def plain_answer(table: pa.Table, plan: LocalPlan) -> dict[str, tuple[int, float | None, float | None, list[int]]]:
    """Count, mean, sample standard deviation and histogram by group, in floats, with nothing hidden.

    As in the query: values beyond the bounds of the study count as the bound, a missing group is "other".
    """
    found = {}
    for label, values in zip(plan.group_labels(), plan.combinations(), strict=True):
        rows = table
        for column, value in zip(plan.groups, values, strict=True):
            rows = rows.filter(pc.equal(pc.fill_null(rows[column.name], OTHER), value))
        numbers = pc.drop_null(rows[plan.measure]).to_numpy().astype(float)
        numbers = numbers.clip(plan.low / plan.scale, plan.high / plan.scale)
        edges = np.array(plan.edges, dtype=float) / plan.scale
        bins = np.histogram(numbers, edges)[0].tolist() if plan.edges else []
        mean = float(numbers.mean()) if len(numbers) else None
        sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else None
        found[label] = (len(numbers), mean, sd, bins)
    return found


def _tell_before(play: Play, explained: Sequence[Section]) -> list[str]:
    """What leaves each site and what it costs, of all that a gateway explains."""
    _, leaving, _, cost, *_ = explained
    told = [*leaving.lines, cost.lines[0]]
    play.narrator.say(f"Before it asks, {RESEARCHER} has the question explained; nothing is spent for that:")
    for line in told:
        play.narrator.say(line, style="dim")
    play.narrator.say("Then it asks.")
    return told


def _tell(play: Play, facts: QueryFacts) -> None:
    say = play.narrator.say
    unit = f" ({facts.unit})" if facts.unit else ""
    say(f"{facts.measure}{unit} by {' and '.join(facts.by)}, {len(facts.sites)} sites:")
    say(f"Values beyond {facts.bounds[0]:g} to {facts.bounds[1]:g} count as the bound.")
    rows = []
    for group in facts.groups:
        plain = [f"{group.plain_count:,}", _show(group.plain_mean), _show(group.plain_sd)]
        if group.hidden:
            rows.append([group.label, f"{group.noisy_count:,.0f}", "hidden", "", "", "", *plain])
        else:
            interval = f"{_show(group.mean_low)} … {_show(group.mean_high)}"
            rows.append(
                [
                    group.label,
                    f"{group.count:,.0f}",
                    _show(group.mean),
                    interval,
                    _show(group.sd),
                    _bars(group.histogram),
                    *plain,
                ]
            )
    columns = [
        "group",
        "count",
        "mean",
        "95 % noise interval",
        "sd",
        "histogram",
        "plain count",
        "plain mean",
        "plain sd",
    ]
    play.narrator.table(columns, rows, numbers=(1, 2, 3, 4, 6, 7, 8))
    if facts.edges:
        edges = ", ".join(f"{edge:g}" for edge in facts.edges)
        say(f"A histogram's bars lie between {edges}; the longest is the group's largest bin.")
    for group in facts.groups:
        if group.hidden:
            say(group.hidden, style="yellow")
    for line in facts.noise:
        say(line)
    for line in facts.epsilons:
        say(line)
    say(
        f"Budget of the population, rho: {facts.budget_before_nano / 1e9:g} before, "
        f"{facts.budget_after_nano / 1e9:g} after."
    )
    say("The plain columns exist in this demo only: one machine plays every hospital.", style="dim")


def _bars(counts: list[float]) -> str:
    """A histogram in one cell: the height of each bin against the largest."""
    largest = max([1.0, *counts])
    return "".join("▁▂▃▄▅▆▇█"[round(7 * max(count, 0.0) / largest)] for count in counts)


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
