"""Checks of erasures that a running gateway made: the last one of each erasure, kept for whoever asked for it."""

from __future__ import annotations

from typing import Annotated, Self

import msgspec

from medveil.gateway.organisation import Organisation
from privacy.erasure.check import CheckReport
from privacy.erasure.receipt import ErasureReceipt
from wire import evidence, messages
from wire.canonical import Wire, decode, encode
from wire.dates import Instant
from wire.errors import DecodeError, MedveilError, Refused
from wire.identifiers import Handle

_KIND = "erasure-check"
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class Fact(Wire, frozen=True, tag="medveil.leftover_fact"):
    """A fact of a sentence, by its name."""

    name: str
    said: str


class Left(Wire, frozen=True, tag="medveil.leftover"):
    """Something that should be gone and is not: a code of the message catalogues with its facts."""

    code: str
    facts: tuple[Fact, ...]

    def text(self, language: str = "en") -> str:
        """The sentence and what to do, in "en" or "zh"."""
        return messages.text(self.code, {fact.name: fact.said for fact in self.facts}, language)


class CheckKept(Wire, frozen=True, tag="medveil.erasure_check"):
    """What a check at instant `at` saw, as `privacy.erasure.check.CheckReport`. beyond: what the receipt says that the
    erasure does not reach."""

    erasure: Handle
    at: Instant
    keys: Count
    files: Count
    bytes: Count
    unread: tuple[str, ...]
    links: tuple[str, ...]
    snapshots: Count
    server: bool
    leftovers: tuple[Left, ...]
    beyond: tuple[str, ...]

    @classmethod
    def of(cls, receipt: ErasureReceipt, report: CheckReport, at: int) -> Self:
        """What a check of `receipt` found."""
        leftovers = tuple(
            Left(one.code, tuple(Fact(name, str(said)) for name, said in one.facts.items())) for one in report.leftovers
        )
        return cls(
            receipt.erasure,
            at,
            report.keys,
            report.files,
            report.bytes,
            report.unread,
            report.links,
            report.snapshots,
            report.server,
            leftovers,
            receipt.beyond,
        )


def read_receipt(data: bytes, file: str) -> ErasureReceipt:
    """The receipt in its canonical bytes; whether it is signed is not looked at. file: for the error.

    Raises DecodeError: no receipt of an erasure.
    """
    from medveil.verification.kinds import register_all

    register_all()
    try:
        found = evidence.read(data)
    except MedveilError:
        raise DecodeError("privacy.no_receipt", file=file) from None
    if not isinstance(found, ErasureReceipt):
        raise DecodeError("privacy.no_receipt", file=file)
    return found


def keep_check(organisation: Organisation, checked: CheckKept) -> None:
    """Keep it in place of the erasure's last one."""
    organisation.vault.put_document(_KIND, checked.erasure.hex(), encode(checked))


def kept_check(organisation: Organisation, erasure: str) -> CheckKept:
    """The last check of an erasure, by its id in hex. Raises Refused where there was none."""
    found = organisation.vault.find_document(_KIND, erasure)
    if found is None:
        raise Refused("gateway.no_check", erasure=erasure)
    return decode(CheckKept, found)
