"""The JSON of a request's body, read so that it means one thing to whoever reads it."""

import json
from typing import Any, NoReturn

from starlette.requests import Request

from wire.strict_json import names_differ


class JsonRequest(Request):
    """A request whose JSON is UTF-8, without a name that stands twice in an object, and without NaN."""

    async def json(self) -> Any:
        """The body's value. Raises JSONDecodeError, DecodeError (a name that stands twice), ValueError."""
        text = (await self.body()).decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=names_differ, parse_constant=_no_number)


def _no_number(_text: str) -> NoReturn:
    raise json.JSONDecodeError("no JSON", "", 0)
