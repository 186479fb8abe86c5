"""Signing in by an OpenID Connect provider: authorization code with PKCE.

    browser -> provider     state, nonce, S256 challenge            (OpenID Connect Core 1.0, 3.1.2; RFC 7636)
    provider -> browser -> gateway    code, state, issuer           (RFC 9207)
    gateway -> provider     code, verifier, client secret
    provider -> gateway     id token                                (Core, 3.1.3.7)

The state is bound to the browser that began (a secret in its cookie), works once and for ten minutes. The id token
must be signed with an asymmetric algorithm of `ALGORITHMS` by a key of the provider's, be issued by it, for this
client, now, and for this very attempt (nonce). Who has no role by the mapping in the configuration gets no account.

The HTTP client is an argument: its timeouts, proxies and trust in certificates are the caller's. It must not follow
redirects. Nothing that the provider sends goes into a message.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode, urlsplit

import sqlalchemy as sa

from medveil.service.accounts.people import Clock, People, Rand, kept, new_secret
from medveil.service.accounts.rights import check_roles
from medveil.service.accounts.sign_in import SignedIn, SignIn
from medveil.service.database import Database, metadata
from wire.errors import DecodeError, Refused, Unavailable, VerificationError

if TYPE_CHECKING:
    import httpx

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "Ed25519", "EdDSA")
ATTEMPT_MS = 10 * 60 * 1000

_KEPT_S = 3600  # discovery document and keys
_ASK_AGAIN_S = 60  # for an unknown key id
_LEEWAY_S = 60
_OLDEST_S = 600
_LARGEST = 256 * 1024
_MOST_ATTEMPTS = 30_000  # as many as one address may begin while one lasts
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

attempts = sa.Table(
    "provider_attempts",
    metadata,
    sa.Column("state", sa.LargeBinary, primary_key=True),
    sa.Column("browser", sa.LargeBinary, nullable=False),
    sa.Column("nonce", sa.Text, nullable=False),
    sa.Column("verifier", sa.Text, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False, index=True),
)


@dataclass(frozen=True)
class Provider:
    """One provider, as gateway.toml describes it. client_secret: secret, empty for a public client.

    roles: claim -> value -> role; a claim is a text or a list of texts. name_claim: gives the account's name.
    required: claim -> values, of which the id token must have one; for ``acr`` they are asked for, too.
    """

    issuer: str
    client_id: str
    redirect_uri: str
    roles: Mapping[str, Mapping[str, str]]
    client_secret: str = field(default="", repr=False)
    name_claim: str = "preferred_username"
    scopes: tuple[str, ...] = ("openid", "profile")
    required: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_safe(self.issuer) or not self.client_id or "openid" not in self.scopes:
            raise Refused("oidc.bad_provider")
        check_roles(role for values in self.roles.values() for role in values.values())


@dataclass(frozen=True)
class Begun:
    """Where to send the browser, and the secret for its cookie (HttpOnly, Secure, SameSite=Lax, ten minutes)."""

    url: str
    browser: str = field(repr=False)


class ProviderSignIn:
    """Sign-in by one provider. May be used from threads; the client must allow that (httpx.Client does)."""

    def __init__(
        self,
        provider: Provider,
        client: httpx.Client,
        database: Database,
        people: People,
        sign_in: SignIn,
        *,
        clock: Clock,
        rand: Rand,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """ticks: seconds of a clock that never goes back, for how long documents are kept."""
        self._provider = provider
        self._client = client
        self._database = database
        self._people = people
        self._sign_in = sign_in
        self._clock = clock
        self._rand = rand
        self._ticks = ticks
        self._document: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, list[dict[str, Any]]] | None = None

    def begin(self) -> Begun:
        """Start one attempt. Raises Unavailable (provider unreachable), DecodeError.

        Anybody may: where too many are open the oldest gives way, so that no stranger keeps others from signing in.
        """
        endpoint = self._discovered()["authorization_endpoint"]
        state, browser, nonce, verifier = (new_secret(self._rand) for _ in range(4))
        now = self._clock()
        with self._database.transaction() as connection:
            connection.execute(attempts.delete().where(attempts.c.expires <= now))
            beyond = connection.execute(sa.select(sa.func.count()).select_from(attempts)).scalar_one() - _MOST_ATTEMPTS
            if beyond >= 0:
                oldest = sa.select(attempts.c.state).order_by(attempts.c.expires, attempts.c.state).limit(beyond + 1)
                connection.execute(attempts.delete().where(attempts.c.state.in_(oldest)))
            row = {"state": kept("state", state), "browser": kept("browser", browser), "nonce": nonce}
            connection.execute(attempts.insert().values(**row, verifier=verifier, expires=now + ATTEMPT_MS))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._provider.client_id,
            "redirect_uri": self._provider.redirect_uri,
            "scope": " ".join(self._provider.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if "acr" in self._provider.required:
            query["acr_values"] = " ".join(self._provider.required["acr"])
        return Begun(f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}", browser)

    def finish(self, answer: Mapping[str, str], browser: str, *, replaces: str = "") -> SignedIn:
        """A session for whoever comes back with the provider's answer (the query of redirect_uri).

        browser: the cookie's secret. replaces: the caller's present session, which ends.
        Raises Refused (attempt unknown; the provider or the mapping says no), VerificationError (``oidc.bad_token``
        with the claim that is wrong), DecodeError, Unavailable. The caller writes refusals down, within bounds.
        """
        nonce, verifier = self._take(answer.get("state", ""), browser)
        if answer.get("iss", self._provider.issuer) != self._provider.issuer:
            raise VerificationError("oidc.bad_token", claim="iss")
        if "error" in answer or not answer.get("code"):
            raise Refused("oidc.provider_refused")
        claims = self._checked(self._exchange(answer["code"], verifier), nonce)
        for claim, wanted in self._provider.required.items():
            if not set(_texts(claims.get(claim))) & set(wanted):
                raise Refused("oidc.not_as_required", claim=claim)
        given = self._roles(claims)
        name = claims.get(self._provider.name_claim)
        if not isinstance(name, str):
            raise Refused("oidc.no_name", claim=self._provider.name_claim)
        person = self._people.of_provider(self._provider.issuer, claims["sub"], name.lower(), given)
        return self._sign_in.open_for_provider(person, replaces=replaces)

    def _take(self, state: str, browser: str) -> tuple[str, str]:
        """Nonce and verifier of the attempt, which is used up."""
        with self._database.transaction() as connection:
            mine = attempts.c.state == kept("state", state)
            row = connection.execute(sa.select(attempts).where(mine)).one_or_none()
            connection.execute(attempts.delete().where(mine))
        if row is None or row.expires <= self._clock():
            raise Refused("oidc.no_attempt")
        if not hmac.compare_digest(bytes(row.browser), kept("browser", browser)):
            raise Refused("oidc.no_attempt")
        return row.nonce, row.verifier

    def _exchange(self, code: str, verifier: str) -> str:
        """The id token for a code (RFC 6749, 4.1.3, with the client's password as 2.3.1 has it)."""
        provider = self._provider
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        form |= {"redirect_uri": provider.redirect_uri}
        headers = {}
        if provider.client_secret:
            pair = f"{quote_plus(provider.client_id)}:{quote_plus(provider.client_secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form |= {"client_id": provider.client_id}
        answer = self._ask("POST", self._discovered()["token_endpoint"], data=form, headers=headers)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise DecodeError("oidc.bad_answer")
        return token

    def _checked(self, token: str, nonce: str) -> dict[str, Any]:
        """The claims of an id token that holds (OpenID Connect Core 1.0, 3.1.3.7)."""
        claims, now = self._opened(token), self._clock() / 1000
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        mine = self._provider.client_id
        subject = claims.get("sub")
        said = claims.get("nonce")
        holds = {
            "iss": claims.get("iss") == self._provider.issuer,
            "aud": mine in audiences and all(isinstance(one, str) for one in audiences),
            "azp": claims.get("azp", mine if len(audiences) == 1 else None) == mine,
            "exp": _is_time(claims.get("exp")) and claims["exp"] > now - _LEEWAY_S,
            "iat": _is_time(claims.get("iat")) and now - _OLDEST_S <= claims["iat"] <= now + _LEEWAY_S,
            "nbf": "nbf" not in claims or (_is_time(claims["nbf"]) and claims["nbf"] <= now + _LEEWAY_S),
            "nonce": isinstance(said, str) and hmac.compare_digest(said.encode("utf-8", "replace"), nonce.encode()),
            "sub": isinstance(subject, str) and re.fullmatch(r"[ -~]{1,255}", subject),
        }
        for claim, held in holds.items():
            if not held:
                raise VerificationError("oidc.bad_token", claim=claim)
        return claims

    def _opened(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature holds: algorithm and type first, then the key, then the signature."""
        from joserfc import jws
        from joserfc.errors import JoseError
        from joserfc.jwk import import_key

        header = _header(token)
        if header.get("alg") not in ALGORITHMS:
            raise VerificationError("oidc.bad_token", claim="alg")
        if str(header.get("typ", "JWT")).upper() != "JWT":
            raise VerificationError("oidc.bad_token", claim="typ")
        key = self._key(header.get("kid"))
        try:
            signed = jws.deserialize_compact(token, import_key(key), algorithms=list(ALGORITHMS))
            claims = json.loads(signed.payload or b"")
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            raise VerificationError("oidc.bad_token", claim="signature") from None
        if not isinstance(claims, dict):
            raise VerificationError("oidc.bad_token", claim="format")
        return claims

    def _key(self, name: object) -> dict[str, Any]:
        """The provider's signature key of that id; for none, its only one. Asks again for an id not seen yet."""
        for again in (False, True):
            keys = self._fetched_keys(again)
            fitting = keys if name is None else [key for key in keys if key.get("kid") == name]
            if len(fitting) == 1:
                return fitting[0]
        raise VerificationError("oidc.bad_token", claim="kid")

    def _fetched_keys(self, again: bool) -> list[dict[str, Any]]:
        now = self._ticks()
        if self._keys is None or now - self._keys[0] > (_ASK_AGAIN_S if again else _KEPT_S):
            found = self._ask("GET", self._discovered()["jwks_uri"]).get("keys")
            if not isinstance(found, list) or not all(isinstance(key, dict) for key in found):
                raise DecodeError("oidc.bad_answer")
            signs = [key for key in found if key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"]
            self._keys = (now, signs)
        return self._keys[1]

    def _discovered(self) -> dict[str, Any]:
        """The provider's own description (OpenID Connect Discovery 1.0), of this very issuer, on safe addresses."""
        now = self._ticks()
        if self._document is None or now - self._document[0] > _KEPT_S:
            address = self._provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
            found = self._ask("GET", address)
            ends = [found.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
            methods = found.get("code_challenge_methods_supported", ["S256"])
            good = found.get("issuer") == self._provider.issuer and isinstance(methods, list) and "S256" in methods
            if not good or not all(isinstance(end, str) and _is_safe(end) for end in ends):
                raise DecodeError("oidc.bad_answer")
            self._document = (now, found)
        return self._document[1]

    def _roles(self, claims: Mapping[str, Any]) -> frozenset[str]:
        given: set[str] = set()
        for claim, values in self._provider.roles.items():
            given.update(values[one] for one in _texts(claims.get(claim)) if one in values)
        if not given:
            raise Refused("oidc.no_role")
        return frozenset(given)

    def _ask(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        """One small JSON object from the provider."""
        import httpx

        try:
            with self._client.stream(method, url, follow_redirects=False, **more) as response:
                data = bytearray()
                for piece in response.iter_bytes():
                    data += piece
                    if len(data) > _LARGEST:
                        raise DecodeError("oidc.bad_answer")
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL):
            raise Unavailable("oidc.unreachable", retry_after=10) from None
        if status >= 500 or status == 429:
            raise Unavailable("oidc.unreachable", retry_after=10)
        if status != 200:
            raise Refused("oidc.provider_refused")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            raise DecodeError("oidc.bad_answer") from None
        if not isinstance(found, dict):
            raise DecodeError("oidc.bad_answer")
        return found


def _header(token: str) -> dict[str, Any]:
    """The header of a compact JWS (RFC 7515, 7.1), read before anything else is."""
    parts = token.split(".")
    try:
        if len(parts) != 3:
            raise ValueError
        header = json.loads(base64.urlsafe_b64decode(parts[0].encode("ascii") + b"=="))
    except (ValueError, RecursionError):
        raise VerificationError("oidc.bad_token", claim="format") from None
    if not isinstance(header, dict):
        raise VerificationError("oidc.bad_token", claim="format")
    return header


def _is_safe(url: str) -> bool:
    """https, or a provider on this very machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))


def _texts(claim: object) -> list[str]:
    """The texts of a claim that is one, or a list of them."""
    return [one for one in (claim if isinstance(claim, list) else [claim]) if isinstance(one, str)]


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
