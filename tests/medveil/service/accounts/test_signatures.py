"""Signed requests: what holds, and a code of its own for each way in which one does not."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from medveil.service.accounts.signatures import verify_request
from medveil.service.accounts.signed_request import LONGEST_S, PlainRequest, needs_signature, sign_request
from medveil.service.accounts.used_nonces import KEPT_S, nonces
from medveil.service.database import Database
from wire.errors import VerificationError
from wire.signing import Signer

from ..conftest import Clock

SIGNER = Signer(bytes(range(32)))
OTHER = Signer(bytes(range(1, 33)))
ORIGIN = "https://hospital-a:8443"
BODY = b'{"grant": "g1"}'
PLAIN = PlainRequest(
    "POST",
    f"{ORIGIN}/v1/grants?preview=1",
    (
        ("Host", "hospital-a:8443"),
        ("Authorization", "Bearer medveil_secret"),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "k1"),
    ),
    BODY,
)
COVERED = ("@method", "@target-uri", "authorization", "content-digest", "content-type", "idempotency-key")
Rand = Callable[[int], bytes]


class Bench:
    """A signing program and a gateway that checks."""

    def __init__(self, database: Database, clock: Clock, rand: Rand) -> None:
        self.database, self.clock, self.rand = database, clock, rand

    def signed(self, plain: PlainRequest = PLAIN, signer: Signer = SIGNER, **more: int) -> PlainRequest:
        fields = sign_request(plain, signer, clock=self.clock, rand=self.rand, **more)
        return replace(plain, headers=plain.headers + tuple(fields.items()))

    def check(self, request: PlainRequest, signer: Signer = SIGNER) -> None:
        verify_request(request, signer.key, database=self.database, clock=self.clock, origins=[ORIGIN])

    def code(self, request: PlainRequest) -> str:
        with pytest.raises(VerificationError) as raised:
            self.check(request)
        return raised.value.code

    def by_hand(self, parameters: str, components: str = "", signer: Signer = SIGNER, **lines: str) -> PlainRequest:
        """A signature written here, without the library: what other programs send. lines: replaced base lines."""
        names = (
            components or '"@method" "@target-uri" "authorization" "content-digest" "content-type" "idempotency-key"'
        )
        digest = f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:"
        values = {
            "@method": "POST",
            "@target-uri": PLAIN.url,
            "@authority": "hospital-a:8443",
            "@path": "/v1/grants",
            "@query": "?preview=1",
            "content-digest": digest,
            **{name.lower(): value for name, value in PLAIN.headers},
        }
        covered = re.findall(r'"([^"]+)"', names)
        base = "\n".join(
            [f'"{name}": {values[name]}' for name in covered] + [f'"@signature-params": ({names}){parameters}']
        )
        value = base64.b64encode(signer.sign_raw(base.encode())).decode()
        added = (
            ("Content-Digest", digest),
            ("Signature-Input", f"sig1=({names}){parameters}"),
            ("Signature", f"sig1=:{value}:"),
        )
        return replace(PLAIN, headers=PLAIN.headers + added)

    def parameters(self, **change: object) -> str:
        now = self.clock() // 1000
        values: dict[str, object] = {
            "created": now,
            "expires": now + 60,
            "nonce": '"0123456789abcdef"',
            "keyid": f'"{SIGNER.key.key_id().hex()}"',
            "alg": '"ed25519"',
            "tag": '"medveil"',
            **change,
        }
        return "".join(f";{name}={value}" for name, value in values.items() if value is not None)


@pytest.fixture
def bench(database: Database, clock: Clock, rand: Rand) -> Bench:
    return Bench(database, clock, rand)


def _with(request: PlainRequest, name: str, value: str | None) -> PlainRequest:
    kept = tuple(field for field in request.headers if field[0].lower() != name.lower())
    return replace(request, headers=kept + (((name, value),) if value is not None else ()))


def test_a_signed_request_holds_and_says_what_it_was(bench: Bench) -> None:
    request = bench.signed()
    found = verify_request(request, SIGNER.key, database=bench.database, clock=bench.clock, origins=[ORIGIN])
    now = bench.clock() // 1000
    assert (found.key, found.created, found.expires) == (SIGNER.key, now, now + 60) and len(found.nonce) == 24
    assert "hunter2" not in repr(replace(request, body=b"hunter2"))


def test_a_request_without_a_body_or_with_a_long_one(bench: Bench) -> None:
    bare = PlainRequest("DELETE", f"{ORIGIN}/v1/grants/g1", PLAIN.headers[:2])
    bench.check(bench.signed(bare))
    bench.check(bench.signed(replace(PLAIN, body=bytes(2_000_000))))
    assert not needs_signature("GET") and all(needs_signature(name) for name in ("POST", "PUT", "PATCH", "DELETE"))


def test_the_format_is_the_rfcs_not_only_our_librarys(bench: Bench) -> None:
    bench.check(bench.by_hand(bench.parameters()))
    split = '"@method" "@authority" "@path" "@query" "authorization" "content-digest" "content-type" "idempotency-key"'
    bench.check(bench.by_hand(bench.parameters(nonce='"fedcba9876543210"', alg=None), split))


def test_the_example_signature_of_rfc_9421_b_2_6() -> None:
    """The published ed25519 key and signature: our verifier and the RFC's base agree."""
    from wire.signing import VerifyKey, verify_raw

    public = base64.b64decode("MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=")[-32:]
    base = (
        '"date": Tue, 20 Apr 2021 02:07:55 GMT\n"@method": POST\n"@path": /foo\n"@authority": example.com\n'
        '"content-type": application/json\n"content-length": 18\n'
        '"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    )
    value = base64.b64decode("wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==")
    verify_raw(VerifyKey(1, public), base.encode(), value)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda r: replace(r, method="PUT"), "signatures.does_not_hold"),
        (lambda r: replace(r, url=f"{ORIGIN}/v1/grants?preview=0"), "signatures.does_not_hold"),
        (lambda r: replace(r, url=f"{ORIGIN}/v1/grants"), "signatures.does_not_hold"),
        (lambda r: replace(r, url=f"{ORIGIN}/v1/revocations?preview=1"), "signatures.does_not_hold"),
        (lambda r: replace(r, url=f"{ORIGIN}/v1/./grants?preview=1"), "signatures.does_not_hold"),
        (lambda r: replace(r, url=f"{ORIGIN}/v1/%67rants?preview=1"), "signatures.does_not_hold"),
        (lambda r: replace(r, url=r.url.replace("https", "http")), "signatures.other_host"),
        (lambda r: replace(r, url=r.url.replace("hospital-a", "hospital-b")), "signatures.other_host"),
        (lambda r: replace(r, url=r.url.replace("8443", "8444")), "signatures.other_host"),
        (lambda r: replace(r, url=r.url.replace("//", "//me@")), "signatures.malformed"),
        (lambda r: replace(r, url="/v1/grants"), "signatures.malformed"),
        (lambda r: _with(r, "Host", "hospital-b:8443"), "signatures.other_host"),
        (lambda r: _with(r, "Host", "hospital-a:bad"), "signatures.malformed"),
        (lambda r: replace(r, body=BODY + b" "), "signatures.other_body"),
        (lambda r: replace(r, body=b""), "signatures.other_body"),
        (lambda r: _with(r, "Authorization", "Bearer medveil_other"), "signatures.does_not_hold"),
        (lambda r: _with(r, "Authorization", None), "signatures.field_missing"),
        (lambda r: _with(r, "Content-Type", "text/plain"), "signatures.does_not_hold"),
        (lambda r: _with(r, "Content-Type", None), "signatures.field_missing"),
        (lambda r: _with(r, "Idempotency-Key", "k2"), "signatures.does_not_hold"),
        (lambda r: _with(r, "Content-Encoding", "gzip"), "signatures.component_missing"),
        (lambda r: _with(r, "Content-Digest", None), "signatures.field_missing"),
        (lambda r: _with(r, "Content-Digest", "sha-256=:AAAA:"), "signatures.other_body"),
        (lambda r: _with(r, "Content-Digest", "md5=:AAAA:"), "signatures.digest_algorithm"),
        (lambda r: _with(r, "Content-Digest", "=:"), "signatures.malformed"),
        (lambda r: replace(r, headers=(*r.headers, ("authorization", "Bearer x"))), "signatures.malformed"),
        (lambda r: replace(r, headers=(*r.headers, ("SIGNATURE", "x=:AA==:"))), "signatures.malformed"),
        (lambda r: _with(r, "Signature", None), "signatures.missing"),
        (lambda r: _with(r, "Signature-Input", None), "signatures.missing"),
        (lambda r: _with(r, "Signature", "medveil=:AAAA:"), "signatures.does_not_hold"),
        (lambda r: _with(r, "Signature", "other=:AAAA:"), "signatures.does_not_hold"),
        (lambda r: _with(r, "Signature-Input", "medveil=(("), "signatures.malformed"),
        (lambda r: _with(r, "Signature-Input", "medveil=1"), "signatures.not_one"),
        (lambda r: _with(r, "Signature-Input", "é" * 5), "signatures.malformed"),
        (lambda r: _with(r, "Signature-Input", "a" * 9000), "signatures.malformed"),
    ],
)
def test_an_altered_request_is_refused_with_its_code_and_uses_up_no_nonce(
    bench: Bench, change: Callable[[PlainRequest], PlainRequest], code: str
) -> None:
    request = bench.signed()
    assert bench.code(change(request)) == code
    with bench.database.reading() as connection:
        assert connection.execute(sa.select(nonces)).all() == []
    bench.check(request)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"alg": '"hmac-sha256"'}, "signatures.algorithm"),
        ({"alg": '"rsa-pss-sha512"'}, "signatures.algorithm"),
        ({"alg": '"none"'}, "signatures.algorithm"),
        ({"created": None}, "signatures.parameter_missing"),
        ({"expires": None}, "signatures.parameter_missing"),
        ({"nonce": None}, "signatures.parameter_missing"),
        ({"keyid": None}, "signatures.parameter_missing"),
        ({"tag": None}, "signatures.not_one"),
        ({"tag": '"other"'}, "signatures.not_one"),
        ({"keyid": f'"{OTHER.key.key_id().hex()}"'}, "signatures.other_key"),
        ({"keyid": "7"}, "signatures.other_key"),
        ({"nonce": '"short"'}, "signatures.bad_nonce"),
        ({"nonce": f'"{"n" * 65}"'}, "signatures.bad_nonce"),
        ({"nonce": "123456789012345"}, "signatures.bad_nonce"),
        ({"created": '"now"'}, "signatures.bad_period"),
        ({"expires": "1.5"}, "signatures.bad_period"),
        ({"created": "?1"}, "signatures.bad_period"),
        ({"mood": '"good"'}, "signatures.malformed"),
    ],
)
def test_each_parameter_is_needed_and_of_its_kind(bench: Bench, change: dict[str, str | None], code: str) -> None:
    assert bench.code(bench.by_hand(bench.parameters(**change))) == code


@pytest.mark.parametrize("left_out", COVERED)
def test_each_component_is_needed(bench: Bench, left_out: str) -> None:
    components = " ".join(f'"{name}"' for name in COVERED if name != left_out)
    with pytest.raises(VerificationError) as raised:
        bench.check(bench.by_hand(bench.parameters(), components))
    assert raised.value.code == "signatures.component_missing" and left_out in raised.value.message


def test_a_component_with_a_parameter_does_not_count(bench: Bench) -> None:
    request = bench.signed()
    (given_,) = request.values("signature-input")
    partly = given_.replace('"content-digest"', '"content-digest";key="sha-256"')
    assert bench.code(_with(request, "Signature-Input", partly)) == "signatures.component_missing"


def test_another_key_under_the_right_id_does_not_hold(bench: Bench) -> None:
    assert bench.code(bench.by_hand(bench.parameters(), signer=OTHER)) == "signatures.does_not_hold"
    assert bench.code(bench.signed(signer=OTHER)) == "signatures.other_key"


@pytest.mark.parametrize(
    ("created", "expires", "code"),
    [
        (-60, 0, "signatures.expired"),
        (-301, -1, "signatures.expired"),
        (301, 400, "signatures.in_future"),
        (0, 301, "signatures.bad_period"),
        (0, 0, "signatures.bad_period"),
        (10, 5, "signatures.bad_period"),
        (-(10**14), 10, "signatures.bad_period"),
        (10**14, 10**14 + 5, "signatures.in_future"),
    ],
)
def test_a_signature_holds_for_its_time_alone(bench: Bench, created: int, expires: int, code: str) -> None:
    now = bench.clock() // 1000
    assert bench.code(bench.by_hand(bench.parameters(created=now + created, expires=now + expires))) == code


@pytest.mark.parametrize(("created", "expires"), [(-299, 1), (300, 600), (0, 300)])
def test_the_edges_of_the_time_hold(bench: Bench, created: int, expires: int) -> None:
    now = bench.clock() // 1000
    bench.check(bench.by_hand(bench.parameters(created=now + created, expires=now + expires)))


def test_two_signatures_of_ours_are_refused_and_a_proxys_besides_is_not_in_the_way(bench: Bench) -> None:
    request = bench.signed()
    given, value = request.values("signature-input")[0], request.values("signature")[0]
    twice = _with(_with(request, "Signature-Input", f"{given}, b{given[7:]}"), "Signature", f"{value}, b{value[7:]}")
    assert bench.code(twice) == "signatures.not_one"
    proxied = _with(request, "Signature-Input", f'{given}, proxy=("@method");created=1;tag="proxy"')
    bench.check(_with(proxied, "Signature", f"{value}, proxy=:AAAA:"))


def test_a_replay_is_refused_also_after_a_restart(tmp_path: Path, clock: Clock, rand: Rand) -> None:
    url = f"sqlite:///{tmp_path}/other.sqlite"
    first = Bench(Database.open(url), clock, rand)
    request = first.signed(lifetime=LONGEST_S)
    first.check(request)
    assert first.code(request) == "signatures.replayed"
    first.database.close()
    again = Bench(Database.open(url), clock, rand)
    for _ in range(5):
        clock.pass_time(59)
        assert again.code(request) == "signatures.replayed"
    clock.pass_time(5)
    assert again.code(request) == "signatures.expired"
    again.database.close()


def test_nonces_of_the_past_are_forgotten_and_belong_to_a_key(bench: Bench, clock: Clock) -> None:
    for _ in range(20):
        bench.check(bench.signed())
    clock.pass_time(KEPT_S + LONGEST_S)
    bench.check(bench.by_hand(bench.parameters()))
    with bench.database.reading() as connection:
        kept = connection.execute(sa.select(nonces)).all()
    assert [bool(row.key) for row in sorted(kept, key=lambda row: bytes(row.key))] == [
        False,
        True,
    ]  # a span, and this one
    other = bench.by_hand(bench.parameters(keyid=f'"{OTHER.key.key_id().hex()}"'), signer=OTHER)
    bench.check(other, OTHER)


def test_two_deliveries_of_one_call_at_once_let_one_through(either: Database, clock: Clock, rand: Rand) -> None:
    import threading

    bench = Bench(either, clock, rand)
    request, answers = bench.signed(), []

    def deliver() -> None:
        try:
            bench.check(request)
            answers.append("taken")
        except VerificationError as error:
            answers.append(error.code)

    threads = [threading.Thread(target=deliver) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["signatures.replayed"] * 5 + ["taken"]


@pytest.mark.parametrize(
    "plain",
    [
        replace(PLAIN, headers=PLAIN.headers[:1]),
        replace(PLAIN, headers=(*PLAIN.headers, ("authorization", "twice"))),
        replace(PLAIN, headers=(*PLAIN.headers, ("Content-Digest", "sha-256=:AAAA:"))),
        replace(PLAIN, url="/relative"),
        replace(PLAIN, url=f"{ORIGIN}/a b"),
        replace(PLAIN, method="post"),
    ],
)
def test_a_request_that_cannot_be_signed_well_is_the_callers_fault(bench: Bench, plain: PlainRequest) -> None:
    with pytest.raises(ValueError):
        bench.signed(plain)


def test_a_program_signs_without_a_database_or_a_web_framework() -> None:
    asked = {"sqlalchemy", "fastapi", "starlette", "pydantic"}
    program = f"import medveil.service.accounts.signed_request, sys\nprint(sorted({asked!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_signature_lives_for_five_minutes_at_most(bench: Bench) -> None:
    for lifetime in (0, 301):
        with pytest.raises(ValueError):
            bench.signed(lifetime=lifetime)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("fuzz")
    return Bench(Database.open(f"sqlite:///{folder}/s.sqlite"), Clock(), lambda n: bytes(range(n)))


@given(
    name=st.sampled_from(["Signature-Input", "Signature", "Content-Digest", "Host", "Authorization"]),
    place=st.integers(0, 400),
    new=st.text(st.characters(max_codepoint=0x17F), max_size=3),
    cut=st.integers(0, 3),
)
def test_any_change_of_a_field_is_a_plain_refusal(fuzzed: Bench, name: str, place: int, new: str, cut: int) -> None:
    request = fuzzed.signed()
    (old,) = request.values(name.lower())
    start = place % (len(old) + 1)
    changed = old[:start] + new + old[start + cut :]
    if changed.strip(" \t") == old:
        return
    try:
        fuzzed.check(_with(request, name, changed))
    except VerificationError as error:
        assert error.code.startswith("signatures.")
    else:
        assert name != "Authorization"
        assert _same(name, changed, old)


def _same(name: str, changed: str, old: str) -> bool:
    """Whether only the spelling changed: spaces, letters of a host, the padding of base64 (RFC 9651, 4.2.7)."""
    if name == "Host":
        return changed.lower() == old.lower()
    if name in ("Signature", "Content-Digest"):
        return _labelled(changed) == _labelled(old)
    return changed.replace(" ", "").replace("\t", "") == old.replace(" ", "").replace("\t", "")


def _labelled(field: str) -> tuple[str, bytes]:
    """Label and bytes of a byte sequence, however it is padded."""
    label, _, rest = "".join(field.split()).partition("=:")
    body = rest.rstrip(":").rstrip("=")
    return label, base64.b64decode(body + "=" * (-len(body) % 4))
