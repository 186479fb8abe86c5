"""Checkpoint notes, the trust file and the k-of-n rule."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from wire.checkpoint import (
    Checkpoint,
    Note,
    TrustFile,
    cosign_checkpoint,
    founding_hash,
    parse_note,
    read_trust,
    sign_checkpoint,
    trust_of,
    verify_checkpoint,
    write_trust,
)
from wire.checkpoint.membership import needed_cosigners
from wire.checkpoint.note import COSIGNATURE, LOG_SIGNATURE, SignatureLine, cosigned_message, key_id
from wire.checkpoint.trust_file import format_trust, parse_trust
from wire.errors import DecodeError, QuorumNotMet, Unavailable, VerificationError
from wire.keyset import Founding, KeySet, Member, SealingKey, SignatureKey
from wire.sealing import SealKey
from wire.signing import Signer, VerifyKey

NAMES = ("bureau", "hospital-1", "hospital-2", "hospital-3", "insurer", "researcher", "regulator")
NOW = 1_760_000_000


def signer_of(name: str, use: str = "cosign") -> Signer:
    return Signer(sha256(f"{name} {use}".encode()).digest())


def member_of(name: str, re_executes: bool = True) -> Member:
    def key(use: str) -> SignatureKey:
        return SignatureKey(signer_of(name, use).key, 0)

    keys = KeySet(
        key("envelope"), key("cosign"), key("http"), key("tls"), SealingKey(SealKey(1, bytes(31) + b"\x09"), 0)
    )
    return Member(name, (name.split("-")[0],), keys, re_executes)


@pytest.fixture
def founding() -> Founding:
    members = tuple(member_of(name, re_executes=name != "insurer") for name in NAMES)
    return Founding("test-chain", members, "bureau", 4, "Asia/Shanghai", NOW * 1000)


@pytest.fixture
def trust(founding: Founding) -> TrustFile:
    return trust_of(founding)


@pytest.fixture
def head(trust: TrustFile) -> Note:
    return sign_checkpoint(signer_of("bureau"), trust.origin, 7, sha256(b"root").digest())


def cosigned(note: Note, *names: str, at: int = NOW) -> Note:
    for number, name in enumerate(names):
        note = note.with_line(cosign_checkpoint(signer_of(name), name, note, at + number))
    return note


def test_a_final_checkpoint(head: Note, trust: TrustFile) -> None:
    note = cosigned(head, "bureau", "hospital-1", "hospital-2", "regulator", "insurer")
    checkpoint = verify_checkpoint(note.format(), trust)
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (trust.origin, 7, head.checkpoint.root)
    assert parse_note(note.format()) == note


def test_time_cannot_be_moved_forward_by_fewer_than_k(head: Note, trust: TrustFile) -> None:
    note = cosigned(head, "hospital-1", "hospital-2", "hospital-3")
    note = cosigned(note, "regulator", "researcher", at=NOW + 10**6)
    assert verify_checkpoint(note.format(), trust).time == (NOW + 1) * 1000


def test_the_format_is_c2sp(head: Note, trust: TrustFile) -> None:
    note = cosigned(head, "hospital-1")
    origin, size, root, blank, log, witness, end = note.format().decode().split("\n")
    assert (origin, size, blank, end) == (trust.origin, "7", "", "")
    assert base64.b64decode(root) == head.checkpoint.root
    dash, name, value = log.split(" ")
    assert (dash, name) == ("—", trust.origin)
    public = signer_of("bureau").key.public
    assert base64.b64decode(value)[:4] == sha256(name.encode() + b"\n\x01" + public).digest()[:4]
    raw = base64.b64decode(witness.split(" ")[2])
    public = signer_of("hospital-1").key.public
    assert raw[:4] == sha256(b"hospital-1\n\x04" + public).digest()[:4]
    assert int.from_bytes(raw[4:12], "big") == NOW and len(raw) == 4 + 8 + 64


def test_key_ids_of_the_two_signature_types_differ() -> None:
    assert key_id("a", LOG_SIGNATURE, bytes(32)) != key_id("a", COSIGNATURE, bytes(32))


def test_the_published_example_has_our_form() -> None:
    """The example of c2sp.org/tlog-cosignature, with an origin of our form, formats back to itself."""
    lines = (
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+"
        "zyWE+xeMcTOAYQ8=\n"
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZ"
        "qhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )
    text = f"sofa/{'0' * 64}\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n" + lines
    note = parse_note(text.encode())
    assert note.checkpoint.size == 20852163 and note.lines[1].time == 1679315147


def test_every_changed_byte_is_refused(head: Note, trust: TrustFile) -> None:
    data = cosigned(head, "bureau", "hospital-1", "hospital-2", "regulator", "insurer").format()
    for at in range(len(data)):
        for change in (0x01, 0x20, 0x80):
            changed = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
            with pytest.raises(VerificationError):
                verify_checkpoint(changed, trust)


def test_every_truncation_and_extension_is_refused(head: Note, trust: TrustFile) -> None:
    data = cosigned(head, "bureau", "hospital-1", "hospital-2", "regulator").format()
    for length in range(len(data)):
        with pytest.raises((VerificationError, QuorumNotMet)):
            verify_checkpoint(data[:length], trust)
    for more in (b"\n", b" ", b"x", b"\x00"):
        with pytest.raises(VerificationError):
            verify_checkpoint(data + more, trust)


def test_too_few(head: Note, trust: TrustFile) -> None:
    with pytest.raises(QuorumNotMet) as caught:
        verify_checkpoint(cosigned(head, "bureau", "hospital-1", "hospital-2").format(), trust)
    assert caught.value.facts == {"have": 3, "need": 4}


def test_members_that_do_not_replay_do_not_count(head: Note, trust: TrustFile) -> None:
    with pytest.raises(QuorumNotMet):
        verify_checkpoint(cosigned(head, "bureau", "hospital-1", "hospital-2", "insurer").format(), trust)


def test_one_member_counts_once(head: Note, trust: TrustFile) -> None:
    note = cosigned(head, "bureau", "hospital-1", "hospital-2")
    for again in (cosigned(note, "hospital-1"), cosigned(note, "hospital-1", at=NOW + 99)):
        with pytest.raises(VerificationError, match="two signatures"):
            verify_checkpoint(again.format(), trust)


def test_the_log_signature_is_no_cosignature(head: Note, trust: TrustFile) -> None:
    note = cosigned(head, "hospital-1", "hospital-2", "hospital-3")
    line = replace(head.lines[0], name="bureau")
    with pytest.raises(VerificationError):
        verify_checkpoint(note.with_line(line).format(), trust)


def test_a_stranger_refuses_the_note(head: Note, trust: TrustFile) -> None:
    note = cosigned(head, "bureau", "hospital-1", "hospital-2", "regulator", "stranger")
    with pytest.raises(VerificationError) as caught:
        verify_checkpoint(note.format(), trust)
    assert caught.value.code == "checkpoint.unknown_signer"


def test_another_use_of_the_same_organisation_does_not_cosign(head: Note, trust: TrustFile) -> None:
    note = cosigned(head, "bureau", "hospital-1", "hospital-2")
    note = note.with_line(cosign_checkpoint(signer_of("regulator", "envelope"), "regulator", note, NOW))
    with pytest.raises(VerificationError):
        verify_checkpoint(note.format(), trust)


def test_cosignatures_without_the_sequencer(head: Note, trust: TrustFile) -> None:
    note = cosigned(replace(head, lines=()), "bureau", "hospital-1", "hospital-2", "regulator")
    with pytest.raises(VerificationError) as caught:
        verify_checkpoint(note.format(), trust)
    assert caught.value.code == "checkpoint.no_sequencer"


def test_a_cosignature_of_another_head_does_not_count(head: Note, trust: TrustFile) -> None:
    other = sign_checkpoint(signer_of("bureau"), trust.origin, 8, sha256(b"other").digest())
    line = cosign_checkpoint(signer_of("regulator"), "regulator", other, NOW)
    note = cosigned(head, "bureau", "hospital-1", "hospital-2").with_line(line)
    with pytest.raises(VerificationError):
        verify_checkpoint(note.format(), trust)


def test_times_beyond_63_bits(head: Note, trust: TrustFile) -> None:
    note = cosigned(head, "bureau", "hospital-1", "hospital-2")
    signer = signer_of("regulator")
    for seconds, fine in ((2**63 - 1, True), (2**63, False)):
        value = seconds.to_bytes(8, "big") + signer.sign_raw(cosigned_message(note.text, seconds))
        line = SignatureLine("regulator", key_id("regulator", COSIGNATURE, signer.key.public), value)
        if fine:
            verify_checkpoint(note.with_line(line).format(), trust)
            continue
        with pytest.raises(VerificationError):
            verify_checkpoint(note.with_line(line).format(), trust)


def test_another_chain(founding: Founding, head: Note) -> None:
    twin = trust_of(msgspec.structs.replace(founding, time=founding.time + 1))
    note = cosigned(head, "bureau", "hospital-1", "hospital-2", "regulator")
    with pytest.raises(VerificationError) as caught:
        verify_checkpoint(note.format(), twin)
    assert caught.value.code == "checkpoint.wrong_log"


HASH = "0" * 64
ROOT = base64.b64encode(bytes(32)).decode()
LINE = "— a " + base64.b64encode(bytes(68)).decode() + "\n"


@pytest.mark.parametrize(
    "fault,text",
    [
        ("empty", ""),
        ("no signature", f"c/{HASH}\n1\n{ROOT}\n\n"),
        ("extension line", f"c/{HASH}\n1\n{ROOT}\nmore\n\n{LINE}"),
        ("leading zero", f"c/{HASH}\n01\n{ROOT}\n\n{LINE}"),
        ("plus sign", f"c/{HASH}\n+1\n{ROOT}\n\n{LINE}"),
        ("other digits", f"c/{HASH}\n١\n{ROOT}\n\n{LINE}"),
        ("size too large", f"c/{HASH}\n{2**63}\n{ROOT}\n\n{LINE}"),
        ("short root", f"c/{HASH}\n1\n{base64.b64encode(bytes(31)).decode()}\n\n{LINE}"),
        ("loose base64", f"c/{HASH}\n1\n{ROOT[:-2]}B=\n\n{LINE}"),
        ("carriage return", f"c/{HASH}\r\n1\n{ROOT}\n\n{LINE}"),
        ("hyphen for dash", f"c/{HASH}\n1\n{ROOT}\n\n{LINE.replace('—', '-')}"),
        ("two spaces", f"c/{HASH}\n1\n{ROOT}\n\n{LINE.replace('— a', '—  a')}"),
        ("plus in a name", f"c/{HASH}\n1\n{ROOT}\n\n{LINE.replace('— a', '— a+b')}"),
        ("no last newline", f"c/{HASH}\n1\n{ROOT}\n\n{LINE.rstrip()}"),
        ("key id only", f"c/{HASH}\n1\n{ROOT}\n\n— a AAAAAA==\n"),
        ("too many signatures", f"c/{HASH}\n1\n{ROOT}\n\n{LINE * 1002}"),
        ("no origin hash", f"cosignature/v1\n1\n{ROOT}\n\n{LINE}"),
    ],
)
def test_malformed_notes(fault: str, text: str) -> None:
    with pytest.raises(DecodeError):
        parse_note(text.encode())


def test_notes_that_are_no_text() -> None:
    for data in (b"\xff\xfe", b"x" * (256 * 1024 + 1)):
        with pytest.raises(DecodeError):
            parse_note(data)


# --- trust ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n,k", [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (6, 4), (7, 5), (8, 6), (10, 7), (13, 9)])
def test_least_k(n: int, k: int) -> None:
    f = (n - 1) // 3
    assert needed_cosigners(n) == k
    assert 2 * k > n + f and 2 * (k - 1) <= n + f


def test_trust_file_round_trip(tmp_path: Path, founding: Founding) -> None:
    path = tmp_path / "consortium.json"
    written = trust_of(founding)
    write_trust(path, written)
    trust = read_trust(path)
    assert trust == written == trust_of(founding)
    assert trust.founding == founding and trust.genesis_hash == founding_hash(founding)
    assert trust.member("hospital-2").organisation == "hospital-2"
    assert (trust.chain, trust.k, trust.zone, trust.sequencer) == ("test-chain", 4, "Asia/Shanghai", "bureau")
    assert "insurer" not in trust.latest.re_executing and len(trust.latest.re_executing) == 6
    assert [entry.name for entry in tmp_path.iterdir()] == ["consortium.json"]
    with pytest.raises(VerificationError):
        trust.member("stranger")


def test_every_changed_byte_of_the_trust_file_is_noticed(trust: TrustFile) -> None:
    data = format_trust(trust)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(DecodeError):
            parse_trust(changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: text.replace("  ", "    "),
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"k": 4', '"k": 3'),
        lambda text: text.replace('"zone"', '"extra": 1,\n  "zone"'),
        lambda text: text.replace("Asia/Shanghai", "Asia/Tokyo"),
        lambda text: text.upper(),
        lambda text: "{}",
        lambda text: "",
        lambda text: "[" * 100_000,
    ],
)
def test_edited_trust_files(trust: TrustFile, change: Callable[[str], str]) -> None:
    with pytest.raises(DecodeError):
        parse_trust(change(format_trust(trust).decode()).encode())


def test_missing_and_unwritable_files(tmp_path: Path, founding: Founding) -> None:
    with pytest.raises(Unavailable):
        read_trust(tmp_path / "none.json")
    with pytest.raises(Unavailable):
        write_trust(tmp_path / "no-folder" / "consortium.json", trust_of(founding))


def _first(founding: Founding, **change: object) -> Founding:
    first = msgspec.structs.replace(founding.members[0], **change)
    return msgspec.structs.replace(founding, members=(first, *founding.members[1:]))


def _keys(founding: Founding, **change: object) -> Founding:
    return _first(founding, keys=msgspec.structs.replace(founding.members[0].keys, **change))


@pytest.mark.parametrize(
    "fault,change",
    [
        ("weak k", lambda f: msgspec.structs.replace(f, k=3)),
        ("k above n", lambda f: msgspec.structs.replace(f, k=7)),
        ("nobody replays", lambda f: msgspec.structs.replace(f, members=tuple(member_of(n, False) for n in NAMES))),
        ("no members", lambda f: msgspec.structs.replace(f, members=())),
        ("two of a name", lambda f: msgspec.structs.replace(f, members=(*f.members, f.members[0]))),
        ("strange sequencer", lambda f: msgspec.structs.replace(f, sequencer="stranger")),
        ("bad chain", lambda f: msgspec.structs.replace(f, chain="Chain/1")),
        ("bad zone", lambda f: msgspec.structs.replace(f, zone="../etc/passwd")),
        ("no role", lambda f: _first(f, roles=())),
        ("unknown role", lambda f: _first(f, roles=("king",))),
        ("role twice", lambda f: _first(f, roles=("bureau", "bureau"))),
        ("shared key", lambda f: _keys(f, cosign=f.members[1].keys.cosign)),
        ("one key for two uses", lambda f: _keys(f, cosign=f.members[0].keys.envelope)),
        ("reserved algorithm", lambda f: _keys(f, cosign=SignatureKey(VerifyKey(2, bytes(32)), 0))),
        ("short key", lambda f: _keys(f, cosign=SignatureKey(VerifyKey(1, bytes(31)), 0))),
        ("key of the future", lambda f: _keys(f, cosign=SignatureKey(f.members[0].keys.cosign.key, 5))),
        ("seal suite", lambda f: _keys(f, seal=SealingKey(SealKey(9, bytes(32)), 0))),
    ],
)
def test_foundings_that_break_a_rule(founding: Founding, fault: str, change: Callable[[Founding], Founding]) -> None:
    with pytest.raises(DecodeError):
        trust_of(change(founding))


def test_a_checkpoint_states_no_time_of_its_own(head: Note) -> None:
    assert head.checkpoint == Checkpoint(head.checkpoint.origin, 7, head.checkpoint.root, 0)
    with pytest.raises(ValueError):
        _ = head.lines[0].time
    with pytest.raises(ValueError):
        cosign_checkpoint(signer_of("bureau"), "bureau", head, -1)
