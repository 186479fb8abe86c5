"""What the checks of one verification share: trust file, replayed ledger and its history, uses, findings."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from ledger.contracts import ApproveQuery, access, grants, queries
from ledger.envelope import open_envelope
from ledger.machine import Block, BlockOutcome, Machine
from medveil.verification.report import Check, Finding, Flow
from privacy.audit import OWN_KINDS, Entry
from wire import messages
from wire.checkpoint import TrustFile
from wire.errors import VerificationError

SKEW = 300_000
"""Milliseconds by which an organisation's clock may differ from the block times."""


@dataclass
class History:
    """What final state no longer says. times: of each block; approved: (query, site) -> height of the approval."""

    times: list[int]
    approved: dict[tuple[bytes, str], int] = field(default_factory=dict)

    def see(self, block: Block, outcome: BlockOutcome) -> None:
        """Take in the next block as it was replayed."""
        self.times.append(block.header.time)
        for result in outcome.results:
            ops = open_envelope(block.envelopes[result.entry]).envelope.ops
            for op, became in zip(ops, result.ops, strict=False):  # none became anything: all were refused
                if isinstance(op, ApproveQuery) and not became.code:
                    self.approved[op.query, result.sender] = block.header.height


@dataclass
class Use:
    """One use in an organisation's access chain. where: the intent's file; anchored: its batch on the ledger.

    query: the ledger's query that its owner approved for it. answer: the one that had answered the question before,
    where its owner computed nothing. told: whether something else in the evidence has been found to be this use; none
    counts twice.
    """

    intent: Entry
    where: str
    anchored: access.BatchState
    outcome: Entry | None = None
    query: queries.QueryState | None = None
    answer: queries.QueryState | None = None
    told: bool = False

    @property
    def owner(self) -> str:
        """Who keeps the data and the chain."""
        return self.intent.organisation

    @property
    def ended(self) -> str:
        """The outcome, or "unfinished"."""
        return self.outcome.outcome if self.outcome is not None else "unfinished"

    def wrong(self, what: str) -> VerificationError:
        """The error that this entry's `what` is not what the rest of the evidence says."""
        return VerificationError(
            "verify.wrong_entry", file=self.where, organisation=self.owner, sequence=self.intent.sequence, field=what
        )


@dataclass
class Case:
    """One verification under way. uses: (organisation, sequence of the intent) -> use. pruned: of each chain that lacks
    its beginning, when the last batch of what is missing was anchored.

    height, block_time, head_time, findings: see `Report`.
    """

    trust: TrustFile
    machine: Machine
    history: History
    backend: str
    checks: list[Check] = field(default_factory=list)
    uses: dict[tuple[str, int], Use] = field(default_factory=dict)
    pruned: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    height: int = 0
    block_time: int = 0
    head_time: int = 0

    def held(self, what: str, where: str, count: int = 1) -> None:
        """Note that a check held; equal ones are counted together."""
        self._note(Check(what, count, where))

    def step(self, code: str, where: str, **facts: str) -> None:
        """The same for a check that the catalogues have."""
        self._note(Check(messages.sentence(code, facts), 1, where, code, facts))

    def _note(self, new: Check) -> None:
        for place, check in enumerate(self.checks):
            if check.what == new.what:
                same = check.where == new.where or check.where.endswith("/*")
                where = check.where if same else _folder(new.where)
                self.checks[place] = msgspec.structs.replace(check, count=check.count + new.count, where=where)
                return
        self.checks.append(new)

    def finds(self, code: str, **facts: str) -> None:
        """Note what somebody owes an explanation for."""
        self.findings.append(Finding(code, facts))

    def tell(self, organisation: str, recipient: str, kind: str, query: bytes) -> Use | None:
        """The use in `organisation`'s chain that allowed this, if there is one that nothing else was yet."""
        asked = (organisation, recipient, kind, query, True)
        found = [
            use
            for use in self.uses.values()
            if not use.told
            and (use.owner, use.intent.use.recipient, use.intent.use.kind, use.intent.use.query, use.intent.use.allowed)
            == asked
        ]
        found.sort(key=lambda use: use.ended != "released")  # stable: a released one first, else the earliest
        if not found:
            return None
        found[0].told = True
        return found[0]

    def posted(self, query: queries.QueryState) -> Iterator[queries.ReleaseState]:
        """The sums of a query that stand on the ledger, phase by phase."""
        for number in range(1, query.phases + 1):
            found = self.machine.get(queries.release_key(query.query, number), queries.ReleaseState)
            if found is not None:
                yield found

    def flows(self) -> list[Flow]:
        """Who used what, in order of time."""
        found = []
        for use in self.uses.values():
            said = use.intent.use
            ended = use.ended if said.allowed else f"denied ({said.rule})"
            if use.query is not None and use.query.status == "spent":
                # The run stopped on its way: the ledger says how much of it is public.
                ended += " (first sums only)" if any(self.posted(use.query)) else " (no sums posted)"
            elif use.query is not None and use.query.status == "released" and use.ended != "released":
                ended += " (in the released sums)"
            elif use.answer is not None:
                ended += " (answered before)"
            found.append(
                Flow(
                    use.intent.time,
                    use.owner,
                    said.recipient,
                    said.dataset,
                    said.kind,
                    "" if said.kind in OWN_KINDS else said.purpose,
                    said.grant,
                    ended,
                )
            )
        return sorted(found, key=lambda flow: (flow.time, flow.owner, flow.who))

    def check_grant(self, use: Use) -> None:
        """Check that the grant a use names stood on the ledger, of this owner, when it was used.

        When: as the owner's own clock says, within what the ledger knows for itself (the grant was
        anchored before the use, up to clock skew, and before the batch that tells of it). Blocks of just that time
        may have come before or after: one of the two must do.
        """
        said, times = use.intent.use, self.history.times
        state = self.machine.get(grants.grant_key(said.grant), grants.GrantState) if said.grant else None
        heights = (bisect(times, use.intent.time) - 1 for bisect in (bisect_left, bisect_right))
        if state is None or state.issuer != use.owner or not any(self._stood(use, state, height) for height in heights):
            raise self.no_such_grant(use)

    def _stood(self, use: Use, state: grants.GrantState, height: int) -> bool:
        """Whether the grant stood at the time that the use states, if that was after block `height`."""
        state, at = state.as_of(height), use.intent.time
        return (
            state.not_before <= at < state.expires
            and (state.revoked_height is None or state.revoked_height > height)
            and state.height < use.anchored.height
            and self.history.times[state.height] <= at + SKEW
        )

    def check_grant_at_approval(self, use: Use, query: bytes) -> None:
        """Check that the grant of a query's use stood before the block in which the site approved."""
        state = self.machine.get(grants.grant_key(use.intent.use.grant), grants.GrantState)
        height = self.history.approved[query, use.owner]
        state = None if state is None else state.as_of(height - 1)
        revoked = None if state is None else state.revoked_height
        if state is None or state.height >= height or (revoked is not None and revoked < height):
            raise self.no_such_grant(use)

    def no_such_grant(self, use: Use) -> VerificationError:
        """The error that a use's grant did not stand."""
        return VerificationError(
            "verify.no_such_grant",
            file=use.where,
            organisation=use.owner,
            sequence=use.intent.sequence,
            grant=use.intent.use.grant or "-",
        )


def _folder(path: str) -> str:
    return path.rsplit("/", 1)[0] + "/*" if "/" in path else path
