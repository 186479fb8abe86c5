"""medveil.gateway.generator_file: pieces are made once a home; a file that is not right is written over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medveil.gateway import generator_file
from medveil.gateway.generator_file import FEW, FILE, generators_ready, load_generators
from mpc import generator_table
from mpc.generator_table import PIECE, PIECE_BYTES, known, make_piece


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """No generator in memory."""
    monkeypatch.setattr(generator_table, "_values", {})


@pytest.fixture(scope="module")
def piece() -> bytes:
    """The first piece, made."""
    return make_piece(0)


@pytest.fixture
def made(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which pieces were made, at the cost of the first one."""
    numbers: list[int] = []

    def counted(number: int) -> bytes:
        numbers.append(number)
        generator_table.take_piece(number, piece)
        return piece

    monkeypatch.setattr(generator_table, "make_piece", counted)
    return numbers


def test_a_piece_is_made_once_a_home(tmp_path: Path, made: list[int], piece: bytes) -> None:
    asyncio.run(generators_ready(tmp_path, FEW + 1))
    assert made == [0] and known() == PIECE
    assert (tmp_path / FILE).read_bytes() == piece
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    asyncio.run(generators_ready(tmp_path, PIECE))
    generator_table._values.clear()  # another process of the same home
    asyncio.run(generators_ready(tmp_path, PIECE))
    assert made == [0] and known() == PIECE


def test_few_are_not_worth_a_file(tmp_path: Path, made: list[int]) -> None:
    asyncio.run(generators_ready(tmp_path, FEW))
    assert not made and not (tmp_path / FILE).exists()


@pytest.mark.parametrize("wrong", [b"", b"\0" * 10, b"\0" * PIECE_BYTES, "cut", "flipped"])
def test_a_file_that_is_not_right_is_written_over(
    tmp_path: Path, made: list[int], piece: bytes, wrong: bytes | str
) -> None:
    if isinstance(wrong, str):
        wrong = piece[:-5] if wrong == "cut" else piece[:96] + bytes([piece[96] ^ 1]) + piece[97:]
    (tmp_path / FILE).write_bytes(wrong)
    load_generators(tmp_path, PIECE)
    assert made == [0] and known() == PIECE
    assert (tmp_path / FILE).read_bytes() == piece


def test_where_nothing_can_be_written_they_are_in_memory(tmp_path: Path, made: list[int]) -> None:
    (tmp_path / FILE).mkdir()
    load_generators(tmp_path, PIECE)
    assert made == [0] and known() == PIECE
    generator_table._values.clear()
    (tmp_path / FILE).rmdir()
    (tmp_path / "elsewhere").write_bytes(b"theirs")
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    load_generators(tmp_path, PIECE)
    assert known() == PIECE and (tmp_path / "elsewhere").read_bytes() == b"theirs"


def test_who_sums_many_cells_has_the_file(
    play: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, made: list[int]
) -> None:
    """All of them are one process here: the first to need the generators keeps them, for all."""
    monkeypatch.setattr(generator_file, "FEW", 1)

    async def story(world: Any) -> list[bool]:
        await world.grant_study()
        await world.released()
        return [(site.folder / FILE).exists() for site in world.sites]

    assert play(story).count(True) == 1 and made == [0]
