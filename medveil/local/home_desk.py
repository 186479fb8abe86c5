"""What is at home, at the desk of an organisation that runs as a process: through its gateway's own API."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medveil.client import AsyncClient, ColumnClass, Risk
from medveil.client.extracts import Preview
from medveil.demo.home_desk import Checked, Drafted, Erased, Group
from medveil.gateway.extracting import ExtractWish
from privacy.grants.levels import DatasetFacts
from privacy.grants.opt_outs import Scope
from wire.errors import ConsentDenied
from wire.evidence import write_file


class ClientHomeDesk:
    """See `medveil.demo.home_desk.HomeDesk`. clients: of one person of the organisation, by language."""

    def __init__(self, clients: Mapping[str, AsyncClient]) -> None:
        self._clients = clients
        self._client = clients["en"]

    async def classify(self, facts: DatasetFacts) -> None:
        """See `HomeDesk.classify`."""
        columns = tuple(ColumnClass(one.name, one.level, one.content) for one in facts.columns)
        await self._client.datasets.classify(facts.dataset, columns, minors=facts.minors)

    async def explain(self, recipient: str, dataset: str, language: str) -> list[str]:
        """See `HomeDesk.explain`."""
        return [one.words for one in (await self._clients[language].grants.explain(recipient, dataset)).uses]

    async def opt_out(self, person: str, scope: Scope, value: str) -> str:
        """See `HomeDesk.opt_out`."""
        taken = (await self._client.opt_outs.add(person, scope, value)).opt_outs
        return next(one.words for one in taken if (one.scope, one.value) == (scope, value))

    async def draft_extract(self, wish: ExtractWish) -> Drafted:
        """See `HomeDesk.draft_extract`."""
        seen: Preview = await self._client.extracts.preview(**_asked(wish))
        risk = seen.risk
        if risk is None:
            raise ConsentDenied("privacy.deny_" + seen.rule, grant=wish.grant, missing=seen.missing)
        groups = [
            Group(tuple(str(cell) for cell in one.values), one.rows, one.persons, one.reasons) for one in seen.offends
        ]
        return Drafted(
            seen.rows,
            tuple((column.column, column.mask) for column in seen.columns),
            risk.known,
            risk.groups,
            risk.persons,
            wish.choice.policy.persons,
            tuple(groups),
            seen.rows if seen.withheld is None else seen.withheld.rows,
        )

    async def make_extract(self, wish: ExtractWish) -> bytes:
        """See `HomeDesk.make_extract`."""
        return bytes.fromhex((await self._client.extracts.make(**_asked(wish))).extract)

    async def open_extract(self, extract: bytes) -> pa.Table:
        """See `HomeDesk.open_extract`."""
        with tempfile.TemporaryDirectory() as folder:
            path = await self._client.extracts.open(extract.hex(), Path(folder) / "rows.parquet")
            return await asyncio.to_thread(pq.read_table, path)

    async def revoke(self, grant: str) -> None:
        """See `HomeDesk.revoke`."""
        await self._client.grants.revoke(grant)

    async def recalled(self, extract: bytes) -> str:
        """See `HomeDesk.recalled`: gateways tell each other in their own time, within a minute."""
        found = (await self._client.extracts.recalled()).recalls
        return next((one.answer for one in found if one.extract == extract.hex()), "")

    async def erase(self, person: str, reference: str, receipt: Path) -> Erased:
        """See `HomeDesk.erase`."""
        erasures = self._client.erasures
        planned = await erasures.plan(person, reference=reference)
        await erasures.apply(planned.erasure)
        await erasures.rotate()
        done = await erasures.get(planned.erasure)
        data = await erasures.receipt(planned.erasure)
        await asyncio.to_thread(write_file, receipt, data)
        told = tuple(sorted({one.recipient for one in done.extracts}))
        return Erased(sum(one.rows for one in done.erase), len(done.erase), told)

    async def check_erased(self, person: str, receipt: Path) -> Checked:
        """See `HomeDesk.check_erased`."""
        data = await asyncio.to_thread(receipt.read_bytes)
        seen = await self._client.erasures.check(data, [person])
        return Checked(seen.files, tuple(one.words for one in seen.leftovers), seen.beyond)


def _asked(wish: ExtractWish) -> dict[str, Any]:
    """A wish as the client says it."""
    request, choice = wish.request, wish.choice
    policy = choice.policy
    risk = Risk(
        sensitive=choice.sensitive,
        institution=choice.institution,
        amounts=choice.amounts,
        unknown=choice.unknown,
        persons=policy.persons,
        diversity=policy.diversity,
        closeness=policy.closeness,
        institutions=policy.institutions,
        dominance=policy.dominance,
        withhold=choice.withhold,
    )
    return {"grant": wish.grant, "columns": request.fields, "purpose": request.purpose, "risk": risk}
