"""Claims: bills, proofs that a bill is within a limit, encrypted scores and their models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

import msgspec

from medveil.client.exchange import Exchange, M, Part, verb
from medveil.client.frames import Rows
from medveil.client.jobs import Job, Progress, begin, wait
from medveil.client.line import Call, Line, fetch, get, octets, post, same
from wire.errors import VerificationError

Told = Callable[[Progress], None] | None


class Bill(msgspec.Struct, frozen=True):
    """A bill on the ledger: its amount stands there as a commitment alone."""

    handle: str
    hospital: str
    currency: str
    commitment: str
    height: int


class BillList(Rows, frozen=True):
    """This organisation's bills."""

    bills: tuple[Bill, ...]

    def rows(self) -> tuple[Bill, ...]:
        """The bills."""
        return self.bills


class Proof(msgspec.Struct, frozen=True):
    """A proof that the gateway verified: the bill's amount is at most `limit`, and no more is known of it."""

    nonce: str
    handle: str
    limit: str
    currency: str
    audience: str
    purpose: str
    grant: str
    chain: str
    commitment: str


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input of a model: clamped to low..high, multiplied by `scale` and rounded. missing: what counts for a
    missing value, by default the middle."""

    name: str
    low: int
    high: int
    scale: int = 1
    missing: int | None = None

    def __str__(self) -> str:
        return self.name


class Model(msgspec.Struct, frozen=True):
    """A model that was reviewed and registered."""

    model: str
    owner: str
    reviewer: str
    digest: str
    height: int


class ModelList(Rows, frozen=True):
    """Every registered model, by name."""

    models: tuple[Model, ...]

    def rows(self) -> tuple[Model, ...]:
        """The models."""
        return self.models


class ShownModel(msgspec.Struct, frozen=True):
    """A model that was shown to be reviewed: `review` names it there. weights: until there is a reply.

    status: waiting, signed or refused.
    """

    review: str
    model: str
    owner: str
    features: tuple[Feature, ...]
    weights: tuple[int, ...] | None
    weight_low: int
    weight_high: int
    limit: int
    status: str

    def __repr__(self) -> str:
        return f"ShownModel({self.model!r})"


class ShownList(Rows, frozen=True):
    """Models that wait for a review."""

    models: tuple[ShownModel, ...]

    def rows(self) -> tuple[ShownModel, ...]:
        """The models."""
        return self.models


class Flag(msgspec.Struct, frozen=True):
    """Of one record, known by a random handle: whether it reaches the model's limit."""

    handle: str
    reached: bool


class Scores(Rows, frozen=True):
    """What a hospital answered."""

    session: str
    hospital: str
    model: str
    dataset: str
    flags: tuple[Flag, ...]

    def rows(self) -> tuple[Flag, ...]:
        """The flags."""
        return self.flags


class ScoredRecord(msgspec.Struct, frozen=True):
    """One record that this organisation scored. Private."""

    handle: str
    record: str


class ScoredRecords(Rows, frozen=True):
    """Which own records the handles of a session stand for. Private."""

    session: str
    records: tuple[ScoredRecord, ...]

    def rows(self) -> tuple[ScoredRecord, ...]:
        """The records."""
        return self.records

    def __repr__(self) -> str:
        return f"ScoredRecords({self.session!r})"


def _amount(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _done(line: Line, call: Call, key: str, told: Told) -> Exchange[Job]:
    job = yield from begin(line, call, key)
    return (yield from wait(line, job.job, told))


class Bills(Part[M]):
    """``/v1/bills``."""

    @verb
    def issue(self, person: str, amount: str, currency: str, *, key: str = "", told: Told = None) -> Exchange[Bill]:
        """Commit to a bill's amount, register it, hand the slip to the person's wallet.

        person: as this organisation's tables have it, in any spelling, so that an erasure finds it. amount: a decimal.
        """
        body = {"person": person, "amount": amount, "currency": currency}
        done = yield from _done(self._line, post("bills", body=body), key, told)
        bill = yield from fetch(self._line, get("bills", done.name), Bill)
        return same(bill, handle=done.name, currency=currency)

    @verb
    def list(self) -> Exchange[BillList]:
        """Bills of this organisation."""
        return (yield from fetch(self._line, get("bills"), BillList))

    @verb
    def get(self, handle: str) -> Exchange[Bill]:
        """One bill."""
        return same((yield from fetch(self._line, get("bills", handle), Bill)), handle=handle)


class Eligibility(Part[M]):
    """``/v1/eligibility``."""

    @verb
    def ask(
        self,
        *,
        hospital: str,
        handle: str,
        limit: str,
        currency: str,
        purpose: str,
        grant: str,
        commercial: bool = False,
        jurisdiction: str = "CN",
        key: str = "",
        told: Told = None,
    ) -> Exchange[Proof]:
        """Have the insured person prove that a bill is within a limit; returns the proof that the gateway verified.

        commercial: whether it serves somebody's sales; jurisdiction: where you work with it. The hospital judges by it.
        """
        body = {
            "hospital": hospital,
            "handle": handle,
            "limit": limit,
            "currency": currency,
            "purpose": purpose,
            "grant": grant,
            "commercial": commercial,
            "jurisdiction": jurisdiction,
        }
        done = yield from _done(self._line, post("eligibility", body=body), key, told)
        proof = yield from fetch(self._line, get("eligibility", done.name), Proof)
        same(proof, nonce=done.name, handle=handle, currency=currency, purpose=purpose, grant=grant)
        if _amount(proof.limit) != _amount(limit):
            raise VerificationError("client.other_answer", field="limit")
        return proof

    @verb
    def get(self, nonce: str) -> Exchange[Proof]:
        """A proof that was given."""
        return same((yield from fetch(self._line, get("eligibility", nonce), Proof)), nonce=nonce)

    @verb
    def evidence(self, nonce: str) -> Exchange[bytes]:
        """The canonical presentation, for ``medveil verify``."""
        return (yield from octets(self._line, get("eligibility", nonce, "evidence")))


class Models(Part[M]):
    """``/v1/models``."""

    @verb
    def propose(
        self,
        model: str,
        features: Sequence[Feature],
        weights: Sequence[int],
        *,
        weight_low: int,
        weight_high: int,
        limit: int,
        regulator: str,
        key: str = "",
        told: Told = None,
    ) -> Exchange[Job]:
        """Show a model to a regulator and register it once it is signed. weights: secret."""
        body = {
            "model": model,
            "features": [*features],
            "weights": [*weights],
            "weight_low": weight_low,
            "weight_high": weight_high,
            "limit": limit,
            "regulator": regulator,
        }
        return (yield from _done(self._line, post("models", body=body), key, told))

    @verb
    def list(self) -> Exchange[ModelList]:
        """Every registered model."""
        return (yield from fetch(self._line, get("models"), ModelList))

    @verb
    def shown(self) -> Exchange[ShownList]:
        """Models that were shown to this organisation and wait for a review."""
        return (yield from fetch(self._line, get("models", "shown"), ShownList))

    @verb
    def review(self, review: str, *, approve: bool, key: str = "", told: Told = None) -> Exchange[Job]:
        """Sign a model that was shown, if its check passes too; or tell its owner no."""
        call = post("models", "shown", review, "review", body={"approve": approve})
        return (yield from _done(self._line, call, key, told))


class ScoresPart(Part[M]):
    """``/v1/scores``."""

    @verb
    def ask(
        self,
        *,
        hospital: str,
        model: str,
        dataset: str,
        purpose: str,
        commercial: bool = False,
        jurisdiction: str = "CN",
        key: str = "",
        told: Told = None,
    ) -> Exchange[Scores]:
        """Have a hospital score its records under a model, unseen.

        commercial: whether it serves somebody's sales; jurisdiction: where you work with it. The hospital judges by it.
        """
        body = {
            "hospital": hospital,
            "model": model,
            "dataset": dataset,
            "purpose": purpose,
            "commercial": commercial,
            "jurisdiction": jurisdiction,
        }
        done = yield from _done(self._line, post("scores", body=body), key, told)
        return same((yield from fetch(self._line, get("scores", done.name), Scores)), session=done.name)

    @verb
    def get(self, session: str) -> Exchange[Scores]:
        """What was answered."""
        return same((yield from fetch(self._line, get("scores", session), Scores)), session=session)

    @verb
    def records(self, session: str) -> Exchange[ScoredRecords]:
        """As the hospital: which own records were scored in a session."""
        records = yield from fetch(self._line, get("scores", session, "records"), ScoredRecords)
        return same(records, session=session)
