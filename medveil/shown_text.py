"""Texts of others where people read them: on a terminal, on a page, as JSON.

A text that a member registered, a file brought or a gateway says may hold characters that nobody sees: such as move a
cursor, change a colour, or turn the order of what stands beside them (U+202E makes 12.5 read as 5.21).
"""

from __future__ import annotations

import re
from typing import Any

_BEYOND_ASCII = re.compile(r"[^\n\x20-\x7e]+")


def plain(text: str) -> str:
    """The text with a replacement character for each character that nobody sees; any blank is a plain one."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c == "\u3000" else "\ufffd" for c in text)


def json_text(body: Any) -> bytes:
    """JSON on indented lines, in UTF-8, a line's end at its end; what nobody sees is written as ``\\u`` and digits."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(body), indent=2).decode()
    return _BEYOND_ASCII.sub(_written, text).encode() + b"\n"


def json_line(body: Any) -> str:
    """The same in one line, without its end."""
    import msgspec

    return _BEYOND_ASCII.sub(_written, msgspec.json.encode(body).decode())


def _written(found: re.Match[str]) -> str:
    """Everything in JSON that is no printable ASCII stands inside a text, where ``\\u`` means the same."""
    text = found[0]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
