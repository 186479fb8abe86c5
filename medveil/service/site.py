"""Where this service answers, as browsers and programs see it: origins, cookies, and what another site may not do.

Cookies (RFC 6265bis): ``__Host-`` names, so that no other host and no plain connection can set them; HttpOnly;
SameSite=Strict. A service on plain loopback HTTP, for trying out, has cookies without the prefix and without Secure,
which browsers would not send there.

A call that changes something and comes with a cookie must come from a page of the service itself: by Sec-Fetch-Site
(Fetch Metadata), by Origin (RFC 6454), and by one of them at least.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from wire.errors import Refused

SESSION = "medveil-session"
DEVICE = "medveil-device"
ATTEMPT = "medveil-sign-in"

_PORTS = {"https": 443, "http": 80}


class Site:
    """One service. origins: ``https://host:port`` each, the first is the main one; `ValueError` for anything else."""

    def __init__(self, origins: Collection[str]) -> None:
        self.origins = tuple(origins)
        self._known = {_normal(origin): origin for origin in self.origins}
        if not self._known:
            raise ValueError("a service answers somewhere")
        self.encrypted = any(origin.startswith("https:") for origin in self._known)

    def cookie_name(self, name: str) -> str:
        """The full name of one of our cookies."""
        return f"__Host-{name}" if self.encrypted else name

    def cookie(self, request: Request, name: str) -> str:
        """The secret in one of our cookies, or nothing."""
        return request.cookies.get(self.cookie_name(name), "")

    def set_cookie(
        self, response: Response, name: str, secret: str, *, seconds: int | None = None, lax: bool = False
    ) -> None:
        """Give the browser a secret. seconds: None until it closes. lax: also when another site leads here."""
        response.set_cookie(
            self.cookie_name(name),
            secret,
            max_age=seconds,
            path="/",
            secure=self.encrypted,
            httponly=True,
            samesite="lax" if lax else "strict",
        )

    def drop_cookie(self, response: Response, name: str) -> None:
        """Have the browser forget one of our cookies."""
        self.set_cookie(response, name, "", seconds=0)

    def check_own_page(self, request: Request, *, said: bool = True) -> None:
        """Raise Refused unless a page of this service sends `request`. said: the browser must say so."""
        fetched = request.headers.getlist("sec-fetch-site")
        origins = request.headers.getlist("origin")
        good = all(value == "same-origin" for value in fetched)
        good = good and all(_normal_or_none(value) in self._known for value in origins)
        if not good or (said and not fetched and not origins):
            raise Refused("http.cross_site")

    def target(self, request: Request) -> str:
        """The absolute address that `request` is for: the origin that its Host names, path and query as they came.

        A host that is none of ours gives the main origin: whoever checks the address compares Host with it.
        """
        host = request.headers.get("host", "")
        origin = next((one for one in self.origins if urlsplit(one).netloc.lower() == host.lower()), self.origins[0])
        path = (request.scope.get("raw_path") or request.scope["path"].encode()).decode("latin-1")
        query = request.scope["query_string"].decode("latin-1")
        return f"{origin.rstrip('/')}{path}{'?' if query else ''}{query}"


def _normal(origin: str) -> str:
    parts = urlsplit(origin)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError("not an origin")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or _PORTS[parts.scheme]}"


def _normal_or_none(origin: str) -> str | None:
    try:
        return _normal(origin)
    except ValueError:
        return None
