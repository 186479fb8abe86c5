"""`medveil init`, `medveil found`, `medveil join`: an organisation's home, and how it comes into a consortium."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medveil.cli import screen

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
HomeFolder = Annotated[Path, typer.Argument(readable=False, help="The organisation's home: a folder of its own.")]
ROLES = "bureau, agency, branch, hospital, pharmacy, insurer, maker, distributor, researcher, regulator, finance"
"""As help shows them: `wire.identifiers.ROLES`, which is imported when a verb runs."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""

    @app.command("init")
    def init(
        home: HomeFolder,
        role: Annotated[list[str], typer.Option(help=f"{ROLES}; repeat it.")],
        organisation: Annotated[str, typer.Option(help="Its name, in lower case; else it is asked for.")] = "",
        tier: Annotated[
            Literal["", "national", "province", "city", "county"], typer.Option(help="Where it acts.")
        ] = "",
        host: Annotated[
            list[str] | None, typer.Option(help="A name or address under which the others reach this gateway.")
        ] = None,
        trust: Annotated[
            Path | None, typer.Option(readable=False, help="The consortium it applies to; none to found one.")
        ] = None,
        module: Annotated[
            str, typer.Option(help="Keep its keys on a token: the path of the token's PKCS#11 library.")
        ] = "",
        token: Annotated[str, typer.Option(help="The token's label.")] = "",
        key_name: Annotated[str, typer.Option(help="Name of its keys on the token, if not the organisation's.")] = "",
        pin_file: Annotated[str, typer.Option(help="File of mode 600 with the token's PIN.")] = "",
        vault_database: Annotated[
            str, typer.Option(help="Where records lie: postgresql://user@host/name instead of a file in the home.")
        ] = "sqlite",
        vault_password_file: Annotated[str, typer.Option(help="File of mode 600 with that database's password.")] = "",
        blobs: Annotated[
            str, typer.Option(help="Where large documents lie: file:///path or s3://bucket/folder, not in the home.")
        ] = "",
        observer: Annotated[bool, typer.Option("--observer", help="It will not re-execute blocks.")] = False,
        json: Json = False,
    ) -> None:
        """Make an organisation's home with fresh keys, and its member card to hand to the others.

        The passphrase of the keys comes from MEDVEIL_PASSPHRASE_FILE, a token's PIN from MEDVEIL_PIN_FILE or
        --pin-file; or they are asked for.
        """
        import os
        import secrets
        import time

        from medveil.cli.screen import print_json
        from medveil.service.home.cards import FOUNDING, fingerprint
        from medveil.service.home.config import Config, Keys, VaultPlace, check_config, passphrase
        from medveil.service.home.home import CARD_FILE, Home
        from wire.checkpoint import read_trust
        from wire.errors import Refused
        from wire.identifiers import ROLES as KNOWN

        unknown = next((one for one in role if one not in KNOWN), None)
        if unknown is not None:
            raise Refused("cards.no_role", role=unknown, roles=", ".join(KNOWN))
        organisation = organisation or screen.typed("Name of the organisation (lower case)")
        chain = read_trust(trust).genesis_hash if trust is not None else FOUNDING
        if module or token:
            keys = Keys(provider="pkcs11", module=module, token=token, name=key_name, pin_file=pin_file)
        else:
            keys = Keys()
        vault = VaultPlace(vault_database, vault_password_file, blobs)
        config = check_config(Config(1, organisation, keys=keys, vault=vault))
        if pin_file or os.environ.get("MEDVEIL_PIN_FILE" if module else "MEDVEIL_PASSPHRASE_FILE"):
            secret = passphrase(config)
        elif module:
            secret = screen.typed("PIN of the token", hidden=True)
        else:
            secret = screen.typed("Passphrase of its keys", hidden=True, twice=True)
        card = Home.create(
            home,
            organisation,
            tuple(role),
            secret,
            secrets.token_bytes,
            lambda: time.time_ns() // 1_000_000,
            tier=tier,
            re_executes=not observer,
            hosts=tuple(host or ("localhost", "127.0.0.1")),
            chain=chain,
            keys=keys,
            vault=vault,
        )
        if json:
            shown = {"home": str(home), "organisation": organisation, "card": str(home / CARD_FILE)}
            print_json(shown | {"fingerprint": fingerprint(card)})
            return
        kept = (
            f"Its keys are on token {token}: back that up by itself."
            if module
            else "Keep its passphrase apart from it."
        )
        typer.echo(f"{home}: the home of {organisation}. {kept}")
        typer.echo(f"{home / CARD_FILE}: its member card. Hand it to the others; read them its fingerprint:")
        typer.echo(f"  {fingerprint(card)}")

    @app.command("found")
    def found(
        cards: Annotated[list[Path], typer.Argument(readable=False, help="The member cards of all founders.")],
        chain: Annotated[str, typer.Option(help="Name of the consortium's chain (lower case).")],
        sequencer: Annotated[str, typer.Option(help="The founder whose gateway orders blocks.")],
        out: Annotated[Path, typer.Option(readable=False, help="Where to write the trust file.")] = Path(
            "consortium.json"
        ),
        zone: Annotated[str, typer.Option(help="IANA zone of civil days.")] = "Asia/Shanghai",
        json: Json = False,
    ) -> None:
        """Make the trust file of a consortium out of its founders' cards.

        Every founder compares the fingerprints of all cards with what the others read out, and then joins it.
        """
        import time

        from medveil.service.home.cards import fingerprint, found_consortium, grouped, read_card
        from wire.checkpoint import trust_of, write_trust
        from wire.errors import Refused

        if out.exists():
            raise Refused("client.file_exists", file=str(out))
        read = [read_card(path) for path in cards]
        trust = trust_of(found_consortium(chain, sequencer, zone, read, time.time_ns() // 1_000_000))
        write_trust(out, trust)
        if json:
            from medveil.cli.screen import print_json

            shown = {"file": str(out), "chain": chain, "needed_cosigners": trust.k}
            cards_shown = {card.application.member.organisation: fingerprint(card) for card in read}
            print_json(shown | {"genesis": grouped(trust.genesis_hash[:16]), "fingerprints": cards_shown})
            return
        for card in read:
            typer.echo(f"  {card.application.member.organisation:24} {fingerprint(card)}")
        typer.echo(f"{out}: chain {chain}, {len(read)} founders, {trust.k} make a head final. Genesis:")
        typer.echo(f"  {grouped(trust.genesis_hash[:16])}")

    @app.command("join")
    def join(
        home: HomeFolder,
        trust: Annotated[Path, typer.Argument(readable=False, help="The consortium's trust file.")],
        fingerprint: Annotated[
            str, typer.Option(help="Genesis as another member read it out; asked for if not given.")
        ] = "",
        address: Annotated[
            list[str] | None, typer.Option(help="Where another gateway listens: NAME=https://HOST:PORT.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Pin a consortium's trust file, after comparing its genesis with what another member says; note addresses."""
        import secrets
        import time

        import msgspec

        from medveil.service.home.cards import grouped
        from medveil.service.home.config import FILE, check_config, passphrase, read_config, write_config
        from medveil.service.home.home import Home
        from wire.checkpoint import read_trust
        from wire.errors import Refused

        pinned = read_trust(trust)
        genesis = grouped(pinned.genesis_hash[:16])
        said = fingerprint or screen.typed("Genesis, as another member reads it out")
        if "".join(said.split()).lower() != genesis.replace(" ", ""):
            raise Refused("cards.other_genesis", file=str(trust))
        addresses = {}
        for one in address or ():
            name, equals, url = one.partition("=")
            if not equals:
                raise typer.BadParameter("--address is NAME=https://HOST:PORT")
            addresses[name] = url
        config = read_config(home / FILE)
        peers = msgspec.structs.replace(config.peers, addresses=config.peers.addresses | addresses)
        config = check_config(msgspec.structs.replace(config, peers=peers))
        with Home.open(home, passphrase(config), secrets.token_bytes, lambda: time.time_ns() // 1_000_000) as opened:
            opened.join(pinned)
            write_config(home / FILE, config)
            name = opened.organisation.name
        if json:
            from medveil.cli.screen import print_json

            shown = {"home": str(home), "organisation": name, "chain": pinned.chain, "genesis": genesis}
            print_json(shown | {"member": pinned.latest.find(name) is not None})
            return
        member = "a member" if pinned.latest.find(name) is not None else "no member yet: hand its card to the members"
        typer.echo(f"{home}: {name} pinned chain {pinned.chain} (genesis {genesis}); it is {member}.")

    @app.command("serve")
    def serve(
        home: HomeFolder,
        json: Annotated[bool, typer.Option("--json", help="Say on standard output, as JSON, that it listens.")] = False,
    ) -> None:
        """Run the organisation's gateway until it is told to stop (SIGTERM, Ctrl-C)."""
        import gc

        gc.disable()  # while modules are loaded nothing is thrown away, and there are 1,500 of them to look through
        try:
            from medveil.service.process import serve as run
        finally:
            gc.enable()

        run(home, as_json=json)

    @app.command("invite-admin")
    def invite_admin(
        home: HomeFolder,
        name: Annotated[str, typer.Argument(help="The person's account name.")],
        json: Json = False,
    ) -> None:
        """Invite the first administrator of a gateway that nobody administers yet. The gateway must not be running.

        Prints a secret that works once: whoever has it chooses the password.
        """
        import secrets
        import time

        from medveil.service.accounts.people import People
        from medveil.service.home.config import FILE, passphrase, read_config
        from medveil.service.home.home import Home

        def clock() -> int:
            return time.time_ns() // 1_000_000

        with Home.open(home, passphrase(read_config(home / FILE)), secrets.token_bytes, clock) as opened:
            database = opened.database()
            try:
                people = People(database, opened.organisation.name, clock=clock, rand=secrets.token_bytes)
                secret = people.invite_first_admin(name)
            finally:
                database.close()
        if json:
            from medveil.cli.screen import print_json

            print_json({"person": name, "invitation": secret})
            return
        typer.echo(f"Hand this to {name}, over a way that nobody else reads. It works once:")
        typer.echo(f"  {secret}")
