"""A small real consortium, and ways to use it badly: three hospitals, insurer, bureau, researcher, regulator.

Everything is the product's own: keys, vaults, ledger with seven re-executing members, channel. Only the
cost of stretching passphrases is lowered, and those who wait give up after seconds.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
import pytest
import typer.main
import typer.testing

from connectors.dataset import parse_layout
from connectors.layout import row_class, schema_hash
from ledger.contracts import Column, RegisterDataset, RegisterPopulation, VoteBudget, datasets, queries
from medveil import consortium as consortia
from medveil.consortium import Founder, LocalConsortium, local_consortium
from medveil.gateway import eligibility, granting, models, serving
from medveil.gateway.asking import ask
from medveil.gateway.models import ModelShown, ShownModel
from medveil.gateway.organisation import Organisation
from medveil.gateway.query_board import read_opened
from medveil.gateway.query_run import request_session
from medveil.gateway.steps import Passing
from medveil.gateway.tables import Tables, VaultTables, keep_layout
from mpc.budget import split
from mpc.query import GATE, SUMS, Measure, Query
from mpc.release import Release
from privacy.audit import Entry
from privacy.decide import Decision
from privacy.grants.terms import CheckedGrant, GrantTerms, SignedGrant, plain_terms
from privacy.keys import Argon2Cost, FileKeyProvider
from privacy.local import GroupColumn, RowFilter
from privacy.predicate import to_arrow
from privacy.uses import NOTHING_SAID, Declaration
from tests.medveil.leaping import LeapingLoop
from wire.errors import MedveilError
from wire.money import parse_amount
from zkp import wallet_file
from zkp.bill_limit import Bill, LimitRequest

T = TypeVar("T")

HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")
OTHERS = (
    Founder("insurer", ("insurer",)),
    Founder("bureau", ("bureau",)),
    Founder("researcher", ("researcher",)),
    Founder("regulator", ("regulator",)),
)
FOUNDERS = (*(Founder(name, ("hospital",)) for name in HOSPITALS), *OTHERS)
CHAIN = "test-chain"
BUDGET = 1_000_000_000
RHO = 300_000_000
DAY = 86_400_000

DATASET_TOML = b"""
version = 1
name = "stays"
population = "stays"
unit = "row"
colluders = 1
record_id = "id"
about = "Made up for tests."
about_zh = "\xe6\xb5\x8b\xe8\xaf\x95\xe6\x95\xb0\xe6\x8d\xae\xe3\x80\x82"
split_rule = "As made."
split_rule_zh = "\xe5\x8e\x9f\xe6\xa0\xb7\xe3\x80\x82"

[[columns]]
name = "cost"
kind = "number"
title = "Cost"
title_zh = "\xe8\xb4\xb9\xe7\x94\xa8"
low = 0
high = 100

[[columns]]
name = "age"
kind = "number"
title = "Age"
title_zh = "\xe5\xb9\xb4\xe9\xbe\x84"
low = 0
high = 120

[[columns]]
name = "ward"
kind = "category"
title = "Ward"
title_zh = "\xe7\x97\x85\xe5\x8c\xba"
values = ["east", "west"]
"""
LAYOUT = parse_layout(DATASET_TOML, "dataset.toml")


def study_terms(grant: str, issuer: str, recipient: str, at: int, **changes: Any) -> GrantTerms:
    """The terms of a grant from instant `at` on: the study of cost by ward, unless changed."""
    base = plain_terms(
        grant,
        issuer,
        recipient,
        f"stays-{issuer}",
        ("cost", "ward"),
        purposes=("HMB",),
        uses=("query",),
        legal_basis="separate-consent",
        not_before=at,
        expires=at + DAY,
        consent_ref="consents/1",
        pia_ref="assessments/1",
        delete_by=at + 2 * DAY,
    )
    return msgspec.structs.replace(base, **changes)


def cost_by_ward(rho_nano: int) -> Query:
    """The question of the tests: cost by ward over all hospitals."""
    return Query(
        version=1,
        chain=CHAIN,
        population="stays",
        roster=HOSPITALS,
        datasets=tuple(f"stays-{name}" for name in HOSPITALS),
        measures=(Measure("cost", 0, 100, 1, (0, 50, 100)),),
        groups=(GroupColumn("ward", ("east", "west"), other=False),),
        filter=None,
        purpose="HMB",
        unit="row",
        person="",
        rows_per_person=1,
        spread="every-site",
        colluders=1,
        max_rows=100,
        rho_nano=rho_nano,
        split=split(rho_nano, histogram=True),
        delta_exponent=6,
        minimum_group=10,
    )


def rows(site: int, count: int = 60) -> pa.Table:
    """A hospital's table."""
    return pa.table(
        {
            "cost": pa.array([(7 * row + site) % 101 for row in range(count)], pa.int64()),
            "age": pa.array([(3 * row) % 121 for row in range(count)], pa.int64()),
            "ward": pa.array(["east" if row % 3 else "west" for row in range(count)]),
        }
    )


class World:
    """A consortium with its tables loaded, its budget voted, and short ways to use it."""

    layout = LAYOUT
    budget = BUDGET
    rho = RHO

    def __init__(
        self, consortium: LocalConsortium, folder: Path, clock: Callable[[], int], hospitals: Sequence[str]
    ) -> None:
        self.consortium = consortium
        self.hospitals = tuple(hospitals)
        self.folder = folder
        self.now = clock
        self.researcher = consortium["researcher"]
        self.insurer = consortium["insurer"]
        self.bureau = consortium["bureau"]
        self.regulator = consortium["regulator"]
        self.sites = [consortium[name] for name in hospitals]
        self.wallets = consortium.homes["hospital-1"].wallets

    def __getitem__(self, name: str) -> Organisation:
        return self.consortium[name]

    def impatient(self, seconds: float) -> None:
        """Everybody gives up after `seconds`."""
        for one in self.consortium.organisations.values():
            one.patience = one.account.patience = seconds

    def deaf(self, seconds: float) -> None:
        """Everybody gives up on messages after `seconds`; the ledger has all the time that a slow machine needs."""
        for one in self.consortium.organisations.values():
            one.patience = seconds

    # --- what a query came to

    @staticmethod
    def codes(outcomes: Sequence[Any]) -> list[str]:
        """What each outcome was: the code of an error, or "allowed" or "denied"."""
        said = []
        for outcome in outcomes:
            if isinstance(outcome, MedveilError):
                said.append(outcome.code)
            else:
                said.append("allowed" if outcome.allowed else "denied")
        return said

    async def check_untouched(self, handle: bytes = bytes(range(16))) -> None:
        """The query is closed, its reservation returned, nothing of it contributed to a fixed set."""
        population = await self.population()
        assert (population.reserved, population.spent) == (0, 0)
        assert self.state_of(handle).status == "closed"
        state = self.researcher.account.state
        for phase in (GATE, SUMS):
            assert read_opened(state, handle, phase) is None
            found = state.get(queries.phase_key(handle, phase), queries.PhaseState)
            assert found is None or not found.survivors
        for site in self.hospitals:
            assert not self[site].audit.unfinished()

    async def check_spent(self, opened: tuple[int, ...], handle: bytes = bytes(range(16))) -> None:
        """The budget is spent for good; the phases `opened` and no other have released sums."""
        population = await self.population()
        assert (population.reserved, population.spent) == (0, self.rho)
        assert self.state_of(handle).status == "spent"
        state = self.researcher.account.state
        opens = tuple(phase for phase in (GATE, SUMS) if read_opened(state, handle, phase) is not None)
        assert opens == opened
        for site in self.hospitals:
            assert not self[site].audit.unfinished()

    # --- data, budget, grants

    async def load(self) -> None:
        """Tables into the vaults, declarations and votes onto the ledger."""
        columns = tuple(Column(c.name, c.kind, c.low, c.high, c.scale, c.values) for c in LAYOUT.columns)
        await self.sites[0].submit(RegisterPopulation("stays", "row", 1, 1, self.hospitals))
        for number, site in enumerate(self.sites, start=1):
            table = rows(number)
            site.vault.ingest(f"stays-{site.name}", table, schema_hash=schema_hash(LAYOUT))
            keep_layout(site.vault, f"stays-{site.name}", LAYOUT)
            step = row_class(table.num_rows)
            dataset = RegisterDataset(
                f"stays-{site.name}", "stays", schema_hash(LAYOUT), columns, step, secrets.token_bytes(32)
            )
            await site.submit(dataset)
        await asyncio.gather(*(site.submit(VoteBudget("stays", BUDGET)) for site in self.sites))

    def terms(self, grant: str, issuer: str, recipient: str, **changes: Any) -> GrantTerms:
        """The terms of a grant: a study of cost by ward, unless changed."""
        return study_terms(grant, issuer, recipient, self.now(), **changes)

    async def grant(self, grant: str, issuer: str, recipient: str, **changes: Any) -> GrantTerms:
        """Issue a grant and let its recipient take it."""
        terms = self.terms(grant, issuer, recipient, **changes)
        await granting.issue(self[issuer], terms, Passing())
        await self.take(recipient, grant)
        return terms

    async def take(self, recipient: str, grant: str) -> CheckedGrant:
        """Let its recipient take a grant that was delivered."""
        async with asyncio.timeout(60):
            async for sender, session, signed in self[recipient].openings(SignedGrant):
                if signed.terms.grant == grant:
                    await self[recipient].forget(session, sender)
                    return await granting.take(self[recipient], sender, signed)
        raise AssertionError("a channel's openings have no end")

    async def grant_study(self) -> None:
        """Every hospital grants the researcher the study."""
        for site in self.sites:
            await self.grant(f"study-{site.name}", site.name, "researcher")

    def tables(self, site: Organisation) -> Tables:
        """A site's way to its own tables."""
        return VaultTables.of(site, self.now)

    def steps(self) -> Passing:
        """Steps of a run that nobody cuts short."""
        return Passing()

    def records(
        self, site: Organisation, most: int = 6
    ) -> Callable[[str, tuple[str, ...], RowFilter], Sequence[tuple[str, tuple[Any, ...]]]]:
        """A site's way to the first of its records."""

        def read(dataset: str, columns: tuple[str, ...], row_filter: RowFilter) -> list[tuple[str, tuple[Any, ...]]]:
            table = site.vault.read(dataset)
            table = table.append_column("row", pa.array([f"row-{row}" for row in range(table.num_rows)]))
            if row_filter.predicate is not None:
                table = table.filter(to_arrow(row_filter.predicate))
            table = table.slice(0, most)
            cells = [table[name].to_pylist() for name in columns]
            return list(zip(table["row"].to_pylist(), zip(*cells, strict=True), strict=True))

        return read

    # --- queries

    def query(self, **changes: Any) -> Query:
        """Cost by ward over all hospitals."""
        over = {"roster": self.hospitals, "datasets": tuple(f"stays-{name}" for name in self.hospitals)}
        return msgspec.structs.replace(cost_by_ward(changes.get("rho_nano", RHO)), **(over | changes))

    def serve(self, site: Organisation, handle: bytes) -> Awaitable[Decision]:
        """A site's part in a query."""
        session = request_session(handle)
        return serving.serve_query(site, "researcher", session, self.tables(site), Passing(), self.now)

    async def run(
        self, query: Query, handle: bytes, asking: Awaitable[Any] | None = None, salt: bytes | None = None
    ) -> tuple[Any, list[Any]]:
        """A whole query, or `asking` in the researcher's place: what it came to, and what it came to at each site."""
        asked = asking or ask(self.researcher, query, handle, salt or secrets.token_bytes(32), Passing())
        answer, *parts = await asyncio.gather(
            asked, *(self.serve(site, handle) for site in self.sites), return_exceptions=True
        )
        for outcome in (answer, *parts):
            if isinstance(outcome, AssertionError):
                raise outcome
        return answer, parts

    async def released(self, query: Query | None = None) -> Release:
        """A query that succeeds."""
        answer, parts = await self.run(query or self.query(), secrets.token_bytes(16))
        for outcome in (answer, *parts):
            if isinstance(outcome, BaseException):
                raise outcome
        assert isinstance(answer, Release)
        return answer

    def state_of(self, handle: bytes) -> queries.QueryState:
        """A query as the researcher's replica has it."""
        found = self.researcher.account.state.get(queries.query_key(handle), queries.QueryState)
        assert found is not None
        return found

    async def population(self) -> datasets.PopulationState:
        """The population at the latest final head."""
        state = await self.researcher.account.caught_up()
        return datasets.population(state.view(), "stays")

    # --- bills

    async def bill(self, amount: str = "3286.40", person: str = "person-1") -> Bill:
        """A bill of hospital-1 in a person's wallet."""
        priced = parse_amount(amount, "CNY")
        return await eligibility.issue_bill(self["hospital-1"], self.wallets, person, priced, Passing())

    async def limit_checked(
        self,
        request: LimitRequest,
        clock: Callable[[], int] | None = None,
        declared: Declaration = NOTHING_SAID,
    ) -> tuple[Any, Any]:
        """What the insurer gets (or the error), and hospital-1's decision (or the error)."""
        session = eligibility.session_of(request.nonce)
        answer, decision = await asyncio.gather(
            eligibility.check_limit(self.insurer, "hospital-1", request, Passing(), declared),
            eligibility.answer(self["hospital-1"], "insurer", session, self.wallets, Passing(), clock or self.now),
            return_exceptions=True,
        )
        return answer, decision

    async def grant_proofs(self, grant: str = "proofs", **changes: Any) -> GrantTerms:
        """hospital-1 grants the insurer proofs about bills."""
        made = {"dataset": "bills", "fields": ("amount",), "purposes": ("ELIGVER",), "uses": ("proof",)} | changes
        return await self.grant(grant, "hospital-1", "insurer", **made)

    def request(self, bill: Bill, **changes: Any) -> LimitRequest:
        """The insurer's question: at most 5,000.00?"""
        base = LimitRequest(CHAIN, bill.handle, 500_000, "CNY", "insurer", secrets.token_bytes(32), "ELIGVER", "proofs")
        return msgspec.structs.replace(base, **changes)

    # --- models

    async def register_model(self, shown: ModelShown) -> None:
        """Have a model that is built reviewed and registered."""
        _, judged = await asyncio.gather(
            models.register_model(self.bureau, "regulator", shown, Passing()), self.review_next()
        )
        assert judged.signed

    async def review_next(self, approve: bool = True, run: Callable[..., Any] | None = None) -> ShownModel:
        """Let the regulator take the next model that is shown to it, and review it. run: runs the reviewing flow."""
        sender, _, shown = await anext(self.regulator.openings(ModelShown))
        review = models.review_session(shown.model).hex()

        async def reviewing(steps: Any) -> ShownModel:
            await models.keep_shown(self.regulator, sender, shown)
            return await models.review_model(self.regulator, review, steps, approve)

        return await (reviewing(Passing()) if run is None else run(reviewing))

    # --- what the dishonest and the unlucky do

    def alter(self, sender: Organisation, kind: type[Any], change: Callable[[str, Any], Any]) -> None:
        """Let `change(recipient, message)` decide what `sender` really sends in the place of messages of `kind`.

        It may be a coroutine function, and return None for nothing.
        """
        send = sender.send

        async def altered(recipient: str, session: bytes, message: Any) -> None:
            if isinstance(message, kind):
                message = change(recipient, message)
                if isinstance(message, Awaitable):
                    message = await message
            if message is not None:
                await send(recipient, session, message)

        sender.send = altered  # type: ignore[method-assign]

    def after(self, writer: Organisation, kind: type[Any], then: Callable[[Any], Awaitable[Any]]) -> None:
        """Let `then(op)` happen after each envelope of `writer` that starts with an op of `kind`."""
        submit = writer.submit

        async def followed(*ops: Any) -> Any:
            receipt = await submit(*ops)
            if isinstance(ops[0], kind):
                await then(ops[0])
            return receipt

        writer.submit = followed  # type: ignore[method-assign]

    # --- what is left behind

    def ended(self, site: str) -> list[str]:
        """The outcomes in an organisation's trail, and "open" for each intent without one."""
        return [entry.outcome for entry in self.entries(site) if entry.intent] + ["open"] * len(
            self[site].audit.unfinished()
        )

    def entries(self, site: str) -> tuple[Entry, ...]:
        """An organisation's trail."""
        return self[site].audit.entries()


@contextmanager
def cheap_keys() -> Iterator[None]:
    """Key files and wallet files made meanwhile cost nothing to open, in other processes too: the cost is in the file.

    That the product asks for more is a matter of tests/privacy and tests/zkp.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FileKeyProvider.create.__kwdefaults__, "cost", Argon2Cost(time=1, memory=64, lanes=1))
        patch.setattr(wallet_file.seal, "__defaults__", (wallet_file.Cost(1, 128, 1),))
        yield


_command_of = cache(typer.main.get_command)  # the runner would make the tree of all verbs anew for each call: 0.1 s


@pytest.fixture(scope="module", autouse=True)
def _cheap() -> Iterator[None]:
    with cheap_keys(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", _command_of)
        yield


class Clock:
    """Instants that never stand still; `ahead` moves them."""

    def __init__(self) -> None:
        self.ahead = 0
        self._last = 0

    def __call__(self) -> int:
        self._last = max(self._last + 1, time.time_ns() // 1_000_000 + self.ahead)
        return self._last


Story = Callable[[World], Awaitable[T]]


@pytest.fixture(scope="session")
def in_consortium() -> Callable[..., T]:
    """Tell a story in a fresh consortium in a folder, of so many hospitals; returns what the story returns."""

    def tell(folder: Path, story: Story[T], hospitals: int = len(HOSPITALS)) -> T:
        clock = Clock()
        names = tuple(f"hospital-{number}" for number in range(1, hospitals + 1))
        founders = (*(Founder(name, ("hospital",)) for name in names), *OTHERS)

        async def whole() -> T:
            founded = local_consortium(
                folder, CHAIN, founders, "bureau", "Asia/Shanghai", secrets.token_bytes, clock, answering=False
            )
            async with founded as consortium:
                world = World(consortium, folder, clock, names)
                world.impatient(20)
                await world.load()
                return await story(world)

        with cheap_keys():
            try:
                with asyncio.Runner(loop_factory=LeapingLoop) as runner:
                    return runner.run(whole())
            except BaseExceptionGroup as group:
                found: BaseException = group
                while isinstance(found, BaseExceptionGroup):
                    found = found.exceptions[0]
                raise found from None

    assert consortia.local_consortium is local_consortium
    return tell


@pytest.fixture
def play(in_consortium: Callable[..., T], tmp_path: Path) -> Callable[[Story[T]], T]:
    """Tell a story in a fresh consortium."""
    return partial(in_consortium, tmp_path / "consortium")
