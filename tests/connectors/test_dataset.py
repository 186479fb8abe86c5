"""dataset.toml: what is understood, and every fault by its code."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.dataset import BUILT_IN, load_layout, parse_layout, read_layout
from connectors.files import read_lines
from connectors.layout import Layout, local_plan
from wire.canonical import decode, encode
from wire.errors import DecodeError, MedveilError, Unavailable


def test_what_is_declared_is_what_is_known(small: Layout) -> None:
    cost = small.column("cost")
    assert (cost.low, cost.high, cost.scale) == (-500, 100_000, 100)
    assert set(cost.missing) == {"", "?", "NA", "-1", "99999"}
    assert small.column("sex").codes == (("0", "female"), ("1", "male"))
    assert [(case.test, case.bound, case.value) for case in small.column("age_band").cases] == [
        ("at_least", 65, "65-up"),
        ("at_least", 40, "40-64"),
    ]
    assert small.record_id == "visit_no" and small.ignored == ("notes",) and small.rows_per_person == 1
    assert small.split_rule.text() == "One file a site."


def test_bounds_are_exact_decimals(small_toml: str) -> None:
    text = small_toml.replace("high = 1000\nscale = 100", "high = 1000.07\nscale = 100").replace("1000]", "1000.07]")
    assert parse_layout(text.encode(), "x").column("cost").high == 100_007


def test_a_header_name_of_the_file_may_be_any_text(small_toml: str) -> None:
    text = small_toml.replace('name = "age"\n', 'name = "age"\nsource = "年龄"\ntitle_zh = "年龄"\n')
    layout = parse_layout(text.encode(), "x")
    assert layout.column("age").source == "年龄" and layout.label("age").text("zh") == "年龄"


def test_a_byte_order_mark_is_no_fault(small_toml: str, small: Layout) -> None:
    assert parse_layout(b"\xef\xbb\xbf" + small_toml.encode(), "x") == small


FAULTS = {
    "toml_syntax": [("version = 1", "version = = 1"), ("low = 0", "low = " + "9" * 5000)],
    "toml_version": [("version = 1", "version = 2")],
    "toml_shape": [
        ('unit = "row"', 'unit = "household"'),
        ('name = "small"', ""),
        ('name = "small"', 'name = "Small Table"'),
        ('name = "age"', 'name = "age in years"'),
        ('name = "age"', 'name = "age\\n"'),
        ('record_id = "visit_no"', 'record_id = "visit_no\\n"'),
        ("low = 0", "low = true"),
        ("low = 0", "lowest = 0"),
        ("scale = 100", "scale = 0"),
        ("minimum = 10", "minimum = 0"),
        ("version = 1", 'version = "1"'),
    ],
    "toml_repeated": [
        ('name = "cost"', 'name = "age"'),
        ('record_id = "visit_no"', 'record_id = "age"'),
        ('ignored = ["notes"]', 'ignored = ["age"]'),
        ('ignored = ["notes"]', 'ignored = [" notes"]'),
        ('ignored = ["notes"]', 'ignored = [""]'),
    ],
    "toml_bounds": [
        ("low = 0", ""),
        ("low = 0", "low = 120"),
        ("low = 0", "low = nan"),
        ("high = 120", "high = inf"),
        ("low = 0", 'low = "none"'),
        ("low = 0", 'low = 0\nvalues = ["a"]'),
    ],
    "toml_lattice": [("low = 0", "low = 0.5"), ("high = 120", "high = 1e20"), ("9.5", "9.555")],
    "toml_values": [
        ('values = ["female", "male"]', ""),
        ('values = ["female", "male"]', 'values = ["female", "male", "male"]'),
        ('values = ["female", "male"]', 'values = ["female", "male", "other"]'),
        ('values = ["female", "male"]', 'values = ["female", "male", "a|b"]'),
        ('values = ["female", "male"]', 'values = ["female", "male", "a=b"]'),
        ('values = ["female", "male"]', 'values = ["female", "male", "a\\nb"]'),
        ('values = ["female", "male"]', 'values = ["female", "male", ""]'),
        ('values = ["female", "male"]', 'values = ["female", "male"]\nlow = 1'),
    ],
    "toml_codes": [('1 = "male"', '1 = "man"'), ('1 = "male"', '"" = "male"'), ('1 = "male"', '" 0" = "male"')],
    "toml_cases": [
        ('column = "age", at_least = 65', 'column = "sex", at_least = 65'),
        ('column = "age", at_least = 65', 'column = "later", at_least = 65'),
        ('column = "age", at_least = 65', 'column = "age"'),
        ('column = "age", at_least = 65', 'column = "age", equals = 1, at_least = 65'),
        ('otherwise = "under-40"', ""),
        ('otherwise = "under-40"', 'otherwise = "young"'),
        ("high = 120", 'high = 120\notherwise = "x"'),
    ],
    "toml_study": [
        ('measure = "cost"', 'measure = "sex"'),
        ('measure = "cost"', 'measure = "costs"'),
        ('groups = ["age_band", "sex"]', 'groups = ["age"]'),
        ('groups = ["age_band", "sex"]', 'groups = ["sex", "sex"]'),
    ],
    "toml_edges": [
        ("edges = [-5, 0, 9.5, 1000]", "edges = [-6, 1000]"),
        ("edges = [-5, 0, 9.5, 1000]", "edges = [-5, 1001]"),
        ("edges = [-5, 0, 9.5, 1000]", "edges = [-5, 3, 3, 1000]"),
        ("edges = [-5, 0, 9.5, 1000]", "edges = [-5]"),
    ],
    "toml_person": [('unit = "row"', 'unit = "person"')],
    "toml_rows_per_person": [('unit = "row"', 'unit = "row"\nrows_per_person = 2')],
    "toml_ignored": [('unit = "row"', 'unit = "row"\nheader = false')],
}


@pytest.mark.parametrize(("code", "old", "new"), [(code, *edit) for code, edits in FAULTS.items() for edit in edits])
def test_a_fault_names_the_file_and_the_fix(small_toml: str, code: str, old: str, new: str) -> None:
    assert old in small_toml
    with pytest.raises(DecodeError) as caught:
        parse_layout(small_toml.replace(old, new, 1).encode(), "there/dataset.toml")
    assert caught.value.code == f"connectors.{code}"
    for language in ("en", "zh"):
        assert "there/dataset.toml" in caught.value.text(language) and "{" not in caught.value.text(language)


def test_too_many_cells_are_refused(small_toml: str) -> None:
    values = ", ".join(f'"v{i}"' for i in range(999))
    many = small_toml.replace('"female", "male"]', f'"female", {values}]').replace('1 = "male"', '1 = "v1"')
    edges = ", ".join(["-5", *(str(i) for i in range(40)), "1000"])
    with pytest.raises(DecodeError) as caught:
        parse_layout(many.replace("-5, 0, 9.5, 1000", edges).encode(), "x")
    assert caught.value.code == "connectors.toml_study"


def test_only_computed_columns_are_refused() -> None:
    text = """
version = 1
name = "a"
population = "a"
unit = "row"
columns = [{ name = "x", kind = "category", values = ["a"], cases = [], otherwise = "a" }]
"""
    with pytest.raises(DecodeError) as caught:
        parse_layout(text.encode(), "x")
    assert caught.value.code == "connectors.toml_cases"


def test_the_line_of_a_syntax_fault_is_named(small_toml: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_layout((small_toml + "\nx = =\n").encode(), "x")
    assert caught.value.facts["line"] == small_toml.count("\n") + 2


def test_a_bracket_left_open_is_named_by_the_last_line(small_toml: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_layout((small_toml + "\nx = [[\n\n").encode(), "x")
    assert caught.value.facts["line"] == small_toml.count("\n") + 2


def test_not_utf8_and_too_long(small_toml: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_layout(small_toml.encode() + b"\n# \xff", "x")
    assert caught.value.code == "connectors.not_utf8" and caught.value.facts["line"] == small_toml.count("\n") + 2
    with pytest.raises(DecodeError) as caught:
        parse_layout(b"#" * (1024 * 1024 + 1), "x")
    assert caught.value.code == "connectors.toml_too_long"


def test_every_layout_that_is_shipped_is_named() -> None:
    folder = resources.files("connectors").joinpath("layouts")
    assert sorted(entry.name for entry in folder.iterdir()) == [f"{name}.toml" for name in BUILT_IN]
    assert all(load_layout(name).name == name for name in BUILT_IN)


def test_the_example_of_the_documentation_is_true() -> None:
    root = Path(__file__).parent.parent.parent
    text = (root / "docs" / "dataset-toml.md").read_text(encoding="utf-8")
    layout = parse_layout(text.split("```toml\n")[1].split("```")[0].encode(), "dataset.toml")
    csv = text.split("`north.csv`:\n\n")[1].split("\n\n")[0]
    table = read_lines([line.strip().encode() + b"\n" for line in csv.splitlines()], "north.csv", layout)
    assert table.to_pydict() == {
        "visit_no": ["v-0001", "v-0002"],
        "age": [63.0, None],
        "cost": [128.5, None],
        "sex": ["female", "male"],
        "age_band": ["40-64", None],
    }
    assert local_plan(layout, 100).edges == (0, 10_000, 50_000, 200_000, 5_000_000)


def test_an_unknown_built_in_layout() -> None:
    with pytest.raises(DecodeError, match="heart, randhie"):
        load_layout("../secrets")


def test_reading_the_file_itself(
    tmp_path: Path, small_toml: str, small: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dataset.toml"
    with pytest.raises(Unavailable) as missing:
        read_layout(path)
    assert missing.value.code == "connectors.file_missing"
    path.write_text(small_toml, encoding="utf-8")
    assert read_layout(path) == small
    with pytest.raises(DecodeError) as folder:
        read_layout(tmp_path)
    assert folder.value.code == "connectors.not_a_file"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(Unavailable) as unreadable:
        read_layout(path)
    assert unreadable.value.code == "connectors.unreadable"


@given(st.data())
def test_a_damaged_declaration_is_a_layout_or_one_clear_error(data: st.DataObject) -> None:
    text = bytearray(_SMALL_BYTES)
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        layout = parse_layout(bytes(text), "dataset.toml")
    except MedveilError as error:
        assert isinstance(error, DecodeError) and error.message and error.fix
    else:
        assert decode(Layout, encode(layout)) == layout


_SMALL_BYTES = (Path(__file__).parent.parent.parent / "connectors" / "layouts" / "heart.toml").read_bytes()
