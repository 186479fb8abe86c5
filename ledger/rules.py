"""Which version of which contract runs an op: chosen by the block's height from the agreed schedule.

The program holds every version a contract ever had, since old blocks are replayed by the rules of their
time. A version may add ops to those of the one before, never drop one: an op that was admitted stays an op.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.contracts.contract import Contract, View
from ledger.contracts.versions import switches
from wire.canonical import Wire
from wire.errors import Unavailable

InForce = Mapping[type[Wire], Contract]
"""Op type -> the contract that runs it, in the version in force. An op that is not in it is not in force."""

FROM_GENESIS = (
    "organisations",
    "datasets",
    "grants",
    "access",
    "queries",
    "bills",
    "models",
    "corrections",
    "versions",
)
"""The contracts that hold from genesis, in version 1. No name is ever added: what comes later is voted for."""


class Rules:
    """All versions of all contracts that this program knows."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        """ValueError if two have one name and version, or a version drops an op of the one before.

        So too if a contract that came later has a version 1: it would hold from genesis.
        """
        self._versions: dict[str, dict[int, Contract]] = {}
        for contract in sorted(contracts, key=lambda contract: (contract.name, contract.version)):
            if contract.version == 1 and contract.name not in FROM_GENESIS:
                raise ValueError(f"{contract.name} came after genesis: its first version is 2 or higher")
            known = self._versions.setdefault(contract.name, {})
            if contract.version in known:
                raise ValueError(f"{contract.name} has two versions {contract.version}")
            if known and any(op not in contract.ops for op in known[max(known)].ops):
                raise ValueError(f"version {contract.version} of {contract.name} drops an op")
            known[contract.version] = contract

    def in_force(self, view: View, height: int) -> InForce:
        """What runs each op in block `height`, by the schedule in the state before that block.

        Raises Unavailable if a version in force is not known here: this program cannot run that block.
        """
        versions = dict.fromkeys(self._versions, 1)
        for switch in switches(view):  # in the order of heights for each contract
            if switch.from_height <= height:
                versions[switch.contract] = switch.version
        found: dict[type[Wire], Contract] = {}
        for name, version in versions.items():
            contract = self._versions.get(name, {}).get(version)
            if contract is not None:
                found.update(dict.fromkeys(contract.ops, contract))
            elif version > 1:
                raise Unavailable("ledger.unknown_version", contract=name, version=version, height=height)
        return found
