"""The listener on real sockets: who gets in, and what the app is told of them."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import Callable
from typing import Any, Literal

import httpx
import pytest

from medveil.network.certificates import PeerTls, client_context
from medveil.network.protocol import Listener, PeerServer, peer_certificate

Scene = Any  # of conftest.py


# --- who gets in


def test_both_sides_accept_each_other(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        assert await scene.ask() == (200, "insurer")
        assert await scene.ask(scene.context("hospital")) == (200, "hospital")

    play(story)


def test_who_is_not_let_in(play: Callable[..., None], field: Any) -> None:
    """Strangers, what has expired, false authorities, no certificate, old TLS, no TLS: each refused by name."""

    async def story(scene: Scene) -> None:
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.check_hostname = False
        bare.load_verify_locations(cadata=scene.anchors["bureau"])
        old = scene.context()
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await scene.refused(scene.context("stranger")) == "TLSV1_ALERT_UNKNOWN_CA"
        assert await scene.refused(scene.context("insurer", age=31)) == "SSLV3_ALERT_CERTIFICATE_EXPIRED"
        assert await scene.refused(scene.context("insurer", generation=1)) == "TLSV1_ALERT_UNKNOWN_CA"
        assert await scene.refused(scene.context("stranger", name="insurer")) == "TLSV1_ALERT_UNKNOWN_CA"
        assert await scene.refused(bare) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        assert await scene.refused(old) == "TLSV1_ALERT_PROTOCOL_VERSION"
        assert scene.tls.refusals["CERTIFICATE_VERIFY_FAILED"] == 4
        with pytest.raises((httpx.TransportError, ssl.SSLError), match="unknown ca"):
            await scene.ask(scene.context("stranger"))
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"HTTP" not in await reader.read()
        writer.close()
        assert not scene.scopes

    play(story)


def test_a_forged_authority_with_the_right_key_identifier(play: Callable[..., None], field: Any) -> None:
    """The chain looks right by name and identifier; only the signature is not the member's."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding

    async def story(scene: Scene) -> None:
        file = field.certificate("insurer", generation=5)
        key, _, rest = file.read_bytes().partition(b"-----BEGIN CERT")
        leaf = x509.load_pem_x509_certificate(b"-----BEGIN CERT" + rest)
        true = Ed25519PublicKey.from_public_bytes(field.key("insurer").public)
        builder = (
            x509.CertificateBuilder(leaf.issuer, leaf.subject, leaf.public_key(), leaf.serial_number)
            .not_valid_before(leaf.not_valid_before_utc)
            .not_valid_after(leaf.not_valid_after_utc)
        )
        for extension in leaf.extensions:
            if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
                builder = builder.add_extension(extension.value, extension.critical)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(true), critical=False)
        forger = Ed25519PrivateKey.from_private_bytes(field.seed("insurer", "tls", 5))
        file.write_bytes(key + builder.sign(forger, None).public_bytes(Encoding.PEM))
        assert await scene.refused(client_context(file, scene.anchors["bureau"])) == "TLSV1_ALERT_DECRYPT_ERROR"

    play(story)


def test_a_client_that_means_somebody_else_leaves(play: Callable[..., None]) -> None:
    """The bureau answers where the hospital was meant: the insurer says nothing to it."""

    async def story(scene: Scene) -> None:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await scene.ask(scene.context("insurer", "hospital"))
        assert not scene.scopes

    play(story)


def test_the_app_asks_present_members(play: Callable[..., None], field: Any) -> None:
    """TLS knows old anchors; on a living connection the app refuses who has rotated or left."""

    async def story(scene: Scene) -> None:
        then = scene.membership
        async with scene.client() as client:
            assert (await client.get("/")).json() == "insurer"
            scene.membership = field.members(bureau=0, insurer=1)
            assert (await client.get("/")).json() == "network.other_authority"
            scene.membership = field.members(bureau=0)
            assert (await client.get("/")).json() == "network.not_member"
        assert len({scope["client"] for scope in scene.scopes}) == 1
        scene.membership = then

    play(story)


# --- what the app is told


def test_the_scope_tells_of_the_connection(play: Callable[..., None]) -> None:
    """Every request of a kept connection carries the certificate, in the words of the ASGI TLS extension."""

    async def story(scene: Scene) -> None:
        context = scene.context()
        async with scene.client(context) as client:
            for _ in range(3):
                assert (await client.get("/")).json() == "insurer"
                scene.scopes[-1]["extensions"]["tls"]["client_cert_chain"] = ()  # an app's change stays its own
        assert len({scope["client"] for scope in scene.scopes}) == 1
        assert await scene.ask() == (200, "insurer")
        told = scene.scopes[-1]["extensions"]["tls"]
        assert set(told) == {
            "server_cert", "client_cert_chain", "client_cert_name", "client_cert_error", "tls_version", "cipher_suite"
        }  # fmt: skip
        assert told["client_cert_name"] == "CN=insurer"
        assert told["tls_version"] == 0x0304 and told["cipher_suite"] in (0x1301, 0x1302, 0x1303)
        assert peer_certificate(scene.scopes[-1]) == ssl.PEM_cert_to_DER_cert(told["client_cert_chain"][0])

    play(story)


def test_headers_count_for_nothing(play: Callable[..., None], field: Any) -> None:
    async def story(scene: Scene) -> None:
        pem = ssl.DER_cert_to_PEM_cert(scene.anchors["hospital"]).strip().replace("\n", " ")
        names = ("x-client-cert", "x-ssl-client-cert", "ssl-client-cert", "client-cert", "x-forwarded-client-cert")
        async with scene.client() as client:
            forged = {**dict.fromkeys(names, pem), "x-forwarded-for": "10.1.2.3", "x-forwarded-proto": "http"}
            assert (await client.get("/", headers=forged)).json() == "insurer"
        scope = scene.scopes[-1]
        assert scope["client"][0] == "127.0.0.1" and scope["scheme"] == "https"

    play(story)


@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_without_tls_nobody_is_known(field: Any, scene_of: Any, parser: Literal["httptools", "h11"]) -> None:
    async def whole() -> None:
        scene = scene_of(field, parser)
        async with Listener(scene.app, socket.create_server(("127.0.0.1", 0)), None, None, parser) as plain:
            base = f"http://127.0.0.1:{plain.address[1]}"
            async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
                response = await client.get("/", headers={"client-cert": "x"})
                assert (response.status_code, response.json()) == (403, "network.no_certificate")
        assert "extensions" not in scene.scopes[0] or "tls" not in scene.scopes[0]["extensions"]
        await scene.server.start()
        await scene.server.stop()

    asyncio.run(whole())


def test_a_listener_for_peers_asks_for_certificates(scene_of: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(ValueError, match="asks for certificates"):
        PeerServer(scene_of.app, sock, context)


# --- change while connections live


def test_members_and_certificates_change_under_a_living_listener(play: Callable[..., None], field: Any) -> None:
    async def story(scene: Scene) -> None:
        folder = field.folder / "own"
        folder.mkdir()
        at = [field.now() - 25 * field.DAY]
        bureau = PeerTls(folder, "bureau", field.HOSTS, lambda: at[0], secrets.token_bytes)
        bureau.refresh(field.members(bureau=0, insurer=0), field.seed("bureau"))
        scene.tls.hand_over(bureau.listening)
        async with scene.client() as kept:
            assert (await kept.get("/")).json() == "insurer"
            assert await scene.refused(scene.context("pharmacy")) == "TLSV1_ALERT_UNKNOWN_CA"
            at[0] += 25 * field.DAY
            scene.membership = field.members(bureau=0, insurer=0, pharmacy=0)
            assert bureau.refresh(scene.membership, field.seed("bureau"))
            slow = asyncio.create_task(kept.get("/slow"))
            await asyncio.sleep(0.1)
            assert await scene.ask(scene.context("pharmacy")) == (200, "pharmacy")
            assert (await slow).json() == "insurer"
            assert (await kept.get("/")).json() == "insurer"
        assert len({scope["client"] for scope in scene.scopes if scope["path"] != "/"}) == 1

    play(story)


def test_no_session_outlives_its_members(play: Callable[..., None], field: Any) -> None:
    """A client that offers an old session is judged anew: there are no tickets to offer."""

    async def story(scene: Scene) -> None:
        context = scene.context()

        def connect(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
            with (
                socket.create_connection(("127.0.0.1", scene.port), 10) as plain,
                context.wrap_socket(plain, session=session) as connection,
            ):
                connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                said = b""
                while b"insurer" not in said:
                    said += connection.recv(1000)
                return connection.session, connection.session_reused

        first, _ = await asyncio.to_thread(connect, None)
        assert first is not None and not first.has_ticket
        assert (await asyncio.to_thread(connect, first))[1] is False

    play(story)
