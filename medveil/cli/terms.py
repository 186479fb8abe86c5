"""The terms of a grant as a person writes them: a JSON file, a template of it, what each field means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medveil.cli import screen

if TYPE_CHECKING:
    from medveil.client import Terms
    from medveil.client.datasets import DatasetList

FILL_IN = "FILL IN: "
"""How a field begins that nobody but the issuer can know. Terms that still have one are not taken."""

BILLS = "bills"
"""The dataset of every hospital's bills, which the ledger does not declare, and its one field."""

USES = ("query", "score", "proof", "extract", "view", "export")

MEANINGS = {
    "grant": "its id, which no other grant has; uses and revoking name it.",
    "recipient": "the organisation that may use the data.",
    "dataset": "a dataset of yours on the ledger, or bills, for proofs about bills.",
    "fields": "the columns it may use, those of the filter included. Leave only what is needed.",
    "purposes": "codes of HL7 ActReason or GA4GH DUO, such as HMB (health research), ELIGVER (is somebody covered), "
    "FRAUD. Each covers what is below it.",
    "conditions": "codes of DUO's modifiers, such as NCU (no commercial use), IRB (ethics approval); may be empty.",
    "uses": "one or more of query (noised sums), score (flags of a reviewed model), proof (about a bill), extract (a "
    "file of rows), view (one record), export (records in bulk).",
    "legal_basis": "consent, separate-consent, contract, statutory-duty, public-health-emergency, public-record or "
    "other-law.",
    "consent_ref": "where the consents are filed; needed for consent and separate-consent.",
    "guardian_ref": "where the consents of guardians are filed, where children under 14 may be in the data.",
    "pia_ref": "where the assessment of the impact on the persons is filed; always needed.",
    "filter": "which rows, as docs/client.md shows filters; null for all.",
    "recipient_contact": "whom to reach there; may be empty.",
    "commercial": "true if it serves somebody's sales: needs separate-consent.",
    "jurisdiction": "the country where the recipient works with it, two letters.",
    "transfer_ref": "where the ground for a transfer abroad is filed; empty at home (CN).",
    "level_ceiling": "highest level (GB/T 39725, 1 to 5) of a column that may be used.",
    "class_ceiling": "general, important or core: the gravest class of the data that may be used.",
    "masks": "by column, what becomes of its cells in copies of records: keep, drop, surname, identity, phone, "
    "region:province, band:0,18,65, shift, pseudonym; by default what its level says.",
    "min_group": "fewest persons that look alike in an extract.",
    "keep_days": "how many days the recipient may keep a copy.",
    "not_before": "from when, UTC: a date, a time, or ms since 1970.",
    "review": "until when you will have looked at it again; it rests from then on, unless you confirm it.",
    "expires": "until when.",
    "delete_by": "when the recipient must have deleted what it got: then or later.",
    "records_until": "until when you keep the records of sharing: at least three years after the last use.",
    "epoch": "0; the revocation epoch at issue.",
}


def made_terms(
    dataset: str,
    recipient: str,
    *,
    declared: DatasetList,
    persons: frozenset[str],
    grant: str,
    fields: list[str],
    purposes: list[str],
    uses: list[str],
    days: int,
    legal_basis: str,
    consent_ref: str,
    pia_ref: str,
    now: int,
) -> dict[str, Any]:
    """A file's content. persons: populations whose unit is the person; fields: all that a query of the dataset may
    need, if none is named. now: ms UTC. Raises typer.BadParameter."""
    from wire.dates import format_instant

    owned = {one.dataset: one for one in declared.datasets if one.own and one.current}
    own = {name: [column.name for column in one.columns] for name, one in owned.items()}
    if dataset != BILLS and dataset not in own:
        have = ", ".join((*own, BILLS))
        raise typer.BadParameter(f"your organisation has no dataset {screen.shown(dataset)}; it has: {have}")
    if any(one.own and one.owner == recipient for one in declared.datasets):
        raise typer.BadParameter(f"{screen.shown(recipient)} holds the data itself; a grant is for another one")
    columns = own.get(dataset, ["amount"])
    table = owned.get(dataset)
    person = [table.person] if table is not None and table.person else []  # which the ledger does not declare
    if table is not None and table.population in persons:
        columns = [*columns, *person]  # every query of such a population reads it
    named = list(dict.fromkeys((*columns, *person)))
    strange = [name for name in fields if name not in named]
    if strange:
        raise typer.BadParameter(f"no such column: {', '.join(strange)}; {dataset} has: {', '.join(named)}")
    unknown = [use for use in uses if use not in USES]
    if unknown:
        raise typer.BadParameter(f"no such use: {', '.join(unknown)}; there are: {', '.join(USES)}")
    day = 86_400_000
    start = now - now % 1000
    return {
        "grant": grant or f"{uses[0]}-{dataset}-{recipient}-{format_instant(now)[:10]}"[:64].rstrip("-._"),
        "recipient": recipient,
        "dataset": dataset,
        "fields": fields or columns,
        "purposes": purposes,
        "uses": uses,
        "legal_basis": legal_basis,
        "consent_ref": consent_ref or f"{FILL_IN}where the consents are filed",
        "pia_ref": pia_ref or f"{FILL_IN}where the impact assessment is filed",
        "guardian_ref": "",
        "filter": None,
        "recipient_contact": "",
        "conditions": [],
        "commercial": False,
        "jurisdiction": "CN",
        "transfer_ref": "",
        "level_ceiling": 4,
        "class_ceiling": "general",
        "masks": {},
        "min_group": 5,
        "keep_days": days,
        "not_before": _written(start),
        "review": _written(start + days * day),
        "expires": _written(start + days * day),
        "delete_by": _written(start + 2 * days * day),
        "records_until": _written(start + (days + 3 * 365 + 1) * day),
        "epoch": 0,
    }


def _written(at: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at // 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_terms(path: Path) -> Terms:
    """The terms in a JSON file: instants as ms since 1970, or as dates and times. Raises typer.BadParameter."""
    import msgspec

    from medveil.client import Terms
    from medveil.history import instant

    said = parse_json(str(path), read_text(path))
    for name in ("not_before", "review", "expires", "delete_by", "records_until"):
        if isinstance(said.get(name), str):
            try:
                said[name] = instant(said[name], "UTC")
            except ValueError:
                raise typer.BadParameter(f"{name} is a date or time such as 2026-11-22") from None
    unknown = sorted(said.keys() - set(Terms.__struct_fields__))
    if unknown:
        raise typer.BadParameter(f"no such field: {', '.join(unknown)}; there are: {', '.join(MEANINGS)}")
    missing = [one.name for one in msgspec.structs.fields(Terms) if one.required and one.name not in said]
    if missing:
        said_of = "; ".join(f"{name}: {MEANINGS[name].rstrip('.')}" for name in missing)
        raise typer.BadParameter(f"missing: {said_of}. medveil grants template prints all of them")
    open_ones = [name for name, value in said.items() if isinstance(value, str) and value.startswith(FILL_IN)]
    if open_ones:
        raise typer.BadParameter(f"still to be filled in: {', '.join(open_ones)}")
    try:
        return msgspec.convert(said, type=Terms)
    except msgspec.ValidationError as error:
        raise typer.BadParameter(screen.shown(str(error))) from None


def read_text(path: Path) -> str:
    """A file's text, or standard input for "-". Raises Unavailable."""
    import sys

    from wire.errors import Unavailable

    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        raise Unavailable("client.unreadable", file=str(path)) from None


def parse_json(name: str, text: str) -> dict[str, Any]:
    """A JSON object, in which no name stands twice. Raises typer.BadParameter."""
    import json

    import msgspec

    from medveil.cli import language
    from wire.errors import DecodeError
    from wire.strict_json import names_differ

    try:
        msgspec.json.decode(text)  # strict about all but names that stand twice
        said = json.loads(text, object_pairs_hook=names_differ)
    except DecodeError as error:
        raise typer.BadParameter(f"{name}: {error.text(language())}") from None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise typer.BadParameter(f"{name} is no JSON object")
    return said
