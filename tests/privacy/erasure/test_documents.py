"""Large documents of a person go, or stay out of sight, with the person's rows; and the check looks for them too."""

from __future__ import annotations

import io

import pytest

from privacy.erasure import steps as erasure
from privacy.erasure.check import check_erasure, files_below
from privacy.erasure.receipt import ErasureReceipt
from tests.privacy.erasure.conftest import LI, MARKERS, SOON, WANG, Home
from wire.errors import Refused
from wire.signing import Signer

SCAN = MARKERS[1].encode() + bytes(200_000)


def receipt_of(home: Home, name: str) -> ErasureReceipt:
    return erasure.receipt(home.vault, name, Signer(b"o" * 32), home.clock())


def test_a_persons_documents_are_erased_or_restricted_with_the_rest(home: Home) -> None:
    home.vault.put_stream("scan", "free", io.BytesIO(SCAN), person=WANG)
    home.vault.put_stream("scan", "kept", io.BytesIO(SCAN), person=WANG, retain_until=SOON)
    home.vault.put_stream("scan", "of-li", io.BytesIO(b"li"), person=LI)
    (key,) = [one.key for one in home.vault.keys_of(WANG) if (one.dataset, one.retain_until) == ("document.scan", None)]
    done = home.apply(home.plan().name)
    assert key in {one.key for one in done.plan.erase} and sorted({len(mark) for mark in done.marks}) == [16, 32]
    assert home.vault.streams("scan") == ("kept", "of-li")
    with pytest.raises(Refused) as raised:
        home.vault.open_stream("scan", "kept")
    assert raised.value.code == "privacy.document_restricted"
    with home.vault.open_stream("scan", "of-li") as opened:
        assert opened.read() == b"li"
    assert len(list((home.folder / "vault").rglob("*.blob"))) == 2
    receipt = receipt_of(home, done.name)
    report = check_erasure(receipt, home.vault, files_below(home.folder), markers=MARKERS)
    assert report.leftovers == ()


def test_the_check_sees_a_document_that_came_back(home: Home) -> None:
    home.vault.put_stream("scan", "free", io.BytesIO(SCAN), person=WANG)
    done = home.apply(home.plan().name)
    receipt = receipt_of(home, done.name)
    home.vault.put_stream("scan", "free", io.BytesIO(SCAN), person=WANG)
    report = check_erasure(receipt, home.vault, files_below(home.folder))
    assert [(one.code, one.facts["dataset"]) for one in report.leftovers] == [
        ("privacy.leftover_rows", "document.scan")
    ]
