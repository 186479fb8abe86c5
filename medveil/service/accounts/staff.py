"""An organisation's own people and programs at its service: all parts of it, made once, and the API's part of it."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from fastapi import APIRouter

from medveil.service.accounts.oidc import ProviderSignIn
from medveil.service.accounts.passwords import HashingThreads, Passwords
from medveil.service.accounts.people import People
from medveil.service.accounts.rights import ROLES
from medveil.service.accounts.sign_in import SignIn
from medveil.service.accounts.standing import Standing
from medveil.service.accounts.tokens import Tokens
from medveil.service.api.account_routes import account_routes
from medveil.service.api.callers import Identify, make_identify
from medveil.service.api.people_routes import people_routes
from medveil.service.api.security_routes import security_routes
from medveil.service.api.sign_in_routes import provider_routes, sign_in_routes
from medveil.service.api.token_routes import token_routes
from medveil.service.database import Database
from medveil.service.security.security_trail import Bounds, SecurityTrail
from medveil.service.site import Site


@dataclass(frozen=True)
class Staff:
    """Accounts, sessions, tokens, and the trail that denials go to. Make it with `of`."""

    database: Database
    people: People
    sign_in: SignIn
    tokens: Tokens
    trail: SecurityTrail
    site: Site
    hashing: HashingThreads
    asking: HashingThreads
    standing: Standing
    identify: Identify
    clock: Callable[[], int]
    rand: Callable[[int], bytes]

    @classmethod
    def of(
        cls,
        database: Database,
        organisation: str,
        key: bytes,
        origins: Collection[str],
        *,
        clock: Callable[[], int],
        rand: Callable[[int], bytes],
        passwords: Passwords | None = None,
        codes_for: frozenset[str] = frozenset(ROLES),
        bounds: Bounds | None = None,
    ) -> "Staff":
        """key: 32 secret bytes for the seeds of one-time codes. origins: where the service answers people and
        programs, as ``https://host:port``; the first is the main one. Raises ValueError for what is no origin.
        """
        passwords = passwords or Passwords()
        site = Site(origins)
        sign_in = SignIn(database, organisation, key, clock=clock, rand=rand, passwords=passwords, codes_for=codes_for)
        standing = Standing(database)
        tokens = Tokens(database, clock=clock, rand=rand)
        return cls(
            database,
            People(database, organisation, clock=clock, rand=rand, passwords=passwords),
            sign_in,
            tokens,
            SecurityTrail(database, clock, bounds),
            site,
            HashingThreads(),
            HashingThreads(64, 16, 8, "provider"),
            standing,
            make_identify(sign_in, tokens, standing, database, site.origins, clock),
            clock,
            rand,
        )

    def routers(self, provider: ProviderSignIn | None = None) -> list[APIRouter]:
        """For `Parts.routers`; `identify` and `trail` are for the parts of these names."""
        own = [
            sign_in_routes(self.sign_in, self.people, self.site, self.hashing),
            account_routes(self.sign_in, self.site, self.hashing),
            people_routes(self.people),
            token_routes(self.tokens),
            security_routes(self.database, self.trail),
        ]
        return [*own, provider_routes(provider, self.site, self.asking)] if provider is not None else own

    async def close(self) -> None:
        """Write what was only counted, and end the threads. The database is its owner's to close."""
        await self.trail.close()
        await asyncio.to_thread(self.standing.close)
        self.hashing.close()
        await asyncio.to_thread(self.asking.close)
