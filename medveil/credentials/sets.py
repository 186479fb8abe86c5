"""Signed sets in files: published by a bureau, whole; a holder finds her own row in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from medveil.credentials import files
from medveil.credentials.files import SetFile
from medveil.credentials.folder import Rand
from wire.errors import DecodeError, Refused
from wire.identifiers import check_name
from zkp import membership
from zkp.membership import Filing, Member


def parse_members(kind: str, lines: Iterable[str]) -> list[Member]:
    """One member a line: a handle in hex (*active*), a code (*covered*), or handle, code, first and last day
    (*filed*; days as 2025-12-11, last "-" for no end). Raises DecodeError, naming the line."""
    members: list[Member] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            if kind == "active":
                (handle,) = words
                membership.FILING.scalar("handle", bytes.fromhex(handle))
                members.append(bytes.fromhex(handle))
            elif kind == "covered":
                (code,) = words
                membership.FILING.scalar("code", code)
                members.append(code)
            else:
                handle, code, first, last = words
                until = 65535 if last == "-" else files.parse_day(last)
                filing = Filing(bytes.fromhex(handle), code, files.parse_day(first), until)
                membership.FILING.scalars(filing.named)
                members.append(filing)
        except (ValueError, DecodeError):
            raise DecodeError("credential_files.member", line=number, kind=kind) from None
    return members


def publish(
    kind: Literal["active", "covered", "filed"], name: str, version: int, members: Sequence[Member], rand: Rand
) -> SetFile:
    """Bureau: one version of a set. Its secret key is drawn here and kept nowhere. Raises DecodeError."""
    check_name(name, "set")
    secret, key = membership.new_version(kind, name, version, rand)
    try:
        return SetFile(files.SET, membership.publish(secret, key, members))
    except ValueError:
        raise DecodeError("credential_files.member", line=0, kind=kind) from None


def row_of(sets: Sequence[SetFile], key: membership.SetKey, members: Sequence[Member]) -> membership.Row:
    """Holder: the row of the first of `members` that stands in the set of that key, one of `sets`. Raises Refused."""
    for each in sets:
        if each.published.key == key:
            for member in members:
                try:
                    return membership.find(each.published, member)
                except Refused:
                    continue
            raise Refused("membership.not_in_set", set=key.name, version=key.version)
    raise Refused("credential_files.no_set", set=key.name, version=key.version)


def diagnosis_of(
    sets: Sequence[SetFile], key: membership.SetKey, filings: Sequence[Member], handle: bytes, code: str, day: int
) -> membership.Row:
    """Holder: the row for her diagnosis: its code on a public list, or the one of her filings that is of this handle,
    code and day. Raises Refused."""
    if key.kind == "covered":
        return row_of(sets, key, [code])
    of_day = [
        one
        for one in filings
        if isinstance(one, Filing) and (one.handle, one.code) == (handle, code) and one.first <= day <= one.last
    ]
    return row_of(sets, key, of_day)
