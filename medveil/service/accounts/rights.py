"""Who may do what at this service: one table from right to roles, the only place that says so.

A right is named by what is done. An admin runs the service and its accounts and has no right over data; an auditor
reads and changes nothing; nobody but an officer grants. A route asks `check(principal, right)`, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from wire.errors import Refused

ROLES = ("officer", "researcher", "clerk", "auditor", "admin")


class Right(NamedTuple):
    """Who has a right, and whether a program may have it for a person."""

    roles: frozenset[str]
    programs: bool = True


def _of(*roles: str, programs: bool = True) -> Right:
    return Right(frozenset(roles), programs)


RIGHTS: dict[str, Right] = {
    # oneself
    "account.own": _of(*ROLES, programs=False),  # own password, one-time codes, sessions
    "tokens.own": _of(*ROLES, programs=False),  # make and revoke own tokens
    # people and programs of this organisation
    "people.read": _of("admin", "auditor"),
    "people.manage": _of("admin", programs=False),
    "tokens.read": _of("admin", "auditor"),
    "tokens.revoke": _of("admin", programs=False),  # anybody's
    # the consortium
    "members.read": _of(*ROLES),
    "members.vote": _of("officer", programs=False),  # join, suspend, contract versions
    "members.rotate": _of("admin", programs=False),  # this organisation's keys
    "ledger.read": _of(*ROLES),
    "receipts.read": _of("officer", "researcher", "clerk", "auditor"),
    # datasets and populations
    "datasets.read": _of("officer", "researcher", "clerk", "auditor"),
    "datasets.register": _of("officer"),
    "datasets.load": _of("officer"),
    "datasets.classify": _of("officer"),  # levels of columns, children, statutory class
    "populations.register": _of("officer"),
    "populations.vote": _of("officer", programs=False),
    # grants
    "grants.read": _of("officer", "auditor"),
    "grants.preview": _of("officer"),
    "grants.issue": _of("officer"),
    "grants.revoke": _of("officer"),
    "grants.review": _of("officer", programs=False),
    "grants.accept": _of("officer", "researcher", "clerk"),
    "grants.held": _of("officer", "researcher", "clerk", "auditor"),  # read what this organisation received
    # single persons: who they are stands in bodies alone
    "opt-outs.read": _of("officer"),
    "opt-outs.manage": _of("officer"),
    "persons.view": _of("officer", programs=False),  # who used one person's data, and who gets at it
    "records.erase": _of("officer", programs=False),  # plans, erasures, receipts, legal holds, the key epoch
    # queries
    "queries.ask": _of("researcher"),
    "queries.explain": _of("officer", "researcher"),  # what a query document would compute and show; nothing is asked
    "queries.read": _of("officer", "researcher", "auditor"),
    "queries.cancel": _of("researcher"),
    "queries.serve": _of("officer"),  # this organisation's part in somebody's query
    # eligibility, bills, scores
    "eligibility.ask": _of("clerk"),
    "eligibility.answer": _of("officer"),
    "bills.issue": _of("clerk"),
    "scores.ask": _of("clerk"),
    "scores.serve": _of("officer"),
    "models.propose": _of("officer"),
    "models.review": _of("officer", programs=False),
    # extracts
    "extracts.read": _of("officer", "researcher", "auditor"),  # what was asked for, made, and is held
    "extracts.ask": _of("researcher"),
    "extracts.preview": _of("officer"),  # what others want, and what would leave
    "extracts.make": _of("officer", programs=False),  # make, deliver, withdraw, decline
    "extracts.open": _of("researcher"),  # those that this organisation holds
    "extracts.delete": _of("officer", "researcher"),
    # audit and evidence
    "audit.read": _of("officer", "auditor"),
    "audit.anchor": _of("officer"),
    "evidence.export": _of("officer", "auditor"),
    "security.read": _of("auditor", "admin"),
    # jobs, one's own: a job's own right is asked besides
    "jobs.read": _of(*ROLES),
    "jobs.cancel": _of("officer", "researcher", "clerk", "admin"),
    # the service itself
    "service.read": _of("admin", "auditor"),
    "service.manage": _of("admin", programs=False),  # backup, stop
}


@dataclass(frozen=True)
class Principal:
    """Who calls, as checked just now. name: of the person, the token's id, or the organisation.

    rights: what this call may do: of a person, those of the roles; of a program, its scopes as far as its owner
    still has them; none before a person has set up the one-time codes that the roles need (`enrolling`).
    """

    kind: Literal["person", "program", "organisation"]
    name: str
    roles: frozenset[str] = frozenset()
    rights: frozenset[str] = frozenset()
    owner: str = ""
    enrolling: bool = False
    session: bytes = field(default=b"", repr=False)

    @property
    def actor(self) -> str:
        """How the security log names it."""
        return f"{self.kind}:{self.name}"

    @property
    def id(self) -> str:
        """What owns jobs and counts for rate limits. A program's are its own, not its owner's."""
        return self.actor


NOBODY = Principal("person", "-")


def rights_of(roles: Iterable[str], *, programs: bool = False) -> frozenset[str]:
    """Every right of any of `roles`. programs: only those that a program may have."""
    mine = frozenset(roles)
    return frozenset(name for name, right in RIGHTS.items() if right.roles & mine and (right.programs or not programs))


def who_has(right: str) -> tuple[str, ...]:
    """The roles that have a right, in the order of `ROLES`. Raises ValueError for a right that is not in the table."""
    if right not in RIGHTS:
        raise ValueError(f"no right {right!r} in medveil.service.accounts.rights")
    return tuple(role for role in ROLES if role in RIGHTS[right].roles)


def check(principal: Principal, right: str) -> None:
    """Raise Refused, naming the right and who has it, unless `principal` has it."""
    roles = ", ".join(who_has(right))
    if right in principal.rights:
        return
    if principal.enrolling:
        raise Refused("rights.enrol_first", right=right)
    if principal.kind == "program":
        raise Refused("rights.not_in_scope", right=right, roles=roles)
    raise Refused("rights.not_yours", right=right, roles=roles)


def check_roles(roles: Iterable[str]) -> frozenset[str]:
    """`roles` as a set. Raises Refused for none, or an unknown one."""
    wanted = frozenset(roles)
    if not wanted or not wanted <= set(ROLES):
        raise Refused("rights.unknown_role", roles=", ".join(ROLES))
    return wanted
