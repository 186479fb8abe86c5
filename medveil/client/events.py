"""Server-sent events, read from bytes as they come.

Source: WHATWG HTML, 9.2 (parsing an event stream). Lines end in CR, LF or both; a line that begins with a colon is
a comment (the gateway's sign of life); an event without data is none.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from wire.errors import DecodeError

_LINE = re.compile(r"\r\n|\n|\r")
_LONGEST = 1024 * 1024
_MOST_LINES = 10_000
_LONGEST_RETRY = 60_000


class Event(NamedTuple):
    """One event. id: as last said by the stream."""

    id: str
    name: str
    data: str


class EventReader:
    """Bytes in, events out. retry: ms after which to come again when the stream breaks; last: id of the last event."""

    def __init__(self, last: str = "") -> None:
        self.last = last
        self.retry = 2000
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._name, self._data = "", list[str]()
        self._id = last

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes. Raises DecodeError for a line or an event without end."""
        text = self._rest + self._decoder.decode(chunk)
        held = "\r" if text.endswith("\r") else ""  # a line feed may follow
        lines = _LINE.split(text.removesuffix("\r"))
        self._rest = lines.pop() + held
        found = [event for line in lines if (event := self._line(line)) is not None]
        if len(self._rest) + sum(map(len, self._data)) > _LONGEST:
            raise DecodeError("client.unexpected_answer")
        return found

    def again(self) -> None:
        """A new stream begins: what was not complete is dropped."""
        self._decoder.reset()
        self._rest = self._name = ""
        self._data = []
        self._id = self.last

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            if len(self._data) >= _MOST_LINES:
                raise DecodeError("client.unexpected_answer")
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdecimal() and len(value) < 9:
            self.retry = min(int(value), _LONGEST_RETRY)
        return None

    def _end(self) -> Event | None:
        event = Event(self._id, self._name or "message", "\n".join(self._data)) if self._data else None
        self.last = self._id
        self._name, self._data = "", []
        return event
