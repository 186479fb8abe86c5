"""Every refusal that a caller meets, as an RFC 9457 problem document in the caller's language.

This is the one place that maps errors to HTTP. A kind of `wire.errors` has a status; a code that means
something more exact has its own. What the framework refuses (no such path, a body that does not fit) gets
codes of the same catalogues. Anything unexpected becomes ``gateway.fault``: its text, which may quote what
somebody sent, goes nowhere; the `instance` stands in the log beside the place in the source.

Source: RFC 9457 (problem details), RFC 9110 sections 12.5.4 (Accept-Language), 10.2.3 (Retry-After).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import msgspec

from wire import errors, messages
from wire.errors import (
    ConsentDenied,
    DecodeError,
    MedveilError,
    ProtocolAbort,
    Refused,
    Unavailable,
    VerificationError,
)
from wire.identifiers import NAME_PATTERN

MEDIA_TYPE = "application/problem+json"
COMPONENT = "Problem"
"""Name of the document's schema in the OpenAPI components."""

_BY_KIND: tuple[tuple[type[MedveilError], int], ...] = (
    (ConsentDenied, 403),
    (Refused, 409),  # understood, against a rule or the present state, nothing changed
    (DecodeError, 400),
    (VerificationError, 422),
    (ProtocolAbort, 502),  # the others did not do their part
    (Unavailable, 503),
)
"""From the narrowest kind to the widest."""

_BY_CODE = {
    "gateway.fault": 500,
    "query_document.no_budget": 409,  # these hold between fields, which no schema can say
    "query_document.roster_size": 409,
    "query_document.repeated": 409,
    "query_document.low_high": 409,
    "query_document.two_edges": 409,
    "query_document.rising": 409,
    "query_document.edges_reach": 409,
    "http.not_json": 400,
    "http.bad_request": 400,
    "http.not_signed_in": 401,
    "http.not_allowed": 403,
    "http.watchers_only": 403,
    "http.no_such_path": 404,
    "http.wrong_method": 405,
    "http.too_slow": 408,
    "http.body_too_large": 413,
    "http.address_too_long": 414,
    "http.wrong_type": 415,
    "http.does_not_fit": 422,
    "http.too_many_requests": 429,
    "http.headers_too_large": 431,
    "http.cross_site": 403,
    "jobs.unknown": 404,
    "organisations.unknown": 404,
    "datasets.unknown_population": 404,
    "datasets.unknown_dataset": 404,
    "grants.unknown": 404,
    "queries.unknown": 404,
    "queries.no_release": 404,
    "queries.not_served": 404,
    "receipts.unknown": 404,
    "gateway.no_source": 404,
    "gateway.no_model": 404,
    "bills.unknown": 404,
    "privacy.no_erasure": 404,
    "privacy.no_hold": 404,
    "gateway.no_check": 404,
    "eligibility.unknown": 404,
    "scores.unknown": 404,
    "extracts.unknown": 404,
    "evidence.unknown": 404,
    "jobs.too_many": 429,
    "accounts.no_session": 401,
    "accounts.not_signed_in": 401,
    "accounts.code_needed": 401,
    "accounts.wait": 429,
    "accounts.disabled": 403,
    "accounts.no_invitation": 403,
    "accounts.not_confirmed": 403,
    "accounts.unknown": 404,
    "accounts.unknown_session": 404,
    "accounts.seed_locked": 500,  # the operator's to mend
    "rights.not_yours": 403,
    "rights.not_in_scope": 403,
    "rights.enrol_first": 403,
    "tokens.unknown": 401,
    "tokens.revoked": 401,
    "tokens.expired": 401,
    "tokens.owner_gone": 401,
    "tokens.no_such": 404,
    "oidc.no_attempt": 401,
    "oidc.provider_refused": 401,
    "oidc.bad_token": 401,
    "oidc.no_name": 403,
    "oidc.no_role": 403,
    "oidc.not_as_required": 403,
    "oidc.bad_answer": 502,
}
"""Codes whose status says more than their kind's."""

_BY_PART = {"signatures": 401, "query_document": 422}
"""Parts all of whose codes have one status: a signed call that does not hold is one of nobody."""

_BY_STATUS = {
    400: "http.bad_request",
    401: "http.not_signed_in",
    403: "http.not_allowed",
    404: "http.no_such_path",
    405: "http.wrong_method",
    408: "http.too_slow",
    413: "http.body_too_large",
    414: "http.address_too_long",
    415: "http.wrong_type",
    422: "http.does_not_fit",
    429: "http.too_many_requests",
    431: "http.headers_too_large",
}
"""What a bare status of the framework means; any other 4xx is ``http.bad_request``, the rest a fault."""

TITLES: Mapping[int, tuple[str, str]] = {
    400: ("The request cannot be read", "请求无法读取"),
    401: ("Sign in first", "请先登录"),
    403: ("Not allowed", "不允许"),
    404: ("Not found", "未找到"),
    405: ("Method not allowed here", "此处不允许该方法"),
    408: ("The request took too long", "请求耗时过长"),
    409: ("A rule says no", "规则不允许"),
    413: ("The body is too large", "正文过大"),
    414: ("The address is too long", "地址过长"),
    415: ("This media type is not taken", "不接受此媒体类型"),
    422: ("The request does not hold", "请求不成立"),
    429: ("Too many requests", "请求过多"),
    431: ("The headers are too large", "请求头过大"),
    500: ("A fault of the gateway", "网关故障"),
    502: ("The other side did not do its part", "对方未完成其部分"),
    503: ("Not now", "暂时不可用"),
}
"""The title of each status that a problem can have: English, Simplified Chinese."""

RULES: Mapping[str, tuple[str, str]] = {
    "missing": ("it is missing", "缺少该项"),
    "extra_forbidden": ("nothing is called so here", "此处没有该项"),
    "string_pattern_mismatch": ("it is not written as it has to be", "写法不符合要求"),
    "string_too_long": ("it is too long", "过长"),
    "string_too_short": ("it is too short", "过短"),
    "too_long": ("there are too many", "数量过多"),
    "too_short": ("there are too few", "数量过少"),
    "greater_than": ("it is too small", "过小"),
    "greater_than_equal": ("it is too small", "过小"),
    "less_than": ("it is too large", "过大"),
    "less_than_equal": ("it is too large", "过大"),
    "int_type": ("a whole number is meant", "应为整数"),
    "int_parsing": ("a whole number is meant", "应为整数"),
    "int_from_float": ("a whole number is meant", "应为整数"),
    "finite_number": ("a number is meant that is not infinite", "应为有限的数"),
    "bool_type": ("true or false is meant", "应为 true 或 false"),
    "bool_parsing": ("true or false is meant", "应为 true 或 false"),
    "string_type": ("a text is meant", "应为文本"),
    "string_unicode": ("half of a character stands in it", "含有不完整的字符"),
    "name": (
        "a name has lower-case letters a-z first, then digits too and single - _ . between them, at most 64 in all",
        "名称以小写字母 a-z 开头，由小写字母、数字及其间单个的 - _ . 组成，最长 64 个字符",
    ),
    "handle": ("an id has 32 digits from 0 to 9 and a to f", "标识由 32 位 0-9、a-f 组成"),
    "column": ("a column has letters, digits and _, no digit first", "列名由字母、数字和 _ 组成，不以数字开头"),
    "code": ("a code has capital letters and digits, such as HMB", "代码由大写字母和数字组成，如 HMB"),
    "country": ("a country is two capital letters, such as CN", "国家为两个大写字母，如 CN"),
    "filter_form": (
        'a filter is {"column": NAME, COMPARISON: VALUE}, or one of "all", "any", "not" with what it is about',
        '筛选写作 {"column": 列名, 比较: 值}，或为 "all"、"any"、"not" 之一及其内容',
    ),
    "filter_type": ("a filter is an object", "筛选应为对象"),
    "filter_too_deep": ("the filter is nested too deep", "筛选嵌套过深"),
    "filter_too_large": ("the filter has too many parts", "筛选的部分过多"),
    "filter_column": ("a column has letters, digits and _, no digit first", "列名由字母、数字和 _ 组成，不以数字开头"),
    "filter_operator": (
        "a comparison is one of equals, not_equals, less_than, at_most, more_than, at_least, in, between, missing",
        "比较应为 equals、not_equals、less_than、at_most、more_than、at_least、in、between、missing 之一",
    ),
    "filter_mixed": ("numbers and texts do not stand in one list", "同一列表中不能既有数字又有文本"),
    "filter_two_ends": ("between has two ends", "between 需要两个端点"),
    "filter_value": ("a value is a whole number, a text or a decimal as text", "值应为整数、文本或以文本写出的小数"),
    "filter_number_range": ("the number is too large", "数值过大"),
    "filter_text": ("the text is too long, or has characters that no cell has", "文本过长或含有单元格中不会有的字符"),
    "filter_decimal": ("a decimal is written as text, such as 99.50", "小数以文本写出，如 99.50"),
    "literal_error": ("it is none of the words that are allowed", "不是所允许的词"),
    "list_type": ("a list is meant", "应为列表"),
    "tuple_type": ("a list is meant", "应为列表"),
    "dict_type": ("an object is meant", "应为对象"),
    "model_attributes_type": ("an object is meant", "应为对象"),
}
"""The framework's names of the rules that requests break, in people's words; `errors` of a document have the names."""

GENERAL = (400, 401, 403, 408, 413, 414, 415, 422, 429, 431, 500, 503)
"""Answers that any route may give; a route documents what else it answers."""

KINDS: Mapping[str, type[MedveilError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, MedveilError)
}
"""Every kind of error by its name, which a document carries."""

_PLACES = frozenset({"file", "folder", "path", "place"})
"""Facts that may be a place on this machine's disk."""

_MOST_PLACES = 20
_MOST_RANGES = 32
_LONGEST_PLACE = 200
_LONGEST_HEADER = 1000
_PATTERNS = {
    NAME_PATTERN.removesuffix("\\Z") + "$": "name",
    "^[0-9a-f]{32}$": "handle",
    "^[A-Za-z_][A-Za-z0-9_]{0,63}$": "column",
    "^[A-Z][A-Z0-9]{0,31}$": "code",
    "^[A-Z]{2}$": "country",
}
"""Which of `RULES` says in words what a pattern of the API description asks for."""
_QUOTED = re.compile("'([^']*)'")
_WORD = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}")


class Place(msgspec.Struct, frozen=True):
    """Where a request does not fit, and which rule it breaks. Never what was sent."""

    place: str
    rule: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document. instance: the request's id, as in the log. errors: where the request does not fit.

    kind: name of the error's class in `wire.errors`. round, parties: of a ``ProtocolAbort``.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    kind: str
    fix: str
    errors: tuple[Place, ...] = ()
    round: str = ""
    parties: tuple[str, ...] = ()


class Answer(NamedTuple):
    """A problem as it leaves: status, header fields (lower-case names), body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def language_of(header: str) -> str:
    """The catalogue's language that an Accept-Language field prefers: "en" or "zh"; English when in doubt.

    header: an outsider's text; only its first 1,000 characters and 32 ranges are read.
    """
    best, chosen = 0.0, "en"
    if not header:
        return chosen
    for part in header[:_LONGEST_HEADER].split(",")[:_MOST_RANGES]:
        tag, _, parameter = part.partition(";")
        primary = tag.strip().lower().split("-")[0]
        if primary not in messages.LANGUAGES and primary != "*":
            continue
        quality = _quality(parameter)
        if quality > best:
            best, chosen = quality, ("en" if primary == "*" else primary)
    return chosen


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    digits = value.strip()
    if name.strip().lower() != "q" or not digits.replace(".", "", 1).isdecimal() or not digits.isascii():
        return 0.0
    return min(float(digits), 1.0)


def status_of(error: MedveilError) -> int:
    """The HTTP status of an error: its code's own, its part's, or its kind's."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    part = error.code.partition(".")[0]
    if part in _BY_PART:
        return _BY_PART[part]
    return next((status for kind, status in _BY_KIND if isinstance(error, kind)), 500)


def public_facts(error: MedveilError) -> dict[str, errors.Fact]:
    """An error's facts as somebody elsewhere may read them: of a file its name, not where this machine keeps it."""
    return {
        name: PurePath(fact).name if name in _PLACES and isinstance(fact, str) and fact.startswith("/") else fact
        for name, fact in error.facts.items()
    }


def words(error: MedveilError, language: str) -> tuple[str, str]:
    """What was wrong and what to do next, for a caller: two sentences."""
    facts = public_facts(error)
    return messages.sentence(error.code, _in_words(error, facts, language), language), messages.fix(
        error.code, facts, language
    )


def describe(error: MedveilError, instance: str, language: str, places: Sequence[Place] = ()) -> Problem:
    """The document of `error` for one request. instance: the request's id."""
    status = status_of(error)
    title = TITLES[status][messages.LANGUAGES.index(language)]
    stopped = error if isinstance(error, ProtocolAbort) else None
    detail, fix = words(error, language)
    return Problem(
        type=f"urn:medveil:problem:{error.code}",
        title=title,
        status=status,
        detail=detail,
        instance=f"urn:uuid:{instance}",
        code=error.code,
        kind=next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in KINDS),
        fix=fix,
        errors=tuple(places),
        round=stopped.round if stopped else "",
        parties=stopped.parties if stopped else (),
    )


def answer(
    error: MedveilError,
    instance: str,
    language: str,
    places: Sequence[Place] = (),
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """The whole answer. headers: what the framework adds (``Allow``); the document's own fields win."""
    problem = describe(error, instance, language, places)
    body = msgspec.json.encode(problem)
    fields = {name.lower(): value for name, value in (headers or {}).items()}
    fields |= {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(body)),
        "content-language": "zh-Hans" if language == "zh" else language,
        "vary": "Accept-Language",
        "cache-control": "no-store",
    }
    if isinstance(error, Unavailable) and (error.retry_after or problem.status == 429):
        fields["retry-after"] = str(max(1, error.retry_after))
    if problem.status == 401:
        fields.setdefault("www-authenticate", 'Bearer realm="medveil"')
    if problem.status in {408, 413, 431}:
        fields["connection"] = "close"  # what was not read must not pass for the next request
    return Answer(problem.status, tuple(fields.items()), body)


def of_status(status: int) -> MedveilError:
    """What a bare status of the framework means."""
    if status in _BY_STATUS:
        return MedveilError(_BY_STATUS[status])
    return MedveilError("http.bad_request") if 400 <= status < 500 else fault()


def _in_words(error: MedveilError, facts: dict[str, errors.Fact], language: str) -> dict[str, errors.Fact]:
    """The facts of an error; the framework's name of a rule as people say it."""
    words = RULES.get(str(facts.get("rule"))) if error.code == "http.does_not_fit" else None
    if words is None:
        return facts
    chinese, allowed = messages.LANGUAGES.index(language), facts.get("allowed")
    more = "" if allowed is None else ("" if chinese else " ") + ("（{}）" if chinese else "({})").format(allowed)
    return {**facts, "rule": words[chinese] + more}


def fault() -> MedveilError:
    """What a caller learns of an unexpected error: that there was one."""
    return MedveilError("gateway.fault")


def misfit(errors: Sequence[Mapping[str, Any]]) -> tuple[MedveilError, tuple[Place, ...]]:
    """What the framework's validation found, without the values it found it in.

    errors: pydantic's list; of each only the place ("query.limit") and the name of the rule are taken, and of the
    first what the API description allows there.
    """
    if any(error.get("type") == "json_invalid" for error in errors):
        return DecodeError("http.not_json"), ()
    places = tuple(
        Place(".".join(map(_part, error.get("loc", ())))[:_LONGEST_PLACE] or "?", _plain(str(error.get("type", ""))))
        for error in errors[:_MOST_PLACES]
    )
    first = places[0] if places else Place("?", "?")
    ours = errors[0].get("ctx", {}) if errors else {}
    if first.rule == "string_pattern_mismatch":
        pattern = re.sub(r"\^\((.*)\)\?\$", r"^\1$", str(ours.get("pattern")))  # one that may be left empty
        return MedveilError("http.does_not_fit", place=first.place, rule=_PATTERNS.get(pattern, first.rule)), places
    if first.rule == "literal_error":
        allowed = ", ".join(_QUOTED.findall(str(ours.get("expected", ""))))
        return MedveilError("http.does_not_fit", place=first.place, rule=first.rule, allowed=allowed or "?"), places
    return MedveilError("http.does_not_fit", place=first.place, rule=first.rule), places


def _part(part: object) -> str:
    """A part of a place as it may be shown: a number, or a word; a caller's own key may be anything else."""
    text = str(part)
    return text if isinstance(part, int) or _WORD.fullmatch(text) else "?"


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:200])


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's ``responses=`` says for these statuses: each a problem document."""
    return {
        status: {
            "description": TITLES[status][0],
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{COMPONENT}"}}},
        }
        for status in statuses
    }


def or_null(own: dict[str, Any]) -> None:
    """Make a field's JSON schema say: a problem document, or null."""
    title = own.get("title")
    own.clear()
    own |= {"title": title, "anyOf": [{"$ref": f"#/components/schemas/{COMPONENT}"}, {"type": "null"}]}


def schema() -> dict[str, Any]:
    """The one OpenAPI component of a problem document."""
    (_,), components = msgspec.json.schema_components([Problem], ref_template="#/components/schemas/{name}")
    place = dict(components["Place"], title="Place")
    whole = dict(components[COMPONENT])
    whole["properties"] = dict(whole["properties"])
    whole["properties"]["errors"] = {"type": "array", "items": place, "maxItems": _MOST_PLACES}
    whole["properties"]["type"] = {"type": "string", "format": "uri", "examples": ["urn:medveil:problem:jobs.unknown"]}
    whole["properties"]["kind"] = {"type": "string", "enum": sorted(KINDS)}
    whole["properties"]["instance"] = {"type": "string", "format": "uri"}
    whole["properties"]["status"] = {"type": "integer", "minimum": 400, "maximum": 599}
    whole["description"] = "RFC 9457: what was refused, why, and what to do next, in the caller's language."
    return whole
