"""What a verification found: the checks that held, and who used what under which grant."""

from __future__ import annotations

import msgspec

from wire import messages


class Check(msgspec.Struct, frozen=True):
    """One kind of check that held. what: in words; count: how many times; where: file.

    code, facts: of the message catalogues, where they have it in other languages; else "".
    """

    what: str
    count: int
    where: str
    code: str = ""
    facts: dict[str, str] = msgspec.field(default_factory=dict)

    def text(self, language: str = "en") -> str:
        """What held, in words."""
        return messages.sentence(self.code, self.facts, language) if self.code else self.what


class Flow(msgspec.Struct, frozen=True):
    """One use of data, as the owner's access chain has it.

    time: instant. purpose: "" for what was done at home. grant: "" where none covered it.
    """

    time: int
    owner: str
    who: str
    dataset: str
    kind: str
    purpose: str
    grant: str
    outcome: str


class Finding(msgspec.Struct, frozen=True):
    """What somebody owes an explanation for, though all that is shown holds. The sentence names whom.

    code and facts: of the message catalogues.
    """

    code: str
    facts: dict[str, str]

    def text(self, language: str = "en") -> str:
        """The sentence and what to do, in "en" or "zh"."""
        return messages.text(self.code, self.facts, language)


class Report(msgspec.Struct, frozen=True):
    """The result of `medveil.verify`: it exists only if every check held.

    pinned: whether a trust file was given. Without one the evidence is consistent with itself and
    nothing more: whoever made it could have made all of it. height, block_time, head_time: the final
    head that the evidence reaches (block height, its time, the time that k cosigners vouch for;
    instants; 0 for a split view, which has none): what happened later is not in it. findings: what is
    missing or wrong beside all that holds; with any, the verdict is not plainly "verified".
    """

    path: str
    pinned: bool
    height: int
    block_time: int
    head_time: int
    chain: str
    genesis: str
    exporter: str
    backend: str
    checks: list[Check]
    flows: list[Flow]
    findings: list[Finding]

    @property
    def verdict(self) -> str:
        """One line for people."""
        if not self.pinned:
            return "consistent, not pinned"
        return "verified, with findings" if self.findings else "verified"
