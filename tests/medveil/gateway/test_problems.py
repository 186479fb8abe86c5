"""Problem documents: which status, which language, which fields; nothing that an outsider sent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medveil.gateway import problems
from medveil.service.api import fields
from privacy import filters
from wire import errors, messages
from wire.errors import (
    BudgetExhausted,
    ConsentDenied,
    DecodeError,
    MedveilError,
    ProtocolAbort,
    QuorumNotMet,
    Refused,
    Unavailable,
    VerificationError,
)

REQUEST = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("zh-CN", "zh"),
        ("ZH-hans-cn", "zh"),
        ("en, zh", "en"),
        ("zh, en", "zh"),
        ("en;q=0.5, zh;q=0.6", "zh"),
        ("zh;q=0", "en"),
        ("zh;q=0.000", "en"),
        ("fr, de;q=0.9, zh;q=0.1", "zh"),
        ("fr", "en"),
        ("*", "en"),
        ("zh;q=0.3, *;q=0.2", "zh"),
        ("zh ; q=0.9 , en;q=0.8", "zh"),
        ("zh;q=nan, en;q=0.1", "en"),
        ("zh;q=٣", "en"),
        ("zh;q=1e9, en;q=0.1", "en"),
        ("zhu, en;q=0.1", "en"),
        ("fr," * 400 + "zh", "en"),  # too long to be read to its end
    ],
)
def test_the_language_is_the_one_preferred(header: str, language: str) -> None:
    assert problems.language_of(header) == language


@given(st.text(max_size=300))
def test_any_header_names_a_language(header: str) -> None:
    assert problems.language_of(header) in messages.LANGUAGES


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DecodeError("wire.cannot_open"), 400),
        (ConsentDenied("privacy.any"), 403),
        (Refused("privacy.any"), 409),
        (BudgetExhausted("mpc.any"), 409),
        (QuorumNotMet("wire.any"), 409),
        (VerificationError("wire.cannot_open"), 422),
        (ProtocolAbort("mpc.any", round="shares", parties=["a"]), 502),
        (Unavailable("channel.any"), 503),
        (Refused("jobs.unknown", job="x"), 404),
        (MedveilError("http.not_signed_in"), 401),
        (MedveilError("gateway.fault"), 500),
        (MedveilError("no.such_code"), 500),
    ],
)
def test_each_kind_has_its_status(error: MedveilError, status: int) -> None:
    assert problems.status_of(error) == status
    answer = problems.answer(error, REQUEST, "en")
    assert answer.status == status == json.loads(answer.body)["status"]


def test_every_kind_of_error_is_mapped() -> None:
    """A kind that is added to wire.errors must be given a status here, not fall to 500."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedveilError)]
    assert len(kinds) > 8
    for kind in kinds:
        error = kind("a.b", round="r") if kind is ProtocolAbort else kind("a.b")
        assert (problems.status_of(error) == 500) == (kind is MedveilError), kind


def test_every_status_and_code_is_in_the_catalogues() -> None:
    codes = set(problems._BY_CODE) | set(problems._BY_STATUS.values())
    for language in messages.LANGUAGES:
        assert codes <= set(messages.catalogue(language))
    statuses = set(problems._BY_CODE.values()) | {status for _, status in problems._BY_KIND}
    assert statuses <= set(problems.TITLES)
    assert {problems.status_of(problems.of_status(status)) for status in problems._BY_STATUS} == set(
        problems._BY_STATUS
    )


@pytest.mark.parametrize(
    ("status", "code"), [(418, "http.bad_request"), (404, "http.no_such_path"), (507, "gateway.fault")]
)
def test_a_bare_status_has_a_code(status: int, code: str) -> None:
    assert problems.of_status(status).code == code


def test_a_document_is_whole_in_both_languages() -> None:
    error = Refused("jobs.unknown", job="abc")
    english, chinese = (json.loads(problems.answer(error, REQUEST, language).body) for language in messages.LANGUAGES)
    assert english == {
        "type": "urn:medveil:problem:jobs.unknown",
        "title": "Not found",
        "status": 404,
        "detail": "There is no job abc of yours.",
        "instance": f"urn:uuid:{REQUEST}",
        "code": "jobs.unknown",
        "kind": "Refused",
        "fix": "List your jobs at /v1/jobs.",
    }
    assert chinese["detail"] == "您没有编号为 abc 的任务。" and chinese["title"] == "未找到"
    assert chinese["type"] == english["type"]


def test_a_document_names_the_kind_and_whom_a_stop_concerns() -> None:
    for name, kind in problems.KINDS.items():
        error = kind("mpc.any", round="shares", parties=["a", "b"]) if kind is ProtocolAbort else kind("mpc.any")
        document = json.loads(problems.answer(error, REQUEST, "en").body)
        assert document["kind"] == name
        assert (document.get("round"), document.get("parties")) == (
            ("shares", ["a", "b"]) if kind is ProtocolAbort else (None, None)
        )


def test_when_to_come_back() -> None:
    def retry(error: MedveilError) -> str | None:
        return dict(problems.answer(error, REQUEST, "en").headers).get("retry-after")

    assert retry(Unavailable("channel.any", retry_after=9)) == "9"
    assert retry(Unavailable("channel.any")) is None
    assert retry(Unavailable("http.too_many_requests")) == "1"  # a 429 always says when


def test_the_documents_own_fields_win() -> None:
    answer = problems.answer(
        MedveilError("http.wrong_method"), REQUEST, "en", headers={"Allow": "GET", "Content-Type": "text/html"}
    )
    fields = dict(answer.headers)
    assert fields["allow"] == "GET" and fields["content-type"] == problems.MEDIA_TYPE
    assert fields["content-length"] == str(len(answer.body))


def test_validation_names_places_and_rules_only() -> None:
    found = [
        {
            "type": "int_parsing",
            "loc": ("body", "age"),
            "msg": "bad 'secret'",
            "input": "secret",
            "ctx": {"e": "secret"},
        },
        {"type": "missing", "loc": ("query", "a\x1b[2J" + "b" * 500), "msg": "", "input": {"secret": 1}},
        {"type": "extra_forbidden", "loc": ("body", "secret 110101199001011234"), "msg": "", "input": 1},
        {"type": "extra_forbidden", "loc": ("body", "purpos"), "msg": "", "input": 1},
    ] + [{"type": "missing", "loc": ("body", number), "msg": ""} for number in range(100)]
    error, places = problems.misfit(found)
    answer = problems.answer(error, REQUEST, "en", places)
    document = json.loads(answer.body)
    assert "secret" not in answer.body.decode() and "\\u001b" not in answer.body.decode()
    assert document["errors"][0] == {"place": "body.age", "rule": "int_parsing"}
    assert len(document["errors"]) == 20
    assert [one["place"] for one in document["errors"][1:4]] == ["query.?", "body.?", "body.purpos"]
    assert document["detail"] == "body.age does not fit the API description: a whole number is meant."
    chinese = json.loads(problems.answer(error, REQUEST, "zh", places).body)["detail"]
    assert "应为整数" in chinese and "int_parsing" not in chinese
    named = {"type": "string_pattern_mismatch", "loc": ("body", "name"), "ctx": {"pattern": fields.NAME}, "msg": ""}
    error, places = problems.misfit([named])
    assert places[0].rule == "string_pattern_mismatch"
    assert "single - _ . between" in problems.words(error, "en")[0] and "小写" in problems.words(error, "zh")[0]
    other, _ = problems.misfit([named | {"ctx": {"pattern": fields.DECIMAL}}])
    assert problems.words(other, "en")[0].endswith(": it is not written as it has to be.")
    literal = {
        "type": "literal_error",
        "loc": ("body", "roles", 0),
        "ctx": {"expected": "'clerk' or 'admin'"},
    }
    error, _ = problems.misfit([literal])
    assert problems.words(error, "en")[0].endswith("the words that are allowed (clerk, admin).")
    assert "（clerk, admin）" in problems.words(error, "zh")[0]
    other, _ = problems.misfit([{"type": "a_rule_of_tomorrow", "loc": ("body", "age"), "msg": ""}])
    assert "a_rule_of_tomorrow" in json.loads(problems.answer(other, REQUEST, "en").body)["detail"]


def test_every_rule_of_a_filter_and_of_an_id_has_words() -> None:
    source = Path(filters.__file__).read_text()
    for rule in set(re.findall(r'NoFilter\(.*"([a-z_]+)"\)', source)):
        assert rule in problems.RULES, rule
    patterns = {"^[0-9a-f]{32}$": "32 digits", "^([0-9a-f]{32})?$": "32 digits", fields.COLUMN: "letters"}
    patterns |= {fields.CODE: "capital letters", "^([A-Z][A-Z0-9]{0,31})?$": "capital letters", "^[A-Z]{2}$": "country"}
    for pattern, words in patterns.items():
        found = {"type": "string_pattern_mismatch", "loc": ("body", "ask"), "ctx": {"pattern": pattern}, "msg": ""}
        error, _ = problems.misfit([found])
        assert words in problems.words(error, "en")[0], pattern


def test_broken_json_is_not_a_misfit() -> None:
    error, places = problems.misfit([{"type": "json_invalid", "loc": ("body", 3), "msg": "secret"}])
    assert (error.code, places) == ("http.not_json", ())
    assert problems.misfit([])[0].code == "http.does_not_fit"


@given(st.sampled_from(sorted(problems._BY_CODE)), st.sampled_from(messages.LANGUAGES))
def test_what_is_answered_fits_what_is_documented(code: str, language: str) -> None:
    schema = problems.schema()
    document = json.loads(problems.answer(MedveilError(code), REQUEST, language).body)
    assert set(schema["required"]) <= set(document) <= set(schema["properties"])
    assert problems.documented(404)[404]["content"][problems.MEDIA_TYPE]["schema"]["$ref"].endswith("/Problem")


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_no_document_says_where_files_lie(language: str) -> None:
    """The name of a file helps whoever runs the machine; where it lies helps somebody else."""
    for error in (
        Unavailable("privacy.store_failed", path="/home/somebody/secret-place/vault.sqlite", reason="OSError"),
        Unavailable("home.unwritable", folder="/home/somebody/secret-place"),
        DecodeError("database.damaged", place="/home/somebody/secret-place/service.sqlite"),
    ):
        said = problems.describe(error, REQUEST, language)
        assert "somebody" not in said.detail + said.fix
        (fact,) = (fact for name, fact in error.facts.items() if name != "reason")
        assert str(fact).rsplit("/", 1)[1] in said.detail + said.fix
    kept = problems.describe(Unavailable("database.unreachable", place="db.example:5432/medveil"), REQUEST, language)
    assert "db.example:5432/medveil" in kept.detail
