"""Evidence of a query that lost hospitals on the way, replayed offline: what it says of them, and what it cannot."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from medveil.verification.releases import STEPS
from mpc.query import GATE, SUMS
from mpc.sum_messages import Masked, RoundKeys
from wire.errors import VerificationError

HANDLE = bytes(range(16))
RELEASE = "releases/query-1.evidence"


@pytest.fixture(scope="module")
def evidence(in_consortium: Callable[..., Any], gathered: Callable[..., Any], tmp_path_factory: Any) -> Any:
    """hospital-2 sent no vector in phase 1, hospital-4 no keys in phase 2. The question was asked once more."""

    async def story(world: Any) -> Any:
        world.deaf(8)
        await world.grant_study()
        said: dict[type[Any], int] = {RoundKeys: 0, Masked: 0}

        def silent(kind: type[Any], time: int) -> Callable[[str, Any], Any]:
            def kept(recipient: str, message: Any) -> Any:
                said[kind] += 1
                return None if said[kind] == time else message

            return kept

        world.alter(world["hospital-2"], Masked, silent(Masked, 1))
        world.alter(world["hospital-4"], RoundKeys, silent(RoundKeys, 2))
        release, parts = await world.run(world.query(), HANDLE, salt=secrets.token_bytes(32))
        assert world.codes(parts) == ["allowed"] * 4
        vault = world.researcher.vault
        for name in vault.documents("question"):  # or it would know the answer itself
            vault.remove_document("question", name)
        again, parts = await world.run(world.query(), bytes(16))
        assert again == release and world.codes(parts) == ["allowed"] * 4
        return await gathered(world, (RELEASE, release))

    return in_consortium(tmp_path_factory.mktemp("lost") / "consortium", story, 4)


def test_it_verifies(evidence: Any, tmp_path: Path) -> None:
    release = evidence.structs[RELEASE]
    assert {one.phase: one.lost for one in release.survivors} == {GATE: ("hospital-2",), SUMS: ("hospital-4",)}
    report = evidence.verify(evidence.write(tmp_path / "evidence"))
    assert report.verdict == "verified", report
    assert not report.findings
    steps = [check.code for check in report.checks if check.code]
    assert steps == [*STEPS, "mpc.near_own_phase"]
    (label,) = [check for check in report.checks if check.code == "mpc.near_own_phase"]
    assert all("hospital-2, hospital-4" in label.text(language) for language in ("en", "zh"))
    before = [check.count for check in report.checks if check.what.startswith("a question that was answered before")]
    assert before == [4]
    ended = [flow.outcome for flow in report.flows]
    assert sorted(ended) == ["released"] * 4 + ["released (answered before)"] * 4


def replace(struct: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(struct, **changes)


def lies(release: Any) -> Iterator[tuple[str, Any]]:
    """What it could say of the lost instead."""
    gate, sums = release.phases
    yield "none was lost", replace(release, lost=(), sites=release.query.roster)
    yield "others were lost", replace(release, survivors=release.survivors[::-1])
    yield "noise of all", replace(release, noise=release.noise[:1] * len(release.noise))
    more = replace(gate.survivors, sites=sums.survivors.sites, contributions=sums.survivors.contributions)
    yield "survivors of the other phase", replace(release, phases=(replace(gate, survivors=more), sums))
    fewer = replace(sums.survivors, sites=sums.survivors.sites[1:], contributions=sums.survivors.contributions[1:])
    yield "one survivor less", replace(release, phases=(gate, replace(sums, survivors=fewer)))
    wider = replace(sums.parties, sites=release.query.roster)
    yield "more parties", replace(release, phases=(gate, replace(sums, parties=wider)))
    yield "no label", replace(release, phases=(gate, replace(sums, near=())))
    (near,) = sums.near
    yield "another label", replace(release, phases=(gate, replace(sums, near=(replace(near, sites=near.sites[:1]),))))
    yield "other keys", replace(release, phases=(gate, replace(sums, parties=replace(sums.parties, keys=bytes(32)))))


def test_what_it_cannot_say(evidence: Any, tmp_path: Path) -> None:
    told = list(lies(evidence.structs[RELEASE]))
    assert len(told) == 9
    for what, lie in told:
        folder = evidence.write(tmp_path / "evidence", {**evidence.structs, RELEASE: lie})
        with pytest.raises(VerificationError):
            pytest.fail(f"{what}: {evidence.verify(folder).verdict}")
