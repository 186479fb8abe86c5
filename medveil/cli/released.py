"""What was released, on a screen or as JSON."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from medveil.cli import screen
from medveil.cli.datasets import rho as in_rho
from medveil.cli.members import write_evidence

if TYPE_CHECKING:
    from medveil.client import Released
    from mpc.query import Measure, Query
    from mpc.release import MeasureResult


def keep_released(released: Released, out: Path | None, page: Path | None) -> None:
    """Write a release into new files. out: its evidence; page: as HTML. Raises Refused, Unavailable."""
    from medveil.cli import language
    from medveil.client.release_page import HEAD

    if out is not None:
        write_evidence(out, released.data)
    if page is not None:
        write_evidence(page, f"{HEAD}\n{released.page(language())}\n".encode())


def show_released(released: Released, as_json: bool) -> None:
    """Print a release that was verified."""
    from medveil.cli import language
    from mpc.query import salted_hash

    release = released.release
    if as_json:
        screen.print_json(
            {
                "query": released.query,
                "verified": True,
                "salted_hash": salted_hash(release.query, release.salt).hex(),
                "salt": release.salt.hex(),
                "population": release.query.population,
                "answers_the_question": released.asked,
                "answered_before": released.earlier,
                "asked": _plain(release.query),
                "sites": release.sites,
                "lost": release.lost,
                "survivors": [_plain(one) for one in release.survivors],
                "protection": release.protection(),
                "disclosures": release.disclosures(),
                "unit": release.unit,
                "rho_nano": release.rho_nano,
                "epsilons": [_plain(one) for one in release.epsilons],
                "results": [_plain(result) for result in release.results],
                "budget_before_nano": release.budget_before_nano,
                "budget_after_nano": release.budget_after_nano,
                "not_asked": released.declared.not_asked,
                "available_nano": released.declared.available,
                "proposed_in_block": released.declared.proposed,
                "proven_in_block": released.declared.height,
                "by_the_gateways_word": {"notes": [_plain(note) for note in release.notes]},
            }
        )
        return
    for result in release.results:
        _show_result(release.query, result)
    if any(result.groups for result in release.results):
        if not release.query.exact:
            print("In brackets: the 95 % interval of the noise.")
        print("Values beyond a measure's bounds counted as the bound.")
    query, declared = release.query, released.declared
    screen.say(f"\nVerified by proofs of the ledger: query {released.query}")
    for line in (release.protection(language()), *release.disclosures(language())):
        print(screen.shown(line))
    if released.earlier:
        print("The question was answered before: this is that answer, and nothing was spent now.")
    rho = f"{in_rho(release.rho_nano)} spent, {in_rho(release.budget_after_nano)} left then"
    rows = [
        ("asked", f"in block {declared.proposed}"),
        ("its hash there", salted_hash(release.query, release.salt).hex()),
        ("sites", release.sites),
        ("lost on the way", release.lost),
        ("lost while groups were chosen", release.survivors[0].lost),
        ("not asked, though owners", declared.not_asked),
        ("measured", _measured(query)),
        ("rows", "filtered" if query.filter is not None else "all"),
        ("purpose", query.purpose),
        ("rho", f"{rho}, {in_rho(declared.available)} left in block {declared.height}"),
    ]
    screen.facts((f"  {name}", value) for name, value in rows if value)
    if not released.asked:
        print("That this is what was meant to be asked, nobody checked: --json shows all of the query.")
    if release.notes:
        print("\nBy the gateway's word alone, what sites say of their tables:")
        screen.facts((f"  {note.site}", note.text) for note in release.notes)


def _show_result(query: Query, result: MeasureResult) -> None:
    from medveil.cli import language
    from mpc.release import hidden_words

    if len(query.measures) > 1:
        print(f"{screen.shown(result.measure)}:")
    columns = [(group.name, _value(at)) for at, group in enumerate(query.groups)]
    numbers = ("count", "mean", "sd") if result.measure else ("count",)
    columns += [(name, _estimate(name, query.exact)) for name in numbers]
    screen.table(result.groups, columns, none="no group passed")
    for line in hidden_words(result.hidden, language()):
        print(screen.shown(line))


def _measured(query: Query) -> str:
    """What a query measures, in words."""
    by = f" by {', '.join(group.name for group in query.groups)}" if query.groups else ""
    return ", ".join(_bounded(measure) for measure in query.measures or ()) + by if query.measures else f"rows{by}"


def _bounded(measure: Measure) -> str:
    low, high = (Decimal(bound) / measure.scale for bound in (measure.low, measure.high))
    return f"{measure.column} from {low:f} to {high:f}"


def _plain(thing: object) -> object:
    """A canonical struct by its fields' names."""
    if isinstance(thing, tuple):
        return [_plain(one) for one in thing]
    names = getattr(thing, "__struct_fields__", None)
    return thing if names is None else {name: _plain(getattr(thing, name)) for name in names}


def _value(at: int) -> screen.Cell:
    return lambda group: group.values[at]


def _estimate(name: str, exact: bool) -> screen.Cell:
    """A released number; with the interval of its noise, unless it is `exact`."""

    def show(group: object) -> str:
        one = getattr(group, name)
        value = "not resolved" if one.value is None else one.value
        return value if exact else f"{value} ({one.low} to {one.high})"

    return show
