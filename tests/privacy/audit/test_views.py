"""Who used what, seen from a recipient, a grant, a dataset and a person."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from privacy.audit import AuditTrail, Use, own_use
from privacy.audit.views import UseSeen, of_dataset, of_grant, of_person, of_recipient

WANG, LI = b"w" * 16, b"l" * 16


def test_uses_by_recipient_grant_and_dataset(trail: AuditTrail, use: Use) -> None:
    other = msgspec.structs.replace(use, recipient="insurer", grant="grant-2", dataset="claims-2")
    denied = msgspec.structs.replace(use, allowed=False, rule="purpose")
    first = trail.intent(use)
    second = trail.intent(other)
    trail.outcome(first, "released")
    third = trail.intent(denied)
    trail.outcome(third, "denied")

    def told(seen: tuple[UseSeen, ...]) -> list[tuple[int, str]]:
        return [(one.intent.sequence, one.outcome) for one in seen]

    assert told(of_recipient(trail, "university")) == [(first, "released"), (third, "denied")]
    assert told(of_recipient(trail, "university", first=2)) == [(third, "denied")]
    assert told(of_recipient(trail, "university", limit=1)) == [(first, "released")]
    assert told(of_grant(trail, "grant-2")) == told(of_dataset(trail, "claims-2")) == [(second, "")]
    assert told(of_grant(trail, "grant-1")) == [(first, "released"), (third, "denied")]
    assert of_recipient(trail, "nobody") == of_grant(trail, "") == ()
    with pytest.raises(ValueError, match="no index"):
        trail.intents("entry", "x")


def test_a_person_sees_what_touched_it_and_what_may_have(trail: AuditTrail, use: Use) -> None:
    own_view = trail.intent(use, persons=[WANG])
    trail.outcome(own_view, "released")
    others_view = trail.intent(use, persons=[LI])
    trail.outcome(others_view, "released")
    query = trail.intent(use)
    trail.outcome(query, "released")
    unfinished = trail.intent(msgspec.structs.replace(use, grant="grant-2"))
    trail.outcome(trail.intent(use), "aborted")
    trail.outcome(trail.intent(msgspec.structs.replace(use, allowed=False, rule="purpose")), "denied")
    trail.outcome(trail.intent(msgspec.structs.replace(use, grant="elsewhere")), "released")
    trail.outcome(trail.intent(msgspec.structs.replace(use, dataset="claims-9")), "released")
    trail.outcome(trail.intent(own_use("hospital-1", "claims-1", "erasure")), "done")
    reaches = {"grant-1": True, "grant-2": None, "elsewhere": False}
    view = of_person(trail, WANG, ["claims-1", "claims-1"], lambda dataset, grant: reaches[grant])
    assert [seen.intent.sequence for seen in view.noted] == [own_view]
    # Another person's view is a possible one: who asked is not told whose record it was.
    assert [(seen.intent.sequence, reached) for seen, reached in view.possible] == [
        (others_view, True),
        (query, True),
        (unfinished, None),
    ]
    both = of_person(trail, WANG, ["claims-1"], lambda dataset, grant: reaches[grant], earlier=[LI, WANG])
    assert [seen.intent.sequence for seen in both.noted] == [own_view, others_view]
    assert others_view not in [seen.intent.sequence for seen, _ in both.possible]
    assert view.known and both.known
    assert not of_person(trail, b"n" * 16, [], lambda dataset, grant: True).known
    gone = of_person(trail, WANG, [], lambda dataset, grant: True)
    assert gone.noted == view.noted and gone.possible == ()


def test_who_was_erased_sees_what_may_have_reached_the_rows_that_are_gone(trail: AuditTrail, use: Use) -> None:
    """That data were shared is kept: to say that nobody may have had them would be a lie."""

    def released(**changes: object) -> int:
        number = trail.intent(msgspec.structs.replace(use, **changes))
        trail.outcome(number, "released")
        return number

    def seen(*datasets: str) -> list[tuple[int, bool | None]]:
        view = of_person(trail, WANG, datasets, lambda dataset, grant: grant == "all")
        return [(one.intent.sequence, reached) for one, reached in view.possible]

    before = [released(), released(grant="all"), released(dataset="bills")]
    failed = trail.intent(own_use("hospital-1", "bills", "erasure"), persons=[WANG])
    trail.outcome(failed, "failed")
    assert seen() == [] and seen("claims-1") == [(before[1], True)]
    erasure = trail.intent(own_use("hospital-1", "claims-1", "erasure"), b"e" * 16, persons=[WANG])
    beside = released()
    assert seen() == [(before[0], None), (before[1], None), (beside, None)], "not done: rows may be there"
    trail.outcome(erasure, "done")
    later = [released(), released(grant="all")]
    assert seen() == [(before[0], None), (before[1], None), (beside, None)]
    # Loaded again: the rows of now say nothing of those that are gone.
    assert seen("claims-1") == [(before[0], None), (before[1], True), (beside, None), (later[1], True)]
    assert of_person(trail, LI, [], lambda dataset, grant: True).possible == ()


def test_what_touched_a_person_is_written_with_the_intent(
    trail: AuditTrail, use: Use, reopen: Callable[[], AuditTrail]
) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        trail.intent(use, persons=[b"wang-wu"])
    assert trail.last == 0
    first = trail.intent(use, b"n" * 16, persons=[WANG, LI, WANG])
    trail.close()
    with reopen() as again:
        assert again.intent(use, b"n" * 16, persons=[WANG]) == first
        assert [entry.sequence for entry in again.intents("person", LI)] == [first]
        assert WANG not in again._store.rows("SELECT entry FROM entries")[0][0]
