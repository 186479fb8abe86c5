"""What home knows of a use, beside its grants: how datasets are classified, reviews of grants, opt-outs of patients.

The data officer's own word, kept in the vault as private documents and notes; nothing of it goes anywhere. It is
read when it has changed, and with the ledger's entries it is the state that `privacy.decide` judges by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from threading import Lock
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ledger.contracts import grants as board
from medveil.gateway.organisation import Clock, Organisation
from privacy.decide import AnchoredGrant, Decision, GrantState, Review
from privacy.grants.levels import DatasetFacts
from privacy.grants.opt_outs import NOTE, OptOut, OptOutRegister, Scope, note_of, withdrawn
from privacy.grants.terms import CheckedGrant
from privacy.vault.awaited import EARLIER
from wire.canonical import decode, encode
from wire.errors import Refused

_FACTS = "dataset-facts"
_REVIEW = "grant-review"


class _Kept(NamedTuple):
    """What was read of home. revisions: of its documents and notes, then."""

    revisions: tuple[int, ...]
    facts: tuple[DatasetFacts, ...]
    reviews: dict[tuple[str, bytes], Review]
    opt_outs: OptOutRegister


_kept: WeakKeyDictionary[Organisation, _Kept] = WeakKeyDictionary()
_writing = Lock()
"""Held while a person's opt-outs are read and written again: two at once would lose one."""


def _home(organisation: Organisation) -> _Kept:
    vault, found = organisation.vault, _kept.get(organisation)
    revisions = tuple(vault.revision(kind) for kind in (_FACTS, _REVIEW, EARLIER, NOTE))
    if found is None or found.revisions != revisions:
        facts = tuple(decode(DatasetFacts, vault.document(_FACTS, name)) for name in vault.documents(_FACTS))
        reviews = [decode(Review, vault.document(_REVIEW, name)) for name in vault.documents(_REVIEW)]
        by_terms = {(one.grant, one.commitment): one for one in reviews}
        found = _kept[organisation] = _Kept(revisions, facts, by_terms, OptOutRegister(vault.person_notes(NOTE)))
    return found


def classify(officer: Organisation, facts: DatasetFacts) -> None:
    """Data officer: say what the columns of a dataset are, whether children may be in it, and its class.

    Counts from the next decision on, also of uses that run. A dataset can be classified before it is loaded.
    Raises Refused for a column that stands twice, or that a loaded table has not: mistyped, it would leave the one
    that was meant unclassified.
    """
    names = [column.name for column in facts.columns]
    if len(set(names)) != len(names):
        raise Refused("privacy.column_twice", dataset=facts.dataset)
    check_columns(officer, facts.dataset, (*names, *([facts.age_column] if facts.age_column else [])))
    officer.vault.put_document(_FACTS, facts.dataset, encode(facts))


def check_columns(organisation: Organisation, dataset: str, columns: Iterable[str]) -> None:
    """Raises Refused for a column that a loaded table of the organisation's does not have; another one may have any."""
    info = next((info for info in organisation.vault.datasets() if info.name == dataset), None)
    known = () if info is None else tuple(column.name for column in info.columns)
    for name in columns:
        if info is not None and name not in known:
            raise Refused("gateway.no_column", dataset=dataset, column=name[:64], columns=", ".join(known))


def classified(organisation: Organisation, dataset: str) -> DatasetFacts:
    """How a dataset is classified; an unclassified one (`privacy.grants.levels`) where nobody did."""
    found = (facts for facts in _home(organisation).facts if facts.dataset == dataset)
    return next(found, DatasetFacts(dataset))


def review(officer: Organisation, grant: CheckedGrant, at: int, following: int) -> Review:
    """Data officer: confirm a grant of its own at instant `at`, until the review after. Its earlier one is replaced.

    Raises Refused for a next review that is not to come.
    """
    if following <= at:
        raise Refused("gateway.review_past", grant=grant.terms.grant)
    made = Review(grant.terms.grant, grant.commitment, at, following)
    officer.vault.put_document(_REVIEW, grant.terms.grant, encode(made))
    return made


def reviewed(organisation: Organisation, grant: CheckedGrant) -> Review | None:
    """The latest review of these very terms, if there was one."""
    return _home(organisation).reviews.get((grant.terms.grant, grant.commitment))


def opt_outs(organisation: Organisation) -> OptOutRegister:
    """All opt-outs of patients (secret)."""
    return _home(organisation).opt_outs


def opt_outs_of(organisation: Organisation, person: str) -> tuple[OptOut, ...]:
    """The opt-outs of one patient, past ones too (secret). person: in any spelling (`privacy.vault.person_names`)."""
    return opt_outs(organisation).opt_outs.get(organisation.vault.person_id(person), ())


def opt_out(organisation: Organisation, person: str, said: OptOut) -> tuple[OptOut, ...]:
    """Take down what a patient does not want; returns all of the patient's. Again, it changes nothing.

    Counts from the next decision on. Raises Refused or DecodeError for what is no opt-out.
    """
    with _writing:
        before = opt_outs_of(organisation, person)
        return _note(organisation, person, before if said in before else (*before, said))


def withdraw(organisation: Organisation, person: str, scope_id: str, at: int) -> tuple[OptOut, ...]:
    """End a patient's opt-outs of one scope at instant `at`; returns all of the patient's. Raises Refused for none."""
    with _writing:
        before = opt_outs_of(organisation, person)
        after = withdrawn(before, scope_id, at)
        if after == before:
            raise Refused("gateway.no_opt_out")
        return _note(organisation, person, after)


def opted_out(organisation: Organisation, at: int) -> dict[tuple[Scope, str], int]:
    """How many persons have an opt-out in force at instant `at`, by scope and its value. Private."""
    every = opt_outs(organisation).opt_outs.values()
    return dict(Counter(pair for one in every for pair in {(o.scope, o.value) for o in one if o.in_force(at)}))


def _note(organisation: Organisation, person: str, said: tuple[OptOut, ...]) -> tuple[OptOut, ...]:
    organisation.vault.put_person_note(NOTE, person, note_of(said))
    return opt_outs_of(organisation, person)


def left_out(holder: Organisation, decision: Decision, clock: Clock) -> frozenset[bytes]:
    """Keyed ids of the persons whose records an allowed use must not touch: as of now, not of when it was decided."""
    return opt_outs(holder).persons(decision.excluded, clock()) if decision.excluded else frozenset()


def state_of(
    organisation: Organisation, grants: Iterable[CheckedGrant], at: int, persons: Iterable[bytes] = ()
) -> GrantState:
    """What the ledger says of `grants`, as this organisation replayed it, and what its home knows at instant `at`.

    persons: keyed ids of those whom the request names.
    """
    chosen = tuple(grants)
    home = _home(organisation)
    datasets = {one.terms.dataset for one in chosen}
    reviews = (home.reviews.get((one.terms.grant, one.commitment)) for one in chosen)
    return GrantState(
        anchored=anchored(organisation, (one.terms.grant for one in chosen)),
        reviews=tuple(one for one in reviews if one is not None),
        datasets=tuple(facts for facts in home.facts if facts.dataset in datasets),
        opt_outs=home.opt_outs.state(at, persons),
    )


def anchored(organisation: Organisation, grants: Iterable[str]) -> tuple[AnchoredGrant, ...]:
    """What the ledger says of grants, by their ids."""
    state = organisation.account.state
    found = (state.get(board.grant_key(name), board.GrantState) for name in dict.fromkeys(grants))
    return tuple(
        AnchoredGrant(
            one.grant, one.issuer, one.commitment, one.not_before, one.expires, one.epoch, one.revoked_at is not None
        )
        for one in found
        if one is not None
    )
