"""How far an extract names people or organisations, measured before it leaves; at home, shown to the data officer.

A class is the rows that agree in all quasi-identifiers (columns that somebody else may know), a missing cell being a
value like any other. Over the classes:

    k-anonymity        the fewest different persons in a class                          Sweeney 2002
    l-diversity        the fewest different values of a sensitive column in a class     Machanavajjhala et al. 2007
    t-closeness        the furthest earth mover's distance between a sensitive column's distribution in a class and in
                       the whole table                                                  Li, Li, Venkatasubramanian 2007
                         text      1/2 sum_v |p_v - q_v|
                         numbers   1/(m - 1) sum_{j < m} |P_j - Q_j|   over the table's m different values, in order
    institutions       the fewest different institutions in a class (three: two of them could subtract themselves)
    p % rule           with x_1 >= x_2 >= ... the institutions' totals of an amount in a class, T their sum:
                       100 (T - x_1 - x_2) >= p x_1, or the second knows the first to within p %

k counts persons, not rows: a person with many rows hides nobody, and a row of nobody known adds no person. l and t
count rows. A missing sensitive value is a value; among numbers it stands below all of them. A missing institution is
none. Sensitive texts and institutions that differ in width, case or blanks alone are one. The p % rule must hold for
the institutions' totals as they are (a refund writes a negative amount) and of amounts without their signs.

Non-goals: these say how a table looks to somebody who knows the quasi-identifiers named here and nothing else. They do
not add up over several extracts, and they are no differential privacy.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
import pyarrow as pa

from privacy.predicate import Field
from wire.canonical import Wire
from wire.errors import Refused

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_DENSE = 8
"""Codes are renumbered in a table if it has at most so many places a row; they are sorted otherwise."""
Millionths = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class RiskPolicy(Wire, frozen=True, tag="privacy.risk_policy"):
    """What an extract must keep to. closeness: t in millionths, 1,000,000 for no bound; dominance: p in percent."""

    persons: Annotated[int, msgspec.Meta(ge=1, le=10**6)] = 5
    diversity: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 2
    closeness: Millionths = 1_000_000
    institutions: Annotated[int, msgspec.Meta(ge=3, le=1000)] = 3
    dominance: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class RiskColumns(Wire, frozen=True, tag="privacy.risk_columns"):
    """Which columns of the table are what. institution: "" where the table is about persons alone.

    amounts: trade secrets of the institutions, whole numbers; they need an institution.
    """

    quasi: Annotated[tuple[Field, ...], msgspec.Meta(max_length=100)]
    sensitive: Annotated[tuple[Field, ...], msgspec.Meta(max_length=100)] = ()
    institution: str = ""
    amounts: Annotated[tuple[Field, ...], msgspec.Meta(max_length=100)] = ()


class RiskReport(Wire, frozen=True, tag="privacy.risk_report"):
    """What was measured. Private to the officer, but for its hash and `within` in the extract.

    classes, offending: how many classes there are and how many break the policy. persons: k; diversity: l and
    closeness: t in millionths, rounded up, the worst of the sensitive columns; institutions: the fewest in a class, 0
    where none were named; dominated: cells (class and amount) that break the p % rule.
    """

    policy: RiskPolicy
    columns: RiskColumns
    rows: Count
    classes: Count
    offending: Count
    offending_rows: Count
    persons: Count
    diversity: Count
    closeness: Millionths
    institutions: Count
    dominated: Count

    @property
    def within(self) -> bool:
        """Whether no class breaks the policy."""
        return self.offending == 0


class Measured(msgspec.Struct, frozen=True):
    """A report and the offending classes (secret: they describe people), worst first.

    groups: the quasi-identifiers with `rows`, `persons`, `diversity`, `closeness`, `institutions`, `dominated` of each,
    and `reasons`, words of the policy ("persons", ...). offends: whether each row of the table is in one of them.
    """

    report: RiskReport
    groups: pa.Table
    offends: np.ndarray

    def __repr__(self) -> str:
        return f"Measured({self.report.classes} classes, {self.report.offending} offending)"


def measure(
    table: pa.Table, columns: RiskColumns, policy: RiskPolicy, persons: pa.ChunkedArray | None = None
) -> Measured:
    """Measure a masked table (secret).

    persons: the keyed id of each row's person, beside the table; None counts each row as a person of its own, right
    only where that is so. Raises Refused for a column that is not there or an amount that is not whole.
    """
    _check(table, columns)
    rows = table.num_rows
    of_row, classes = _classes(table, columns.quasi)
    sizes = np.bincount(of_row, minlength=classes)
    people = sizes if persons is None else _known_distinct(of_row, persons, classes)
    diversity = np.full(classes, np.iinfo(np.int64).max)
    closeness = np.zeros(classes)
    for name in columns.sensitive:
        codes, different = _codes(_folded(table.column(name)))
        diversity = np.minimum(diversity, _distinct(of_row, codes, classes))
        ordered = not (pa.types.is_string(table.schema.field(name).type) or _is_large(table.schema.field(name).type))
        closeness = np.maximum(closeness, _distances(of_row, codes, classes, different, ordered))
    institutions = np.zeros(classes, np.int64)
    dominated = np.zeros(classes, np.int64)
    if columns.institution:
        places = _folded(table.column(columns.institution))
        institutions = _known_distinct(of_row, places, classes)
        for name in columns.amounts:
            dominated += _dominated(of_row, places, table.column(name), classes, policy.dominance)
    millionths = np.minimum(np.ceil(closeness * 1e6 - 1e-6), 1e6).astype(np.int64)
    breaks = {
        "persons": people < policy.persons,
        "diversity": diversity < policy.diversity,
        "closeness": millionths > policy.closeness,
        "institutions": (institutions < policy.institutions) & bool(columns.institution),
        "dominance": dominated > 0,
    }
    broken = np.logical_or.reduce(list(breaks.values()))
    offends = broken[of_row] if rows else np.zeros(0, bool)
    report = RiskReport(
        policy,
        columns,
        rows,
        classes,
        int(broken.sum()),
        int(offends.sum()),
        _least(people),
        _least(diversity) if columns.sensitive else 0,
        int(millionths.max(initial=0)),
        _least(institutions),
        int(dominated.sum()),
    )
    facts = {
        "rows": sizes,
        "persons": people,
        "diversity": diversity if columns.sensitive else np.zeros(classes, np.int64),
        "closeness": millionths,
        "institutions": institutions,
        "dominated": dominated,
    }
    return Measured(report, _groups(table, columns.quasi, of_row, broken, breaks, facts), offends)


def withhold(
    table: pa.Table, columns: RiskColumns, policy: RiskPolicy, persons: pa.ChunkedArray | None = None
) -> tuple[pa.Table, np.ndarray, RiskReport]:
    """The table without the rows of offending classes, which rows stayed, and the report of what stayed.

    Rows that go change the distribution that t-closeness compares with, so it measures again until no class offends.
    The officer chooses this: what is left is no longer a fair sample. Raises Refused where nothing is left.
    """
    stays = np.ones(table.num_rows, bool)
    while True:
        kept = pa.array(stays)
        left = table.filter(kept)
        measured = measure(left, columns, policy, None if persons is None else persons.filter(kept))
        if measured.report.within:
            return left, stays, measured.report
        stays[np.flatnonzero(stays)[measured.offends]] = False
        if not stays.any():
            raise Refused("privacy.risk_nothing_left")


def _check(table: pa.Table, columns: RiskColumns) -> None:
    institution = (columns.institution,) if columns.institution else ()
    for name in (*columns.quasi, *columns.sensitive, *institution, *columns.amounts):
        if name not in table.schema.names:
            raise Refused("privacy.risk_column", field=name)
    for name in columns.amounts:
        if not columns.institution or not pa.types.is_integer(table.schema.field(name).type):
            raise Refused("privacy.risk_amount", field=name)
    for name in set(columns.quasi) & set(columns.sensitive):
        raise Refused("privacy.risk_twice", field=name)


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """Each cell as the rank of its value, and how many values there are; a missing cell (or NaN) ranks lowest."""
    flat = column.combine_chunks()
    if pa.types.is_dictionary(flat.type):
        flat = flat.cast(flat.type.value_type)
    if pa.types.is_floating(flat.type):
        values = flat.to_numpy(zero_copy_only=False)
        missing = np.isnan(values)
        found, ranks = np.unique(values[~missing], return_inverse=True)
        codes = np.zeros(len(values), np.int64)
        codes[~missing] = ranks
        return _with_missing(codes, missing, len(found))
    close = _close_codes(flat)
    if close is not None:
        return close
    encoded = flat.dictionary_encode()
    order = pa.compute.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    missing = flat.is_null().to_numpy(zero_copy_only=False)
    codes = encoded.indices.fill_null(0).to_numpy().astype(np.int64)
    return _with_missing(rank[codes] if len(order) else np.zeros(len(flat), np.int64), missing, len(order))


def _close_codes(flat: pa.Array) -> tuple[np.ndarray, int] | None:
    """`_codes` of days and whole numbers that lie close together, without a table of those that occur; else None."""
    if pa.types.is_date32(flat.type):
        flat = flat.cast(pa.int32())
    if not pa.types.is_signed_integer(flat.type):
        return None
    low, high = pa.compute.min_max(flat).as_py().values()
    if low is None or high - low >= _DENSE * len(flat):
        return None
    missing = flat.is_null().to_numpy(zero_copy_only=False)
    codes, different = _renumbered(flat.fill_null(low).to_numpy().astype(np.int64) - low, high - low + 1)
    return _with_missing(codes, missing, different)


def _with_missing(codes: np.ndarray, missing: np.ndarray, different: int) -> tuple[np.ndarray, int]:
    """codes: ranks of the cells that are there, all of `different` ones."""
    return (np.where(missing, 0, codes + 1), different + 1) if missing.any() else (codes, different)


def _renumbered(codes: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """Codes below `width` as ranks of those that occur, and how many do."""
    if width > _DENSE * len(codes):
        found, ranks = np.unique(codes, return_inverse=True)
        return ranks, len(found)
    occurs = np.zeros(width, bool)
    occurs[codes] = True
    return (np.cumsum(occurs) - 1)[codes], int(occurs.sum())


def _folded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without what spells one value in two ways: width, case, blanks; an empty one is missing."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    encoded = column.combine_chunks().dictionary_encode()
    texts = ("".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in encoded.dictionary.to_pylist())
    return pa.chunked_array([pa.array([text or None for text in texts], pa.string()).take(encoded.indices)])


def _known_distinct(of_row: np.ndarray, column: pa.ChunkedArray, classes: int) -> np.ndarray:
    """How many different values a class has, missing cells aside."""
    known = column.is_valid().to_numpy()
    return _distinct(of_row[known], _codes(column)[0][known], classes)


def _classes(table: pa.Table, quasi: Sequence[str]) -> tuple[np.ndarray, int]:
    """The class of each row, numbered from 0, and how many there are."""
    of_row = np.zeros(table.num_rows, np.int64)
    classes = min(table.num_rows, 1)
    for name in quasi:
        codes, different = _codes(table.column(name))
        width = max(different, 1)
        of_row, classes = _renumbered(of_row * width + codes, classes * width)
    return of_row, classes


def _pairs(of_row: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different (class, code) pairs in order: classes, codes, rows of each."""
    width = int(codes.max(initial=0)) + 1
    found, counts = np.unique(of_row * width + codes, return_counts=True)
    return found // width, found % width, counts


def _distinct(of_row: np.ndarray, codes: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(_pairs(of_row, codes)[0], minlength=classes)


def _distances(of_row: np.ndarray, codes: np.ndarray, classes: int, different: int, ordered: bool) -> np.ndarray:
    """The earth mover's distance of each class's distribution from the table's."""
    if not len(codes):
        return np.zeros(classes)
    owner, value, counts = _pairs(of_row, codes)
    share = counts / np.bincount(of_row, minlength=classes)[owner]
    whole = np.bincount(codes, minlength=different) / len(codes)
    if not ordered:
        # sum |p - q| = sum over the class's values of |p - q|, and q of every other value.
        inside = np.bincount(owner, np.abs(share - whole[value]) - whole[value], minlength=classes)
        return np.asarray((inside + 1.0) / 2)
    if different == 1:
        return np.zeros(classes)
    return _ordered_distances(owner, value, share, whole, classes)


def _ordered_distances(
    owner: np.ndarray, value: np.ndarray, share: np.ndarray, whole: np.ndarray, classes: int
) -> np.ndarray:
    """1/(m - 1) sum_{j < m} |P_j - Q_j|. P is constant between two values of the class and Q rises: each such stretch
    splits where Q passes P, and both parts are differences of prefix sums of Q."""
    last = len(whole) - 1  # at the last value both are one
    Q = np.cumsum(whole)
    prefix = np.concatenate(([0.0], np.cumsum(Q)))
    first_of = np.concatenate(([True], owner[1:] != owner[:-1]))
    running = np.cumsum(share)
    begun = np.repeat((running - share)[first_of], np.diff(np.append(np.flatnonzero(first_of), len(owner))))
    P = running - begun
    # The stretch before the class's first value has P = 0; the others begin at a value of the class.
    starts = np.concatenate((np.zeros(classes, np.int64), value))
    ends = np.concatenate((value[first_of], np.append(value[1:], 0)))
    ends[classes:][np.append(first_of[1:], True)] = last
    starts, ends = np.minimum(starts, last), np.minimum(ends, last)
    level = np.concatenate((np.zeros(classes), P))
    splits = np.clip(np.searchsorted(Q, level), starts, ends)
    below = level * (splits - starts) - (prefix[splits] - prefix[starts])
    above = prefix[ends] - prefix[splits] - level * (ends - splits)
    of_class = np.concatenate((owner[first_of], owner))
    return np.asarray(np.bincount(of_class, below + above, minlength=classes) / last)


def _dominated(
    of_row: np.ndarray, places: pa.ChunkedArray, amounts: pa.ChunkedArray, classes: int, percent: int
) -> np.ndarray:
    """1 for each class in which the second institution knows the first one's amount too well. In whole numbers."""
    known = places.is_valid().to_numpy()
    codes, number = _codes(places)
    width = max(number, 1)
    net: dict[int, int] = {}
    gross: dict[int, int] = {}
    paid = amounts.filter(pa.array(known)).to_pylist()
    for cell, amount in zip((of_row * width + codes)[known].tolist(), paid, strict=True):
        net[cell] = net.get(cell, 0) + (amount or 0)
        gross[cell] = gross.get(cell, 0) + abs(amount or 0)
    found = np.zeros(classes, np.int64)
    for cells in (net, gross):
        totals: list[list[int]] = [[] for _ in range(classes)]
        for cell, total in cells.items():
            totals[cell // width].append(abs(total))
        for place, shares in enumerate(totals):
            shares.sort(reverse=True)
            found[place] |= 100 * sum(shares[2:]) < percent * (shares[0] if shares else 0)
    return found


def _groups(
    table: pa.Table,
    quasi: Sequence[str],
    of_row: np.ndarray,
    broken: np.ndarray,
    breaks: dict[str, np.ndarray],
    facts: dict[str, np.ndarray],
) -> pa.Table:
    """The offending classes, those of the fewest persons first."""
    shown = np.flatnonzero(broken)
    shown = shown[np.argsort(facts["persons"][shown], kind="stable")]
    first = np.zeros(len(broken), np.int64)
    if len(shown):
        first[of_row[::-1]] = np.arange(len(of_row))[::-1]  # of several rows of a class the first is written last
    values = table.select(list(quasi)).take(pa.array(first[shown], pa.int64()))
    arrays: list[pa.Array] = list(values.columns)
    names = list(quasi)
    for name, numbers in facts.items():
        names.append(f"_{name}" if name in quasi else name)
        arrays.append(pa.array(numbers[shown], pa.int64()))
    reasons = [[word for word, wrong in breaks.items() if wrong[place]] for place in shown.tolist()]
    return pa.table([*arrays, pa.array(reasons, pa.list_(pa.string()))], names=[*names, "reasons"])


def _least(numbers: np.ndarray) -> int:
    return int(numbers.min()) if len(numbers) else 0


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind))
