"""Certificates under the keys of the ledger: what OpenSSL makes of them, and what we check ourselves."""

from __future__ import annotations

import secrets
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID as Use
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from medveil.network.certificates import (
    Issued,
    PeerTls,
    anchor,
    client_context,
    issue,
    organisation_of,
    renewal_due,
    server_context,
    store,
)
from wire.checkpoint.membership import Membership
from wire.errors import DecodeError, VerificationError
from wire.keyset import KeySet, Member, SealingKey, SignatureKey
from wire.sealing import SealKey
from wire.signing import SM2, Signer, VerifyKey

CHECK_SS_SIGNATURE = 0x4000  # X509_V_FLAG_CHECK_SS_SIGNATURE of OpenSSL
OF_PYTHON_3_13 = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN


def meet(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, bytes]:
    """Both ends connect over a socket and say a word; returns the leaf each saw. Raises the client's or server's."""
    here, there = socket.socketpair()
    here.settimeout(10)
    there.settimeout(10)
    seen: list[Any] = []

    def serve() -> None:
        try:
            with server.wrap_socket(there, server_side=True) as connection:
                seen.append(connection.getpeercert(binary_form=True))
                connection.sendall(b"word")
        except OSError as error:
            seen.append(error)
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname="elsewhere.example") as connection:
            word = connection.recv(4)
            leaf = connection.getpeercert(binary_form=True)
    except OSError:
        here.close()
        thread.join()
        if isinstance(seen[0], ssl.SSLCertVerificationError):
            raise seen[0] from None
        raise
    thread.join()
    assert word == b"word"
    return leaf or b"", seen[0]


def leaf_of(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


# --- the anchor


def test_an_anchor_is_a_function_of_name_and_key(field: Any) -> None:
    made = anchor("insurer", field.key("insurer"))
    anchor.cache_clear()
    assert anchor("insurer", field.key("insurer")) == made
    assert len({made, anchor("insurer", field.key("insurer", 1)), anchor("bureau", field.key("insurer"))}) == 3
    read = x509.load_der_x509_certificate(made)
    assert read.subject.rfc4514_string() == read.issuer.rfc4514_string() == "CN=insurer"
    assert read.public_key().public_bytes_raw() == field.key("insurer").public  # type: ignore[union-attr]
    constraints = read.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert read.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_nobody_checks_the_signature_of_an_anchor(field: Any) -> None:
    """With a broken one all goes well, strict checks included; it is looked at only where that is asked for."""
    file = field.certificate("insurer")
    good = anchor("insurer", field.key("insurer"))
    broken = good[:-1] + bytes([good[-1] ^ 1])
    for flags in (ssl.VERIFY_DEFAULT, ssl.VERIFY_X509_STRICT, OF_PYTHON_3_13):
        contexts = server_context(file, [broken]), client_context(file, broken)
        for context in contexts:
            context.verify_flags = flags
        assert meet(*contexts) == (leaf_of(file), leaf_of(file))
    for one in (good, broken):  # the throwaway key's signature is no better than a broken one
        contexts = server_context(file, [one]), client_context(file, one)
        contexts[0].verify_flags |= CHECK_SS_SIGNATURE
        with pytest.raises(ssl.SSLCertVerificationError, match="signature failure"):
            meet(*contexts)


def test_contexts_are_strict_and_new(field: Any) -> None:
    file = field.certificate("insurer")
    made = anchor("insurer", field.key("insurer"))
    for context in (server_context(file, [made]), client_context(file, made)):
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3


def test_an_anchor_needs_a_name_and_an_ed25519_key(field: Any) -> None:
    with pytest.raises(DecodeError):
        anchor("No Name", field.key("insurer"))
    for key in (VerifyKey(SM2, bytes(32)), VerifyKey(1, bytes(31))):
        with pytest.raises(VerificationError):
            anchor("insurer", key)


def test_a_member_makes_no_authority_of_another_name(field: Any) -> None:
    made = anchor("insurer", field.key("insurer"))
    with pytest.raises(ssl.SSLCertVerificationError, match="path length"):
        meet(server_context(field.certificate("insurer"), [made]), client_context(chain(field, "agent"), made))


def test_an_authority_of_ones_own_name_does_not_get_past_our_check(field: Any) -> None:
    """A path length does not count certificates that name one party twice (RFC 5280, section 4.2.1.9)."""
    made = anchor("insurer", field.key("insurer"))
    file = chain(field, "insurer")
    _, leaf = meet(server_context(field.certificate("insurer"), [made]), client_context(file, made))
    with pytest.raises(VerificationError) as caught:
        organisation_of(leaf, field.members(insurer=0), field.now())
    assert caught.value.code == "network.other_authority"


def chain(field: Any, name: str) -> Path:
    """A leaf under an authority of that name, which is under the insurer's key."""
    below, key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    middle = made_leaf(field, public=below.public_key(), ca=True, subject=name)
    leaf = made_leaf(field, authority=below, public=key.public_key(), issuer=[name])
    return store(Issued(pem(leaf) + pem(middle), private_pem(key)), field.folder)


# --- who may meet whom


def test_members_meet(field: Any) -> None:
    bureau, insurer = field.certificate("bureau"), field.certificate("insurer")
    anchors = {name: anchor(name, field.key(name)) for name in ("bureau", "insurer")}
    met = meet(server_context(bureau, anchors.values()), client_context(insurer, anchors["bureau"]))
    assert met == (leaf_of(bureau), leaf_of(insurer))
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed certificate in certificate chain"):
        meet(server_context(bureau, anchors.values()), client_context(insurer, anchors["insurer"]))


def test_a_listener_follows_its_successors(field: Any) -> None:
    """The object that the listener holds stays; who is accepted and what is presented change both ways."""
    bureau, insurer = field.certificate("bureau"), field.certificate("insurer")
    anchors = {name: anchor(name, field.key(name)) for name in ("bureau", "insurer", "hospital")}
    client = client_context(insurer, anchors["bureau"])
    listening = server_context(bureau, [anchors["bureau"]])
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(listening, client)
    newer = field.certificate("bureau", days=9)
    listening.hand_over(server_context(newer, anchors.values()))
    assert meet(listening, client) == (leaf_of(newer), leaf_of(insurer))
    listening.hand_over(server_context(bureau, [anchors["hospital"]]))
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(listening, client)
    second = server_context(bureau, [anchors["hospital"]])
    listening.hand_over(second)
    second.hand_over(server_context(newer, anchors.values()))  # the last in a row counts
    assert meet(listening, client) == (leaf_of(newer), leaf_of(insurer))


# --- our own check


def made_leaf(field: Any, authority: Any = None, public: Any = None, **changes: Any) -> x509.Certificate:
    """A leaf under the insurer's key, with faults."""
    authority = authority or Ed25519PrivateKey.from_private_bytes(field.seed("insurer"))
    public = public or Ed25519PrivateKey.generate().public_key()
    start = changes.get("start", datetime.now(UTC) - timedelta(minutes=5))
    uses = changes.get("uses", [Use.CLIENT_AUTH, Use.SERVER_AUTH])
    issuer = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in changes.get("issuer", ["insurer"])]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, changes.get("subject", "insurer"))])
    builder = (
        x509.CertificateBuilder()
        .issuer_name(x509.Name(issuer))
        .subject_name(subject)
        .public_key(public)
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=changes.get("days", 10)))
        .add_extension(x509.BasicConstraints(changes.get("ca", False), None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if changes.get("ca"):
        usage = x509.KeyUsage(False, False, False, False, False, True, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    if isinstance(authority, Ed25519PrivateKey):
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return builder.sign(authority, None if isinstance(authority, Ed25519PrivateKey) else hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_a_member_is_recognised(field: Any) -> None:
    leaf = leaf_of(field.certificate("insurer"))
    assert organisation_of(leaf, field.members(bureau=0, insurer=0), field.now()) == "insurer"
    good = made_leaf(field).public_bytes(Encoding.DER)
    assert organisation_of(good, field.members(insurer=0), field.now()) == "insurer"


def test_present_members_decide(field: Any) -> None:
    """A stranger, one that left, one whose key has changed since, one of the key to come: each by its code."""
    leaf = leaf_of(field.certificate("insurer"))
    for membership, code in (
        (field.members(bureau=0), "network.not_member"),
        (field.members(insurer=1), "network.other_authority"),
        (field.members(bureau=0, insurer=2), "network.other_authority"),
    ):
        assert organisation_of(leaf, field.members(insurer=0), field.now()) == "insurer"
        with pytest.raises(VerificationError) as caught:
            organisation_of(leaf, membership, field.now())
        assert caught.value.code == code


def test_a_member_cannot_sign_for_another(field: Any) -> None:
    leaf = leaf_of(field.certificate("insurer", name="bureau"))
    with pytest.raises(VerificationError) as caught:
        organisation_of(leaf, field.members(bureau=0, insurer=0), field.now())
    assert caught.value.code == "network.other_authority"


@pytest.mark.parametrize(("age", "later"), [(31, 0), (-1, 0), (0, 31), (0, -1)])
def test_time_is_checked(field: Any, age: int, later: int) -> None:
    leaf = leaf_of(field.certificate("insurer", age=age))
    with pytest.raises(VerificationError) as caught:
        organisation_of(leaf, field.members(insurer=0), field.now() + later * field.DAY)
    assert caught.value.code == "network.certificate_time"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"uses": [Use.SERVER_AUTH]}, "use"),
        ({"uses": []}, "use"),
        ({"ca": True}, "use"),
        ({"subject": "bureau"}, "subject"),
        ({"issuer": ["insurer", "bureau"]}, "issuer"),
        ({"issuer": ["Insurer Ltd"]}, "issuer"),
        ({"days": 400}, "lifetime"),
    ],
)
def test_a_certificate_of_another_form_is_refused(field: Any, changes: dict[str, Any], rule: str) -> None:
    leaf = made_leaf(field, **changes).public_bytes(Encoding.DER)
    with pytest.raises(VerificationError) as caught:
        organisation_of(leaf, field.members(insurer=0), field.now())
    assert (caught.value.code, caught.value.facts["rule"]) == ("network.bad_certificate", rule)


def test_another_signature_algorithm_is_refused(field: Any) -> None:
    leaf = made_leaf(field, authority=ec.generate_private_key(ec.SECP256R1())).public_bytes(Encoding.DER)
    with pytest.raises(VerificationError) as caught:
        organisation_of(leaf, field.members(insurer=0), field.now())
    assert caught.value.facts["rule"] == "signature algorithm"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_no_byte_of_a_leaf_can_change(field: Any) -> None:
    leaf = leaf_of(field.certificate("insurer"))
    membership, at = field.members(insurer=0, bureau=0), field.now()
    for place in range(len(leaf)):
        for bit in (1, 0x80):
            changed = bytearray(leaf)
            changed[place] ^= bit
            with pytest.raises(VerificationError):
                organisation_of(bytes(changed), membership, at)
    for length in range(0, len(leaf), 7):
        with pytest.raises(VerificationError):
            organisation_of(leaf[:length], membership, at)
    with pytest.raises(VerificationError):
        organisation_of(leaf + b"\0", membership, at)


def test_a_leaf_has_one_form(field: Any) -> None:
    """The signature's bit string says that its last zero bit is unused: the same signature, other bytes."""
    for _ in range(200):
        leaf = leaf_of(field.certificate("insurer"))
        if leaf[-1] % 2 == 0:
            break
    other = leaf[:-65] + b"\1" + leaf[-64:]
    assert x509.load_der_x509_certificate(other).signature == leaf[-64:]
    assert organisation_of(leaf, field.members(insurer=0), field.now()) == "insurer"
    with pytest.raises(VerificationError):
        organisation_of(other, field.members(insurer=0), field.now())


LEAF = ssl.PEM_cert_to_DER_cert(
    issue(bytes(32), "insurer", ("a.example",), 1_800_000_000_000, secrets.token_bytes).certificate.decode()
)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.integers(0, len(LEAF) - 1), st.binary(min_size=1, max_size=24))
def test_spliced_bytes_are_refused_with_a_code(at: int, new: bytes) -> None:
    tls = SignatureKey(Signer(bytes(32)).key, 0)
    member = Member("insurer", ("insurer",), KeySet(tls, tls, tls, tls, SealingKey(SealKey(1, bytes(32)), 0)), True)
    membership = Membership(0, 1, (member,))
    assert organisation_of(LEAF, membership, 1_800_000_000_000) == "insurer"
    spliced = LEAF[:at] + new + LEAF[at + len(new) :]
    if spliced != LEAF:
        with pytest.raises(VerificationError):
            organisation_of(spliced, membership, 1_800_000_000_000)


# --- issuing, and the file


def test_a_leaf_names_its_hosts(field: Any) -> None:
    hosts = ("gateway.example", "10.0.0.7", "2001:db8::7")
    leaf = x509.load_pem_x509_certificate(
        issue(field.seed("insurer"), "insurer", hosts, field.now(), secrets.token_bytes).certificate
    )
    named = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in named] == list(hosts)
    assert leaf.serial_number.bit_length() <= 159


@pytest.mark.parametrize(
    "host", ["", "*.example", "a b", "-a.example", "a..b", "gateway:443", "fe80::1%eth0", "医院.example", "a" * 254]
)
def test_what_is_no_host_is_refused(field: Any, host: str) -> None:
    with pytest.raises(DecodeError) as caught:
        issue(field.seed("insurer"), "insurer", (host,), field.now(), secrets.token_bytes)
    assert caught.value.code == "network.bad_host"


@pytest.mark.parametrize("days", [0, 91])
def test_a_leaf_lasts_a_while(field: Any, days: int) -> None:
    with pytest.raises(ValueError, match="90 days"):
        issue(field.seed("insurer"), "insurer", (), field.now(), secrets.token_bytes, days)


def test_all_randomness_is_the_argument(field: Any) -> None:
    def one() -> bytes:
        return issue(field.seed("insurer"), "insurer", ("a",), 1_800_000_000_000, lambda n: bytes(range(n))).certificate

    assert one() == one()


def test_the_file_is_private_whole_and_replaced(field: Any) -> None:
    issued = [issue(field.seed("insurer"), "insurer", (), field.now(), secrets.token_bytes) for _ in range(2)]
    (field.folder / "peer.new").write_bytes(b"left by a crash")
    path = store(issued[0], field.folder)
    assert path.stat().st_mode & 0o777 == 0o600
    assert store(issued[1], field.folder) == path
    assert path.read_bytes() == issued[1].key + issued[1].certificate
    assert list(field.folder.iterdir()) == [path]
    assert repr(issued[0]) == "Issued()" and str(issued[0]) == "Issued()"


def test_when_renewal_is_due(field: Any) -> None:
    def due(path: Path, name: str = "insurer", hosts: tuple[str, ...] = field.HOSTS, generation: int = 0) -> bool:
        return renewal_due(path, name, field.key("insurer", generation), hosts, field.now())

    assert not due(field.certificate("insurer"))
    assert not due(field.certificate("insurer", age=19))
    assert due(field.certificate("insurer", age=21))
    assert due(field.certificate("insurer", age=40))
    assert due(field.certificate("insurer", age=-2))
    file = field.certificate("insurer")
    assert due(file, generation=1)
    assert due(file, hosts=("localhost",))
    assert due(file, name="bureau")
    assert due(field.folder / "none" / "peer.pem")
    file.chmod(0o640)
    assert due(file)
    file.chmod(0o600)
    whole = file.read_bytes()
    for damaged in (b"", whole[:60], whole[: len(whole) // 2], whole[len(whole) // 3 :], b"\xff" * 600):
        file.write_bytes(damaged)
        assert due(file)
    other = issue(field.seed("insurer"), "insurer", field.HOSTS, field.now(), secrets.token_bytes)
    file.write_bytes(other.key + whole[whole.index(b"-----BEGIN CERT") :])
    assert due(file)  # the key of another certificate


# --- an organisation's TLS as a whole


def test_an_organisation_follows_the_members(field: Any) -> None:
    at = [field.now()]
    folders = [field.folder / name for name in ("bureau", "insurer")]
    for folder in folders:
        folder.mkdir()
    bureau = PeerTls(folders[0], "bureau", field.HOSTS, lambda: at[0], secrets.token_bytes)
    insurer = PeerTls(folders[1], "insurer", field.HOSTS, lambda: at[0], secrets.token_bytes)
    with pytest.raises(ValueError, match="refresh"):
        _ = bureau.listening
    both = field.members(bureau=0, insurer=0)
    assert bureau.refresh(both, field.seed("bureau")) and insurer.refresh(both, field.seed("insurer"))
    assert not bureau.refresh(both, field.seed("bureau"))
    listening, towards = bureau.listening, insurer.towards("bureau")[0]
    first = meet(listening, towards)

    # The insurer's key changes: it renews, and is let in by the object that was there before.
    rotated = field.members(bureau=0, insurer=1)
    assert insurer.refresh(rotated, field.seed("insurer", "tls", 1))
    assert insurer.towards("bureau")[0] is towards
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(listening, towards)
    assert not bureau.refresh(rotated, field.seed("bureau"))
    assert bureau.listening is listening
    second = meet(listening, towards)
    assert second[0] == first[0] and second[1] != first[1]

    # The bureau's key changes: who means the bureau needs another context.
    assert bureau.refresh(field.members(bureau=1, insurer=1), field.seed("bureau", "tls", 1))
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(listening, towards)
    insurer.refresh(field.members(bureau=1, insurer=1), field.seed("insurer", "tls", 1))
    assert insurer.towards("bureau")[0] is not towards
    meet(listening, insurer.towards("bureau")[0])

    # The insurer leaves, and time passes for the bureau.
    at[0] += 21 * field.DAY
    assert bureau.refresh(field.members(bureau=1), field.seed("bureau", "tls", 1))
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(listening, insurer.towards("bureau")[0])
    for name in ("insurer", "nobody"):
        with pytest.raises(VerificationError) as caught:
            bureau.towards(name)
        assert caught.value.code == "network.not_member"


def test_only_with_ones_own_present_key(field: Any) -> None:
    one = PeerTls(field.folder, "insurer", field.HOSTS, field.now, secrets.token_bytes)
    for membership, generation, code in (
        (field.members(insurer=1), 0, "network.other_key"),
        (field.members(bureau=0), 0, "network.not_member"),
    ):
        with pytest.raises(VerificationError) as caught:
            one.refresh(membership, field.seed("insurer", "tls", generation))
        assert caught.value.code == code
    assert not list(field.folder.iterdir())
