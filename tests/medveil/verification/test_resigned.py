"""A malicious bureau changes evidence and signs the folder again: the manifest holds, the evidence must not."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.export import LedgerExport
from ledger.machine import Result
from ledger.pieces import split
from ledger.receipts import Receipt
from medveil import verify
from medveil.verification import checks
from privacy.audit import AccessBatch, Entry, verify_batch
from wire.canonical import Wire, encode
from wire.checkpoint import leaf_hash, parse_note, tree_root
from wire.errors import DecodeError, Refused, VerificationError
from wire.evidence import ListedFile
from wire.signing import Signer

replace = msgspec.structs.replace


def test_what_was_gathered_verifies(case: Any, tmp_path: Path) -> None:
    report = case.verify(case.write(tmp_path / "evidence"))
    assert report.verdict == "verified"
    assert report.exporter == "bureau"
    assert not report.findings
    assert [(flow.owner, flow.kind, flow.outcome) for flow in report.flows if flow.owner == "hospital-1"] == [
        ("hospital-1", "query", "denied (purpose)"),
        ("hospital-1", "query", "released"),
        ("hospital-1", "proof", "released"),
        ("hospital-1", "proof", "aborted"),
    ]
    assert {flow.outcome for flow in report.flows if flow.kind == "score"} == {"released"}
    done = {check.what.split()[0]: check.count for check in report.checks}
    assert done["values"] == 2 and done["single"] == 1
    assert verify(tmp_path / "evidence").verdict == "consistent, not pinned"


# --- the ledger ---------------------------------------------------------------------------------


def ledgers(export: LedgerExport) -> Iterator[tuple[str, LedgerExport]]:
    """The ledger changed in every way that an exporter could think of."""
    blocks = export.blocks
    middle = len(blocks) // 2
    block = blocks[middle]

    def with_block(changed: Any) -> LedgerExport:
        return replace(export, blocks=(*blocks[:middle], changed, *blocks[middle + 1 :]))

    envelope = bytearray(block.envelopes[0])
    envelope[len(envelope) // 2] ^= 1
    yield "envelope changed", with_block(replace(block, envelopes=(bytes(envelope), *block.envelopes[1:])))
    yield "envelope left out", with_block(replace(block, envelopes=block.envelopes[1:]))
    yield "envelope twice", with_block(replace(block, envelopes=(*block.envelopes, block.envelopes[0])))
    yield "time changed", with_block(replace(block, header=replace(block.header, time=block.header.time + 1)))
    yield "state changed", with_block(replace(block, header=replace(block.header, state_root=bytes(32))))
    yield "block left out", replace(export, blocks=(*blocks[:middle], *blocks[middle + 1 :]))
    yield "last block left out", replace(export, blocks=blocks[:-1])
    yield "block twice", with_block(blocks[middle - 1])
    yield "blocks swapped", replace(export, blocks=(*blocks[:-2], blocks[-1], blocks[-2]))
    yield "no blocks", replace(export, blocks=())
    yield "cosignatures left out", replace(export, note=b"\n".join(export.note.split(b"\n")[:-4]) + b"\n")
    yield "another founding", replace(export, founding=replace(export.founding, k=export.founding.k + 1))
    yield "another time", replace(export, founding=replace(export.founding, time=0))


def test_every_change_of_the_ledger(case: Any, tmp_path: Path) -> None:
    for what, changed in ledgers(case.structs["ledger.evidence"]):
        error = case.fails(tmp_path / "evidence", "ledger.evidence", changed)
        assert error.code == "verify.file_fails", what
        if "envelope changed" in what:
            assert "block" in error.text()


def shorter(case: Any, keep: Callable[[str, Any], bool]) -> tuple[dict[str, Wire], int]:
    """The evidence with the ledger cut at an earlier head that k had cosigned, and files that `keep` lets stay."""
    export = case.structs["ledger.evidence"]
    notes = [struct.note for struct in case.structs.values() if isinstance(struct, Receipt)]
    height = len(export.blocks) // 2
    note = min(
        (n for n in notes if parse_note(n).checkpoint.size > height), key=lambda n: parse_note(n).checkpoint.size
    )
    height = parse_note(note).checkpoint.size - 1
    assert height < len(export.blocks)
    cut = replace(export, blocks=export.blocks[:height], note=note)
    return {
        name: cut if name == "ledger.evidence" else struct
        for name, struct in case.structs.items()
        if keep(name, struct)
    }, height


def test_a_ledger_cut_at_an_earlier_head(case: Any, tmp_path: Path) -> None:
    """Found by whatever in the folder leads further; if nothing is left that does, the report says how far it goes."""
    folder = tmp_path / "evidence"
    structs, height = shorter(case, lambda name, struct: True)
    case.write(folder, structs)
    with pytest.raises(VerificationError) as cut:
        case.verify(folder)
    assert cut.value.code == "verify.ledger_cut"
    assert cut.value.facts["end"] == height
    structs, _ = shorter(case, lambda name, struct: not name.startswith(("receipts", "values")))
    case.write(folder, structs)
    with pytest.raises(VerificationError):
        case.verify(folder)
    structs, _ = shorter(case, lambda name, struct: name == "ledger.evidence" or name == "access/hospital-1-1.evidence")
    report = case.verify(case.write(folder, structs))
    assert report.height == height
    with pytest.raises(VerificationError) as old:
        case.verify(folder, at_least=height + 1)
    assert old.value.code == "verify.too_old"


def test_a_ledger_in_pieces(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.pieces.PIECE_BYTES", 4000)
    main, pieces = split(case.structs["ledger.evidence"])
    named = {f"ledger.{piece.number:04}.evidence": piece for piece in pieces}
    assert len(named) > 2
    whole = {**case.structs, "ledger.evidence": main, **named}
    assert case.verify(case.write(tmp_path / "evidence", whole)).verdict == "verified"
    for name in named:
        left = {path: struct for path, struct in whole.items() if path != name}
        with pytest.raises(VerificationError) as caught:
            case.verify(case.write(tmp_path / "evidence", left))
        assert caught.value.facts["file"] == "ledger.evidence"
    stray = case.write(tmp_path / "evidence", case.structs | {"ledger.0001.evidence": pieces[0]})
    with pytest.raises(VerificationError) as unasked:  # a piece that the ledger does not ask for
        case.verify(stray)
    assert unasked.value.facts["file"] == "ledger.evidence"


def test_receipts_of_another_history_are_told_apart(case: Any, other_case: Any, tmp_path: Path) -> None:
    for name in ("receipts/bureau-1.evidence", "values/population.evidence", "values/absent.evidence"):
        case.fails(tmp_path / "evidence", name, other_case.structs[name])


# --- receipts and values ------------------------------------------------------------------------


FIELDS = Result.__struct_fields__


def another(value: Any) -> Any:
    """Some other value of the same type."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    return "another" if isinstance(value, str) else (*value, *value) or (b"",)


def test_every_part_of_a_receipt(case: Any, tmp_path: Path) -> None:
    name = "receipts/hospital-1-2.evidence"
    receipt = case.structs[name]
    other = case.structs["receipts/hospital-2-1.evidence"]
    result, block = receipt.result, receipt.block
    results = [{"result": replace(result, **{field: another(getattr(result, field))})} for field in FIELDS]
    for changes in (
        *results,
        {"result": replace(result, code="grants.exists")},
        {"result": other.result},
        {"envelope": other.envelope},
        {"envelope": receipt.envelope[:-1] + bytes([receipt.envelope[-1] ^ 1])},
        {"block": replace(block, time=block.time - 1)},
        {"block": other.block},
        {"block_path": receipt.block_path[1:]},
        {"block_path": (bytes(32), *receipt.block_path[1:])},
        {"result_path": (*receipt.result_path, bytes(32))},
        {"note": receipt.note.replace(b"\n", b"\n\n", 1)},
        {"note": b"\n".join(receipt.note.split(b"\n")[:5]) + b"\n"},
    ):
        case.fails(tmp_path / "evidence", name, replace(receipt, **changes))


def test_every_part_of_a_value(case: Any, tmp_path: Path) -> None:
    name = "values/population.evidence"
    proven = case.structs[name]
    absent = case.structs["values/absent.evidence"]
    for changes in (
        {"value": proven.value[:-1] + bytes([proven.value[-1] ^ 1])},
        {"value": None},
        {"key": b"datasets/population/other"},
        {"proof": absent.proof},
        {"note": case.structs["receipts/bureau-1.evidence"].note},
    ):
        case.fails(tmp_path / "evidence", name, replace(proven, **changes))
    case.fails(tmp_path / "evidence", "values/absent.evidence", replace(absent, key=proven.key))


# --- presentations ------------------------------------------------------------------------------


def test_every_part_of_a_presentation(case: Any, tmp_path: Path) -> None:
    name = "presentations/bill-1.evidence"
    shown = case.structs[name]
    point = case.structs["releases/query-1.evidence"].phases[0].survivors.contributions[0].point
    for changes in (
        {"limit": shown.limit - 1},
        {"limit": shown.limit + 1},
        {"nonce": bytes(32)},
        {"grant": "study-hospital-1"},
        {"purpose": "FRAUD"},
        {"audience": "researcher"},
        {"chain": "another"},
        {"currency": "EUR"},
        {"handle": bytes(16)},
        {"commitment": point},
        {"proof": shown.proof[:-1] + bytes([shown.proof[-1] ^ 1])},
        {"proof": bytes(len(shown.proof))},
    ):
        case.fails(tmp_path / "evidence", name, replace(shown, **changes))


def test_one_presentation_twice(case: Any, tmp_path: Path) -> None:
    again = "presentations/bill-2.evidence"
    error = case.fails(tmp_path / "evidence", again, case.structs["presentations/bill-1.evidence"])
    assert "twice" in error.text()


# --- access chains ------------------------------------------------------------------------------


def chained(batch: AccessBatch, entries: tuple[Entry, ...]) -> AccessBatch:
    """A batch of these entries that is consistent in itself: numbers, chain, head, root."""
    head, linked = batch.previous_head, []
    for place, entry in enumerate(entries):
        linked.append(replace(entry, sequence=batch.first + place, previous=head))
        head = linked[-1].head()
    made = replace(
        batch,
        last=batch.first + len(entries) - 1,
        head=head,
        root=tree_root([leaf_hash(encode(entry)) for entry in linked]),
        entries=tuple(linked),
    )
    verify_batch(made)
    return made


NAME = "access/hospital-1-3.evidence"


def test_entries_changed_left_out_or_reordered(case: Any, tmp_path: Path) -> None:
    batch = case.structs[NAME]
    first, second = batch.entries[:2]
    for changed in (
        (replace(first, use=replace(first.use, recipient="insurer")), *batch.entries[1:]),
        (replace(first, use=replace(first.use, purpose="TREAT")), *batch.entries[1:]),
        (replace(first, time=first.time - 1), *batch.entries[1:]),
        (first, replace(second, outcome="aborted"), *batch.entries[2:]),
        batch.entries[1:],
        batch.entries[:-1],
        (*batch.entries, batch.entries[-1]),
        batch.entries[::-1],
        (second, first, *batch.entries[2:]),
        (),
    ):
        error = case.fails(tmp_path / "evidence", NAME, replace(batch, entries=changed))
        assert "hospital-1" in error.text()


def test_entries_rewritten_consistently_are_not_the_anchored_ones(case: Any, tmp_path: Path) -> None:
    """A hospital helps the bureau: numbers, chain and root are right, and still not those on the ledger."""
    batch = case.structs[NAME]
    first, second = batch.entries[:2]
    quiet = replace(first.use, purpose="HRESCH")
    for changed in (
        (replace(first, use=quiet), replace(second, use=quiet), *batch.entries[2:]),
        (first, replace(second, outcome="aborted"), *batch.entries[2:]),
        batch.entries[:-2],
    ):
        error = case.fails(tmp_path / "evidence", NAME, chained(batch, changed))
        assert error.code in ("verify.not_anchored", "verify.missing_access")


def test_a_single_entry_must_be_the_anchored_one(case: Any, tmp_path: Path) -> None:
    name = "access/one-entry.evidence"
    proof = case.structs[name]
    for changes in (
        {"entry": replace(proof.entry, outcome="aborted")},
        {"index": proof.index - 1},
        {"root": bytes(32)},
        {"size": proof.size - 1},
        {"proof": ()},
    ):
        case.fails(tmp_path / "evidence", name, replace(proof, **changes))
    lone = replace(proof.entry, sequence=1)
    alone = replace(proof, entry=lone, index=0, size=1, proof=(), root=tree_root([leaf_hash(encode(lone))]))
    assert case.fails(tmp_path / "evidence", name, alone).code == "verify.not_anchored"


# --- models -------------------------------------------------------------------------------------


def test_another_model(case: Any, tmp_path: Path) -> None:
    name = "models/over-use.evidence"
    shown = case.structs[name]
    model = shown.model
    for changed in (
        replace(model, limit=model.limit + 1),
        replace(model, ciphertexts=model.ciphertexts[::-1]),
        replace(model, features=model.features[::-1]),
        replace(model, weight_high=11),
        replace(model, model="other"),
        replace(model, key=model.key[:-1] + bytes([model.key[-1] ^ 2])),
        replace(model, key=b"", ciphertexts=()),
    ):
        case.fails(tmp_path / "evidence", name, replace(shown, model=changed))


# --- what is left out, added, mixed -------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("ledger", "verify.one_ledger"),
        ("access/hospital-2", "verify.missing_access"),
        ("access/h", "verify.missing_access"),
    ],
)
def test_files_of_a_kind_left_out(case: Any, tmp_path: Path, folder: str, code: str) -> None:
    kept = {name: struct for name, struct in case.structs.items() if not name.startswith(folder)}
    assert len(kept) < len(case.structs)
    case.write(tmp_path / "evidence", kept)
    with pytest.raises(VerificationError) as found:
        case.verify(tmp_path / "evidence")
    assert found.value.code == code


@pytest.mark.parametrize(
    ("folder", "code", "who"),
    [
        ("releases", "verify.withheld_release", "researcher"),
        ("presentations", "verify.withheld_proof", "hospital-1"),
        ("models", "verify.withheld_model", "bureau"),
    ],
)
def test_files_that_somebody_owes(case: Any, tmp_path: Path, folder: str, code: str, who: str) -> None:
    """Who keeps them back is not for the folder to say: what is shown holds, and what is missing is named."""
    kept = {name: struct for name, struct in case.structs.items() if not name.startswith(folder)}
    report = case.verify(case.write(tmp_path / "evidence", kept))
    assert report.verdict == "verified, with findings"
    (finding,) = report.findings
    assert (finding.code, finding.facts["organisation"]) == (code, who)
    assert who in finding.text() and who in finding.text("zh")


def test_receipts_repeat_what_the_ledger_says(case: Any, tmp_path: Path) -> None:
    """They are for their holders: the ledger in the folder holds every envelope and its result."""
    kept = {name: struct for name, struct in case.structs.items() if not name.startswith(("receipts", "values"))}
    report = case.verify(case.write(tmp_path / "evidence", kept))
    assert report.verdict == "verified"
    assert not any(check.what.startswith("receipts") for check in report.checks), "nothing is claimed of none"


def test_evidence_of_another_consortium(case: Any, other_case: Any, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    for name, struct in sorted(other_case.structs.items()):
        if name.startswith("receipts") and name != "receipts/bureau-1.evidence":
            continue
        case.write(folder, case.structs | {name: struct})
        with pytest.raises(VerificationError):
            case.verify(folder)
        added = "mixed-in/" + Path(name).name
        case.write(folder, case.structs | {added: struct})
        with pytest.raises(VerificationError) as found:
            case.verify(folder)
        assert found.value.code == "verify.one_ledger" or added in found.value.message, name
    # The whole of it, in its own folder, under the wrong trust file.
    other_case.write(folder)
    with pytest.raises(VerificationError) as found:
        case.verify(folder)
    assert found.value.code == "wire.manifest_signature"
    other_case.write(folder, signer=case.signer)
    with pytest.raises(VerificationError) as found:
        case.verify(folder)
    assert found.value.code == "verify.file_fails" and "ledger.evidence" in found.value.message


def test_two_ledgers_and_kinds_that_do_not_fit(case: Any, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    case.write(folder, case.structs | {"ledger-2.evidence": case.structs["ledger.evidence"]})
    with pytest.raises(VerificationError) as found:
        case.verify(folder)
    assert (found.value.code, found.value.facts["count"]) == ("verify.one_ledger", 2)
    for name, kind in (
        ("access/hospital-1-3.evidence", "receipt"),
        ("ledger.evidence", "receipt"),
        ("receipts/bureau-1.evidence", "ledger-export"),
        ("receipts/bureau-1.evidence", "no-such-kind"),
    ):
        case.write(folder, kinds={name: kind})
        with pytest.raises(VerificationError) as found:
            case.verify(folder)
        assert name in found.value.message
        assert found.value.code == "verify.other_kind"
    for junk in (b"", b"junk", b"\x93\xa1a\x94\xabwire.header\xa1a\x01\x01\x01", secrets.token_bytes(3000)):
        case.fails(folder, "extra.evidence", junk, kinds={"extra.evidence": "receipt"})


def test_a_kind_that_nothing_checks_is_not_passed_over(
    case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CHECKED", tuple(kind for kind in checks.CHECKED if kind is not AccessBatch))
    case.write(tmp_path / "evidence")
    with pytest.raises(VerificationError) as found:
        case.verify(tmp_path / "evidence")
    assert found.value.code == "verify.unchecked_kind"
    assert "access/" in found.value.message


# --- manifests ----------------------------------------------------------------------------------


def test_who_signs_the_folder(case: Any, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    for more in ({"signer": Signer(secrets.token_bytes(32))}, {"exporter": "hospital-1"}):
        case.write(folder, **more)
        with pytest.raises(VerificationError) as found:
            case.verify(folder)
        assert found.value.code == "wire.manifest_signature"
    case.write(folder, exporter="stranger")
    with pytest.raises(VerificationError) as found:
        case.verify(folder)
    assert found.value.code == "checkpoint.not_member"
    case.write(folder, chain="another")
    with pytest.raises(VerificationError) as found:
        case.verify(folder)
    assert found.value.code == "verify.other_chain"


def outside(tmp_path: Path) -> ListedFile:
    data = b"outside"
    (tmp_path / "outside").write_bytes(data)
    return ListedFile("x", "receipt", len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "access/../../outside",
        "./ledger.evidence",
        "access//x",
        "access/./x",
        "/etc/hostname",
        "access\\x",
        "manifest.json",
        "",
        "a\nb",
        "a\x1b[2Kb",
        "a b",
        "\u202egnp.evidence",
    ],
)
def test_paths_that_lead_elsewhere(case: Any, tmp_path: Path, path: str) -> None:
    file = replace(outside(tmp_path), path=path)
    case.write(tmp_path / "evidence", paths=lambda listed: sorted([*listed, file], key=lambda one: one.path))
    with pytest.raises((VerificationError, DecodeError)) as found:
        case.verify(tmp_path / "evidence")
    assert found.value.code == "wire.bad_manifest"


def test_lists_out_of_order_or_double(case: Any, tmp_path: Path) -> None:
    for paths in (lambda listed: listed[::-1], lambda listed: [listed[0], *listed]):
        case.write(tmp_path / "evidence", paths=paths)
        with pytest.raises(VerificationError) as found:
            case.verify(tmp_path / "evidence")
        assert found.value.code == "wire.bad_manifest"


def test_symlinks_in_the_folder(case: Any, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    case.write(folder)
    target = folder / "receipts/bureau-1.evidence"
    target.rename(tmp_path / "real")
    target.symlink_to(tmp_path / "real")
    with pytest.raises(VerificationError) as found:
        case.verify(folder)
    assert "receipts/bureau-1.evidence" in found.value.message
    case.write(folder)
    (folder / "receipts").rename(tmp_path / "receipts")
    (folder / "receipts").symlink_to(tmp_path / "receipts", target_is_directory=True)
    with pytest.raises(VerificationError) as found:
        case.verify(folder)
    assert "receipts" in found.value.message
    case.write(folder)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    with pytest.raises(VerificationError) as found:
        case.verify(folder)
    assert found.value.code == "wire.file_added"


def test_names_on_disk_cannot_write_on_the_readers_terminal(case: Any, tmp_path: Path) -> None:
    folder = case.write(tmp_path / "evidence")
    (folder / "x\x1b[2K\rverified: chain test-chain\n").write_bytes(b"")
    with pytest.raises(VerificationError) as found:
        case.verify(folder)
    assert found.value.code == "wire.file_added"
    assert all(character.isprintable() for character in found.value.text())


def test_files_that_cannot_be_checked_alone_say_so(case: Any, tmp_path: Path) -> None:
    folder = case.write(tmp_path / "evidence")
    for name in ("releases/query-1.evidence", "presentations/bill-1.evidence", "access/one-entry.evidence", NAME):
        with pytest.raises(Refused) as refused:
            case.verify(folder / name)
        assert refused.value.code == "verify.needs_folder"
    for name in ("receipts/bureau-1.evidence", "values/absent.evidence", "ledger.evidence"):
        assert case.verify(folder / name).verdict == "verified"


def test_a_chain_of_nobodys_is_not_passed_over(case: Any, tmp_path: Path) -> None:
    """Its entries would be told as a member's, and nothing anchors them."""
    batch = replace(case.structs[NAME], organisation="hospital-9")
    case.write(tmp_path / "evidence", case.structs | {"access/hospital-9-1.evidence": batch})
    with pytest.raises(VerificationError) as found:
        case.verify(tmp_path / "evidence")
    assert found.value.code == "verify.not_anchored" and "hospital-9" in found.value.message
