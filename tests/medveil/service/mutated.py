"""Requests made from the API's own description, by every kind of caller, and then changed.

A `Maker` draws everything from one seed: the same seed makes the same requests. What it makes is bytes, so that a
client library mends nothing.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fastapi import FastAPI

from medveil.service.accounts.rights import RIGHTS, ROLES
from medveil.service.accounts.signatures import PlainRequest, needs_signature, sign_request

from .api.test_access import Asked, routes
from .staffed import KEY, OTHER_KEY, Staffed

POISON = "patient-110101199001011234"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "PATIENT")
FILLED = (
    "0" * 16,
    "0" * 32,
    "0" * 64,
    "nobody-here",
    "a",
    "1",
    "1.5",
    "0.25",
    "2026-01-01",
    "CNY",
    "ab" * 33,
    "A" * 43,
)
NASTY: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, -(2**63) - 1, 10**400, 1e308, float("nan"), float("inf"), 0.1, "", " ", "\0", "\ud800"),
    *(
        POISON * 3,
        "a" * 5000,
        "' OR 1=1 --",
        "../../../etc/passwd",
        "<script>alert(1)</script>",
        "{0.__class__}",
        "%s%n",
    ),
    *("𝟙𝟚", "\u202e", "ﬀ", "medveil_" + "A" * 43, [], {}, [[[[[[]]]]]], {"__proto__": 1}, ["a"] * 200),
)
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", b"text/plain"),
    (b"content-type", b"application/json; charset=utf-7"),
    (b"content-type", b"application/json/json, \xff"),
    (b"content-encoding", b"gzip"),
    (b"content-length", b"3"),
    (b"content-length", b"-1"),
    (b"content-length", b"99999999999999999999999"),
    (b"transfer-encoding", b"chunked"),
    (b"transfer-encoding", b"xchunked"),
    (b"transfer-encoding", b"chunked, identity"),
    (b"host", b"evil.example"),
    (b"host", b""),
    (b"accept", b"text/html"),
    (b"accept-language", b"zh;q=\xff, " + b"x" * 500),
    (b"accept-language", b"zh" * 400),
    (b"authorization", b"Basic cm9vdDpyb290"),
    (b"authorization", b"Bearer"),
    (b"authorization", b"Bearer \xff\xfe"),
    (b"authorization", b"Bearer " + b"A" * 9000),
    (b"cookie", b"medveil-session=" + b"A" * 43),
    (b"cookie", b'medveil-session="\\"; =; ;;' + POISON.encode()),
    (b"expect", b"100-continue"),
    (b"expect", b"a miracle"),
    (b"idempotency-key", b"\x80" * 20),
    (b"idempotency-key", b"k" * 500),
    (b"if-none-match", b"*"),
    (b"last-event-id", b"-1"),
    (b"last-event-id", b"9" * 400),
    (b"origin", b"null"),
    (b"origin", b"https://[evil"),
    (b"range", b"bytes=0-,1-"),
    (b"sec-fetch-site", b"cross-site"),
    (b"signature", b"medveil=:AAAA:"),
    (b"signature-input", b'medveil=("@method";req);tag="medveil"'),
    (b"content-digest", b"sha-256=:AAAA:, md5=:AAAA:"),
    (b"traceparent", b"00-" + b"f" * 500),
    (b"upgrade", b"h2c"),
    (b"x-forwarded-for", b"127.0.0.1, ::1, " + POISON.encode()),
    (b"x-forwarded-host", b"evil.example"),
    (b"x-http-method-override", b"DELETE"),
    (b"x-original-url", b"/v1/people"),
    (b"x-long", b"a" * 20_000),
    (b"bad name", b"x"),
    (b"x-control", b"a\x00b\x0b"),
)
FRAMING = (b"content-length", b"transfer-encoding", b"upgrade", b"connection", b"expect")
PATHS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda path, _: path.replace(b"/", b"%2f"),
    lambda path, _: path.replace(b"/", b"//"),
    lambda path, _: path + b"/",
    lambda path, _: path + b"/../../../../etc/passwd",
    lambda path, _: path + b"/%2e%2e%2f%2e%2e%2fetc/passwd",
    lambda path, _: path + b"%00",
    lambda path, _: path + b"/%c0%ae%c0%ae/%c0%af",
    lambda path, _: path + b"\xc0\xaf",
    lambda path, _: path + b";a=b",
    lambda path, _: path + b"%",
    lambda path, _: path + b"%zz",
    lambda path, _: path + b"\\..\\..",
    lambda path, _: path.upper(),
    lambda path, _: path.replace(b"/v1/", b"/v1/./"),
    lambda path, _: path.replace(b"/v1/", b"/v2/../v1/"),
    lambda path, _: b"http://evil.example" + path,
    lambda path, _: b"*",
    lambda path, _: path[1:],
    lambda path, _: path + b"?" + b"&".join(b"limit=%d" % number for number in range(300)),
    lambda path, _: path + b"?limit=1e9&after=%00&before=-1&state=" + POISON.encode(),
    lambda path, _: path + b"?" + b"a" * 5000,
    lambda path, _: path + b"a" * 3000,
    lambda path, rng: _struck(path, rng),
)


class Made(NamedTuple):
    """One request. who: its caller. how: what was changed. forged: it was signed, and then changed in what was signed.

    framing: where it ends was touched: the connection may end without an answer.
    """

    route: Asked
    who: str
    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    how: tuple[str, ...] = ()
    forged: bool = False
    framing: bool = False

    def bytes(self) -> bytes:
        """As it goes over the line."""
        head = [self.method.encode() + b" " + self.target + b" HTTP/1.1"]
        head += [name + b": " + value for name, value in self.headers]
        return b"\r\n".join(head) + b"\r\n\r\n" + self.body


def _struck(data: bytes, rng: random.Random) -> bytes:
    """A byte changed, taken, put in, or a piece repeated."""
    at, other = rng.randrange(len(data) + 1), bytes([rng.randrange(256)])
    return rng.choice(
        [
            data[:at] + other + data[at + 1 :],
            data[:at] + data[at + 1 :],
            data[:at] + other + data[at:],
            data[:at] + data[at : at + 20] * 3 + data[at:],
            data[:at],
        ]
    )


def _framing(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields that say where a request ends."""
    return [(name.lower(), value) for name, value in headers if name.lower() in FRAMING]


class Maker:
    """Makes requests to `service`. foreign: a token of another organisation's service."""

    def __init__(self, service: Staffed, foreign: str, seed: int) -> None:
        self._service = service
        self._rng = random.Random(seed)
        app: FastAPI = service.running.app
        self._description = app.openapi()
        self.routes = routes(app)
        self._foreign = foreign
        self._sessions: dict[str, str] = {}
        scopes = {
            role: {name for name, right in RIGHTS.items() if role in right.roles and right.programs} for role in ROLES
        }
        self._tokens = {role: service.token(role, scopes[role])[0] for role in ROLES if scopes[role]}
        self.secrets = {*self._tokens.values(), foreign}
        self._turns: list[Asked] = []
        self._signed_routes = [one for one in self.routes if one.asks and needs_signature(one.method)]

    def session(self, name: str) -> str:
        """The session of a person, begun when it is asked for first, or anew after `ended`."""
        if name not in self._sessions:
            self._sessions[name] = self._service.session(name)
            self.secrets.add(self._sessions[name])
        return self._sessions[name]

    def ended(self) -> None:
        """Sessions may have ended: begin new ones."""
        self._sessions.clear()

    def next(self) -> list[Made]:
        """The next request; or two where the second repeats a signed one, which may be taken once."""
        rng = self._rng
        who = rng.choice(["nobody", "foreign", *("session", "cookie", "program") * 3])
        signing = who == "program" and rng.random() < 0.6
        route = rng.choice(self._signed_routes) if signing else self._turn()
        method, body = route.method, self._body(route)
        if body and rng.random() < 0.5:
            body = self._changed(body)
        made = Made(route, who, method, self._target(route), self._headers(who, method, body), body)
        if who == "program" and needs_signature(method):
            signed, secret = self._signed(made)
            if route.asks and rng.random() < 0.5:
                return self._forged(signed, secret)
            made = signed
        for _ in range(rng.choice([0, 1, 1, 2, 3])):
            made = self._mutated(made)
        return [made]

    def _turn(self) -> Asked:
        """Each route in turn, in an order of its own each time round."""
        if not self._turns:
            self._turns = self._rng.sample(self.routes, len(self.routes))
        return self._turns.pop()

    # --- what a good request has

    def _target(self, route: Asked) -> bytes:
        operation = self._operation(route)
        target = route.path
        for parameter in operation.get("parameters", ()):
            value = str(self._sample(parameter.get("schema", {}), parameter["name"]))
            if parameter["in"] == "path":
                target = target.replace("{" + parameter["name"] + "}", value)
            elif parameter["in"] == "query" and self._rng.random() < 0.4:
                target += ("&" if "?" in target else "?") + f"{parameter['name']}={value}"
        return re.sub(r"{\w+}", "0", target).encode("ascii", "replace").replace(b" ", b"+").replace(b"%", b"25")

    def _headers(self, who: str, method: str, body: bytes) -> tuple[tuple[bytes, bytes], ...]:
        rng, own = self._rng, self._service.address
        headers = [(b"host", own.partition("//")[2].encode()), (b"connection", b"close")]
        headers.append((b"accept-language", rng.choice([b"en", b"zh"])))
        if who == "session":
            headers.append((b"authorization", f"Bearer {self.session(rng.choice(['root', *ROLES]))}".encode()))
        elif who == "cookie":
            headers.append((b"cookie", f"medveil-session={self.session(rng.choice(ROLES))}".encode()))
            headers.append((b"origin", own.encode()))
        elif who == "foreign":
            headers.append((b"authorization", f"Bearer {self._foreign}".encode()))
        elif who == "program":
            headers.append((b"authorization", f"Bearer {rng.choice(sorted(self._tokens.values()))}".encode()))
        if body:
            headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        elif method in ("POST", "PUT", "PATCH"):
            headers.append((b"content-length", b"0"))
        return tuple(headers)

    def _operation(self, route: Asked) -> dict[str, Any]:
        return dict(self._description["paths"].get(route.path, {}).get(route.method.lower(), {}))

    def _body(self, route: Asked) -> bytes:
        content = self._operation(route).get("requestBody", {}).get("content", {})
        if "application/json" not in content:
            return b"{}" if route.method == "POST" and self._rng.random() < 0.1 else b""
        value = self._sample(content["application/json"].get("schema", {}), "")
        if self._rng.random() < 0.5:
            value = self._spoilt(value)
        return json.dumps(value).encode()

    def _sample(self, schema: dict[str, Any], name: str) -> Any:
        """A value that the schema takes, as far as this knows schemas."""
        rng = self._rng
        if "$ref" in schema:
            return self._sample(self._description["components"]["schemas"][schema["$ref"].rpartition("/")[2]], name)
        for several in ("anyOf", "oneOf", "allOf"):
            if several in schema:
                return self._sample(rng.choice(schema[several]), name)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return rng.choice(schema["enum"])
        kind = schema.get("type", "string")
        if kind == "object":
            needed, known = schema.get("required", ()), schema.get("properties", {})
            return {key: self._sample(one, key) for key, one in known.items() if key in needed or rng.random() < 0.6}
        if kind == "array":
            least = schema.get("minItems", 0)
            length = rng.randint(least, min(schema.get("maxItems", least + 3), least + 3))
            return [self._sample(schema.get("items", {}), name) for _ in range(length)]
        if kind in ("integer", "number"):
            low, high = schema.get("minimum", -3), schema.get("maximum", 1000)
            return rng.choice([low, high, rng.randint(int(low), max(int(low), int(high)))])
        if kind == "boolean":
            return rng.random() < 0.5
        return None if kind == "null" else self._text(schema, name)

    def _text(self, schema: dict[str, Any], name: str) -> str:
        rng = self._rng
        if name in ("role", "roles"):
            return rng.choice(ROLES)
        if name == "key":
            return KEY.key.public.hex()
        fitting = [one for one in FILLED if re.search(schema.get("pattern", ""), one)]
        if name in ("person", "name") and rng.random() < 0.3:
            fitting = [f"somebody-{rng.randrange(5)}"]
        longest = schema.get("maxLength", 100)
        return rng.choice(fitting or ["a"])[:longest] + (
            "" if "pattern" in schema else rng.choice(["", POISON[:longest]])
        )

    # --- what is changed

    def _spoilt(self, value: Any) -> Any:
        """One place of it, of another kind or gone."""
        rng = self._rng
        if isinstance(value, dict) and value and rng.random() < 0.8:
            key = rng.choice(sorted(value))
            how = rng.randrange(4)
            if how == 0:
                return {name: one for name, one in value.items() if name != key}
            if how == 1:
                return {**value, POISON: rng.choice(NASTY)}
            return {**value, key: self._spoilt(value[key])}
        if isinstance(value, list) and value and rng.random() < 0.8:
            at = rng.randrange(len(value))
            return [*value[:at], self._spoilt(value[at]), *value[at + 1 :]]
        return rng.choice(NASTY)

    def _changed(self, body: bytes) -> bytes:
        rng = self._rng
        return rng.choice(
            [
                _struck(body, rng),
                _struck(_struck(body, rng), rng),
                b"\xef\xbb\xbf" + body,
                body.decode().encode("utf-16"),
                body + body,
                body.replace(b"{", b'{"name": 1, ', 1),
                b"[" * rng.choice([10, 1000, 100_000]),
                b'{"a":' * 2000,
                b"9" * 5000,
                b"\x00" * 50,
                b'"' + b"\\ud800" * 50 + b'"',
                b" " * rng.choice([10, 50_000, 1_100_000]),
                b"null",
            ]
        )

    def _mutated(self, made: Made) -> Made:
        rng = self._rng
        how = rng.choice(
            ["header", "header", "header", "path", "path", "method", "field", "drop", "cut", "repeat", "line"]
        )
        headers, changes = list(made.headers), (*made.how, how)
        at = rng.randrange(len(headers)) if headers else 0
        if how == "header":
            headers.insert(at, rng.choice(HEADERS))
        elif how == "path":
            return made._replace(target=rng.choice(PATHS)(made.target, rng), how=changes)
        elif how == "method":
            return made._replace(method=rng.choice(METHODS), how=changes)
        elif how == "field" and headers:
            headers[at] = (headers[at][0], _struck(headers[at][1], rng))
        elif how == "drop" and headers:
            del headers[at]
        elif how == "repeat" and headers:
            headers.insert(at, headers[at])
        elif how == "cut":
            return made._replace(body=made.body[: len(made.body) // 2], how=changes, framing=True)
        elif how == "line" and headers:
            headers[at] = (headers[at][0], headers[at][1] + rng.choice([b"\r", b"\n", b"\r\n ", b"\n\nGET / HTTP/1.1"]))
        framing = made.framing or how == "line" or _framing(headers) != _framing(made.headers)
        return made._replace(headers=tuple(headers), how=changes, framing=framing)

    # --- signed, and then changed

    def _signed(self, made: Made) -> tuple[Made, str]:
        fields = [(name.decode(), value.decode("latin-1")) for name, value in made.headers]
        url = self._service.address + made.target.decode()
        plain = PlainRequest(made.method, url, tuple(fields), made.body)
        signer = KEY if self._rng.random() < 0.9 else OTHER_KEY
        added = sign_request(plain, signer, clock=self._service.clock, rand=self._rng.randbytes)
        more = tuple((name.encode(), value.encode()) for name, value in added.items())
        secret = dict(made.headers)[b"authorization"].decode()
        return made._replace(headers=(*made.headers, *more)), secret

    def _forged(self, made: Made, secret: str) -> list[Made]:
        """Changed in a way that the signature must not survive, or sent twice."""
        rng, headers = self._rng, dict(made.headers)
        how = rng.choice(["replay", "path", "query", "method", "body", "token", "signature", "input", "late", "host"])
        target, method, body = made.target, made.method, made.body
        if how == "replay":
            return [made, made._replace(how=("replay",), forged=True)]
        if how == "path":
            guarded = [one for one in self.routes if one.asks and one.path != made.route.path]
            other = rng.choice(guarded)
            target = self._target(other)
            if target == made.target:
                target += b"0"
        elif how == "query":
            target += b"&x=1" if b"?" in target else b"?x=1"
        elif how == "method":
            method = rng.choice([one for one in ("POST", "PUT", "PATCH", "DELETE") if one != method])
        elif how == "body":
            body = body + b" " if rng.random() < 0.5 else b'{"person": "root"}'
            headers |= {b"content-length": str(len(body)).encode(), b"content-type": b"application/json"}
        elif how == "token":
            others = [f"Bearer {token}" for token in self._tokens.values() if f"Bearer {token}" != secret]
            headers[b"authorization"] = rng.choice(others).encode()
        elif how == "signature":
            name, _, value = headers[b"Signature"].partition(b"=:")
            at = rng.randrange(80)  # whole bytes of it, whatever the padding says
            headers[b"Signature"] = (
                name + b"=:" + value[:at] + (b"A" if value[at : at + 1] != b"A" else b"B") + value[at + 1 :]
            )
        elif how == "input":
            old = rng.choice(
                [b'"@method" ', b'"authorization" ', b'"content-digest"', b"created=", b"expires=", b"nonce="]
            )
            headers[b"Signature-Input"] = headers[b"Signature-Input"].replace(
                old, b"" if old.startswith(b'"') else b"x" + old
            )
        elif how == "late":
            soon = re.sub(
                rb"expires=(\d+)", lambda found: b"expires=%d" % (int(found[1]) + 100), headers[b"Signature-Input"]
            )
            headers[b"Signature-Input"] = soon
        else:
            headers[b"host"] = b"evil.example"
        return [
            made._replace(
                method=method, target=target, headers=tuple(headers.items()), body=body, how=(how,), forged=True
            )
        ]


def described(made: Made) -> str:
    """For a failing test: enough to see what it was."""
    return f"{made.who} {made.how} {made.method} {made.target[:200]!r} {made.headers!r:.1500} {made.body[:300]!r}"
