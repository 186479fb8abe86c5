"""Errors for people: one root, six kinds, each with a stable code, a sentence and the fix.

A caller's bug is a plain ``ValueError``. Everything else that can go wrong is one of the kinds
below. The sentence and the fix are looked up by code in the catalogues of `wire.messages`
(English, Simplified Chinese), so that every surface says the same thing in the reader's language.

Facts are identifiers, numbers and field names only. A record, a share, a key or a value that a
patient's file held never goes into an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from wire import messages

Fact = str | int

_LONGEST_FACT = 300
_LONGEST_LIST = 2000
MOST_CHARACTERS = _LONGEST_LIST + len("...")
"""Of a fact that is a text: whoever is sent one takes as many."""


class MedveilError(Exception):
    """Root of all errors of medveil.

    code: stable, ``part.what`` in lower case. facts: what the sentence names (text or integers).
    """

    def __init__(self, code: str, /, **facts: Fact) -> None:
        for name, fact in facts.items():
            if not isinstance(fact, (str, int)):
                raise ValueError(f"fact {name!r} of error {code!r} must be text or an integer")
        self.code = code
        self.facts: dict[str, Fact] = {
            name: fact if isinstance(fact, int) else _plain(fact) for name, fact in facts.items()
        }
        super().__init__(code)

    @property
    def message(self) -> str:
        """What was wrong and where, in English."""
        return messages.sentence(self.code, self.facts)

    @property
    def fix(self) -> str:
        """What the reader can do next, in English."""
        return messages.fix(self.code, self.facts)

    def text(self, language: str = "en") -> str:
        """Sentence and fix in `language` ("en" or "zh")."""
        return messages.text(self.code, self.facts, language)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r})"


def _plain(fact: str) -> str:
    """Text as a screen may show it: not endless, and no control character of an outsider's reaches a terminal.

    A list, ``a, b, c``, is longer than other texts may be, and ends between two of its items.
    """
    kept = fact[:_LONGEST_FACT]
    if len(fact) > _LONGEST_FACT and (last := fact[:_LONGEST_LIST].rfind(", ")) > 0:
        kept = fact if len(fact) <= _LONGEST_LIST else fact[: last + 2]
    shown = "".join(character if character.isprintable() else "\ufffd" for character in kept)
    return shown if len(fact) == len(kept) else shown + "..."


class DecodeError(MedveilError):
    """Outside bytes are not what they should be (not canonical, wrong type, damaged)."""


class VerificationError(MedveilError):
    """A signature, proof, commitment, checkpoint or manifest does not hold."""


class Refused(MedveilError):
    """A rule says no. The request was understood and has changed nothing."""


class ConsentDenied(Refused):
    """No grant covers this use."""


class BudgetExhausted(Refused):
    """The population's privacy budget does not cover this query."""


class QuorumNotMet(Refused):
    """Too few organisations stand behind this."""


class ProtocolAbort(MedveilError):
    """A protocol between organisations stopped. Nothing was released.

    round: the protocol's name for the step; parties: whom it concerns (organisation ids).
    """

    def __init__(self, code: str, /, *, round: str, parties: Sequence[str] = (), **facts: Fact) -> None:
        super().__init__(code, round=round, parties=", ".join(parties) or "-", **facts)
        self.round = round
        self.parties = tuple(parties)


class Unavailable(MedveilError):
    """Not now: a resource is busy, locked, full or unreachable. `retry_after` in seconds."""

    def __init__(self, code: str, /, *, retry_after: int = 0, **facts: Fact) -> None:
        super().__init__(code, **facts)
        self.retry_after = retry_after
