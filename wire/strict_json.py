"""JSON that means one thing to whoever reads it: of two values under one name, nobody knows which was meant.

A hook for the standard library's reader, which lets the last of them count. Source: RFC 8259, section 4.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from wire.errors import DecodeError

_SHOWN = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}")


def shown_name(name: str) -> str:
    """A name as an error may show it: another text may be anything, and is "?"."""
    return name if _SHOWN.fullmatch(name) else "?"


def names_differ(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ: ``json.loads(text, object_pairs_hook=names_differ)``. Raises DecodeError."""
    found = dict(pairs)
    if len(found) != len(pairs):
        often = Counter(name for name, _ in pairs)
        raise DecodeError("wire.name_twice", field=shown_name(next(name for name in often if often[name] > 1)))
    return found
