"""The contracts: typed ops and their transitions. Pure, no I/O.

`Op` is the union of all ops an envelope may hold; `CONTRACTS` all contracts, in all their versions.
"""

from __future__ import annotations

from ledger.contracts import access, bills, corrections, datasets, grants, models, organisations, queries, versions
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
from ledger.contracts.organisations import Leave, RotateKeys, VoteAdmission, VoteRemoval, VoteSuspension
from ledger.contracts.queries import (
    AnnounceContribution,
    ApproveQuery,
    CloseQuery,
    Contribute,
    FixParties,
    FixSurvivors,
    ProposeQuery,
    Release,
)
from ledger.contracts.versions import VoteVersion

Op = (
    VoteSuspension
    | VoteAdmission
    | VoteRemoval
    | Leave
    | RotateKeys
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
    | FixParties
    | FixSurvivors
    | Release
    | CloseQuery
    | RegisterBill
    | RegisterModel
    | Correct
    | VoteVersion
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
    versions.CONTRACT,
)
"""Every version of every contract that this program can run; `versions` says which holds at a height."""

__all__ = [
    "CONTRACTS",
    "Op",
    "Contract",
    "VoteSuspension",
    "VoteAdmission",
    "VoteRemoval",
    "Leave",
    "RotateKeys",
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
    "FixParties",
    "FixSurvivors",
    "Release",
    "CloseQuery",
    "RegisterBill",
    "RegisterModel",
    "Correct",
    "VoteVersion",
]
