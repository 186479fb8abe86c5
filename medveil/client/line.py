"""How one client calls one gateway: where it is, who calls, what is tried again, and what comes back as what.

Tried again, with growing pauses or when the gateway says: calls that change nothing, calls that the gateway knows
again by their Idempotency-Key, and any call that cannot have reached it. All others are asked once: whoever gets
``client.unknown_outcome`` looks before asking again.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from medveil.client.credentials import Clock, Program, Rand, Session
from medveil.client.exchange import Answer, Broken, Exchange, Listen, Pause, Request, Send
from medveil.client.pinned import Pinned
from medveil.client.told import error_of
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError
from wire.identifiers import Name

S = TypeVar("S")

TRIES = 4
LONGEST_PAUSE = 30
"""Seconds: who is to wait longer is told so."""
DEADLINE = 300.0
"""Seconds that one answer may take, from the call to its last byte, if nobody says otherwise."""
_SECONDS = 60.0
_WRITING_SECONDS = 180.0  # an envelope is final when k members have cosigned it

_JSON = "application/json"
OCTETS = "application/octet-stream"


class Call(NamedTuple):
    """One call. parts: of the path below ``/v1``, each quoted; query: None is left out; key: Idempotency-Key.

    language: of sentences, if not the client's; seconds: patience for an answer.
    """

    method: str
    parts: tuple[str, ...]
    query: Mapping[str, Any] = {}
    body: Any = None
    key: str = ""
    accept: str = _JSON

    @property
    def repeatable(self) -> bool:
        """Whether a second time does no harm."""
        return self.method == "GET" or bool(self.key)


def get(*parts: str, **query: Any) -> Call:
    """A call that reads."""
    return Call("GET", parts, query)


def post(*parts: str, body: Any = None, key: str = "") -> Call:
    """A call that changes something."""
    return Call("POST", parts, body={} if body is None else body, key=key)


class Line:
    """One gateway, one caller. known: whether it has said whose it is, where that matters.

    Raises Refused for an address that would carry secrets in the clear, or is none.
    """

    def __init__(
        self,
        gateway: str,
        who: Session | Program | None,
        pinned: Pinned,
        *,
        language: str,
        clock: Clock,
        rand: Rand,
        organisation: str = "",
        deadline: float = DEADLINE,
    ) -> None:
        if not 0 < deadline < math.inf:
            raise ValueError("a deadline is a number of seconds above 0")
        self.deadline = deadline
        self.origin = origin_of(gateway)
        self.organisation = organisation
        self.who = who
        self.pinned = pinned
        self.clock = clock
        self.rand = rand
        self.closed = False
        self.known = not organisation
        self._language = "zh-Hans, en;q=0.5" if language == "zh" else "en"

    def request(self, call: Call, more: Mapping[str, str] = {}, *, named: bool = True) -> Request:
        """The request of a call, signed if a program makes it. named: say who calls; more: further header fields."""
        if self.closed:
            raise ValueError("this client is closed")
        path = "/".join(quote(part, safe="-._~") for part in ("v1", *call.parts))
        given = {name: _text(value) for name, value in call.query.items() if value is not None}
        query = "?" + urlencode(given, quote_via=quote, safe="-._~") if given else ""
        content = None if call.body is None else msgspec.json.encode(call.body)
        fields = [("accept", f"{call.accept}, application/problem+json"), ("accept-language", self._language)]
        if content is not None:
            fields.append(("content-type", _JSON))
        if call.key:
            fields.append(("idempotency-key", call.key))
        fields += [(name.replace("_", "-"), value) for name, value in more.items()]
        seconds = _SECONDS if call.method == "GET" else _WRITING_SECONDS
        plain = Request(call.method, f"{self.origin}/{path}{query}", tuple(fields), content, seconds)
        if self.who is None or not named:
            return plain
        return plain._replace(headers=(*plain.headers, *self.who.fields(plain, self.clock, self.rand)))


def origin_of(gateway: str) -> str:
    """``https://host[:port]`` of a gateway's address. Raises Refused."""
    parts = urlsplit(gateway)
    try:
        host, port = parts.hostname or "", parts.port
        strange = not host or bool(parts.path.strip("/") or parts.query or parts.fragment) or parts.username is not None
    except ValueError:
        host, port, strange = "", None, True
    if strange or parts.scheme not in ("https", "http") or not gateway.isascii():
        raise Refused("client.bad_address")  # without the address: a password may stand in it
    if parts.scheme == "http" and not _is_loopback(host):
        raise Refused("client.plain_http", host=host)
    shown = f"[{host}]" if ":" in host else host
    usual = {"https": 443, "http": 80}[parts.scheme]
    return f"{parts.scheme}://{shown}" + ("" if port in (None, usual) else f":{port}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def ask(line: Line, call: Call) -> Exchange[Answer]:
    """The answer of a call, of status 2xx. Raises what the gateway tells, or Unavailable.

    Before the first one, where the caller said whose gateway this is: VerificationError if another answers.
    """
    if not line.known:
        yield from _check_whose(line)
    return (yield from _ask(line, call))


class _Whose(msgspec.Struct, frozen=True):
    organisation: Name


def whose(line: Line) -> Exchange[str]:
    """The organisation whose gateway this says it is, asked without saying who asks."""
    return shaped((yield from _ask(line, get("organisation"), named=False)).body, _Whose).organisation


def _check_whose(line: Line) -> Exchange[None]:
    found = yield from whose(line)
    if found != line.organisation:
        raise VerificationError(
            "client.other_gateway", address=line.origin, organisation=line.organisation, found=found
        )
    line.known = True


def _ask(line: Line, call: Call, *, named: bool = True) -> Exchange[Answer]:
    tried = 0
    while True:
        tried += 1
        try:
            answer: Answer = yield Send(line.request(call, named=named))
        except Broken as broken:
            again, pause = tried < TRIES and (call.repeatable or not broken.sent), 0.2 * 2**tried
            if not again or not broken.trusted or broken.late:
                raise out_of_reach(line, call, broken) from None
        else:
            if 200 <= answer.status < 300:
                return answer
            error = error_of(answer)
            if not (tried < TRIES and call.repeatable and _passing(error)):
                raise error
            pause = float(getattr(error, "retry_after", 0))
        yield Pause(pause)


def _passing(error: MedveilError) -> bool:
    """Whether the gateway says when to come again, and that is soon."""
    return isinstance(error, Unavailable) and 0 < error.retry_after <= LONGEST_PAUSE


def out_of_reach(line: Line, call: Call, broken: Broken) -> MedveilError:
    """What a broken connection means."""
    if not broken.trusted:
        return Unavailable("client.not_trusted", address=line.origin)
    if broken.sent and not call.repeatable:
        return Unavailable("client.unknown_outcome", address=line.origin)
    if broken.late:
        return Unavailable("client.too_slow", address=line.origin, seconds=math.ceil(line.deadline))
    return Unavailable("client.unreachable", address=line.origin)


def fetch(line: Line, call: Call, shape: type[S]) -> Exchange[S]:
    """What a call answers, as `shape`. Fields that this version does not know are passed over."""
    answer = yield from ask(line, call)
    return shaped(answer.body, shape)


def shaped(body: bytes, shape: type[S]) -> S:
    """JSON as `shape`. Raises DecodeError."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise DecodeError("client.unexpected_answer") from None


def same(found: S, **asked: Any) -> S:
    """An answer that says again what was asked. Raises VerificationError naming the field that it says otherwise."""
    for field, value in asked.items():
        if getattr(found, field) != value:
            raise VerificationError("client.other_answer", field=field)
    return found


def tell_nothing(line: Line, call: Call) -> Exchange[None]:
    """A call that answers nothing."""
    yield from ask(line, call)


def octets(line: Line, call: Call) -> Exchange[bytes]:
    """The bytes that a call answers."""
    answer = yield from ask(line, call._replace(accept=OCTETS))
    return answer.body


def listen(line: Line, call: Call, **more: str) -> Exchange[Answer]:
    """The answer of a call that streams, kept open if it is 200. Raises Broken; other answers are the caller's."""
    if not line.known:
        yield from _check_whose(line)
    answer: Answer = yield Listen(line.request(call, more))
    return answer
