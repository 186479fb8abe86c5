"""A line of the log holds what is on the list, whatever a caller of the log gives it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medveil.service import logs
from medveil.service.logs import EVENTS, Vocabulary, about, make_log, take_library_lines
from wire.errors import Refused

POISON = (
    "110101199001011234",
    "张三",
    "Zhang San",
    "eyJhbGciOiJFZERTQSJ9.e30.c2ln",
    "Bearer abc",
    "/v1/patients/110101199001011234?name=Zhang",
    '{"name": "Zhang"}',
    "line\nbreak",
    13800138000,
    {"name": "Zhang"},
    ["Zhang"],
    b"Zhang",
    1.5e300,
)


def line(event: str = "request", /, **fields: Any) -> dict[str, Any]:
    file, vocabulary = io.BytesIO(), Vocabulary()
    vocabulary.add("/v1/jobs", "secure_sum", "people")
    log = make_log("north", vocabulary, lambda: 1_700_000_000_123, level="debug", file=file)
    log.info(event, **fields)
    (written,) = file.getvalue().splitlines()
    return json.loads(written)  # type: ignore[no-any-return]


def test_a_line_says_when_what_and_for_whom() -> None:
    assert line(status=200, route="/v1/jobs", method="GET", duration_ms=1.5) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "info",
        "event": "request",
        "organisation": "north",
        "status": 200,
        "route": "/v1/jobs",
        "method": "GET",
        "duration_ms": 1.5,
    }


@pytest.mark.parametrize("poison", POISON, ids=repr)
@pytest.mark.parametrize(
    "field", [*logs._FIELDS, *logs._NAMED, "event", "level", "time", "organisation", "name", "patient"]
)
def test_no_field_takes_what_is_not_its_own(field: str, poison: object) -> None:
    found = line(poison) if field == "event" else line(**{field: poison})  # type: ignore[arg-type]
    assert json.dumps(poison, default=repr).strip('"') not in json.dumps(found, ensure_ascii=False)
    assert "Zhang" not in json.dumps(found) and "张三" not in json.dumps(found, ensure_ascii=False)
    assert "110101199001011234" not in json.dumps(found) and "13800138000" not in json.dumps(found)
    assert set(found) <= {"time", "level", "event", "organisation", "left_out", "route", "kind", "part"}


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=40), max_size=4))
def test_no_unknown_field_gets_in(fields: dict[str, str]) -> None:
    allowed = set(logs._FIELDS) | set(logs._NAMED)
    unknown = {name: value for name, value in fields.items() if name not in allowed | {"event", "level"}}
    found = line(**unknown)
    assert set(found) <= {"time", "level", "event", "organisation", "left_out"}
    assert found.get("left_out", 0) == len(unknown)


def test_every_line_is_one_line() -> None:
    file = io.BytesIO()
    log = make_log("north", Vocabulary(), lambda: 0, file=file)
    for event in sorted(EVENTS):
        log.warning(event, route="a\nb")
    assert file.getvalue().count(b"\n") == len(EVENTS)


def test_an_error_is_its_class_its_code_and_its_place() -> None:
    try:
        raise Refused("jobs.unknown", job="abc")
    except Refused as error:
        found = line(**about(error))
    assert found["reason"] == "jobs.unknown" and found["fault"] == "Refused"
    assert "abc" not in json.dumps(found)
    assert line(**about(RuntimeError("Zhang")))["fault"] == "RuntimeError"


def test_levels_are_kept() -> None:
    file = io.BytesIO()
    log = make_log("north", Vocabulary(), lambda: 0, level="warning", file=file)
    log.info("request")
    log.error("fault")
    assert [json.loads(each)["level"] for each in file.getvalue().splitlines()] == ["error"]
    with pytest.raises(ValueError, match="loud"):
        make_log("north", Vocabulary(), lambda: 0, level="loud")


def test_libraries_say_where_and_not_what() -> None:
    file = io.BytesIO()
    undo = take_library_lines(make_log("north", Vocabulary(), lambda: 0, file=file))
    try:
        try:
            raise ValueError("Zhang San")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("Exception for %s", "Zhang San")
        logging.getLogger("sqlalchemy.engine").warning("SELECT 'Zhang San'")
        logging.getLogger("uvicorn.access").info("GET /v1/patients/Zhang")
    finally:
        undo()
    lines = [json.loads(each) for each in file.getvalue().splitlines()]
    assert b"Zhang" not in file.getvalue()
    assert [(each["event"], each["logger"], each.get("fault")) for each in lines] == [
        ("library", "uvicorn.error", "ValueError"),
        ("library", "sqlalchemy.engine", None),
    ]


def test_nobody_reads_the_log_any_more() -> None:
    """A line is lost then; whoever logged goes on."""
    there, here = os.pipe()
    os.close(there)
    file = os.fdopen(here, "wb")
    try:
        log = make_log("north", Vocabulary(), lambda: 0, level="debug", file=file)
        for write in (log.debug, log.info, log.warning, log.error):
            write("request")
        with pytest.raises(BrokenPipeError):
            file.flush()
    finally:
        with contextlib.suppress(BrokenPipeError):
            file.close()
