"""Opt-outs: what patients do not want done with their data. Who they are is sent in bodies, and never kept here."""

from __future__ import annotations

import msgspec

from medveil.client.exchange import Exchange, M, Part, verb
from medveil.client.frames import Instant, Rows
from medveil.client.line import fetch, get, post


class OptOut(msgspec.Struct, frozen=True):
    """One opt-out. scope: all, purpose, recipient or use. until: None where it lasts.

    words: what it stops, and what goes on all the same.
    """

    scope: str
    value: str
    since: Instant
    until: Instant | None
    in_force: bool
    words: str


class PersonOptOuts(Rows, frozen=True):
    """All opt-outs of one person, past ones too. known: whether anything is kept of the person at the gateway; None
    for who may only read opt-outs."""

    known: bool | None
    opt_outs: tuple[OptOut, ...]

    def rows(self) -> tuple[OptOut, ...]:
        """The opt-outs."""
        return self.opt_outs


class ScopeOfOptOuts(msgspec.Struct, frozen=True):
    """A scope, and of how many persons an opt-out of it is in force."""

    scope: str
    value: str
    persons: int


class ScopesOfOptOuts(Rows, frozen=True):
    """The scopes of opt-outs that are in force."""

    scopes: tuple[ScopeOfOptOuts, ...]

    def rows(self) -> tuple[ScopeOfOptOuts, ...]:
        """The scopes."""
        return self.scopes


class OptOuts(Part[M]):
    """``/v1/opt-outs``. person: as the organisation's own tables name them (private)."""

    @verb
    def list(self) -> Exchange[ScopesOfOptOuts]:
        """The scopes in force, and of how many persons."""
        return (yield from fetch(self._line, get("opt-outs"), ScopesOfOptOuts))

    @verb
    def of(self, person: str) -> Exchange[PersonOptOuts]:
        """One person's opt-outs."""
        return (yield from fetch(self._line, post("opt-outs", "of", body={"person": person}), PersonOptOuts))

    @verb
    def add(
        self, person: str, scope: str, value: str = "", *, since: int | None = None, until: int | None = None
    ) -> Exchange[PersonOptOuts]:
        """Take down what a person does not want; returns all of theirs. Again, it changes nothing.

        scope: "all", "purpose", "recipient" or "use"; value: a purpose's code, an organisation's name, a kind of use.
        since, until: ms UTC; by default from now on, until it is withdrawn.
        """
        said = {"person": person, "scope": scope, "value": value, "since": since, "until": until}
        return (yield from fetch(self._line, post("opt-outs", body=said), PersonOptOuts))

    @verb
    def withdraw(self, person: str, scope: str, value: str = "") -> Exchange[PersonOptOuts]:
        """End a person's opt-outs of one scope now; returns all of theirs."""
        said = {"person": person, "scope": scope, "value": value}
        return (yield from fetch(self._line, post("opt-outs", "withdraw", body=said), PersonOptOuts))
