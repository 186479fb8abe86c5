"""Files of evidence as the checks get them: structs with their paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wire.canonical import Wire
from wire.errors import MedveilError, VerificationError

Files = Sequence[tuple[str, Wire]]
"""Evidence structs with the path of each."""


def of(files: Files, kind: type[Any]) -> list[tuple[str, Any]]:
    """The files of one kind."""
    return [(where, struct) for where, struct in files if isinstance(struct, kind)]


def fails(where: str, error: MedveilError) -> VerificationError:
    """The error that the file at `where` does not hold, and why."""
    return VerificationError("verify.file_fails", file=where, detail=error.message)
