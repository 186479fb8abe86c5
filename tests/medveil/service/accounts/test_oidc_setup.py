"""The provider of gateway.toml: its files are for their owner alone, and its certificate's issuers can be named."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from medveil.service.accounts.oidc_setup import CALLBACK, provider_client, provider_sign_in
from medveil.service.home.config import Provider
from wire.errors import Refused, Unavailable

from ..api.test_access import routes
from ..staffed import Staffed

SETTINGS = Provider(issuer="https://id.example", client_id="medveil", roles={"groups": {"staff": "clerk"}})


def named(**others: str) -> Provider:
    return Provider(issuer="https://id.example", client_id="medveil", roles=SETTINGS.roles, **others)


def test_the_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    with Staffed(tmp_path) as service, provider_client(tmp_path, SETTINGS) as client:
        with pytest.raises(Unavailable):
            provider_sign_in(tmp_path, named(secret_file="secret"), service.staff, client)
        file = tmp_path / "secret"
        file.write_text("s:e c/ret\n")
        file.chmod(0o640)
        with pytest.raises(Refused) as caught:
            provider_sign_in(tmp_path, named(secret_file="secret"), service.staff, client)
        assert "s:e c/ret" not in caught.value.text()
        file.chmod(0o600)
        made = provider_sign_in(tmp_path, named(secret_file="secret"), service.staff, client)
        assert made._provider.client_secret == "s:e c/ret" and "s:e c/ret" not in repr(made._provider)
        assert made._provider.redirect_uri == service.address + CALLBACK
        absolute = provider_sign_in(Path("/nowhere"), named(secret_file=str(file)), service.staff, client)
        assert absolute._provider.client_secret == "s:e c/ret"


def test_the_callback_is_the_route_that_there_is(tmp_path: Path) -> None:
    with Staffed(tmp_path, issuer="https://id.example") as service:
        assert ("GET", CALLBACK) in {(route.method, route.path) for route in routes(service.running.app)}


def test_authorities_are_a_file_of_certificates(tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("no certificate")
    for bad in ("none.pem", "missing.pem"):
        with pytest.raises(Refused) as caught:
            provider_client(tmp_path, named(authorities=bad))
        assert caught.value.facts["key"] == "authorities"
    system = ssl.get_default_verify_paths().cafile
    if system:
        provider_client(tmp_path, named(authorities=system)).close()
