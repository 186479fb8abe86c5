"""The OpenID provider that gateway.toml names, ready to sign in by: its secret, its trust, the way to it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from medveil.service.accounts.oidc import Provider, ProviderSignIn
from medveil.service.accounts.staff import Staff
from medveil.service.home import config
from wire.errors import Refused

if TYPE_CHECKING:
    import httpx

CALLBACK = "/v1/sign-in/provider/callback"
"""Where the provider sends browsers back to, below the main origin: what is registered at the provider."""
_SECONDS = 10.0


def provider_client(folder: Path, settings: config.Provider) -> httpx.Client:
    """The HTTP client for one provider; the caller closes it. folder: the home, from which paths are taken.

    The environment's proxies and passwords are not used: a provider is reached directly. Raises Refused for
    authorities that are none.
    """
    import httpx

    try:
        trust = ssl.create_default_context(cafile=folder / settings.authorities if settings.authorities else None)
    except (OSError, ssl.SSLError):
        raise Refused("config.bad_provider", file=config.FILE, key="authorities") from None
    return httpx.Client(timeout=_SECONDS, trust_env=False, follow_redirects=False, verify=trust)


def provider_sign_in(folder: Path, settings: config.Provider, staff: Staff, client: httpx.Client) -> ProviderSignIn:
    """Sign-in by the provider, with the accounts of `staff`. Reads the client secret, which stays in memory.

    Raises Refused (others may read the secret's file), Unavailable (it cannot be read).
    """
    described = Provider(
        settings.issuer,
        settings.client_id,
        staff.site.origins[0].rstrip("/") + CALLBACK,
        settings.roles,
        config.secret_in(folder / settings.secret_file) if settings.secret_file else "",
        settings.name_claim,
        settings.scopes,
        settings.required,
    )
    return ProviderSignIn(
        described, client, staff.database, staff.people, staff.sign_in, clock=staff.clock, rand=staff.rand
    )
