"""The contracts: typed ops and their transitions. Pure, no I/O.

`Op` is the union of all ops an envelope may hold; `CONTRACTS` all contracts in force.
"""

from __future__ import annotations

from ledger.contracts import access, bills, corrections, datasets, grants, models, organisations, queries
from ledger.contracts.access import AnchorAccess
from ledger.contracts.bills import RegisterBill
from ledger.contracts.contract import Contract
from ledger.contracts.corrections import Correct
from ledger.contracts.datasets import (
    Column,
    RegisterDataset,
    RegisterPopulation,
    RetireDataset,
    SupersedeDataset,
    VoteBudget,
)
from ledger.contracts.grants import AnchorGrant, RenewGrant, RevokeGrant
from ledger.contracts.models import RegisterModel
from ledger.contracts.organisations import VoteSuspension
from ledger.contracts.queries import (
    AnnounceContribution,
    ApproveQuery,
    CloseQuery,
    Contribute,
    FixSurvivors,
    ProposeQuery,
    Release,
)

Op = (
    VoteSuspension
    | RegisterPopulation
    | RegisterDataset
    | SupersedeDataset
    | RetireDataset
    | VoteBudget
    | AnchorGrant
    | RenewGrant
    | RevokeGrant
    | AnchorAccess
    | ProposeQuery
    | ApproveQuery
    | AnnounceContribution
    | Contribute
    | FixSurvivors
    | Release
    | CloseQuery
    | RegisterBill
    | RegisterModel
    | Correct
)

CONTRACTS = (
    organisations.CONTRACT,
    datasets.CONTRACT,
    grants.CONTRACT,
    access.CONTRACT,
    queries.CONTRACT,
    bills.CONTRACT,
    models.CONTRACT,
    corrections.CONTRACT,
)
"""Version 1 of each, from height 0. A later version of one names the height from which it holds."""

__all__ = [
    "CONTRACTS",
    "Op",
    "Contract",
    "VoteSuspension",
    "Column",
    "RegisterPopulation",
    "RegisterDataset",
    "SupersedeDataset",
    "RetireDataset",
    "VoteBudget",
    "AnchorGrant",
    "RenewGrant",
    "RevokeGrant",
    "AnchorAccess",
    "ProposeQuery",
    "ApproveQuery",
    "AnnounceContribution",
    "Contribute",
    "FixSurvivors",
    "Release",
    "CloseQuery",
    "RegisterBill",
    "RegisterModel",
    "Correct",
]
