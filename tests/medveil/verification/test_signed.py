"""Receipts of erasures, notices and acknowledgements: `medveil verify` says whose word they are, by the trust file."""

from __future__ import annotations

import json
import random
import secrets
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from medveil.cli import app
from medveil.verification import verify
from privacy.erasure.deletion import (
    DELETION_HEADER,
    NOTICE_HEADER,
    UNSIGNED,
    DeleteNotice,
    Deletion,
    Found,
    sign_deletion,
    sign_notice,
)
from privacy.erasure.receipt import BEYOND, RECEIPT_HEADER, DestroyedKey, ErasureReceipt, sign_receipt
from wire.canonical import Wire, encode
from wire.checkpoint import write_trust
from wire.errors import MedveilError, Refused, VerificationError
from wire.signing import Signer

replace = msgspec.structs.replace


def receipt(organisation: str = "bureau") -> ErasureReceipt:
    return ErasureReceipt(
        header=RECEIPT_HEADER,
        erasure=bytes(16),
        organisation=organisation,
        issue=1,
        ground="request",
        reference="",
        person=b"p" * 16,
        day=46_000,
        requested=1,
        destroyed=2,
        keys=(DestroyedKey(b"k" * 16, "visits", 2, b"m" * 16),),
        restricted=(),
        recut=3,
        rotate_by=9,
        rotated=0,
        traces=(),
        recipients=(),
        beyond=BEYOND,
        issued=4,
        signature=UNSIGNED,
    )


def notice(organisation: str = "bureau", recipient: str = "researcher") -> DeleteNotice:
    return DeleteNotice(
        NOTICE_HEADER,
        "erasure",
        organisation,
        recipient,
        "visits",
        "study-hospital-1",
        bytes(16),
        5,
        3,
        9,
        UNSIGNED,
    )


def acknowledge(of: DeleteNotice, at: int, signer: Signer, found: Found = "deleted") -> Deletion:
    said = Deletion(
        DELETION_HEADER, of.id(), of.organisation, of.recipient, of.extract, found, of.why, at, ("copies",), UNSIGNED
    )
    return sign_deletion(said, signer)


def written(folder: Path, struct: Wire) -> Path:
    path = folder / f"{secrets.token_hex(4)}.evidence"
    path.write_bytes(encode(struct))
    return path


def test_who_signed_is_told(case: Any, tmp_path: Path) -> None:
    from_others = notice("hospital-1", "bureau")
    for struct, said in (
        (sign_receipt(receipt(), case.signer), "signed by bureau; that it is gone"),
        (sign_notice(notice(), case.signer), "signed by bureau, to researcher"),
        (acknowledge(from_others, 7, case.signer), "signed by bureau, to hospital-1: its word that it deleted"),
        (
            acknowledge(from_others, 7, case.signer, "not-held"),
            "signed by bureau, to hospital-1: its word that the extract never came",
        ),
    ):
        path = written(tmp_path, struct)
        report = verify(path, trust=case.trust)
        assert report.verdict == "verified"
        (check,) = report.checks
        assert check.what.startswith(said)
        with pytest.raises(Refused) as unpinned:
            verify(path)
        assert unpinned.value.code == "verify.needs_trust"


def test_what_nobody_signed_is_refused(case: Any, tmp_path: Path) -> None:
    stranger = Signer(b"x" * 32)
    for struct in (
        receipt(),
        sign_receipt(receipt(), stranger),
        sign_receipt(receipt("hospital-1"), case.signer),  # the bureau's word as another's
        sign_receipt(receipt("nobody"), case.signer),
        sign_notice(notice(), stranger),
        sign_notice(notice("hospital-1"), case.signer),
        acknowledge(notice("hospital-1", "bureau"), 7, stranger),
        acknowledge(notice("bureau", "researcher"), 7, case.signer),
    ):
        with pytest.raises(VerificationError) as raised:
            verify(written(tmp_path, struct), trust=case.trust)
        assert raised.value.code == "privacy.erasure_signature"


def test_any_changed_byte_is_found(case: Any, tmp_path: Path) -> None:
    data, draw = encode(sign_receipt(receipt(), case.signer)), random.Random(5)
    path = tmp_path / "changed.evidence"
    for _ in range(100):
        at = draw.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
        with pytest.raises(MedveilError):
            verify(path, trust=case.trust)


def test_at_the_command_line(case: Any, tmp_path: Path) -> None:
    write_trust(tmp_path / "consortium.json", case.trust)
    path = written(tmp_path, sign_receipt(receipt(), case.signer))
    done = CliRunner().invoke(app, ["verify", str(path), "--trust", str(tmp_path / "consortium.json")])
    assert done.exit_code == 0 and "signed by bureau" in done.output


def test_a_consent_is_shown_as_what_it_is(case: Any, tmp_path: Path) -> None:
    kept = next(struct for struct in case.structs.values() if type(struct).__name__ == "ConsentReceipt")
    shown = json.loads(CliRunner().invoke(app, ["show", str(written(tmp_path, kept))]).stdout)
    assert shown["consent"]["resourceType"] == "Consent" and shown["consent"]["status"] == "active"
    broken = replace(kept, consent=b"\xff{")
    shown = json.loads(CliRunner().invoke(app, ["show", str(written(tmp_path, broken))]).stdout)
    assert shown["consent"] == "ff7b"
