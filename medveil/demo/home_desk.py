"""A desk for what is at home: explanations, opt-outs, extracts from either end, revocation, erasure.

What `medveil.demo.desk` is for the rest. `LocalHomeDesk` calls the gateway's flows in this process; over processes,
`medveil.local.home_desk` speaks to the gateways' own API.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from medveil.gateway import erasing, extract_delivery, granting, held_extracts, use_state
from medveil.gateway.extract_drafts import Draft, draft
from medveil.gateway.extracting import ExtractWish, make_extract
from medveil.gateway.organisation import Organisation
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.gateway.recalling import keep_up
from medveil.gateway.reception import AtHome
from medveil.gateway.steps import Passing
from medveil.gateway.tables import VaultTables
from privacy.erasure.recalls import recall_of
from privacy.erasure.receipt import ErasureReceipt, beyond_text
from privacy.explain import uses
from privacy.grants.levels import DatasetFacts, mask_text
from privacy.grants.opt_outs import OptOut, Scope, reach_text
from wire.canonical import decode, encode
from wire.errors import ConsentDenied
from wire.evidence import write_file

_LOOK = 0.02


class Group(NamedTuple):
    """Rows that look alike to others, of too few persons. values: of the known columns; reasons: limits it breaks."""

    values: tuple[str, ...]
    rows: int
    persons: int
    reasons: tuple[str, ...]


class Drafted(NamedTuple):
    """An extract as its officer sees it before it is made.

    columns: each that would leave, with its mask; known: the masked columns that others may know; persons: the fewest
    in a group; least: the limit; left: rows that would leave without the groups that offend.
    """

    rows: int
    columns: tuple[tuple[str, str], ...]
    known: tuple[str, ...]
    groups: int
    persons: int
    least: int
    offends: tuple[Group, ...]
    left: int


class Erased(NamedTuple):
    """What an erasure did. rows: that went; told: recipients of extracts that have to delete them."""

    rows: int
    keys: int
    told: tuple[str, ...]


class Checked(NamedTuple):
    """What a check of an erasure saw, in words. found: what should be gone and is not; beyond: what it cannot reach."""

    files: int
    found: tuple[str, ...]
    beyond: tuple[str, ...]


class HomeDesk(Protocol):
    """Each call returns when it is done, and raises what the gateway says no with."""

    async def classify(self, facts: DatasetFacts) -> None:
        """Say what the columns of a dataset are."""
        ...

    async def explain(self, recipient: str, dataset: str, language: str) -> list[str]:
        """What a recipient may do with a dataset and why not, in words, a grant and use each."""
        ...

    async def opt_out(self, person: str, scope: Scope, value: str) -> str:
        """Take down what a patient does not want; returns what it stops, in words."""
        ...

    async def draft_extract(self, wish: ExtractWish) -> Drafted:
        """What an extract would be, and its risk. Nothing is written."""
        ...

    async def make_extract(self, wish: ExtractWish) -> bytes:
        """Make an extract and bring it to its recipient; returns its id."""
        ...

    async def open_extract(self, extract: bytes) -> pa.Table:
        """Recipient: open an extract that came here."""
        ...

    async def revoke(self, grant: str) -> None:
        """Revoke a grant."""
        ...

    async def recalled(self, extract: bytes) -> str:
        """What the recipient says of an extract whose grant was revoked: "deleted", or "" for nothing yet."""
        ...

    async def erase(self, person: str, reference: str, receipt: Path) -> Erased:
        """Erase a patient, rotate the key epoch, write the receipt."""
        ...

    async def check_erased(self, person: str, receipt: Path) -> Checked:
        """Look at home for what a receipt says is gone, and for the person's name in any file."""
        ...


class LocalHomeDesk:
    """See `HomeDesk`: of an organisation of this process."""

    def __init__(self, organisation: Organisation, home: AtHome, clock: Callable[[], int]) -> None:
        self._organisation = organisation
        self._home = home
        self._clock = clock

    async def classify(self, facts: DatasetFacts) -> None:
        """See `HomeDesk.classify`."""
        use_state.classify(self._organisation, facts)

    async def explain(self, recipient: str, dataset: str, language: str) -> list[str]:
        """See `HomeDesk.explain`."""
        me = self._organisation
        await me.account.caught_up()
        book, at = granting.book_of(me), self._clock()
        parties = me.name, recipient, dataset
        state = use_state.state_of(me, (entry.checked for entry in book.of(*parties)), at)
        return [one.text(language) for one in uses(*parties, book, state, at)]

    async def opt_out(self, person: str, scope: Scope, value: str) -> str:
        """See `HomeDesk.opt_out`."""
        said = OptOut(scope, value, self._clock())
        use_state.opt_out(self._organisation, person, said)
        return reach_text(said)

    async def draft_extract(self, wish: ExtractWish) -> Drafted:
        """See `HomeDesk.draft_extract`."""
        me = self._organisation
        await me.account.caught_up()
        found = await asyncio.to_thread(
            draft, me, self._home.tables, wish.request, wish.choice, self._clock, wish.grant
        )
        if not isinstance(found, Draft):
            raise ConsentDenied(found.code, **found.facts())
        report = found.measured.report
        known = report.columns.quasi
        groups = [
            Group(tuple(str(one[name]) for name in known), one["rows"], one["persons"], tuple(one["reasons"]))
            for one in found.measured.groups.to_pylist()
        ]
        withheld = found.withholding().withheld
        columns = tuple((column.field, mask_text(column.mask)) for column in found.decision.columns)
        left = report.rows if withheld is None else withheld.rows
        return Drafted(
            report.rows, columns, known, report.classes, report.persons, report.policy.persons, tuple(groups), left
        )

    async def make_extract(self, wish: ExtractWish) -> bytes:
        """See `HomeDesk.make_extract`."""
        me = self._organisation
        facts = await make_extract(me, self._home.tables, wish, Passing(), self._clock)
        await extract_delivery.deliver(me, facts.cover.extract, Passing(), self._clock)
        return facts.cover.extract

    async def open_extract(self, extract: bytes) -> pa.Table:
        """See `HomeDesk.open_extract`."""
        await self._organisation.account.caught_up()
        _, rows = await asyncio.to_thread(held_extracts.open_held, self._organisation, extract, self._clock)
        return rows

    async def revoke(self, grant: str) -> None:
        """See `HomeDesk.revoke`."""
        await granting.revoke(self._organisation, grant)

    async def recalled(self, extract: bytes) -> str:
        """See `HomeDesk.recalled`: it is told now, and awaited."""
        me = self._organisation
        await keep_up(me, ExtractsHere(me, self._clock), self._clock)
        end = time.monotonic() + me.patience
        while (found := recall_of(me.vault, extract)) is None or found.heard is None:
            if time.monotonic() >= end:
                return ""
            await asyncio.sleep(_LOOK)
        return found.heard.found

    async def erase(self, person: str, reference: str, receipt: Path) -> Erased:
        """See `HomeDesk.erase`."""
        return await asyncio.to_thread(self._erase, person, reference, receipt)

    def _erase(self, person: str, reference: str, path: Path) -> Erased:
        me = self._organisation
        planned = erasing.plan(me, person, self._clock(), reference=reference)
        name, tables = planned.plan.erasure.hex(), self._home.tables
        assert isinstance(tables, VaultTables)  # in one process they are
        done = erasing.apply(me, name, self._clock, snapshots=tables.snapshots, wallets=self._home.wallets)
        erasing.rotate(me, self._clock)
        receipt = erasing.receipt_of(me, name, self._clock())
        write_file(path, encode(receipt))
        rows, keys = sum(key.rows for key in receipt.keys), len(receipt.keys)
        return Erased(rows, keys, tuple(sorted({one.recipient for one in done.given})))

    async def check_erased(self, person: str, receipt: Path) -> Checked:
        """See `HomeDesk.check_erased`."""
        return await asyncio.to_thread(self._check, person, receipt)

    def _check(self, person: str, path: Path) -> Checked:
        receipt = decode(ErasureReceipt, path.read_bytes())
        seen = erasing.check(self._organisation, receipt, self._organisation.folder, markers=[person])
        beyond = tuple(beyond_text(one) for one in receipt.beyond)
        return Checked(seen.files, tuple(one.text() for one in seen.leftovers), beyond)
