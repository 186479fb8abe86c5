"""Large evidence as several files: an export or a snapshot that one file cannot hold.

    ledger.evidence         the export, without its blocks: says how many pieces follow
    ledger.0001.evidence    the first blocks
    ledger.0002.evidence    ...

A piece is evidence too, of a kind of its own, and worth nothing alone: what binds the pieces is what binds the whole,
the roots that its cosigned head states. In memory an export or a snapshot is always whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from ledger.export import LedgerExport
from ledger.machine import Block
from ledger.snapshots import LedgerSnapshot, StateEntry
from wire import evidence
from wire.canonical import Wire, encode
from wire.checkpoint import founding_hash
from wire.errors import Unavailable, VerificationError
from wire.evidence import Header, register
from wire.identifiers import Hash

PIECE_BYTES = 32 * 1024 * 1024
"""Bytes of content after which a piece is full. The largest block is shorter."""

Number = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
T = TypeVar("T")


class LedgerBlocks(Wire, frozen=True, tag="ledger.blocks"):
    """Blocks of an export, in a row. genesis: hash of the chain's; number: of the piece, from 1 on."""

    header: Header
    genesis: Hash
    number: Number
    blocks: tuple[Block, ...]


class LedgerState(Wire, frozen=True, tag="ledger.state"):
    """Leaves and entries of a snapshot, in a row. genesis, number: as of `LedgerBlocks`."""

    header: Header
    genesis: Hash
    number: Number
    leaves: tuple[Hash, ...]
    entries: tuple[StateEntry, ...]


BLOCKS = register("ledger-blocks", 1, LedgerBlocks)
STATE = register("ledger-state", 1, LedgerState)

Whole = LedgerExport | LedgerSnapshot
Piece = LedgerBlocks | LedgerState


def split(whole: Whole) -> tuple[Whole, tuple[Piece, ...]]:
    """What the main file holds, and the pieces that follow: none where one file can hold all of it."""
    genesis = founding_hash(whole.founding)
    pieces: list[Piece] = []
    if isinstance(whole, LedgerExport):
        runs = list(_runs(whole.blocks, [len(encode(block)) + 9 for block in whole.blocks]))
        if len(runs) > 1:
            pieces += (LedgerBlocks(BLOCKS, genesis, number, run) for number, run in enumerate(runs, 1))
            return msgspec.structs.replace(whole, blocks=(), pieces=len(pieces)), tuple(pieces)
        return whole, ()
    leaves = list(_runs(whole.leaves, [34] * len(whole.leaves)))
    entries = list(_runs(whole.entries, [len(entry.key) + len(entry.value) + 40 for entry in whole.entries]))
    if len(leaves) + len(entries) > 2 or 34 * len(whole.leaves) > PIECE_BYTES // 2:
        pieces += (LedgerState(STATE, genesis, number, run, ()) for number, run in enumerate(leaves, 1))
        pieces += (LedgerState(STATE, genesis, number, (), run) for number, run in enumerate(entries, len(leaves) + 1))
        return msgspec.structs.replace(whole, leaves=(), entries=(), pieces=len(pieces)), tuple(pieces)
    return whole, ()


def _runs(items: Sequence[T], lengths: Sequence[int]) -> Iterator[tuple[T, ...]]:
    """`items` in order, in runs of at most PIECE_BYTES; at least one run."""
    start = room = 0
    for place, length in enumerate(lengths):
        if place > start and room + length > PIECE_BYTES:
            yield tuple(items[start:place])
            start, room = place, 0
        room += length
    yield tuple(items[start:])


def join(main: Whole, pieces: Iterable[Wire]) -> Whole:
    """The whole that `main` and its pieces, in order, are. VerificationError for one that is missing or foreign."""
    genesis = founding_hash(main.founding)
    kind = LedgerBlocks if isinstance(main, LedgerExport) else LedgerState
    found: list[Piece] = []
    for number, piece in enumerate(pieces, 1):
        if not isinstance(piece, kind) or (piece.genesis, piece.number) != (genesis, number) or number > main.pieces:
            raise VerificationError("ledger.wrong_piece", number=number)
        found.append(piece)
    if len(found) != main.pieces:
        raise VerificationError("ledger.missing_piece", number=len(found) + 1, count=main.pieces)
    if not found:
        return main
    if isinstance(main, LedgerExport):
        blocks = (block for piece in found if isinstance(piece, LedgerBlocks) for block in piece.blocks)
        return msgspec.structs.replace(main, blocks=(*main.blocks, *blocks), pieces=0)
    states = [piece for piece in found if isinstance(piece, LedgerState)]
    leaves = (leaf for piece in states for leaf in piece.leaves)
    entries = (entry for piece in states for entry in piece.entries)
    return msgspec.structs.replace(main, leaves=(*main.leaves, *leaves), entries=(*main.entries, *entries), pieces=0)


# --- files -----------------------------------------------------------------------------------------


def piece_path(path: Path, number: int) -> Path:
    """Where piece `number` of the evidence at `path` stands: beside it."""
    return path.with_name(f"{path.stem}.{number:04}{path.suffix}")


def write_whole(path: Path, whole: Whole) -> tuple[Path, ...]:
    """Write an export or a snapshot, in as many files as it takes, the main one last; returns their paths.

    Each file is durable and whole or not there. Raises Unavailable if the disk refuses.
    """
    main, pieces = split(whole)
    written = [piece_path(path, piece.number) for piece in pieces]
    for place, piece in zip(written, pieces, strict=True):
        _write(place, encode(piece))
    _write(path, encode(main))
    return (path, *written)


def _write(path: Path, data: bytes) -> None:
    try:
        evidence.write_file(path, data)
    except OSError:
        raise Unavailable("ledger.unwritable", path=str(path)) from None


def read_whole(path: Path) -> Wire:
    """The evidence at `path`, an export or a snapshot joined from its pieces. Not verified.

    The kinds must be registered. Raises Unavailable (unreadable), DecodeError, Refused (no regular file),
    VerificationError for a piece that is missing.
    """
    struct: Wire = _read(path)
    if not isinstance(struct, (LedgerExport, LedgerSnapshot)) or not struct.pieces:
        return struct
    return join(struct, _pieces(path, struct.pieces))


def _pieces(path: Path, count: int) -> Iterator[Wire]:
    for number in range(1, count + 1):
        beside = piece_path(path, number)
        if not beside.exists():
            raise VerificationError("ledger.missing_piece", number=number, count=count)
        yield _read(beside)


def _read(path: Path) -> Wire:
    try:
        data = evidence.read_file(path)
    except OSError:
        raise Unavailable("wire.unreadable", file=str(path)) from None
    struct: Wire = evidence.read(data)
    return struct
