"""Exports and snapshots in several files: whole again or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant
from ledger.engines import EmbeddedEngine
from ledger.export import EXPORT, LedgerExport, verify_export
from ledger.pieces import join, piece_path, read_whole, split, write_whole
from ledger.snapshots import take_snapshot, verify_snapshot
from wire.canonical import decode, encode
from wire.errors import MedveilError, Unavailable, VerificationError

replace = msgspec.structs.replace


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.pieces.PIECE_BYTES", 2000)


@pytest.fixture
def whole(world: Any) -> tuple[LedgerExport, Any]:
    for number in range(12):
        world.act("insurer", AnchorGrant(f"g{number}", bytes(32), world.start, world.start + 10**9, 0))
    machine, note = world.machine, world.note()
    export = LedgerExport(EXPORT, world.founding, tuple(world.blocks), (), note.format())
    return export, take_snapshot(world.founding, machine.header, machine.state, machine.log, (), note)


def test_what_one_file_can_hold_is_one_file(whole: Any, tmp_path: Path) -> None:
    for one in whole:
        assert split(one) == (one, ())
        assert write_whole(tmp_path / "x.evidence", one) == (tmp_path / "x.evidence",)
        assert read_whole(tmp_path / "x.evidence") == one


def test_split_written_read_and_joined(whole: Any, small: None, world: Any, tmp_path: Path) -> None:
    for name, one in zip(("export", "snapshot"), whole, strict=True):
        main, pieces = split(one)
        assert len(pieces) > 2 and main.pieces == len(pieces) and len(encode(main)) < len(encode(one))
        assert max(len(encode(piece)) for piece in pieces) < 4000
        assert join(main, pieces) == one
        path = tmp_path / f"{name}.evidence"
        written = write_whole(path, one)
        assert written[0] == path and written[1] == tmp_path / f"{name}.0001.evidence"
        assert len(written) == len(pieces) + 1 and not list(tmp_path.glob("*.part"))
        assert read_whole(path) == one
    verify_export(read_whole(tmp_path / "export.evidence"), world.trust)  # type: ignore[arg-type]
    verify_snapshot(read_whole(tmp_path / "snapshot.evidence"), world.trust)  # type: ignore[arg-type]


def test_pieces_that_are_not_the_whole(whole: Any, small: None, make_world: Any) -> None:
    stranger = make_world()
    other = replace(stranger.founding, time=stranger.founding.time + 1)
    for one in whole:
        main, pieces = split(one)
        _, foreign = split(replace(one, founding=other))
        for wrong in (
            (),
            pieces[:-1],
            pieces[1:],
            pieces[::-1],
            (*pieces, pieces[-1]),
            (foreign[0], *pieces[1:]),
            (one, *pieces[1:]),
        ):
            with pytest.raises(VerificationError):
                join(main, wrong)
        with pytest.raises(VerificationError):
            join(one, pieces)


def test_a_main_file_alone_is_not_verified(whole: Any, small: None, world: Any) -> None:
    export, snapshot = (split(one)[0] for one in whole)
    with pytest.raises(VerificationError) as caught:
        verify_export(export, world.trust)
    assert caught.value.code == "ledger.missing_piece"
    with pytest.raises(VerificationError):
        verify_snapshot(snapshot, world.trust)


def test_every_change_of_a_piece_is_found(whole: Any, small: None, world: Any) -> None:
    checks = (verify_export, verify_snapshot)
    for one, check in zip(whole, checks, strict=True):
        main, pieces = split(one)
        for number, piece in enumerate(pieces):
            data = encode(piece)
            for at in range(number % 7, len(data), 53):
                with pytest.raises(MedveilError):
                    changed = decode(type(piece), data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :])
                    check(join(main, (*pieces[:number], changed, *pieces[number + 1 :])), world.trust)


def test_files_that_are_gone_or_cannot_be_written(whole: Any, small: None, tmp_path: Path) -> None:
    path = tmp_path / "ledger.evidence"
    write_whole(path, whole[0])
    piece_path(path, 2).unlink()
    with pytest.raises(VerificationError) as caught:
        read_whole(path)
    assert caught.value.facts["number"] == 2
    with pytest.raises(Unavailable):
        write_whole(tmp_path / "none" / "x.evidence", whole[0])
    with pytest.raises(Unavailable):
        read_whole(tmp_path / "nowhere.evidence")


def test_an_engine_starts_from_a_snapshot_in_pieces(whole: Any, small: None, world: Any, tmp_path: Path) -> None:
    import asyncio

    async def test() -> None:
        path, signer = tmp_path / "ledger.sqlite", world.signer("bureau", "cosign")
        for snapshot in (whole[1], None, whole[1]):
            engine = await EmbeddedEngine.open(path, world.founding, signer, lambda: world.time, snapshot=snapshot)
            assert engine.machine.state.root == world.machine.state.root
            await engine.close()

    asyncio.run(test())
