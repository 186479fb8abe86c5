"""Sites lost at every step, in every combination that the threshold allows, over three to seven sites; and one more.

Who had sent a masked vector is in the sum, who had not is out of it; the sum is exact for just those sites. With one
site more than n - t lost before the last step that it is needed in, the run ends in that round and names who is
missing, and nothing is opened.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import combinations_with_replacement

import pytest

from mpc.sum_coordinator import check_opening
from wire.errors import ProtocolAbort
from wire.secure_sum import threshold
from wire.signing import Signer

STEPS = ("start", "deal", "mask", "unmask")
ROUNDS = dict(zip(STEPS, ("mask keys", "shares", "masked vectors", "unmasking"), strict=True))


def run_of(consortium, sites: int):
    names = [f"site-{i}" for i in range(sites)]
    signers = {name: Signer(hashlib.sha256(name.encode()).digest()) for name in names}
    vectors = {name: (3**i, 2**40 + i) for i, name in enumerate(names)}
    return replace(consortium, signers=signers).run(vectors)


def allowed(sites: int) -> list[tuple[str, ...]]:
    """At which steps up to n - t sites are lost, all ways."""
    spare = sites - threshold(sites)
    return [steps for lost in range(spare + 1) for steps in combinations_with_replacement(STEPS, lost)]


@pytest.mark.parametrize(
    ("sites", "steps"), [(sites, steps) for sites in range(3, 8) for steps in allowed(sites)], ids=str
)
def test_up_to_the_threshold_the_sum_is_that_of_who_is_there(consortium, sites, steps):
    run = run_of(consortium, sites)
    run.lost = dict(zip(run.session.roster[1:], steps, strict=False))
    opened = run.open()
    there = [site for site in run.session.roster if run.lost.get(site) in (None, "unmask")]
    assert list(run.survivors.sites) == there
    assert opened.totals == tuple(sum(column) for column in zip(*(run.vectors[site] for site in there), strict=True))
    check_opening(run.session, run.survivors, opened)


@pytest.mark.parametrize("sites", range(3, 8))
@pytest.mark.parametrize("step", STEPS)
def test_one_more_at_a_step_ends_the_run_in_that_round(consortium, sites, step):
    run = run_of(consortium, sites)
    missing = run.session.roster[1 : 2 + sites - threshold(sites)]
    run.lost = dict.fromkeys(missing, step)
    with pytest.raises(ProtocolAbort) as caught:
        run.open()
    assert (caught.value.code, caught.value.parties) == ("mpc.incomplete", missing)
    assert caught.value.round == ROUNDS[step]
    assert step == "unmask" or not run.unmaskings, "no share has left"


@pytest.mark.parametrize("sites", range(4, 8))
def test_one_more_later_ends_it_too(consortium, sites):
    """n - t are lost on the way, each at its step, and one more when shares are asked for."""
    spare = sites - threshold(sites)
    run = run_of(consortium, sites)
    run.lost = dict.fromkeys(run.session.roster[:spare], "mask") | {run.session.roster[-1]: "unmask"}
    with pytest.raises(ProtocolAbort) as caught:
        run.open()
    assert (caught.value.code, caught.value.parties) == ("mpc.incomplete", run.session.roster[-1:])
