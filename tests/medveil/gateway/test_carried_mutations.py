"""The messages that a researcher carries between sites, changed on their way: no wrong sum, no crash, always a reason.

Single messages of a sum are changed in tests/mpc/test_sum_mutations.py; here it is the lists of them that gateways
send: bytes flipped, one message missing, twice, in another place, of another run or for another site, none at all.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from medveil.gateway.query_run import KeysOfRound, SharesDealt, SharesHanded
from tests.mpc.conftest import Consortium, Run
from tests.mpc.test_sum_mutations import flipped, taken
from wire import canonical
from wire.errors import DecodeError, ProtocolAbort
from wire.signing import Signer

KINDS = (KeysOfRound, SharesDealt, SharesHanded)
SITES = tuple(f"site-{i}" for i in range(4))  # t = 3: one may be lost
VECTORS = {site: (1000 + i, 7 * i, 2**50) for i, site in enumerate(SITES)}


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return Consortium({site: Signer(hashlib.sha256(site.encode()).digest()) for site in SITES})


class Carrier:
    """Changes one list of one kind on its way, once. others: of the same kind, from another run."""

    def __init__(self, kind: type[Any], number: int, rng: random.Random, others: list[Any]) -> None:
        self.kind, self.left, self.rng, self.others, self.changed = kind, number, rng, others, False

    def __call__(self, message: Any) -> Any:
        if not isinstance(message, self.kind) or self.changed:
            return message
        if self.left:
            self.left -= 1
            return message
        self.changed = True
        if self.rng.randrange(3) == 0:
            return canonical.decode(self.kind, flipped(canonical.encode(message), self.rng))
        (name,) = message.__struct_fields__
        parts, theirs = list(getattr(message, name)), list(getattr(self.rng.choice(self.others), name))
        at = self.rng.randrange(len(parts))
        lies = [
            parts[:at] + parts[at + 1 :],
            [*parts, parts[at]],
            parts[::-1],
            [],
            theirs,
            [*parts[:at], self.rng.choice(theirs), *parts[at + 1 :]],
            [*parts[:at], parts[at - 1], *parts[at + 1 :]],
        ]
        changed = msgspec.structs.replace(message, **{name: tuple(self.rng.choice(lies))})
        return canonical.decode(self.kind, canonical.encode(changed))


def carried(run: Run, carry: Any) -> tuple[Any, Any]:
    """A run as gateways have it: a list that somebody refuses costs that site, and the others go on."""
    run.start()
    state, sites = run.coordinator, run.states
    for keys in run.keys:
        state = taken(state, lambda s, keys=keys: s.receive(keys))
    state, listed = state.close()
    announced = []
    for site in SITES:
        try:
            shown = carry(KeysOfRound(listed))
            sites[site], shares, said = sites[site].receive(shown.keys)
            dealt = carry(SharesDealt(shares))
        except (ProtocolAbort, DecodeError):
            continue
        state = taken(state, lambda s, site=site, dealt=dealt: s.receive(site, dealt.shares))
        announced.append(said)
    state, parties, handed = state.close([one.site for one in announced if one.site not in state.missing])
    posted = []
    for site in parties.sites:
        theirs = [one for one in announced if one.site in parties.sites]
        try:
            got = carry(SharesHanded(handed[site]))
            sites[site], masked, said = sites[site].receive(parties, got.shares, theirs)
        except (ProtocolAbort, DecodeError):
            continue
        state = taken(state, lambda s, masked=masked: s.receive(masked))
        posted.append(said)
    state, survivors = state.close(posted)
    for site in survivors.sites:
        _, shown = sites[site].receive(survivors)
        state = state.receive(shown)
    return state.finish(), survivors


def lists_of(run: Run) -> dict[type[Any], list[Any]]:
    """What a run that goes well carries."""
    seen: dict[type[Any], list[Any]] = {kind: [] for kind in KINDS}

    def keep(message: Any) -> Any:
        seen[type(message)].append(message)
        return message

    carried(run, keep)
    return seen


def campaign(consortium: Consortium, count: int, seed: int) -> Counter[str]:
    rng = random.Random(seed)
    other = lists_of(consortium.run(VECTORS, phase=2))
    ends: Counter[str] = Counter()
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        carry = Carrier(kind, rng.randrange(len(SITES)), rng, other[kind])
        try:
            opened, survivors = carried(consortium.run(VECTORS), carry)
        except ProtocolAbort as error:
            assert error.round and error.text("zh")
            ends["abort"] += 1
        else:
            want = tuple(sum(column) for column in zip(*(VECTORS[site] for site in survivors.sites), strict=True))
            assert opened.totals == want
            ends["without" if len(survivors.sites) < len(SITES) else "with"] += 1
        assert carry.changed
    return ends


def test_lists_changed_on_their_way_cost_a_site_at_most(consortium: Consortium) -> None:
    ends = campaign(consortium, 150, 5)
    assert ends["without"] > 100, ends


@pytest.mark.long
def test_3_000_lists_changed_on_their_way(consortium: Consortium) -> None:
    assert campaign(consortium, 3_000, 6)["without"] > 2_000
