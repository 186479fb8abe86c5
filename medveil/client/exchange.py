"""What a client does, without doing it: exchanges, and the two ways to carry them out.

An exchange is a generator. It yields what it wants done (send this request, wait, work this out in a thread), gets
the answer, and returns a result: the rules of retrying, following and verifying are written once, in exchanges. A
`Carrier` of `medveil.client.carriers` carries one out, blocking or in an event loop.

A `verb` of a part of the API is an exchange by definition and a method by use: `Part[Blocking]` gives a method that
returns the result, `Part[Awaiting]` one that returns an awaitable of it. A `stream` gives an iterator, or an
asynchronous one, of what the exchange tells on its way.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from medveil.client.line import Line

P = ParamSpec("P")
T = TypeVar("T")

LARGEST = 64 * 1024 * 1024
"""Most bytes of an answer that is kept in memory."""


class Request(NamedTuple):
    """One request as it is sent. url: absolute; it is what a program signs, to the letter."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    content: bytes | None
    seconds: float

    def __repr__(self) -> str:
        return f"Request({self.method})"


class Answer(NamedTuple):
    """One answer. headers: names in lower case. body: empty as long as the answer is a stream."""

    status: int
    headers: dict[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Answer({self.status})"


class Send(NamedTuple):
    """Send a request; gives its `Answer`."""

    request: Request


class Listen(NamedTuple):
    """Send a request and keep its answer open if it is 200; gives the `Answer`, whole if it is another."""

    request: Request


class Next(NamedTuple):
    """The next bytes of the open answer; gives None at its end, and closes it then."""


class Pause(NamedTuple):
    """Wait for so many seconds."""

    seconds: float


class Work(NamedTuple):
    """Call this, outside of the event loop if there is one; gives what it returns. Raises what it raises."""

    task: Callable[[], Any]


class Tell(NamedTuple):
    """Hand this to whoever iterates."""

    item: Any


Effect = Send | Listen | Next | Pause | Work | Tell
Exchange = Generator[Effect, Any, T]


class Broken(Exception):
    """A request or a stream that did not come to its end. sent: whether the gateway may have seen the request.

    trusted: False where the other side's certificate does not hold; late: True where the time for the whole answer
    was over: neither is a matter of trying again.
    """

    def __init__(self, *, sent: bool, trusted: bool = True, late: bool = False) -> None:
        super().__init__("the connection broke" if sent else "no connection")
        self.sent = sent
        self.trusted = trusted
        self.late = late


class Blocking:
    """Calls return results."""


class Awaiting:
    """Calls return awaitables of results."""


M = TypeVar("M", Blocking, Awaiting)


class Carrier:
    """Carries exchanges out. `Blocking` carriers return, `Awaiting` ones return awaitables."""

    def run(self, exchange: Exchange[Any]) -> Any:
        """Its result, or an awaitable of it."""
        raise NotImplementedError

    def iterate(self, exchange: Exchange[Any]) -> Any:
        """An iterator, or an asynchronous iterator, of what it tells."""
        raise NotImplementedError


class Part(Generic[M]):
    """One part of the API. line: how requests are made; carrier: how they are carried out."""

    def __init__(self, line: Line, carrier: Carrier) -> None:
        self._line = line
        self._carrier = carrier


class verb(Generic[P, T]):  # noqa: N801 (used as a decorator)
    """A method of a `Part`, defined as an exchange."""

    def __init__(self, define: Callable[Concatenate[Any, P], Exchange[T]]) -> None:
        self.define = define
        self.__doc__ = define.__doc__

    @overload
    def __get__(self, part: None, kind: type) -> verb[P, T]: ...
    @overload
    def __get__(self, part: Part[Blocking], kind: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, part: Part[Awaiting], kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, part: Part[Any] | None, kind: type) -> Any:
        if part is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return part._carrier.run(self.define(part, *args, **kwargs))

        return _dressed(call, self.define)


class stream(Generic[P, T]):  # noqa: N801
    """A method of a `Part` that gives one item after the other; what its exchange tells are `T`."""

    def __init__(self, define: Callable[Concatenate[Any, P], Exchange[T]]) -> None:
        self.define = define
        self.__doc__ = define.__doc__

    @overload
    def __get__(self, part: None, kind: type) -> stream[P, T]: ...
    @overload
    def __get__(self, part: Part[Blocking], kind: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, part: Part[Awaiting], kind: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, part: Part[Any] | None, kind: type) -> Any:
        if part is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return part._carrier.iterate(self.define(part, *args, **kwargs))

        return _dressed(call, self.define)


def _dressed(call: Callable[..., Any], define: Callable[..., Any]) -> Callable[..., Any]:
    """`call` as help() and completion show it: the definition's words and arguments without the part itself."""
    functools.update_wrapper(call, define)
    shown = inspect.signature(define)
    call.__signature__ = shown.replace(parameters=list(shown.parameters.values())[1:])  # type: ignore[attr-defined]
    return call
