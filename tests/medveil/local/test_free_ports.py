"""Ports that are given to gateways for good."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from medveil.local import free_ports as module
from medveil.local.free_ports import FIRST, LAST, free_ports
from wire.errors import Unavailable


def test_they_are_different_held_and_not_those_of_outgoing_connections() -> None:
    with free_ports(20) as ports:
        assert len(set(ports)) == 20 and all(FIRST <= port <= LAST < 32_768 for port in ports)
        with socket.socket() as other, pytest.raises(OSError):
            other.bind(("localhost", ports[0]))
    with socket.socket() as other:
        other.bind(("localhost", ports[0]))


def test_a_port_that_is_somebodys_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with free_ports(1) as (taken,):
        drawn = iter([taken - FIRST, taken - FIRST, 7, 8])
        monkeypatch.setattr(module.secrets, "randbelow", lambda _: next(drawn))
        with free_ports(1) as (port,):
            assert port in (FIRST + 7, FIRST + 8)


def test_a_machine_without_free_ports_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: Any) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", taken)
    with pytest.raises(Unavailable) as raised, free_ports(1):
        pass
    assert raised.value.code == "local.no_ports" and str(FIRST) in str(raised.value)
