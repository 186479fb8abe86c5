"""What every key provider does: the same suite over a file and over a token."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from privacy.keys import KeyProvider
from privacy.vault import Vault
from wire.errors import Refused, Unavailable, VerificationError

KEY = b"k" * 32


def test_wrap_and_unwrap_across_openings(keys: KeyProvider, kind: Any) -> None:
    wrapped = keys.wrap(1, KEY, b"place")
    assert keys.unwrap(1, wrapped, b"place") == KEY
    assert wrapped != keys.wrap(1, KEY, b"place")
    assert len(wrapped) == 12 + 32 + 16
    keys.close()
    again = kind.open()
    assert again.unwrap(1, wrapped, b"place") == KEY
    assert again.epochs() == (1,)
    again.close()


def test_many_are_as_one_each(keys: KeyProvider) -> None:
    items = [(bytes([number % 256]) * 32, b"place %d" % number) for number in range(1300)]
    wrapped = keys.wrap_many(1, items)
    places = [(one, context) for one, (_, context) in zip(wrapped, items, strict=True)]
    assert keys.unwrap_many(1, places) == [key for key, _ in items]
    assert [keys.unwrap(1, *one) for one in places[:3]] == [key for key, _ in items[:3]]
    assert keys.wrap_many(1, []) == [] and keys.unwrap_many(1, []) == []
    assert len({one[:12] for one in wrapped}) == len(wrapped)
    with pytest.raises(VerificationError):
        keys.unwrap_many(1, [*places[:700], (places[0][0], b"elsewhere"), *places[700:]])


@pytest.mark.parametrize("size", [0, 1, 16, 32, 64, 4096])
def test_keys_and_contexts_of_any_length(keys: KeyProvider, size: int) -> None:
    for context in (b"", b"c", b"c" * 10_000):
        wrapped = keys.wrap(1, bytes(size), context)
        assert keys.unwrap(1, wrapped, context) == bytes(size)


def test_what_is_wrapped_stays_in_its_place(keys: KeyProvider) -> None:
    wrapped = keys.wrap(1, KEY, b"place")
    keys.new_epoch()
    for epoch, data, context in (
        (1, wrapped, b"elsewhere"),
        (1, wrapped, b""),
        (2, wrapped, b"place"),
        (1, wrapped[:-1], b"place"),
        (1, wrapped + b"\0", b"place"),
        (1, b"", b"place"),
        (1, wrapped[:27], b"place"),
    ):
        with pytest.raises(VerificationError) as raised:
            keys.unwrap(epoch, data, context)
        assert raised.value.code == "privacy.wrapped_key"
    assert keys.unwrap(1, wrapped, b"place") == KEY


def test_no_mutation_of_a_wrapped_key_opens(keys: KeyProvider) -> None:
    chance = random.Random(7)
    for number in range(250):
        context = b"place %d" % number
        wrapped = keys.wrap(1, KEY, context)
        flipped = bytearray(wrapped)
        flipped[chance.randrange(len(wrapped))] ^= 1 << chance.randrange(8)
        other = chance.choice([bytes(flipped), wrapped[: chance.randrange(len(wrapped))], chance.randbytes(60)])
        with pytest.raises(VerificationError):
            keys.unwrap(1, other, context)


def test_a_destroyed_epoch_is_gone_and_its_number_is_not_used_again(keys: KeyProvider, kind: Any) -> None:
    wrapped = keys.wrap(1, KEY, b"")
    assert keys.new_epoch() == 2
    keys.destroy(1)
    keys.destroy(2)
    keys.destroy(7)
    assert keys.epochs() == ()
    again = kind.open()
    assert again.epochs() == ()
    assert again.new_epoch() == 3
    assert again.epochs() == (3,)
    for provider in (keys, again):
        for call in (lambda one: one.unwrap(1, wrapped, b""), lambda one: one.wrap(1, KEY, b"")):
            with pytest.raises(Refused) as raised:
                call(provider)
            assert raised.value.code == "privacy.epoch_gone"
    again.close()


def test_two_writers_do_not_lose_each_others_epochs(keys: KeyProvider, kind: Any) -> None:
    other = kind.open()
    wrapped = other.wrap(other.new_epoch(), KEY, b"")
    try:
        assert keys.new_epoch() == 3
    except Unavailable as error:
        assert error.code == "privacy.key_file_changed"
    last = kind.open()
    assert last.epochs() in ((1, 2), (1, 2, 3))
    assert last.unwrap(2, wrapped, b"") == KEY
    other.close()
    last.close()


def test_threads_share_a_provider(keys: KeyProvider) -> None:
    def there_and_back(number: int) -> bool:
        key, place = bytes([number]) * 32, b"thread %d" % number
        return all(keys.unwrap(1, keys.wrap(1, key, place), place) == key for _ in range(40))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(there_and_back, range(12)))


def test_creating_twice_is_refused(keys: KeyProvider, kind: Any) -> None:
    wrapped = keys.wrap(1, KEY, b"")
    with pytest.raises(Refused):
        kind.create()
    assert keys.unwrap(1, wrapped, b"") == KEY


def test_a_vault_lives_on_it(keys: KeyProvider, kind: Any, tmp_path: Path) -> None:
    table = pa.table({"visits": pa.array([1, 2, 3], pa.int64())})
    with Vault.create(tmp_path / "vault", keys, "hospital-1") as vault:
        vault.ingest("claims-1", table, ["a", "b", "a"])
        assert vault.rotate() == 2
        assert vault.read("claims-1").equals(table)
    assert keys.epochs() == (2,)
    keys.close()
    again = kind.open()
    with Vault.open(tmp_path / "vault", again, "hospital-1") as vault:
        assert vault.record("claims-1", "a")["visits"].to_pylist() == [1, 3]
    again.close()


def test_no_secret_is_shown(keys: KeyProvider) -> None:
    shown = repr(keys)
    assert "correct horse" not in shown and "a pin of tests" not in shown
