"""STREAM: what was sealed comes back, and nothing else does, however its chunks are changed."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from privacy.suites import AES_256_GCM, SM4_GCM, data_cipher
from privacy.vault.sealed_stream import CHUNK, SealedReader, sealed_chunks
from wire.errors import VerificationError

KEY, PREFIX, PLACE = b"k" * 32, b"prefix7", b"place"
SEALED = CHUNK + 16


class Trickle:
    """A source that gives as little as it likes."""

    def __init__(self, data: bytes, seed: int = 1) -> None:
        self._file = io.BytesIO(data)
        self._chance = random.Random(seed)

    def read(self, size: int, /) -> bytes:
        return self._file.read(self._chance.randint(1, max(1, min(size, 40_000))))

    def close(self) -> None:
        self._file.close()


def seal(text: bytes, suite: int = AES_256_GCM, place: bytes = PLACE, prefix: bytes = PREFIX) -> list[bytes]:
    return list(sealed_chunks(data_cipher(suite, KEY), prefix, place, io.BytesIO(text)))


def reader(
    sealed: bytes | list[bytes], suite: int = AES_256_GCM, place: bytes = PLACE, prefix: bytes = PREFIX
) -> SealedReader:
    data = sealed if isinstance(sealed, bytes) else b"".join(sealed)
    altered = lambda: VerificationError("privacy.vault_document", kind="scan")  # noqa: E731
    return SealedReader(data_cipher(suite, KEY), prefix, place, io.BytesIO(data), altered)


def text_of(length: int) -> bytes:
    return random.Random(length).randbytes(length)


LENGTHS = [0, 1, 15, 16, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 3 * CHUNK + 5]


@pytest.mark.parametrize("suite", [AES_256_GCM, SM4_GCM])
@pytest.mark.parametrize("length", LENGTHS)
def test_there_and_back(length: int, suite: int) -> None:
    text = text_of(length)
    chunks = seal(text, suite)
    assert [len(chunk) for chunk in chunks[:-1]] == [SEALED] * (len(chunks) - 1)
    assert sum(map(len, chunks)) == length + 16 * len(chunks)
    with reader(chunks, suite) as opened:
        assert opened.readall() == text
        assert opened.read(1) == b""
    trickled = list(sealed_chunks(data_cipher(suite, KEY), PREFIX, PLACE, Trickle(text)))
    assert trickled == chunks
    slow = SealedReader(
        data_cipher(suite, KEY), PREFIX, PLACE, Trickle(b"".join(chunks)), lambda: VerificationError("x")
    )
    assert slow.readall() == text


def test_each_chunk_is_the_aead_of_its_number_and_whether_it_is_the_last() -> None:
    """Against the paper's construction, written out."""
    text = text_of(2 * CHUNK + 7)
    cipher = data_cipher(AES_256_GCM, KEY)
    expected = [
        cipher.encrypt(PREFIX + b"\0\0\0\0\0", text[:CHUNK], PLACE),
        cipher.encrypt(PREFIX + b"\0\0\0\1\0", text[CHUNK : 2 * CHUNK], PLACE),
        cipher.encrypt(PREFIX + b"\0\0\0\2\1", text[2 * CHUNK :], PLACE),
    ]
    assert seal(text) == expected


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=20))
def test_reading_in_any_pieces(text: bytes, sizes: list[int]) -> None:
    opened = reader(seal(text))
    pieces = [opened.read(size) or b"" for size in sizes]
    assert b"".join(pieces) + opened.readall() == text


def changed(chunks: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Everything that may be done to whole chunks."""
    one, two, three = chunks
    yield "the last one cut off", [one, two]
    yield "two cut off", [one]
    yield "all cut off", []
    yield "the first one left out", [two, three]
    yield "the middle one left out", [one, three]
    yield "swapped", [two, one, three]
    yield "last ones swapped", [one, three, two]
    yield "repeated", [one, one, two, three]
    yield "the last one repeated", [one, two, three, three]
    yield "something after it", [*chunks, b"\0"]
    yield "an empty last chunk after it", [*chunks, AESGCM(KEY).encrypt(bytes(12), b"", PLACE)]
    yield "a byte less", [one, two, three[:-1]]
    yield "cut within the second", [one, two[:100]]
    yield "cut to a tag", [one, two[:16]]
    yield "cut to less than a tag", [one, two[:7]]


@pytest.mark.parametrize("last", [5, CHUNK])
def test_chunks_in_another_order_or_number_do_not_open(last: int) -> None:
    text = text_of(2 * CHUNK + last)
    for what, sealed in changed(seal(text)):
        opened = reader(sealed)
        got = bytearray()
        with pytest.raises(VerificationError):
            while piece := opened.read(CHUNK):
                got += piece
        assert text.startswith(bytes(got)), what


def test_an_empty_last_chunk_is_not_taken_even_from_the_right_key() -> None:
    """Else a text of whole chunks would have two forms."""
    text = text_of(CHUNK)
    cipher = data_cipher(AES_256_GCM, KEY)
    sealed = cipher.encrypt(PREFIX + b"\0\0\0\0\0", text, PLACE) + cipher.encrypt(PREFIX + b"\0\0\0\1\1", b"", PLACE)
    opened = reader(sealed)
    assert opened.read(CHUNK) == text
    with pytest.raises(VerificationError):
        opened.read(1)


def test_another_key_place_prefix_or_suite_opens_nothing() -> None:
    sealed = seal(b"text")
    for other in (
        reader(sealed, place=b"elsewhere"),
        reader(sealed, prefix=b"another"),
        reader(sealed, suite=SM4_GCM),
        SealedReader(
            data_cipher(AES_256_GCM, b"j" * 32), PREFIX, PLACE, io.BytesIO(sealed[0]), lambda: VerificationError("x")
        ),
    ):
        with pytest.raises(VerificationError):
            other.readall()
    with pytest.raises(ValueError, match="7 bytes"):
        seal(b"", prefix=b"short")


def mutate(count: int, seed: int) -> None:
    chance = random.Random(seed)
    text = text_of(2 * CHUNK + 100)
    whole = b"".join(seal(text))
    for _ in range(count):
        data = bytearray(whole)
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randrange(1, 1000)]
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 1000))
            case _:
                data[at : at + 16] = data[:16]
        if bytes(data) == whole:
            continue
        opened, got = reader(bytes(data)), bytearray()
        with pytest.raises(VerificationError):
            while piece := opened.read(CHUNK):
                got += piece
        assert text.startswith(bytes(got))


def test_no_mutation_reads_as_another_text() -> None:
    mutate(500, 1)


@pytest.mark.long
def test_no_mutation_reads_as_another_text_in_a_long_run() -> None:
    mutate(10_000, 2)


def test_closing_closes_the_source() -> None:
    source = io.BytesIO(b"".join(seal(b"text")))
    opened = SealedReader(data_cipher(AES_256_GCM, KEY), PREFIX, PLACE, source, lambda: VerificationError("x"))
    opened.close()
    opened.close()
    assert source.closed
    with pytest.raises(ValueError):
        opened.read(1)
