"""A desk: what the people of one organisation have their gateway do, whichever way they reach it.

The demo's steps know the other organisations only through desks. `LocalDesk` calls the gateway's flows in this process;
over processes a desk speaks to the gateway's own API. Others' gateways answer by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import pyarrow as pa

from connectors.layout import Layout
from ledger.contracts import RegisterPopulation, VoteBudget
from medveil.demo.home_desk import HomeDesk, LocalHomeDesk
from medveil.gateway import asking, eligibility, exporting, granting, loading, models, scoring
from medveil.gateway.explained_words import Section, words
from medveil.gateway.explaining import explain_query
from medveil.gateway.exporting import Exported
from medveil.gateway.loading import TableQuality
from medveil.gateway.models import ModelPlan, ModelShown
from medveil.gateway.organisation import Organisation
from medveil.gateway.reception import AtHome
from medveil.gateway.scoring import Scored, ScoreFlags, ScoreRequest
from medveil.gateway.steps import Passing
from mpc.query import Query
from mpc.release import Release
from mpc.scoring import encrypt_weights, model_digest
from privacy.decide import Decision, UseRequest
from privacy.grants.terms import GrantTerms
from wire.canonical import encode
from wire.errors import Refused, Unavailable
from wire.identifiers import new_handle
from wire.money import Amount
from zkp.bill_limit import LimitRequest, Presentation

T = TypeVar("T")


class Registered(NamedTuple):
    """A model that was reviewed and registered. digest: as on the ledger; key_bits: of its key."""

    digest: bytes
    key_bits: int


_LOOK = 0.02


def in_words(refused: Refused) -> str:
    """What another organisation, or the own gateway, said no with."""
    return str(refused.facts.get("words") or refused.text())


class Desk(Protocol):
    """One organisation's desk. Each call returns when it is done, and raises what the gateway says no with.

    home: what its people do with what is at home.
    """

    name: str
    home: HomeDesk

    async def register_population(self, population: RegisterPopulation) -> None:
        """Register a population."""
        ...

    async def vote(self, population: str, budget_nano: int) -> None:
        """Vote a population's budget, as one of its owners."""
        ...

    async def load(self, dataset: str, layout: Layout, table: pa.Table, source: str) -> TableQuality:
        """Load a table as it was read (secret), from the file `source`; returns its figures of quality."""
        ...

    async def issue(self, terms: GrantTerms) -> None:
        """Issue a grant."""
        ...

    async def preview(self, use: UseRequest) -> Decision:
        """Whether a use of own data would be allowed now. Nothing is written, nothing used."""
        ...

    async def explain(self, query: Query) -> tuple[Section, ...]:
        """What asking a query would be, in words. Nothing is asked."""
        ...

    async def ask(self, query: Query) -> Release:
        """Ask a query."""
        ...

    async def issue_bill(self, person: str, amount: Amount) -> bytes:
        """Issue a bill to a person; returns its handle."""
        ...

    async def check_limit(self, hospital: str, handle: bytes, limit: Amount, purpose: str, grant: str) -> Presentation:
        """Ask for a proof that a bill is within a limit."""
        ...

    async def propose_model(self, regulator: str, plan: ModelPlan) -> Registered:
        """Build a model, have it reviewed, register it."""
        ...

    async def propose_unchecked(self, regulator: str, plan: ModelPlan) -> None:
        """As a dishonest bureau: propose a model that its own program's checks would not pass, if it can."""
        ...

    async def review(self, model: str) -> None:
        """Wait for a model of that name to be shown, and review it: sign it if it passes."""
        ...

    async def ask_scores(self, hospital: str, model: str, dataset: str, purpose: str) -> ScoreFlags:
        """Have a hospital's records scored under an own model."""
        ...

    async def scored(self, session: bytes) -> dict[bytes, str]:
        """As the hospital: which own records were scored in a session, by handle."""
        ...

    async def export_evidence(self, folder: Path) -> Exported:
        """Write the evidence folder, with what the other members show."""
        ...


class LocalDesk:
    """The desk of an organisation of this process. patience: seconds that `review` and `scored` wait."""

    def __init__(
        self, organisation: Organisation, home: AtHome, clock: Callable[[], int], patience: float = 120.0
    ) -> None:
        self.name = organisation.name
        self.home: HomeDesk = LocalHomeDesk(organisation, home, clock)
        self._organisation = organisation
        self._home = home
        self._clock = clock
        self._patience = patience

    async def register_population(self, population: RegisterPopulation) -> None:
        """See `Desk.register_population`."""
        await self._organisation.submit(population)

    async def vote(self, population: str, budget_nano: int) -> None:
        """See `Desk.vote`."""
        await self._organisation.submit(VoteBudget(population, budget_nano))

    async def load(self, dataset: str, layout: Layout, table: pa.Table, source: str) -> TableQuality:
        """See `Desk.load`."""
        return await loading.load_table(
            self._organisation, dataset, layout, lambda: table, Passing(), layout.name, source
        )

    async def issue(self, terms: GrantTerms) -> None:
        """See `Desk.issue`."""
        await granting.issue(self._organisation, terms, Passing())

    async def preview(self, use: UseRequest) -> Decision:
        """See `Desk.preview`."""
        await self._organisation.account.caught_up()
        return granting.judge(self._organisation, use, self._clock())

    async def explain(self, query: Query) -> tuple[Section, ...]:
        """See `Desk.explain`."""
        return words(explain_query(query, await self._organisation.account.caught_up()))

    async def ask(self, query: Query) -> Release:
        """See `Desk.ask`."""
        me = self._organisation
        handle = new_handle(me.rand)
        release = await asking.ask(me, query, handle, me.rand(32), Passing())
        me.vault.put_document("release", handle.hex(), encode(release))
        return release

    async def issue_bill(self, person: str, amount: Amount) -> bytes:
        """See `Desk.issue_bill`."""
        return (await eligibility.issue_bill(self._organisation, self._home.wallets, person, amount, Passing())).handle

    async def check_limit(self, hospital: str, handle: bytes, limit: Amount, purpose: str, grant: str) -> Presentation:
        """See `Desk.check_limit`."""
        me = self._organisation
        request = LimitRequest(
            me.trust.chain, handle, limit.minor, limit.currency, me.name, me.rand(32), purpose, grant
        )
        return await eligibility.check_limit(me, hospital, request, Passing())

    async def propose_model(self, regulator: str, plan: ModelPlan) -> Registered:
        """See `Desk.propose_model`."""
        model = await models.propose_model(self._organisation, regulator, plan, Passing())
        return Registered(model_digest(model), 8 * len(model.key))

    async def propose_unchecked(self, regulator: str, plan: ModelPlan) -> None:
        """See `Desk.propose_unchecked`."""
        me = self._organisation
        secret = await models.made_key(me)
        bounds = plan.weight_low, plan.weight_high, plan.limit
        model, opening = encrypt_weights(secret, plan.model, plan.features, plan.weights, *bounds, me.rand)
        await models.register_model(me, regulator, ModelShown(model, opening), Passing())

    async def review(self, model: str) -> None:
        """See `Desk.review`."""

        def shown() -> str | None:
            waiting = models.shown_models(self._organisation)
            return next((one.review for one in waiting if one.model.model == model and one.reply is None), None)

        await models.review_model(self._organisation, await self._soon(shown), Passing())

    async def ask_scores(self, hospital: str, model: str, dataset: str, purpose: str) -> ScoreFlags:
        """See `Desk.ask_scores`."""
        me = self._organisation
        request = ScoreRequest(new_handle(me.rand), models.own_model(me, model), dataset, purpose)
        return await scoring.ask_scores(me, hospital, request, Passing())

    async def scored(self, session: bytes) -> dict[bytes, str]:
        """See `Desk.scored`."""
        me = self._organisation

        def found() -> Scored | None:
            known = session.hex() in me.vault.documents("scored")
            return scoring.scored_in(me, session) if known else None

        return dict((await self._soon(found)).records)

    async def export_evidence(self, folder: Path) -> Exported:
        """See `Desk.export_evidence`."""
        return await exporting.export_folder(self._organisation, folder, Passing(), self._clock)

    async def _soon(self, look: Callable[[], T | None]) -> T:
        """What `look` finds, once another flow of this organisation has put it there. Raises Unavailable."""
        try:
            async with asyncio.timeout(self._patience):
                while (found := look()) is None:
                    await asyncio.sleep(_LOOK)
                return found
        except TimeoutError:
            seconds = int(self._patience)
            raise Unavailable("channel.timeout", organisation=self.name, seconds=seconds) from None
