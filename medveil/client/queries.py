"""Questions over several sites: previewed, asked, and what was released, verified on arrival."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from medveil.client.exchange import Exchange, M, Part, Work, verb
from medveil.client.filters import AnyFilter, as_json
from medveil.client.frames import Instant, Rows
from medveil.client.jobs import Job, Progress, begin, wait
from medveil.client.line import Line, fetch, get, octets, post, same
from medveil.client.pinned import believe, bytes_of, proven_of
from medveil.client.releases import Asked, Released, check_new, check_release
from medveil.client.written import receipt_of

if TYPE_CHECKING:
    from ledger.receipts import Receipt


_CLOCKS_MS = 5 * 60 * 1000
"""By how much this machine's clock may be ahead of the ledger's."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a researcher asks. low, high, edges, rho: decimals as text; None: as wide as declared.

    sites: empty for every site with a table; datasets: which table, where a site has several. by: columns to group
    by; other: whether rows of an unknown group form the group "other". filter: `medveil.client.filters`. person: the
    column that names the person, where the population's unit is the person. rho: privacy budget to spend.
    minimum_group: groups whose noisy count is below it are hidden.
    """

    population: str
    measure: str
    purpose: str
    rho: str
    sites: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    low: str | None = None
    high: str | None = None
    edges: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    other: bool = True
    filter: AnyFilter = None
    person: str = ""
    delta_exponent: int = 6
    minimum_group: int = 10


class Measure(msgspec.Struct, frozen=True):
    """What is measured. low, high, edges: decimals."""

    column: str
    low: str
    high: str
    edges: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.column} from {self.low} to {self.high}"


class Terms(msgspec.Struct, frozen=True):
    """All that will decide a number, as far as a preview shows it."""

    population: str
    roster: tuple[str, ...]
    datasets: tuple[str, ...]
    measure: Measure
    groups: tuple[dict[str, Any], ...]
    filter: dict[str, Any] | None
    purpose: str
    unit: str
    person: str
    rows_per_person: int
    colluders: int
    max_rows: int
    rho_nano: int
    delta_exponent: int
    minimum_group: int


class Noise(msgspec.Struct, frozen=True):
    """Standard deviation of the noise on one cell of a kind, decimals in `unit`."""

    kind: str
    unit: str
    sensitivity: str
    rho_nano: int
    site: str
    pooled: str
    required: str


class Epsilon(msgspec.Struct, frozen=True):
    """Epsilon at delta, decimals, under an assumption on who adds noise."""

    assumption: str
    epsilon: str
    delta: str


class Preview(Rows, frozen=True):
    """What a question would be. before, after: available budget in 10^-9 rho; enough: whether it is covered."""

    query: Terms
    cells: int
    noise: tuple[Noise, ...]
    epsilons: tuple[Epsilon, ...]
    before: int
    after: int
    enough: bool

    def rows(self) -> tuple[Noise, ...]:
        """The noise, a kind of cell each."""
        return self.noise


class Query(msgspec.Struct, frozen=True):
    """A query as the ledger has it. status: proposed, reserved, spent, released or closed."""

    query: str
    researcher: str
    population: str
    roster: tuple[str, ...]
    rho_nano: int
    status: str
    approvals: tuple[str, ...]
    height: int
    budget_before: int


class QueryList(Rows, frozen=True):
    """Queries, the newest first."""

    queries: tuple[Query, ...]

    def rows(self) -> tuple[Query, ...]:
        """The queries."""
        return self.queries


class UseView(msgspec.Struct, frozen=True):
    """A use of data: by whom, of what, for what, under which grant."""

    recipient: str
    dataset: str
    kind: str
    purpose: str
    grant: str
    query: str
    allowed: bool
    rule: str


class Served(msgspec.Struct, frozen=True):
    """A part that was asked of this organisation. query: None if the ledger shows no such query."""

    intent: int
    began: Instant
    ended: int | None
    use: UseView
    outcome: str
    query: str | None
    status: str | None


class ServedList(Rows, frozen=True):
    """Parts, the oldest first. next: number of the first entry to go on from, or None."""

    served: tuple[Served, ...]
    next: int | None

    def rows(self) -> tuple[Served, ...]:
        """The parts."""
        return self.served


class _Receipts(msgspec.Struct, frozen=True):
    receipts: Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)]


class _Proofs(msgspec.Struct, frozen=True):
    proofs: Annotated[tuple[str, ...], msgspec.Meta(max_length=2000)]


class Queries(Part[M]):
    """``/v1/queries``."""

    @verb
    def preview(self, question: Question) -> Exchange[Preview]:
        """What would be asked, how noisy the answer will be, what it costs. Nothing is spent."""
        return (yield from fetch(self._line, post("queries", "preview", body=_body(question)), Preview))

    @verb
    def begin(self, question: Question, *, key: str = "") -> Exchange[Job]:
        """Begin to ask. `release` gives what was released once the job is done; its name is ``job.name``."""
        self._line.pinned.needed()
        return (yield from begin(self._line, post("queries", body=_body(question)), key))

    @verb
    def ask(
        self, question: Question, *, key: str = "", told: Callable[[Progress], None] | None = None
    ) -> Exchange[Released]:
        """Ask, wait, verify: returns what was released. told: called with each progress; key: so that it is asked
        once. Raises BudgetExhausted, ConsentDenied, ProtocolAbort, ...; VerificationError for a release that does
        not hold, answers another question or, without a key, the same one as it was asked earlier.
        """
        self._line.pinned.needed()
        began = self._line.clock()
        job = yield from begin(self._line, post("queries", body=_body(question)), key)
        done = yield from wait(self._line, job.job, told)
        released = yield from _released(self._line, done.name, _asked(question))
        if not key:
            receipts = yield from _receipts(self._line, released.query)
            check_new(released, receipts, began - _CLOCKS_MS)
        return released

    @verb
    def release(self, query: str, *, question: Question | None = None) -> Exchange[Released]:
        """What was released of a query of this organisation's, verified; also that it answers `question`, if given.

        Without one, what was asked is as the release says: look at ``release.query``.
        """
        self._line.pinned.needed()
        return (yield from _released(self._line, query, _asked(question) if question else None))

    @verb
    def receipts(self, query: str) -> Exchange[tuple[Receipt, ...]]:
        """The receipts of what this organisation wrote about a query, verified, in the ledger's order."""
        self._line.pinned.needed()
        return (yield from _receipts(self._line, query))

    @verb
    def list(self) -> Exchange[QueryList]:
        """Queries that this organisation asked."""
        return (yield from fetch(self._line, get("queries"), QueryList))

    @verb
    def get(self, query: str) -> Exchange[Query]:
        """How a query stands on the ledger."""
        return same((yield from fetch(self._line, get("queries", query), Query)), query=query)

    @verb
    def served(self, *, first: int = 1, limit: int = 100) -> Exchange[ServedList]:
        """Parts that this organisation took, or denied, in others' queries."""
        return (yield from fetch(self._line, get("queries", "served", first=first, limit=limit), ServedList))


def _body(question: Question) -> dict[str, Any]:
    found = {name: getattr(question, name) for name in question.__struct_fields__}
    return found | {"filter": as_json(question.filter)}


def _asked(question: Question) -> Asked:
    said = _body(question)
    return Asked(**said | {name: tuple(said[name]) for name in ("sites", "datasets", "edges", "by")})


def _receipts(line: Line, query: str) -> Exchange[tuple[Receipt, ...]]:
    told = yield from fetch(line, get("queries", query, "receipts"), _Receipts)
    found = [receipt_of(bytes_of(text)) for text in told.receipts]
    yield from believe(line, found)
    return tuple(found)


def _released(line: Line, query: str, asked: Asked | None) -> Exchange[Released]:
    data = yield from octets(line, get("queries", query, "evidence"))
    shown = yield from fetch(line, get("queries", query, "proofs"), _Proofs)
    proofs = [proven_of(text) for text in shown.proofs]
    trust = yield from believe(line, proofs)
    released: Released = yield Work(partial(check_release, query, data, proofs, trust, asked))
    return released
