"""A home is made whole or not at all, opened by one process with its passphrase, and belongs to one consortium."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

import msgspec
import pytest

from ledger.machine import Machine
from medveil.service.home.cards import FOUNDING, MemberCard, check_card, fingerprint, found_consortium
from medveil.service.home.home import Home
from wire import evidence
from wire.canonical import encode
from wire.checkpoint import trust_of
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError
from wire.keyset import MembershipChange, MembershipChanges

NOW = 1_760_000_000_000
PASS = "correct horse battery staple"
replace = msgspec.structs.replace


def clock() -> int:
    return NOW


def make(folder: Path, name: str, role: str = "hospital", **options: object) -> MemberCard:
    return Home.create(folder, name, (role,), PASS, secrets.token_bytes, clock, **options)  # type: ignore[arg-type]


def opened(folder: Path, passphrase: str = PASS) -> Home:
    return Home.open(folder, passphrase, secrets.token_bytes, clock)


def test_made_and_opened(tmp_path: Path) -> None:
    card = make(tmp_path / "h1", "hospital-1", tier="city", hosts=("h1.example",))
    assert stat.S_IMODE((tmp_path / "h1").stat().st_mode) == 0o700
    with opened(tmp_path / "h1") as home:
        assert home.card == card and home.config.peers.hosts == ("h1.example",)
        member = check_card(card, FOUNDING)
        assert (member.organisation, member.roles, member.tier) == ("hospital-1", ("hospital",), "city")
        assert home.organisation.keys.first.envelope.key == member.keys.envelope.key
        assert home.organisation.keys.first.seal.key == member.keys.seal.key
        with pytest.raises(Unavailable) as caught:
            opened(tmp_path / "h1")
        assert caught.value.code == "home.in_use"
        with pytest.raises(Unavailable):
            _ = home.trust
    opened(tmp_path / "h1").close()


def test_a_wrong_passphrase_and_a_wrong_place(tmp_path: Path) -> None:
    make(tmp_path / "h1", "hospital-1")
    with pytest.raises(VerificationError):
        opened(tmp_path / "h1", "another")
    opened(tmp_path / "h1").close()  # the lock was let go
    with pytest.raises(Unavailable):
        opened(tmp_path / "nowhere")
    with pytest.raises(Refused):
        make(tmp_path / "h1", "hospital-1")
    (tmp_path / "h1" / "data-version").write_text("2\n")
    with pytest.raises(DecodeError):
        opened(tmp_path / "h1")


@pytest.mark.parametrize("name,role", [("Hospital", "hospital"), ("h", "king"), ("", "hospital")])
def test_nothing_is_left_of_what_could_not_be_made(tmp_path: Path, name: str, role: str) -> None:
    with pytest.raises(MedveilError):
        make(tmp_path / "home", name, role)
    assert not list(tmp_path.iterdir())


def test_founding_and_joining(tmp_path: Path) -> None:
    names = {"bureau": "bureau", "hospital-1": "hospital", "insurer": "insurer", "regulator": "regulator"}
    cards = [make(tmp_path / name, name, role) for name, role in names.items()]
    founding = found_consortium("test-chain", "bureau", "Asia/Shanghai", cards, NOW)
    assert founding.k == 3 and Machine(founding).trust.members == founding.members
    trust = trust_of(founding)
    with opened(tmp_path / "insurer") as home:
        home.join(trust)
        home.join(trust)
        assert home.trust == trust
        other = trust_of(found_consortium("other", "bureau", "Asia/Shanghai", cards, NOW))
        with pytest.raises(Refused):
            home.join(other)
    make(tmp_path / "false-insurer", "insurer", "insurer")
    with opened(tmp_path / "false-insurer") as home, pytest.raises(VerificationError):
        home.join(trust)
    make(tmp_path / "later", "pharmacy", "pharmacy", chain=trust.genesis_hash)
    with opened(tmp_path / "later") as home:
        home.join(trust)  # no member yet
        check_card(home.card, trust.genesis_hash)


def test_a_home_does_not_go_back_to_older_members(tmp_path: Path) -> None:
    card = make(tmp_path / "bureau", "bureau", "bureau")
    other = make(tmp_path / "insurer", "insurer", "insurer")
    trust = trust_of(found_consortium("test-chain", "bureau", "Asia/Shanghai", [card, other], NOW))
    left = MembershipChanges(3, 0, (MembershipChange("insurer", None),))
    newer = trust.with_changes([left])
    with opened(tmp_path / "bureau") as home:
        home.join(trust)
        home.join(newer)
        home.join(trust)
        assert home.trust == newer


def test_cards_that_do_not_hold(tmp_path: Path) -> None:
    one, other = make(tmp_path / "a", "hospital-1"), make(tmp_path / "b", "hospital-2")
    assert fingerprint(one) != fingerprint(other) and len(fingerprint(one)) == 39
    with pytest.raises(Refused):
        found_consortium("c", "hospital-1", "UTC", [one, one], NOW)
    swapped = replace(one, application=replace(one.application, member=other.application.member))
    for broken in (
        swapped,
        replace(one, chain=bytes(31) + b"\x01"),
        make(tmp_path / "c", "x", chain=bytes(31) + b"\x02"),
    ):
        with pytest.raises(VerificationError):
            found_consortium("c", "hospital-1", "UTC", [broken], NOW)
    data = encode(one)
    for at in range(len(data)):
        try:
            read = evidence.read(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert isinstance(read, MemberCard)
            check_card(read, FOUNDING)
        except MedveilError:
            continue
        assert read.application.member != one.application.member, at  # another tier or role is signed by nobody
        pytest.fail(f"byte {at}")
