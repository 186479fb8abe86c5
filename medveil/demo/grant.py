"""Step 3: data officers grant the researcher named fields; a request outside the grant is denied in words."""

from __future__ import annotations

from medveil.demo.facts import GrantFacts
from medveil.demo.play import RESEARCHER, Play, now
from medveil.demo.query import plan_query
from medveil.gateway.serving import use_request
from privacy.decide import Decision
from privacy.grants.purposes import purpose
from privacy.grants.terms import GrantTerms, UseKind, plain_terms
from wire.dates import format_instant
from wire.errors import ConsentDenied, Refused

PURPOSE = "HMB"
OTHER_PURPOSE = "HMARKT"
_DAY = 86_400_000
_DAYS = 90


def terms(
    grant: str,
    issuer: str,
    recipient: str,
    dataset: str,
    fields: tuple[str, ...],
    purpose_code: str,
    use: UseKind,
    at: int,
) -> GrantTerms:
    """The terms of one of the demo's grants: one recipient, one way of use, ninety days."""
    expires = at + _DAYS * _DAY
    return plain_terms(
        grant,
        issuer,
        recipient,
        dataset,
        fields,
        purposes=(purpose_code,),
        uses=(use,),
        legal_basis="separate-consent",
        not_before=at,
        expires=expires,
        recipient_contact=f"data protection officer of {recipient}",
        consent_ref=f"{issuer}/consents/2026-11",
        pia_ref=f"{issuer}/impact-assessments/{grant}",
        delete_by=at + 2 * _DAYS * _DAY,
    )


async def grant(play: Play) -> GrantFacts:
    """Each hospital grants; then the researcher asks for a field that nobody granted."""
    study = play.layout.study
    if study is None:
        raise Refused("demo.no_study", layout=play.layout.name)
    # Where the person is the unit, the column that names it is read at home, to cap the rows of each.
    person = {play.layout.person} if play.layout.unit == "person" else set()
    fields = tuple(sorted({study.measure, *study.groups} | person))
    names = []
    at = now()
    for name, site in play.sites.items():
        granted = terms(f"study-{name}", name, RESEARCHER, site.dataset, fields, PURPOSE, "query", at)
        await play.desks[name].issue(granted)
        names.append(granted.grant)
    asked, decision = await _ask_outside(play, fields)
    facts = GrantFacts(
        grants=names,
        recipient=RESEARCHER,
        fields=list(fields),
        purpose=f"{PURPOSE}, {purpose(PURPOSE).title()}",
        legal_basis="separate-consent",
        not_before=format_instant(at),
        expires=format_instant(at + _DAYS * _DAY),
        denied_use=asked,
        denial=decision.text(),
        denial_zh=decision.text("zh"),
        rule=decision.rule,
    )
    say = play.narrator.say
    say(f"{len(names)} grants to {facts.recipient}: fields {', '.join(fields)}; purpose {facts.purpose};")
    say(f"until {facts.expires}. The ledger holds salted commitments of the terms.")
    say(f"Then {facts.recipient} asked for {asked}:")
    say(facts.denial, style="yellow")
    say(facts.denial_zh, style="yellow")
    return facts


async def _ask_outside(play: Play, fields: tuple[str, ...]) -> tuple[str, Decision]:
    """A real query outside the grant; every site decides for itself and says no.

    For a number column that was not granted; where there is none, for a purpose that was not.
    """
    layout = play.layout
    other = next((c for c in layout.read_columns if c.kind == "number" and c.name not in fields), None)
    if other is None:
        query = plan_query(play, OTHER_PURPOSE)
        asked = f"the same fields for {purpose(OTHER_PURPOSE).title()} ({OTHER_PURPOSE})"
    else:
        query = plan_query(play, PURPOSE, measure=other.name)
        asked = f"the mean of {other.name} ({layout.label(other.name).title})"
    try:
        await play.desks[RESEARCHER].ask(query)
    except ConsentDenied:
        # The same decision once more, for its words in both languages: every site decides so.
        site = next(iter(play.sites))
        decision = await play.desks[site].preview(use_request(query, site, RESEARCHER))
        if not decision.allowed:
            return asked, decision
    raise Refused("demo.not_denied")
