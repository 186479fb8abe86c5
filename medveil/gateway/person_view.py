"""Who used one person's data, as the data officer answers it: what was noted, and what may have reached their rows."""

from __future__ import annotations

from medveil.gateway import granting
from medveil.gateway.organisation import Organisation
from privacy.audit.views import PersonView, of_person
from privacy.predicate import to_arrow
from wire.errors import Refused


def person_view(organisation: Organisation, person: str) -> PersonView:
    """What may concern a person. person: the identifier (private) as the tables have it.

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

    return of_person(organisation.audit, keyed, [key.dataset for key in keys], reaches)
