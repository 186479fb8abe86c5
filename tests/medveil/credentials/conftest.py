"""A bureau, a hospital, a holder with three credentials and a bill, and a contract, all on files."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medveil.credentials import claiming, contract, files, folder, issuing, policy_table, sets, updating, wallets
from medveil.credentials.files import Answer, Application, Kind, SetFile
from privacy.keys import Argon2Cost, FileKeyProvider
from wire.evidence import write_file
from zkp import wallet_file
from zkp.issuance import AccountScope
from zkp.reversal import Redeemed
from zkp.settlement import Settlement
from zkp.wallet import Wallet

PASS = "correct horse"
HANDLE, BILL = "0a" * 16, "0b" * 16
PERSON: dict[str, Any] = {
    "scheme": "390", "insutype": "310", "psn_type": "11", "region": "330100", "sex": "2", "birth": "1980-02-29",
    "valid_from": "2020-01-01", "valid_to": None, "handle": HANDLE,
}  # fmt: skip
ENCOUNTER: dict[str, Any] = {
    "bill": BILL, "hospital": "hospital-1", "level": "3", "med_type": "21", "day": "2025-12-11",
    "diagnosis": "I10.x00x002", "total": 420055, "class_1": 250000, "class_2": 130050, "class_3": 0, "class_4": 40000,
    "class_5": 5, "class_6": 0, "class_7": 0, "class_8": 0,
}  # fmt: skip
FIRST: dict[str, Any] = {
    "policy": "resident-inpatient", "version": 3, "payer": "bureau-1", "layer": 1, "statutory": True, "year": 2025,
    "first_day": "2025-01-01", "last_day": "2025-12-31", "insutype": "310", "med_type": "21", "level": "3", "visit": 1,
    "last_visit": 3, "counts_visit": True, "currency": "CNY", "weights": [1000, 1000, 900, 800, 0, 0, 500, 1000],
    "deductible": None, "band_1": 100000, "band_2": 250000, "rates": [700, 800, 900],
}  # fmt: skip
SECOND: dict[str, Any] = {
    "policy": "top-up", "version": 1, "payer": "insurer-1", "layer": 2, "statutory": False, "year": 2025,
    "first_day": "2025-01-01", "last_day": "2025-12-31", "youngest": 18, "oldest": 60, "visit": 0, "last_visit": 0,
    "counts_visit": False, "currency": "CNY", "weights": [1000] * 8, "remainder": True, "deductible": 0, "band_1": 0,
    "band_2": 0, "rates": [0, 0, 500],
}  # fmt: skip


class Desk:
    """Where all files lie."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def key(self, name: str) -> files.CredentialKey:
        return files.read(self / f"{name}.key", files.CredentialKey)

    def applied(self, kind: Kind, wallet: str = "me", **offered: Any) -> Application:
        """An application to a fresh offer."""
        taken = None if kind == "person" else self.key("person")
        made = issuing.offer(self / kind, PASS, "demo", secrets.token_bytes, person=taken, **offered)
        return issuing.apply(self / wallet, PASS, made, secrets.token_bytes)

    def issued(self, application: Application, values: dict[str, Any], person: str = "") -> Answer:
        return issuing.issue(self / application.offer.kind, PASS, application, values, person)

    def take(self, answer: Answer, wallet: str = "me") -> None:
        issuing.take(self / wallet, PASS, answer, secrets.token_bytes)

    def account(self, values: dict[str, Any], wallet: str = "me") -> None:
        scope = AccountScope("demo", values["payer"], values["layer"], values["year"])
        self.take(self.issued(self.applied("account", wallet, scope=scope), values), wallet)

    def bill(self, wallet: str = "me", replaces: str | None = None, **changes: Any) -> Answer:
        """An encounter in the wallet, and its bill at the contract."""
        values = ENCOUNTER | changes
        answer = self.issued(self.applied("encounter", wallet, bill=bytes.fromhex(values["bill"])), values)
        self.take(answer, wallet)
        contract.register(self / "contract", answer, "CNY", None if replaces is None else bytes.fromhex(replaces))
        return answer

    def published(self, version: int, *handles: str) -> SetFile:
        return sets.publish("active", "active", version, [bytes.fromhex(one) for one in handles], secrets.token_bytes)

    def agree(self, active: SetFile, *rows: dict[str, Any]) -> None:
        """The contract goes by this set and these rows from now on."""
        keys = [self.key(name) for name in ("person", "account", "encounter")]
        table = policy_table.parse({"rows": list(rows or (FIRST, SECOND))})
        contract.agree(self / "contract", "demo", keys, [active], {"hospital-1": "3"}, table)
        write_file(self / "active.set", files.canonical.encode(active))

    def question(self, payer: str = "bureau-1", layer: int = 1, bill: str = BILL) -> claiming.SettlementQuestion:
        handle = bytes.fromhex(bill)
        return contract.ask_claim(self / "contract", handle, payer, layer, "HPAYMT", "grant-1", secrets.token_bytes)

    def settle(self, question: claiming.SettlementQuestion | None = None, wallet: str = "me") -> Settlement:
        known = [files.read(self / "active.set", files.SetFile)]
        return claiming.settle(self / wallet, PASS, question or self.question(), known, [], secrets.token_bytes)

    def redemption(self, number: int = 0) -> claiming.RedemptionQuestion:
        handle = bytes.fromhex(BILL)
        return contract.ask_redemption(self / "contract", handle, number, "HPAYMT", "grant-1", secrets.token_bytes)

    def redeem(self, question: claiming.RedemptionQuestion) -> Redeemed:
        return claiming.redeem(self / "me", PASS, question, secrets.token_bytes)

    def post(self, op: Settlement | Redeemed) -> None:
        contract.post(self / "contract", op)

    def reverse(self, payer: str = "bureau-1", layer: int = 1) -> None:
        contract.reverse(self / "contract", bytes.fromhex(BILL), payer, layer)

    def answer(self) -> int:
        return updating.answer(self / "account", PASS, self / "contract")

    def catch_up(self, wallet: str = "me") -> list[updating.Said]:
        return updating.catch_up(self / wallet, PASS, self / "contract", secrets.token_bytes)

    def done(self, op: Settlement | Redeemed) -> list[updating.Said]:
        """Posted, answered, caught up."""
        self.post(op)
        self.answer()
        return self.catch_up()

    def wallet(self, name: str = "me") -> Wallet:
        with wallets.opened(self / name, PASS) as kept:
            return kept.wallet

    def register(self, kind: str) -> folder.IssuerState:
        with folder.opened(self / kind, PASS) as kept:
            return kept.read()


@pytest.fixture(scope="package", autouse=True)
def cheap() -> Iterator[None]:
    """As in tests/medveil/conftest.py, for the whole package: `ready` is made once for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wallet_file.seal, "__defaults__", (wallet_file.Cost(1, 128, 1),))
        patch.setitem(FileKeyProvider.create.__kwdefaults__, "cost", Argon2Cost(1, 8, 1))
        yield


@pytest.fixture(scope="package")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Made once: copy it before anything is changed."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    for kind, name in (("person", "bureau-1"), ("account", "bureau-1"), ("encounter", "hospital-1")):
        made = issuing.make_issuer(desk / kind, PASS, kind, name, secrets.token_bytes)  # type: ignore[arg-type]
        files.write(desk / f"{kind}.key", made)
    desk.take(desk.issued(desk.applied("person"), PERSON, "4711"))
    for payer, layer, cap, deductible in (("bureau-1", 1, 20_000_000, 80_000), ("insurer-1", 2, 5_000_000, 0)):
        desk.account({"payer": payer, "layer": layer, "year": 2025, "visits": 0, "cap": cap, "deductible": deductible})
    desk.agree(desk.published(1, HANDLE, "0e" * 16))
    desk.bill()
    return desk


@pytest.fixture
def desk(ready: Desk, tmp_path: Path) -> Desk:
    """A copy to be changed."""
    shutil.copytree(ready.path, tmp_path / "desk")
    return Desk(tmp_path / "desk")


class Cut(Exception):
    """Where a process was killed."""


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """cut(module, name): within, calling it kills."""

    @contextmanager
    def cutting(module: Any, name: str) -> Iterator[None]:
        def killed(*_: Any, **__: Any) -> Any:
            raise Cut

        with monkeypatch.context() as patch:
            patch.setattr(module, name, killed)
            with pytest.raises(Cut):
                yield

    return cutting
