"""An organisation whose anchoring is refused goes on serving, says that it is not ready, and anchors later."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
from pathlib import Path

from ledger.contracts import access
from ledger.contracts.organisations import VoteSuspension
from medveil.consortium import local_consortium
from medveil.service.logs import Vocabulary, make_log
from medveil.service.process import Anchoring
from privacy.audit import Use

from .working import FOUNDERS, now


def test_a_suspended_member_anchors_when_it_is_taken_back(tmp_path: Path) -> None:
    written, vocabulary = io.BytesIO(), Vocabulary()
    vocabulary.add("anchoring")

    async def until(look: bool, anchoring: Anchoring) -> None:
        async with asyncio.timeout(30):
            while await anchoring.works() is not look:
                await asyncio.sleep(0.01)

    async def story() -> None:
        arguments = ("c", FOUNDERS, "bureau", "Asia/Shanghai", secrets.token_bytes, now)
        async with local_consortium(tmp_path / "consortium", *arguments) as consortium:
            hospital = consortium["hospital-1"]
            others = [one for name, one in consortium.organisations.items() if name != "hospital-1"]

            async def vote(suspended: bool) -> None:
                for other in others[: consortium.trust.k]:
                    await other.submit(VoteSuspension("hospital-1", suspended))

            await vote(True)
            hospital.audit.intent(Use("insurer-1", "bills", "proof", "ELIGVER", "", b"", False, "no-grant"))
            anchoring = Anchoring(hospital, make_log("north", vocabulary, now, file=written), every=0.1, again=1.0)
            running = asyncio.create_task(anchoring.run())
            await until(False, anchoring)
            await vote(False)
            await until(True, anchoring)
            chain = await hospital.account.until(
                lambda state: state.get(access.chain_key("hospital-1"), access.ChainState), "its chain", 30
            )
            assert chain.last == 1 and not running.done()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert {(line["event"], line["part"]) for line in lines} == {("part.failed", "anchoring")}
