"""Who used one person's data, and who gets at it now, as the data officer answers it."""

from __future__ import annotations

import pyarrow as pa

from medveil.gateway import granting
from medveil.gateway.organisation import Organisation
from medveil.gateway.use_state import opt_outs, state_of
from privacy.audit.views import PersonView, of_person
from privacy.explain import Sight, who_sees
from privacy.predicate import to_arrow
from wire.errors import Refused


def person_view(organisation: Organisation, person: str) -> PersonView:
    """What may concern a person. person: the identifier (private), in any spelling.

    Whether a grant's row filter reaches the person is judged by the rows as they are now; where some of them are
    restricted, or the grant's terms are not here, it is not known.
    """
    vault = organisation.vault
    keyed = vault.person_id(person)
    keys = vault.keys_of(keyed)
    filters = {terms.grant: terms.predicate for terms in granting.issued_terms(organisation)}
    hidden = {key.dataset for key in keys if key.state != "active"}

    def reaches(dataset: str, grant: str) -> bool | None:
        if grant not in filters:
            return None
        predicate = filters[grant]
        if predicate is None:
            return True
        try:
            found = vault.person(dataset, keyed).filter(to_arrow(predicate)).num_rows > 0
        except Refused:  # none of the rows may be used
            found = False
        return True if found else None if dataset in hidden else False

    datasets = [key.dataset for key in keys]
    return of_person(organisation.audit, keyed, datasets, reaches, vault.earlier_ids(keyed))


def person_sights(organisation: Organisation, person: str, dataset: str, column: str, at: int) -> tuple[Sight, ...]:
    """By whom, how and for what a column of this person's rows can be used at instant `at`: none where none may be.

    person: as for `person_view`. A grant whose row filter leaves all of the person's rows out, and a use that an
    opt-out of theirs stops, are no sight. Of what is no table of the vault (bills), every grant counts.
    """
    vault = organisation.vault
    keyed = vault.person_id(person)
    rows: pa.Table | None = None
    if dataset in {info.name for info in vault.datasets()}:
        try:
            rows = vault.person(dataset, keyed)
        except Refused:  # there are none, or none that may be used
            return ()
    of_it = [one for one in granting.issued(organisation) if one.terms.dataset == dataset]
    scopes = opt_outs(organisation).scopes_of(keyed, at)
    return who_sees(column, dataset, of_it, state_of(organisation, of_it, at), at, scopes=scopes, rows=rows)
