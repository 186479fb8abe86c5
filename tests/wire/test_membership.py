"""The members over time: rules that a list of changes keeps, and the trust file that holds them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from wire.checkpoint import TrustFile, cosign_checkpoint, read_trust, sign_checkpoint, trust_of, verify_checkpoint
from wire.checkpoint import write_trust as write
from wire.checkpoint.membership import cosigners_of, needed_cosigners
from wire.checkpoint.trust_file import format_trust, parse_trust
from wire.errors import DecodeError, QuorumNotMet, Refused, VerificationError
from wire.keyset import Founding, KeySet, Member, MembershipChange, MembershipChanges, SealingKey, SignatureKey
from wire.sealing import SealKey
from wire.signing import Signer

NAMES = ("bureau", "hospital", "insurer", "regulator")
replace = msgspec.structs.replace


def secret(*parts: object) -> bytes:
    return sha256("/".join(map(str, parts)).encode()).digest()


def signer(name: str, use: str = "cosign", generation: int = 0) -> Signer:
    return Signer(secret(name, use, generation))


def keys(name: str, height: int = 0, generation: int = 0) -> KeySet:
    uses = (SignatureKey(signer(name, use, generation).key, height) for use in ("envelope", "cosign", "http", "tls"))
    return KeySet(*uses, SealingKey(SealKey(1, secret(name, "seal", generation)), height))


def member(name: str, height: int = 0, generation: int = 0, re_executes: bool = True) -> Member:
    return Member(name, (name,), keys(name, height, generation), re_executes)


def changes(height: int, previous: int, *made: tuple[str, Member | None]) -> MembershipChanges:
    return MembershipChanges(height, previous, tuple(MembershipChange(*one) for one in made))


@pytest.fixture
def founding() -> Founding:
    return Founding("test-chain", tuple(member(name) for name in NAMES), "bureau", 3, "Asia/Shanghai", 0)


@pytest.fixture
def trust(founding: Founding) -> TrustFile:
    return trust_of(founding).with_changes(
        (
            changes(5, 0, ("insurer", member("insurer", 5, 1))),
            changes(9, 5, ("pharmacy", member("pharmacy", 9)), ("hospital", None)),
        )
    )


def test_who_is_a_member_when(trust: TrustFile) -> None:
    assert [trust.at(height).from_height for height in (-1, 0, 4, 5, 8, 9, 10**6)] == [0, 0, 0, 5, 5, 9, 9]
    assert trust.at(8).find("hospital") and not trust.at(9).find("hospital")
    assert trust.at(4).member("insurer").keys == keys("insurer")
    assert trust.member("insurer").keys == keys("insurer", 5, 1)
    assert trust.everybody == (*NAMES, "pharmacy")
    assert trust.until(8).changes == trust.changes[:1] and trust.until(8).latest.from_height == 5
    assert trust.until(9) is trust
    with pytest.raises(VerificationError):
        trust.member("hospital")


@pytest.mark.parametrize("n", range(1, 40))
def test_k_follows_the_rule(n: int) -> None:
    least = needed_cosigners(n)
    assert 2 * least > n + (n - 1) // 3 >= 2 * (least - 1)
    for founding_n in range(1, 40):
        for founding_k in range(needed_cosigners(founding_n), founding_n + 1):
            k = cosigners_of(founding_k, founding_n, n)
            assert least <= k <= n and (k <= founding_k or k == least)
            if n < founding_n:  # those who left give nobody a veto that it had not
                assert n - k >= min(founding_n - founding_k, n - least)
    assert cosigners_of(6, 8, 6) == 4 and cosigners_of(4, 4, 6) == 4 and cosigners_of(8, 8, 7) == 7


@pytest.mark.parametrize(
    "broken",
    [
        changes(9, 5, ("maker", member("maker", 9))),  # not after the last one
        changes(12, 5, ("maker", member("maker", 12))),  # leaves one out
        changes(12, 9, ("hospital", None)),  # is none
        changes(12, 9, ("bureau", None)),  # the sequencer
        changes(12, 9, ("maker", member("distributor", 12))),
        changes(12, 9, ("maker", member("maker", 11))),
        changes(12, 9, ("maker", member("maker", 0))),
        changes(12, 9, ("insurer", member("insurer", 5, 1))),  # no change
        changes(12, 9, ("insurer", member("insurer", 12, 0))),  # a key of before
        changes(12, 9, ("maker", replace(member("maker", 12), keys=keys("hospital", 12)))),  # a key of one that left
        changes(12, 9, ("insurer", replace(member("insurer", 12, 2), roles=("bureau",)))),
        changes(12, 9, ("insurer", member("insurer", 12, 2, re_executes=False))),
        changes(12, 9, ("maker", replace(member("maker", 12), roles=("king",)))),
        changes(12, 9, ("maker", replace(member("maker", 12), organisation="Maker"))),
    ],
    ids=range(14),
)
def test_changes_that_break_a_rule(trust: TrustFile, broken: MembershipChanges) -> None:
    with pytest.raises(DecodeError):
        trust.with_changes((broken,))


def test_a_head_is_signed_by_the_members_of_its_height(trust: TrustFile) -> None:
    def head(size: int, *cosigners: tuple[str, int]) -> bytes:
        note = sign_checkpoint(signer("bureau"), trust.origin, size, bytes(32))
        for name, generation in cosigners:
            note = note.with_line(cosign_checkpoint(signer(name, "cosign", generation), name, note, 7))
        return note.format()

    three = ("bureau", 0), ("hospital", 0), ("insurer", 0)
    for size in (1, 5):
        assert verify_checkpoint(head(size, *three), trust).size == size
    with pytest.raises(VerificationError):
        verify_checkpoint(head(6, *three), trust)  # the insurer's key changed with block 5
    three = ("bureau", 0), ("hospital", 0), ("insurer", 1)
    for size in (6, 9):
        verify_checkpoint(head(size, *three), trust)
    for size in (5, 10):
        with pytest.raises(VerificationError):
            verify_checkpoint(head(size, *three), trust)
    verify_checkpoint(head(10, ("bureau", 0), ("pharmacy", 0), ("insurer", 1)), trust)
    with pytest.raises(QuorumNotMet):
        verify_checkpoint(head(10, ("bureau", 0), ("pharmacy", 0)), trust)
    with pytest.raises((VerificationError, QuorumNotMet)):
        verify_checkpoint(head(0, ("bureau", 0), ("pharmacy", 0), ("insurer", 1)), trust)


def test_the_file(trust: TrustFile, tmp_path: Path) -> None:
    path = tmp_path / "consortium.json"
    write(path, trust)
    assert read_trust(path) == trust and list(tmp_path.iterdir()) == [path]
    text = path.read_text()
    for words in ('"from_height": 9', '"became": "joined"', '"became": "left"', '"became": "new keys"'):
        assert words in text
    plain = format_trust(trust_of(trust.founding)).decode()
    assert "changes" not in plain and "history" not in plain


def test_every_byte_of_the_file_counts(trust: TrustFile) -> None:
    data = format_trust(trust)
    for at in range(0, len(data), 7):
        with pytest.raises((DecodeError, VerificationError)):
            parse_trust(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(DecodeError):
        parse_trust(data.replace(b'"became": "left"', b'"became": "joined"'))


def test_a_file_too_long_to_be_read_is_not_written(
    trust: TrustFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wire.checkpoint.trust_file.LONGEST", 100)
    with pytest.raises(Refused):
        write(tmp_path / "consortium.json", trust)
    assert not list(tmp_path.iterdir())
