"""Credentials and proofs on files: a planted insured person, her bill, an eligibility, a claim that is paid and opened.

credentials/own/       what only she, her issuers and the payer of a claim see: values, answers, the opening
credentials/issuers/   their folders, encrypted
credentials/wallet     hers, encrypted
credentials/shown/     what anybody may see: keys, questions, sets, proofs, the contract
"""

from __future__ import annotations

import json
from pathlib import Path

from medveil.leak_test.commands import CommandLine
from medveil.leak_test.flows import must
from medveil.leak_test.scene import Scene

_BILL, _HANDLE = "0b" * 16, "0a" * 16
_BUREAU, _HOSPITAL, _INSURER = "bureau-1", "hospital-1", "insurer-1"
_DAY = "2025-12-11"


async def credentials(scene: Scene) -> None:
    """From the issuers' keys to an amount that its payer has opened."""
    run = _Files(scene)
    run.write_values(scene)
    for kind, name in (("person", _BUREAU), ("account", _BUREAU), ("encounter", _HOSPITAL)):
        await run("key", kind, run.issuer(kind), "--issuer", name, "--out", run.shown(f"{kind}.key"))
    people = "--person-key", run.shown("person.key")
    await run.sign("person", "person.json", person=scene.insured.identity)
    account = "--payer", _BUREAU, "--layer", "1", "--year", "2025"
    await run.sign("account", "account.json", *people, *account)
    await run.sign("encounter", "bill.json", *people, "--bill", _BILL)
    await run("publish", "active", run.own("handles.txt"), "--name", "active", "--version", "1", "--out", run.active)
    keys = *people, "--encounter-key", run.shown("encounter.key"), "--active", run.active
    await run("ask", run.own("terms.json"), *keys, "--out", run.shown("question"))
    await run.proved("question", "eligibility")
    await run("policy", run.own("rows.json"), "--out", run.shown("policy"))
    contract = run.shown("contract")
    known = [word for kind in ("person", "account", "encounter") for word in ("--key", run.shown(f"{kind}.key"))]
    more = "--level", f"{_HOSPITAL}=3", "--set", run.active, "--policy", run.shown("policy")
    await run("contract", contract, "--chain", "leak", *known, *more)
    await run("register", contract, run.own("encounter.answer"))
    claim = "--bill", _BILL, "--payer", _BUREAU, "--layer", "1", "--grant", "grant-1"
    await run("ask-claim", contract, *claim, "--out", run.shown("claim.question"))
    await run.proved("claim.question", "claim")
    await run("post", contract, run.shown("claim"))
    await run("answer", run.issuer("account"), contract)
    await run("catch-up", run.wallet, contract, private=True)
    await run("opening", run.wallet, run.shown("claim"), "--out", run.own("opening"))
    paid = json.loads(await run("amount", contract, run.own("opening"), "--json", private=True))
    must(paid, "amount of a claim")


class _Files:
    """The files, and the verbs that work on them. A verb that says no ends the test."""

    def __init__(self, scene: Scene) -> None:
        self._folder = scene.folder / "credentials"
        for name in ("own", "issuers", "shown"):
            (self._folder / name).mkdir(mode=0o700, parents=True)
        self._line = CommandLine(scene)
        self._passphrase = scene.consortium / "passphrases" / scene.planted[0].hospital
        self.wallet = self._folder / "wallet"
        self.active = self.shown("active.set")

    def own(self, name: str) -> Path:
        return self._folder / "own" / name

    def shown(self, name: str) -> Path:
        return self._folder / "shown" / name

    def issuer(self, kind: str) -> Path:
        return self._folder / "issuers" / kind

    async def __call__(self, verb: str, *arguments: str | Path, private: bool = False) -> bytes:
        """Run a verb; returns what it prints. private: it prints what is the holder's or the payer's alone."""
        into = self._folder / "own" if private else None
        code, said = await self._line.run("zkp", verb, *arguments, passphrase=self._passphrase, into=into)
        must(code == 0, f"medveil zkp {verb}")
        return said

    async def sign(self, kind: str, values: str, *offered: str | Path, person: str = "") -> None:
        """One credential from its offer to the wallet."""
        offer, application, answer = (self.shown(f"{kind}.{step}") for step in ("offer", "application", "answer"))
        answer = self.own(answer.name)
        await self("offer", self.issuer(kind), "--chain", "leak", *offered, "--out", offer)
        await self("apply", self.wallet, offer, "--out", application)
        whose = ("--person", person) if person else ()
        await self("issue", self.issuer(kind), application, *whose, "--values", self.own(values), "--out", answer)
        await self("take", self.wallet, answer, private=True)

    async def proved(self, question: str, proof: str) -> None:
        """A question answered, the answer verified."""
        await self("prove", self.wallet, self.shown(question), "--set", self.active, "--out", self.shown(proof))
        await self("verify", self.shown(proof), "--question", self.shown(question))

    def write_values(self, scene: Scene) -> None:
        """What the issuers know and the insurer asks."""
        insured = scene.insured
        classes = {f"class_{number}": fen for number, fen in enumerate(insured.classes, 1)}
        files: dict[str, object] = {
            "person.json": {
                "scheme": "390", "insutype": "310", "psn_type": "11", "region": "330100", "sex": "2",
                "birth": "1980-02-29", "valid_from": "2020-01-01", "valid_to": None, "handle": _HANDLE,
            },
            "account.json": {
                "payer": _BUREAU, "layer": 1, "year": 2025, "visits": 0, "cap": 2**39, "deductible": 0,
            },
            "bill.json": {
                "bill": _BILL, "hospital": _HOSPITAL, "level": "3", "med_type": "21", "day": _DAY,
                "diagnosis": insured.diagnosis, "total": sum(insured.classes), **classes,
            },
            "terms.json": {
                "chain": "leak", "bill": _BILL, "hospital": _HOSPITAL, "service_day": _DAY, "audience": _INSURER,
                "purpose": "ELIGVER", "grant": "grant-1", "policy": "basic", "version": 1, "row": "0c" * 32,
                "insutype": "310", "youngest": 18, "oldest": 60,
            },
            "rows.json": {
                "rows": [{
                    "policy": "resident-inpatient", "version": 3, "payer": _BUREAU, "layer": 1, "statutory": True,
                    "year": 2025, "first_day": "2025-01-01", "last_day": "2025-12-31", "insutype": "310",
                    "med_type": "21", "level": "3", "visit": 1, "last_visit": 1, "counts_visit": True,
                    "currency": "CNY", "weights": [1000, 1000, 900, 800, 0, 0, 500, 1000], "deductible": None,
                    "band_1": 100000, "band_2": 250000, "rates": [700, 800, 900],
                }],
            },
        }  # fmt: skip
        for name, content in files.items():
            self.own(name).write_text(json.dumps(content), encoding="utf-8")
        self.own("handles.txt").write_text(f"{_HANDLE}\n{'0e' * 16}\n", encoding="utf-8")
