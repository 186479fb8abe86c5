"""Notices to delete an extract, the answers, and the book that both are noted in."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from privacy.erasure import recalls
from privacy.erasure.deletion import (
    DELETION_HEADER,
    REACH,
    UNSIGNED,
    DeleteNotice,
    Deletion,
    reach_text,
    sign_deletion,
    verify_deletion,
    verify_notice,
)
from privacy.erasure.recalls import Recall
from privacy.vault import Vault
from wire import evidence
from wire.canonical import encode
from wire.errors import DecodeError, Refused, VerificationError
from wire.signing import Signer

OURS, OLDER, THEIRS = Signer(b"o" * 32), Signer(b"p" * 32), Signer(b"t" * 32)
NOON = 1_781_496_000_000
EXTRACT = b"e" * 16
MADE = Recall(EXTRACT, "university", "visits", "grant-1", 5, NOON - 1000, "erasure", NOON, NOON + 9)


@pytest.fixture
def notice(vault: Vault) -> DeleteNotice:
    return recalls.notice(recalls.recall(vault, MADE), "hospital-1", OURS)


@pytest.fixture
def answer(notice: DeleteNotice) -> Deletion:
    said = Deletion(
        DELETION_HEADER,
        notice.id(),
        "hospital-1",
        "university",
        notice.extract,
        "deleted",
        notice.why,
        NOON + 50,
        REACH,
        UNSIGNED,
    )
    return sign_deletion(said, THEIRS)


def changed_is_found(data: bytes, kind: Any, check: Any, count: int) -> None:
    draw = random.Random(7)
    for _ in range(count):
        position, flip = draw.randrange(len(data)), draw.randrange(1, 256)
        try:
            found = evidence.read(data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])
        except DecodeError:
            continue
        if isinstance(found, kind):
            with pytest.raises(VerificationError):
                check(found)


def mutations(notice: DeleteNotice, answer: Deletion, count: int) -> None:
    changed_is_found(encode(notice), DeleteNotice, lambda one: verify_notice(one, [OURS.key], "university"), count)
    changed_is_found(encode(answer), Deletion, lambda one: verify_deletion(one, [THEIRS.key], "hospital-1"), count)


def test_every_byte_of_a_notice_and_an_answer_counts(notice: DeleteNotice, answer: Deletion) -> None:
    mutations(notice, answer, 500)


@pytest.mark.long
def test_every_byte_of_a_notice_and_an_answer_counts_long(notice: DeleteNotice, answer: Deletion) -> None:
    mutations(notice, answer, 10_000)


def test_a_notice_is_its_issuers_to_one_recipient(notice: DeleteNotice) -> None:
    assert evidence.read(encode(notice)) == notice
    verify_notice(notice, [OLDER.key, OURS.key], "university")
    for keys, recipient in (((OLDER.key,), "university"), ((), "university"), ((OURS.key,), "insurer")):
        with pytest.raises(VerificationError) as raised:
            verify_notice(notice, keys, recipient)
        assert raised.value.code == "privacy.erasure_signature"
    assert recalls.notice(MADE, "hospital-1", OLDER).id() == notice.id(), "signed anew it is the same notice"


def test_an_answer_is_its_recipients_to_one_issuer(answer: Deletion) -> None:
    assert evidence.read(encode(answer)) == answer
    verify_deletion(answer, [OLDER.key, THEIRS.key], "hospital-1")
    for keys, organisation in (((OURS.key,), "hospital-1"), ((THEIRS.key,), "hospital-2")):
        with pytest.raises(VerificationError):
            verify_deletion(answer, keys, organisation)


def test_the_book_notes_each_thing_once(vault: Vault, notice: DeleteNotice, answer: Deletion) -> None:
    assert recalls.recall(vault, msgspec.structs.replace(MADE, why="due", since=NOON + 7)) == MADE
    recalls.note_told(vault, EXTRACT, NOON + 5)
    assert recalls.note_told(vault, EXTRACT, NOON + 8).told == NOON + 5
    for stranger in ({"recipient": "insurer"}, {"extract": bytes(16)}):
        with pytest.raises(Refused) as raised:
            recalls.note_heard(vault, msgspec.structs.replace(answer, **stranger))
        assert raised.value.code == "privacy.no_notice"
    missing = msgspec.structs.replace(answer, found="not-held", at=NOON + 20)
    assert recalls.note_heard(vault, missing).deleted == 0
    assert recalls.note_heard(vault, answer).deleted == NOON + 50
    for later in (missing, msgspec.structs.replace(answer, at=NOON + 99)):
        assert recalls.note_heard(vault, later).heard == answer
    (one,) = recalls.recalls(vault)
    assert (one.told, one.asked, one.heard) == (NOON + 5, NOON + 8, answer)
    with pytest.raises(Refused):
        recalls.note_told(vault, bytes(16), NOON)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_a_deletion_does_not_reach_is_said_in_words(language: str) -> None:
    texts = [reach_text(what, language) for what in REACH]
    assert len(set(texts)) == len(REACH) == 2 and all(texts)
