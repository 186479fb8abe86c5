"""Receipts: signed, and nothing of them can change unseen."""

from __future__ import annotations

import random

import pytest

from privacy.erasure import steps as erasure
from privacy.erasure.receipt import (
    BEYOND,
    ErasureReceipt,
    beyond_text,
    verify_receipt,
)
from tests.privacy.erasure.conftest import MARKERS, NOON, WANG, Home
from wire import evidence
from wire.canonical import encode
from wire.errors import DecodeError, Refused, VerificationError
from wire.signing import Signer

OURS, THEIRS = Signer(b"o" * 32), Signer(b"t" * 32)


@pytest.fixture
def receipt(home: Home) -> ErasureReceipt:
    return erasure.receipt(home.vault, home.apply(home.plan().name).name, OURS, home.clock())


def test_a_receipt_states_what_was_done(home: Home, receipt: ErasureReceipt) -> None:
    verify_receipt(receipt, OURS.key)
    assert evidence.read(encode(receipt)) == receipt
    assert {(key.dataset, key.rows) for key in receipt.keys} == {("visits", 3), ("visits", 2)}
    assert len({mark for key in receipt.keys for mark in key.marks}) == 4
    assert {(key.dataset, key.rows, key.why) for key in receipt.restricted} == {
        ("visits", 1, ("retention",)),
        ("bills", 2, ("retention",)),
    }
    assert receipt.requested < receipt.destroyed < receipt.recut < receipt.issued < receipt.rotate_by
    assert (receipt.issue, receipt.rotated, receipt.reference, receipt.ground) == (1, 0, "requests/7", "request")
    assert [(told.recipient, told.told, told.acknowledged) for told in receipt.recipients] == [("university", 0, 0)]
    assert [trace.dataset for trace in receipt.traces] == ["bills", "visits"]
    assert receipt.person == home.vault.person_id(WANG) and receipt.beyond == BEYOND
    data = encode(receipt)
    assert not any(marker.encode() in data for marker in MARKERS)


def test_a_later_receipt_says_more(home: Home, receipt: ErasureReceipt) -> None:
    name, began = receipt.erasure.hex(), home.clock()
    home.vault.rotate()
    erasure.note_rotation(home.vault, began, home.clock())
    again = erasure.receipt(home.vault, name, OURS, home.clock())
    assert (again.issue, again.keys, again.destroyed) == (2, receipt.keys, receipt.destroyed)
    assert again.rotated > began and receipt.rotated == 0
    verify_receipt(again, OURS.key)


def test_no_receipt_before_it_is_done(home: Home) -> None:
    planned = home.plan()
    with pytest.raises(Refused) as raised:
        erasure.receipt(home.vault, planned.name, OURS, home.clock())
    assert raised.value.code == "privacy.erasure_under_way"


def test_of_what_was_only_restricted_nothing_is_said_to_be_destroyed(home: Home) -> None:
    from privacy.legal_holds import LegalHold, place_hold
    from wire.dates import NO_END

    place_hold(home.vault, LegalHold("case-7", b"", "", "court/7", 0, NO_END))
    made = erasure.receipt(home.vault, home.apply(home.plan().name).name, OURS, home.clock())
    assert (made.keys, made.destroyed, made.rotate_by) == ((), 0, 0)
    assert len(made.restricted) == 4 and erasure.rotation_due(home.vault) == 0


def changed_is_found(receipt: ErasureReceipt, count: int) -> None:
    data, draw = encode(receipt), random.Random(7)
    for _ in range(count):
        position, flip = draw.randrange(len(data)), draw.randrange(1, 256)
        try:
            found = evidence.read(data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])
            assert isinstance(found, ErasureReceipt)
        except (DecodeError, AssertionError):
            continue
        with pytest.raises(VerificationError):
            verify_receipt(found, OURS.key)


def test_every_byte_of_a_receipt_counts(receipt: ErasureReceipt) -> None:
    changed_is_found(receipt, 500)
    with pytest.raises(VerificationError):
        verify_receipt(receipt, THEIRS.key)


@pytest.mark.long
def test_every_byte_of_a_receipt_counts_long(receipt: ErasureReceipt) -> None:
    changed_is_found(receipt, 10_000)


def test_the_receipt_says_who_was_told_and_has_deleted(home: Home, receipt: ErasureReceipt) -> None:
    name = receipt.erasure.hex()
    erasure.note_given(home.vault, 4, told=NOON, deleted=NOON)  # of another extract
    erasure.note_given(home.vault, 5, told=NOON + 5)
    erasure.note_given(home.vault, 5, told=NOON + 9, deleted=NOON + 50)
    erasure.note_given(home.vault, 5, deleted=NOON + 99)
    (told,) = erasure.receipt(home.vault, name, OURS, home.clock()).recipients
    assert (told.told, told.acknowledged) == (NOON + 5, NOON + 50)
    erasure.drop_given(home.vault, 5)
    assert len(erasure.receipt(home.vault, name, OURS, home.clock()).recipients) == 1, "it was released"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_it_does_not_reach_is_said_in_words(language: str) -> None:
    texts = [beyond_text(what, language) for what in BEYOND]
    assert len(set(texts)) == len(BEYOND) == 6 and all(texts)
