"""One phase of a query, the researcher's side: rounds that go on without whoever does not come in time.

Each round waits for all; after its share of the patience it goes on with those who have come, from the threshold on.
Who stops, or says something wrong, is not waited for. With fewer than the threshold the researcher waits its whole
patience, as in `medveil.gateway.query_run`. Whom a round went on with is kept before anybody is told: cut short and
taken up again, the phase goes on with the same sites.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ledger.contracts import queries
from medveil.gateway.generator_file import generators_ready
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.query_board import (
    read_announcements,
    read_contributions,
    read_opened,
    read_parties,
    read_survivors,
)
from medveil.gateway.query_run import KeysOfRound, QueryRequest, Run, SharesDealt, SharesHanded, envelope_keys
from mpc import sum_coordinator
from mpc.cells import Layout
from mpc.sum_coordinator import BulkSum, Masking, Unmaskings, is_point
from mpc.sum_messages import Masked, Opened, RoundKeys, SumSession, Survivors, Unmasking, session_for
from wire.canonical import Wire
from wire.errors import ProtocolAbort
from wire.identifiers import Name

KEYS = 0.75
"""Share of the patience for the first round, in which sites compute."""
QUICK = 0.25
"""Share of it for every other round, in which they only answer."""


class Chosen(Wire, frozen=True, tag="medveil.sites_chosen"):
    """With whom a round went on."""

    sites: tuple[Name, ...]


class _Waiting(Protocol):
    @property
    def missing(self) -> tuple[str, ...]: ...


S = TypeVar("S", bound=_Waiting)
M = TypeVar("M", bound=Wire)
Own = TypeVar("Own", RoundKeys, Masked, Unmasking)
_ON_THE_LEDGER = "what sites post of this phase"


async def coordinate(
    run: Run, request: QueryRequest, layout: Layout, lost: Collection[str]
) -> tuple[Opened, Survivors]:
    """One phase, from the sites' keys to the released sums. lost: sites that are not waited for as long as the others.

    Raises ProtocolAbort with fewer sites than the threshold, or where the sum does not open; as `Run.message`.
    """
    session = session_for(request.query, request.salt, request.handle, layout)
    run.sessions.append(session.id())
    return await _Phase(run, session, frozenset(lost)).whole()


@dataclass(frozen=True)
class _Phase:
    """One phase under way. lost: see `coordinate`."""

    run: Run
    session: SumSession
    lost: frozenset[str]

    async def whole(self) -> tuple[Opened, Survivors]:
        run, handle, phase = self.run, self.session.query, self.session.phase
        await run.steps.boundary()
        masking = await self._parties()
        await generators_ready(run.organisation.folder, self.session.cells)
        unmaskings, survivors = await self._survivors(masking)
        opened = await self._opened(unmaskings)
        await run.write(
            lambda state: read_opened(state, handle, phase) is not None,
            queries.Release(handle, phase, opened.totals, opened.blinding),
        )
        return opened, survivors

    async def _parties(self) -> Masking:
        """Steps 1 to 3: keys, shares, and the parties on the ledger."""
        run, session = self.run, self.session
        organisation, handle, phase = run.organisation, session.query, session.phase
        members = envelope_keys(organisation, session.roster, run.height)
        gathering, with_keys = await self._round(
            f"keys/{phase}",
            RoundKeys,
            sum_coordinator.begin(session, members),
            lambda state, sender, keys: state.receive(_own(sender, keys)),
            share=KEYS,
        )
        dealing, keys = gathering.close(with_keys)
        for site in with_keys:
            await organisation.send(site, session.id(), KeysOfRound(keys))
        dealing, able = await self._round(
            f"parties/{phase}",
            SharesDealt,
            dealing,
            lambda state, sender, dealt: state.receive(sender, dealt.shares),
            lambda state: [one.site for one in read_announcements(state, handle, phase, session.roster)],
        )
        masking, parties, handed = dealing.close(able)
        for site in parties.sites:
            await organisation.send(site, session.id(), SharesHanded(handed[site]))
        await run.write(
            lambda state: read_parties(state, handle, phase) is not None,
            queries.FixParties(handle, phase, parties.sites, parties.keys),
        )
        if await run.board(lambda state: read_parties(state, handle, phase), "the fixed parties") != parties:
            raise ProtocolAbort("mpc.keys_differ", round="parties", parties=[organisation.name])
        return masking

    async def _survivors(self, masking: Masking) -> tuple[Unmaskings, Survivors]:
        """Steps 4 and 5: masked vectors, and the survivors on the ledger."""
        run, session = self.run, self.session
        handle, phase, account = session.query, session.phase, self.run.organisation.account
        masking, chosen = await self._round(
            f"survivors/{phase}",
            Masked,
            masking,
            lambda state, sender, masked: state.receive(_own(sender, masked)),
            lambda state: [
                one.site for one in read_contributions(state, handle, phase, session.roster) if is_point(one.point)
            ],
        )
        unmaskings, survivors = masking.close(read_contributions(account.state, handle, phase, chosen))
        await run.steps.boundary()
        await run.write(
            lambda state: read_survivors(state, handle, phase) is not None,
            queries.FixSurvivors(handle, phase, survivors.sites),
        )
        if await run.board(lambda state: read_survivors(state, handle, phase), "the fixed survivors") != survivors:
            raise ProtocolAbort("mpc.survivors_differ", round="survivors", parties=[run.organisation.name])
        return unmaskings, survivors

    async def _opened(self, state: Unmaskings) -> Opened:
        """Step 6: the sum, as soon as enough survivors have unmasked."""
        run, wrong, up = self.run, _Wrong(), self._time_up()

        def awaited() -> list[str]:
            return [site for site in state.missing if site not in wrong and site not in run.gone]

        while True:
            failed = None
            if state.enough:
                try:
                    opened = await asyncio.to_thread(state.finish)
                except ProtocolAbort as error:
                    if error.code != "mpc.wrong_share":
                        raise
                    failed = error  # a survivor's word on its own seeds may be wrong: with one more it is not needed
                else:
                    if isinstance(opened, BulkSum):
                        raise ValueError("queries are summed in verified mode")
                    return opened
            enough = up if failed else _never_enough
            got = await run.next_message(Unmasking, self.session.id(), awaited, enough)
            if got is None:
                raise failed or wrong.first or ProtocolAbort("mpc.incomplete", round="unmasking", parties=state.missing)
            sender, message = got
            try:
                state = state.receive(_own(sender, _good(message)))
            except ProtocolAbort as error:
                wrong[sender] = error

    async def _round(
        self,
        step: str,
        kind: type[M],
        state: S,
        take: Callable[[S, str, M], S],
        able: Callable[[FinalState], Collection[str]] | None = None,
        share: float = QUICK,
    ) -> tuple[S, tuple[str, ...]]:
        """One round: what came, and with whom the phase goes on. able: who has done on the ledger what it must."""
        run, session, among = self.run, self.session.id(), state.missing
        if await run.steps.kept(step):
            chosen = (await run.steps.once(step, Chosen, _never)).sites
            while pending := [site for site in state.missing if site in chosen]:
                sender, again = await run.message(kind, session, pending)
                state = take(state, sender, again)
            if able is not None:
                await run.board(lambda found: set(chosen) <= set(able(found)) or None, _ON_THE_LEDGER)
            return state, chosen
        wrong, fewest, slow, quick = _Wrong(), self.session.threshold, self._time_up(share), self._time_up()

        def there() -> list[str]:
            return [site for site in among if site not in state.missing and site not in run.gone]

        def awaited() -> list[str]:
            return [site for site in state.missing if site not in wrong and site not in run.gone]

        def enough() -> bool:
            return len(there()) >= fewest and (slow() or (quick() and self.lost.issuperset(awaited())))

        while (got := await run.next_message(kind, session, awaited, enough)) is not None:
            sender, message = got
            try:
                state = take(state, sender, _good(message))
            except ProtocolAbort as error:
                wrong[sender] = error
        if len(there()) < fewest:
            raise wrong.first or ProtocolAbort("mpc.incomplete", round=step.split("/")[0], parties=state.missing)
        chosen = tuple(there())
        if able is not None:
            posting = self._time_up()

            def posted(found: FinalState) -> tuple[str, ...] | None:
                names = able(found)
                sites = tuple(site for site in there() if site in names)
                return sites if len(sites) == len(there()) or (len(sites) >= fewest and posting()) else None

            chosen = await run.board(posted, _ON_THE_LEDGER)

        async def choosing() -> Chosen:
            return Chosen(chosen)

        return state, (await run.steps.once(step, Chosen, choosing)).sites

    def _time_up(self, share: float = QUICK) -> Callable[[], bool]:
        """Whether that share of the patience has passed from now on."""
        clock = asyncio.get_running_loop().time
        end = clock() + share * self.run.organisation.patience
        return lambda: clock() >= end


class _Wrong(dict[str, ProtocolAbort]):
    """What is wrong with what sites sent, by site: they are not waited for."""

    @property
    def first(self) -> ProtocolAbort | None:
        return next(iter(self.values()), None)


def _good(message: M | ProtocolAbort) -> M:
    if isinstance(message, ProtocolAbort):
        raise message
    return message


def _own(sender: str, message: Own) -> Own:
    """A message that its sender sent in its own name."""
    if message.site != sender:
        raise ProtocolAbort("mpc.bad_signature", round="messages", parties=[sender])
    return message


def _never_enough() -> bool:
    return False


async def _never() -> Chosen:
    raise ValueError("a step that is kept does not run")
