"""A restored home brings nobody back whose table was loaded over between backup and erasure."""

from __future__ import annotations

import secrets
from pathlib import Path

import pyarrow as pa
import pytest

from medveil.gateway import erasing, limits_asked
from medveil.gateway.erasure_told import erasure_told
from medveil.gateway.limits_asked import AnsweredLimits
from medveil.service.home.backup import make_backup
from medveil.service.home.config import VaultPlace
from medveil.service.home.home import Home
from medveil.service.home.restore import BroughtBack, restore
from privacy.erasure import steps
from privacy.erasure.steps import Erasure
from privacy.legal_holds import LegalHold, place_hold
from wire.canonical import encode
from wire.dates import NO_END

from .test_safeguards_of_a_home import NOW, PASS, Clock, made, opened
from .test_safeguards_of_a_home import cheap as cheap
from .test_safeguards_of_a_home import clock as clock

PERSONS = ["li", "wu", "wang", "zhao"]


def load_over(home: Home, persons: list[str]) -> None:
    table = pa.table({"n": list(range(len(persons)))})
    home.organisation.vault.ingest("visits", table, persons=persons, replace=True)


def brought_back(tmp_path: Path, clock: Clock) -> BroughtBack:
    (tmp_path / "home").rename(tmp_path / "lost")
    return restore(tmp_path / "monday", tmp_path / "home", PASS, secrets.token_bytes, clock, erased=tmp_path / "lost")


def states(home: Home, person: str) -> dict[str, str]:
    return {key.dataset: key.state for key in home.organisation.vault.keys_of(person)}


def waiting(home: Home) -> tuple[Erasure, ...]:
    return steps.unfinished(home.organisation.vault, home.organisation.audit)


def go_on(home: Home, clock: Clock) -> None:
    for one in waiting(home):
        assert erasing.apply(home.organisation, one.name, clock).done


def stop_at(home: Home, name: str, step: str, clock: Clock) -> None:
    def fault(reached: str) -> None:
        if reached == step:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        erasing.apply(home.organisation, name, clock, fault=fault)


@pytest.mark.parametrize("there", [True, False])
def test_rows_that_were_loaded_over_before_their_person_was_erased(there: bool, tmp_path: Path, clock: Clock) -> None:
    """Also of somebody who is not in the new table."""
    home = made(tmp_path / "home", clock, VaultPlace())
    with opened(home, clock) as at:
        make_backup(at, tmp_path / "monday", clock)
        load_over(at, PERSONS if there else PERSONS[1:])
        planned = erasing.plan(at.organisation, "li", clock(), reference="requests/7")
        erasing.apply(at.organisation, planned.name, clock)
    assert brought_back(tmp_path, clock).again == 1
    for _ in range(2):
        with opened(home, clock) as at:
            assert states(at, "li") == {"visits": "restricted", "bills": "restricted"}
            assert sorted(at.organisation.vault.read("visits")["n"].to_pylist()) == [2, 3, 4], "nobody else's rows"
            (one,) = waiting(at)
            vault = at.organisation.vault
            told = {each.name: erasure_told(each, steps.under_way(vault))["state"] for each in steps.erasures(vault)}
            assert len(told) == 2 and told[planned.name].startswith("done") and told[one.name] == "under way"
            assert one.plan.follows == planned.plan.erasure and one.reference == "requests/7"
            assert [key.dataset for key in one.plan.erase] == ["visits"]
    with opened(home, clock) as at:
        go_on(at, clock)
        assert states(at, "li") == {"bills": "restricted"} and waiting(at) == ()
        assert erasing.receipt_of(at.organisation, one.name, clock()).keys


def test_rows_that_a_hold_keeps_are_restricted_only(tmp_path: Path, clock: Clock) -> None:
    home = made(tmp_path / "home", clock, VaultPlace())
    with opened(home, clock) as at:
        make_backup(at, tmp_path / "monday", clock)
        load_over(at, PERSONS)
        vault = at.organisation.vault
        place_hold(vault, LegalHold("new", vault.person_id("li"), "visits", "a dispute", 0, NO_END))
        erasing.apply(at.organisation, erasing.plan(at.organisation, "li", clock()).name, clock)
        assert states(at, "li") == {"visits": "restricted", "bills": "restricted"}
    assert brought_back(tmp_path, clock).again == 1
    with opened(home, clock) as at:
        assert states(at, "li") == {"visits": "restricted", "bills": "restricted"}
        (one,) = waiting(at)
        assert [(key.dataset, key.why) for key in one.plan.restrict] == [("visits", ("hold",))] and not one.plan.erase
        go_on(at, clock)
        assert states(at, "li") == {"visits": "restricted", "bills": "restricted"}


def test_a_wallet_that_an_older_version_kept_otherwise(tmp_path: Path, clock: Clock) -> None:
    """Opening its home draws a data key that no register knows."""
    home = made(tmp_path / "home", clock, VaultPlace())
    with opened(home, clock) as at:
        at.organisation.vault.put_document("wallet", "wu", b"of-an-older-version")
        make_backup(at, tmp_path / "monday", clock)
    with opened(home, clock) as at:
        assert states(at, "wu")["document.wallet"] == "active"
        erasing.apply(at.organisation, erasing.plan(at.organisation, "wu", clock()).name, clock)
        assert states(at, "wu") == {"bills": "restricted"}
    assert brought_back(tmp_path, clock).again == 1
    with opened(home, clock) as at:
        assert states(at, "wu") == {"bills": "restricted", "document.wallet": "restricted"}
        go_on(at, clock)
        assert states(at, "wu") == {"bills": "restricted"}


def test_rows_of_after_an_erasure_and_plans_that_nobody_began_stay(tmp_path: Path, clock: Clock) -> None:
    home = made(tmp_path / "home", clock, VaultPlace())
    with opened(home, clock) as at:
        erasing.apply(at.organisation, erasing.plan(at.organisation, "li", clock()).name, clock)
        at.organisation.vault.ingest("letters", pa.table({"n": [9]}), persons=["li"])
        make_backup(at, tmp_path / "monday", clock)
        load_over(at, PERSONS)
        erasing.plan(at.organisation, "wu", clock())
    assert brought_back(tmp_path, clock).again == 0
    with opened(home, clock) as at:
        assert states(at, "li") == {"bills": "restricted", "letters": "active"}
        assert states(at, "wu") == {"bills": "active", "visits": "active"} and waiting(at) == ()


@pytest.mark.parametrize("step", ["begun", "intent", "traces", "marks", "restrict", "restricted", "destroy"])
@pytest.mark.parametrize("over", [False, True])
def test_an_erasure_that_was_begun_goes_on(step: str, over: bool, tmp_path: Path, clock: Clock) -> None:
    """Wherever it was stopped, and though the trail of the backup knows nothing of it."""
    home = made(tmp_path / "home", clock, VaultPlace())
    with opened(home, clock) as at:
        make_backup(at, tmp_path / "monday", clock)
        if over:
            load_over(at, PERSONS)
        planned = erasing.plan(at.organisation, "zhao", clock())
        stop_at(at, planned.name, step, clock)
        assert [one.name for one in waiting(at)] == [planned.name]
    assert brought_back(tmp_path, clock).again == int(over)
    with opened(home, clock) as at:
        assert planned.name in [one.name for one in waiting(at)]
        go_on(at, clock)
        assert states(at, "zhao") == {"bills": "restricted"} and waiting(at) == ()


def test_limits_that_were_answered_are_not_answered_about_again(tmp_path: Path, clock: Clock) -> None:
    home = made(tmp_path / "home", clock, VaultPlace())
    with opened(home, clock) as at:
        make_backup(at, tmp_path / "monday", clock)
        book = AnsweredLimits(b"h" * 16, "insurer", (10, 20, 30))
        at.organisation.vault.put_document(limits_asked._BOOK, limits_asked._name(b"h" * 16, "insurer"), encode(book))
    brought_back(tmp_path, clock)
    with opened(home, clock) as at:
        assert limits_asked.answered(at.organisation, b"h" * 16, "insurer") == book


def test_a_second_restore_of_the_same_backup_plans_nothing_twice(tmp_path: Path, clock: Clock) -> None:
    home = made(tmp_path / "home", clock, VaultPlace())
    with opened(home, clock) as at:
        make_backup(at, tmp_path / "monday", clock)
        load_over(at, PERSONS)
        erasing.apply(at.organisation, erasing.plan(at.organisation, "li", clock()).name, clock)
    assert brought_back(tmp_path, clock).again == 1
    with opened(home, clock) as at:
        go_on(at, clock)
    (tmp_path / "lost").rename(tmp_path / "first")
    assert brought_back(tmp_path, clock).again == 0
    with opened(home, clock) as at:
        assert states(at, "li") == {"bills": "restricted"} and waiting(at) == ()


def test_what_is_erased_while_a_backup_is_made_counts_as_later(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medveil.service.home import backup

    home = made(tmp_path / "home", clock, VaultPlace())
    copy_vault = backup._copy_vault
    with opened(home, clock) as at:

        def copied(*given: object) -> None:
            copy_vault(*given)  # type: ignore[arg-type]
            load_over(at, PERSONS)
            erasing.apply(at.organisation, erasing.plan(at.organisation, "li", clock()).name, clock)

        monkeypatch.setattr(backup, "_copy_vault", copied)
        began = clock()
        assert NOW < began < make_backup(at, tmp_path / "monday", clock).body.created
    assert brought_back(tmp_path, clock).again == 1
    with opened(home, clock) as at:
        assert states(at, "li")["visits"] == "restricted"
