"""What a backup brings back of persons whom an erasure of after it was to leave nothing of.

The register and the log of safeguards name data keys. A table that was loaded over between backup and erasure has other
keys in the backup than those that were erased, and neither names them; no more do they name the keys that a home of an
earlier version draws when it is opened. So after a restore persons are looked at, too:

    rows of the backup     of a person of whom an erasure was begun after the backup, and in no plan that was carried
                           out: they are of before that erasure
    restricted             at once: nothing shows them
    erased                 by an erasure of their own that follows the first one, with duties and holds as of now. It is
                           under way from here on: the gateway carries it out with what was cut short
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from privacy.erasure.plan import plan_erasure
from privacy.erasure.steps import ErasableVault, Erasure, begin, begun, note_begun
from privacy.legal_holds import all_holds
from privacy.retention import ZONE
from wire.dates import day_at


def erase_again(
    vault: ErasableVault, organisation: str, rand: Callable[[int], bytes], since: int, at: int, *, zone: str = ZONE
) -> tuple[Erasure, ...]:
    """Restrict such rows and begin to erase them, at instant `at`; returns the erasures that were begun.

    since: the instant of the backup. For a vault that was restored and that nobody loaded anything into since, after
    `privacy.erasure.steps.restored`. Raises what the vault raises.
    """
    carried_out = defaultdict[bytes, list[tuple[Erasure, int]]](list)
    for one, began in begun(vault):
        carried_out[vault.person_id(one.plan.person)].append((one, began))
    made = []
    for person, of_person in sorted(carried_out.items()):
        whole = [one for one, began in of_person if not one.plan.follows and began >= since]
        known = {key.key for one, _ in of_person for key in (*one.plan.erase, *one.plan.restrict)}
        back = [key for key in vault.keys_of(person) if key.state == "active" and key.key not in known]
        if not whole or not back:
            continue
        last = whole[-1]
        vault.restrict([key.key for key in back])
        holds, today = all_holds(vault), day_at(at, zone)
        ground, follows = last.plan.ground, last.plan.erasure
        plan = plan_erasure(rand(16), organisation, person, back, holds, today, ground, follows)
        following = begin(vault, plan, at, last.reference, last.rotate_by - last.requested)
        note_begun(vault, following.name, at)
        made.append(following)
    return tuple(made)
