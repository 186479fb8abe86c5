"""A running service with people of every role, and callers of every kind."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
from fastapi import APIRouter

from medveil.service.accounts.oidc import Provider, ProviderSignIn
from medveil.service.accounts.passwords import Hashing, Passwords
from medveil.service.accounts.rights import ROLES, Principal, rights_of
from medveil.service.accounts.signatures import PlainRequest, needs_signature, sign_request
from medveil.service.accounts.staff import Staff
from medveil.service.database import Database
from medveil.service.security import security_log
from medveil.service.security.security_log import SecurityEntry
from medveil.service.security.security_trail import Bounds
from wire.signing import Signer

from .conftest import Clock
from .oidc_provider import BACK, CLIENT, SECRET
from .running import Running, Set

PASSWORD = "seven wet lanterns hum"
ROOT = Principal("person", "root", frozenset({"admin"}), rights_of({"admin"}), "root")
KEY, OTHER_KEY = Signer(bytes(range(32))), Signer(bytes(range(1, 33)))
UNBOUNDED = Bounds(10**9, 10**9, 10**9)
_TLS = ssl.create_default_context()  # authorities of nobody here: read once, not for each service


class Staffed:
    """One organisation's service. Each role has a person of that name, besides the admin root."""

    def __init__(
        self,
        folder: Path,
        *,
        codes_for: Iterable[str] = (),
        bounds: Bounds | None = None,
        issuer: str = "",
        origins: Iterable[str] = (),
        routers: Iterable[APIRouter] | Callable[[Set], Iterable[APIRouter]] = (),
        settings: dict[str, Any] | None = None,
        url: str = "",
        organisation: str = "north",
        **others: Any,
    ) -> None:
        self.organisation = organisation
        self.clock = Clock()
        self.rand = random.Random(7).randbytes
        self.database = Database.open(url or f"sqlite:///{folder}/staff.sqlite")
        self._codes_for, self._bounds = frozenset(codes_for), bounds
        self._origins, self._routers = tuple(origins), routers
        self._issuer, self._client = issuer, httpx.Client(timeout=5, trust_env=False, verify=_TLS)
        self._callers = httpx.Client(timeout=20, trust_env=False, verify=_TLS)
        self.set = Set(folder, **(settings or {}))
        self.running = Running(self.set, at=self._parts, **others)
        self.address = self.running.address
        self.staff.people.accept(self.staff.people.invite_first_admin("root"), PASSWORD)
        for role in ROLES:
            self.staff.people.accept(self.staff.people.add(ROOT, role, {role}), PASSWORD)

    def _parts(self, address: str) -> dict[str, Any]:
        self.staff = Staff.of(
            self.database,
            self.organisation,
            bytes(32),
            self._origins or [address],
            clock=self.clock,
            rand=self.rand,
            passwords=Passwords(Hashing(1, 8, 1)),
            codes_for=self._codes_for,
            bounds=self._bounds,
        )
        provider = None
        if self._issuer:
            described = Provider(
                self._issuer,
                CLIENT,
                BACK,
                {"groups": {"claims-team": "clerk"}},
                SECRET,
            )
            staff = self.staff
            provider = ProviderSignIn(
                described,
                self._client,
                self.database,
                staff.people,
                staff.sign_in,
                clock=self.clock,
                rand=self.rand,
            )
        routers = self._routers(self.set) if callable(self._routers) else self._routers
        return {
            "organisation": self.organisation,
            "identify": self.staff.identify,
            "trail": self.staff.trail,
            "routers": [*self.staff.routers(provider), *routers],
        }

    def __enter__(self) -> Staffed:
        self.running.__enter__()
        return self

    def __exit__(self, *_given: object) -> None:
        self.running.do(self.staff.close())
        self.running.__exit__()
        self.set.database.close()
        self.database.close()
        self._client.close()
        self._callers.close()

    def session(self, name: str) -> str:
        """A new session's secret."""
        return self.staff.sign_in.sign_in(name, PASSWORD, address="192.0.2.1").session

    def token(self, role: str, scopes: Iterable[str], key: Signer = KEY) -> tuple[str, str]:
        """Secret and id of a new token of the role's person."""
        who = self.staff.sign_in.principal(self.session(role))
        secret, token = self.staff.tokens.issue(who, "test", scopes, key.key, days=1)
        return secret, token.id

    def send(
        self,
        method: str,
        path: str,
        bearer: str = "",
        *,
        signer: Signer | None = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        language: str = "en",
    ) -> httpx.Response:
        """One request, signed by `signer` if there is one. A method that changes something has a body."""
        fields = {"accept-language": language, **(headers or {})}
        if bearer:
            fields["authorization"] = f"Bearer {bearer}"
        if body is None and needs_signature(method):
            body = b"{}"
        if body:
            fields["content-type"] = "application/json"
        url = self.address + path
        if signer is not None:
            request = PlainRequest(method, url, tuple(fields.items()), body or b"")
            fields |= sign_request(request, signer, clock=self.clock, rand=self.rand)
        answer = self._callers.request(method, url, headers=fields, content=body)
        self._callers.cookies.clear()  # each call is somebody else's
        return answer

    def last_entry(self) -> SecurityEntry:
        """The newest entry of the security log."""
        return self.entries(1)[0]

    def entries(self, limit: int = 1000) -> list[SecurityEntry]:
        """The newest entries first."""
        with self.database.reading() as connection:
            return security_log.read(connection, limit=limit)
