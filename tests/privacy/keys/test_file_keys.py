"""Key epochs in a file: wrong passphrases, altered bytes, destroyed epochs."""

from __future__ import annotations

import random
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from privacy.keys import STRONG, Argon2Cost, FileKeyProvider, KeyFile
from wire.canonical import decode, encode
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError


def test_wrap_and_unwrap_across_openings(provider: FileKeyProvider) -> None:
    wrapped = provider.wrap(1, b"k" * 32, b"place")
    again = FileKeyProvider(provider.path, "correct horse")
    assert again.unwrap(1, wrapped, b"place") == b"k" * 32
    assert again.epochs() == (1,)
    assert wrapped != provider.wrap(1, b"k" * 32, b"place")


def test_what_is_wrapped_stays_in_its_place(provider: FileKeyProvider) -> None:
    wrapped = provider.wrap(1, b"k" * 32, b"place")
    provider.new_epoch()
    for epoch, data, context in (
        (1, wrapped, b"elsewhere"),
        (2, wrapped, b"place"),
        (1, wrapped[:-1], b"place"),
        (1, b"", b"place"),
        (1, wrapped[:5] + bytes([wrapped[5] ^ 1]) + wrapped[6:], b"place"),
    ):
        with pytest.raises(VerificationError):
            provider.unwrap(epoch, data, context)


def test_a_destroyed_epoch_is_gone_and_its_number_is_not_used_again(provider: FileKeyProvider) -> None:
    wrapped = provider.wrap(1, b"k" * 32, b"")
    assert provider.new_epoch() == 2
    provider.destroy(1)
    provider.destroy(2)
    provider.destroy(7)
    again = FileKeyProvider(provider.path, "correct horse")
    assert again.epochs() == ()
    assert again.new_epoch() == 3
    for keys in (provider, again):
        with pytest.raises(Refused) as raised:
            keys.unwrap(1, wrapped, b"")
        assert raised.value.code == "privacy.epoch_gone"


def test_destroying_overwrites_the_old_file(provider: FileKeyProvider) -> None:
    """The old file's bytes are overwritten, not only unlinked: an open handle of it sees zeros."""
    with provider.path.open("rb") as old:
        size = len(old.read())
        provider.new_epoch()
        provider.destroy(1)
        old.seek(0)
        assert old.read() == bytes(size)


def test_a_wrong_passphrase_and_an_altered_file_are_one_error(provider: FileKeyProvider) -> None:
    with pytest.raises(VerificationError) as raised:
        FileKeyProvider(provider.path, "correct hors")
    assert raised.value.code == "privacy.key_file"
    assert "passphrase" in raised.value.text()
    assert "口令" in raised.value.text("zh")


def test_one_passphrase_has_one_spelling(tmp_path: Path, cheap: Argon2Cost) -> None:
    composed = unicodedata.normalize("NFC", "Šťáva")
    FileKeyProvider.create(tmp_path / "k", composed, cost=cheap)
    FileKeyProvider(tmp_path / "k", unicodedata.normalize("NFD", composed))


def test_every_byte_of_the_file_counts(provider: FileKeyProvider, tmp_path: Path) -> None:
    data = provider.path.read_bytes()
    altered = tmp_path / "altered"
    for position in range(len(data)):
        for flip in (0x01, 0x80):
            altered.write_bytes(data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])
            with pytest.raises((DecodeError, VerificationError, Refused, Unavailable)):
                FileKeyProvider(altered, "correct horse")
    for cut in range(len(data)):
        altered.write_bytes(data[:cut])
        with pytest.raises(MedveilError):
            FileKeyProvider(altered, "correct horse")


def test_an_older_file_lacks_the_newer_epoch(provider: FileKeyProvider) -> None:
    before = provider.path.read_bytes()
    wrapped = provider.wrap(provider.new_epoch(), b"k" * 32, b"")
    provider.path.write_bytes(before)
    with pytest.raises(Refused):
        FileKeyProvider(provider.path, "correct horse").unwrap(2, wrapped, b"")


def test_two_writers_do_not_lose_each_others_epochs(provider: FileKeyProvider) -> None:
    other = FileKeyProvider(provider.path, "correct horse")
    other.new_epoch()
    with pytest.raises(Unavailable) as raised:
        provider.new_epoch()
    assert raised.value.code == "privacy.key_file_changed"
    assert FileKeyProvider(provider.path, "correct horse").epochs() == (1, 2)


def test_an_interrupted_write_does_not_block_the_next(provider: FileKeyProvider) -> None:
    provider.path.with_name("keys.new").write_bytes(b"half")
    assert provider.new_epoch() == 2
    assert FileKeyProvider(provider.path, "correct horse").epochs() == (1, 2)


def test_bad_paths_and_passphrases(tmp_path: Path, provider: FileKeyProvider, cheap: Argon2Cost) -> None:
    with pytest.raises(Unavailable):
        FileKeyProvider(tmp_path / "nowhere", "x")
    with pytest.raises(Unavailable):
        FileKeyProvider(tmp_path, "x")
    with pytest.raises(Refused):
        FileKeyProvider.create(provider.path, "x", cost=cheap)
    with pytest.raises(Refused):
        FileKeyProvider.create(tmp_path / "new", "", cost=cheap)
    assert not (tmp_path / "new").exists()


def test_only_the_owner_reads_the_file(provider: FileKeyProvider) -> None:
    assert stat.S_IMODE(provider.path.stat().st_mode) == 0o600


def test_costs_that_would_exhaust_the_machine_do_not_decode(provider: FileKeyProvider) -> None:
    file = decode(KeyFile, provider.path.read_bytes())
    for cost in (Argon2Cost(1, 2**31, 1), Argon2Cost(10**6, 8, 1), Argon2Cost(1, 8, 200)):
        provider.path.write_bytes(
            encode(KeyFile(file.version, file.salt, cost, file.next_epoch, file.epochs, file.mac))
        )
        with pytest.raises(DecodeError):
            FileKeyProvider(provider.path, "correct horse")


def test_the_default_is_strong_and_no_secret_is_shown(provider: FileKeyProvider, tmp_path: Path) -> None:
    assert (STRONG.time, STRONG.memory, STRONG.lanes) == (3, 65_536, 4)
    strong = FileKeyProvider.create(tmp_path / "strong", b"\x00binary")
    assert decode(KeyFile, strong.path.read_bytes()).cost == STRONG
    assert repr(strong) == f"FileKeyProvider({str(strong.path)!r}, epochs=(1,))"


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Changed copies of a key file: bits, bytes, runs, cuts, repeats, and parts of it in other places."""
    chance = random.Random(seed)
    while count:
        at, length = chance.randrange(len(data)), chance.randrange(1, 40)
        other = chance.randrange(len(data))
        part = data[other : other + length]
        made = chance.choice(
            [
                data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :],
                data[:at] + chance.randbytes(length) + data[at + length :],
                data[:at] + data[at + length :],
                data[:at] + part + data[at:],
                data[:at] + part + data[at + length :],
                data + chance.randbytes(length),
            ]
        )
        if made != data:
            count -= 1
            yield made


def open_mutated(provider: FileKeyProvider, path: Path, count: int, seed: int) -> None:
    provider.new_epoch()
    for altered in mutations(provider.path.read_bytes(), count, seed):
        path.write_bytes(altered)
        with pytest.raises((DecodeError, VerificationError, Refused, Unavailable)):
            FileKeyProvider(path, "correct horse")


def test_no_mutated_key_file_opens(provider: FileKeyProvider, tmp_path: Path) -> None:
    open_mutated(provider, tmp_path / "altered", 500, 1)


@pytest.mark.long
def test_no_mutated_key_file_opens_in_a_long_run(provider: FileKeyProvider, tmp_path: Path) -> None:
    open_mutated(provider, tmp_path / "altered", 10_000, 2)
