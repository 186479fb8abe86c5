"""Sign-in by a provider that really runs: what holds, every kind of bad token, and who gets no account."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import sqlalchemy as sa
from joserfc.jwk import OctKey

from medveil.service.accounts import oidc
from medveil.service.accounts.oidc import Provider as Described
from medveil.service.accounts.oidc import ProviderSignIn, attempts
from medveil.service.accounts.passwords import Hashing, Passwords
from medveil.service.accounts.people import People
from medveil.service.accounts.rights import Principal, rights_of
from medveil.service.accounts.sign_in import SignIn
from medveil.service.database import Database
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError

from ..conftest import Clock
from ..oidc_provider import BACK, CLIENT, SECRET, Provider, other_key

ADMIN = Principal("person", "root", frozenset({"admin"}), rights_of({"admin"}), "root")
QUICK = Passwords(Hashing(1, 8, 1))


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with Provider() as started:
        yield started


@pytest.fixture
def provider(running: Provider, clock: Clock) -> Provider:
    running.reset(lambda: clock() // 1000)
    return running


class House:
    """A gateway that trusts the provider."""

    def __init__(self, database: Database, provider: Provider, clock: Clock, rand: Callable[[int], bytes]) -> None:
        self.database, self.provider, self.clock = database, provider, clock
        self.people = People(database, "hospital-a", clock=clock, rand=rand, passwords=QUICK)
        self.people.accept(self.people.invite_first_admin("root"), "seven wet lanterns hum")
        self.sign_in = SignIn(database, "hospital-a", bytes(32), clock=clock, rand=rand, passwords=QUICK)
        self.client = httpx.Client(timeout=5, trust_env=False)
        roles = {"groups": {"claims-team": "clerk", "data-team": "officer"}, "department": {"audit": "auditor"}}
        described = Described(provider.issuer, CLIENT, BACK, roles, SECRET)
        self.ticks = 0.0
        self.door = ProviderSignIn(
            described,
            self.client,
            database,
            self.people,
            self.sign_in,
            clock=clock,
            rand=rand,
            ticks=lambda: self.ticks,
        )

    def round(self) -> tuple[dict[str, str], str]:
        """The browser's way to the provider and back: its answer, and the cookie."""
        begun = self.door.begin()
        assert begun.browser not in repr(begun)
        answer = self.client.get(begun.url)
        assert answer.status_code == 302
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        return {name: values[0] for name, values in query.items()}, begun.browser

    def enter(self) -> Principal:
        return self.sign_in.principal(self.door.finish(*self.round()).session)

    def refused(self) -> MedveilError:
        with pytest.raises(MedveilError) as raised:
            self.door.finish(*self.round())
        assert [person.name for person in self.people.all(ADMIN)] == ["root"]
        return raised.value


@pytest.fixture
def house(database: Database, provider: Provider, clock: Clock, rand: Callable[[int], bytes]) -> Iterator[House]:
    made = House(database, provider, clock, rand)
    yield made
    made.client.close()


def test_somebody_with_a_role_gets_an_account_and_a_session(house: House) -> None:
    who = house.enter()
    assert (who.name, who.roles) == ("ada", {"clerk"})
    house.provider.claims |= {"groups": "data-team", "department": ["audit"]}
    again = house.enter()
    assert (again.name, again.roles) == ("ada", {"officer", "auditor"})
    assert house.provider.asked.count("/.well-known/openid-configuration") == 1 == house.provider.asked.count("/keys")


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "Ed25519"])
def test_each_algorithm_that_is_allowed_works(house: House, algorithm: str) -> None:
    house.provider.keys = {"k1": other_key(algorithm)}
    house.provider.algorithm = algorithm
    assert house.enter().name == "ada"


def _audience(provider: Provider, *values: str, azp: str | None = None) -> None:
    provider.change = lambda claims: claims | {"aud": list(values)} | ({"azp": azp} if azp else {})


def test_several_audiences_need_the_one_who_asked(house: House) -> None:
    _audience(house.provider, CLIENT, "other", azp=CLIENT)
    assert house.enter().name == "ada"


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"iss": "https://elsewhere"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "other"}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": ["other"]}, "aud"),
        ({"aud": [CLIENT, 7]}, "aud"),
        ({"aud": {"medveil": 1}}, "aud"),
        ({"aud": [CLIENT, "other"]}, "azp"),
        ({"azp": "other"}, "azp"),
        ({"exp": -61}, "exp"),
        ({"exp": None}, "exp"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": float("inf")}, "exp"),
        ({"exp": float("nan")}, "exp"),
        ({"iat": 61}, "iat"),
        ({"iat": -601}, "iat"),
        ({"iat": None}, "iat"),
        ({"nbf": 61}, "nbf"),
        ({"nbf": "now"}, "nbf"),
        ({"nonce": "of another attempt"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"nonce": 7}, "nonce"),
        ({"sub": ""}, "sub"),
        ({"sub": 17}, "sub"),
        ({"sub": None}, "sub"),
        ({"sub": "s" * 256}, "sub"),
        ({"sub": "nul\0"}, "sub"),
        ({"sub": "half \ud800"}, "sub"),
    ],
)
def test_a_token_with_a_wrong_claim_does_not_hold(house: House, change: dict[str, Any], claim: str) -> None:
    def changed(claims: dict[str, Any]) -> dict[str, Any]:
        for name, value in change.items():
            now = house.clock() // 1000
            claims[name] = now + value if name in ("exp", "iat", "nbf") and type(value) is int else value
            if value is None:
                del claims[name]
        return claims

    house.provider.change = changed
    error = house.refused()
    assert isinstance(error, VerificationError) and (error.code, error.facts["claim"]) == ("oidc.bad_token", claim)


def _none(provider: Provider) -> None:
    provider.algorithm = "none"


def _shared_secret(provider: Provider) -> None:
    """HS256 with the client's secret: the algorithm that confuses keys."""
    provider.keys, provider.algorithm = {"k1": OctKey.import_key(b"s:e c/ret".ljust(32, b"."))}, "HS256"


def _public_key_as_secret(provider: Provider) -> None:
    pem = provider.keys["k1"].as_bytes(private=False)
    header, payload = _part({"alg": "HS256", "kid": "k1"}), _part({"sub": "17"})

    def forged(_token: str) -> str:
        import hashlib
        import hmac

        value = hmac.new(pem, f"{header}.{payload}".encode(), hashlib.sha256).digest()
        return f"{header}.{payload}.{base64.urlsafe_b64encode(value).rstrip(b'=').decode()}"

    provider.token = forged


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _key_of_its_own(provider: Provider) -> None:
    """A key that the token itself brings must not count."""
    stranger = other_key("ES256")
    provider.header = {"jwk": stranger.as_dict(private=False)}

    def signed(payload: bytes) -> str:
        shown, provider.keys = provider.keys, {"k1": stranger}
        try:
            return provider.signed(payload)
        finally:
            provider.keys = shown

    provider.algorithm = "ES256"
    provider.sign = signed


def _other_signature(provider: Provider) -> None:
    provider.token = lambda token: token[:-12] + ("A" * 12 if not token.endswith("A" * 12) else "B" * 12)


def _other_payload(provider: Provider) -> None:
    provider.token = lambda token: ".".join([token.split(".")[0], _part({"sub": "1"}), token.split(".")[2]])


def _unknown_key(provider: Provider) -> None:
    provider.kid = "k2"


def _no_key_id_among_two(provider: Provider) -> None:
    provider.keys["k9"] = other_key("RS256")
    provider.header = {"kid": None}


def _access_token(provider: Provider) -> None:
    provider.header = {"typ": "at+jwt"}


def _critical(provider: Provider) -> None:
    provider.token = lambda token: ".".join(
        [_part({"alg": "RS256", "kid": "k1", "crit": ["x"], "x": 1}), *token.split(".")[1:]]
    )


def _text(text: str) -> Callable[[Provider], None]:
    def change(provider: Provider) -> None:
        provider.token = lambda _token: text

    return change


def _a_list(provider: Provider) -> None:
    provider.change = lambda claims: [claims]


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (_none, "alg"),
        (_shared_secret, "alg"),
        (_public_key_as_secret, "alg"),
        (_key_of_its_own, "signature"),
        (_other_signature, "signature"),
        (_other_payload, "signature"),
        (_critical, "signature"),
        (_unknown_key, "kid"),
        (_no_key_id_among_two, "kid"),
        (_access_token, "typ"),
        (_a_list, "format"),
        (_text(""), "format"),
        (_text("a.b"), "format"),
        (_text("a.b.c"), "format"),
        (_text("a.b.c.d.e"), "format"),
        (_text("é.é.é"), "format"),
        (_text(f"{_part([1])}.e30.AA"), "format"),
        (_text(f"{_part({})}.e30.AA"), "alg"),
        (_text(f"{_part({'alg': ['RS256']})}.e30.AA"), "alg"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).strip("_"),
)
def test_a_token_that_is_badly_signed_or_none_does_not_hold(
    house: House, change: Callable[[Provider], None], claim: str
) -> None:
    change(house.provider)
    error = house.refused()
    assert isinstance(error, VerificationError) and (error.code, error.facts["claim"]) == ("oidc.bad_token", claim)


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        ((200, b"not json"), DecodeError, "oidc.bad_answer"),
        ((200, b"[]"), DecodeError, "oidc.bad_answer"),
        ((200, b"{}"), DecodeError, "oidc.bad_answer"),
        ((200, b'{"id_token": 7}'), DecodeError, "oidc.bad_answer"),
        ((200, b"[" * 100_000), DecodeError, "oidc.bad_answer"),
        ((200, b" " * 300_000), DecodeError, "oidc.bad_answer"),
        ((400, b'{"error": "invalid_grant"}'), Refused, "oidc.provider_refused"),
        ((302, b""), Refused, "oidc.provider_refused"),
        ((503, b""), Unavailable, "oidc.unreachable"),
        ((429, b""), Unavailable, "oidc.unreachable"),
    ],
)
def test_an_answer_that_is_no_token_is_a_plain_refusal(
    house: House, answer: tuple[int, bytes], kind: type[MedveilError], code: str
) -> None:
    house.provider.answer = answer
    error = house.refused()
    assert isinstance(error, kind) and error.code == code


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://elsewhere"},
        {"token_endpoint": "http://elsewhere/token"},
        {"jwks_uri": "file:///keys"},
        {"authorization_endpoint": None},
        {"authorization_endpoint": "http://["},
        {"code_challenge_methods_supported": ["plain"]},
    ],
)
def test_a_description_that_is_another_issuers_or_unsafe_is_refused(house: House, change: dict[str, Any]) -> None:
    house.provider.document = lambda found: found | change
    with pytest.raises(DecodeError) as raised:
        house.door.begin()
    assert raised.value.code == "oidc.bad_answer"
    house.provider.document = lambda found: found
    house.door.begin()  # a bad description is not kept


def test_an_attempt_works_once_in_its_browser_and_for_ten_minutes(house: House) -> None:
    answer, browser = house.round()
    for wrong in ("", "another", house.door.begin().browser):
        again, mine = house.round()
        with pytest.raises(Refused) as raised:
            house.door.finish(again, wrong)
        assert raised.value.code == "oidc.no_attempt"
        with pytest.raises(Refused):  # and the attempt is used up
            house.door.finish(again, mine)
    house.door.finish(answer, browser)
    with pytest.raises(Refused) as replayed:
        house.door.finish(answer, browser)
    assert replayed.value.code == "oidc.no_attempt"
    answer, browser = house.round()
    house.clock.pass_time(600)
    with pytest.raises(Refused):
        house.door.finish(answer, browser)
    house.door.begin()
    with house.database.reading() as connection:
        assert len(connection.execute(sa.select(attempts)).all()) == 1


def test_a_stranger_who_begins_many_keeps_nobody_from_signing_in(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "_MOST_ATTEMPTS", 3)
    early = house.round()
    for _ in range(2):
        house.clock.pass_time(1)
        house.door.begin()
    answer = house.round()
    house.door.begin()
    with house.database.reading() as connection:
        assert len(connection.execute(sa.select(attempts)).all()) == 3
    assert house.sign_in.principal(house.door.finish(*answer).session).name == "ada"
    with pytest.raises(Refused) as gone:  # the oldest gave way
        house.door.finish(*early)
    assert gone.value.code == "oidc.no_attempt"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"state": "x"}, "oidc.no_attempt"),
        ({"state": ""}, "oidc.no_attempt"),
        ({"iss": "https://elsewhere"}, "oidc.bad_token"),
        ({"error": "access_denied"}, "oidc.provider_refused"),
        ({"code": ""}, "oidc.provider_refused"),
        ({"code": "code-of-somebody-else"}, "oidc.provider_refused"),
    ],
)
def test_an_answer_that_was_changed_on_the_way_is_refused(house: House, change: dict[str, str], code: str) -> None:
    answer, browser = house.round()
    with pytest.raises(MedveilError) as raised:
        house.door.finish(answer | change, browser)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"groups": []}, "oidc.no_role"),
        ({"groups": ["guests"]}, "oidc.no_role"),
        ({"groups": {"claims-team": True}}, "oidc.no_role"),
        ({"groups": [["claims-team"], 7, None]}, "oidc.no_role"),
        ({"preferred_username": None}, "oidc.no_name"),
        ({"preferred_username": ["ada"]}, "oidc.no_name"),
        ({"preferred_username": "../ada"}, "accounts.bad_name"),
        ({"preferred_username": "root"}, "accounts.exists"),
    ],
)
def test_who_has_no_role_or_no_name_gets_no_account(house: House, claims: dict[str, Any], code: str) -> None:
    house.provider.claims |= claims
    assert house.refused().code == code


@pytest.mark.parametrize(
    ("claims", "enters"),
    [
        ({}, False),
        ({"acr": "one-factor", "amr": ["pwd", "otp"]}, False),
        ({"acr": "two-factors", "amr": ["pwd"]}, False),
        ({"acr": ["two-factors"], "amr": 5}, False),
        ({"acr": "two-factors", "amr": ["pwd", "otp"]}, True),
        ({"acr": "hardware", "amr": "hwk"}, True),
    ],
)
def test_a_sign_in_can_be_required_to_be_strong(house: House, claims: dict[str, Any], enters: bool) -> None:
    required = {"acr": ("two-factors", "hardware"), "amr": ("otp", "hwk")}
    house.door._provider = replace(house.door._provider, required=required)
    assert parse_qs(urlsplit(house.door.begin().url).query)["acr_values"] == ["two-factors hardware"]
    house.provider.claims |= claims
    if enters:
        assert house.enter().name == "ada"
    else:
        assert house.refused().code == "oidc.not_as_required"


def test_a_provider_that_changes_its_key_is_asked_again_but_not_for_every_bad_token(house: House) -> None:
    house.enter()
    house.provider.keys = {"k2": other_key("RS256")}
    house.provider.kid = "k2"
    with pytest.raises(VerificationError):  # asked a moment ago
        house.enter()
    assert house.provider.asked.count("/keys") == 1
    house.ticks += 61
    assert house.enter().name == "ada"
    house.provider.kid = "k3"
    for _ in range(3):
        with pytest.raises(VerificationError):
            house.enter()
    assert house.provider.asked.count("/keys") == 2


def test_a_disabled_person_stays_out_and_a_provider_that_is_gone_is_said(house: House) -> None:
    house.enter()
    house.people.set_disabled(ADMIN, "ada", True)
    with pytest.raises(Refused) as raised:
        house.enter()
    assert raised.value.code == "accounts.disabled"
    answer, browser = house.round()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
    house.door._document = (0.0, {"token_endpoint": nowhere})
    with pytest.raises(Unavailable) as gone:
        house.door.finish(answer, browser)
    assert gone.value.code == "oidc.unreachable"


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://elsewhere"},
        {"issuer": "elsewhere"},
        {"issuer": ""},
        {"client_id": ""},
        {"scopes": ("profile",)},
        {"roles": {"groups": {"x": "root"}}},
        {"roles": {}},
    ],
)
def test_a_provider_must_be_described_well(change: dict[str, Any]) -> None:
    good = {"issuer": "https://idp", "client_id": CLIENT, "redirect_uri": BACK, "roles": {"groups": {"x": "clerk"}}}
    assert SECRET not in repr(Described(**good, client_secret=SECRET))
    with pytest.raises(Refused):
        Described(**{**good, **change})
