"""Mutual TLS with the keys of the ledger: each organisation's `tls` key is its own certificate authority.

No certificate is exchanged out of band. An organisation signs short-lived leaf certificates, with fresh keys, under its
`tls` key; whoever verifies builds the trust anchor itself, from the name and the public key that the membership of
the ledger names. A verifier takes from an anchor its name, key and extensions only: the anchor's own signature says
nothing (RFC 5280, section 6.1.1 d), and OpenSSL does not check it.

A client means one peer: its context holds that peer's anchor and no other, so host names do not matter. A server
accepts any member: its context holds all anchors, and `organisation_of` asks again on every request, because a
connection may outlive a membership.

Spec: RFC 5280 (profile of certificates), RFC 8410 (ed25519 in them), RFC 8446 (TLS 1.3).
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from wire.checkpoint.membership import MOST_MEMBERS, Membership
from wire.durable import put_in_place
from wire.errors import DecodeError, VerificationError
from wire.identifiers import check_name
from wire.signing import ED25519, PUBLIC_BYTES, Signer, VerifyKey, verify_raw

DAYS = 30
"""How long a leaf certificate is good for, unless somebody says otherwise."""

MOST_DAYS = 90
"""The longest that anybody accepts: what a thief of a leaf's key has at most."""

_FILE = "peer.pem"
_BEFORE = timedelta(hours=1)  # clocks of organisations differ
_ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
_THROWAWAY = bytes(32)  # nobody checks what it signs; fixed, so that an anchor is a function of name and key
_UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


class Issued(NamedTuple):
    """A leaf certificate (PEM, public) and its private key (PKCS 8 as PEM, secret)."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Issued()"


def issue(
    authority_seed: bytes,
    organisation: str,
    hosts: Sequence[str],
    now_ms: int,
    rand: Callable[[int], bytes],
    days: int = DAYS,
) -> Issued:
    """A leaf certificate of `organisation` with a fresh key, for both ends of a connection.

    authority_seed: the 32 secret bytes of the organisation's `tls` key. hosts: the DNS names and IP addresses at which
    it listens, for those who look; peers do not. now_ms: instant, UTC. days: 1 to 90. rand: fresh secret bytes.
    Raises DecodeError on a host that is no host. Spec: RFC 5280, section 4.
    """
    if not 1 <= days <= MOST_DAYS:
        raise ValueError(f"a certificate lasts from 1 to {MOST_DAYS} days")
    authority = Ed25519PrivateKey.from_private_bytes(authority_seed)
    key = Ed25519PrivateKey.from_private_bytes(rand(32))
    now = _instant(now_ms)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(organisation))
        .issuer_name(_name(organisation))
        .public_key(key.public_key())
        .serial_number(1 + int.from_bytes(rand(16), "big"))
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    return Issued(
        builder.sign(authority, None).public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


@lru_cache(maxsize=2 * MOST_MEMBERS)
def anchor(organisation: str, key: VerifyKey) -> bytes:
    """The trust anchor of an organisation (DER): a function of its name and its `tls` key alone.

    It may sign leaves, and no authority of another name; one of its own name a path length cannot forbid (section
    4.2.1.9), but `organisation_of` does. Its signature is a throwaway key's, since nobody checks it.
    Raises DecodeError or VerificationError if name or key are none. Spec: RFC 5280, section 6.1.1 d.
    """
    check_name(organisation, "organisation")
    if key.algorithm != ED25519 or len(key.public) != PUBLIC_BYTES:
        raise VerificationError("wire.unknown_algorithm", algorithm=key.algorithm)
    public = Ed25519PublicKey.from_public_bytes(key.public)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(organisation))
        .issuer_name(_name(organisation))
        .public_key(public)
        .serial_number(1)
        .not_valid_before(_ALWAYS[0])
        .not_valid_after(_ALWAYS[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(Ed25519PrivateKey.from_private_bytes(_THROWAWAY), None)
        .public_bytes(Encoding.DER)
    )


# --- on disk, and as contexts


def store(issued: Issued, folder: Path) -> Path:
    """Write certificate and key into `folder`, as one file (mode 600) that replaces the one before in one step.

    One file, so that no crash leaves a certificate beside the key of another.
    """
    path = folder / _FILE
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(issued.key + issued.certificate)
        file.flush()
        os.fsync(file.fileno())
    put_in_place(new, path)
    return path


def renewal_due(path: Path, organisation: str, key: VerifyKey, hosts: Sequence[str], now_ms: int) -> bool:
    """Whether the file is not (or not for long) good for `organisation` at `hosts` under its `tls` key.

    Due: less than a third of the lifetime is left, or it is of a time to come; name, key or hosts are others; there is
    no file, it is damaged, or others on this machine could have read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            return True
        leaf = x509.load_pem_x509_certificate(path.read_bytes())
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)  # the key is the certificate's
        claims = _claims(leaf.public_bytes(Encoding.DER))
        _check_signed(leaf.public_bytes(Encoding.DER), key)
    except (FileNotFoundError, *_UNREADABLE, ssl.SSLError, VerificationError):
        return True
    named = {str(name.value) for extension in leaf.extensions for name in _hosts_of(extension)}
    left = claims.not_after_ms - now_ms
    lifetime = claims.not_after_ms - claims.not_before_ms
    return (
        claims.organisation != organisation
        or named != {str(_host(host).value) for host in hosts}
        or 3 * left < lifetime
        or now_ms < claims.not_before_ms
    )


class _Handshake(ssl.SSLObject):
    """A server's end of a connection that tells its peer why a handshake failed, before the failure is reported.

    asyncio and uvloop drop a connection at that report, and the alert that OpenSSL has written is never sent. So the
    report waits for the peer's next word or for the limit of time of the handshake, where there is an alert to send.
    """

    _outgoing: ssl.MemoryBIO
    _refusals: Counter[str]
    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """One step. Raises ssl.SSLError, and ssl.SSLWantReadError while there is more to send or to hear."""
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            self._refusals[error.reason or "UNKNOWN"] += 1
            if self._outgoing.pending:
                raise ssl.SSLWantReadError from error
            raise


class ServerContext(ssl.SSLContext):
    """A listener's context. refusals: how many handshakes failed since the start, by OpenSSL's name of the reason."""

    sslobject_class = _Handshake

    def __new__(cls, protocol: int, *args: Any, **named: Any) -> Self:
        """An empty one; see `server_context`."""
        made = super().__new__(cls, protocol, *args, **named)
        made.refusals = Counter()
        made._successor = None
        return made

    refusals: Counter[str]
    _successor: ServerContext | None

    def hand_over(self, to: ServerContext) -> None:
        """Let the listener that was given this context use certificate and anchors of `to` for each new connection.

        Python runs the callback in each handshake, also in one that names no server. A context cannot forget an
        anchor, so a member that leaves needs another context; the listener and its connections stay.
        """

        def change(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            present = to
            while present._successor is not None:
                present = present._successor
            connection.context = present

        self._successor = to
        self.sni_callback = change

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **named: Any) -> ssl.SSLObject:
        """The server's end of one connection, as event loops ask for it."""
        made = super().wrap_bio(incoming, outgoing, *args, **named)
        assert isinstance(made, _Handshake)
        made._outgoing, made._refusals = outgoing, self.refusals
        return made


def server_context(file: Path, anchors: Iterable[bytes]) -> ServerContext:
    """TLS 1.3 for a listener: presents the certificate in `file`, and asks for one under any of `anchors` (DER).

    Sessions are not resumed: each connection is judged by the members of its own time.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    _prepare(context, file, b"".join(anchors))
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def client_context(file: Path, of_peer: bytes) -> ssl.SSLContext:
    """TLS 1.3 towards one peer: presents the certificate in `file`, and accepts one under the anchor `of_peer` (DER).

    Host names are not checked: the anchor names the peer, and nobody but the peer signs under it. An address that
    leads to somebody else, even to another member, fails.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _prepare(context, file, of_peer)
    return context


class PeerTls:
    """One organisation's TLS towards its peers: its certificate on disk, and a context for each use.

    folder: private to the organisation, it exists. Call `refresh` before first use, whenever the members change and
    from time to time (an hour is often enough); not from two threads at once.
    """

    def __init__(
        self,
        folder: Path,
        organisation: str,
        hosts: Sequence[str],
        clock: Callable[[], int],
        rand: Callable[[int], bytes],
        days: int = DAYS,
    ) -> None:
        self.organisation = organisation
        self.renewals = 0  # of its certificate: what was connected before a renewal still shows the one of before
        self._path = folder / _FILE
        self._next: PeerTls | None = None
        self._hosts = tuple(hosts)
        self._clock = clock
        self._rand = rand
        self._days = days
        self._keys: dict[str, VerifyKey] = {}
        self._listening: ServerContext | None = None
        self._towards: dict[str, ssl.SSLContext] = {}

    def refresh(self, membership: Membership, authority_seed: bytes, next_seed: bytes | None = None) -> bool:
        """Renew the certificate if that is due, and let new connections follow `membership`; whether it was renewed.

        authority_seed: the 32 secret bytes of the organisation's present `tls` key; next_seed: of the one that it has
        announced, if it is not in force yet as far as this organisation knows. They are not kept.
        Raises VerificationError if the organisation is no member, or its key is another.
        """
        keys = {member.organisation: member.keys.tls.key for member in membership.members}
        if Signer(authority_seed).key != _member_key(keys, self.organisation):
            raise VerificationError("network.other_key", organisation=self.organisation)
        if next_seed is None or next_seed == authority_seed:
            self._next = None
        else:
            if self._next is None:
                folder = self._path.parent / "next"
                folder.mkdir(mode=0o700, exist_ok=True)
                self._next = PeerTls(folder, self.organisation, self._hosts, self._clock, self._rand, self._days)
            self._next._follow(keys | {self.organisation: Signer(next_seed).key}, next_seed)
        return self._follow(keys, authority_seed)

    def _follow(self, keys: dict[str, VerifyKey], authority_seed: bytes) -> bool:
        own = keys[self.organisation]
        renew = renewal_due(self._path, self.organisation, own, self._hosts, self._clock())
        if renew:
            issued = issue(authority_seed, self.organisation, self._hosts, self._clock(), self._rand, self._days)
            store(issued, self._path.parent)
        if renew or keys != self._keys or self._listening is None:
            fresh = server_context(self._path, (anchor(*entry) for entry in keys.items()))
            if self._listening is None:
                self._listening = fresh
            else:
                self._listening.hand_over(fresh)
        self._towards = {peer: kept for peer, kept in self._towards.items() if keys.get(peer) == self._keys.get(peer)}
        if renew:
            for kept in self._towards.values():
                kept.load_cert_chain(self._path)
            self.renewals += 1
        self._keys = keys
        return renew

    @property
    def listening(self) -> ServerContext:
        """The listener's context: the same object for good, `refresh` changes what is behind it."""
        if self._listening is None:
            raise ValueError("refresh comes before the first use")
        return self._listening

    def towards(self, peer: str) -> tuple[ssl.SSLContext, ...]:
        """The contexts for connections to `peer`, the same objects until a key changes; one, unless a key of its own
        is about to change: then that of the key to come is the second, for whoever knows it already.

        Raises VerificationError if `peer` is no member. Clients that live long should ask before they connect.
        """
        mine = self._context(peer)
        return (mine,) if self._next is None else (mine, self._next._context(peer))

    def _context(self, peer: str) -> ssl.SSLContext:
        found = self._towards.get(peer)
        if found is None:
            found = client_context(self._path, anchor(peer, _member_key(self._keys, peer)))
            self._towards[peer] = found
        return found


# --- who it is


def organisation_of(leaf_der: bytes, membership: Membership, now_ms: int) -> str:
    """The member whose certificate this is, judged by the present members alone, whatever TLS said earlier.

    leaf_der: the certificate that the peer proved to hold the key of. now_ms: instant, UTC. Checks that issuer and
    subject are one current member, that its current `tls` key signed the certificate, its time and its uses.
    Raises VerificationError.
    """
    claims = _claims(leaf_der)
    member = membership.find(claims.organisation)
    if member is None:
        raise VerificationError("network.not_member", organisation=claims.organisation)
    _check_signed(leaf_der, member.keys.tls.key)
    if not claims.not_before_ms <= now_ms <= claims.not_after_ms:
        raise VerificationError("network.certificate_time", organisation=claims.organisation)
    return claims.organisation


class _Claims(NamedTuple):
    """What a certificate of the right form says; nobody has checked who says so."""

    organisation: str
    not_before_ms: int
    not_after_ms: int


# Both functions are pure, and a connection asks the same on each of its requests. What fails is not remembered.
@lru_cache(maxsize=4096)
def _claims(leaf_der: bytes) -> _Claims:
    try:
        leaf = x509.load_der_x509_certificate(leaf_der)
        issuer, subject, extensions = leaf.issuer, leaf.subject, leaf.extensions
        begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    except _UNREADABLE:
        raise _bad("encoding") from None
    try:
        [common_name] = issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        organisation = check_name(str(common_name.value), "organisation")
    except (ValueError, DecodeError):
        raise _bad("issuer") from None
    if issuer != _name(organisation) or subject != issuer:
        raise _bad("subject")
    if ends - begins > timedelta(days=MOST_DAYS) + _BEFORE:
        raise _bad("lifetime")
    try:
        uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise _bad("use") from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in uses or constraints.ca:
        raise _bad("use")
    return _Claims(organisation, _ms(begins), _ms(ends))


@lru_cache(maxsize=4096)
def _check_signed(leaf_der: bytes, key: VerifyKey) -> None:
    leaf = x509.load_der_x509_certificate(leaf_der)
    if leaf.signature_algorithm_oid != SignatureAlgorithmOID.ED25519:
        raise _bad("signature algorithm")
    if not leaf_der.endswith(b"\0" + leaf.signature):  # a bit string may call its last zeros unused: one form only
        raise _bad("encoding")
    try:
        verify_raw(key, leaf.tbs_certificate_bytes, leaf.signature)
    except VerificationError:
        raise VerificationError("network.other_authority", organisation=_claims(leaf_der).organisation) from None


def _bad(rule: str) -> VerificationError:
    return VerificationError("network.bad_certificate", rule=rule)


def _member_key(keys: dict[str, VerifyKey], organisation: str) -> VerifyKey:
    key = keys.get(organisation)
    if key is None:
        raise VerificationError("network.not_member", organisation=organisation)
    return key


# --- small parts of certificates


def _name(organisation: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, organisation)])


def _host(host: str) -> x509.GeneralName:
    try:
        if "%" not in host:
            return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if len(host) <= 253 and _HOST.fullmatch(host):
            return x509.DNSName(host)
    raise DecodeError("network.bad_host", host=host)


def _hosts_of(extension: x509.Extension[x509.ExtensionType]) -> Iterable[x509.GeneralName]:
    return extension.value if isinstance(extension.value, x509.SubjectAlternativeName) else ()


def _key_usage(digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _prepare(context: ssl.SSLContext, file: Path, anchors: bytes) -> None:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(file)
    context.load_verify_locations(cadata=anchors)


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC)


def _ms(instant: datetime) -> int:
    return int(instant.timestamp()) * 1000
