"""Accounts, tokens and the security log through the client, and how callers are known."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.staffed import KEY, OTHER_KEY, PASSWORD

from medveil.client import AsyncClient, Client, Program, Session
from medveil.client.credentials import read_program, write_program
from medveil.client.line import Call, Line, origin_of
from medveil.client.pinned import Pinned
from medveil.service.accounts.signatures import PlainRequest, verify_request
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError

from .wayward import Wayward


def test_a_person_from_invitation_to_sign_out(callers: Any) -> None:
    root = Client(callers.service.address, Session(callers.service.session("root")))
    nobody = callers.nobody()
    invited = root.people.add("mei", ["officer", "auditor"])
    assert invited.invitation not in repr(invited)
    assert nobody.account.accept(invited.invitation, PASSWORD) == "mei"
    signed_in = nobody.account.sign_in("mei", PASSWORD)
    assert signed_in.session not in repr(signed_in) and signed_in.device
    with Client(callers.service.address, Session(signed_in.session)) as mei:
        assert mei.account.me().roles == ("auditor", "officer")
        assert mei.account.about().organisation == "north"
        other = mei.account.change_password(PASSWORD, "eight dry lanterns sing")
        with pytest.raises(Refused) as ended:
            mei.account.me()
        assert ended.value.code == "accounts.no_session"
    with Client(callers.service.address, Session(other.session)) as mei:
        mei.account.sign_out()
        with pytest.raises(Refused):
            mei.account.me()
    root.people.set_roles("mei", ["clerk"])
    root.people.disable("mei")
    with pytest.raises(Refused) as refused:
        nobody.account.sign_in("mei", "eight dry lanterns sing")
    assert refused.value.code == "accounts.not_signed_in"
    root.people.enable("mei")
    assert root.people.reset("mei").person == "mei"
    people = {person.name: person for person in root.people.list().people}
    assert people["mei"].roles == ("clerk",) and not people["mei"].has_password
    root.close()


def test_sessions_are_seen_and_ended(callers: Any) -> None:
    one, other = callers.person("officer"), callers.person("officer")
    found = {session.own: session for session in one.account.sessions().sessions}
    assert set(found) == {True, False} and "seen" in one.account.sessions().to_pandas().columns
    one.account.end_session(found[False].session)
    with pytest.raises(Refused):
        other.account.me()
    callers.person("root").people.sign_out("officer")
    with pytest.raises(Refused):
        one.account.me()


def test_one_time_codes(callers: Any) -> None:
    import pyotp

    root = callers.person("root")
    seed = pyotp.parse_uri(root.account.begin_codes(PASSWORD))
    assert isinstance(seed, pyotp.TOTP)
    assert len(root.account.confirm_codes(seed.at(callers.service.clock() // 1000))) == 10
    callers.service.clock.pass_time(30)
    with pytest.raises(Refused) as needed:
        callers.nobody().account.sign_in("root", PASSWORD)
    assert needed.value.code == "accounts.code_needed"
    code = seed.at(callers.service.clock() // 1000)
    assert callers.nobody().account.sign_in("root", PASSWORD, code=code).person == "root"
    assert len(root.account.recovery_codes(PASSWORD)) == 10


def test_a_program_signs_what_changes_something(callers: Any) -> None:
    # datasets.register is what an officer's program may do; jobs.cancel is a call that changes something
    program = callers.program("officer", "jobs.read", "jobs.cancel")
    assert program.account.me().kind == "program" and program.jobs.list().jobs == ()
    for attempt in range(3):  # each call is signed anew: a nonce works once
        with pytest.raises(Refused) as unknown:
            program.jobs.cancel(f"{attempt:032x}")
        assert unknown.value.code == "jobs.unknown"
    secret, _ = callers.service.token("officer", {"jobs.cancel"})
    for who, code in ((Program(secret, OTHER_KEY), "signatures.other_key"), (Session(secret), "signatures.missing")):
        with Client(callers.service.address, who, clock=callers.service.clock) as other:
            with pytest.raises(VerificationError if who else Refused) as wrong:
                other.jobs.cancel("0" * 32)
            assert wrong.value.code == code
    assert secret not in repr(Program(secret, KEY)) and secret not in repr(Session(secret))


@pytest.mark.parametrize("part", ["a.b~c-d_", "a b", "ä/ö", "a%2Fb", "..", "x?y=1&z", "+'()*!~;=@:,$", "\u4e2d"])
def test_whatever_stands_in_an_address_is_signed_as_it_is_sent(callers: Any, part: str) -> None:
    program = callers.program("officer", "jobs.read", "jobs.cancel")
    with pytest.raises(MedveilError) as refused:
        program.jobs.cancel(part)
    assert refused.value.code in ("http.does_not_fit", "http.no_such_path", "http.bad_request")  # the signature held


@given(
    st.lists(st.text(min_size=1, max_size=20), max_size=3), st.dictionaries(st.text(max_size=9), st.text(max_size=9))
)
def test_a_signature_covers_the_address_that_is_sent(parts: list[str], query: dict[str, str]) -> None:
    import httpx

    line = Line("http://localhost:8000", Program("t", KEY), Pinned(None), language="en", clock=lambda: 1, rand=bytes)
    try:
        request = line.request(Call("POST", tuple(parts), query, {}))
    except UnicodeEncodeError:
        return  # half of a surrogate pair has no address
    sent = httpx.Request(request.method, request.url)
    assert str(sent.url) == request.url
    assert b"http://localhost:8000" + sent.url.raw_path == request.url.encode()


def test_tokens(callers: Any, tmp_path: Any) -> None:
    officer = callers.person("officer")
    issued = officer.tokens.issue("loader", ["datasets.load"], KEY.key.public, days=3)
    assert issued.token not in repr(issued) and issued.key == KEY.key.public.hex()
    assert [token.id for token in officer.tokens.list().tokens] == [issued.id]
    assert callers.person("root").tokens.list(everybody=True).tokens[0].label == "loader"
    file = tmp_path / "program.json"
    write_program(file, callers.service.address, issued.token, bytes(range(32)))
    assert file.stat().st_mode & 0o777 == 0o600
    with Client.of_program(file) as program:
        assert program.account.me().name == issued.id
    with pytest.raises(Refused) as exists:
        write_program(file, callers.service.address, "other", bytes(32))
    assert exists.value.code == "client.file_exists" and read_program(file).program.token == issued.token
    officer.tokens.revoke(issued.id)
    with Client.of_program(file) as program, pytest.raises(Refused) as revoked:
        program.account.me()
    assert revoked.value.code == "tokens.revoked"
    file.chmod(0o640)
    with pytest.raises(Refused) as readable:
        read_program(file)
    assert readable.value.code == "client.open_file"
    file.chmod(0o600)
    file.write_text("{}")
    with pytest.raises(DecodeError):
        read_program(file)


def test_the_security_log(callers: Any) -> None:
    auditor = callers.person("auditor")
    page = auditor.security_log.read(limit=2)
    assert len(page.entries) == 2 and page.before == page.entries[-1].sequence
    older = auditor.security_log.read(limit=1000, before=page.before)
    assert older.entries[0].sequence == page.before - 1
    frame = page.to_pandas()
    assert [*frame.columns] == ["sequence", "at", "actor", "event", "subject", "reason"]
    assert str(frame["at"].dt.tz) == "UTC" and len(frame) == 2
    chain = auditor.security_log.check()
    assert chain.holds
    assert auditor.security_log.check(entries=chain.entries, head=chain.head).holds
    assert not auditor.security_log.check(entries=chain.entries, head="0" * 64).holds


def test_errors_are_of_their_kind_and_in_the_callers_language(callers: Any) -> None:
    for language, words in (("en", "There is no job"), ("zh", "您没有编号为")):
        officer = callers.person("officer", language=language)
        with pytest.raises(Refused) as unknown:
            officer.jobs.get("0" * 32)
        error = unknown.value
        assert error.code == "jobs.unknown" and words in error.message and error.fix
        assert error.text("en") == error.text("zh") == str(error) and error.fix in str(error)
        assert getattr(error, "status", 0) == 404 and getattr(error, "instance", "").startswith("urn:uuid:")
    with pytest.raises(MedveilError) as misfit:
        callers.person("officer").jobs.list(limit=0)
    assert misfit.value.code == "http.does_not_fit" and misfit.value.places[0].place == "query.limit"  # type: ignore[attr-defined]
    with pytest.raises(MedveilError) as nobody:
        callers.nobody().account.me()
    assert nobody.value.code == "http.not_signed_in"


def test_both_clients_have_the_same_parts() -> None:
    one, other = Client("http://localhost:1"), AsyncClient("http://localhost:1")
    parts = {name for name in vars(one) if not name.startswith("_")}
    assert parts == {name for name in vars(other) if not name.startswith("_")} and len(parts) > 4
    assert all(type(getattr(one, name)) is type(getattr(other, name)) for name in parts)
    assert one.jobs.list.__doc__ == other.jobs.list.__doc__ != ""
    one.close()
    asyncio.run(other.aclose())


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("http://gateway.example", "client.plain_http"),
        ("http://192.0.2.1:8443", "client.plain_http"),
        ("gateway.example", "client.bad_address"),
        ("https://", "client.bad_address"),
        ("https://a.example/v1", "client.bad_address"),
        ("https://anna:hush@a.example", "client.bad_address"),
        ("https://a.example:x", "client.bad_address"),
        ("ftp://a.example", "client.bad_address"),
    ],
)
def test_addresses_that_are_not_called(address: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        Client(address)
    assert refused.value.code == code and "hush" not in refused.value.text()


def test_addresses() -> None:
    assert origin_of("https://A.example:443/") == "https://a.example"
    assert origin_of("http://[::1]:80") == "http://[::1]"
    assert origin_of("http://localhost:8000") == "http://localhost:8000"


def test_nobody_there() -> None:
    with Client("http://localhost:1") as client, pytest.raises(Unavailable) as away:
        client.account.me()
    assert away.value.code == "client.unreachable"
    with Client("http://localhost:1") as client:
        client.close()
        with pytest.raises(ValueError, match="closed"):
            client.account.me()


def test_a_signature_of_the_client_is_one_that_the_gateway_takes(staffed: Any) -> None:
    line = Line(staffed.address, Program("t", KEY), Pinned(None), language="en", clock=staffed.clock, rand=staffed.rand)
    request = line.request(Call("POST", ("queries",), body={"a": 1}, key="once"))
    host = ("host", staffed.address.partition("//")[2])
    plain = PlainRequest(request.method, request.url, (*request.headers, host), request.content or b"")
    verify_request(plain, KEY.key, database=staffed.database, clock=staffed.clock, origins=[staffed.address])
    changed = tuple((n, "twice" if n == "idempotency-key" else v) for n, v in plain.headers)
    with pytest.raises(VerificationError) as wrong:
        verify_request(
            PlainRequest(plain.method, plain.url, changed, plain.body),
            KEY.key,
            database=staffed.database,
            clock=staffed.clock,
            origins=[staffed.address],
        )
    assert wrong.value.code == "signatures.does_not_hold"


def test_another_organisations_gateway_gets_no_secret(staffed: Any, callers: Any) -> None:
    """Whoever answers at the address now: it is asked whose it is before it hears who calls."""
    assert callers.nobody().account.organisation() == "north"
    with Wayward(staffed.running.port, lambda *_: "pass") as network:
        who = Session(staffed.session("officer"))
        for call in (
            lambda client: client.account.me(),
            lambda client: client.account.sign_in("officer", PASSWORD),
            lambda client: next(client.jobs.follow("a" * 32)),
            lambda client: client.jobs.get("a" * 32),
        ):
            with Client(network.address, who, organisation="somebody-else") as client:
                with pytest.raises(VerificationError) as other:
                    call(client)
                assert other.value.code == "client.other_gateway"
                assert other.value.facts["found"] == "north"
        assert len(network.seen) == 4
        for request in network.seen:
            assert request.startswith(b"GET /v1/organisation ")
            assert b"authorization" not in request.lower() and PASSWORD.encode() not in request
        with Client(network.address, who, organisation="north") as client:
            client.account.me()
            client.account.me()
        assert len(network.seen) == 7  # it is asked once


def test_a_name_that_is_none_is_no_answer(staffed: Any) -> None:
    def rule(*_: object) -> Any:
        return lambda _: b'{"organisation": "https://other.example"}'

    with (
        Wayward(staffed.running.port, rule) as network,
        Client(network.address) as client,
        pytest.raises(DecodeError),
    ):
        client.account.organisation()
