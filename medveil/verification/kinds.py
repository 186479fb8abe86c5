"""Every kind of evidence that medveil writes, and the model file that is none of `mpc`'s own."""

from __future__ import annotations

from importlib import import_module

from mpc.scoring import ScoreModel
from wire.canonical import Wire
from wire.evidence import Header, register


class ModelEvidence(Wire, frozen=True, tag="medveil.model_evidence"):
    """A registered model as everybody may see it: key and ciphertexts, no weight."""

    header: Header
    model: ScoreModel


MODEL = register("score-model", 1, ModelEvidence)


_PARTS = (
    "ledger.export",
    "ledger.pieces",
    "ledger.receipts",
    "ledger.snapshots",
    "ledger.split_view",
    "medveil.service.home.cards",
    "medveil.verification.releases",
    "mpc.release",
    "privacy.audit",
    "medveil.credentials.claiming",
    "medveil.credentials.contract",
    "privacy.erasure.deletion",
    "privacy.erasure.receipt",
    "privacy.grants.consent_receipt",
    "medveil.credentials.files",
    "medveil.credentials.folder",
    "medveil.credentials.opening",
    "medveil.credentials.policy_table",
    "zkp.bill_limit",
    "zkp.eligibility",
    "zkp.reversal",
    "zkp.settlement",
)
"""Where the other kinds are registered: importing a part does it."""


def register_all() -> None:
    """Import every part that registers a kind, so that `wire.evidence.read` knows them all."""
    for part in _PARTS:
        import_module(part)
