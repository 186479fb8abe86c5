"""Errors as the gateway told them: problem documents (RFC 9457) become the kinds of `wire.errors` again.

What arrives has the gateway's code, sentence and fix, in the language that the client asked for, and is caught as
what it is: ``except BudgetExhausted``, ``except Unavailable as busy: busy.retry_after``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from medveil.client.exchange import Answer
from wire import errors
from wire.errors import DecodeError, MedveilError, ProtocolAbort, Refused, Unavailable, VerificationError

MEDIA_TYPE = "application/problem+json"
_CODE = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9_]+\Z")
_LONGEST = 4000
_LONGEST_WAIT = 24 * 3600

_BY_STATUS: Mapping[int, type[MedveilError]] = {
    400: DecodeError,
    401: Refused,
    403: Refused,
    404: Refused,
    409: Refused,
    422: VerificationError,
    429: Unavailable,
    502: ProtocolAbort,
    503: Unavailable,
}
"""The kind of a document that does not name its own."""


class Place(msgspec.Struct, frozen=True):
    """Where the request does not fit, and which rule it breaks."""

    place: str
    rule: str


class Problem(msgspec.Struct, frozen=True):
    """A problem document, as far as it is read."""

    status: int = 500
    detail: str = ""
    instance: str = ""
    code: str = ""
    kind: str = ""
    fix: str = ""
    errors: tuple[Place, ...] = ()
    round: str = ""
    parties: tuple[str, ...] = ()


class Told(MedveilError):
    """An error in the gateway's words. status: of the answer; instance: the request's id, for whoever reads the
    gateway's log; places: where the request does not fit. `text` is in the language that the client asked for.
    """

    status = 0
    instance = ""
    places: tuple[Place, ...] = ()
    _said = ""
    _fix = ""

    @property
    def message(self) -> str:
        """What was wrong, in the gateway's words."""
        return self._said

    @property
    def fix(self) -> str:
        """What to do next, in the gateway's words."""
        return self._fix

    def text(self, language: str = "en") -> str:
        """Sentence and fix, in the language that was asked for, whatever `language` is."""
        gap = "" if self._said.endswith("。") else " "
        return f"{self._said}{gap}{self._fix}".strip()


_KINDS: Mapping[str, type[MedveilError]] = {
    name: type(name, (Told, kind), {"__module__": __name__, "__doc__": kind.__doc__})
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, MedveilError)
}


def error_of(answer: Answer) -> MedveilError:
    """The error that an answer of status 400 or more tells.

    An answer that is no problem document is not the gateway's: Unavailable where another try may help (a proxy's 502,
    503, 504), DecodeError otherwise.
    """
    if answer.headers.get("content-type", "").partition(";")[0].strip() != MEDIA_TYPE:
        return _not_ours(answer)
    try:
        problem = msgspec.json.decode(answer.body, type=Problem)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _not_ours(answer)
    wait = answer.headers.get("retry-after", "")
    seconds = min(int(wait), _LONGEST_WAIT) if wait.isascii() and wait.isdecimal() and len(wait) < 10 else 0
    return rebuilt(problem, answer.status, seconds) or _not_ours(answer)


def error_in(document: Any) -> MedveilError:
    """The error in a document that stands inside another, such as a failed job's."""
    try:
        problem = msgspec.convert(document, type=Problem)
    except (msgspec.MsgspecError, ValueError):
        return DecodeError("client.unexpected_answer")
    return rebuilt(problem, problem.status, 0) or DecodeError("client.unexpected_answer")


def rebuilt(problem: Problem, status: int, seconds: int) -> MedveilError | None:
    """The error that `problem` describes; None if it is none of ours. seconds: after which to try again."""
    if not _CODE.match(problem.code) or len(problem.code) > 100:
        return None
    usual = _BY_STATUS.get(status, MedveilError).__name__
    kind = _KINDS.get(problem.kind, _KINDS[usual])
    error: Any
    if issubclass(kind, ProtocolAbort):
        error = kind(problem.code, round=problem.round or "-", parties=problem.parties)
    elif issubclass(kind, Unavailable):
        error = kind(problem.code, retry_after=seconds)
    else:
        error = kind(problem.code)
    error.status, error.instance, error.places = status, _shown(problem.instance), problem.errors
    error._said, error._fix = _shown(problem.detail), _shown(problem.fix)
    told: MedveilError = error
    return told


def _not_ours(answer: Answer) -> MedveilError:
    if answer.status in (502, 503, 504):
        return Unavailable("client.no_gateway", status=answer.status, retry_after=1)
    return DecodeError("client.not_a_gateway", status=answer.status)


def _shown(text: str) -> str:
    """Text as a screen may show it."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:_LONGEST])
