"""Keys on a token: they do not leave it; and a token that is lost, wrong, slow or crashes loses nothing."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from privacy.keys import Pkcs11KeyProvider
from privacy.keys.token_line import Answers, Connect, Wrap, send
from privacy.vault import Vault
from wire.errors import MedveilError, Refused, Unavailable, VerificationError

pytestmark = pytest.mark.softhsm
KEY = b"k" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(token: Any, clock: Clock) -> Iterator[Pkcs11KeyProvider]:
    made = token.create(clock=clock)
    yield made
    made.close()


def process(keys: Pkcs11KeyProvider) -> int:
    """The process that speaks to the token."""
    assert keys._process is not None
    return keys._process.pid


def end(keys: Pkcs11KeyProvider, number: int = signal.SIGKILL) -> None:
    os.kill(process(keys), number)
    assert keys._process is not None
    keys._process.wait()


def session(token: Any) -> Any:
    """A session of this process's own: what a token's administrator may do."""
    import pkcs11

    pkcs11.unload(token.module)  # so that tokens made since are seen
    return pkcs11.lib(token.module).get_token(token_label=token.label).open(rw=True, user_pin="a pin of tests")


def code(call: Callable[[], Any]) -> str:
    with pytest.raises(MedveilError) as raised:
        call()
    assert raised.value.text("zh") and raised.value.text()
    assert "a pin of tests" not in raised.value.text()
    return raised.value.code


# ---- the keys stay on the token


def test_the_key_of_an_epoch_cannot_be_read(token: Any, keys: Pkcs11KeyProvider) -> None:
    import pkcs11
    from pkcs11 import Attribute, ObjectClass

    with session(token) as own:
        (key,) = own.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY})
        assert key.label == "medveil/hospital-1/epoch/1" and key.id == b"\0\0\0\1"
        assert key[Attribute.SENSITIVE] and key[Attribute.ALWAYS_SENSITIVE] and key[Attribute.LOCAL]
        assert not key[Attribute.EXTRACTABLE] and key[Attribute.NEVER_EXTRACTABLE]
        assert not key[Attribute.WRAP] and not key[Attribute.UNWRAP]
        with pytest.raises(pkcs11.AttributeSensitive):
            key[Attribute.VALUE]
        with pytest.raises(pkcs11.PKCS11Error):
            key[Attribute.EXTRACTABLE] = True


def test_a_key_that_could_be_taken_out_is_not_used(token: Any, keys: Pkcs11KeyProvider) -> None:
    from pkcs11 import Attribute, KeyType

    with session(token) as own:
        own.generate_key(
            KeyType.AES,
            256,
            store=True,
            id=b"\0\0\0\2",
            label="medveil/hospital-1/epoch/2",
            template={Attribute.EXTRACTABLE: True},
        )
    with pytest.raises(VerificationError) as raised:
        token.open()
    assert raised.value.code == "privacy.token_key" and raised.value.facts["epoch"] == "2"


@pytest.mark.parametrize(("number", "label"), [(1, "1"), (2, "1"), (2, "3")])
def test_two_keys_of_one_number_are_not_guessed_between(
    token: Any, keys: Pkcs11KeyProvider, number: int, label: str
) -> None:
    from pkcs11 import Attribute, KeyType

    with session(token) as own:
        own.generate_key(
            KeyType.AES,
            256,
            store=True,
            id=number.to_bytes(4, "big"),
            label=f"medveil/hospital-1/epoch/{label}",
            template={Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True},
        )
    assert code(token.open) == "privacy.token_twice"


def test_sets_of_keys_on_one_token_do_not_mix(token: Any, keys: Pkcs11KeyProvider) -> None:
    other = token.create("hospital-10")
    assert other.epochs() == (1,)
    assert other.new_epoch() == 2
    wrapped = other.wrap(1, KEY, b"")
    with pytest.raises(VerificationError):
        keys.unwrap(1, wrapped, b"")
    other.destroy(1)
    again = token.open()
    assert again.epochs() == (1,)
    for one in (again, other):
        one.close()


# ---- wrong


def test_what_is_wrong_is_said(token: Any, keys: Pkcs11KeyProvider, tmp_path: Path) -> None:
    assert code(lambda: token.open("nobody")) == "privacy.token_no_keys"
    assert code(lambda: token.create("hospital-1")) == "privacy.token_has_keys"
    assert code(lambda: token._replace(label="nowhere").open()) == "privacy.token_missing"
    assert code(lambda: token._replace(module=str(tmp_path / "none.so")).open()) == "privacy.token_module"
    (tmp_path / "text.so").write_text("no library")
    assert code(lambda: token._replace(module=str(tmp_path / "text.so")).open()) == "privacy.token_module"
    assert code(lambda: token.open(pin="another pin")) == "privacy.token_pin"
    assert code(lambda: token.open(pin="")) == "privacy.token_pin"
    with pytest.raises(MedveilError):
        token.open("../x")
    assert keys.unwrap(1, keys.wrap(1, KEY, b""), b"") == KEY


def test_a_refused_pin_is_not_tried_again(token: Any, keys: Pkcs11KeyProvider, clock: Clock) -> None:
    wrapped = keys.wrap(1, KEY, b"")
    end(keys)
    with session(token) as own:
        own.set_pin("a pin of tests", "changed")
    assert code(lambda: keys.unwrap(1, wrapped, b"")) == "privacy.token_pin"
    with session_with(token, "changed") as own:
        own.set_pin("changed", "a pin of tests")
    clock.now += 3600
    assert code(lambda: keys.unwrap(1, wrapped, b"")) == "privacy.token_pin"  # it would be right now: nobody asked
    again = token.open()
    assert again.unwrap(1, wrapped, b"") == KEY
    again.close()


def session_with(token: Any, pin: str) -> Any:
    import pkcs11

    return pkcs11.lib(token.module).get_token(token_label=token.label).open(rw=True, user_pin=pin)


# ---- lost, slow, crashed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_module_that_crashes_takes_nothing_along(keys: Pkcs11KeyProvider, number: int) -> None:
    wrapped = keys.wrap(1, KEY, b"")
    end(keys, number)
    assert keys.unwrap(1, wrapped, b"") == KEY
    assert keys.new_epoch() == 2


def test_a_crash_in_the_middle_of_a_request_is_repeated(keys: Pkcs11KeyProvider) -> None:
    wrapped = keys.wrap(1, KEY, b"")
    first = process(keys)
    os.kill(first, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (first, signal.SIGKILL)).start()
    assert keys.unwrap(1, wrapped, b"") == KEY
    assert process(keys) != first


def test_a_token_that_hangs_is_given_up_and_taken_up_again(token: Any, keys: Pkcs11KeyProvider) -> None:
    wrapped = keys.wrap(1, KEY, b"")
    hasty = token.open(patience=0.5)
    first = process(hasty)
    os.kill(first, signal.SIGSTOP)
    before = time.monotonic()
    with pytest.raises(Unavailable) as raised:
        hasty.unwrap(1, wrapped, b"")
    assert raised.value.code == "privacy.token_slow" and raised.value.retry_after > 0
    assert time.monotonic() - before < 5
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert hasty.unwrap(1, wrapped, b"") == KEY
    hasty.close()


def test_a_module_that_hangs_while_it_is_loaded(token: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "module.so")  # whoever opens it waits for somebody who writes
    before = time.monotonic()
    assert code(lambda: token._replace(module=str(tmp_path / "module.so")).create(patience=1)) == "privacy.token_slow"
    assert time.monotonic() - before < 20


def test_a_process_that_hangs_alone_ends_by_itself(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "module.so")
    own, other = socket.socketpair()
    with own, other:
        command = [sys.executable, "-m", "privacy.keys.token_process", str(other.fileno())]
        left = subprocess.Popen(command, pass_fds=(other.fileno(),))
        send(own, Connect(1, str(tmp_path / "module.so"), "t", "n", "pin", False))
        assert left.wait(30) == -signal.SIGALRM


def test_a_process_ends_when_nobody_is_left(keys: Pkcs11KeyProvider) -> None:
    first = keys._process
    assert first is not None
    first.send_signal(signal.SIGINT)  # Ctrl-C in a terminal and a service's stop reach it as well
    first.send_signal(signal.SIGTERM)
    assert keys.unwrap(1, keys.wrap(1, KEY, b""), b"") == KEY
    assert first.poll() is None
    keys.close()
    assert first.poll() is not None
    keys.close()
    with pytest.raises(ValueError, match="closed"):
        keys.wrap(1, KEY, b"")


def test_a_lost_token_is_unavailable_and_comes_back_whole(
    token: Any, keys: Pkcs11KeyProvider, clock: Clock, tmp_path: Path
) -> None:
    wrapped = keys.wrap(1, KEY, b"")
    away = token.folder.with_name("away")
    token.folder.rename(away)
    token.folder.mkdir()
    try:
        end(keys)
        with pytest.raises(Unavailable) as raised:
            keys.unwrap(1, wrapped, b"")
        assert raised.value.code == "privacy.token_missing" and raised.value.retry_after > 0
        assert keys.epochs() == (1,)
    finally:
        token.folder.rmdir()
        away.rename(token.folder)
    # It is back, and is not asked before the pause is over: each failure would cost a caller his patience.
    with pytest.raises(Unavailable) as raised:
        keys.unwrap(1, wrapped, b"")
    assert raised.value.retry_after == 1
    clock.now += 1
    assert keys.unwrap(1, wrapped, b"") == KEY
    assert keys.new_epoch() == 2


def test_pauses_grow_and_end(token: Any, keys: Pkcs11KeyProvider, clock: Clock) -> None:
    away = token.folder.with_name("away-too")
    token.folder.rename(away)
    token.folder.mkdir()
    pauses = []
    try:
        end(keys)
        for _ in range(7):
            code(lambda: keys.wrap(1, KEY, b""))
            with pytest.raises(Unavailable) as raised:
                keys.wrap(1, KEY, b"")
            pauses.append(raised.value.retry_after)
            clock.now += raised.value.retry_after
    finally:
        token.folder.rmdir()
        away.rename(token.folder)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert len(keys.wrap(1, KEY, b"")) == 60


def test_an_ingestion_that_loses_its_token_leaves_the_vault_as_it_was(
    token: Any, keys: Pkcs11KeyProvider, tmp_path: Path, clock: Clock
) -> None:
    table = pa.table({"visits": pa.array(range(2000), pa.int64())})
    people = [str(number) for number in range(2000)]
    away = token.folder.with_name("away-again")
    with Vault.create(tmp_path / "vault", keys, "hospital-1") as vault:
        vault.ingest("claims-1", table, people)
        token.folder.rename(away)
        token.folder.mkdir()
        try:
            end(keys)
            for call in (
                lambda: vault.ingest("claims-2", table, people),
                lambda: vault.read("claims-1"),
                lambda: vault.rotate(),
            ):
                with pytest.raises(Unavailable):
                    call()
        finally:
            token.folder.rmdir()
            away.rename(token.folder)
        clock.now += 60
        assert [info.name for info in vault.datasets()] == ["claims-1"]
        assert vault.read("claims-1").equals(table)
        vault.ingest("claims-2", table, people)
        assert vault.read("claims-2").equals(table)


def test_a_killed_new_epoch_uses_no_number_twice(token: Any, keys: Pkcs11KeyProvider) -> None:
    chance = random.Random(3)
    wrapped: dict[int, bytes] = {}
    made = []
    for _ in range(12):
        threading.Timer(chance.uniform(0, 0.02), os.kill, (process(keys), signal.SIGKILL)).start()
        try:
            made.append(keys.new_epoch())
        except Unavailable as error:
            assert error.code == "privacy.token_failed"
        time.sleep(0.03)
        for epoch in token_epochs(keys):
            if epoch in wrapped:
                assert keys.unwrap(epoch, wrapped[epoch], b"") == bytes([epoch]) * 32
            else:
                wrapped[epoch] = keys.wrap(epoch, bytes([epoch]) * 32, b"")
    assert len(set(made)) == len(made)


def token_epochs(keys: Pkcs11KeyProvider) -> tuple[int, ...]:
    keys.wrap(1, KEY, b"")  # connects anew
    return keys.epochs()


def test_without_the_package_it_says_what_to_install(token: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert code(token.create) == "privacy.no_pkcs11"


def test_what_passes_to_the_token_shows_no_secret() -> None:
    shown = repr(
        [Connect(1, "m", "t", "n", "a pin of tests", False), Wrap(1, 1, [(b"n" * 12, KEY, b"")]), Answers([KEY])]
    )
    assert "pin of" not in shown and "kkk" not in shown


def test_a_refusal_is_no_fault_of_the_connection(keys: Pkcs11KeyProvider) -> None:
    first = process(keys)
    with pytest.raises(Refused):
        keys.wrap(9, KEY, b"")
    with pytest.raises(VerificationError):
        keys.unwrap(1, bytes(60), b"")
    assert process(keys) == first


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process's memory from its own user")
def test_the_process_keeps_its_memory_to_itself() -> None:
    own, other = socket.socketpair()
    own.close()  # it looks at what it may dump, finds nobody there, and ends
    code = "import ctypes, sys; from privacy.keys.token_process import main; libc = ctypes.CDLL(None); "
    code += "was = libc.prctl(3, 0, 0, 0, 0); main(int(sys.argv[1])); print(was, libc.prctl(3, 0, 0, 0, 0))"
    with other:
        found = subprocess.run(
            [sys.executable, "-c", code, str(other.fileno())], pass_fds=(other.fileno(),), capture_output=True
        )
    assert found.stdout.split() == [b"1", b"0"], found.stderr


def test_another_token_of_the_same_label_is_not_written_under(
    token: Any, keys: Pkcs11KeyProvider, clock: Clock, tmp_path: Path
) -> None:
    """What is wrapped by it while nobody notices could not be opened once the right one is back."""
    with Vault.create(tmp_path / "vault", keys, "hospital-1") as vault:
        vault.put_document("grant", "g", b"terms")
        own, other = token.folder.with_name("own"), token.folder.with_name("other")
        token.folder.rename(own)
        token.folder.mkdir()
        command = ["softhsm2-util", "--init-token", "--free", "--label", token.label]
        subprocess.run([*command, "--so-pin", "12345678", "--pin", "a pin of tests"], check=True, capture_output=True)
        token.create().close()  # a set of the same name, with an epoch of the same number
        end(keys)
        try:
            for _ in range(2):
                assert code(lambda: vault.put_document("grant", "h", b"other terms")) == "privacy.token_other"
            clock.now += 60
            assert code(lambda: keys.wrap(1, KEY, b"")) == "privacy.token_other"
        finally:
            token.folder.rename(other)
            own.rename(token.folder)
        clock.now += 60
        vault.put_document("grant", "h", b"other terms")
        assert vault.documents("grant") == ("g", "h") and vault.document("grant", "g") == b"terms"
        assert vault.rotate() == 2
        end(keys)
        assert vault.document("grant", "h") == b"other terms"


def test_keys_that_were_taken_off_the_token(token: Any, keys: Pkcs11KeyProvider, tmp_path: Path) -> None:
    with Vault.create(tmp_path / "vault", keys, "hospital-1") as vault:
        other = token.open()
        other.destroy(1)
        other.close()
        end(keys)
        assert code(lambda: keys.wrap(1, KEY, b"")) == "privacy.epoch_gone"
        assert keys.epochs() == ()
        for call in (
            lambda: vault.put_document("grant", "g", b"terms"),
            lambda: vault.ingest("d", pa.table({"n": [1]})),
        ):
            assert code(call) == "privacy.no_epoch"
