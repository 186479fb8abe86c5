"""Files that a gateway hands out, however long: to a new file of the caller's, whole or not at all."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import BinaryIO

from medveil.client.exchange import Broken, Exchange, Next, Work
from medveil.client.line import Call, Line, listen, out_of_reach
from medveil.client.told import error_of
from wire.durable import put_as_new
from wire.errors import DecodeError, Refused, Unavailable

LARGEST = 8 * 1024**3
"""Most bytes of a file that is fetched."""


def download(line: Line, call: Call, out: Path, largest: int = LARGEST) -> Exchange[Path]:
    """What `call` answers, in a file of mode 600 that was not there before.

    Raises what the gateway tells, Refused (a file is there), DecodeError (too large), Unavailable.
    """
    beside = out.with_name(f".{out.name}.{line.rand(8).hex()}")
    try:
        if out.exists():
            raise Refused("client.file_exists", file=str(out))
        with open(beside, "xb", opener=_private) as file:  # first: what cannot be written is not asked for, nor noted
            answer = yield from listen(line, call)
            if answer.status != 200:
                raise error_of(answer)
            taken = 0
            while (chunk := (yield Next())) is not None:
                taken += len(chunk)
                if taken > largest:
                    raise DecodeError("client.too_large", limit=largest)
                yield Work(partial(_append, file, chunk))
            yield Work(partial(_settle, file))
        put_as_new(beside, out)
    except FileExistsError:  # somebody put one there meanwhile
        raise Refused("client.file_exists", file=str(out)) from None
    except Broken as broken:
        raise out_of_reach(line, call, broken) from None
    except OSError:
        raise Unavailable("client.unwritable", file=str(out)) from None
    finally:
        beside.unlink(missing_ok=True)
    return out


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _append(file: BinaryIO, chunk: bytes) -> None:
    file.write(chunk)


def _settle(file: BinaryIO) -> None:
    """All of it is on disk before it has its name."""
    file.flush()
    os.fsync(file.fileno())
