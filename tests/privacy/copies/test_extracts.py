"""Extracts: filtered, masked, sealed to one recipient; nothing leaves without its anchored entry in the trail."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from privacy.copies import encrypted_parquet, extracts
from privacy.copies.extract_file import ExtractColumn
from privacy.copies.extracts import ExtractWanted, PersonsOf, open_extract, report_hash, stage_extract
from privacy.grants.levels import ColumnFacts, Content, DatasetFacts
from privacy.grants.opt_outs import OptOutState, PersonScopes
from privacy.grants.terms import GrantTerms
from privacy.masking.disclosure_risk import RiskColumns, RiskReport
from privacy.masking.masks import Mask
from privacy.predicate import Compare, In
from tests.privacy.copies.extracting import UNMEASURED, Issuer, extract_terms, issuer_in, report
from wire.errors import ConsentDenied, Refused, Unavailable
from wire.sealing import HYBRID, X25519, OpenKey


@pytest.fixture
def issuer(tmp_path: Path, terms: GrantTerms) -> Iterator[Issuer]:
    with issuer_in(tmp_path, extract_terms(terms)) as made:
        yield made


@pytest.fixture(params=[X25519, HYBRID], ids=["x25519", "hybrid"])
def key(request: pytest.FixtureRequest) -> OpenKey:
    return OpenKey.generate(os.urandom, request.param)


@pytest.fixture
def own() -> OpenKey:
    return OpenKey.generate(os.urandom)


def test_the_recipient_reads_what_the_grant_lets_through(
    issuer: Issuer, key: OpenKey, table: pa.Table, tmp_path: Path
) -> None:
    path = tmp_path / "a.extract"
    wanted = issuer.wanted(key.key)
    facts = issuer.make(path, table, wanted)
    seen, rows = open_extract(path, [OpenKey.generate(os.urandom), key], [issuer.signer.key], "university", issuer.now)
    assert seen == facts
    assert rows.equals(table.filter(pc.field("visits") >= 0).select(["health", "cost", "visits"]))
    assert rows.num_rows == facts.rows == 4
    assert (facts.grant, facts.dataset, facts.purpose, facts.audit) == ("grant-1", "claims-1", "HRESCH", 1)
    assert (facts.commitment, facts.risk) == (issuer.grant.commitment, report_hash(wanted.risk))
    assert (facts.made, facts.delete_by) == (issuer.now, issuer.grant.terms.delete_by)
    assert facts.guarantee == "outside-differential-privacy"
    assert facts.columns[0] == ExtractColumn("health", "string", "")
    assert issuer.outcomes() == ["", "released"]
    assert issuer.trail.entries()[0].nonce == facts.cover.extract
    assert sorted(entry.name for entry in tmp_path.glob("*extract*")) == ["a.extract"]
    assert path.stat().st_mode & 0o077 == 0


def test_the_request_narrows_the_grants_rows(issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path) -> None:
    wanted = issuer.wanted(own.key, 1, predicate=In("health", ("poor", "fair")))
    issuer.make(tmp_path / "a.extract", table, wanted)
    _, rows = open_extract(tmp_path / "a.extract", [own], [issuer.signer.key], "university", issuer.now)
    assert rows["health"].to_pylist() == ["poor"]  # the fair row has visits below 0, which the grant leaves out


NAMES = {"name": "category", "number": "category", "phone": "category", "age": "number", "seen": "category"}
MASKS = (
    Mask("name", "surname"),
    Mask("number", "drop"),
    Mask("phone", "phone"),
    Mask("age", "band", (0, 18, 65)),
    Mask("seen", "shift"),
)


@pytest.fixture
def named() -> pa.Table:
    """Three people, with all that names them. who: keyed ids."""
    return pa.table(
        {
            "name": ["欧阳修", "王安石", "欧阳修"],
            "number": ["A1", "B2", "A1"],
            "phone": ["13812345678", "13987654321", "13812345678"],
            "age": [70, 17, 70],
            "seen": pa.array([10_000, 10_001, 10_007], pa.int32()).cast(pa.date32()),
            "who": pa.array([b"o" * 16, b"w" * 16, b"o" * 16], pa.binary(16)),
        }
    )


@pytest.fixture
def masking(tmp_path: Path, terms: GrantTerms) -> Iterator[Issuer]:
    folder = tmp_path / "masking"
    folder.mkdir()
    contents: dict[str, Content] = {
        "name": "name",
        "number": "identity-number",
        "phone": "phone",
        "age": "plain",
        "seen": "date",
    }
    facts = tuple(ColumnFacts(name, 4, content) for name, content in contents.items())
    with issuer_in(folder, extract_terms(terms, fields=tuple(NAMES), masks=MASKS, predicate=None)) as made:
        made.state = msgspec.structs.replace(made.state, datasets=(DatasetFacts("claims-1", facts),))
        yield made


def wanting(issuer: Issuer, own: OpenKey, rows: int, fields: tuple[str, ...] = tuple(NAMES)) -> ExtractWanted:
    wanted = issuer.wanted(own.key, rows, "who", fields=fields)
    return msgspec.structs.replace(wanted, kinds=NAMES, risk=UNMEASURED)


def test_the_masks_of_the_decision_are_applied_and_named(
    masking: Issuer, own: OpenKey, named: pa.Table, tmp_path: Path
) -> None:
    facts = masking.make(tmp_path / "a.extract", named, wanting(masking, own, 3))
    _, rows = open_extract(tmp_path / "a.extract", [own], [masking.signer.key], "university", masking.now)
    assert rows.column_names == ["name", "phone", "age", "seen"]
    shown = sorted(rows.drop_columns(["seen"]).to_pylist(), key=lambda row: row["phone"])
    ouyang = {"name": "欧阳", "phone": "138****5678", "age": "65+"}
    assert shown == [ouyang, ouyang, {"name": "王", "phone": "139****4321", "age": "0-17"}]
    days = sorted(rows.filter(pc.field("age") == "65+")["seen"].cast(pa.int32()).to_pylist())
    assert days[1] - days[0] == 7 and days[0] != 10_000
    masks = {column.name: column.mask for column in facts.columns}
    assert masks == {"name": "surname", "phone": "phone", "age": "band:0,18,65", "seen": "shift"}
    assert "who" not in masks and facts.delete_by == masking.grant.terms.delete_by


def test_the_order_of_loading_does_not_leave_where_anything_is_masked(
    terms: GrantTerms, own: OpenKey, tmp_path: Path
) -> None:
    """Neighbours that were loaded together would tell a shifted date; two extracts could be laid side by side."""
    count = 200
    table = pa.table(
        {
            "seen": pa.array(range(10_000, 10_000 + count), pa.int32()).cast(pa.date32()),
            "age": range(count),
            "who": pa.array([b"%016d" % number for number in range(count)], pa.binary(16)),
        }
    )
    facts = DatasetFacts("claims-1", (ColumnFacts("seen", 4, "date"), ColumnFacts("age", 3)))
    orders = []
    for name, masks, least in (("a", (), 1), ("b", (), 1), ("c", (Mask("seen", "keep"),), 1)):
        folder = tmp_path / name
        folder.mkdir()
        changes = {"fields": ("seen", "age"), "predicate": None, "masks": masks, "min_group": least}
        with issuer_in(folder, extract_terms(terms, **changes)) as issuer:
            issuer.state = msgspec.structs.replace(issuer.state, datasets=(facts,))
            wanted = issuer.wanted(own.key, count, "who", fields=("seen", "age"))
            wanted = msgspec.structs.replace(wanted, kinds={"age": "number"}, risk=UNMEASURED)
            issuer.make(folder / "a.extract", table, wanted)
            _, rows = open_extract(folder / "a.extract", [own], [issuer.signer.key], "university", issuer.now)
            orders.append(rows["age"].to_pylist())
    assert [sorted(order) for order in orders] == [list(range(count))] * 3
    assert orders[0] != orders[1] and list(range(count)) not in orders[:2]
    assert orders[2] == list(range(count))  # dates are in the open


OBJECTING = ("recipient:university",)


def opted_out(issuer: Issuer, scopes: tuple[str, ...] = OBJECTING) -> None:
    issuer.state = msgspec.structs.replace(issuer.state, opt_outs=OptOutState(scopes))


def of(*persons: bytes) -> PersonsOf:
    return lambda scopes: frozenset(persons) if scopes else frozenset()


def test_who_opted_out_is_left_out(masking: Issuer, own: OpenKey, named: pa.Table, tmp_path: Path) -> None:
    opted_out(masking)
    masking.make(tmp_path / "a.extract", named, wanting(masking, own, 1), persons_of=of(b"o" * 16))
    _, rows = open_extract(tmp_path / "a.extract", [own], [masking.signer.key], "university", masking.now)
    assert rows["name"].to_pylist() == ["王"]


def test_who_opts_out_before_the_release_stops_it(
    masking: Issuer, own: OpenKey, named: pa.Table, tmp_path: Path
) -> None:
    wanted = wanting(masking, own, 3)
    staged = masking.stage(tmp_path / "a.extract", named, wanted)
    masking.anchor()
    opted_out(masking)
    with pytest.raises(Refused) as raised:
        masking.release(staged, wanted, persons_of=of(b"o" * 16))
    assert raised.value.code == "extracts.changed"
    assert masking.outcomes() == ["", "aborted"] and not list(tmp_path.glob("*.extract*"))


def test_an_opt_out_withdrawn_before_the_release_does_not(
    masking: Issuer, own: OpenKey, named: pa.Table, tmp_path: Path
) -> None:
    opted_out(masking)
    wanted = wanting(masking, own, 1)
    staged = masking.stage(tmp_path / "a.extract", named, wanted, persons_of=of(b"o" * 16))
    masking.anchor()
    opted_out(masking, ())
    assert masking.release(staged, wanted).rows == 1


def test_opt_outs_need_to_know_whose_rows_they_are(
    masking: Issuer, own: OpenKey, named: pa.Table, tmp_path: Path
) -> None:
    opted_out(masking)
    wanted = msgspec.structs.replace(wanting(masking, own, 1, ("name",)), person_column="")
    with pytest.raises(Refused) as raised:
        masking.stage(tmp_path / "a.extract", named, wanted, persons_of=of(b"o" * 16))
    assert raised.value.code == "extracts.no_persons"
    with pytest.raises(ValueError, match="who the persons are"):
        masking.stage(tmp_path / "a.extract", named, wanting(masking, own, 1))
    assert masking.outcomes() == ["", "failed", "", "failed"]


def test_masks_that_changed_before_the_release_stop_it(
    issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path
) -> None:
    """The officer classified a column higher meanwhile."""
    wanted = issuer.wanted(own.key, fields=("health",))
    staged = issuer.stage(tmp_path / "a.extract", table, wanted)
    issuer.anchor()
    facts = DatasetFacts("claims-1", (ColumnFacts("health", 4, "name"), ColumnFacts("visits", 2)))
    issuer.state = msgspec.structs.replace(issuer.state, datasets=(facts,))
    with pytest.raises(Refused) as raised:
        issuer.release(staged, wanted)
    assert raised.value.code == "extracts.changed" and issuer.outcomes() == ["", "aborted"]


@pytest.mark.parametrize(
    ("risk", "code"),
    [
        (report(4), "extracts.risk"),  # the grant wants groups of 2
        (report(4, least=2, offending=1), "extracts.risk"),
        (report(5, least=2), "extracts.risk_rows"),
        (report(3, least=2), "extracts.risk_rows"),
        (msgspec.structs.replace(report(4, least=2), persons=3), "extracts.risk_rows"),
        (msgspec.structs.replace(report(4, least=2), columns=RiskColumns(("health",))), "extracts.risk_rows"),
        (msgspec.structs.replace(report(4, least=2), columns=RiskColumns(("plan",))), "privacy.risk_column"),
    ],
)
def test_a_risk_that_is_too_high_or_of_other_rows_releases_nothing(
    terms: GrantTerms, own: OpenKey, table: pa.Table, tmp_path: Path, risk: RiskReport, code: str
) -> None:
    with issuer_in(tmp_path, extract_terms(terms, min_group=2)) as issuer:
        wanted = msgspec.structs.replace(issuer.wanted(own.key), risk=risk)
        with pytest.raises(Refused) as raised:
            issuer.stage(tmp_path / "a.extract", table, wanted)
        assert raised.value.code == code
        assert issuer.outcomes() == ["", "failed"] and not list(tmp_path.glob("*.extract*"))
        issuer.make(tmp_path / "a.extract", table, msgspec.structs.replace(wanted, risk=report(4, least=2)))


def test_a_report_of_as_many_other_rows_releases_nothing(
    masking: Issuer, own: OpenKey, named: pa.Table, tmp_path: Path
) -> None:
    """Measured on one person's rows and made of another's; or with a masked name taken for nobody's business."""
    names = wanting(masking, own, 2, ("name",))
    wanted = masking.measured(named.take([0, 2]), names)
    with pytest.raises(Refused) as raised:
        masking.stage(tmp_path / "a.extract", named.slice(0, 2), wanted)
    assert raised.value.code == "extracts.risk_rows"
    open_ = msgspec.structs.replace(wanting(masking, own, 3), risk=report(3))
    with pytest.raises(Refused) as raised:
        masking.stage(tmp_path / "a.extract", named, open_)
    assert raised.value.code == "extracts.risk_columns"
    assert raised.value.facts["columns"] == "name, phone, age"
    assert masking.outcomes() == ["", "failed"] * 2 and not list(tmp_path.glob("*.extract*"))


def test_one_persons_record_is_that_persons_rows(
    terms: GrantTerms, own: OpenKey, named: pa.Table, tmp_path: Path
) -> None:
    """Opt-outs of others do not count for such a use: it must not be a way to everybody's rows."""
    changes = {"fields": tuple(NAMES), "predicate": None, "purposes": ("PATRQT",)}
    with issuer_in(tmp_path, extract_terms(terms, **changes)) as issuer:
        scopes = (PersonScopes(b"w" * 16, ()),)
        facts = DatasetFacts("claims-1", tuple(ColumnFacts(name, 4) for name in NAMES))
        opted = OptOutState(OBJECTING, scopes)
        issuer.state = msgspec.structs.replace(issuer.state, opt_outs=opted, datasets=(facts,))
        of_wang = issuer.wanted(own.key, 1, "who", fields=("name", "age"), purpose="PATRQT", person=b"w" * 16)
        of_wang = msgspec.structs.replace(of_wang, kinds=NAMES, risk=UNMEASURED)
        issuer.make(tmp_path / "a.extract", named, of_wang)
        _, rows = open_extract(tmp_path / "a.extract", [own], [issuer.signer.key], "university", issuer.now)
        assert rows["name"].to_pylist() == ["王安石"]
        nobodys = msgspec.structs.replace(of_wang, person_column="", risk=report(3), extract=b"n" * 16)
        with pytest.raises(Refused) as raised:
            issuer.stage(tmp_path / "b.extract", named, nobodys)
        assert raised.value.code == "extracts.no_persons"


def test_the_column_that_says_whose_a_row_is_does_not_leave(
    terms: GrantTerms, own: OpenKey, named: pa.Table, tmp_path: Path
) -> None:
    with issuer_in(tmp_path, extract_terms(terms, fields=("age", "who"), predicate=None)) as issuer:
        plain = DatasetFacts("claims-1", (ColumnFacts("age", 3), ColumnFacts("who", 3)))
        issuer.state = msgspec.structs.replace(issuer.state, datasets=(plain,))
        wanted = msgspec.structs.replace(issuer.wanted(own.key, 3, "who", fields=("age", "who")), kinds=NAMES)
        with pytest.raises(Refused) as raised:
            issuer.stage(tmp_path / "a.extract", named, wanted)
        assert (raised.value.code, raised.value.facts["column"]) == ("extracts.column", "who")


def test_rows_are_written_in_whole_row_groups(
    issuer: Issuer, own: OpenKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (encrypted_parquet, extracts):
        monkeypatch.setattr(module, "ROW_GROUP", 7_000)
    count = 20_100
    whole = pa.table({"visits": np.arange(count) - 50, "cost": np.ones(count), "health": ["a"] * count})
    whole = pa.Table.from_batches(whole.to_batches(max_chunksize=900))
    issuer.make(tmp_path / "a.extract", whole, issuer.wanted(own.key, count - 50))
    _, rows = open_extract(tmp_path / "a.extract", [own], [issuer.signer.key], "university", issuer.now)
    assert rows["visits"].to_pylist() == list(range(count - 50))


def test_an_empty_extract_says_so(issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path) -> None:
    facts = issuer.make(tmp_path / "a.extract", table.slice(0, 0), issuer.wanted(own.key, 0))
    _, rows = open_extract(tmp_path / "a.extract", [own], [issuer.signer.key], "university", issuer.now)
    assert rows.num_rows == facts.rows == 0 and rows.column_names == ["health", "cost", "visits"]


def test_text_of_the_tables_source_does_not_leave(
    issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path
) -> None:
    """Arrow schemas carry free text, such as pandas' description with the ranges of an index."""
    marked = table.replace_schema_metadata({"pandas": "ward-7 of wang-wu"})
    issuer.make(tmp_path / "a.extract", marked, issuer.wanted(own.key))
    _, rows = open_extract(tmp_path / "a.extract", [own], [issuer.signer.key], "university", issuer.now)
    assert not rows.schema.metadata


def test_nothing_is_readable_in_the_file_or_beside_it(issuer: Issuer, own: OpenKey, tmp_path: Path) -> None:
    marked = pa.table({"visits": [1] * 50, "cost": [2.5] * 50, "health": ["wang-wu-of-ward-7"] * 50})
    wanted = issuer.wanted(own.key, 50)
    staged = issuer.stage(tmp_path / "a.extract", marked, wanted)
    for path in tmp_path.iterdir():
        assert b"wang-wu" not in path.read_bytes() and b"visits" not in path.read_bytes()
    issuer.anchor()
    issuer.release(staged, wanted)
    data = (tmp_path / "a.extract").read_bytes()
    for secret in (b"wang-wu", b"visits", b"grant-1", b"claims-1", b"HRESCH"):
        assert secret not in data
    assert "key=" not in repr(staged) and staged._key.hex() not in repr(staged)


# ---- no log, no extract


def test_nothing_is_released_before_the_intent_is_anchored(
    issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path
) -> None:
    wanted = issuer.wanted(own.key)
    staged = issuer.stage(tmp_path / "a.extract", table, wanted)
    batch = issuer.trail.batch()  # made, perhaps sent: not yet there
    for _ in range(2):
        with pytest.raises(Unavailable) as raised:
            issuer.release(staged, wanted)
        assert raised.value.code == "extracts.not_anchored" and raised.value.retry_after
    assert not (tmp_path / "a.extract").exists()
    assert batch is not None
    issuer.trail.anchored(batch)
    issuer.release(staged, wanted)
    assert (tmp_path / "a.extract").exists()


def test_a_grant_revoked_in_between_releases_nothing(
    issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path
) -> None:
    wanted = issuer.wanted(own.key)
    staged = issuer.stage(tmp_path / "a.extract", table, wanted)
    issuer.anchor()
    (entry,) = issuer.state.anchored
    issuer.state = msgspec.structs.replace(issuer.state, anchored=(msgspec.structs.replace(entry, revoked=True),))
    with pytest.raises(ConsentDenied) as raised:
        issuer.release(staged, wanted)
    assert raised.value.code == "privacy.deny_revocation"
    assert issuer.outcomes() == ["", "aborted"]
    assert not list(tmp_path.glob("*extract*"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"fields": ("health", "plan")}, "privacy.deny_fields"),
        ({"purpose": "HMARKT"}, "privacy.deny_purpose"),
        ({"recipient": "insurer-1"}, "privacy.deny_no_grant"),
        ({"predicate": Compare("plan", "eq", "yes")}, "privacy.deny_fields"),
    ],
)
def test_a_denied_extract_is_noted_and_leaves_nothing(
    issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(ConsentDenied) as raised:
        issuer.stage(tmp_path / "a.extract", table, issuer.wanted(own.key, **changes))
    assert raised.value.code == code
    assert issuer.outcomes() == ["", "denied"]
    assert not list(tmp_path.glob("*extract*"))


def test_a_decision_about_something_else_is_not_enough(
    issuer: Issuer, own: OpenKey, table: pa.Table, tmp_path: Path
) -> None:
    """The caller's mix-up: a decision that allows, of another grant, dataset, recipient or set of fields."""
    wanted = issuer.wanted(own.key)
    allowed = issuer.deciding(wanted)()
    assert allowed.allowed
    for changes in ({"grant": "grant-2"}, {"dataset": "claims-2"}, {"recipient": "insurer-1"}):
        other = msgspec.structs.replace(allowed, **changes)
        with pytest.raises(ConsentDenied):
            stage_extract(tmp_path / "a.extract", table, wanted, partial(deepcopy, other), issuer.trail, issuer.now)
    wider = msgspec.structs.replace(wanted, request=msgspec.structs.replace(wanted.request, fields=("plan",)))
    query = msgspec.structs.replace(wanted, request=msgspec.structs.replace(wanted.request, kind="query"))
    for changed in (wider, query):
        with pytest.raises(ConsentDenied):
            stage_extract(tmp_path / "a.extract", table, changed, lambda: allowed, issuer.trail, issuer.now)
    assert issuer.outcomes() == [] and not list(tmp_path.glob("*extract*"))


@pytest.mark.parametrize(
    ("table_of", "code"),
    [
        (lambda: pa.table({"visits": [1], "cost": [1.0]}), "extracts.column"),
        (lambda: pa.table({"visits": [1], "cost": [[1]], "health": ["a"]}), "privacy.column_type"),
        (lambda: pa.table({"cost": [1.0], "health": ["a"]}), "extracts.column"),
    ],
)
def test_a_table_that_does_not_fit_is_a_noted_failure(
    issuer: Issuer, own: OpenKey, tmp_path: Path, table_of: Callable[[], pa.Table], code: str
) -> None:
    with pytest.raises(Refused) as raised:
        issuer.stage(tmp_path / "a.extract", table_of(), issuer.wanted(own.key))
    assert raised.value.code == code
    assert issuer.outcomes() == ["", "failed"]
    assert not list(tmp_path.glob("*extract*"))
