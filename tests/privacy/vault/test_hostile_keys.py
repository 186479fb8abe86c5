"""A key provider that is wrong: what it would make unreadable is not given up, and nothing is lost."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from privacy.keys import FileKeyProvider, KeyProvider
from privacy.vault import Vault
from wire.errors import Unavailable


class Wrong(KeyProvider):
    """Wraps what it is given many of, or one of, under another key than it opens with later."""

    def __init__(self, right: FileKeyProvider, other: FileKeyProvider, many: bool) -> None:
        self.right, self.other, self.many = right, other, many
        self.from_epoch = 2

    def epochs(self) -> tuple[int, ...]:
        return self.right.epochs()

    def new_epoch(self) -> int:
        self.other.new_epoch()
        return self.right.new_epoch()

    def wrap(self, epoch: int, key: bytes, context: bytes) -> bytes:
        keeper = self.other if epoch >= self.from_epoch and not self.many else self.right
        return keeper.wrap(epoch, key, context)

    def wrap_many(self, epoch: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        keeper = self.other if epoch >= self.from_epoch and self.many else self.right
        return keeper.wrap_many(epoch, items)

    def unwrap(self, epoch: int, wrapped: bytes, context: bytes) -> bytes:
        return self.right.unwrap(epoch, wrapped, context)

    def destroy(self, epoch: int) -> None:
        self.right.destroy(epoch)


@pytest.mark.parametrize("many", [False, True])
def test_a_rotation_under_a_wrong_key_destroys_no_epoch(tmp_path: Path, provider: FileKeyProvider, many: bool) -> None:
    other = FileKeyProvider.create(tmp_path / "other", "another passphrase", cost=provider._file.cost)
    wrong = Wrong(provider, other, many)
    with Vault.create(tmp_path / "vault", wrong, "hospital-1") as vault:
        vault.ingest("d", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"])
        vault.put_document("grant", "g", b"terms")
        vault.put_stream("scan", "s", io.BytesIO(b"scan"))
        for _ in range(2):
            with pytest.raises(Unavailable) as raised:
                vault.rotate()
            assert raised.value.code == "privacy.provider_wrong" and provider.epochs()[0] == 1
    with Vault.open(tmp_path / "vault", provider, "hospital-1") as again:
        assert again.read("d")["n"].to_pylist() == [1, 2] and again.document("grant", "g") == b"terms"
        epoch = again.rotate()
        assert provider.epochs() == (epoch,)
        assert again.read("d")["n"].to_pylist() == [1, 2] and again.open_stream("scan", "s").read() == b"scan"
