"""HTTP message signatures of programs (RFC 9421) with Content-Digest (RFC 9530).

A program that holds a token signs each call that changes something with the ed25519 key that the token is bound to.
The signature covers method, full target, the token, the body's digest and type; it says when it was made, when it
ends and a nonce, and carries the tag ``medveil``. So a call that was overheard or logged cannot be sent again, to
another host, path or method, with another body or under another token.

    program -> gateway    request, Content-Digest, Signature-Input, Signature

The rules of RFC 9421 that this profile fixes (its section 1.4): ed25519 alone; one signature with our tag; plain
components without parameters; ``created`` at most 300 s from now; ``expires`` at most 300 s after it; nonces of
16 to 64 characters, used up in the store (`used_nonces`), so also across a restart and whatever the clock is set to.

The building of the signature base is http-message-signatures's; keys and checking are `wire.signing`'s (libsodium,
strict). A request is described plainly: no web framework is imported.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from medveil.service.accounts.signed_request import (
    ALGORITHM,
    ALWAYS,
    IF_PRESENT,
    LONGEST_S,
    TAG,
    WITH_BODY,
    Clock,
    PlainRequest,
    algorithm,
    needs_signature,
    sign_request,
)
from medveil.service.accounts.used_nonces import use_up
from medveil.service.database import Database
from wire.errors import VerificationError
from wire.signing import VerifyKey

__all__ = ["PlainRequest", "Verified", "needs_signature", "sign_request", "verify_request"]

_TARGET = frozenset({"@target-uri"})
_SPLIT_TARGET = frozenset({"@authority", "@path", "@query"})
_ONCE = ("authorization", "content-digest", "content-type", "host", *IF_PRESENT)
_PARAMETERS = frozenset({"created", "expires", "nonce", "keyid", "alg", "tag"})
_DIGESTS = {"sha-256": "sha256", "sha-512": "sha512"}
_PORTS = {"https": 443, "http": 80}
_MOST_COMPONENTS = 32
_LONGEST_FIELD = 8192


@dataclass(frozen=True)
class Verified:
    """A signature that held. Instants in seconds UTC."""

    key: VerifyKey
    nonce: str
    created: int
    expires: int


def verify_request(
    request: PlainRequest, key: VerifyKey, *, database: Database, clock: Clock, origins: Collection[str]
) -> Verified:
    """Gateway: check a program's signature against the key that its token is bound to, and use up its nonce.

    origins: where this service answers, as ``https://host:port``. The caller has checked the token; this checks that
    the token's holder made this very request, now, for here. When it returns, the nonce is durable.
    Raises VerificationError, with a code for each fault; the signature itself is looked at last but the nonce, so
    that a stranger can neither use up nonces nor fill the store.
    """
    label, components, parameters = _read(request)
    _check_host(request, origins)
    _check_parameters(parameters, key)
    _check_components(request, components)
    now = clock() // 1000
    created, expires = _check_times(parameters, now)
    _check_body(request)
    _check_signature(request, key, label)
    nonce = str(parameters["nonce"])
    use_up(database, key.public, nonce, now=now, expires=expires)
    return Verified(key, nonce, created, expires)


def _read(request: PlainRequest) -> tuple[str, list[tuple[object, Mapping[str, object]]], Mapping[str, object]]:
    """Our signature's label, components and parameters."""
    import http_sf

    for name in ("signature-input", "signature"):
        if not request.values(name):
            raise VerificationError("signatures.missing")
    for name in (*_ONCE, "signature-input", "signature"):
        values = request.values(name)
        if len(values) > 1 or any(len(value) > _LONGEST_FIELD for value in values):
            raise VerificationError("signatures.malformed", field=name)
    try:
        parsed: Any = http_sf.parse(request.values("signature-input")[0].encode("ascii"), tltype="dictionary")
        ours = [
            (label, member, parameters)
            for label, (member, parameters) in parsed.items()
            if isinstance(member, list) and parameters.get("tag") == TAG
        ]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise VerificationError("signatures.malformed", field="signature-input") from None
    if len(ours) != 1:
        raise VerificationError("signatures.not_one", tag=TAG)
    return ours[0]


def _check_host(request: PlainRequest, origins: Collection[str]) -> None:
    """The request is for one of our origins, by its url and by its Host field."""
    try:
        asked = _origin(request.url)
        hosts = [_origin(f"{asked[0]}://{host}") for host in request.values("host")]
        if any(character in host for host in request.values("host") for character in "/?#@"):
            raise ValueError("a host is a name and a port")
    except ValueError:
        raise VerificationError("signatures.malformed", field="host") from None
    if asked not in {_origin(origin) for origin in origins} or any(host != asked for host in hosts):
        raise VerificationError("signatures.other_host")


def _origin(url: str) -> tuple[str, str, int]:
    if not url.isascii() or any(character <= " " or character in "\\\x7f" for character in url):
        raise ValueError("no origin has such a character")  # urlsplit would pass over tabs and line ends
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        raise ValueError("no origin")
    return parts.scheme, parts.hostname.lower(), parts.port or _PORTS[parts.scheme]


def _check_parameters(parameters: Mapping[str, object], key: VerifyKey) -> None:
    if parameters.get("alg", ALGORITHM) != ALGORITHM:
        raise VerificationError("signatures.algorithm", algorithm=ALGORITHM)
    for name in ("created", "expires", "nonce", "keyid"):
        if name not in parameters:
            raise VerificationError("signatures.parameter_missing", parameter=name)
    if not parameters.keys() <= _PARAMETERS:
        raise VerificationError("signatures.malformed", field="signature-input")
    if parameters["keyid"] != key.key_id().hex():
        raise VerificationError("signatures.other_key")
    nonce = parameters["nonce"]
    if not isinstance(nonce, str) or not 16 <= len(nonce) <= 64:
        raise VerificationError("signatures.bad_nonce")


def _check_components(request: PlainRequest, components: list[tuple[object, Mapping[str, object]]]) -> None:
    """All that must be covered is, without parameters that would cover only part of it."""
    if len(components) > _MOST_COMPONENTS:
        raise VerificationError("signatures.malformed", field="signature-input")
    covered = {str(name) for name, parameters in components if not parameters}
    needed = [*ALWAYS, *(WITH_BODY if request.body or request.values("content-type") else ())]
    needed += [name for name in IF_PRESENT if request.values(name)]
    if not (covered >= _TARGET or covered >= _SPLIT_TARGET):
        needed.insert(1, "@target-uri")
    for name in needed:
        if name not in covered:
            raise VerificationError("signatures.component_missing", component=name)
    for name in covered:
        if not name.startswith("@") and not request.values(name):
            raise VerificationError("signatures.field_missing", component=name)


def _check_times(parameters: Mapping[str, object], now: int) -> tuple[int, int]:
    created, expires = parameters["created"], parameters["expires"]
    if type(created) is not int or type(expires) is not int or not 0 < expires - created <= LONGEST_S:
        raise VerificationError("signatures.bad_period", longest=LONGEST_S)
    if created > now + LONGEST_S:
        raise VerificationError("signatures.in_future")
    if expires <= now:  # so created is not longer ago than the longest period
        raise VerificationError("signatures.expired")
    return created, expires


def _check_body(request: PlainRequest) -> None:
    """Every digest that is given is one we know, and the body's."""
    import http_sf

    try:
        parsed: Any = http_sf.parse(request.values("content-digest")[0].encode("ascii"), tltype="dictionary")
        digests = {name: value for name, (value, _) in parsed.items()}
    except (ValueError, TypeError, KeyError, IndexError):
        raise VerificationError("signatures.malformed", field="content-digest") from None
    if not digests or not digests.keys() <= _DIGESTS.keys():
        raise VerificationError("signatures.digest_algorithm", known=", ".join(_DIGESTS))
    for name, value in digests.items():
        actual = hashlib.new(_DIGESTS[name], request.body).digest()
        if not isinstance(value, bytes) or not hmac.compare_digest(value, actual):
            raise VerificationError("signatures.other_body")


def _check_signature(request: PlainRequest, key: VerifyKey, label: str) -> None:
    from http_message_signatures import (
        HTTPMessageSignaturesException,
        HTTPMessageVerifier,
        HTTPSignatureKeyResolver,
    )

    class Resolver(HTTPSignatureKeyResolver):
        def resolve_public_key(self, key_id: str) -> VerifyKey:
            return key

    class Verifier(HTTPMessageVerifier):
        def validate_created_and_expires(self, sig_input: object, max_age: object = None) -> None:
            """Times are checked above, by the service's own clock."""

    headers = SimpleNamespace(items=lambda: iter(request.headers))
    message = SimpleNamespace(method=request.method, url=request.url, headers=headers)
    verifier = Verifier(signature_algorithm=algorithm(), key_resolver=Resolver())
    try:
        (_,) = verifier.verify(message, max_age=None, expect_tag=TAG, expect_label=label)
    except (HTTPMessageSignaturesException, ValueError):
        raise VerificationError("signatures.does_not_hold") from None
