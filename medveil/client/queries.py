"""Questions over several sites: explained, asked, and what was released, verified on arrival."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from medveil.client.consortium import Head
from medveil.client.exchange import Exchange, M, Part, Work, verb
from medveil.client.filters import AnyFilter, as_json
from medveil.client.frames import Instant, Rows
from medveil.client.jobs import Job, Progress, begin, wait
from medveil.client.line import Line, fetch, get, octets, post, same
from medveil.client.pinned import believe, bytes_of, every_handover, proven_of
from medveil.client.release_page import escape
from medveil.client.releases import Released, check_new, check_release
from medveil.client.written import receipt_of
from mpc.query_document import QueryDocument, check_document, read_document, show_document

if TYPE_CHECKING:
    from ledger.receipts import ProvenValue, Receipt


_CLOCKS_MS = 5 * 60 * 1000
"""By how much this machine's clock may be ahead of the ledger's."""


class Question(QueryDocument, frozen=True, kw_only=True):
    """What a researcher asks: the query document, in Python. `mpc.query_document.MEANINGS` says what a field means.

    filter: `medveil.client.filters`, or its JSON.
    """

    filter: AnyFilter = None  # type: ignore[assignment]  # its JSON, once it is made

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "filter", as_json(self.filter))

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Question:
        """The question in a file. Raises DecodeError naming the field that does not fit, OSError."""
        return cls.of(read_document(Path(path).read_bytes()))

    @classmethod
    def of(cls, document: QueryDocument) -> Question:
        """The question that a document is."""
        return cls(**{name: getattr(document, name) for name in document.__struct_fields__})

    def json(self) -> str:
        """The document's text, every field in it: what `read` reads, and `medveil queries ask` too.

        Raises DecodeError naming the field that does not fit.
        """
        shown = show_document(check_document(self))
        return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode() + "\n"


class AskedMeasure(msgspec.Struct, frozen=True):
    """What is measured. low, high, edges, missing: decimals. weight: its share of the budget beside the others'."""

    column: str
    low: str
    high: str
    edges: tuple[str, ...]
    missing: tuple[str, ...]
    weight: int

    def __str__(self) -> str:
        return f"{self.column} from {self.low} to {self.high}"


class Terms(msgspec.Struct, frozen=True):
    """All that will decide a number."""

    population: str
    roster: tuple[str, ...]
    datasets: tuple[str, ...]
    measures: tuple[AskedMeasure, ...]
    groups: tuple[dict[str, Any], ...]
    filter: dict[str, Any] | None
    purpose: str
    unit: str
    person: str
    rows_per_person: int
    spread: str
    colluders: int
    max_rows: int
    rho_nano: int
    delta_exponent: int
    minimum_group: int
    exact: bool


class Noise(msgspec.Struct, frozen=True):
    """Standard deviation of the noise on one cell of a measure's kind, decimals in `unit`."""

    measure: str
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


class SitePlan(msgspec.Struct, frozen=True):
    """One site's part. reads: columns that it looks at; person: the one that names the person, or empty."""

    site: str
    dataset: str
    reads: tuple[str, ...]
    person: str


class Leaving(msgspec.Struct, frozen=True):
    """Numbers that leave a site, noised and masked. measure: the column, empty where rows are counted only."""

    phase: int
    measure: str
    kind: str
    cells: int


class NearQuery(msgspec.Struct, frozen=True):
    """An earlier query next to which this one would disclose `sites`, so that sites refuse it."""

    query: str
    roster: tuple[str, ...]
    sites: tuple[str, ...]


class NearSums(msgspec.Struct, frozen=True):
    """Earlier sums over a set of sites that differs from the roster by `sites`: the release will be labelled.

    query, phase: the latest of them; sums: how many there are.
    """

    query: str
    phase: int
    sums: int
    sites: tuple[str, ...]


class Answer(msgspec.Struct, frozen=True):
    """What this organisation's grants say of a question, were `recipient` to ask it now. rule: which decided."""

    recipient: str
    allowed: bool
    rule: str
    grant: str
    decision: str

    def __str__(self) -> str:
        return f"{self.recipient}: {self.decision}"


class Section(msgspec.Struct, frozen=True):
    """A heading and its sentences."""

    title: str
    lines: tuple[str, ...]


class Explanation(Rows, frozen=True):
    """What a question would be. before, after: available budget in 10^-9 rho; enough: whether it is covered.

    cells: numbers that leave a site at most; groups: labels of all groups, each of which may be hidden. answered:
    handle of the release that answers it already, or None; refused, near: earlier queries next to which it would
    disclose a site or two. own: where this organisation is asked, what it would answer those who have a grant for
    queries; else None. words: all of it in sentences, in the client's language.
    """

    query: Terms
    sites: tuple[SitePlan, ...]
    leaving: tuple[Leaving, ...]
    cells: int
    groups: tuple[str, ...]
    noise: tuple[Noise, ...]
    epsilons: tuple[Epsilon, ...]
    before: int
    after: int
    enough: bool
    answered: str | None
    refused: tuple[NearQuery, ...]
    near: tuple[NearSums, ...]
    own: tuple[Answer, ...] | None
    words: tuple[Section, ...]

    def rows(self) -> tuple[Noise, ...]:
        """The noise, a kind of cell each."""
        return self.noise

    def _repr_html_(self) -> str:
        sections = (
            f"<h4>{escape(one.title)}</h4><ul>{''.join(f'<li>{escape(line)}</li>' for line in one.lines)}</ul>"
            for one in self.words
        )
        return "".join(sections)

    def __str__(self) -> str:
        return "\n\n".join("\n  ".join((one.title, *one.lines)) for one in self.words)


class Query(msgspec.Struct, frozen=True):
    """A query as the ledger has it. status: proposed, reserved, spent, released or closed.

    salted_hash: of the canonical query under a salt that the release opens.
    """

    query: str
    salted_hash: str
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
    def explain(self, question: QueryDocument) -> Exchange[Explanation]:
        """What each site would compute, what would leave it, how noisy the answer will be, what it costs.

        Nothing is proposed, nothing spent. Raises DecodeError naming the field that does not fit, Refused.
        """
        return (yield from fetch(self._line, post("queries", "explain", body=_body(question)), Explanation))

    @verb
    def explain_served(self, query: str) -> Exchange[Explanation]:
        """The same of a query that asked for this organisation's data, while it runs and later."""
        return (yield from fetch(self._line, get("queries", "served", query, "explanation"), Explanation))

    @verb
    def begin(self, question: QueryDocument, *, key: str = "") -> Exchange[Job]:
        """Begin to ask. `release` gives what was released once the job is done; its name is ``job.name``."""
        self._line.pinned.needed()
        return (yield from begin(self._line, post("queries", body=_body(question)), key))

    @verb
    def ask(
        self, question: QueryDocument, *, key: str = "", told: Callable[[Progress], None] | None = None
    ) -> Exchange[Released]:
        """Ask, wait, verify: returns what was released. told: called with each progress; key: so that it is asked
        once. A question that was answered before gets that answer, at no cost: then `Released.earlier` is true. Raises
        DecodeError, BudgetExhausted, ConsentDenied, ProtocolAbort, ...; VerificationError for a release that does not
        hold, answers another question or, without a key, this one over tables that were replaced since.
        """
        self._line.pinned.needed()
        began = self._line.clock()
        head = yield from fetch(self._line, get("ledger", "head"), Head)
        job = yield from begin(self._line, post("queries", body=_body(question)), key)
        done = yield from wait(self._line, job.job, told)
        released = yield from _released(self._line, done.name, check_document(question))
        if not key:
            receipts = yield from _receipts(self._line, released.query)
            check_new(released, receipts, began - _CLOCKS_MS)
        released.earlier = released.declared.proposed <= head.height
        return released

    @verb
    def release(self, query: str, *, question: QueryDocument | None = None) -> Exchange[Released]:
        """What was released of a query of this organisation's, verified; also that it answers `question`, if given.

        Without one, what was asked is as the release says: look at ``release.query``.
        """
        self._line.pinned.needed()
        return (yield from _released(self._line, query, check_document(question) if question else None))

    @verb
    def certificate(self, query: str) -> Exchange[bytes]:
        """A release with all that `medveil verify` needs to replay it offline, in one file's canonical bytes; verified.

        Of a query that answered a question of this organisation's. Raises as `release`.
        """
        self._line.pinned.needed()
        released = yield from _released(self._line, query, None)
        handovers = yield from every_handover(self._line)
        made: bytes = yield Work(partial(_certificate, released, handovers))
        return made

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


def _body(question: QueryDocument) -> dict[str, Any]:
    return show_document(check_document(question))


def _certificate(released: Released, handovers: Sequence[ProvenValue]) -> bytes:
    from medveil.verification.releases import certify
    from wire.canonical import encode

    return encode(certify(released.release, released.proofs, handovers))


def _receipts(line: Line, query: str) -> Exchange[tuple[Receipt, ...]]:
    told = yield from fetch(line, get("queries", query, "receipts"), _Receipts)
    found = [receipt_of(bytes_of(text)) for text in told.receipts]
    yield from believe(line, found)
    return tuple(found)


def _released(line: Line, query: str, asked: QueryDocument | None) -> Exchange[Released]:
    data = yield from octets(line, get("queries", query, "evidence"))
    shown = yield from fetch(line, get("queries", query, "proofs"), _Proofs)
    proofs = [proven_of(text) for text in shown.proofs]
    trust = yield from believe(line, proofs)
    released: Released = yield Work(partial(check_release, query, data, proofs, trust, asked))
    return released
