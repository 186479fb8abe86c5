"""mpc.release: four sites, both phases, against the plain pooled answer; then every way to tamper with it."""

from __future__ import annotations

import statistics
from decimal import Decimal
from fractions import Fraction
from math import sqrt

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpc import release as releases
from mpc.budget import split
from mpc.query import Measure, local_plans
from mpc.release import DatasetNote, Release, finish, hidden_words, verify_release
from mpc.sum_messages import Opened
from privacy.local import GroupColumn
from wire import canonical, evidence
from wire.errors import DecodeError, MedveilError, Refused, VerificationError

EDGES = (0, 1, 3, 6, 10, 30)


def changed(struct, **fields):
    return msgspec.structs.replace(struct, **fields)


def number(text: str | None) -> float:
    assert text is not None
    return float(Decimal(text))


@pytest.fixture
def query(make_query):
    return make_query()


@pytest.fixture
def released(query, salt, board) -> Release:
    return finish(query, salt, board, (DatasetNote("hospital-1", "hospital-1.visits", "dirty rate 1.2 %"),))


def pooled(query, rows):
    """The plain answer on the pooled, clamped data: label -> values."""
    (plan,) = local_plans(query)
    labels, low, high = plan.group_labels(), plan.low, plan.high
    out = {label: [] for label in labels}
    for one in rows:
        for group, value in one:
            out[labels[group]].append(min(max(value, low), high))
    return out


def within(estimate, plain: float, times: float = 4.2) -> None:
    """`plain` is within `times` half-widths of a 95 percent interval: 4.2 of them are 8.2 sigma."""
    low, high, value = number(estimate.low), number(estimate.high), number(estimate.value)
    assert low <= value <= high
    half = max(high - value, value - low)
    assert abs(value - plain) <= times * half + 1e-3, (estimate, plain)


def test_four_sites_answer_as_the_pooled_data_within_the_stated_noise(query, rows, released):
    plain = pooled(query, rows)
    assert len(released.results[0].groups) + len(released.results[0].hidden) == 6
    for group in released.results[0].groups:
        values = plain[group.label]
        within(group.count, len(values))
        within(group.mean, statistics.mean(values))
        within(group.sd, statistics.stdev(values))
        histogram = [sum(1 for v in values if EDGES[i] <= v < EDGES[i + 1] or (i == 4 and v == 30)) for i in range(5)]
        for estimate, plain_bin in zip(group.bins, histogram, strict=True):
            within(estimate, plain_bin)


def test_small_groups_are_hidden_with_the_reason(query, rows, released):
    plain = pooled(query, rows)
    shown = {group.label for group in released.results[0].groups}
    assert {label for label, values in plain.items() if len(values) > 120 + 60} <= shown
    (hidden,) = [h for h in released.results[0].hidden if h.label == "health=poor|plan=no"]
    assert len(plain[hidden.label]) == 12
    assert abs(number(hidden.noisy_count) - 12) < 7.5 * 10.01
    assert hidden.reason == "noisy-count-below-minimum"
    assert "120" in hidden.text() and "health=poor|plan=no" in hidden.text("zh")
    assert hidden_words([hidden]) == (hidden.text(),) and hidden_words([]) == ()
    other = msgspec.structs.replace(hidden, label="health=poor|plan=yes", noisy_count="-3.5")
    for reason in ("noisy-count-below-minimum", "perhaps-small", "protects-another", "withheld"):
        both = [msgspec.structs.replace(one, reason=reason) for one in (hidden, other)]
        for language in ("en", "zh"):
            (line,) = hidden_words(both, language)
            assert all(f"{one.label} ({one.noisy_count})" in line for one in both) and "{" not in line
            assert len(hidden_words([both[0], msgspec.structs.replace(other, minimum=7)], language)) == 2


def test_the_release_states_what_it_cost(query, released, board):
    assert (released.unit, released.rows_per_person, released.rows_of_one_unit) == ("row", 1, 1)
    assert released.rho_nano == query.rho_nano
    assert [e.assumption for e in released.epsilons] == ["all-honest", "colluders", "one-honest"]
    assert released.budget_before_nano - released.budget_after_nano == query.rho_nano
    assert (released.sites, released.lost) == (query.roster, ())
    noise = {n.kind: n for n in released.noise}
    assert sum(n.rho_nano for n in released.noise) == query.rho_nano
    for kind, rho, change in (
        ("gate", 0.01, 1),
        ("counts", 0.02, 1),
        ("sums", 0.03, 15),
        ("squares", 0.02, 225),
        ("bins", 0.02, 1),
    ):
        sigma = change / sqrt(2 * rho)
        assert number(noise[kind].required) == pytest.approx(sigma, abs=1e-3)
        assert number(noise[kind].site) == pytest.approx(sigma / sqrt(2), rel=1e-3)
        assert number(noise[kind].pooled) == pytest.approx(sigma * sqrt(2), rel=1e-3)
    assert released.notes[0].text == "dirty rate 1.2 %"


def test_intervals_cover_the_stated_share(query, salt, consortium, tables, rows, exact):
    """Noise put in by hand at the stated pooled size: the interval's half-width is 1.96 of it."""
    board = consortium.answer(query, tables, draw=exact)
    plain = pooled(query, rows)
    noise = {n.kind: number(n.pooled) for n in finish(query, salt, board).noise}
    for group in finish(query, salt, board).results[0].groups:
        values = plain[group.label]
        n, t = len(values), statistics.mean(values) - 15
        assert number(group.count.value) == n
        assert number(group.mean.value) == pytest.approx(statistics.mean(values), abs=1e-4)
        assert number(group.sd.value) == pytest.approx(statistics.stdev(values), abs=1e-4)
        assert number(group.count.high) - n == pytest.approx(1.959964 * noise["counts"], abs=1e-3)
        half = 1.959964 * sqrt(noise["sums"] ** 2 + (t * noise["counts"]) ** 2) / n
        assert number(group.mean.high) - number(group.mean.value) == pytest.approx(half, abs=1e-3)
        # the variance's first-order error, by finite differences of the finished sd
        variance = statistics.pvariance(values)
        q, s = sum(2 * (v - 15) ** 2 - 225 for v in values), sum(v - 15 for v in values)

        def of(n, s, q):
            return (q / n + 225) / 2 - (s / n) ** 2

        assert of(n, s, q) == pytest.approx(variance)
        steps = ((1, 0, 0, "counts"), (0, 1, 0, "sums"), (0, 0, 1, "squares"))
        error = sqrt(
            sum(
                ((of(n + a * 0.01, s + b * 0.01, q + c * 0.01) - variance) / 0.01 * noise[kind]) ** 2
                for a, b, c, kind in steps
            )
        )
        high = sqrt((variance + 1.959964 * error) * n / (n - 1))
        assert number(group.sd.high) == pytest.approx(high, rel=1e-3)


def test_noise_really_covers_the_intervals_over_many_releases(make_query, make_table, salt, consortium):
    """1,500 groups of one size: about 95 percent of the intervals hold the plain answer.

    Below 90 or above 99 percent of 1,500 has probability < 10^-13 (Chernoff). Noise half again as
    wide as stated would give 81 percent, two thirds as wide 99.7.
    """
    groups = (GroupColumn("code", tuple(f"g{i}" for i in range(1500)), other=False),)
    query = make_query(groups=groups, measures=(Measure("visits", 0, 30, 1),), split=split(10**8, False))
    values = [2, 5, 5, 9, 14, 20, 21, 29] * 20
    table = make_table(query, [(group, value) for group in range(1500) for value in values])
    result = finish(query, salt, consortium.answer(query, dict.fromkeys(query.roster, table)))
    everything = values * 4
    plain = {"count": 640, "mean": statistics.mean(everything), "sd": statistics.stdev(everything)}
    assert len(result.results[0].groups) == 1500
    for name, truth in plain.items():
        estimates = [getattr(group, name) for group in result.results[0].groups]
        inside = sum(number(e.low) - 1e-4 <= truth <= number(e.high) + 1e-4 for e in estimates)
        assert 1350 <= inside <= 1485, name


@pytest.mark.parametrize("scale", [10, 100, 1000])
def test_a_finer_scale_changes_nothing_but_digits(scale, make_query, make_table, rows, consortium, salt, exact):
    """Costs are kept in cents: numbers, intervals and noise are told in the measure's own unit all the same."""
    plain = make_query()
    fine = make_query(measures=(Measure("visits", 0, 30 * scale, scale, tuple(edge * scale for edge in EDGES)),))
    found = []
    for query, times in ((plain, 1), (fine, scale)):
        tables = {
            site: make_table(query, [(group, value * times) for group, value in one])
            for site, one in zip(query.roster, rows, strict=True)
        }
        found.append(finish(query, salt, consortium.answer(query, tables, draw=exact)))
    same = pytest.approx
    for one, other in zip(found[0].noise, found[1].noise, strict=True):
        assert (one.kind, one.unit, one.rho_nano) == (other.kind, other.unit, other.rho_nano)
        assert number(other.sensitivity) == number(one.sensitivity)
        assert number(other.required) == same(number(one.required), rel=1e-5)
        assert number(one.required) <= number(one.pooled) == same(number(other.pooled), rel=0.05)
        assert number(one.site) == same(number(other.site), rel=0.05)
    (first,), (second,) = found[0].results, found[1].results
    assert [group.label for group in first.groups] == [group.label for group in second.groups] and first.groups
    for one, other in zip(first.groups, second.groups, strict=True):
        for name in ("count", "mean", "sd"):
            here, there = getattr(one, name), getattr(other, name)
            assert number(there.value) == same(number(here.value), abs=1e-3), name
            for end in ("low", "high"):
                half = abs(number(getattr(here, end)) - number(here.value))
                assert abs(number(getattr(there, end)) - number(there.value)) == same(half, rel=0.1, abs=2e-3), name
        assert [number(one.value) for one in one.bins] == [number(other.value) for other in other.bins]


def test_a_person_unit_says_so_and_has_four_times_the_noise(make_query, make_table, rows, consortium, salt):
    query = make_query(unit="person")
    tables = {s: make_table(query, one) for s, one in zip(query.roster, rows, strict=True)}
    result = finish(query, salt, consortium.answer(query, tables))
    assert (result.unit, result.rows_of_one_unit) == ("person", 4)
    assert number(result.noise[0].required) == pytest.approx(4 / sqrt(2 * 0.01), abs=1e-3)
    assert number(result.noise[1].required) == pytest.approx(4 / sqrt(2 * 0.02), abs=1e-3)


def test_no_group_and_no_histogram(make_query, make_table, rows, consortium, salt):
    query = make_query(groups=(), measures=(Measure("visits", 0, 30, 1),), split=split(10**8, False))
    tables = {s: make_table(query, [(0, v) for _, v in one]) for s, one in zip(query.roster, rows, strict=True)}
    result = finish(query, salt, consortium.answer(query, tables))
    (group,) = result.results[0].groups
    assert (group.label, group.values, group.bins, result.results[0].hidden) == ("all", (), (), ())
    within(group.count, sum(len(one) for one in rows))


def test_when_all_groups_are_hidden_the_release_still_stands(make_query, make_table, consortium, salt):
    query = make_query(minimum_group=10**6)
    tables = dict.fromkeys(query.roster, make_table(query, [(0, 1)]))
    board = consortium.answer(query, tables)
    result = finish(query, salt, board)
    assert (result.results[0].groups, len(result.results[0].hidden)) == ((), 6)
    verify_release(result, board)


def test_a_variance_below_the_noise_is_not_resolved(make_query, make_table, consortium, salt):
    query = make_query(minimum_group=2, rho_nano=10**7, split=split(10**7, True))
    layout_sites = dict.fromkeys(query.roster, make_table(query, [(g, 0) for g in range(6) for _ in range(40)]))

    def pushed(scale, count):  # squares far below: the estimate of the variance is negative
        return ((-scale.reach if scale.kind == "squares" else 0),) * count

    result = finish(query, salt, consortium.answer(query, layout_sites, draw=pushed))
    for group in result.results[0].groups:
        assert group.sd.value is None
        assert number(group.sd.low) == 0 <= number(group.sd.high)
        assert number(group.mean.low) >= 0, "clipped to the declared bounds"


# --- verification -------------------------------------------------------------------------------


def test_a_stranger_verifies_it_with_both_curve_libraries(released, board):
    verify_release(released, board)
    verify_release(released, board, backend="reference")


def test_it_is_evidence(released):
    data = canonical.encode(released)
    assert evidence.read(data) == released
    assert released.header.kind == "release"
    with pytest.raises(DecodeError):
        evidence.read(data + b"\0")


@pytest.mark.parametrize(
    "field",
    [name for name in Release.__struct_fields__ if name not in ("notes", "handle", "query", "salt", "header")],
)
def test_every_changed_field_is_named(released, board, field):
    value = getattr(released, field)
    wrong = {
        "unit": "person",
        "rows_per_person": 2,
        "rows_of_one_unit": 2,
        "rho_nano": 1,
        "epsilons": value[1:] if isinstance(value, tuple) else None,
        "noise": value[::-1] if isinstance(value, tuple) else None,
        "results": (),
        "spread": "one-site",
        "sites": value[1:] if isinstance(value, tuple) else None,
        "lost": ("hospital-4",),
        "survivors": value[::-1] if isinstance(value, tuple) else None,
        "budget_before_nano": 5,
        "budget_after_nano": 5,
        "phases": value[::-1] if isinstance(value, tuple) else None,
    }[field]
    with pytest.raises(VerificationError) as caught:
        verify_release(changed(released, **{field: wrong}), board)
    assert caught.value.facts["field"] == field


def test_a_polished_number_is_caught(released, board):
    group = released.results[0].groups[0]
    polished = changed(group, mean=changed(group.mean, value="1"))
    (result,) = released.results
    for polish in (changed(result, groups=(polished, *result.groups[1:])), changed(result, hidden=())):
        with pytest.raises(VerificationError, match="results"):
            verify_release(changed(released, results=(polish,)), board)


def test_another_query_or_salt_does_not_open_the_hash(released, board):
    for fields in (
        {"salt": bytes(32)},
        {"query": changed(released.query, minimum_group=10)},
        {"query": changed(released.query, roster=("a", "b", "c", "d"))},
        {"query": changed(released.query, rho_nano=10**9)},
    ):
        with pytest.raises(VerificationError) as caught:
            verify_release(changed(released, **fields), board)
        assert caught.value.code == "mpc.not_this_query"
    with pytest.raises(VerificationError, match="handle"):
        verify_release(changed(released, handle=bytes(16)), board)
    with pytest.raises(VerificationError) as caught:  # never allowed: refused as verification, not as refusal
        verify_release(changed(released, query=changed(released.query, colluders=3)), board)
    assert caught.value.code == "mpc.release_unsound"


def test_a_board_that_does_not_add_up_is_caught(released, board):
    first, second = board.phases
    totals = first.opened.totals
    for phases in (
        (changed(first, opened=Opened((totals[0] + 1, *totals[1:]), first.opened.blinding)), second),
        (changed(first, opened=Opened(totals, bytes(32))), second),
        (first, changed(second, opened=Opened(second.opened.totals[:-1], second.opened.blinding))),
        (first, changed(second, survivors=first.survivors)),
        (first, changed(second, survivors=changed(second.survivors, sites=second.survivors.sites[1:]))),
        (first, changed(second, parties=first.parties)),
        (first, changed(second, parties=changed(second.parties, sites=second.parties.sites[1:]))),
        (second, first),
        (first,),
        (first, second, second),
        (),
    ):
        with pytest.raises(MedveilError):
            verify_release(changed(released, phases=phases), changed(board, phases=phases))


def test_a_lying_coordinator_cannot_choose_which_groups_pass(query, salt, board):
    """Totals of phase 1 that would let a small group pass do not open the commitments."""
    first, second = board.phases
    lifted = tuple(total + 200 for total in first.opened.totals)
    lying = changed(board, phases=(changed(first, opened=Opened(lifted, first.opened.blinding)), second))
    with pytest.raises(VerificationError, match="commitments"):
        finish(query, salt, lying)


def test_a_refused_query_is_not_finished(query, salt, board):
    with pytest.raises(Refused):
        finish(changed(query, colluders=3), salt, board)


def test_a_query_that_not_all_have_approved_is_not_finished(query, salt, board):
    with pytest.raises(VerificationError) as caught:
        finish(query, salt, changed(board, approvals=board.approvals[1:]))
    assert caught.value.code == "mpc.not_approved"


# --- sites that are lost ------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["start", "deal", "mask", "unmask"])
@pytest.mark.parametrize("phase", [1, 2])
def test_a_site_lost_in_a_phase_is_in_none_of_its_sums(query, salt, consortium, tables, rows, exact, step, phase):
    """Exact vectors, so that the numbers say whose they are; who is lost last is in the sum all the same."""
    board = consortium.answer(query, tables, draw=exact, lost={phase: {"hospital-2": step}})
    result = finish(query, salt, board)
    verify_release(result, board)
    verify_release(result, board, backend="reference")
    gone = step != "unmask"
    without = tuple(site for site in query.roster if site != "hospital-2") if gone else query.roster
    there = [query.roster, query.roster]
    there[phase - 1] = without
    assert [one.sites for one in result.survivors] == there
    assert [one.lost for one in result.survivors] == [
        tuple(site for site in query.roster if site not in sites) for sites in there
    ]
    assert (result.sites, result.lost) == (result.survivors[1].sites, result.survivors[1].lost)
    plain = pooled(query, [one for site, one in zip(query.roster, rows, strict=True) if site in result.sites])
    for group in result.results[0].groups:
        values = plain[group.label]
        assert number(group.count.value) == len(values)
        assert number(group.mean.value) == pytest.approx(statistics.mean(values), abs=1e-4)
        assert sum(number(cell.value) for cell in group.bins) == len(values), "all of a group's numbers are of one set"
    passed = pooled(query, [one for site, one in zip(query.roster, rows, strict=True) if site in there[0]])
    assert {group.label for group in result.results[0].groups} == {
        name for name, values in passed.items() if len(values) >= 120
    }


def test_lost_sites_are_said_with_the_noise_and_the_epsilons_that_there_were(query, salt, consortium, tables):
    whole = finish(query, salt, consortium.answer(query, tables))
    board = consortium.answer(query, tables, lost={2: {"hospital-4": "mask"}})
    result = finish(query, salt, board)
    assert (result.lost, result.survivors[0].lost) == (("hospital-4",), ())
    before, after = ({one.kind: number(one.pooled) for one in each.noise} for each in (whole, result))
    for kind in ("counts", "sums", "squares", "bins"):
        assert after[kind] == pytest.approx(before[kind] * sqrt(3 / 4), rel=1e-3)
    assert after["gate"] == before["gate"]
    assert [one.honest for one in result.epsilons] == [(4, 3), (3, 2), (1, 1)]
    assert [number(one.epsilon) for one in result.epsilons][:2] > [number(one.epsilon) for one in whole.epsilons][:2]
    with pytest.raises(VerificationError) as caught:  # nobody may say that it was there
        verify_release(changed(result, lost=(), sites=query.roster), board)
    assert caught.value.facts["field"] == "sites"


def test_a_group_that_passed_on_luck_is_not_divided_by_nothing(make_query, make_table, consortium, salt):
    """The gate lets a group pass whose count comes out at nothing, or below, in phase 2."""
    query = make_query(minimum_group=2, rho_nano=10**7, split=split(10**7, True))
    tables = dict.fromkeys(query.roster, make_table(query, []))

    def lucky(scale, count):
        return ((scale.reach if scale.kind == "gate" else -scale.reach),) * count

    board = consortium.answer(query, tables, draw=lucky)
    result = finish(query, salt, board)
    verify_release(result, board)
    assert len(result.results[0].groups) == 6
    for group in result.results[0].groups:
        assert number(group.count.value) < 2
        assert (group.mean.value, group.mean.low, group.mean.high) == (None, "0", "30")
        assert group.sd.value is None and number(group.sd.low) == 0 < number(group.sd.high)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_one_flipped_byte_of_the_file_never_verifies(released, board, data):
    bare = changed(released, notes=())
    encoded = bytearray(canonical.encode(bare))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(MedveilError):
        again = evidence.read(bytes(encoded))
        assert isinstance(again, Release)
        verify_release(again, board)


def test_the_text_of_numbers():
    for value, text in (
        (Fraction(0), "0"),
        (Fraction(-1, 10**6), "0"),
        (Fraction(5, 2), "2.5"),
        (Fraction(-5, 2), "-2.5"),
        (Fraction(100), "100"),
        (Fraction(1, 3), "0.3333"),
        (Fraction(-1, 3), "-0.3333"),
        (Fraction(123456789, 1000), "123456.789"),
    ):
        assert releases._text(value) == text
    assert float(releases._root(Fraction(2))) == pytest.approx(sqrt(2), abs=1e-15)
