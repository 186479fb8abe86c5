"""Texts of others on screens, pages and in JSON: nothing in them that nobody sees."""

from __future__ import annotations

import json

from medveil.shown_text import json_line, json_text, plain

HOSTILE = "a\x1b[2J\x7f\x9b31m\u202e5.21\u200b\u2028\u00ad\U000e0041\ud7ff"


def test_what_nobody_sees_is_replaced() -> None:
    assert plain("内科 good, 12.5 😀") == "内科 good, 12.5 😀"
    assert plain("内\u3000科") == "内 科"
    assert plain("12\u202e5.\n\x9b1") == "12\ufffd5.\ufffd\ufffd1"
    assert plain(HOSTILE).isprintable()


def test_json_says_the_same_and_moves_no_cursor() -> None:
    body = {"value": HOSTILE, HOSTILE: ["内科", "😀", '"\\', 1.5, None]}
    for text in (json_text(body).decode(), json_line(body)):
        assert json.loads(text) == body
        assert text.replace("\n", "").isprintable() and "内科" in text and "😀" in text
    assert json_text({"a": 1}) == b'{\n  "a": 1\n}\n'
