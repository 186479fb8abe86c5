"""Signing in as somebody of a local consortium: from a folder of one's own alone, and before a secret is sent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from medveil.demo.join_and_load import founders
from medveil.local.founding import STATE, LocalConsortium, found_local, read_state, write_state
from medveil.local.seeding import PEOPLE_FILE, LocalPeople, LocalPerson, code_at
from medveil.local.signing_in import own_consortium, sign_in_local, who_signs_in
from wire.errors import DecodeError, MedveilError

CODES = "otpauth://totp/x:staff?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=x"


@pytest.fixture
def folder(tmp_path: Path, data: Path) -> Path:
    """A founded consortium, nothing of which runs, with somebody at one hospital."""
    place = tmp_path / "local"
    found_local(place, founders(3), "bureau", "local", "Asia/Shanghai", data)
    LocalPeople(place).keep(LocalPerson("hospital-1", "staff", "the secret password", CODES))
    return place


def refusal(folder: Path, organisation: str = "hospital-1", name: str = "staff") -> str:
    with pytest.raises(MedveilError) as caught:
        sign_in_local(folder, organisation, name, say_wait=lambda seconds: None)
    assert "secret password" not in caught.value.text("en") + caught.value.text("zh")
    return caught.value.code


def test_a_folder_of_ones_own_that_up_made(folder: Path, tmp_path: Path) -> None:
    state = own_consortium(folder)
    member, person = who_signs_in(folder, state, "hospital-1", "staff")
    assert member == state.member("hospital-1") and person.password == "the secret password"
    assert refusal(folder) == "local.not_running"
    assert refusal(folder, "hospital-9") == "local.no_organisation"
    assert refusal(folder, "hospital-1", "nobody") == "local.nobody"
    assert refusal(tmp_path / "nothing") == "local.none"
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == "local.none"
    assert refusal(tmp_path) == refusal(folder / STATE) == "local.not_ours"
    (folder / PEOPLE_FILE).unlink()
    assert refusal(folder) == "local.not_seeded"


@pytest.mark.parametrize("part", ["", STATE, PEOPLE_FILE])
@pytest.mark.parametrize("mode", [0o740, 0o702])
def test_a_folder_that_others_may_read_or_write(folder: Path, part: str, mode: int) -> None:
    (folder / part).chmod(mode)
    assert refusal(folder) == "local.not_own"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_somebody_elses_folder(folder: Path) -> None:
    os.chown(folder / PEOPLE_FILE, 12345, 12345)
    assert refusal(folder) == "local.not_own"


@pytest.mark.parametrize(
    "address", ["https://gateway.example:8443", "http://localhost:8443", "https://localhost.example"]
)
def test_a_password_goes_to_this_machine_alone(folder: Path, address: str) -> None:
    state = read_state(folder)
    assert state is not None
    first, *others = state.members
    moved: LocalConsortium = msgspec.structs.replace(
        state, members=(msgspec.structs.replace(first, people=address), *others)
    )
    write_state(folder, moved)
    assert refusal(folder) == refusal(folder, first.organisation) == "local.bad_state"


def test_codes_are_those_of_rfc_6238() -> None:
    """Appendix B, the last six digits."""
    assert [code_at(CODES, when) for when in (59, 1111111109)] == ["287082", "081804"]
    for wrong in ("", "otpauth://hotp/x:y?secret=GEZDGNBV&counter=1", "https://gateway.example", "otpauth://totp/x"):
        with pytest.raises(DecodeError):
            code_at(wrong, 59)


def test_people_json_that_is_none(folder: Path) -> None:
    for content in ("{", "[]", json.dumps([{"organisation": "hospital-1", "name": "staff", "password": 1}])):
        (folder / PEOPLE_FILE).write_text(content)
        assert refusal(folder) == ("local.nobody" if content == "[]" else "local.bad_state")
