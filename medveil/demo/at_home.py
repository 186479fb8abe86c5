"""Step 9: what a data officer does at home: explain, take down an opt-out, give a masked copy, revoke, erase.

hospital-1 holds visits of made-up patients, since the data sets name nobody. researcher-1 is granted a copy of them;
every number of this step comes from the gateways, as it would for real patients.
"""

from __future__ import annotations

import shutil

import msgspec

from ledger.contracts import RegisterPopulation
from medveil.demo import patients
from medveil.demo.facts import AtHomeFacts, ErasureFacts, ExtractFacts, OffendingFacts
from medveil.demo.grant import PURPOSE, terms
from medveil.demo.play import RECEIPTS, RESEARCHER, Play, hospital_name, now
from medveil.gateway.extract_drafts import RiskChoice
from medveil.gateway.extracting import ExtractWish
from privacy.explain import MASK_TITLES
from privacy.grants.levels import mask_of
from privacy.grants.terms import GrantTerms
from privacy.uses import UseRequest
from wire.errors import ConsentDenied, Refused
from wire.evidence import SUFFIX

HOSPITAL = hospital_name(1)
DATASET = f"{patients.NAME}-{HOSPITAL}"
GRANT = f"copy-{HOSPITAL}"
ERASURE = f"erasure{SUFFIX}"
FIELDS = ("charge", "department", "identity")


async def at_home(play: Play) -> AtHomeFacts:
    """All of it, in order."""
    officer, researcher = play.desks[HOSPITAL], play.desks[RESEARCHER]
    people = patients.patients()
    await _load(play)
    granted = _terms(now())
    await officer.issue(granted)
    explained = await officer.home.explain(RESEARCHER, DATASET, "en")
    explained_zh = await officer.home.explain(RESEARCHER, DATASET, "zh")

    wish = _wish(FIELDS)
    before = await officer.home.draft_extract(wish)
    opted_out = await officer.home.opt_out(people[0].identity, "use", "extract")
    seen = await officer.home.draft_extract(wish)
    refusals = [await _too_few(play, wish)]
    kept = msgspec.structs.replace(wish.choice, withhold=True)
    extract = await officer.home.make_extract(msgspec.structs.replace(wish, choice=kept))
    rows = await researcher.home.open_extract(extract)
    await officer.home.revoke(GRANT)
    refusals += [await _revoked(play, wish), await _closed(play, extract)]
    copy = ExtractFacts(
        grant=GRANT,
        recipient=RESEARCHER,
        columns={column: MASK_TITLES[mask_of(column, mask).kind][0] for column, mask in seen.columns},
        known=list(seen.known),
        rows=before.rows,
        rows_after=seen.rows,
        groups=seen.groups,
        persons=seen.persons,
        least=seen.least,
        offending=[OffendingFacts(list(one.values), one.rows, one.persons) for one in seen.offends],
        withheld=seen.rows - seen.left,
        received=rows.num_rows,
        received_columns=rows.column_names,
        example=[str(cell) for cell in rows.slice(0, 1).to_pylist()[0].values()],
        recalled=await officer.home.recalled(extract),
    )
    if (copy.rows - copy.rows_after, copy.received) != (patients.VISITS, seen.left):
        raise Refused("demo.cheat_worked", what="an opt-out that does not count")

    receipt = play.folder / RECEIPTS / ERASURE
    receipt.parent.mkdir(mode=0o700)
    gone = await officer.home.erase(people[1].identity, f"{HOSPITAL}/requests/2026-11", receipt)
    checked = await officer.home.check_erased(people[1].identity, receipt)
    facts = AtHomeFacts(
        hospital=HOSPITAL,
        dataset=DATASET,
        patients=len(people),
        explained=explained,
        explained_zh=explained_zh,
        opted_out=opted_out,
        extract=copy,
        refusals=refusals,
        erasure=ErasureFacts(
            rows=gone.rows,
            keys=gone.keys,
            files=checked.files,
            found=list(checked.found),
            told=list(gone.told),
            beyond=list(checked.beyond),
        ),
    )
    if facts.erasure.found or facts.erasure.told != [RESEARCHER]:
        raise Refused("demo.cheat_worked", what="an erasure that left something")
    _tell(play, facts)
    return facts


async def _load(play: Play) -> None:
    """hospital-1 opens a population of its own, loads its table and says what the columns are."""
    officer, layout = play.desks[HOSPITAL], patients.LAYOUT
    await officer.register_population(
        RegisterPopulation(layout.population, layout.unit, layout.rows_per_person, layout.colluders, (HOSPITAL,))
    )
    source = play.data / HOSPITAL / patients.NAME
    table = patients.write_source(source)
    await officer.load(DATASET, layout, table, patients.TABLE)
    shutil.rmtree(source)
    await officer.home.classify(patients.facts(DATASET))


def _terms(at: int) -> GrantTerms:
    """A copy of single visits for research: the diagnosis is named, and above the ceiling."""
    named = (*FIELDS, "diagnosis")
    return terms(GRANT, HOSPITAL, RESEARCHER, DATASET, tuple(sorted(named)), PURPOSE, "extract", at)


def _wish(fields: tuple[str, ...]) -> ExtractWish:
    request = UseRequest(
        holder=HOSPITAL, recipient=RESEARCHER, dataset=DATASET, fields=fields, kind="extract", purpose=PURPOSE
    )
    return ExtractWish(b"", GRANT, request, RiskChoice(sensitive=("charge",)))


async def _too_few(play: Play, wish: ExtractWish) -> str:
    """An extract with a group of too few is not made."""
    try:
        await play.desks[HOSPITAL].home.make_extract(wish)
    except Refused as no:
        return no.text()
    raise Refused("demo.cheat_worked", what="an extract of too few alike")


async def _revoked(play: Play, wish: ExtractWish) -> str:
    """No second extract once the grant is revoked."""
    try:
        await play.desks[HOSPITAL].home.make_extract(wish)
    except ConsentDenied as no:
        return no.text()
    raise Refused("demo.cheat_worked", what="an extract under a revoked grant")


async def _closed(play: Play, extract: bytes) -> str:
    """Nor does the recipient's gateway open the first again."""
    try:
        await play.desks[RESEARCHER].home.open_extract(extract)
    except Refused as no:
        return no.text()
    raise Refused("demo.cheat_worked", what="a copy under a revoked grant")


def _tell(play: Play, facts: AtHomeFacts) -> None:
    say, copy, gone = play.narrator.say, facts.extract, facts.erasure
    say(f"{facts.hospital} holds visits of {facts.patients} patients (synthetic) and grants {copy.recipient} a copy of")
    say(f"their rows. Its data officer asks what {copy.recipient} may do with them, and why not more:")
    for line in (*facts.explained, *facts.explained_zh):
        say(line, style="yellow")
    say(f"A patient opts out: {facts.opted_out}")
    say(f"The next draft of the copy has {copy.rows_after} rows instead of {copy.rows}:")
    say("; ".join(f"{column}: {what}" for column, what in copy.columns.items()) + ".")
    say(f"By {', '.join(copy.known)} there are {copy.groups} groups,")
    say(f"the smallest of {copy.persons} persons; {copy.least} are needed. The officer sees which it is:")
    for group in copy.offending:
        say(f"{', '.join(group.values)}: {group.persons} persons, {group.rows} rows", style="yellow")
    say(f"Made with them: {facts.refusals[0]}", style="yellow")
    say(f"Without those {copy.withheld} rows it is announced on the ledger, sealed to {copy.recipient} and sent, which")
    say(f"opens {copy.received} rows in memory; the first: {', '.join(copy.example)}.")
    say("The officer revokes the grant.")
    say(f"A second copy: {facts.refusals[1]}", style="yellow")
    say(f"The first, opened again: {facts.refusals[2]}", style="yellow")
    if copy.recalled:
        say(f"{copy.recipient}'s gateway is told, and says under its signature: the sealed file is {copy.recalled}.")
    else:
        say(f"Gateways tell each other once a minute: {copy.recipient}'s deletes the sealed file then and says so.")
    say(f"Another patient asks to be erased: the data key of {gone.rows} rows is destroyed, the snapshot cut anew, the")
    say(f"key epoch rotated. The receipt in {RECEIPTS}/ lists {', '.join(gone.told) or 'nobody'} as holder of a copy.")
    say(f"ok  no key to those rows and not the patient's number in {gone.files} files of the home", style="green")
