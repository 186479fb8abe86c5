"""The service's log: JSON lines on standard error, whose every field stands on a list.

A line can hold what an operator needs (which route, which status, how long, which job) and nothing that a
caller wrote: a field that is not on the list, or whose value is not of its shape, is left out, and the line
says how many were. So a record, a token, a query or a body cannot get in, whoever calls. Texts are names of
the program's own: events, routes and kinds of jobs are registered before they can be logged.

Lines of libraries (the standard `logging`) keep level, logger and place in the source; their text, which may
quote a request, is left out, and so is the text of an exception.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import msgspec
import structlog

from wire import messages
from wire.errors import MedveilError

Clock = Callable[[], int]

EVENTS = frozenset(
    {
        "request",
        "fault",
        "library",
        "listening",
        "stopping",
        "stopped",
        "part.started",
        "part.closed",
        "part.failed",
        "job.waiting",
        "job.running",
        "job.resumed",
        "job.paused",
        "job.done",
        "job.failed",
        "job.cancelled",
        "jobs.forgotten",
        "peers.put_off",
        "extracts.deleted",
        "extracts.listed",
        "stream.dropped",
        "denial_not_kept",
        "tls.refused",
        "keys.batch",
        "keys.batch_done",
        "keys.exceeded",
        "keys.refused",
        "keys.altered",
        "keys.unavailable",
        "keys.rotated",
        "keys.overdue",
        "erasure.done",
        "erasure.due",
    }
)
"""All events there are. A part that logs adds its own here, so that the list stays on one screen."""

_HEX = re.compile(r"[0-9a-f]{32}\Z")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z_0-9]{0,59}\Z")
_DOTTED = re.compile(r"[A-Za-z_]+(\.[A-Za-z_]+){0,7}\Z")
_PLACE = re.compile(r"[a-z_]+(\.[a-z_0-9]+){0,7}:\d{1,6}\Z")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER"})
_STATES = frozenset({"waiting", "running", "done", "failed", "cancelled"})
_SIGNALS = frozenset({"SIGTERM", "SIGINT"})


class Vocabulary:
    """Names that only a running service knows: its routes' templates, its kinds of jobs, its parts."""

    def __init__(self) -> None:
        self.names: set[str] = {"other"}

    def add(self, *names: str) -> None:
        """Allow `names`, which come from the program's source, never from a request."""
        self.names.update(names)

    def known(self, name: str) -> str:
        """`name` if it was added, else "other"."""
        return name if name in self.names else "other"


def _text(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and len(value) <= 200 and pattern.match(value) is not None


def _among(names: frozenset[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in names


def _number(most: float) -> Callable[[object], bool]:
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "request": _text(_UUID),
    "method": _among(_METHODS),
    "status": lambda value: isinstance(value, int) and 0 <= value <= 599,
    "duration_ms": _number(1e8),
    "job": _text(_HEX),
    "state": _among(_STATES),
    "reason": lambda value: isinstance(value, str) and value in messages.catalogue("en"),  # an error's code
    "fault": _text(_IDENTIFIER),  # the class of an exception
    "place": _text(_PLACE),
    "logger": _text(_DOTTED),
    "trace": _text(_HEX),
    "count": _number(1e9),  # less than a phone number
    "port": _number(65535),
    "signal": _among(_SIGNALS),
}
_NAMED = ("route", "kind", "part")
"""Fields whose value is a name of the vocabulary."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log(Protocol):
    """Where the service logs. Each call: an event of EVENTS, and fields of the list."""

    def debug(self, event: str, **fields: object) -> None: ...
    def info(self, event: str, **fields: object) -> None: ...
    def warning(self, event: str, **fields: object) -> None: ...
    def error(self, event: str, **fields: object) -> None: ...


class _Allowed:
    """The last step but one of every line: what is not on the list leaves."""

    def __init__(self, organisation: str, vocabulary: Vocabulary, clock: Clock) -> None:
        self._organisation = organisation
        self._vocabulary = vocabulary
        self._clock = clock

    def __call__(self, _logger: object, level: str, given: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event = given.pop("event", None)
        given.pop("level", None)  # the level is the call's, whatever a field says
        now = datetime.fromtimestamp(self._clock() / 1000, tz=UTC)
        line: dict[str, Any] = {
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "event": event if isinstance(event, str) and event in EVENTS else "other",
            "organisation": self._organisation,
        }
        left_out = 0 if line["event"] == event else 1
        for name, value in given.items():
            if value is None:
                continue
            if name in _NAMED and isinstance(value, str):
                line[name] = self._vocabulary.known(value)
            elif name in _FIELDS and _FIELDS[name](value):
                line[name] = value
            else:
                left_out += 1
        if left_out:
            line["left_out"] = left_out
        return line


def _line(_logger: object, _level: str, fields: MutableMapping[str, Any]) -> bytes:
    return msgspec.json.encode(fields)


class _Lines(structlog.BytesLogger):
    """Writes lines. One that cannot be written (whoever read them is gone, the disk is full) is lost, and nothing else:
    a gateway serves and stops without its log."""

    def msg(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


def make_log(
    organisation: str,
    vocabulary: Vocabulary,
    clock: Clock,
    level: str = "info",
    file: Any = None,
) -> Log:
    """The log of one organisation's process. clock: ms UTC. file: binary, standard error by default.

    Raises ValueError for a level that is not debug, info, warning or error.
    """
    if level not in _LEVELS:
        raise ValueError(f"no log level {level!r}; there are {', '.join(_LEVELS)}")
    made = structlog.wrap_logger(
        _Lines(file if file is not None else sys.stderr.buffer),
        processors=[_Allowed(organisation, vocabulary, clock), _line],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    return cast(Log, made)


def place_of(error: BaseException) -> str | None:
    """Where in the source `error` was raised, as "module:line": the innermost frame of this product, if any."""
    frames = [(frame.f_globals.get("__name__", ""), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if frame[0].split(".")[0] in _OWN] or frames
    return f"{own[-1][0]}:{own[-1][1]}" if own else None


_OWN = frozenset({"medveil", "ledger", "mpc", "connectors", "zkp", "privacy", "wire"})


def about(error: BaseException) -> dict[str, object]:
    """The fields that say what an error was: its code or class, and its place. Never its text."""
    reason = error.code if isinstance(error, MedveilError) else None
    return {"reason": reason, "fault": type(error).__name__, "place": place_of(error)}


class LibraryLines(logging.Handler):
    """Passes on what libraries log through the standard `logging`, without their texts."""

    def __init__(self, log: Log, level: int = logging.WARNING) -> None:
        super().__init__(level)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        error = record.exc_info[1] if record.exc_info else None
        say = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        say(
            "library",
            logger=record.name,
            place=f"{record.module.lower()}:{record.lineno}",
            fault=type(error).__name__ if error is not None else None,
        )


def take_library_lines(log: Log) -> Callable[[], None]:
    """From now on libraries' lines of the whole process go to `log` alone. Returns what undoes it."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    named = {name: logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")}
    had = {name: (list(logger.handlers), logger.propagate) for name, logger in named.items()}
    root.handlers[:] = [LibraryLines(log)]
    for logger in named.values():
        logger.handlers[:], logger.propagate = [], True

    def undo() -> None:
        root.handlers[:] = before
        root.setLevel(level)
        for name, (handlers, propagate) in had.items():
            named[name].handlers[:], named[name].propagate = handlers, propagate

    return undo
