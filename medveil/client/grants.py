"""Grants: what one organisation permits another to do with its data, previewed, issued, held, revoked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from medveil.client.exchange import Exchange, M, Part, verb
from medveil.client.filters import AnyFilter, as_json
from medveil.client.frames import Instant, Rows
from medveil.client.jobs import Job, Progress, begin, wait
from medveil.client.line import fetch, get, post
from medveil.client.written import Written, write
from wire.errors import VerificationError


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is permitted, to whom; the issuer is this organisation.

    fields: columns, those of the filter included. filter: which rows, None for all. purposes: each covers what is
    below it. uses: of "query", "extract", "score", "proof". commercial: needs legal basis "separate-consent".
    consent_ref, pia_ref: where consents and the impact assessment are filed. transfer_ref: the transfer mechanism
    where `jurisdiction` is abroad. not_before, expires, delete_by: ms UTC.
    """

    grant: str
    recipient: str
    dataset: str
    fields: tuple[str, ...]
    purposes: tuple[str, ...]
    uses: tuple[str, ...]
    legal_basis: str
    not_before: Instant
    expires: Instant
    delete_by: Instant
    filter: AnyFilter = None
    recipient_contact: str = ""
    commercial: bool = False
    consent_ref: str = ""
    pia_ref: str = ""
    jurisdiction: str = "CN"
    transfer_ref: str = ""
    epoch: int = 0


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A use to try terms with. recipient, dataset: empty for those of the terms."""

    fields: tuple[str, ...]
    kind: str
    purpose: str
    filter: AnyFilter = None
    recipient: str = ""
    dataset: str = ""
    commercial: bool = False
    jurisdiction: str = "CN"


class Decision(msgspec.Struct, frozen=True):
    """What would be decided, in words. rule: which decided; missing: the condition that is not met."""

    decision: str
    allowed: bool
    rule: str
    missing: str


class GrantTerms(msgspec.Struct, frozen=True):
    """The terms of a grant as they were issued."""

    grant: str
    issuer: str
    recipient: str
    recipient_contact: str
    dataset: str
    fields: tuple[str, ...]
    filter: dict[str, Any] | None
    purposes: tuple[str, ...]
    uses: tuple[str, ...]
    commercial: bool
    legal_basis: str
    consent_ref: str
    pia_ref: str
    jurisdiction: str
    transfer_ref: str
    not_before: Instant
    expires: Instant
    delete_by: Instant
    epoch: int


class Grant(msgspec.Struct, frozen=True):
    """A grant. status: on the ledger, not-anchored, not-yet, in-force, expired or revoked; revoked_at: ms UTC."""

    terms: GrantTerms
    status: str
    revoked_at: int | None


class GrantList(Rows, frozen=True):
    """Grants, by id."""

    grants: tuple[Grant, ...]

    def rows(self) -> tuple[Grant, ...]:
        """The grants."""
        return self.grants


class Grants(Part[M]):
    """``/v1/grants``."""

    @verb
    def preview(self, terms: Terms, use: Use, *, at: int | None = None) -> Exchange[Decision]:
        """What would be decided of a use under these terms. Nothing is issued. at: ms UTC, by default now."""
        body = {"terms": _body(terms), "use": _body(use), "at": at}
        return (yield from fetch(self._line, post("grants", "preview", body=body), Decision))

    @verb
    def begin_issue(self, terms: Terms, *, key: str = "") -> Exchange[Job]:
        """Begin to issue a grant. key: of this very use, so that it is begun once."""
        return (yield from begin(self._line, post("grants", body=_body(terms)), key))

    @verb
    def issue(self, terms: Terms, *, key: str = "", told: Callable[[Progress], None] | None = None) -> Exchange[Grant]:
        """Sign the terms, anchor their commitment, send them to the recipient; returns the grant."""
        job = yield from begin(self._line, post("grants", body=_body(terms)), key)
        yield from wait(self._line, job.job, told)
        listed = yield from fetch(self._line, get("grants"), GrantList)
        for one in listed.grants:
            if one.terms.grant == terms.grant:
                return _as_asked(one, terms)
        raise VerificationError("client.other_answer", field="grant")

    @verb
    def list(self) -> Exchange[GrantList]:
        """Grants that this organisation issued."""
        return (yield from fetch(self._line, get("grants"), GrantList))

    @verb
    def held(self) -> Exchange[GrantList]:
        """Grants that others gave this organisation."""
        return (yield from fetch(self._line, get("grants", "held"), GrantList))

    @verb
    def revoke(self, grant: str) -> Exchange[Written]:
        """Revoke a grant for good. Running uses stop at their next step."""
        from ledger.contracts.grants import RevokeGrant

        return (yield from write(self._line, post("grants", grant, "revoke"), RevokeGrant(grant)))


def _as_asked(grant: Grant, terms: Terms) -> Grant:
    """The grant, if these are its terms. Raises VerificationError."""
    from medveil.gateway.filters import NoFilter, parse_filter

    issued: dict[str, Any] = {name: getattr(grant.terms, name) for name in terms.__struct_fields__}
    asked = _body(terms)
    for said in (issued, asked):
        said |= {name: sorted(said[name]) for name in ("fields", "purposes", "uses")}
        try:
            said["filter"] = None if said["filter"] is None else parse_filter(said["filter"])
        except NoFilter:
            raise VerificationError("client.other_answer", field="filter") from None
    for name, value in asked.items():
        if issued[name] != value:
            raise VerificationError("client.other_answer", field=name)
    return grant


def _body(thing: Terms | Use) -> dict[str, Any]:
    """What is sent of it."""
    found = {name: getattr(thing, name) for name in thing.__struct_fields__}
    return found | {"filter": as_json(thing.filter)}
