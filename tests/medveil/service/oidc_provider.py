"""A small OpenID provider that really runs: discovery, keys, authorisation and token endpoints under uvicorn.

It signs with joserfc and checks what a provider must: client, redirect address, code once, S256 verifier. Each way of
being bad is a change of one of its fields.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode

import uvicorn
from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

CLIENT, SECRET, BACK = "medveil", "s:e c/ret", "https://hospital-a/v1/session/provider"


class Provider:
    """Start with `with`, then `reset`. now: seconds UTC, its clock. back: the redirect address that it knows."""

    def __init__(self) -> None:
        self._own_key = RSAKey.generate_key(2048, parameters={"kid": "k1"})
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.issuer = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def reset(self, now: Callable[[], int]) -> None:
        """Be an honest provider with one key again."""
        self.now, self.back = now, BACK
        self.keys: dict[str, Key] = {"k1": self._own_key}
        self.algorithm, self.kid = "RS256", "k1"
        self.header: dict[str, Any] = {}
        self.claims: dict[str, Any] = {"sub": "17", "preferred_username": "Ada", "groups": ["staff", "claims-team"]}
        self.change: Callable[[dict[str, Any]], Any] = lambda claims: claims
        self.token: Callable[[str], str] = lambda token: token
        self.sign = self.signed
        self.document: Callable[[dict[str, Any]], Any] = lambda found: found
        self.answer: tuple[int, bytes] | None = None  # of the token endpoint, instead of its own
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Provider:
        config = uvicorn.Config(self._app, interface="asgi3", log_level="error", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    async def _app(self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        self.asked.append(scope["path"])
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, data, more = self._reply(scope["path"], scope["query_string"].decode(), body.decode(), headers)
        lines = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode()), *more]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": data})

    def _reply(
        self, path: str, query: str, body: str, headers: dict[str, str]
    ) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        if path == "/.well-known/openid-configuration":
            found = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "code_challenge_methods_supported": ["S256"],
            }
            return 200, json.dumps(self.document(found)).encode(), []
        if path == "/keys":
            shown = [key.as_dict(private=False, kid=kid) for kid, key in self.keys.items() if key.key_type != "oct"]
            return 200, json.dumps({"keys": shown}).encode(), []
        if path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(query).items()}
            assert (asked["client_id"], asked["redirect_uri"]) == (CLIENT, self.back)
            assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
            code = f"code-{len(self.asked)}"
            self._codes[code] = asked
            back = urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
            return 302, b"", [(b"location", f"{self.back}?{back}".encode())]
        if path == "/token":
            if self.answer is not None:
                return *self.answer, []
            return self._issue({name: values[0] for name, values in parse_qs(body).items()}, headers)
        return 404, b"{}", []

    def _issue(self, form: dict[str, str], headers: dict[str, str]) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        asked = self._codes.pop(form["code"], None)
        basic = base64.b64encode(b"medveil:s%3Ae+c%2Fret").decode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if (
            asked is None
            or headers.get("authorization") != f"Basic {basic}"
            or form["redirect_uri"] != asked["redirect_uri"]
            or asked["code_challenge"] != challenge.decode()
        ):
            return 400, b'{"error": "invalid_grant"}', []
        now = self.now()
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        payload = json.dumps(self.change(claims | self.claims)).encode()
        token = self.sign(payload)
        return 200, json.dumps({"id_token": self.token(token), "access_token": "x"}).encode(), []

    def signed(self, payload: bytes) -> str:
        key = self.keys[self.kid] if self.kid in self.keys else next(iter(self.keys.values()))
        header = {"alg": self.algorithm, "kid": self.kid, **self.header}
        header = {name: value for name, value in header.items() if value is not None}
        if self.algorithm == "none":
            parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(header).encode(), payload)]
            return b".".join([*parts, b""]).decode()
        return jws.serialize_compact(header, payload, key, algorithms=[self.algorithm])


def other_key(kind: str) -> Key:
    """A fresh key of the kind that an algorithm needs."""
    if kind.startswith("ES"):
        return ECKey.generate_key("P-256" if kind == "ES256" else "P-384")
    if kind.startswith("Ed"):
        return OKPKey.generate_key("Ed25519")
    if kind.startswith("HS"):
        return OctKey.generate_key(256)
    return RSAKey.generate_key(2048)
