"""The three credentials of one holder: person, account, encounter. Their schemas, and their issuers' keys.

    person      bureau     who is insured, under which scheme, from when to when
    account     bureau     what one payer's layer has left for her in a year; renewed by every payment (`zkp.account`)
    encounter   hospital   one bill: where, when, which diagnosis, total and totals by class

All three are signed over one `secret`, which only the holder knows and in which the bureau has a share, so that
nobody picks her own, or another's. How they are issued: `zkp.issuance`. docs/protocols/credentials.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wire.domains import ISSUER_KEY, ISSUER_SHARE, keyed
from zkp import bbs
from zkp.attributes import BLIND, SECRET, Schema, build
from zkp.bbs_presentation import Issued
from zkp.groups import Backend, R

PERSON: Final = build(
    "medveil.person",
    1,
    [
        ("scheme", "text"),
        ("insutype", "text"),
        ("psn_type", "text"),
        ("region", "text"),
        ("sex", "text"),
        ("birth", "day"),
        ("valid_from", "day"),
        ("valid_to", "day"),
        ("handle", "handle"),
    ],
)
"""Codes of the national dictionaries; handle: random, fresh for each epoch, known to bureau and holder."""

ACCOUNT: Final = build(
    "medveil.account",
    1,
    [
        ("payer", "name"),
        ("layer", "number", 8),
        ("year", "number", 16),
        ("visits", "number", 16),
        ("cap", "number", 40),
        ("deductible", "number", 40),
        ("serial", "scalar"),
    ],
)
"""cap, deductible: what is left of them, in minor units; serial: holder's share + bureau's share."""

CLASSES: Final = tuple(f"class_{number}" for number in range(1, 9))
"""The encounter's totals by class, in order."""

ENCOUNTER: Final = build(
    "medveil.encounter",
    1,
    [
        ("bill", "handle"),
        ("hospital", "name"),
        ("level", "text"),
        ("med_type", "text"),
        ("day", "day"),
        ("diagnosis", "text"),
        ("total", "number", 40),
        *((name, "number", 32) for name in CLASSES),
    ],
)
"""bill: the public handle on the ledger; day: civil day of service; amounts in minor units."""

SCHEMAS: Final = {schema.id: schema for schema in (PERSON, ACCOUNT, ENCOUNTER)}

HIDDEN: Final[Mapping[str, tuple[str, ...]]] = {
    PERSON.name: (SECRET, BLIND),
    ACCOUNT.name: (SECRET, "serial", BLIND),
    ENCOUNTER.name: (SECRET, BLIND),
}
"""What stands in C when a credential is first issued; the rest the issuer knows."""

SHARED: Final[Mapping[str, tuple[str, ...]]] = {PERSON.name: (SECRET,), ACCOUNT.name: ("serial",), ENCOUNTER.name: ()}
"""What the issuer adds a share to."""


@dataclass(frozen=True, repr=False)
class Issuer:
    """An issuer's secrets for one schema: the signing key, and the key of the shares. Keep in a key provider."""

    sk: int
    share_key: bytes
    of: Issued


def issuer(key_material: bytes, schema: Schema, group: Backend | None = None) -> Issuer:
    """Issuer: keys for `schema` from at least 32 secret random bytes. Each schema gets keys of its own."""
    sk = bbs.key_gen(key_material, schema.header, bbs.CREDENTIALS.api_id + b"KEYGEN_DST_")
    return Issuer(sk, keyed(key_material, ISSUER_KEY, schema.header), Issued(schema, bbs.sk_to_pk(sk, group)))


def share(key: bytes, *what: bytes) -> int:
    """The issuer's share (0..R-1) for `what`, such as an op id: a PRF, so that every retry gets the same."""
    wide = b"".join(keyed(key, ISSUER_SHARE, bytes([half]), *what) for half in (0, 1))
    return int.from_bytes(wide, "big") % R
