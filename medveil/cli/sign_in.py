"""`medveil sign-in`, `sign-out`, `whoami`, `accept`, and `medveil account`: who you are at a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medveil.cli import screen
from medveil.cli.calling import Json, calling, chosen

if TYPE_CHECKING:
    from medveil.client import Client
    from medveil.client.accounts import SignedIn

Gateway = Annotated[str, typer.Argument(help="Its address: https://HOST:PORT.")]
Authority = Annotated[
    Path | None,
    typer.Option(readable=False, help="Certificate of the authority that the gateway's is of, if not the system's."),
]
PASSWORD_FILE = "MEDVEIL_PASSWORD_FILE"


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""

    @app.command("sign-in")
    def sign_in(
        gateway: Annotated[str, typer.Argument(help="Its address: https://HOST:PORT. With --local: an organisation.")],
        name: Annotated[str, typer.Argument(help="Your account's name.")],
        trust: Annotated[
            Path | None,
            typer.Option(readable=False, help="The trust file consortium.json to pin, from somebody you trust."),
        ] = None,
        ca: Authority = None,
        organisation: Annotated[
            str,
            typer.Option(help="Whose gateway it must be; else as it said at your first sign-in there."),
        ] = "",
        local: Annotated[
            Path | None,
            typer.Option(readable=False, help="Folder of your own medveil up: sign in as anybody there, unasked."),
        ] = None,
        json: Json = False,
    ) -> None:
        """Begin a session at a gateway; the verbs after it are yours.

        The password comes from the file MEDVEIL_PASSWORD_FILE, or is asked for, and so is a one-time code.

        At a consortium of medveil up, --local FOLDER takes both from there, pins its trust file, and GATEWAY is the
        name of an organisation: medveil sign-in hospital-1 staff --local FOLDER. It is for trying and testing: only
        a folder of your own that medveil up made is taken. Later, medveil --gateway hospital-1 VERB chooses it.
        """
        if local is not None:
            if trust is not None or ca is not None:
                raise typer.BadParameter("--local takes trust file and authority from its folder: leave these out")
            _sign_in_local(local, gateway, name, json)
            return
        from medveil.cli.kept import Kept, keep, pin, read_sessions
        from medveil.client.line import origin_of
        from wire.errors import Refused

        origin = origin_of(gateway)
        before = read_sessions().gateways.get(origin, Kept())
        pinned = str(pin(trust)) if trust is not None else before.trust
        authority = str(ca.absolute()) if ca is not None else before.ca
        device = before.device if before.person == name else ""
        with _nobody(origin, authority, organisation or before.organisation) as client:
            whose = client.account.organisation()
            password = _password()
            try:
                signed_in = client.account.sign_in(name, password, device=device)
            except Refused as refused:
                if refused.code != "accounts.code_needed":
                    raise
                code = screen.typed("One-time code")
                signed_in = client.account.sign_in(name, password, code=code, device=device)
        secrets = (signed_in.session, signed_in.device or "")
        keep(origin, Kept(signed_in.person, *secrets, signed_in.expires, authority, pinned, whose))
        _say_signed_in(origin, whose, signed_in, pinned, json)

    @app.command("sign-out")
    def sign_out(
        everywhere: Annotated[bool, typer.Option("--everywhere", help="End all of your sessions.")] = False,
        json: Json = False,
    ) -> None:
        """End your session; the pinned trust file stays."""
        from medveil.cli.kept import read_sessions

        with calling() as client:
            origin = client.gateway
            kept = None if chosen.program is not None else read_sessions().gateways.get(origin)
            try:
                client.account.sign_out(everywhere=everywhere)
            finally:
                if kept is not None:  # a program's call ends no person's session
                    _keep(origin, kept.person, "", "" if everywhere else kept.device, 0, kept.ca, kept.trust)
        if json:
            screen.print_json({"gateway": origin, "signed_out": True})
        else:
            screen.say(f"Signed out of {origin}.")

    @app.command("whoami")
    def whoami(json: Json = False) -> None:
        """Who you are at the gateway, and what you may do."""
        import msgspec

        with calling() as client:
            me = client.account.me()
            origin = client.gateway
        if json:
            screen.print_json({"gateway": origin, **msgspec.to_builtins(me)})
        else:
            screen.facts([("gateway", origin), *screen.of(me)])

    @app.command("accept")
    def accept(gateway: Gateway, ca: Authority = None, json: Json = False) -> None:
        """Exchange an invitation, which is asked for, for a password of your own; then sign in."""
        from medveil.cli.kept import Kept, read_sessions
        from medveil.client.line import origin_of

        known = read_sessions().gateways.get(origin_of(gateway), Kept())
        invitation = screen.typed("Invitation", hidden=True)
        password = _password(new=True)
        with _nobody(gateway, str(ca or known.ca), known.organisation) as client:
            person = client.account.accept(invitation.strip(), password)
            origin = client.gateway
        if json:
            screen.print_json({"gateway": origin, "person": person})
        else:
            screen.say(f"The account {person} has its password. Now: medveil sign-in {origin} {person}")

    account = typer.Typer(help="Your own account: password, one-time codes.", no_args_is_help=True)
    app.add_typer(account, name="account")

    @account.command("password")
    def password(json: Json = False) -> None:
        """Change your password. All of your sessions end, and a new one begins here."""
        from medveil.cli.kept import Kept, read_sessions

        with calling() as client:
            old = _password()
            new = screen.typed("New password", hidden=True, twice=True)
            signed_in = client.account.change_password(old, new)
            kept = read_sessions().gateways.get(client.gateway, Kept())
            device = signed_in.device or kept.device
            _keep(
                client.gateway,
                signed_in.person,
                signed_in.session,
                device,
                signed_in.expires,
                kept.ca,
                kept.trust,
            )
        if json:
            screen.print_json({"person": signed_in.person, "expires": signed_in.expires})
        else:
            print("The password is changed; your other sessions have ended.")

    @account.command("sessions")
    def sessions(
        end: Annotated[str, typer.Option(help="End this one, by its name in the list.")] = "", json: Json = False
    ) -> None:
        """List where you are signed in, or end one of these sessions."""
        with calling() as client:
            if end:
                client.account.end_session(end)
            found = client.account.sessions()
        if json:
            screen.print_json(found)
            return
        columns = (
            ("session", "session"),
            ("since", screen.instant("created")),
            ("last used", screen.instant("seen")),
            ("until", screen.instant("expires")),
            ("this one", "own"),
        )
        screen.table(found.sessions, columns)

    @account.command("codes")
    def codes(json: Json = False) -> None:
        """Set up one-time codes with an authenticator app."""
        with calling() as client:
            uri = client.account.begin_codes(_password())
            typer.echo("Add this to your authenticator app, and show it to nobody:", err=True)
            typer.echo(f"  {screen.shown(uri)}", err=True)
            recovery = client.account.confirm_codes(screen.typed("First code"))
        _show_codes(recovery, json)

    @account.command("recovery-codes")
    def recovery_codes(json: Json = False) -> None:
        """Get new recovery codes; the old ones end."""
        with calling() as client:
            recovery = client.account.recovery_codes(_password())
        _show_codes(recovery, json)


def _sign_in_local(folder: Path, organisation: str, name: str, as_json: bool) -> None:
    """As somebody of a local consortium of the user's own."""
    from medveil.cli import language
    from medveil.cli.kept import Kept, keep, pin, read_sessions
    from medveil.local.founding import AUTHORITY, CONSORTIUM
    from medveil.local.signing_in import own_consortium, sign_in_local, who_signs_in

    folder = folder.absolute()
    member, _ = who_signs_in(folder, own_consortium(folder), organisation, name)
    before = read_sessions().gateways.get(member.people, Kept())

    def say_wait(seconds: int) -> None:
        typer.echo(f"The one-time codes of now are used up: the next one comes in {seconds} s.", err=True)

    origin, signed_in = sign_in_local(
        folder,
        organisation,
        name,
        device=before.device if before.person == name else "",
        language=language(),
        say_wait=say_wait,
    )
    pinned, authority = str(pin(folder / CONSORTIUM)), str(folder / AUTHORITY)
    kept = Kept(
        signed_in.person, signed_in.session, signed_in.device, signed_in.expires, authority, pinned, organisation
    )
    keep(origin, kept)
    _say_signed_in(origin, organisation, signed_in, pinned, as_json)


def _nobody(gateway: str, authority: str, organisation: str) -> Client:
    """A client of nobody yet. organisation: whose gateway it must be, where that is known."""
    from medveil.cli import language
    from medveil.client import Client

    return Client(gateway, ca=authority, language=language(), organisation=organisation, deadline=chosen.patience)


def _say_signed_in(origin: str, organisation: str, signed_in: SignedIn, pinned: str, as_json: bool) -> None:
    if as_json:
        screen.print_json(
            {
                "gateway": origin,
                "organisation": organisation,
                "person": signed_in.person,
                "expires": signed_in.expires,
                "enrolling": signed_in.enrolling,
                "trust": pinned or None,
            }
        )
        return
    until = screen.instant("expires")(signed_in)
    screen.say(f"Signed in to {origin} as {signed_in.person}, until {until}.")
    screen.say(f"It says that it is the gateway of {organisation}; from now on another one's is refused there.")
    if signed_in.enrolling:
        print("Your roles need one-time codes before anything else is allowed: medveil account codes")
    if pinned:
        _say_pinned(Path(pinned))
    else:
        print("No trust file is pinned: nothing that writes or releases will be asked. Give --trust.")


def _show_codes(codes: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        screen.print_json({"recovery_codes": codes})
        return
    print("Recovery codes: each works once instead of a one-time code. Keep them on paper; they are shown this once.")
    for code in codes:
        screen.say(f"  {code}")


def _password(*, new: bool = False) -> str:
    """From the file that MEDVEIL_PASSWORD_FILE names, or typed."""
    import os

    from medveil.client.credentials import read_private
    from wire.errors import DecodeError

    named = os.environ.get(PASSWORD_FILE)
    if named:
        try:
            return read_private(Path(named)).decode().rstrip("\n")
        except UnicodeDecodeError:
            raise DecodeError("client.bad_file", file=named) from None
    return screen.typed("Password", hidden=True, twice=new)


def _keep(gateway: str, person: str, session: str, device: str, expires: int, ca: str, trust: str) -> None:
    from medveil.cli.kept import Kept, keep, read_sessions

    organisation = read_sessions().gateways.get(gateway, Kept()).organisation
    keep(gateway, Kept(person, session, device or "", expires, ca, trust, organisation))


def _say_pinned(trust: Path) -> None:
    from wire.checkpoint import read_trust

    read = read_trust(trust)
    genesis = read.genesis_hash[:16].hex()
    grouped = " ".join(genesis[start : start + 4] for start in range(0, len(genesis), 4))
    screen.say(f"Pinned chain {read.chain}. Its genesis, to compare with another member:")
    screen.say(f"  {grouped}")
