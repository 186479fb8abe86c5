"""A backup that somebody changed, put in a wrong place, or restored without what was erased since."""

from __future__ import annotations

import io
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from medveil.service.home import restore as restoring
from medveil.service.home.backup import FILES, MANIFEST_FILE, make_backup, read_backup
from medveil.service.home.config import FILE, Keys, VaultPlace, read_config, write_config
from medveil.service.home.home import Home
from medveil.service.home.restore import restore
from privacy.keys import Argon2Cost
from wire.errors import DecodeError, Refused, Unavailable, VerificationError
from wire.evidence import to_json

PASS = "correct horse battery staple"


def clock() -> int:
    return 1_760_000_000_000


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.keys.file_keys.STRONG", Argon2Cost(1, 8, 1))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    Home.create(folder, "hospital-1", ("hospital",), PASS, secrets.token_bytes, clock)
    with Home.open(folder, PASS, secrets.token_bytes, clock) as opened:
        opened.organisation.vault.ingest("visits", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"])
    yield folder


def backed_up(home: Path, out: Path) -> Path:
    with Home.open(home, PASS, secrets.token_bytes, clock) as opened:
        make_backup(opened, out, clock)
    return out


def back(backup: Path, folder: Path, erased: Path | None = None) -> None:
    restore(backup, folder, PASS, secrets.token_bytes, clock, erased=erased)


def persons(folder: Path) -> list[str]:
    with Home.open(folder, PASS, secrets.token_bytes, clock) as opened:
        vault = opened.organisation.vault
        return [name for name in ("wang-wu", "li-si") if vault.keys_of(name)]


def erase(home: Path) -> None:
    with Home.open(home, PASS, secrets.token_bytes, clock) as opened:
        vault = opened.organisation.vault
        vault.destroy([key.key for key in vault.keys_of("wang-wu")], b"r" * 32)


def test_whoever_was_erased_since_comes_back_only_where_the_register_is_lost(home: Path, tmp_path: Path) -> None:
    out = backed_up(home, tmp_path / "out")
    erase(home)
    back(out, tmp_path / "with", home / "erased")
    assert persons(tmp_path / "with") == ["li-si"]
    back(out, tmp_path / "without")
    assert persons(tmp_path / "without") == ["wang-wu", "li-si"]


@pytest.mark.parametrize("name", ["nowhere", "empty", "foreign", "cut"])
def test_a_register_that_is_none_ends_the_restore(home: Path, tmp_path: Path, name: str) -> None:
    """Nobody is brought back for a typing mistake."""
    out = backed_up(home, tmp_path / "out")
    erase(home)
    (tmp_path / "empty").touch()
    (tmp_path / "foreign").write_bytes((home / "erased").read_bytes()[:16] + b"f" * 72)
    (tmp_path / "cut").write_bytes(b"medveil")
    with pytest.raises((Unavailable, DecodeError)) as raised:
        back(out, tmp_path / "again", tmp_path / name)
    assert name in raised.value.text() and not (tmp_path / "again").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_backup_and_home_are_not_put_into_one_another(home: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused) as raised:
        backed_up(home, home / "backups" / "today")
    assert raised.value.code == "backup.inside" and not (home / "backups").exists()
    (tmp_path / "link").symlink_to(home)
    with pytest.raises(Refused):
        backed_up(home, tmp_path / "link" / "today")
    out = backed_up(home, tmp_path / "out")
    with pytest.raises(Refused) as inside:
        back(out, out / "home" / "again")
    assert inside.value.code == "backup.inside"
    back(out, tmp_path / "again")


def test_the_library_of_a_token_does_not_come_with_the_backup(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would run before anything shows that the backup was changed: what shows it is behind the token."""
    out = backed_up(home, tmp_path / "out")
    library = out / FILES / "evidence" / "library.so"
    library.parent.mkdir()
    library.write_bytes(b"\x7fELF")
    config = read_config(out / FILES / FILE)
    tried: list[str] = []
    monkeypatch.setattr(restoring, "open_keys", lambda *_: tried.append("opened"))
    for module in (str(library), f"{tmp_path}/x/../out/{FILES}/evidence/library.so"):
        keys = Keys(provider="pkcs11", module=module, token="t")
        (out / FILES / FILE).unlink()
        write_config(out / FILES / FILE, msgspec.structs.replace(config, keys=keys))
        _listed_anew(out)
        with pytest.raises(Refused) as raised:
            back(out, tmp_path / "again")
        assert raised.value.code == "restore.module_inside" and not tried


def _listed_anew(out: Path) -> None:
    """As somebody does it who changes a backup: the list fits, and only its signature does not."""
    from hashlib import sha256

    manifest = read_backup(out)
    listed = []
    for path in sorted((out / FILES).rglob("*")):
        if path.is_file():
            name, data = path.relative_to(out / FILES).as_posix(), path.read_bytes()
            kind = manifest.body.files[0]
            found = msgspec.structs.replace(kind, path=name, length=len(data), sha256=sha256(data).hexdigest())
            listed.append(found)
    listed.sort(key=lambda one: one.path)
    body = msgspec.structs.replace(manifest.body, files=tuple(listed))
    (out / MANIFEST_FILE).write_bytes(to_json(msgspec.structs.replace(manifest, body=body)))


def test_a_vault_of_another_day_under_a_fitting_list_is_not_signed(home: Path, tmp_path: Path) -> None:
    """An older vault put into a newer backup brings somebody back: the signature is over all files together."""
    first = backed_up(home, tmp_path / "first")
    erase(home)
    out = backed_up(home, tmp_path / "out")
    shutil.copy(first / FILES / "vault" / "vault.sqlite", out / FILES / "vault" / "vault.sqlite")
    (out / FILES / "erased").unlink()
    _listed_anew(out)
    with pytest.raises(VerificationError) as raised:
        back(out, tmp_path / "again")
    assert raised.value.code == "backup.not_signed" and not (tmp_path / "again").exists()


def test_a_restore_that_fails_takes_nothing_from_a_store_that_is_in_use(tmp_path: Path) -> None:
    """Whoever tries a restore beside the original names the same store of large documents: it is the original's."""
    home, store = tmp_path / "home", tmp_path / "store"
    place = VaultPlace(blobs=f"file://{store}")
    Home.create(home, "hospital-1", ("hospital",), PASS, secrets.token_bytes, clock, vault=place)
    with Home.open(home, PASS, secrets.token_bytes, clock) as opened:
        opened.organisation.vault.put_stream("scan", "s", io.BytesIO(bytes(200_000)))
    out = backed_up(home, tmp_path / "out")
    manifest = read_backup(out)
    forged = msgspec.structs.replace(manifest, signature="00" * 64)
    (out / MANIFEST_FILE).write_bytes(to_json(forged))
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    assert len(before) == 2, "a blob, and whose it is"
    with pytest.raises(VerificationError) as raised:
        back(out, tmp_path / "again")
    assert raised.value.code == "backup.not_signed"
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == before
    with Home.open(home, PASS, secrets.token_bytes, clock) as opened:
        assert opened.organisation.vault.open_stream("scan", "s").read() == bytes(200_000)
        assert opened.organisation.vault.tidy_blobs() == 0
