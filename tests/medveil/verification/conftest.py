"""Evidence of a small consortium, and a bureau that writes and signs whatever folder it likes."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.contracts.datasets import population_key
from medveil.gateway import scoring
from medveil.gateway.accounting import anchor_audit
from medveil.gateway.granting import issued
from medveil.gateway.models import ModelShown
from medveil.gateway.own_keys import Secrets
from medveil.gateway.scoring import ScoreRequest
from medveil.gateway.steps import Passing
from medveil.verification import Report, verify
from medveil.verification.kinds import MODEL, ModelEvidence
from mpc.scoring import Feature, build_model, generate_key
from privacy.grants.consent_receipt import make_receipt
from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from wire import evidence
from wire.canonical import Wire, decode, encode
from wire.checkpoint import TrustFile
from wire.domains import MANIFEST
from wire.errors import DecodeError, MedveilError, VerificationError
from wire.evidence import ListedFile, Manifest, ManifestBody, to_json
from wire.signing import Signer

CHAIN = "test-chain"
Structs = Mapping[str, Wire]


def bureaus_signer(folder: Path) -> Signer:
    """The bureau's envelope key, taken out of its own vault with its own passphrase."""
    home = folder / "sites" / "bureau"
    provider = FileKeyProvider(home / "keys", (home / "passphrase").read_text().strip())
    with Vault.open(home / "vault", provider, "bureau") as vault:
        return Signer(decode(Secrets, vault.document("secrets", "keys")).envelope)


@dataclass
class Case:
    """A consortium's trust file, what its evidence is, and the bureau's key."""

    trust: TrustFile
    structs: dict[str, Wire]
    signer: Signer

    def write(
        self,
        folder: Path,
        structs: Structs | None = None,
        kinds: Mapping[str, str] | None = None,
        exporter: str = "bureau",
        signer: Signer | None = None,
        chain: str = CHAIN,
        paths: Callable[[list[ListedFile]], list[ListedFile]] = lambda listed: listed,
    ) -> Path:
        """A folder with these structs under a manifest that holds: what a bureau can do, honest or not.

        kinds: other kinds than the structs' own, by path. paths: what to list instead.
        """
        shutil.rmtree(folder, ignore_errors=True)
        listed = []
        for name, struct in (self.structs if structs is None else structs).items():
            data = struct if isinstance(struct, bytes) else encode(struct)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            kind = (kinds or {}).get(name) or struct.header.kind  # type: ignore[attr-defined]
            listed.append(ListedFile(name, kind, len(data), hashlib.sha256(data).hexdigest()))
        listed = paths(sorted(listed, key=lambda file: file.path))
        body = ManifestBody(1, chain, exporter, 1_800_000_000_000, tuple(listed))
        signature = (signer or self.signer).sign(MANIFEST, evidence._message(body))
        manifest = Manifest(body, signature.algorithm, signature.key_id.hex(), signature.value.hex())
        (folder / "manifest.json").write_bytes(to_json(manifest))
        return folder

    def verify(self, folder: Path, **more: Any) -> Report:
        """Verify a folder against this consortium's trust file."""
        return verify(folder, trust=self.trust, **more)

    def fails(self, folder: Path, name: str, struct: Any, **more: Any) -> MedveilError:
        """The error for this evidence with `name` replaced; it must name that file."""
        self.write(folder, self.structs | {name: struct}, **more)
        with pytest.raises((VerificationError, DecodeError)) as found:
            self.verify(folder)
        assert name in found.value.message, found.value.message
        assert "Traceback" not in found.value.text()
        return found.value


async def gather_evidence(world: Any, *more: tuple[str, Wire], anchor: tuple[str, ...] | None = None) -> Case:
    """Anchor the trails (of `anchor`, or of all) and take everything that an exporter can show."""
    for name, organisation in world.consortium.organisations.items():
        if anchor is None or name in anchor:
            await anchor_audit(organisation)
    engine = world.consortium.engine
    structs: dict[str, Wire] = dict(more)
    structs["values/population.evidence"] = await engine.query(population_key("stays"), prove=True)
    structs["values/absent.evidence"] = await engine.query(b"bills/none", prove=True)
    structs["ledger.evidence"] = await engine.export()
    for name, organisation in world.consortium.organisations.items():
        for batch in organisation.audit.batches():
            structs[f"access/{name}-{batch.first}.evidence"] = batch
        for number, receipt in enumerate(organisation.account.receipts, start=1):
            structs[f"receipts/{name}-{number}.evidence"] = receipt
    return Case(world.consortium.trust, structs, world.bureau.signer)


async def whole_story(world: Any) -> Case:
    """A query, a denied one, a proof, a refused one, a score; two batches of hospital-1's trail."""
    await world.grant_study()
    await world.grant_proofs()
    denied, _ = await world.run(world.query(purpose="FRAUD"), secrets.token_bytes(16))
    assert isinstance(denied, Exception)
    await anchor_audit(world["hospital-1"])
    release = await world.released(world.query(minimum_group=90))
    assert release.results[0].groups and release.results[0].hidden
    bill = await world.bill()
    shown = [(await world.limit_checked(world.request(bill, limit=limit)))[0] for limit in (500_000, 100)]
    secret = generate_key()
    features = tuple(Feature(column, 0, 100, 1, 50) for column in ("cost", "age"))
    model, opening = build_model(secret, "over-use", features, (2, -1), -10, 10, 60, secrets.token_bytes)
    world.bureau.vault.put_document("secrets", "paillier-key", encode(secret))
    await world.register_model(ModelShown(model, opening))
    hospital = world["hospital-2"]
    await world.grant("scores", hospital.name, "bureau", fields=("age", "cost"), purposes=("FRAUD",), uses=("score",))
    request = ScoreRequest(secrets.token_bytes(16), model, "stays-hospital-2", "FRAUD")
    tables, session = world.tables(hospital), request.session
    await asyncio.gather(
        scoring.ask_scores(world.bureau, hospital.name, request, Passing()),
        scoring.serve_scores(hospital, "bureau", session, tables, Passing(), world.now),
    )
    (study,) = [one for one in issued(world["hospital-1"]) if one.terms.uses == ("query",)]
    consent = make_receipt(study.terms, study.commitment, "active", world.now(), world["hospital-1"].signer)
    case = await gather_evidence(
        world,
        ("consents/study.evidence", consent),
        ("releases/query-1.evidence", release),
        ("presentations/bill-1.evidence", shown[0]),
        ("models/over-use.evidence", ModelEvidence(MODEL, model)),
    )
    batch = world["hospital-1"].audit.batches()[1]
    case.structs["access/one-entry.evidence"] = batch.proof(batch.first + 1)
    return case


@pytest.fixture(scope="session")
def case(in_consortium: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The evidence of one whole story. Do not change its structs: copy the dict."""
    pytest.importorskip("phe", reason="install medveil[scoring]")
    folder = tmp_path_factory.mktemp("whole") / "consortium"
    made = in_consortium(folder, whole_story)
    return Case(made.trust, made.structs, bureaus_signer(folder))


@pytest.fixture(scope="session")
def other_case(in_consortium: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The same story in another consortium, whose chain has the same name."""
    folder = tmp_path_factory.mktemp("other") / "consortium"
    return in_consortium(folder, whole_story)


@pytest.fixture(scope="session")
def gathered() -> Callable[..., Any]:
    """`gather_evidence`, for stories of a test's own."""
    return gather_evidence
