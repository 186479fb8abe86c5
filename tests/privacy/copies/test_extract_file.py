"""The file of an extract: whatever is done to it, it opens as it was made or not at all."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from privacy.copies import extract_file
from privacy.copies.encrypted_parquet import write_parquet
from privacy.copies.extract_file import (
    MAGIC,
    ExtractCover,
    ExtractEnd,
    ExtractFacts,
    OpenedEnd,
    open_end,
    read_end,
    seal_end,
)
from privacy.copies.extracts import inspect_extract, open_extract
from privacy.grants.terms import GrantTerms
from privacy.vault.rows import StoredColumn
from tests.privacy.copies.extracting import Issuer, extract_terms, issuer_in
from wire import sealing
from wire.canonical import encode
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError
from wire.sealing import HYBRID, X25519, OpenKey, Sealed
from wire.signing import Signer


@pytest.fixture
def issuer(tmp_path: Path, terms: GrantTerms) -> Iterator[Issuer]:
    with issuer_in(tmp_path, extract_terms(terms)) as made:
        yield made


@pytest.fixture
def own() -> OpenKey:
    return OpenKey.generate(os.urandom)


@pytest.fixture
def made(issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path) -> Path:
    issuer.make(tmp_path / "a.extract", table, issuer.wanted(own.key))
    return tmp_path / "a.extract"


def opened(issuer: Issuer, path: Path, own: OpenKey, recipient: str = "university", at: int = 0) -> pa.Table:
    return open_extract(path, [own], [issuer.signer.key], recipient, at or issuer.now)[1]


# ---- who may open it, and until when


def test_another_key_another_recipient_another_issuer(issuer: Issuer, own: OpenKey, made: Path) -> None:
    other = OpenKey.generate(os.urandom)
    for raising, kind, code in (
        (lambda: open_extract(made, [other], [issuer.signer.key], "university", issuer.now), Refused, "key_missing"),
        (lambda: open_extract(made, [], [issuer.signer.key], "university", issuer.now), Refused, "key_missing"),
        (lambda: open_extract(made, [own], [issuer.signer.key], "insurer-1", issuer.now), Refused, "of_other"),
        (lambda: open_extract(made, [own], [Signer(b"x" * 32).key], "university", issuer.now), VerificationError, "al"),
        (lambda: open_extract(made, [own], [], "university", issuer.now), VerificationError, "altered"),
    ):
        with pytest.raises(kind) as raised:
            raising()
        assert raised.value.code.startswith(f"extracts.{code}")


def test_a_key_of_the_other_suite_does_not_open_it(issuer: Issuer, table: pa.Table, tmp_path: Path) -> None:
    for suite, other in ((X25519, HYBRID), (HYBRID, X25519)):
        own = OpenKey.generate(os.urandom, suite)
        path = tmp_path / f"{suite}.extract"
        issuer.make(path, table, issuer.wanted(own.key))
        assert opened(issuer, path, own).num_rows == 4
        with pytest.raises(Refused):
            opened(issuer, path, OpenKey.generate(os.urandom, other))


def test_it_does_not_open_when_it_must_have_been_deleted(issuer: Issuer, own: OpenKey, made: Path) -> None:
    due = issuer.grant.terms.delete_by
    assert opened(issuer, made, own, at=due - 1).num_rows == 4
    with pytest.raises(Refused) as raised:
        opened(issuer, made, own, at=due)
    assert raised.value.code == "extracts.due"
    assert inspect_extract(made, [own], [issuer.signer.key], "university").facts.delete_by == due


def test_the_end_of_one_does_not_open_another(
    issuer: Issuer, own: OpenKey, table: pa.Table, made: Path, tmp_path: Path
) -> None:
    """Two extracts of the same grant, rows and key: body and end of each belong together."""
    issuer.make(tmp_path / "b.extract", table, issuer.wanted(own.key))
    ends = [read_end(tmp_path / name).bytes() for name in ("a.extract", "b.extract")]
    bodies = [(tmp_path / f"{name}.extract").read_bytes()[: -len(end)] for name, end in zip("ab", ends, strict=True)]
    for body, end in ((bodies[0], ends[1]), (bodies[1], ends[0])):
        made.write_bytes(body + end)
        with pytest.raises(VerificationError) as raised:
            opened(issuer, made, own)
        assert raised.value.code == "parquet.altered"


def test_a_recipient_cannot_pass_it_on_as_the_issuers(issuer: Issuer, own: OpenKey, made: Path) -> None:
    """HPKE names no sender: the recipient has key, facts and signature, and seals them to somebody else."""
    victim = OpenKey.generate(os.urandom)
    opening = inspect_extract(made, [own], [issuer.signer.key], "university")
    for cover in (
        msgspec.structs.replace(opening.facts.cover, seal_key=victim.key.key_id()),
        msgspec.structs.replace(opening.facts.cover, seal_key=victim.key.key_id(), recipient="insurer-1"),
    ):
        facts = msgspec.structs.replace(opening.facts, cover=cover)
        for end in (
            seal_end(facts, opening.key, victim.key, Signer(b"u" * 32)),
            sealed(facts, opening, victim, cover),
            sealed(opening.facts, opening, victim, cover),
        ):
            with pytest.raises(VerificationError) as raised:
                open_end(end, [victim], [issuer.signer.key], cover.recipient)
            assert raised.value.code == "extracts.altered"


def sealed(facts: ExtractFacts, opening: OpenedEnd, to: OpenKey, cover: ExtractCover) -> ExtractEnd:
    """Facts and the issuer's own signature, which is of others, as anybody can seal them."""
    whole = extract_file._Opening(facts, opening.signature, opening.key)
    return ExtractEnd(cover, sealing.seal(to.key, extract_file._info(cover), encode(whole)))


CHANGED: dict[str, Callable[[Any], Any]] = {
    "cover": lambda cover: msgspec.structs.replace(cover, extract=b"x" * 16),
    "columns": lambda columns: (msgspec.structs.replace(columns[0], mask="surname"), *columns[1:]),
    **dict.fromkeys(("grant", "dataset", "purpose"), lambda name: name[:-1]),
    **dict.fromkeys(("commitment", "risk", "body", "key"), lambda value: value[1:] + b"x"),
    **dict.fromkeys(("audit", "made", "delete_by", "rows", "length"), lambda number: number + 1),
}


def test_every_fact_is_signed(issuer: Issuer, own: OpenKey, made: Path) -> None:
    assert CHANGED.keys() | {"guarantee"} == set(ExtractFacts.__struct_fields__)  # that one has one value only
    opening = inspect_extract(made, [own], [issuer.signer.key], "university")
    open_end(sealed(opening.facts, opening, own, opening.facts.cover), [own], [issuer.signer.key], "university")
    for name, change in CHANGED.items():
        changed = change(getattr(opening.facts, name))
        facts = msgspec.structs.replace(opening.facts, **{name: changed})
        with pytest.raises(VerificationError) as raised:
            open_end(sealed(facts, opening, own, facts.cover), [own], [issuer.signer.key], "university")
        assert raised.value.code == "extracts.altered"


def test_the_key_is_the_one_that_the_signature_speaks_of(issuer: Issuer, own: OpenKey, made: Path) -> None:
    """Facts, signature and cover as they are, another key beside them: whoever shows facts shows which key is meant."""
    opening = inspect_extract(made, [own], [issuer.signer.key], "university")
    other = msgspec.structs.replace(opening, key=b"k" * 32)
    for end in (
        sealed(opening.facts, other, own, opening.facts.cover),
        seal_end(opening.facts, other.key, own.key, issuer.signer),
    ):
        with pytest.raises(VerificationError) as raised:
            open_end(end, [own], [issuer.signer.key], "university")
        assert raised.value.code == "extracts.altered"


@pytest.mark.parametrize(("field", "value"), [("version", 3), ("version", 1), ("suite", 2)])
def test_another_format_is_refused_in_words(issuer: Issuer, own: OpenKey, made: Path, field: str, value: int) -> None:
    end = read_end(made)
    newer = msgspec.structs.replace(end, cover=msgspec.structs.replace(end.cover, **{field: value}))
    made.write_bytes(made.read_bytes()[: -len(end.bytes())] + newer.bytes())
    with pytest.raises(Refused) as raised:
        opened(issuer, made, own)
    assert raised.value.code == "extracts.newer"


@pytest.mark.parametrize("more", [b"", b"\0", b"more of it" * 100])
def test_a_body_of_another_length_is_told_before_its_rows_are_read(
    issuer: Issuer, own: OpenKey, made: Path, more: bytes
) -> None:
    """Who lists what he holds reads the end alone: `medveil extract list`."""
    end = read_end(made).bytes()
    body = made.read_bytes()[: -len(end)]
    made.write_bytes((body + more if more else body[:-1]) + end)
    for look in (
        lambda: inspect_extract(made, [own], [issuer.signer.key], "university"),
        lambda: opened(issuer, made, own),
    ):
        with pytest.raises(VerificationError) as raised:
            look()
        assert raised.value.code == "parquet.altered"


def test_what_an_issuer_says_of_its_own_body_must_be_so(issuer: Issuer, own: OpenKey, tmp_path: Path) -> None:
    """Signed facts that do not fit the body: other columns, another number of rows, an unknown type."""
    plain = pa.table({"visits": [1, 2], "cost": [1.0, 2.0], "health": ["a", "b"]})
    path = tmp_path / "a.extract"
    good = issuer.make(path, plain, issuer.wanted(own.key, 2))
    opening = inspect_extract(path, [own], [issuer.signer.key], "university")
    body = path.read_bytes()[: good.length]
    kinds = [msgspec.structs.replace(column, kind="decimal128(3, 2)") for column in good.columns]
    for changes in (
        {"rows": 3},
        {"columns": good.columns[1:]},
        {"columns": good.columns[::-1]},
        {"columns": tuple(kinds)},
    ):
        facts = msgspec.structs.replace(good, **changes)
        path.write_bytes(body + seal_end(facts, opening.key, own.key, issuer.signer).bytes())
        with pytest.raises(VerificationError) as raised:
            opened(issuer, path, own)
        assert raised.value.code == "parquet.altered"


def test_a_body_of_another_place_or_key_is_not_read(issuer: Issuer, own: OpenKey, made: Path, tmp_path: Path) -> None:
    """Also where the hash that the issuer signed is right."""
    good = inspect_extract(made, [own], [issuer.signer.key], "university")
    columns = [StoredColumn(column.name, column.kind) for column in good.facts.columns]
    rows = opened(issuer, made, own)
    for key, place in ((good.key, b"elsewhere"), (b"k" * 32, good.facts.cover.place())):
        with (tmp_path / "body").open("wb") as file:
            written = write_parquet(file, columns, [rows], key, place, pieces=True)
        facts = msgspec.structs.replace(good.facts, length=written.length, body=written.digest)
        end = seal_end(facts, good.key, own.key, issuer.signer)
        made.write_bytes((tmp_path / "body").read_bytes() + end.bytes())
        with pytest.raises(VerificationError):
            opened(issuer, made, own)
    with (tmp_path / "body").open("wb") as file:
        written = write_parquet(file, columns, [rows], good.key, good.facts.cover.place(), pieces=True)
    facts = msgspec.structs.replace(good.facts, length=written.length, body=written.digest)
    made.write_bytes((tmp_path / "body").read_bytes() + seal_end(facts, good.key, own.key, issuer.signer).bytes())
    assert opened(issuer, made, own).equals(rows)


# ---- files that are something else


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"mvx1",
        b"\0\0\0\0mvx1",
        b"\xff\xff\xff\xffmvx1",
        b"PAR1",
        b"\x91" * 100 + (100).to_bytes(4, "big") + MAGIC,
        b"\xdd\xff\xff\xff\xff" * 20 + (100).to_bytes(4, "big") + MAGIC,
    ],
)
def test_a_file_that_is_no_extract(issuer: Issuer, own: OpenKey, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.extract").write_bytes(content)
    with pytest.raises(DecodeError) as raised:
        opened(issuer, tmp_path / "a.extract", own)
    assert raised.value.code == "extracts.not_extract"


def test_a_file_that_is_not_there_or_a_folder(issuer: Issuer, own: OpenKey, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("nothing", "folder"):
        with pytest.raises(Unavailable):
            opened(issuer, tmp_path / name, own)


# ---- five hundred ways to alter it


def _mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    kind = draw.randrange(8)
    if kind <= 2:
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if kind == 3:
        return data[:at]
    if kind == 4:
        return data[:at] + draw.randbytes(draw.randrange(1, 20)) + data[at:]
    if kind == 5:
        return data[:at] + data[at + draw.randrange(1, 40) :]
    if kind == 6:  # a piece of another extract of the same table, key and recipient, at the same place
        end = at + draw.randrange(1, 200)
        return data[:at] + other[at:end] + data[end:]
    first, second = sorted(draw.sample(range(len(data) - 16), 2))
    return (
        data[:first]
        + data[second : second + 16]
        + data[first + 16 : second]
        + data[first : first + 16]
        + data[second + 16 :]
    )


def _mutations(issuer: Issuer, own: OpenKey, path: Path, other: Path, count: int) -> dict[str, int]:
    good, another = path.read_bytes(), other.read_bytes()
    rows = opened(issuer, path, own)
    draw = random.Random(count)
    codes: dict[str, int] = {}
    for _ in range(count):
        changed = _mutated(good, another, draw)
        path.write_bytes(changed)
        try:
            found = opened(issuer, path, own)
        except MedveilError as error:
            codes[error.code] = codes.get(error.code, 0) + 1
        else:
            assert changed == good and found.equals(rows), "an altered file was read"
    return codes


@pytest.mark.parametrize("suite", [X25519, HYBRID], ids=["x25519", "hybrid"])
def test_500_altered_files_are_refused(issuer: Issuer, table: pa.Table, tmp_path: Path, suite: int) -> None:
    own = OpenKey.generate(os.urandom, suite)
    for name in "ab":
        issuer.make(tmp_path / f"{name}.extract", table, issuer.wanted(own.key))
    codes = _mutations(issuer, own, tmp_path / "a.extract", tmp_path / "b.extract", 500)
    assert codes.keys() >= {"parquet.altered", "extracts.not_extract"} and sum(codes.values()) > 480


@pytest.mark.long
def test_10000_altered_files_are_refused(issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path) -> None:
    for name in "ab":
        issuer.make(tmp_path / f"{name}.extract", table, issuer.wanted(own.key))
    assert sum(_mutations(issuer, own, tmp_path / "a.extract", tmp_path / "b.extract", 10_000).values()) > 9_600


Change = Callable[[ExtractEnd], ExtractEnd]


@pytest.mark.parametrize(
    "change",
    [
        lambda end: msgspec.structs.replace(end, cover=msgspec.structs.replace(end.cover, issuer="hospital-2")),
        lambda end: msgspec.structs.replace(end, cover=msgspec.structs.replace(end.cover, extract=b"x" * 16)),
        lambda end: msgspec.structs.replace(end, sealed=Sealed(2, end.sealed.ciphertext)),
        lambda end: msgspec.structs.replace(end, sealed=Sealed(1, end.sealed.ciphertext[:-1])),
        lambda end: msgspec.structs.replace(end, sealed=Sealed(1, b"")),
        lambda end: msgspec.structs.replace(end, sealed=Sealed(1, bytes(32) + end.sealed.ciphertext[32:])),
    ],
)
def test_a_changed_cover_or_seal_does_not_open(issuer: Issuer, own: OpenKey, made: Path, change: Change) -> None:
    end = read_end(made)
    made.write_bytes(made.read_bytes()[: -len(end.bytes())] + change(end).bytes())
    with pytest.raises(VerificationError) as raised:
        opened(issuer, made, own)
    assert raised.value.code == "extracts.altered"
