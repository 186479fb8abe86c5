"""What a gateway says reaches a terminal as text: no cursor moves, no colour, no second line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from medveil.cli import screen
from medveil.cli.kept import Kept, keep

from .conftest import Person

sys.path.append(str(Path(__file__).parent.parent))

from client.wayward import Wayward

EVIL = "\x1b[2J\x1b]0;owned\x07\r\u202e"


def saying(told: dict[str, Any]) -> Any:
    body = json.dumps(told).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return lambda *_: head + body


PAGE: dict[str, Any] = {"entries": [], "after": f"1{EVIL}", "height": 1}
SERVICE: dict[str, Any] = {
    "organisation": f"north{EVIL}",
    "version": "1",
    "data_version": 1,
    "chain": "c",
    "genesis": "g",
    "height": 1,
    "catching_up": False,
    "sequencer": False,
    "started": 1,
    "jobs": {f"waiting{EVIL}": 1},
    "data_folder": False,
}
INVITED = {"person": f"ada{EVIL}", "invitation": f"secret{EVIL}"}
MEMBERS: dict[str, Any] = {
    "members": [],
    "chain": f"c{EVIL}",
    "genesis": "g",
    "height": 1,
    "k": 1,
    "sequencer": f"s{EVIL}",
}


@pytest.mark.parametrize(
    ("told", "verb"),
    [
        (PAGE, ("receipts", "list")),
        (SERVICE, ("service", "show")),
        (INVITED, ("people", "add", "ada", "--role", "clerk")),
        (MEMBERS, ("members", "list")),
    ],
)
def test_nothing_that_a_gateway_says_moves_the_cursor(person: Person, told: dict[str, Any], verb: tuple[str]) -> None:
    with Wayward(0, saying(told)) as network:
        keep(network.address, Kept("ada", "secret"))
        said = person.run(*verb)
    assert "\ufffd" in said.output
    assert not set(said.output) & set(EVIL) - set("[2J]0;owned")


def test_names_in_a_table_of_names_are_shown_too() -> None:
    assert screen.shown({EVIL: EVIL}).isprintable()
