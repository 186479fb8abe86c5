"""Names of organisations, chains and things; random public handles.

A name is lower-case ASCII, so that it sorts and prints the same everywhere. A handle is random and
carries 128 bits: nobody can enumerate it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

import msgspec

from wire.errors import DecodeError

NAME_PATTERN = r"^[a-z][a-z0-9]*([-_.][a-z0-9]+)*\Z"
_NAME = re.compile(NAME_PATTERN)

Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=64)]
"""An organisation, chain, dataset, population, field, grant or purpose id."""

Handle = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]

ROLES = (
    "bureau",
    "agency",
    "branch",
    "hospital",
    "pharmacy",
    "insurer",
    "maker",
    "distributor",
    "researcher",
    "regulator",
    "finance",
)


def check_name(name: str, what: str = "name") -> str:
    """`name` itself, or DecodeError. `what` says what kind of name it is, for the message."""
    if len(name) > 64 or not _NAME.fullmatch(name):
        raise DecodeError("wire.bad_name", what=what)
    return name


def new_handle(rand: Callable[[int], bytes]) -> bytes:
    """A fresh public handle: 16 random bytes."""
    return rand(16)
