"""Extracts and snapshots beside plain Parquet: what encryption, hash and seal cost on a million rows of 20 columns."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import peer
from benchmarks.measure import Effort, Figure, Timed, beside, effort, in_turn, spread
from privacy.audit import AuditTrail
from privacy.copies.extracts import ExtractWanted, open_extract, stage_extract
from privacy.copies.snapshots import Snapshots
from privacy.decide import AnchoredGrant, GrantState, UseRequest, decide
from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.terms import check_grant, plain_terms, sign_grant
from privacy.keys import Argon2Cost, FileKeyProvider
from privacy.masking.disclosure_risk import RiskColumns, RiskPolicy, measure
from privacy.vault import Vault
from wire.sealing import OpenKey
from wire.signing import Signer

ROWS, QUICK_ROWS = 1_000_000, 50_000
_NOW, _END, _ON = 1_000_000, 2_000_000, 25_567


def claims(rows: int) -> pa.Table:
    """Twenty columns as a claims table has them: ids, amounts in fen, codes of few values, days. No real data."""
    draw = np.random.default_rng(7)
    columns: dict[str, Any] = {
        "person": [f"P{number:09d}" for number in draw.integers(0, rows // 3 + 1, rows)],
        "bill": [f"B{number:012x}" for number in draw.integers(0, 2**48, rows)],
    }
    for at, mean in enumerate((50_000, 30_000, 20_000, 8_000, 5_000, 3_000, 1_000)):
        amounts = np.round(draw.lognormal(np.log(mean), 1.2, rows)).astype(np.int64)
        columns[f"amount_{at}"] = amounts * (draw.random(rows) < 0.6)
    for at, values in enumerate((2_000, 800, 300, 60, 12, 5, 3)):
        codes = np.array([f"C{number:04d}" for number in range(values)])
        columns[f"code_{at}"] = codes[np.minimum(draw.zipf(1.3, rows) - 1, values - 1)]
    columns["day"] = pa.array(draw.integers(18_000, 19_000, rows).astype(np.int32)).cast(pa.date32())
    columns["birth"] = pa.array(draw.integers(-15_000, 15_000, rows).astype(np.int32)).cast(pa.date32())
    columns["inpatient"] = draw.integers(0, 2, rows).astype(bool)
    columns["score"] = draw.normal(size=rows)
    return pa.table(columns)


class _Maker:
    """A hospital that makes extracts of all columns, without a row filter and without masks."""

    def __init__(self, folder: Path, table: pa.Table, trail: AuditTrail) -> None:
        self._folder, self._table, self._trail = folder, table, trail
        self._signer = Signer(secrets.token_bytes(32))
        self.own = OpenKey.generate(secrets.token_bytes)
        self._risk = measure(table, RiskColumns(("day", "birth")), RiskPolicy(persons=1, diversity=1)).report
        terms = plain_terms(
            "grant-1",
            "hospital-1",
            "university",
            "claims-1",
            table.column_names,
            purposes=("HRESCH",),
            uses=("extract",),
            legal_basis="statutory-duty",
            not_before=_NOW,
            expires=_END,
            pia_ref="pia/1",
            min_group=1,
        )
        self._grant = check_grant(sign_grant(terms, self._signer, secrets.token_bytes(32)), self._signer.key)
        anchor = AnchoredGrant("grant-1", "hospital-1", self._grant.commitment, _NOW, _END, 0, False)
        facts = DatasetFacts("claims-1", tuple(ColumnFacts(name, 3) for name in table.column_names))
        self._state = GrantState((anchor,), datasets=(facts,))

    def make(self, path: Path) -> None:
        """From the decision to the file: intent, body, anchoring noted, end, outcome."""
        fields = tuple(self._table.column_names)
        request = UseRequest("hospital-1", "university", "claims-1", fields, "extract", "HRESCH")
        extract, mask_key = secrets.token_bytes(16), secrets.token_bytes(32)
        wanted = ExtractWanted(extract, self._grant, request, {}, self.own.key, self._risk, mask_key, _ON)

        def decision() -> Any:
            return decide(request, [self._grant], self._state, _NOW)

        staged = stage_extract(path, self._table, wanted, decision, self._trail, _NOW)
        while (batch := self._trail.batch()) is not None:
            self._trail.anchored(batch)
        staged.release(self._trail, self._signer, decision)

    def open(self, path: Path) -> pa.Table:
        """The rows, everything checked."""
        return open_extract(path, [self.own], [self._signer.key], "university", _NOW)[1]


def _plain(table: pa.Table, path: Path) -> None:
    """On disk when it returns, as an extract is."""
    with path.open("wb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())


def figures(folder: Path, quick: bool) -> Iterator[Figure]:
    """Writing and reading an extract beside `pyarrow.parquet.write_table`, as durably, and `read_table` of the same."""
    table = claims(QUICK_ROWS if quick else ROWS)
    plain = peer("pyarrow", "plain Parquet")
    few = effort(quick, Effort(7, 12.0))
    numbers = iter(range(10**6))
    with AuditTrail(folder / "audit.sqlite", "hospital-1") as trail:
        maker = _Maker(folder, table, trail)

        def fresh() -> Path:
            for old in folder.glob("round-*"):
                old.unlink()
            return folder / f"round-{next(numbers)}"

        rounds = in_turn(
            lambda path: maker.make(path.with_suffix(".extract")),
            lambda path: _plain(table, path.with_suffix(".parquet")),
            fresh,
            few,
        )
        yield from _and_ratio("extract_write", plain, rounds, table.num_rows)
        path = fresh()
        maker.make(path.with_suffix(".extract"))
        pq.write_table(table, path.with_suffix(".parquet"))
        if not maker.open(path.with_suffix(".extract")).equals(table):
            raise AssertionError("what was read is not what was written")
        rounds = in_turn(
            lambda _: maker.open(path.with_suffix(".extract")),
            lambda _: pq.read_table(path.with_suffix(".parquet")),
            lambda: None,
            few,
        )
        yield from _and_ratio("extract_read", plain, rounds, table.num_rows)


def _and_ratio(name: str, plain: str, rounds: Timed, count: int) -> Iterator[Figure]:
    """Rows a second, and them as a share of what plain Parquet does."""
    yield beside(f"{name}_per_s", "rows/s", plain, rounds, count)
    shares = [theirs / ours for ours, theirs in rounds]
    yield Figure(f"{name}_ratio", median(shares), "share", None, None, spread(shares), len(rounds))


def recut(folder: Path, quick: bool) -> Iterator[Figure]:
    """A snapshot: built, read, and re-cut after one person was erased."""
    table = claims(QUICK_ROWS if quick else 300_000)
    provider = FileKeyProvider.create(folder / "snapshot-keys", secrets.token_bytes(32), cost=Argon2Cost(1, 8, 1))
    with Vault.create(folder / "snapshot-vault", provider, "hospital-1") as vault:
        vault.ingest("claims-1", table, table["person"].to_pylist())
        snapshots = Snapshots(vault, folder / "snapshots")
        began = time.perf_counter()
        snapshots.refresh("claims-1")
        yield Figure("snapshot_build_s", time.perf_counter() - began, "s", rounds=1)
        rounds = in_turn(
            lambda _: snapshots.table("claims-1"), lambda _: vault.read("claims-1"), lambda: None, Effort(2, 1.0)
        )
        yield beside("snapshot_read", "rows/s", "Vault.read", rounds, table.num_rows)
        taken = []
        for name in table["person"].to_pylist()[: 2 if quick else 3]:
            vault.destroy([key.key for key in vault.keys_of(name)], bytes(32))
            began = time.perf_counter()
            snapshots.refresh("claims-1")
            taken.append(time.perf_counter() - began)
        yield Figure("snapshot_recut_s", median(taken), "s", rounds=len(taken))
