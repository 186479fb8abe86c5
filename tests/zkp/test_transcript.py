"""zkp.transcript: framing, challenges, hedged randomness, and a golden value that pins the format."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import VerificationError
from zkp.groups import R, backend
from zkp.transcript import Transcript

GENERATOR = backend().encode(backend().generator())
IDENTITY = backend().encode(backend().identity())
KEY = backend().encode2(backend().generator2())


def after(*writes: tuple[str, bytes, object], protocol: bytes = b"test") -> int:
    transcript = Transcript(protocol)
    for kind, label, data in writes:
        getattr(transcript, "append_" + kind)(label, data)
    return transcript.challenge(b"c")


def test_the_format_as_written_down() -> None:
    """The framing, spelled out once more by hand: changing it would change every proof."""
    got = after(
        ("bytes", b"a", b"one"),
        ("integer", b"b", 2),
        ("point", b"c", GENERATOR),
        ("scalar", b"d", R - 1),
        ("key", b"e", KEY),
    )
    said = bytes([21]) + b"medveil/v1/transcript"
    for kind, label, data in [
        (1, b"protocol", b"test"),
        (1, b"a", b"one"),
        (2, b"b", b"\0\0\0\0\0\0\0\2"),
        (3, b"c", GENERATOR),
        (4, b"d", (R - 1).to_bytes(32, "big")),
        (8, b"e", KEY),
        (5, b"c", b""),
    ]:
        said += bytes([kind, len(label)]) + label + len(data).to_bytes(8, "big") + data
    assert got == int.from_bytes(hashlib.shake_256(said).digest(48), "big") % (R - 1) + 1


Writes = list[tuple[str, bytes, object]]

writes = st.lists(
    st.tuples(st.just("bytes"), st.binary(min_size=1, max_size=4), st.binary(max_size=6))
    | st.tuples(st.just("integer"), st.binary(min_size=1, max_size=4), st.integers(0, 2**64 - 1))
    | st.tuples(st.just("scalar"), st.binary(min_size=1, max_size=4), st.integers(0, R - 1)),
    max_size=4,
)


@given(writes, writes)
def test_equal_only_for_the_same_operations(
    left: list[tuple[str, bytes, object]], right: list[tuple[str, bytes, object]]
) -> None:
    assert (after(*left) == after(*right)) == (left == right)


def test_framing() -> None:
    """No bytes can move between label and data, between writes, or between types."""
    sequences: list[Writes] = [
        [],
        [("bytes", b"a", b"")],
        [("bytes", b"a", b"bc")],
        [("bytes", b"ab", b"c")],
        [("bytes", b"a", b"b"), ("bytes", b"a", b"c")],
        [("bytes", b"a", (7).to_bytes(8, "big"))],
        [("integer", b"a", 7)],
        [("bytes", b"a", (7).to_bytes(32, "big"))],
        [("scalar", b"a", 7)],
        [("bytes", b"a", GENERATOR)],
        [("point", b"a", GENERATOR)],
        [("bytes", b"a", KEY)],
        [("key", b"a", KEY)],
    ]
    assert len({after(*sequence) for sequence in sequences}) == len(sequences)
    assert after(protocol=b"x") != after(protocol=b"y")


def test_challenges_are_in_range_and_differ() -> None:
    transcript = Transcript(b"test")
    drawn = [transcript.challenge(b"c") for _ in range(50)]
    assert len(set(drawn)) == 50
    assert all(1 <= challenge < R for challenge in drawn)
    assert max(drawn) > R // 2


def test_a_challenge_counts_as_a_write() -> None:
    one, two = Transcript(b"test"), Transcript(b"test")
    one.challenge(b"early")
    assert one.challenge(b"c") != two.challenge(b"c")


def test_identity_is_refused() -> None:
    with pytest.raises(VerificationError) as caught:
        Transcript(b"test").append_point(b"p", IDENTITY)
    assert caught.value.code == "zkp.identity_point"


@pytest.mark.parametrize(
    "kind, data",
    [
        ("scalar", R),
        ("scalar", -1),
        ("integer", -1),
        ("integer", 2**64),
        ("point", GENERATOR[:-1]),
        ("point", GENERATOR + b"\0"),
    ],
)
def test_a_callers_bug(kind: str, data: object) -> None:
    with pytest.raises(ValueError):
        after((kind, b"x", data))


@pytest.mark.parametrize("label", [b"", bytes(256)])
def test_labels_are_short_and_named(label: bytes) -> None:
    with pytest.raises(ValueError, match="label"):
        Transcript(b"test").challenge(label)


def test_prover_randomness_is_hedged() -> None:
    def stream(statement: bytes, witness: list[int], seed: int) -> bytes:
        transcript = Transcript(b"test")
        transcript.append_bytes(b"statement", statement)
        rand = transcript.prover_randomness(witness, lambda n: bytes([seed]) * n)
        return rand(48) + rand(48)

    first = stream(b"s", [1, 2], 0)
    assert first[:48] != first[48:]
    assert first == stream(b"s", [1, 2], 0)
    others = {stream(b"t", [1, 2], 0), stream(b"s", [1, 3], 0), stream(b"s", [1], 0), stream(b"s", [1, 2], 1)}
    assert len(others | {first}) == 5
    with pytest.raises(ValueError):
        Transcript(b"test").prover_randomness([], lambda n: b"")


def test_prover_randomness_leaves_the_transcript_alone() -> None:
    one, two = Transcript(b"test"), Transcript(b"test")
    one.prover_randomness([5], bytes)
    assert one.challenge(b"c") == two.challenge(b"c")


def test_keys_are_points_of_g2() -> None:
    transcript = Transcript(b"test")
    for wrong in (b"", GENERATOR, KEY[:-1], KEY + b"\0"):
        with pytest.raises(ValueError, match="96 bytes"):
            transcript.append_key(b"W", wrong)
    with pytest.raises(VerificationError) as caught:
        transcript.append_key(b"W", bytes([0xC0]) + bytes(95))
    assert caught.value.code == "zkp.identity_point"


def test_digests_cover_everything_and_change_nothing() -> None:
    """A batch's weights hang on them: every write and every challenge before shows."""
    transcript, digests = Transcript(b"test"), set[bytes]()
    twin = Transcript(b"test")
    for step in range(12):
        digests.add(transcript.digest())
        assert transcript.digest() in digests and len(transcript.digest()) == 32
        if step % 3 == 0:
            assert transcript.challenge(b"c") == twin.challenge(b"c")
        else:
            transcript.append_integer(b"i", step)
            twin.append_integer(b"i", step)
    assert len(digests) == 12
    other = Transcript(b"test")
    other.challenge(b"d")
    assert other.digest() not in digests
