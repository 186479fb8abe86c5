"""A small consortium with known keys, and a hand on its machine.

The keys are derived from names, so that every run, and every other interpreter, has the same ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import (
    Column,
    Op,
    ProposeQuery,
    RegisterDataset,
    RegisterPopulation,
    RotateKeys,
    VoteBudget,
)
from ledger.contracts.membership import MemberState, changes_key, member_key
from ledger.contracts.organisations import Application, possession_message
from ledger.engines.store import Results
from ledger.envelope import VERSION, Envelope, sign_envelope
from ledger.machine import Block, BlockOutcome, Machine
from ledger.receipts import PROVEN_VALUE, ProvenValue
from wire.canonical import encode
from wire.checkpoint import Note, TrustFile, cosign_checkpoint, sign_checkpoint, trust_of
from wire.checkpoint.membership import signature_keys
from wire.domains import KEY_POSSESSION
from wire.errors import Refused
from wire.keyset import Founding, KeySet, Member, SealingKey, SignatureKey, Tier
from wire.sealing import SealKey
from wire.signing import Keyring, Signature, Signer

START = 1_760_000_000_000
MEMBERS = {
    "bureau": "bureau",
    "hospital-1": "hospital",
    "hospital-2": "hospital",
    "hospital-3": "hospital",
    "hospital-4": "hospital",
    "insurer": "insurer",
    "researcher": "researcher",
    "regulator": "regulator",
}
HOSPITALS = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
K = 6
USES = ("envelope", "cosign", "http", "tls")


def named(*parts: str) -> bytes:
    """32 bytes that depend on a name."""
    return sha256("/".join(parts).encode()).digest()


class World:
    """A machine with genesis, signers of all members, and short ways to make blocks."""

    hospitals = HOSPITALS
    members = MEMBERS
    start = START

    def __init__(self) -> None:
        members = tuple(self._member(name, role) for name, role in MEMBERS.items())
        self.founding = Founding("test-chain", members, "bureau", K, "Asia/Shanghai", START)
        self.trust: TrustFile = trust_of(self.founding)
        self.machine = Machine(self.founding)
        self.blocks: list[Block] = []
        self.time = START

    @staticmethod
    def signer(name: str, use: str = "envelope") -> Signer:
        return Signer(named(name, use))

    def _member(self, name: str, role: str) -> Member:
        def key(use: str) -> SignatureKey:
            return SignatureKey(self.signer(name, use).key, 0)

        seal = SealingKey(SealKey(1, named(name, "seal")), 0)
        return Member(name, (role,), KeySet(key("envelope"), key("cosign"), key("http"), key("tls"), seal), True)

    def envelope(self, sender: str, *ops: Op, nonce: int | None = None, expiry: int = 1000, **change: object) -> bytes:
        """A signed envelope; `change` overrides fields before signing, `signer` who signs."""
        signer = change.pop("signer", None) or self.signer(sender)
        fields: dict[str, object] = {
            "version": VERSION,
            "chain": self.trust.genesis_hash,
            "sender": sender,
            "nonce": self.machine.next_nonce(sender) if nonce is None else nonce,
            "expiry_height": expiry,
            "ops": ops,
        }
        return sign_envelope(signer, Envelope(**(fields | change)))  # type: ignore[arg-type]

    def block(self, *envelopes: bytes, step: int = 1000) -> BlockOutcome:
        """The next block."""
        self.time += step
        outcome = self.machine.apply_block(self.machine.height + 1, self.time, envelopes)
        self.blocks.append(Block(outcome.header, envelopes))
        return outcome

    def keys(self, name: str, generation: str) -> KeySet:
        """A key set of `name`, other than that of genesis."""
        signing = (SignatureKey(self.signer(name, f"{use}-{generation}").key, 0) for use in USES)
        return KeySet(*signing, SealingKey(SealKey(1, named(name, f"seal-{generation}")), 0))

    def held(self, applicant: Member, chain: bytes | None = None) -> tuple[Signature, ...]:
        """Possession of the keys that this world can know: by name and generation, or of genesis."""
        ring = Keyring(
            *(
                self.signer(owner, use + which)
                for owner in (applicant.organisation, *MEMBERS)
                for use in USES
                for which in ("", *(f"-{number}" for number in range(1, 41)))
            )
        )
        message = possession_message(chain or self.trust.genesis_hash, applicant)
        signers = [ring.for_key(entry.key) for entry in signature_keys(applicant.keys)]
        return tuple(signer.sign(KEY_POSSESSION, message) for signer in signers if signer is not None)

    def application(
        self,
        name: str,
        roles: tuple[str, ...] = ("pharmacy",),
        generation: str = "1",
        *,
        tier: Tier = "",
        re_executes: bool = True,
        chain: bytes | None = None,
        keys: KeySet | None = None,
        change: dict[str, Any] | None = None,
    ) -> Application:
        """An application with possession shown of whatever keys it names."""
        keys = msgspec.structs.replace(keys or self.keys(name, generation), **(change or {}))
        applicant = Member(name, roles, keys, re_executes, tier)
        return Application(applicant, self.held(applicant, chain))

    def rotation(
        self,
        name: str,
        generation: str = "1",
        from_height: int = 0,
        *,
        only: tuple[str, ...] = (*USES, "seal"),
        chain: bytes | None = None,
        change: dict[str, Any] | None = None,
    ) -> RotateKeys:
        """New keys of a member, for the uses in `only`."""
        state = self.machine.get(member_key(name), MemberState)
        assert state is not None
        new = {use: getattr(self.keys(name, generation), use) for use in only}
        old = {
            use: msgspec.structs.replace(getattr(state.keys, use), valid_from=0)
            for use in KeySet.__struct_fields__
            if use not in only
        }
        keys = KeySet(**(old | new | (change or {})))
        return RotateKeys(keys, from_height, self.held(self.as_now(name, keys), chain))

    def as_now(self, name: str, keys: KeySet) -> Member:
        """A member as the ledger has it, but for its keys."""
        state = self.machine.get(member_key(name), MemberState)
        assert state is not None
        return Member(name, state.roles, keys, state.re_executes, state.tier)

    def act(self, sender: str, *ops: Op, **how: object) -> tuple[str, ...]:
        """One envelope in a block of its own: names of its events. Raises the contract's refusal."""
        outcome = self.block(self.envelope(sender, *ops, **how))
        if outcome.refusals[0] is not None:
            raise outcome.refusals[0]
        return tuple(event.name for event in outcome.results[0].events)

    def refused(self, sender: str, *ops: Op, **how: object) -> Refused:
        """The refusal that the ops meet; the test fails if there is none."""
        before = self.machine.state
        with pytest.raises(Refused) as caught:
            self.act(sender, *ops, **how)
        changed = {key for key, value in self.machine.state.items() if before.get(key) != value}
        membership = {key for key in changed if key.startswith(b"organisations/")}
        if membership:  # what was agreed before for this height holds, whatever is refused in it
            assert b"organisations/consortium" in membership
            assert self.machine.trust.latest.from_height == self.machine.height
        assert changed - membership <= {b"machine/clock", f"machine/account/{sender}".encode()}
        return caught.value

    def note(self, cosigners: Sequence[str] | None = None, **uses: str) -> Note:
        """The head of the machine's log, signed and cosigned. uses: of members that have another cosign key."""
        log = self.machine.log
        note = sign_checkpoint(self.signer("bureau", "cosign"), self.trust.origin, log.size, log.root())
        for name in list(MEMBERS)[:K] if cosigners is None else cosigners:
            signer = self.signer(name, uses.get(name, "cosign"))
            note = note.with_line(cosign_checkpoint(signer, name, note, self.time // 1000))
        return note

    def handover(self, **uses: str) -> ProvenValue:
        """Evidence of the changes that hold from the next block on."""
        key, log = changes_key(self.machine.height + 1), self.machine.log
        return ProvenValue(
            header=PROVEN_VALUE,
            key=key,
            value=self.machine.state.get(key),
            proof=self.machine.state.prove(key),
            block=self.machine.header,
            block_path=log.inclusion_proof(self.machine.height),
            note=self.note(**uses).format(),
        )

    def population(self, rho_nano: int = 1_000_000, name: str = "heart") -> None:
        """A population of all hospitals with a budget in force."""
        self.act("hospital-1", RegisterPopulation(name, "row", 1, 1, HOSPITALS))
        self.block(*(self.envelope(hospital, self.dataset(f"{name}-{hospital}", name)) for hospital in HOSPITALS))
        self.block(*(self.envelope(hospital, VoteBudget(name, rho_nano)) for hospital in HOSPITALS))

    @staticmethod
    def dataset(name: str, population: str = "heart", **change: object) -> RegisterDataset:
        fields: dict[str, object] = {
            "dataset": name,
            "population": population,
            "schema_hash": named("schema"),
            "columns": (Column("chol", "number", 0, 600, 1, ()), Column("sex", "category", 0, 0, 1, ("f", "m"))),
            "row_class": 500,
            "commitment": named("commitment", name),
        }
        return RegisterDataset(**(fields | change))  # type: ignore[arg-type]

    @staticmethod
    def proposal(query: bytes = b"q" * 16, **change: object) -> ProposeQuery:
        fields: dict[str, object] = {
            "query": query,
            "salted_hash": named("query"),
            "population": "heart",
            "roster": HOSPITALS,
            "rho_nano": 400_000,
            "phases": 2,
        }
        return ProposeQuery(**(fields | change))  # type: ignore[arg-type]


VERSION_1 = """
CREATE TABLE genesis (founding BLOB NOT NULL);
CREATE TABLE blocks (height INTEGER PRIMARY KEY, block BLOB NOT NULL, results BLOB NOT NULL, note BLOB NOT NULL);
CREATE TABLE envelopes (id BLOB PRIMARY KEY, height INTEGER NOT NULL, entry INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE final (one INTEGER PRIMARY KEY CHECK (one = 1), note BLOB NOT NULL);
"""
"""The statements of the first data version of the embedded engine, as that version ran them."""


def write_version_1(world: World, path: Path) -> None:
    """The blocks of `world` as the store of data version 1 wrote them."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("BEGIN IMMEDIATE")
    for statement in VERSION_1.split(";"):
        db.execute(statement)
    db.execute("INSERT INTO genesis VALUES (?)", (encode(world.founding),))
    db.execute(f"PRAGMA application_id={0x6D766C31}")
    db.execute("PRAGMA user_version=1")
    db.execute("COMMIT")
    machine = Machine(world.founding)
    for block in world.blocks:
        outcome = machine.replay(block)
        note = sign_checkpoint(world.signer("bureau", "cosign"), world.trust.origin, outcome.size, outcome.log_root)
        row = (outcome.header.height, encode(block), encode(Results(outcome.results)), note.format())
        db.execute("INSERT INTO blocks VALUES (?, ?, ?, ?)", row)
        for result in outcome.results:
            db.execute("INSERT INTO envelopes VALUES (?, ?, ?)", (result.envelope, result.height, result.entry))
    db.execute("INSERT INTO final VALUES (1, ?)", (world.note().format(),))
    db.close()


@pytest.fixture
def version_1() -> Callable[[World, Path], None]:
    return write_version_1


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_world() -> Callable[[], World]:
    return World


@pytest.fixture(name="named")
def _named() -> Callable[..., bytes]:
    return named
