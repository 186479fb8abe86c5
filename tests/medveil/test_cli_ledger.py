"""`medveil ledger`: the recorded history, replayed and read from the command line."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from ledger.export import LedgerExport
from ledger.machine import Machine
from ledger.reading import Selection, kinds_of, known_kinds
from medveil.cli import app
from medveil.history import instant, read_history
from wire.canonical import decode, encode
from wire.checkpoint import cosign_checkpoint, read_trust, sign_checkpoint, trust_of, write_trust
from wire.dates import format_instant
from wire.errors import DecodeError, MedveilError, QuorumNotMet, Refused, VerificationError
from wire.signing import Signer

VECTOR = Path(__file__).resolve().parents[1] / "vectors" / "ledger" / "history.json"


@pytest.fixture(scope="module")
def vector() -> dict[str, Any]:
    return dict(json.loads(VECTOR.read_text(encoding="ascii")))


@pytest.fixture
def export(vector: dict[str, Any]) -> LedgerExport:
    return decode(LedgerExport, bytes.fromhex(vector["export"]))


@pytest.fixture
def folder(tmp_path: Path, export: LedgerExport) -> Path:
    """``ledger.evidence`` and its ``consortium.json``."""
    (tmp_path / "ledger.evidence").write_bytes(encode(export))
    write_trust(tmp_path / "consortium.json", trust_of(export.founding))
    return tmp_path


def run(folder: Path, verb: str, *arguments: str, trust: bool = True) -> Result:
    pinned = ("--trust", str(folder / "consortium.json")) if trust else ()
    return CliRunner().invoke(app, ["ledger", verb, str(folder / "ledger.evidence"), *pinned, *arguments])


def refusal(result: Result) -> MedveilError:
    assert isinstance(result.exception, MedveilError)
    return result.exception


def test_verify_replays_to_the_recorded_roots_and_says_what_it_checked(folder: Path, vector: dict[str, Any]) -> None:
    done = run(folder, "verify")
    assert done.exit_code == 0, done.output
    assert vector["state_root"] in done.output and vector["log_root"] in done.output
    assert "cosigned by" in done.output and done.output.rstrip().splitlines()[-1].startswith("verified: chain")


def test_verify_as_json(folder: Path, vector: dict[str, Any], export: LedgerExport) -> None:
    facts = json.loads(run(folder, "verify", "--json").output)
    assert facts["verdict"] == "verified" and facts["state_root"] == vector["state_root"]
    assert facts["blocks"] == len(export.blocks) == facts["log_size"] - 1
    assert facts["envelopes"] == sum(len(block.envelopes) for block in export.blocks)
    assert len(facts["cosigners"]) >= facts["needed_cosigners"] == export.founding.k


@pytest.mark.parametrize("verb", ["verify", "show"])
def test_without_a_pinned_trust_file_nothing_is_verified(folder: Path, verb: str) -> None:
    done = run(folder, verb, trust=False)
    assert done.exit_code == 3 and "not pinned" in done.output and "\nverified" not in done.output
    facts = json.loads(run(folder, verb, "--json", trust=False).output)
    assert facts["pinned"] is False and facts["verdict"] == "consistent, not pinned"


@pytest.mark.parametrize("verb", ["verify", "show"])
def test_another_consortium_a_changed_block_and_a_missing_cosigner_fail(
    folder: Path, export: LedgerExport, verb: str
) -> None:
    file = folder / "ledger.evidence"
    write_trust(
        folder / "consortium.json", trust_of(msgspec.structs.replace(export.founding, time=export.founding.time + 1))
    )
    assert refusal(run(folder, verb)).code == "ledger.other_genesis"
    write_trust(folder / "consortium.json", trust_of(export.founding))

    first = export.blocks[0]
    header = msgspec.structs.replace(first.header, time=first.header.time + 1)
    changed = msgspec.structs.replace(first, header=header)
    file.write_bytes(encode(msgspec.structs.replace(export, blocks=(changed, *export.blocks[1:]))))
    error = refusal(run(folder, verb))
    assert isinstance(error, VerificationError) and error.facts["height"] == 1

    lines = export.note.decode().split("\n")
    file.write_bytes(encode(msgspec.structs.replace(export, note="\n".join([*lines[:-2], ""]).encode())))
    assert isinstance(refusal(run(folder, verb)), QuorumNotMet)
    file.write_bytes(encode(export)[:-1])
    assert isinstance(refusal(run(folder, verb)), DecodeError)


def test_other_evidence_is_refused(folder: Path, export: LedgerExport) -> None:
    from ledger.receipts import PROVEN_VALUE, ProvenValue
    from ledger.trees.state import StateProof

    value = ProvenValue(PROVEN_VALUE, b"k", None, StateProof((), ()), export.blocks[0].header, (), b"")
    (folder / "ledger.evidence").write_bytes(encode(value))
    assert refusal(run(folder, "show")).code == "history.no_export"


def entries(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    done = run(folder, "show", "--json", *arguments)
    assert done.exit_code == 0, done.output
    return list(json.loads(done.output)["entries"])


def test_show_lists_every_envelope_in_order(folder: Path, export: LedgerExport) -> None:
    every = entries(folder)
    assert [(one["height"], one["entry"]) for one in every] == [
        (block.header.height, place) for block in export.blocks for place in range(len(block.envelopes))
    ]
    assert any(one["result"] == "grants.not_issuer" or one["result"] != "accepted" for one in every)
    assert all(one["events"] for one in every if one["result"] == "accepted")
    (part,) = (one for one in every if one["organisation"] == "hospital-4" and len(one["kinds"]) == 2)
    assert part["codes"] == ["grants.not_issuer", ""] and part["events"][0]["name"] == "bills.registered"
    assert part["result"] == "1 of 2 ops refused: grants.not_issuer"


def test_show_selects_by_organisation_kind_and_time(folder: Path, export: LedgerExport) -> None:
    every = entries(folder)
    assert entries(folder, "--organisation", "insurer") == [one for one in every if one["organisation"] == "insurer"]
    grants = [one for one in every if any(kind.startswith("grants.") for kind in one["kinds"])]
    assert entries(folder, "--kind", "grants") == grants != every
    assert entries(folder, "--kind", "grants.anchor") == [one for one in grants if "grants.anchor" in one["kinds"]]
    middle = every[len(every) // 2]["time"]
    since, until = entries(folder, "--since", middle), entries(folder, "--until", middle)
    assert until + since == every and since and until
    assert since == [one for one in every if one["time"] >= middle]


def test_show_prints_a_table(folder: Path) -> None:
    done = run(folder, "show", "--organisation", "researcher")
    assert done.exit_code == 0 and "queries.propose" in done.output and "insurer" not in done.output
    assert " envelopes in " in done.output


def test_what_nobody_knows_is_refused_and_not_an_empty_list(folder: Path) -> None:
    assert refusal(run(folder, "show", "--kind", "grants.nothing")).facts["known"] == ", ".join(
        kind for kind in known_kinds() if kind.startswith("grants.")
    )
    assert "grants" in str(refusal(run(folder, "show", "--kind", "nothing")).facts["known"])
    assert isinstance(refusal(run(folder, "show", "--organisation", "nobody")), Refused)
    done = run(folder, "show", "--since", "yesterday")
    assert done.exit_code == 2 and "--since" in done.output


@pytest.mark.parametrize(
    "option,value",
    [
        ("--since", "0001-01-01T00:00+12:00"),
        ("--until", "9999-12-31T23:59:59-12:00"),
        ("--since", "2026-11-22T10:00+99:00"),
    ],
)
def test_times_beyond_the_calendar_are_wrong_usage(folder: Path, option: str, value: str) -> None:
    done = run(folder, "show", option, value)
    assert done.exit_code == 2 and option in done.output
    assert CliRunner().invoke(app, ["verify", str(folder), "--newer-than", value]).exit_code == 2


def test_a_name_that_none_can_have_is_said_in_words(folder: Path) -> None:
    assert refusal(run(folder, "show", "--organisation", "医院")).code == "wire.bad_name"


@pytest.mark.parametrize("zone", ["Asia", "Asia/Nowhere", "../etc/passwd", "a" * 5000])
def test_the_zone_of_an_export_is_not_believed(folder: Path, export: LedgerExport, zone: str) -> None:
    founding = msgspec.structs.replace(export.founding, zone=zone)
    (folder / "ledger.evidence").write_bytes(encode(msgspec.structs.replace(export, founding=founding)))
    done = run(folder, "show", "--since", "2026-11-22", trust=False)
    assert done.exit_code == 2 or refusal(done).code.startswith("checkpoint.")


@pytest.mark.parametrize("verb", ["verify", "show", "snapshot"])
def test_what_has_no_end_is_refused(folder: Path, verb: str) -> None:
    (folder / "ledger.evidence").unlink()
    for target in ("/dev/zero", "pipe"):
        if target == "pipe":
            os.mkfifo(folder / "pipe")
        (folder / "ledger.evidence").symlink_to(target)
        more = (str(folder / "out"),) if verb == "snapshot" else ()
        assert refusal(run(folder, verb, *more)).code == "wire.no_file"
        for other in (["verify"], ["show"], ["trust", "update", str(folder / "consortium.json")]):
            done = CliRunner().invoke(app, [*other, str(folder / "ledger.evidence")])
            assert refusal(done).code == "wire.no_file", other
        (folder / "ledger.evidence").unlink()


def test_who_signed_without_replaying_is_told_apart(folder: Path, export: LedgerExport) -> None:
    others = ("insurer", "regulator")
    members = tuple(
        msgspec.structs.replace(member, re_executes=member.organisation not in others)
        for member in export.founding.members
    )
    founding = msgspec.structs.replace(export.founding, members=members, k=4)
    log = Machine(founding).log

    def cosigner(name: str) -> Signer:  # as tests/ledger/conftest.py derived them
        return Signer(sha256(f"{name}/cosign".encode()).digest())

    note = sign_checkpoint(cosigner("bureau"), trust_of(founding).origin, log.size, log.root())
    for name in ("bureau", "hospital-1", "insurer", "hospital-2", "hospital-3", "regulator"):
        note = note.with_line(cosign_checkpoint(cosigner(name), name, note, 1_800_000_000))
    path = folder / "ledger.evidence"
    path.write_bytes(encode(LedgerExport(export.header, founding, (), (), note.format())))
    history = read_history(path)
    assert history.others == others
    assert history.cosigners == ("bureau", "hospital-1", "hospital-2", "hospital-3")
    done = CliRunner().invoke(app, ["ledger", "verify", str(path)])
    assert "head cosigned by 4, needed 4: bureau" in done.output
    assert "also signed by insurer, regulator, which do not replay and do not count" in done.output


def test_instants_without_an_offset_are_in_the_consortiums_zone() -> None:
    assert instant("2026-11-22T08:00", "Asia/Shanghai") == instant("2026-11-22T00:00Z", "Asia/Shanghai")
    assert instant("2026-11-22", "UTC") == 1_795_305_600_000


def test_a_selection_reads_blocks_with_their_results(export: LedgerExport) -> None:
    machine = Machine(export.founding)
    for block in export.blocks:
        results = machine.replay(block).results
        found = list(Selection().entries(block, results))
        assert [entry.kinds for entry in found] == [kinds_of(data) for data in block.envelopes]
        assert all(entry.result is result for entry, result in zip(found, results, strict=True))
        assert list(Selection(until=block.header.time).entries(block, results)) == []
        assert list(Selection(since=block.header.time).entries(block, results)) == found


def test_verify_bounds_the_age_of_what_is_shown(folder: Path, export: LedgerExport) -> None:
    """A value proven alone: fresh by the time of its head, and only if it is of the head's latest block."""
    from ledger.export import verify_export
    from ledger.receipts import PROVEN_VALUE, ProvenValue

    machine = verify_export(export, read_trust(folder / "consortium.json"))
    path, key = machine.log.inclusion_proof(machine.height), b"grants/grant/none"
    absent = ProvenValue(PROVEN_VALUE, key, None, machine.state.prove(key), machine.header, path, export.note)
    (folder / "absence.evidence").write_bytes(encode(absent))
    cosigned = read_history(folder / "ledger.evidence").time

    def verify(file: str, bound: str) -> Result:
        pinned = ("--trust", str(folder / "consortium.json"), "--newer-than", bound)
        return CliRunner().invoke(app, ["verify", str(folder / file), *pinned])

    for file in ("absence.evidence", "ledger.evidence"):
        assert verify(file, format_instant(cosigned)).exit_code == 0
        assert refusal(verify(file, format_instant(cosigned + 1000))).code == "ledger.stale"
        assert verify(file, "lately").exit_code == 2
