"""`medveil people`, `medveil tokens`, `medveil security-log`: the organisation's accounts and programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medveil.cli import screen
from medveil.cli.calling import Json, calling

if TYPE_CHECKING:
    from medveil.client.accounts import Invitation

Name = Annotated[str, typer.Argument(help="Name of the account.")]
Roles = Annotated[list[str], typer.Option("--role", help="officer, researcher, clerk, auditor, admin; repeat it.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    people = typer.Typer(help="Accounts of the organisation's people.", no_args_is_help=True)
    app.add_typer(people, name="people")

    @people.command("list")
    def listed(json: Json = False) -> None:
        """List the accounts."""
        with calling() as client:
            found = client.people.list()
        if json:
            screen.print_json(found)
            return
        columns = (
            ("name", "name"),
            ("roles", "roles"),
            ("since", screen.instant("created")),
            ("disabled", "disabled"),
            ("password", "has_password"),
            ("codes", "has_codes"),
        )
        screen.table(found.people, columns)

    @people.command("add")
    def add(name: Name, role: Roles, json: Json = False) -> None:
        """Add an account. Prints its invitation, once."""
        with calling() as client:
            _show_invitation(client.people.add(name, role), client.gateway, json)

    @people.command("roles")
    def roles(name: Name, role: Roles, json: Json = False) -> None:
        """Give an account these roles and no others. Its sessions end; where a role is taken away, its tokens too."""
        with calling() as client:
            client.people.set_roles(name, role)
        _done({"person": name, "roles": role}, f"{name}: {', '.join(role)}.", json)

    @people.command("disable")
    def disable(name: Name, json: Json = False) -> None:
        """End an account's sessions and tokens, and let it in no more."""
        with calling() as client:
            client.people.disable(name)
        _done({"person": name, "disabled": True}, f"{name} is disabled.", json)

    @people.command("enable")
    def enable(name: Name, json: Json = False) -> None:
        """Let an account in again."""
        with calling() as client:
            client.people.enable(name)
        _done({"person": name, "disabled": False}, f"{name} is enabled.", json)

    @people.command("sign-out")
    def sign_out(name: Name, json: Json = False) -> None:
        """End somebody's sessions, wherever they are signed in."""
        with calling() as client:
            client.people.sign_out(name)
        _done({"person": name, "signed_out": True}, f"{name} is signed out everywhere.", json)

    @people.command("reset")
    def reset(
        name: Name,
        codes: Annotated[bool, typer.Option("--codes", help="End the one-time codes, too.")] = False,
        json: Json = False,
    ) -> None:
        """End an account's password and sessions. Prints a new invitation, once."""
        with calling() as client:
            _show_invitation(client.people.reset(name, codes=codes), client.gateway, json)

    _tokens(app)
    _security_log(app)


def _show_invitation(invited: Invitation, gateway: str, as_json: bool) -> None:
    if as_json:
        screen.print_json(invited)
        return
    screen.say(f"Hand this to {invited.person}, over a way that nobody else reads. It works once, for three days:")
    screen.say(f"  {invited.invitation}")
    screen.say(f"It is typed in at: medveil accept {gateway}")


def _done(facts: dict[str, object], sentence: str, as_json: bool) -> None:
    if as_json:
        screen.print_json(facts)
    else:
        screen.say(sentence)


def _tokens(app: typer.Typer) -> None:
    tokens = typer.Typer(help="Tokens of programs, each bound to a key.", no_args_is_help=True)
    app.add_typer(tokens, name="tokens")

    @tokens.command("issue")
    def issue(
        label: Annotated[str, typer.Argument(help="What the program is called.")],
        scope: Annotated[list[str], typer.Option(help="A right of yours that it may use; repeat it.")],
        out: Annotated[Path, typer.Option(readable=False, help="The program's file to write, with its secrets.")],
        days: Annotated[int, typer.Option(min=1, max=365, help="Until it ends.")] = 90,
        json: Json = False,
    ) -> None:
        """Make a key and a token for a program of yours, and write both into the program's file (mode 600)."""
        import secrets

        from medveil.cli.kept import read_sessions
        from medveil.client.credentials import write_program
        from wire.errors import Refused
        from wire.signing import Signer

        if out.exists():
            raise Refused("client.file_exists", file=str(out))
        seed = secrets.token_bytes(32)
        with calling() as client:
            issued = client.tokens.issue(label, scope, Signer(seed).key.public, days=days)
            kept = read_sessions().gateways.get(client.gateway)
            try:
                write_program(
                    out,
                    client.gateway,
                    issued.token,
                    seed,
                    ca=kept.ca if kept else "",
                    trust=kept.trust if kept else "",
                    organisation=kept.organisation if kept else "",
                )
            except BaseException:
                client.tokens.revoke(issued.id)  # nobody has it
                raise
        if json:
            screen.print_json({"id": issued.id, "label": label, "expires": issued.expires, "file": str(out)})
        else:
            screen.say(f"{out}: the program {label} (token {issued.id}), until {screen.instant('expires')(issued)}.")

    @tokens.command("list")
    def listed(
        everybody: Annotated[bool, typer.Option("--everybody", help="Not only yours.")] = False, json: Json = False
    ) -> None:
        """List tokens, without their secrets."""
        with calling() as client:
            found = client.tokens.list(everybody=everybody)
        if json:
            screen.print_json(found)
            return
        columns = (
            ("id", "id"),
            ("owner", "owner"),
            ("label", "label"),
            ("scopes", "scopes"),
            ("until", screen.instant("expires")),
            ("used", screen.instant("used")),
            ("revoked", "revoked"),
        )
        screen.table(found.tokens, columns)

    @tokens.command("revoke")
    def revoke(token: Annotated[str, typer.Argument(help="Its id.")], json: Json = False) -> None:
        """Have a token fail from the next call on."""
        with calling() as client:
            client.tokens.revoke(token)
        _done({"token": token, "revoked": True}, f"Token {token} is revoked.", json)


def _security_log(app: typer.Typer) -> None:
    log = typer.Typer(help="The gateway's security log.", no_args_is_help=True)
    app.add_typer(log, name="security-log")

    @log.command("show")
    def show(
        limit: Annotated[int, typer.Option(min=1, max=1000, help="How many entries.")] = 50,
        before: Annotated[int | None, typer.Option(help="Only entries before this one.")] = None,
        json: Json = False,
    ) -> None:
        """Show its newest entries."""
        with calling() as client:
            found = client.security_log.read(limit=limit, before=before)
        if json:
            screen.print_json(found)
            return
        columns = (
            ("entry", "sequence"),
            ("time", screen.instant("at")),
            ("who", "actor"),
            ("what", "event"),
            ("of", "subject"),
            ("why", "reason"),
        )
        screen.table(found.entries, columns)

    @log.command("check")
    def check(
        entries: Annotated[int, typer.Option(help="Number of the head that you kept.")] = 0,
        head: Annotated[str, typer.Option(help="Hash of the head that you kept.")] = "",
        json: Json = False,
    ) -> None:
        """Check that its chain holds. Exit code 1: it does not."""
        with calling() as client:
            chain = client.security_log.check(entries=entries, head=head)
        if json:
            screen.print_json(chain)
        else:
            screen.facts(screen.of(chain))
        if not chain.holds:
            raise typer.Exit(1)
