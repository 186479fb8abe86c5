"""What the jobs of an organisation's flows are asked: canonical structs, sealed in the table of jobs."""

from __future__ import annotations

from typing import Annotated

import msgspec

from medveil.gateway.extracting import ExtractWish
from medveil.gateway.models import ModelPlan
from medveil.gateway.wallets import LONGEST_PERSON
from mpc.query import Query
from privacy.grants.terms import Code, GrantTerms
from privacy.uses import NOTHING_SAID, Declaration, UseRequest
from wire.canonical import Wire
from wire.identifiers import Handle, Hash, Name
from wire.money import Amount


class LoadRequest(Wire, frozen=True, tag="medveil.load_request"):
    """Load `table` of `source` as `dataset`."""

    source: Annotated[str, msgspec.Meta(max_length=255)]
    table: Annotated[str, msgspec.Meta(max_length=255)]
    dataset: Name


class IssueRequest(Wire, frozen=True, tag="medveil.issue_request"):
    """Issue a grant of these terms."""

    terms: GrantTerms


class AskRequest(Wire, frozen=True, tag="medveil.ask_request"):
    """Ask this query. sent: digest of the question as its caller sent it, which leaves open much."""

    query: Query
    sent: Hash
    declared: Declaration = NOTHING_SAID


class BillRequest(Wire, frozen=True, tag="medveil.bill_request"):
    """Issue a bill of a person (secret, and so is the amount)."""

    person: Annotated[str, msgspec.Meta(max_length=LONGEST_PERSON)]
    amount: Amount

    def __repr__(self) -> str:
        return "BillRequest()"


class CheckRequest(Wire, frozen=True, tag="medveil.check_request"):
    """Ask `hospital` whether the bill under `handle` is at most `limit`, under `grant`."""

    hospital: Name
    handle: Handle
    limit: Amount
    purpose: Code
    grant: Name
    declared: Declaration = NOTHING_SAID


class ProposeRequest(Wire, frozen=True, tag="medveil.propose_request"):
    """Have a model built, reviewed by `regulator` and registered. plan: secret, it holds the weights."""

    plan: ModelPlan
    regulator: Name


class ReviewRequest(Wire, frozen=True, tag="medveil.review_request"):
    """Review a model that was shown: sign it if it is sound and approved, else say no."""

    review: Handle
    approve: bool


class ScoreJobRequest(Wire, frozen=True, tag="medveil.score_job_request"):
    """Have `hospital` score the records of `dataset` under `model`."""

    hospital: Name
    model: Name
    dataset: Name
    purpose: Code
    declared: Declaration = NOTHING_SAID


class AskExtractRequest(Wire, frozen=True, tag="medveil.ask_extract_request"):
    """Ask another organisation for an extract."""

    request: UseRequest


class MakeExtractRequest(Wire, frozen=True, tag="medveil.make_extract_request"):
    """Make an extract and deliver it."""

    wish: ExtractWish


class DeliverRequest(Wire, frozen=True, tag="medveil.deliver_request"):
    """Deliver an extract that was made."""

    extract: Handle


class DeclineRequest(Wire, frozen=True, tag="medveil.decline_request"):
    """Say no to a request for an extract."""

    ask: Handle


class RotateRequest(Wire, frozen=True, tag="medveil.rotate_request"):
    """Change this organisation's keys, announced so many blocks ahead."""

    notice: int


class EraseRequest(Wire, frozen=True, tag="medveil.erase_request"):
    """Carry out the erasure that was planned under this id."""

    erasure: Handle


class CheckErasureRequest(Wire, frozen=True, tag="medveil.check_erasure_request"):
    """Look for what a receipt says is gone. markers: texts of the person's (secret)."""

    receipt: bytes
    markers: tuple[str, ...]

    def __repr__(self) -> str:
        return "CheckErasureRequest()"


class RotateVaultRequest(Wire, frozen=True, tag="medveil.rotate_vault_request"):
    """Wrap every key of the vault under a new epoch, and destroy the older ones."""


class ExportRequest(Wire, frozen=True, tag="medveil.export_request"):
    """Write an evidence folder. collect: with what the other members keep."""

    collect: bool
