"""What the checks of one verification share: trust file, replayed ledger, access entries, findings."""

from __future__ import annotations

from dataclasses import dataclass, field

from ledger.contracts import grants
from ledger.machine import Machine
from medveil.verification.report import Check, Flow
from privacy.audit import Entry
from wire.checkpoint import TrustFile
from wire.errors import VerificationError


@dataclass
class Case:
    """One verification under way. uses: (organisation, sequence of the intent) -> intent and outcome."""

    trust: TrustFile
    machine: Machine
    backend: str
    checks: list[Check] = field(default_factory=list)
    uses: dict[tuple[str, int], tuple[Entry, Entry | None]] = field(default_factory=dict)

    def held(self, what: str, where: str, count: int = 1) -> None:
        """Note that a check held; equal ones are counted together."""
        for place, check in enumerate(self.checks):
            if check.what == what:
                where = check.where if check.where == where or check.where.endswith("/*") else _folder(where)
                self.checks[place] = Check(what, check.count + count, where)
                return
        self.checks.append(Check(what, count, where))

    def allowed_use(self, organisation: str, recipient: str, kind: str, query: bytes) -> Entry | None:
        """The intent in `organisation`'s trail that allowed this use, if there is one."""
        for (owner, _), (intent, _) in self.uses.items():
            use = intent.use
            if (
                owner == organisation
                and use.allowed
                and (use.recipient, use.kind, use.query)
                == (
                    recipient,
                    kind,
                    query,
                )
            ):
                return intent
        return None

    def flows(self) -> list[Flow]:
        """Who used what, in order of time."""
        found = []
        for (owner, _), (intent, outcome) in self.uses.items():
            use = intent.use
            ended: str = outcome.outcome if outcome is not None else "unfinished"
            if not use.allowed:
                ended = f"denied ({use.rule})"
            found.append(Flow(intent.time, owner, use.recipient, use.dataset, use.kind, use.purpose, use.grant, ended))
        return sorted(found, key=lambda flow: (flow.time, flow.owner, flow.who))

    def check_grant(self, entry: Entry, where: str) -> None:
        """Check that the grant an entry names stood on the ledger, of this owner, at that time."""
        use = entry.use
        state = self.machine.get(grants.grant_key(use.grant), grants.GrantState) if use.grant else None
        if (
            state is None
            or state.issuer != entry.organisation
            or not state.not_before <= entry.time < state.expires
            or (state.revoked_at is not None and state.revoked_at <= entry.time)
        ):
            raise VerificationError(
                "verify.no_such_grant",
                file=where,
                organisation=entry.organisation,
                sequence=entry.sequence,
                grant=use.grant or "-",
            )


def _folder(path: str) -> str:
    return path.rsplit("/", 1)[0] + "/*" if "/" in path else path
