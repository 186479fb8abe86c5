"""What an extract would be: the decision, the rows that would leave, their masks, and the risk that is measured.

The data officer looks at a draft before anything is made, as often as need be: nothing is written. The same is worked
out again when the extract is made, from the rows, the grant and the opt-outs of then.

Which columns may help to find a person is the officer's to say, column by column, in the names that the masked table
has. What the officer says nothing of counts as known to others: so a forgotten column makes groups smaller, not larger.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from medveil.gateway.granting import book_of, judge
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.tables import PERSON, Tables
from medveil.gateway.use_state import left_out
from privacy.copies.extracts import Cut
from privacy.decide import Decision, UseRequest
from privacy.grants.terms import CheckedGrant
from privacy.masking.disclosure_risk import Measured, RiskColumns, RiskPolicy, RiskReport, measure, withhold
from privacy.masking.masks import quasi_identifiers
from privacy.predicate import Field
from wire.canonical import Wire
from wire.dates import day_at
from wire.domains import EXTRACT_MASK, keyed
from wire.errors import Refused

Columns = Annotated[tuple[Field, ...], msgspec.Meta(max_length=100)]


class RiskChoice(Wire, frozen=True, tag="medveil.risk_choice"):
    """What the data officer says of the columns that leave, by the names that they have when masked.

    sensitive: what nobody may learn of a person. institution, amounts: as `RiskColumns` has them. unknown: what nobody
    else can know of a person, such as a measurement. All others are quasi-identifiers, and so are masked identifiers
    and dates whatever is said here. policy: the limits; the grant's smallest group counts too where it is larger.
    withhold: leave out the rows of groups that break the limits.
    """

    sensitive: Columns = ()
    institution: Annotated[str, msgspec.Meta(max_length=64)] = ""
    amounts: Columns = ()
    unknown: Columns = ()
    policy: RiskPolicy = RiskPolicy()
    withhold: bool = False


class Withheld(NamedTuple):
    """What is left without the groups that break the limits. stays: of each row; report: None where nothing is left."""

    stays: np.ndarray
    report: RiskReport | None

    @property
    def rows(self) -> int:
        """How many rows leave."""
        return int(self.stays.sum())


class Draft(NamedTuple):
    """An allowed extract as it would be now. rows: as they are, with the column `PERSON` (secret).

    masked: what of them leaves (secret). measured: of that, before anything is withheld (secret). on: the civil day on
    which ages are taken: that on which the grant began.
    """

    decision: Decision
    grant: CheckedGrant
    rows: pa.Table
    masked: pa.Table
    measured: Measured
    withheld: Withheld | None
    on: int

    def __repr__(self) -> str:
        return f"Draft({self.decision.grant!r})"

    def withholding(self) -> Draft:
        """The same without the groups that break the limits."""
        report = self.measured.report
        left = _withheld(self.masked, report.columns, report.policy, _persons(self.rows))
        return self._replace(withheld=left)

    @property
    def leaving(self) -> pa.Table:
        """The rows that leave, as they are (secret)."""
        return self.rows if self.withheld is None else self.rows.filter(pa.array(self.withheld.stays))

    @property
    def report(self) -> RiskReport:
        """The report of the rows that leave. Raises Refused where none are left."""
        if self.withheld is None:
            return self.measured.report
        if self.withheld.report is None:
            raise Refused("privacy.risk_nothing_left")
        return self.withheld.report


def mask_key(holder: Organisation, grant: str) -> bytes:
    """The key (32 secret bytes) under which extracts of one grant are masked: the same for all of them."""
    return keyed(holder.salt_key, EXTRACT_MASK, grant.encode())


def allowing(holder: Organisation, decision: Decision) -> CheckedGrant:
    """The grant on which a decision rests. Raises Refused."""
    for entry in book_of(holder).of(holder.name, decision.recipient, decision.dataset):
        if entry.terms.grant == decision.grant:
            return entry.checked
    raise Refused("grants.unknown", grant=decision.grant)


def draft(
    holder: Organisation, tables: Tables, request: UseRequest, choice: RiskChoice, clock: Clock, grant: str = ""
) -> Draft | Decision:
    """Data officer: what an extract would be, or the denial. Nothing is written. Takes a while: call it in a thread.

    grant: the one that has to allow it, or "" for any. Raises Refused: a column or filter that is none, a choice that
    does not fit, no rows at all.
    """
    at = clock()
    decision = judge(holder, request, at, grant)
    if not decision.allowed:
        return decision
    rests_on = allowing(holder, decision)
    # The same day in all extracts of a grant: whoever passes into another band between two would show the birthday.
    on = day_at(max(rests_on.terms.not_before, 0), holder.trust.founding.zone)
    out = left_out(holder, decision, clock)
    kinds = tables.layout(request.dataset).kinds()
    table = tables.rows(request.dataset, decision.excluded)
    cut = Cut(request, kinds, decision, mask_key(holder, decision.grant), on, PERSON, out)
    cut.columns(table.schema)
    rows = cut.chosen(table)
    if not rows.num_rows:
        raise Refused("gateway.extract_empty", dataset=request.dataset)
    masked, persons = cut.masked(rows), _persons(rows)
    columns = _risk_columns(masked.schema, choice, decision, on, rows.schema)
    least = max(choice.policy.persons, decision.min_group)
    policy = msgspec.structs.replace(choice.policy, persons=least)
    measured = measure(masked, columns, policy, persons)
    withheld = _withheld(masked, columns, policy, persons) if choice.withhold else None
    return Draft(decision, rests_on, rows, masked, measured, withheld, on)


def _persons(rows: pa.Table) -> pa.ChunkedArray | None:
    """Whose each row is; None where the table says of no row whose it is, so that each counts as its own person's."""
    persons = rows[PERSON]
    return None if persons.null_count == len(persons) else persons


def _withheld(masked: pa.Table, columns: RiskColumns, policy: RiskPolicy, persons: pa.ChunkedArray | None) -> Withheld:
    try:
        _, stays, report = withhold(masked, columns, policy, persons)
    except Refused as refused:
        if refused.code != "privacy.risk_nothing_left":
            raise
        return Withheld(np.zeros(masked.num_rows, bool), None)
    return Withheld(stays, report)


def _risk_columns(masked: pa.Schema, choice: RiskChoice, decision: Decision, on: int, schema: pa.Schema) -> RiskColumns:
    """Which masked column is what. Raises Refused for a name that is none of them."""
    institution = (choice.institution,) if choice.institution else ()
    for name in (*choice.sensitive, *institution, *choice.amounts, *choice.unknown):
        if name not in masked.names:
            raise Refused("privacy.risk_column", field=name)
    always = quasi_identifiers(decision.mask_plan(on), schema)
    said = {*choice.sensitive, *institution, *choice.amounts, *choice.unknown} - set(always)
    quasi = tuple(name for name in masked.names if name not in said)
    return RiskColumns(quasi, choice.sensitive, choice.institution, choice.amounts)
