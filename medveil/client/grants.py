"""Grants: what one organisation permits another to do with its data, previewed, issued, held, revoked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from medveil.client.exchange import Exchange, M, Part, Work, verb
from medveil.client.filters import AnyFilter, as_json
from medveil.client.frames import Instant, Rows
from medveil.client.jobs import Job, Progress, begin, wait
from medveil.client.line import fetch, get, octets, post, same
from medveil.client.written import Written, write
from wire.errors import VerificationError

if TYPE_CHECKING:
    from privacy.grants.consent_receipt import ConsentReceipt
    from wire.checkpoint import TrustFile


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is permitted, to whom; the issuer is this organisation.

    fields: columns, those of the filter included. filter: which rows, None for all. purposes: each covers what is
    below it. conditions: codes of DUO's modifiers. uses: of "query", "score", "proof", "extract", "view", "export".
    commercial: needs legal basis "separate-consent". consent_ref, guardian_ref, pia_ref: where consents, those of
    guardians of children under 14, and the impact assessment are filed. transfer_ref: the transfer mechanism where
    `jurisdiction` is abroad. level_ceiling, class_ceiling: of the data that may be used. masks: by field, in copies of
    records, where not those of its level. min_group: fewest persons alike in an extract. keep_days: how long a copy may
    be kept. not_before, review (None: expires), expires, delete_by, records_until (None: three years later): ms UTC.
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
    conditions: tuple[str, ...] = ()
    guardian_ref: str = ""
    level_ceiling: int = 4
    class_ceiling: str = "general"
    masks: dict[str, str] = {}
    min_group: int = 5
    keep_days: int = 36_600
    review: Instant | None = None
    records_until: Instant | None = None


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
    """The terms of a grant as they were issued. version: of the terms as they were signed."""

    version: int
    grant: str
    issuer: str
    recipient: str
    recipient_contact: str
    dataset: str
    fields: tuple[str, ...]
    filter: dict[str, Any] | None
    purposes: tuple[str, ...]
    conditions: tuple[str, ...]
    uses: tuple[str, ...]
    commercial: bool
    legal_basis: str
    consent_ref: str
    guardian_ref: str
    pia_ref: str
    jurisdiction: str
    transfer_ref: str
    level_ceiling: int
    class_ceiling: str
    masks: dict[str, str]
    min_group: int
    keep_days: int
    not_before: Instant
    review: Instant
    expires: Instant
    delete_by: Instant
    records_until: Instant
    epoch: int


class Grant(msgspec.Struct, frozen=True):
    """A grant. status: on the ledger, not-anchored, not-yet, in-force, expired or revoked; revoked_at: ms UTC.

    reviewed_until: the next review, set when it was last confirmed, or None; of one's own grants.
    """

    terms: GrantTerms
    status: str
    revoked_at: Instant | None
    reviewed_until: Instant | None = None


class ColumnUse(msgspec.Struct, frozen=True):
    """A column that may be used. mask: what becomes of its cells where records leave, else keep."""

    column: str
    level: int
    mask: str

    def __str__(self) -> str:
        return self.column if self.mask == "keep" else f"{self.column} ({self.mask})"


class GrantedUse(msgspec.Struct, frozen=True):
    """One way in which a grant can be used now, or cannot. words: all of it.

    columns: none where it is not allowed at all. not_met: the rules that a use of all granted columns would not meet.
    excluded: scopes of opt-outs that are left out. until: when it ends or rests, ms UTC.
    """

    grant: str
    recipient: str
    kind: str
    purpose: str
    allowed: bool
    columns: tuple[ColumnUse, ...]
    not_met: tuple[str, ...]
    excluded: tuple[str, ...]
    until: Instant
    words: str


class GrantedUses(Rows, frozen=True):
    """What somebody may do with a dataset, grant by grant."""

    uses: tuple[GrantedUse, ...]

    def rows(self) -> tuple[GrantedUse, ...]:
        """The uses."""
        return self.uses


class Sight(msgspec.Struct, frozen=True):
    """A way in which somebody gets at a column. cell: records' own cells leave; otherwise it counts in results."""

    grant: str
    recipient: str
    kind: str
    purpose: str
    cell: bool
    mask: str
    until: Instant
    words: str


class Sights(Rows, frozen=True):
    """Everybody who gets at a column."""

    sights: tuple[Sight, ...]

    def rows(self) -> tuple[Sight, ...]:
        """The ways."""
        return self.sights


class Review(msgspec.Struct, frozen=True):
    """A grant was confirmed until its next review, ms UTC."""

    grant: str
    at: Instant
    next: Instant


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
    def explain(self, recipient: str, dataset: str) -> Exchange[GrantedUses]:
        """What `recipient` may do with a dataset of one's own now, and why not."""
        return (
            yield from fetch(self._line, get("grants", "explained", recipient=recipient, dataset=dataset), GrantedUses)
        )

    @verb
    def seen(self, dataset: str, column: str) -> Exchange[Sights]:
        """By whom, how and for what a column of a dataset of one's own can be used now."""
        return (yield from fetch(self._line, get("grants", "seen", dataset=dataset, column=column), Sights))

    @verb
    def review(self, grant: str, following: int) -> Exchange[Review]:
        """Confirm a grant of one's own until its next review, ms UTC."""
        made = yield from fetch(self._line, post("grants", grant, "review", body={"next": following}), Review)
        return same(made, grant=grant, next=following)

    @verb
    def receipt(self, grant: str) -> Exchange[bytes]:
        """A grant of one's own as a signed FHIR Consent: the canonical receipt, checked.

        Raises VerificationError for one that no key of its issuer in the pinned trust file signed.
        """
        data = yield from octets(self._line, get("grants", grant, "receipt"))
        trust = self._line.pinned.needed()
        yield Work(partial(check_handed, data, grant, trust))
        return data

    @verb
    def revoke(self, grant: str) -> Exchange[Written]:
        """Revoke a grant for good. Running uses stop at their next step."""
        from ledger.contracts.grants import RevokeGrant

        return (yield from write(self._line, post("grants", grant, "revoke"), RevokeGrant(grant)))


def check_handed(data: bytes, grant: str, trust: TrustFile) -> ConsentReceipt:
    """The receipt of a grant in its canonical bytes, checked by the issuer's keys in a trust file.

    grant: its id, or "" for whichever. Raises DecodeError, VerificationError.
    """
    from medveil.verification.consents import check_signed
    from privacy.grants.consent_receipt import ConsentReceipt
    from wire.canonical import decode

    receipt = decode(ConsentReceipt, data)
    if receipt.grant != (grant or receipt.grant):
        raise VerificationError("client.other_answer", field="grant")
    check_signed(receipt, trust)
    return receipt


def _as_asked(grant: Grant, terms: Terms) -> Grant:
    """The grant, if these are its terms. Raises VerificationError."""
    from privacy.filters import NoFilter, parse_filter

    issued: dict[str, Any] = {name: getattr(grant.terms, name) for name in terms.__struct_fields__}
    asked = _body(terms)
    for said in (issued, asked):
        said |= {name: sorted(said[name]) for name in ("fields", "purposes", "conditions", "uses")}
        try:
            said["filter"] = None if said["filter"] is None else parse_filter(said["filter"])
        except NoFilter:
            raise VerificationError("client.other_answer", field="filter") from None
    for name, value in asked.items():
        left_open = value is None and name in ("review", "records_until")
        if issued[name] != value and not left_open:
            raise VerificationError("client.other_answer", field=name)
    return grant


def _body(thing: Terms | Use) -> dict[str, Any]:
    """What is sent of it."""
    found = {name: getattr(thing, name) for name in thing.__struct_fields__}
    return found | {"filter": as_json(thing.filter)}
