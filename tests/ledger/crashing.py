"""The process that the crash campaign kills; run as a script, imported by nobody.

It imports the ledger once and then forks a child for each line "FOLDER BOUNDARY NTH" of its standard
input, which works in FOLDER until the NTH time that BOUNDARY is reached, and sends itself SIGKILL there.
For each it answers with the child's wait status. FOLDER/log gets a line "submitted ID" before an
envelope is handed to the engine, and "acknowledged ID HEIGHT" once its receipt is there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

from ledger.contracts import AnchorGrant, Leave, Op, VoteAdmission
from ledger.contracts.membership import MemberState, member_key
from ledger.contracts.organisations import Application, possession_message
from ledger.engines import EmbeddedEngine, attend
from ledger.envelope import Envelope, envelope_id, sign_envelope
from ledger.replicas import Replica
from wire.canonical import decode
from wire.checkpoint import founding_hash
from wire.domains import KEY_POSSESSION
from wire.keyset import Founding, KeySet, Member, SealingKey, SignatureKey
from wire.sealing import SealKey
from wire.signing import Keyring, Signer

ENVELOPES = 4
"""Of each client, in a row."""


def _signer(name: str, use: str) -> Signer:
    return Signer(sha256(f"{name}/{use}".encode()).digest())


async def _work(folder: Path, boundary: str, nth: int) -> None:
    founding = decode(Founding, (folder / "founding").read_bytes())
    chain = founding_hash(founding)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    reached: Counter[str] = Counter()

    def clock() -> int:
        return founding.time

    def fault(name: str) -> None:
        reached[name] += 1
        if name == boundary and reached[name] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    names = [member.organisation for member in founding.members][: founding.k]
    engine = await EmbeddedEngine.open(
        folder / "ledger.sqlite", founding, _signer("bureau", "cosign"), clock, fault=fault
    )
    replicas = [Replica(founding, n, _signer(n, "cosign"), clock, folder / f"{n}.note", fault) for n in names]
    tasks = [asyncio.create_task(attend(engine, replica)) for replica in replicas]

    async def client(sender: str) -> None:
        for _ in range(ENVELOPES):
            nonce = await engine.next_nonce(sender)
            ops = tuple(
                AnchorGrant(f"{sender}.{nonce}.{part}", bytes(32), founding.time, founding.time + 1, 0)
                for part in range(3)
            )
            data = sign_envelope(_signer(sender, "envelope"), Envelope(1, chain, sender, nonce, 10**9, ops))
            os.write(log, f"submitted {envelope_id(data).hex()}\n".encode())
            receipt = await engine.wait(await engine.submit(data), 60)
            os.write(log, f"acknowledged {envelope_id(data).hex()} {receipt.block.height}\n".encode())

    async def send(sender: str, signer: Signer, op: Op) -> None:
        nonce = await engine.next_nonce(sender)
        data = sign_envelope(signer, Envelope(1, chain, sender, nonce, 10**9, (op,)))
        os.write(log, f"submitted {envelope_id(data).hex()}\n".encode())
        receipt = await engine.wait(await engine.submit(data), 60)
        os.write(log, f"acknowledged {envelope_id(data).hex()} {receipt.block.height}\n".encode())

    async def come_or_go() -> None:
        """The researcher leaves, or is admitted with keys of its own; the block after needs the handover."""
        height = engine.machine.height
        state = engine.machine.next_view().get(member_key("researcher"), MemberState)
        if state is not None:
            uses = ["envelope", *(f"envelope-{made}" for made in range(height + 1))]
            ring = Keyring(*(_signer("researcher", use) for use in uses))
            signer = ring.for_key(state.keys.envelope.key)
            assert signer is not None
            await send("researcher", signer, Leave())
        else:
            signers = [_signer("researcher", f"{use}-{height}") for use in ("envelope", "cosign", "http", "tls")]
            seal = SealKey(1, sha256(f"seal-{height}".encode()).digest())
            keys = KeySet(*(SignatureKey(signer.key, 0) for signer in signers), SealingKey(seal, 0))
            applicant = Member("researcher", ("researcher",), keys, True)
            message = possession_message(chain, applicant)
            held = tuple(signer.sign(KEY_POSSESSION, message) for signer in signers)
            application = Application(applicant, held)
            for name in names[: engine.machine.trust.k]:
                await send(name, _signer(name, "envelope"), VoteAdmission(application))
        await send(
            "bureau",
            _signer("bureau", "envelope"),
            AnchorGrant(f"after.{height}", bytes(32), founding.time, founding.time + 1, 0),
        )

    await asyncio.gather(*(client(name) for name in names))
    await come_or_go()
    await engine.close()
    await asyncio.gather(*tasks)


def main() -> None:
    """Serve the lines of standard input."""
    for line in sys.stdin:
        folder, boundary, nth = line.split()
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(_work(Path(folder), boundary, int(nth)))
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
