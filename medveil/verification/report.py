"""What a verification found: the checks that held, and who used what under which grant."""

from __future__ import annotations

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One kind of check that held. what: in words; count: how many times; where: file."""

    what: str
    count: int
    where: str


class Flow(msgspec.Struct, frozen=True):
    """One use of data, as the owner's access chain has it. time: instant; grant: "" where none covered it."""

    time: int
    owner: str
    who: str
    dataset: str
    kind: str
    purpose: str
    grant: str
    outcome: str


class Report(msgspec.Struct, frozen=True):
    """The result of `medveil.verify`: it exists only if every check held.

    pinned: whether a trust file was given. Without one the evidence is consistent with itself and
    nothing more: whoever made it could have made all of it.
    """

    path: str
    pinned: bool
    chain: str
    genesis: str
    exporter: str
    backend: str
    checks: list[Check]
    flows: list[Flow]

    @property
    def verdict(self) -> str:
        """One line for people."""
        return "verified" if self.pinned else "consistent, not pinned"
