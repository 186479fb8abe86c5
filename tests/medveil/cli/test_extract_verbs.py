"""`medveil extract`: an issuer's file is inspected and opened on the recipient's machine, with either kind of keys."""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from medveil.cli import app
from medveil.extracts.key_folder import ExtractKey, make_key, open_key
from medveil.service.home.home import CONSORTIUM, Home
from privacy.copies.extract_file import ExtractFacts
from privacy.grants.terms import check_grant, plain_terms, sign_grant
from privacy.masking.masks import Mask
from tests.privacy.copies.extracting import Issuer, anchored
from wire.canonical import decode
from wire.checkpoint import trust_of, write_trust
from wire.checkpoint.membership import needed_cosigners
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError
from wire.keyset import Founding
from wire.sealing import HYBRID, SealKey

PASS = "correct horse"
DAY = 86_400_000
ROWS = {"visits": [3, -1, 7], "cost": [1.5, 2.5, None], "health": ["good", "poor", "优秀"]}


def now() -> int:
    return time.time_ns() // 1_000_000


TERMS = plain_terms(
    "grant-1",
    "hospital-1",
    "university",
    "claims-1",
    ("visits", "cost", "health"),
    purposes=("HRESCH",),
    uses=("extract",),
    legal_basis="statutory-duty",
    not_before=now() - DAY,
    expires=now() + DAY,
    pia_ref="pia/12",
    masks=(Mask("health", "pseudonym"),),
    min_group=1,
    delete_by=now() + 2 * DAY,
)


@pytest.fixture(autouse=True)
def passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "passphrase"
    path.write_text(PASS + "\n")
    path.chmod(0o600)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(path))


class Consortium:
    """Two homes and the trust file that both pinned."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cards = [
            Home.create(folder / name, name, (role,), PASS, secrets.token_bytes, now)
            for name, role in (("hospital-1", "hospital"), ("university", "researcher"))
        ]
        members = tuple(card.application.member for card in cards)
        founding = Founding("demo", members, "hospital-1", needed_cosigners(2), "Asia/Shanghai", now())
        self.trust = folder / "consortium.json"
        write_trust(self.trust, trust_of(founding))
        write_trust(folder / "university" / CONSORTIUM, trust_of(founding))
        self.own = members[1].keys.seal.key

    def extract(self, name: str, key: SealKey) -> ExtractFacts:
        """The hospital makes one, at home."""
        with Home.open(self.folder / "hospital-1", PASS, secrets.token_bytes, now) as home:
            signer = home.organisation.keys.newest.envelope
            grant = check_grant(sign_grant(TERMS, signer, home.organisation.keys.salt), signer.key)
            issuer = Issuer(home.organisation.audit, signer, grant, anchored(grant), now())
            return issuer.make(self.folder / name, pa.table(ROWS), issuer.wanted(key, 3))


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    made = Consortium(tmp_path_factory.mktemp("consortium"))
    made.extract("own.extract", made.own)
    key = make_key(made.folder / "keys", PASS, "university", "hybrid", os.urandom)
    assert key.key.suite == HYBRID
    made.extract("hybrid.extract", key.key)
    return made


def run(*arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["extract", *map(str, arguments)])
    if done.exit_code != code or (done.exception and not isinstance(done.exception, SystemExit)):
        raise done.exception or AssertionError(done.output)
    return done


def facts_of(done: Result) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_anybody_sees_for_whom_it_is(consortium: Consortium) -> None:
    said = facts_of(run("inspect", consortium.folder / "own.extract", "--json"))
    assert (said["issuer"], said["recipient"]) == ("hospital-1", "university")
    assert said["sealed_to"] == consortium.own.key_id().hex()
    assert "Anybody could have written this" in run("inspect", consortium.folder / "own.extract").stdout


@pytest.mark.parametrize(("name", "keys"), [("own", "--home"), ("hybrid", "--keys")])
def test_the_recipient_sees_what_was_signed_and_opens_it(
    consortium: Consortium, tmp_path: Path, name: str, keys: str
) -> None:
    path = consortium.folder / f"{name}.extract"
    folder = consortium.folder / {"--home": "university", "--keys": "keys"}[keys]
    trust = () if keys == "--home" else ("--trust", consortium.trust)
    said = facts_of(run("inspect", path, keys, folder, *trust, "--json"))
    assert (said["rows"], said["grant"], said["dataset"]) == (3, "grant-1", "claims-1")
    assert said["columns"] == {"health": "pseudonym", "cost": "as it is", "visits": "as it is"}
    assert "outside differential privacy" in said["privacy"]
    out = tmp_path / "rows.parquet"
    opened = facts_of(run("open", path, keys, folder, *trust, "--out", out, "--json"))
    assert opened == said | {"written": str(out)}
    read = pyarrow.parquet.read_table(out).to_pydict()
    assert list(read) == ["health", "cost", "visits"]
    assert set(zip(read["cost"], read["visits"], strict=True)) == set(zip(ROWS["cost"], ROWS["visits"], strict=True))
    assert not set(read["health"]) & set(ROWS["health"])
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.mark.parametrize("suffix", ["csv", "arrow"])
def test_rows_are_written_as_asked(consortium: Consortium, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"rows.{suffix}"
    path = consortium.folder / "own.extract"
    done = run("open", path, "--home", consortium.folder / "university", "--out", out)
    assert "is not encrypted" in done.stdout and "delete" in done.stdout
    read = pyarrow.csv.read_csv(out) if suffix == "csv" else pa.ipc.open_file(out).read_all()
    assert sorted(read["visits"].to_pylist()) == sorted(ROWS["visits"])
    with pytest.raises(Refused) as raised:
        run("open", path, "--home", consortium.folder / "university", "--out", out)
    assert raised.value.code == "client.file_exists"


def test_without_out_nothing_is_written(consortium: Consortium, tmp_path: Path) -> None:
    before = {path.name for path in consortium.folder.iterdir()}
    done = run("open", consortium.folder / "own.extract", "--home", consortium.folder / "university")
    assert "rows:" in done.stdout and "优秀" not in done.stdout
    assert {path.name for path in consortium.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (("own.extract", "--keys", "keys", "--trust", "consortium.json"), Refused, "extracts.key_missing"),
        (("hybrid.extract", "--home", "university"), Refused, "extracts.key_missing"),
        (("own.extract", "--home", "hospital-1", "--trust", "consortium.json"), Refused, "extracts.of_other"),
        (("consortium.json", "--home", "university"), DecodeError, "extracts.not_extract"),
        (("nothing", "--home", "university"), Unavailable, "privacy.store_failed"),
        (("own.extract", "--keys", "nothing", "--trust", "consortium.json"), Unavailable, "privacy.store_missing"),
        (("own.extract", "--keys", "keys", "--trust", "stranger.json"), VerificationError, "checkpoint.not_member"),
    ],
)
def test_what_cannot_be_opened_says_why(
    consortium: Consortium, arguments: tuple[str, ...], kind: type[MedveilError], code: str
) -> None:
    stranger = consortium.folder / "stranger.json"
    if not stranger.exists():
        card = Home.create(consortium.folder / "insurer-1", "insurer-1", ("insurer",), PASS, secrets.token_bytes, now)
        founding = Founding("other", (card.application.member,), "insurer-1", 1, "Asia/Shanghai", now())
        write_trust(stranger, trust_of(founding))
    places = [one if one.startswith("--") else consortium.folder / one for one in arguments]
    for verb in ("open", "inspect"):
        with pytest.raises(kind) as raised:
            run(verb, *places)
        assert raised.value.code == code


def test_usage(consortium: Consortium, tmp_path: Path) -> None:
    path = consortium.folder / "own.extract"
    run("open", path, code=2)
    run("open", path, "--keys", consortium.folder / "keys", code=2)
    run("open", path, "--home", consortium.folder / "university", "--out", tmp_path / "rows.txt", code=2)
    home, keys = consortium.folder / "university", consortium.folder / "keys"
    run("open", path, "--home", home, "--keys", keys, code=2)


# ---- the key folder


def test_a_key_of_ones_own(tmp_path: Path) -> None:
    said = facts_of(
        run("key", tmp_path / "mine", "--organisation", "university", "--out", tmp_path / "mine.key", "--json")
    )
    made = decode(ExtractKey, (tmp_path / "mine.key").read_bytes())
    organisation, own = open_key(tmp_path / "mine", PASS)
    assert organisation == made.organisation == "university"
    assert own.key == made.key and made.key.suite == HYBRID and said["key"] == made.key.key_id().hex()
    with pytest.raises(VerificationError):
        open_key(tmp_path / "mine", "wrong")
    for again in ("mine", "other"):
        with pytest.raises(Refused) as raised:
            run("key", tmp_path / again, "--organisation", "university", "--out", tmp_path / "mine.key")
        assert raised.value.code == "client.file_exists"
    assert not (tmp_path / "other").exists()


def test_an_altered_key_folder_is_no_key(tmp_path: Path) -> None:
    make_key(tmp_path / "mine", PASS, "university", "x25519", os.urandom)
    path = tmp_path / "mine" / "secret"
    good = path.read_bytes()
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(VerificationError):
            open_key(tmp_path / "mine", PASS)
    path.unlink()
    with pytest.raises(Unavailable):
        open_key(tmp_path / "mine", PASS)


def test_a_key_whose_public_part_is_nowhere_is_not_kept(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Unavailable):
            run("key", tmp_path / "mine", "--organisation", "university", "--out", tmp_path / "no" / "mine.key")
    assert not (tmp_path / "mine").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Refused) as raised:
        run("inspect", tmp_path / "pipe")
    assert raised.value.code == "wire.no_file"
