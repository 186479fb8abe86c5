"""Evidence files and the signed manifest of a folder: every change of either is named."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from wire import evidence
from wire.canonical import Wire, encode
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError
from wire.evidence import Header, check_manifest, read, read_file, read_manifest, register, to_json, write_manifest
from wire.signing import Signer

SIGNER = Signer(b"\x07" * 32)


class Note(Wire, frozen=True, tag="test.note"):
    header: Header
    text: str


class Letter(Wire, frozen=True, tag="test.letter"):
    header: Header
    text: str


@pytest.fixture
def header(monkeypatch: pytest.MonkeyPatch) -> Header:
    monkeypatch.setattr(evidence, "_kinds", {})
    return register("test-note", 1, Note)


def test_read_finds_the_struct(header: Header) -> None:
    note = Note(header, "hello")
    assert read(encode(note)) == note
    assert evidence.kinds() == (("test-note", 1),)


@pytest.mark.parametrize(
    "wrong", [Header("test-memo", 1, 1), Header("test-note", 2, 1), Header("test-note", 1, 2)], ids=str
)
def test_unknown_kinds_versions_and_suites_are_refused(header: Header, wrong: Header) -> None:
    with pytest.raises(DecodeError) as caught:
        read(encode(Note(wrong, "hello")))
    assert caught.value.code == "wire.unknown_kind"


def test_another_struct_under_the_same_header_is_refused(header: Header) -> None:
    with pytest.raises(DecodeError):
        read(encode(Letter(header, "hello")))


def test_every_changed_byte_of_a_file_is_refused_or_another_note(header: Header) -> None:
    data = encode(Note(header, "hello"))
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        try:
            assert read(changed) != Note(header, "hello")
        except DecodeError:
            pass
        with pytest.raises(DecodeError):
            read(data[:position])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"{}",
        b"\x90",
        b"\x91\xc0",
        b"\x92\xc0\xc0",
        b"\x91" * 100_000,
        b"\x92\xa1a\x90",
        b"\x92\xa1a\x81\x00\x01",
    ],
)
def test_junk_is_no_evidence(header: Header, data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        read(data)
    assert caught.value.code == "wire.not_evidence"


def test_a_file_of_no_kind_is_refused_without_decoding_it(header: Header) -> None:
    """Decoded without a type, these 4 MiB of empty maps would take 300."""
    maps = b"\xdd" + (4 * 1024 * 1024).to_bytes(4, "big") + b"\x80" * (4 * 1024 * 1024)
    for data in (maps, b"\x93\xa9test.memo" + encode(Header("test-memo", 1, 1)) + maps):
        tracemalloc.start()
        with pytest.raises(DecodeError):
            read(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1024 * 1024


@pytest.mark.parametrize("version", [1, 45, 97, 127, 128, 255])
@pytest.mark.parametrize("kind", ["a", "aa", "a" * 31, "a" * 32, "a" * 64])
def test_every_header_is_told_from_the_beginning(header: Header, kind: str, version: int) -> None:
    with pytest.raises(DecodeError) as caught:
        read(encode(Note(Header(kind, version, version), "text")))
    assert caught.value.code == "wire.unknown_kind"
    assert caught.value.facts == {"kind": kind, "version": version, "suite": version}


def test_files_are_read_up_to_a_length_and_nothing_else_is(tmp_path: Path) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_bytes(b"12345")
    assert read_file(file, 5) == b"12345"
    with pytest.raises(DecodeError) as caught:
        read_file(file, 4)
    assert (caught.value.code, caught.value.facts["length"]) == ("wire.too_long", 5)
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(DecodeError):
        read_file(file)
    os.mkfifo(pipe)  # nobody writes to it: to open it plainly would never end
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(Refused) as refused:
            read_file(path)
        assert refused.value.code == "wire.no_file"
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(OSError):
            read_file(path)


def test_registering_is_strict(header: Header) -> None:
    register("test-note", 1, Note)
    with pytest.raises(ValueError, match="twice"):
        register("test-note", 1, Letter)

    class Headless(Wire, frozen=True, tag="test.headless"):
        text: str

    with pytest.raises(ValueError, match="first field"):
        register("test-headless", 1, Headless)


FILES = {
    "a.evidence": b"one",
    "ledger/b.evidence": b"two",
    "ledger-head.evidence": b"three",
    "ledger/c/d.evidence": b"",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    write_manifest(tmp_path, dict.fromkeys(FILES, "test-note"), "chain-1", "bureau", 1_700_000_000_000, SIGNER)
    return tmp_path


def _check(folder: Path) -> None:
    check_manifest(folder, read_manifest(folder), SIGNER.key)


def _code(folder: Path) -> tuple[str, str]:
    with pytest.raises(MedveilError) as caught:
        _check(folder)
    return caught.value.code, str(caught.value.facts.get("file"))


def test_an_untouched_folder_passes(folder: Path) -> None:
    _check(folder)
    manifest = read_manifest(folder)
    assert [file.path for file in manifest.body.files] == sorted(FILES)
    assert {file.path: file.sha256 for file in manifest.body.files} == {
        name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()
    }


def test_a_changed_added_removed_or_renamed_file_is_named(folder: Path) -> None:
    victim = folder / "ledger/b.evidence"
    victim.write_bytes(b"twO")
    assert _code(folder) == ("wire.file_changed", "ledger/b.evidence")
    victim.write_bytes(b"two!")
    assert _code(folder) == ("wire.file_changed", "ledger/b.evidence")
    victim.write_bytes(b"two")
    (folder / "ledger/e.evidence").write_bytes(b"two")
    assert _code(folder) == ("wire.file_added", "ledger/e.evidence")
    victim.unlink()
    assert _code(folder)[0] == "wire.file_added"
    (folder / "ledger/e.evidence").unlink()
    assert _code(folder) == ("wire.file_removed", "ledger/b.evidence")


def test_a_link_is_no_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "a.evidence"
    outside.write_bytes(b"one")
    (folder / "a.evidence").unlink()
    (folder / "a.evidence").symlink_to(outside)
    assert _code(folder) == ("wire.file_changed", "a.evidence")


def test_every_changed_byte_of_the_manifest_is_caught(folder: Path) -> None:
    path = folder / "manifest.json"
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises((DecodeError, VerificationError)):
            _check(folder)
    for other in (
        data[:-1],
        data + b"\n",
        b" " + data,
        data.replace(b"\n", b"\r\n"),
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
    ):
        path.write_bytes(other)
        with pytest.raises(DecodeError):
            _check(folder)
    path.write_bytes(data)
    _check(folder)
    path.unlink()
    with pytest.raises(Unavailable):
        _check(folder)


def test_another_signer_is_refused(folder: Path) -> None:
    with pytest.raises(VerificationError) as caught:
        check_manifest(folder, read_manifest(folder), Signer(bytes(32)).key)
    assert caught.value.code == "wire.manifest_signature"


@pytest.mark.parametrize(
    "paths",
    [("../a",), ("/a",), ("a//b",), ("a/../b",), ("./a",), ("b", "a"), ("a", "a"), ("manifest.json",), ("a\\b",)],
)
def test_a_signed_manifest_must_still_name_plain_paths(folder: Path, paths: tuple[str, ...]) -> None:
    """The exporter itself may be hostile."""
    body = read_manifest(folder).body
    listed = tuple(msgspec.structs.replace(body.files[0], path=path) for path in paths)
    body = msgspec.structs.replace(body, files=listed)
    signature = SIGNER.sign(evidence.MANIFEST, msgspec.json.encode(body, order="deterministic"))
    manifest = evidence.Manifest(body, 1, signature.key_id.hex(), signature.value.hex())
    (folder / "manifest.json").write_bytes(to_json(manifest))
    assert _code(folder) == ("wire.bad_manifest", "manifest.json")
