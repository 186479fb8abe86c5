"""`medveil jobs`: long work at the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medveil.cli import screen
from medveil.cli.calling import Json, calling, following, hex_digits
from medveil.shown_text import json_line

if TYPE_CHECKING:
    from medveil.client.jobs import Job

Id = Annotated[str, typer.Argument(callback=hex_digits(32), help="The job's id: 32 hex digits.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    jobs = typer.Typer(help="Long work at the gateway: look, follow, cancel.", no_args_is_help=True)
    app.add_typer(jobs, name="jobs")

    @jobs.command("list")
    def listed(
        state: Annotated[
            Literal["waiting", "running", "done", "failed", "cancelled"] | None, typer.Option(help="Only these.")
        ] = None,
        limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50,
        json: Json = False,
    ) -> None:
        """List your jobs, the newest first."""
        with calling() as client:
            found = client.jobs.list(state=state, limit=limit)
        if json:
            screen.print_json(found)
            return
        columns = (
            ("job", "job"),
            ("kind", "kind"),
            ("state", "state"),
            ("steps", lambda job: f"{job.steps}/{job.total}" if job.total else job.steps),
            ("since", screen.instant("created")),
            ("result", "result"),
        )
        screen.table(found.jobs, columns)

    @jobs.command("show")
    def show(job: Id, json: Json = False) -> None:
        """Show one job."""
        with calling() as client:
            _show(client.jobs.get(job), json)

    @jobs.command("follow")
    def follow(job: Id, json: Json = False) -> None:
        """Follow a job until it has ended. With --json one line an event. Exit code 1: it failed or was cancelled."""
        with calling() as client:
            if json:
                for progress in client.jobs.follow(job):
                    print(json_line(progress), flush=True)
                client.jobs.wait(job)
                return
            with following(json) as told:
                done = client.jobs.wait(job, told=told)
        _show(done, json)

    @jobs.command("cancel")
    def cancel(job: Id, json: Json = False) -> None:
        """Let a job end: waiting, at once; running, at its next step."""
        with calling() as client:
            found = client.jobs.cancel(job)
        _show(found, json)
        if not json and found.state == "done":
            print("It had ended before; there was nothing to cancel.")


def _show(job: Job, as_json: bool) -> None:
    if as_json:
        screen.print_json(job)
        return
    hidden = {"problem", "event", "created", "changed"}
    pairs = [(name, value) for name, value in screen.of(job) if name not in hidden]
    pairs += [("began", screen.instant("created")(job)), ("changed", screen.instant("changed")(job))]
    if job.error is not None:
        pairs.append(("problem", job.error.text()))
    screen.facts(pairs)
