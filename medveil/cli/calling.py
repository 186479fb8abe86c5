"""How a verb calls a gateway: which one, as whom, and what a person sees meanwhile.

Which: ``--gateway``, MEDVEIL_GATEWAY, or the one that was signed in to last. As whom: the session that is kept for it,
or the program of ``--program`` (MEDVEIL_PROGRAM). Either says whose gateway it is: one that says another name gets no
secret.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medveil.cli import screen

if TYPE_CHECKING:
    from medveil.client import Client
    from medveil.client.jobs import Progress


def country(value: str) -> str:
    """What a country must be, before anything is asked: two letters of ISO 3166."""
    given = value.strip().upper()
    if len(given) != 2 or not given.isascii() or not given.isalpha():
        raise typer.BadParameter("a country is two letters, such as CN")
    return given


Commercial = Annotated[bool, typer.Option("--commercial", help="It serves somebody's sales.")]
Jurisdiction = Annotated[str, typer.Option(callback=country, help="Where you work with it, two letters.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Key = Annotated[str, typer.Option(help="Name of this very request: given again, it finds the job of the first time.")]


def hex_digits(count: int, *, optional: bool = False) -> Callable[[str], str]:
    """What an id of so many hex digits must be, before anything is asked. optional: it may be left out."""

    def check(value: str) -> str:
        given = value.strip().lower()
        if optional and not value:
            return value
        if len(given) != count or set(given) - set("0123456789abcdef"):
            raise typer.BadParameter(f"{count} digits from 0 to 9 and a to f are meant, as lists show them")
        return given

    return check


@dataclass
class Chosen:
    """What the options before the verb say."""

    gateway: str = ""
    program: Path | None = None
    deadline: int | None = None

    @property
    def patience(self) -> float:
        """Seconds that one answer may take."""
        from medveil.client.line import DEADLINE

        return DEADLINE if self.deadline is None else self.deadline


chosen = Chosen()


@contextmanager
def calling() -> Iterator[Client]:
    """The client of the chosen gateway. Raises Refused where nobody is signed in.

    Ctrl-C ends the verb with exit code 130: what was begun at the gateway goes on there.
    """
    from medveil.cli import language
    from medveil.cli.kept import read_sessions
    from medveil.client import Client, Session
    from wire.errors import Refused

    if chosen.program is not None:
        client = Client.of_program(chosen.program, language=language(), deadline=chosen.patience)
    else:
        sessions = read_sessions()
        gateway = sessions.named(chosen.gateway) if chosen.gateway else sessions.current
        kept = sessions.gateways.get(gateway)
        if kept is None or not kept.session:
            raise Refused("client.not_signed_in", gateway=gateway or "-")
        client = Client(
            gateway,
            Session(kept.session),
            trust=kept.trust or None,
            keep_trust=True,
            ca=kept.ca,
            language=language(),
            organisation=kept.organisation,
            deadline=chosen.patience,
        )
    try:
        with client:
            yield client
    except KeyboardInterrupt:
        typer.echo("medveil: interrupted.", err=True)
        raise typer.Exit(130) from None


@contextmanager
def following(as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """What to call with a job's progress: a bar on a terminal, plain lines elsewhere, nothing with --json.

    Interrupted, it says under which number the job goes on.
    """
    seen: list[Progress] = []
    with screen.bar() if sys.stderr.isatty() and not as_json else nullcontext(screen.line) as show:

        def told(progress: Progress) -> None:
            seen.append(progress)
            if not as_json:
                show(progress)

        try:
            yield told
        except KeyboardInterrupt:
            if seen:
                _say_job(seen[-1].job)
            raise


def _say_job(job: str) -> None:
    words = f"medveil: the job goes on at the gateway: medveil jobs follow {job}, or medveil jobs cancel {job}"
    typer.echo(screen.shown(words), err=True)
