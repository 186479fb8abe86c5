"""The same blocks give the same roots on any interpreter, hash seed, zone and locale, and on this day."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.contracts import (
    AnchorAccess,
    AnchorGrant,
    ApproveQuery,
    Leave,
    RegisterBill,
    RevokeGrant,
    VoteAdmission,
    VoteSuspension,
)
from ledger.export import EXPORT, LedgerExport, verify_export
from wire.canonical import decode, encode
from wire.checkpoint import trust_of

_ROOT = Path(__file__).resolve().parents[2]

_REPLAY = """
import sys
from ledger.export import LedgerExport
from ledger.machine import Machine
from wire.canonical import decode
export = decode(LedgerExport, sys.stdin.buffer.read())
machine = Machine(export.founding)
for block in export.blocks:
    outcome = machine.apply_block(block.header.height, block.header.time, block.envelopes)
    print(outcome.state_root.hex(), outcome.results_root.hex(), outcome.log_root.hex())
"""

ENVIRONMENTS = (
    {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C"},
    {"PYTHONHASHSEED": "4242", "TZ": "Asia/Shanghai", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"},
    {"PYTHONHASHSEED": "random", "TZ": "America/St_Johns", "LC_ALL": "tr_TR.UTF-8", "PYTHONOPTIMIZE": "1"},
)


@pytest.fixture
def lived(make_world: Callable[[], Any]) -> Any:
    world = make_world()
    world.population()
    world.act("researcher", world.proposal())
    for site in world.hospitals:
        world.act(site, ApproveQuery(b"q" * 16))
    world.block(
        world.envelope("hospital-1", AnchorGrant("g", bytes(32), 0, world.start * 2, 0), RevokeGrant("g")),
        world.envelope("insurer", RevokeGrant("g")),
        world.envelope("bureau", VoteSuspension("insurer", True)),
        world.envelope("hospital-2", RegisterBill(b"b" * 16, bytes(48), "CNY")),
        world.envelope("hospital-3", AnchorAccess(1, 2, bytes(32), b"h" * 32, b"r" * 32)),
        world.envelope("hospital-4", RevokeGrant("g"), RegisterBill(b"c" * 16, bytes(48), "CNY"), atomic=False),
    )
    return world


@pytest.fixture
def changed(make_world: Callable[[], Any]) -> tuple[Any, LedgerExport]:
    """A pharmacy joins, the insurer rotates its keys, the researcher leaves."""
    world = make_world()
    application = world.application("pharmacy", ("pharmacy",), tier="city")
    for name in list(world.members)[:6]:
        world.act(name, VoteAdmission(application))
    handovers = [world.handover()]
    world.act("insurer", world.rotation("insurer"))
    handovers.append(world.handover())
    world.act("researcher", Leave())
    handovers.append(world.handover(insurer="cosign-1"))
    grant = AnchorGrant("after", bytes(32), 0, world.start * 2, 0)
    world.act("pharmacy", grant, signer=world.signer("pharmacy", "envelope-1"))
    note = world.note(insurer="cosign-1").format()
    return world, LedgerExport(EXPORT, world.founding, tuple(world.blocks), tuple(handovers), note)


@pytest.mark.parametrize("story", ["lived", "changed"])
def test_two_interpreters_agree(lived: Any, changed: tuple[Any, LedgerExport], story: str) -> None:
    lived = lived if story == "lived" else changed[0]
    data = encode(LedgerExport(EXPORT, lived.founding, tuple(lived.blocks), (), b""))
    outputs = []
    for environment in ENVIRONMENTS:
        done = subprocess.run(
            [sys.executable, "-c", _REPLAY],
            input=data,
            capture_output=True,
            check=True,
            cwd=_ROOT,
            env={**os.environ, **environment},
            timeout=60,
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] == outputs[2]
    last = outputs[0].decode().splitlines()[-1].split()
    header = lived.machine.header
    assert last == [header.state_root.hex(), header.results_root.hex(), lived.machine.log.root().hex()]


def _vector(name: str) -> dict[str, str]:
    return dict(json.loads((_ROOT / "tests" / "vectors" / "ledger" / name).read_text(encoding="ascii")))


@pytest.mark.parametrize("name", ["history.json", "membership.json"])
def test_a_recorded_history_still_verifies_to_its_recorded_roots(name: str) -> None:
    """A change of these roots is a change of consensus: it needs a new contract version, not a new vector."""
    vector = _vector(name)
    export = decode(LedgerExport, bytes.fromhex(vector["export"]))
    trust = trust_of(export.founding)
    assert trust.genesis_hash.hex() == vector["genesis_hash"]
    machine = verify_export(export, trust)
    assert machine.state.root.hex() == vector["state_root"]
    assert machine.log.root().hex() == vector["log_root"]


def test_the_recorded_history_is_what_this_code_writes(lived: Any, changed: tuple[Any, LedgerExport]) -> None:
    export = LedgerExport(EXPORT, lived.founding, tuple(lived.blocks), (), lived.note().format())
    assert encode(export).hex() == _vector("history.json")["export"]
    assert encode(changed[1]).hex() == _vector("membership.json")["export"]


def _sources() -> list[Path]:
    rooms = ("contracts", "trees")
    files = [path for room in rooms for path in sorted((_ROOT / "ledger" / room).glob("*.py"))]
    return [*files, *(_ROOT / "ledger" / name for name in ("machine.py", "envelope.py", "rules.py"))]


@pytest.mark.parametrize("path", _sources(), ids=lambda path: path.name)
def test_what_is_agreed_on_uses_nothing_that_varies(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, (float, complex))), node.lineno
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)), node.lineno
        assert not isinstance(node, (ast.Set, ast.SetComp)), node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"set", "hash", "id", "float", "open", "vars", "globals"}, node.lineno
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            varying = {"time", "datetime", "random", "secrets", "os", "locale", "zoneinfo", "uuid", "platform"}
            assert not varying & {name.split(".")[0] for name in names}, node.lineno
