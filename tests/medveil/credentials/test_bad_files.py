"""Files that were altered on the way: each verb refuses in words, and neither wallet, register nor contract changes."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from medveil.cli import app
from medveil.credentials import files, issuing
from tests.medveil.credentials.conftest import ENCOUNTER, PASS, Desk
from wire import canonical
from wire.canonical import Wire
from wire.errors import MedveilError, VerificationError
from zkp.groups import POINT_BYTES

MADE_UP = (bytes(POINT_BYTES), b"\xff" * POINT_BYTES, b"\xc0" + bytes(POINT_BYTES - 1), b"\xc0" + bytes(95), bytes(32))
"""No point, no point, the identity, the identity of G2, zero."""


def altered(struct: Wire) -> Iterator[bytes]:
    """`struct` with bits flipped, cut, made longer, and with each of its byte strings replaced."""
    data, chance = canonical.encode(struct), random.Random(7)
    for _ in range(12):
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        yield bytes(flipped)
    yield from (b"", data[:1], data[: len(data) // 2], data[:-1], data + b"\0", data + data, b"{}", b"\x91" * 5000)
    places = [(path, other) for path in _places(struct) for other in MADE_UP]
    for path, other in chance.sample(places, min(len(places), 24)):
        try:
            yield canonical.encode(_with(struct, path, other))
        except (OverflowError, msgspec.ValidationError):
            continue


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, bytes):
        yield path
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _places(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        for at, item in enumerate(value):
            yield from _places(item, (*path, at))


def _with(value: Any, path: tuple[Any, ...], other: bytes) -> Any:
    if not path:
        return other
    first, *rest = path
    if isinstance(first, int):
        return (*value[:first], _with(value[first], tuple(rest), other), *value[first + 1 :])
    return msgspec.structs.replace(value, **{first: _with(getattr(value, first), tuple(rest), other)})


@pytest.fixture(autouse=True)
def passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text(PASS)
    secret.chmod(0o600)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(secret))


def states(desk: Desk) -> list[bytes]:
    return [(desk / name).read_bytes() for name in ("me", "contract", "person/secret", "account/secret")]


def every_one_refused(
    desk: Desk, struct: Wire, *verbs: Callable[[Path], list[object]], take: Callable[[bytes], bool] = lambda _: True
) -> None:
    """Each verb, given each altered file: words, no traceback; what stands stays."""
    before, whole, refused = states(desk), canonical.encode(struct), 0
    for number, data in enumerate(filter(take, altered(struct))):
        if data == whole:
            continue
        path = desk / f"altered-{number}"
        path.write_bytes(data)
        for verb in verbs:
            done = CliRunner().invoke(app, ["zkp", *map(str, verb(path))])
            assert isinstance(done.exception, MedveilError | SystemExit), (done.exception, data)
            assert done.exit_code != 0, (verb(path), data)
            refused += 1
    assert refused > 25 and states(desk) == before


def test_an_op(desk: Desk) -> None:
    op = desk.settle()
    every_one_refused(desk, op, lambda path: ["post", desk / "contract", path], lambda path: ["verify", path])


def test_a_redemption(desk: Desk) -> None:
    desk.done(desk.settle())
    desk.reverse()
    op = desk.redeem(desk.redemption())
    every_one_refused(desk, op, lambda path: ["post", desk / "contract", path], lambda path: ["verify", path])


def test_an_application(desk: Desk) -> None:
    application = desk.applied("encounter", bill=bytes.fromhex("0d" * 16))
    values = desk / "values.json"
    values.write_bytes(msgspec.json.encode(ENCOUNTER | {"bill": "0d" * 16}))
    out = desk / "out"
    every_one_refused(
        desk, application, lambda path: ["issue", desk / "encounter", path, "--values", values, "--out", out]
    )
    assert not out.exists() and len(desk.register("encounter").signed) == 1


def test_an_answer(desk: Desk) -> None:
    application = desk.applied("encounter", bill=bytes.fromhex("0d" * 16))
    answer = desk.issued(application, ENCOUNTER | {"bill": "0d" * 16})
    nonce, opening = application.offer.occasion.nonce, answer.total_blinding
    assert opening is not None
    # the wallet applies again to whatever occasion, and what it opens is seen when a claim names C_total
    every_one_refused(
        desk, answer, lambda path: ["take", desk / "me", path], take=lambda data: nonce in data and opening in data
    )


def test_another_opening_of_the_total(desk: Desk) -> None:
    answer = desk.bill(bill="0d" * 16)
    desk.take(msgspec.structs.replace(answer, total_blinding=bytes(31) + b"\1"))
    with pytest.raises(VerificationError) as caught:
        desk.settle(desk.question(bill="0d" * 16))
    assert caught.value.code == "zkp.wrong_opening"
    desk.take(answer)
    desk.settle(desk.question(bill="0d" * 16))


def test_what_does_not_say_what_is_claimed(desk: Desk) -> None:
    """A question, set or contract that was altered may ask for something else: what then comes is no traceback."""
    question = desk.question()
    known = files.read(desk / "active.set", files.SetFile)
    original, out = (desk / "me").read_bytes(), desk / "out"
    base = files.read(desk / "contract", files.Wire)
    for struct, verb in (
        (question, lambda path: ["prove", desk / "me", path, "--set", desk / "active.set", "--out", out]),
        (known, lambda path: ["publish", "active", path, "--name", "x", "--version", "1", "--out", out]),
        (base, lambda path: ["ask-claim", path, "--bill", "0b" * 16, "--payer", "bureau-1", "--layer", "1",
                             "--grant", "g", "--out", out]),
        (base, lambda path: ["cancel", path, "--bill", "0b" * 16]),
    ):  # fmt: skip
        for data in altered(struct):
            path = desk / "altered"
            path.write_bytes(data)
            done = CliRunner().invoke(app, ["zkp", *map(str, verb(path))])
            assert done.exception is None or isinstance(done.exception, MedveilError | SystemExit), done.exception
            out.unlink(missing_ok=True)
            (desk / "me").write_bytes(original)


def test_an_offer(desk: Desk) -> None:
    made = issuing.offer(
        desk / "encounter",
        PASS,
        "demo",
        secrets.token_bytes,
        person=desk.key("person"),
        disclose=["sex"],
        bill=bytes(16),
    )
    out, original = desk / "out", (desk / "me").read_bytes()
    for data in altered(made):
        path = desk / "altered"
        path.write_bytes(data)
        done = CliRunner().invoke(app, ["zkp", "apply", str(desk / "me"), str(path), "--out", str(out)])
        assert done.exception is None or isinstance(done.exception, MedveilError | SystemExit), done.exception
        out.unlink(missing_ok=True)
    assert (desk / "me").read_bytes() == original


@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_what_is_no_file_of_these(desk: Desk, verb: str) -> None:
    (desk / "empty").touch()
    for path in (
        desk / "nothing",
        desk.path,
        desk / "empty",
        desk / "me",
        desk / "person" / "secret",
        Path("/dev/null"),
    ):
        done = CliRunner().invoke(app, ["zkp", verb, str(path)])
        assert isinstance(done.exception, MedveilError), (path, done.exception)


def test_each_file_is_shown_as_json(desk: Desk) -> None:
    desk.post(desk.settle())
    files.write(desk / "question", desk.question("insurer-1", 2))
    for name, kind in (("contract", "settlement-contract"), ("question", "settlement-question")):
        done = CliRunner().invoke(app, ["zkp", "inspect", str(desk / name)])
        header = msgspec.json.decode(done.stdout)["header"]
        assert header == {"type": "wire.header", "kind": kind, "version": 1, "suite": 1}
