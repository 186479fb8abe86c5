"""An insured person of the demo, whoever signs for her, and her wallet: three credentials over one secret.

    bureau       person credential, one account for each payer, layer and year       of whom is insured, and how
    hospital-1   encounter credential of one bill                                     of what was done, at what price

Each is issued blindly (`zkp.issuance`): its issuer checks a proof, signs, and cannot recognise what it has signed.
Person, bill and amounts are synthetic, since the data sets hold none. All parties are played here, in one process;
nothing of it reaches a gateway or the ledger, which have no such flow today.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

from medveil.credentials import files
from medveil.credentials.files import CredentialKey, Kind, SetFile
from medveil.demo.play import BUREAU, ZONE, Play, now, rand
from medveil.demo.policy import AMOUNTS, COVERED, LEVEL, TOTAL
from wire.dates import NO_END, date_of, day_at, day_of
from wire.identifiers import new_handle
from zkp import issuance, membership, pedersen, wallet
from zkp.attributes import Value
from zkp.claim import Claim
from zkp.credentials import ACCOUNT, CLASSES, ENCOUNTER, PERSON, Issuer, issuer
from zkp.groups import backend, random_scalar
from zkp.issuance import AccountScope, Occasion
from zkp.membership import Member, PublishedSet
from zkp.settlement import Settlement
from zkp.wallet import Wallet

PERSON_NAME: Final = "person-1"
HOSPITAL: Final = "hospital-1"
AGE: Final = 45
DIAGNOSIS: Final = "I10.x00x002"
_LISTED: Final = ("E11.900", "I10.x00x002", "I25.103", "J18.900", "N18.900")
MEMBERS: Final = 1000
"""Active credentials, the person's among them."""

_SHOWN_AT_HOSPITAL: Final = ("birth", "sex")
_SHOWN_FOR_ACCOUNT: Final = ("insutype", "psn_type")


@dataclass
class Insured:
    """The person, her issuers and what is public about her bill.

    person_by, account_by, encounter_by: issuers with their secret keys; known: what the bureau signed of the person;
    active, covered: published sets; bill: handle; total: C_total; day: of service.
    """

    chain: str
    day: int
    person_by: Issuer
    account_by: Issuer
    encounter_by: Issuer
    known: dict[str, Value]
    active: PublishedSet
    covered: PublishedSet
    bill: bytes
    total: bytes
    wallet: Wallet

    @property
    def year(self) -> int:
        """Of the service day."""
        return date_of(self.day).year

    @property
    def active_row(self) -> membership.Row:
        """Holder: her row of the active set, found without saying which. Secret."""
        return membership.find(self.active, self._handle)

    @property
    def covered_row(self) -> membership.Row:
        """Holder: the row of her diagnosis in the public list. Secret."""
        return membership.find(self.covered, DIAGNOSIS)

    @property
    def _handle(self) -> bytes:
        handle = self.known["handle"]
        assert isinstance(handle, bytes)
        return handle

    def prepare(self, claim: Claim) -> tuple[Wallet, Settlement]:
        """Holder: prove a claim. Returns the wallet that remembers the step, too. Raises Refused for a false one."""
        diagnosis = None if claim.diagnoses is None else self.covered_row
        return wallet.prepare_settlement(self.wallet, claim, self.active_row, diagnosis, rand)


def _occasion(chain: str, by: str) -> Occasion:
    return Occasion(chain, by, rand(32))


def sign_up(play: Play) -> Insured:
    """The bureau's and hospital-1's keys, the sets, the person's wallet with person and encounter credential."""
    chain, day = play.trust.chain, day_at(now(), ZONE)
    person_by, account_by = issuer(material := rand(32), PERSON), issuer(material, ACCOUNT)
    encounter_by = issuer(rand(32), ENCOUNTER)
    year, handle = date_of(day).year, new_handle(rand)
    known: dict[str, Value] = {
        "scheme": "390",
        "insutype": "310",
        "psn_type": "11",
        "region": "330100",
        "sex": "2",
        "birth": day_of(date(year - AGE, 1, 1)),
        "valid_from": day_of(date(year, 1, 1)),
        "valid_to": NO_END,
        "handle": handle,
    }
    own = wallet.new(chain, rand)
    occasion = _occasion(chain, BUREAU)
    asked = issuance.request_person(person_by.of, occasion, wallet.randomness(own, "person"))
    signed = issuance.issue_person(person_by, occasion, asked.request, PERSON_NAME.encode(), known, {})
    own = wallet.with_person(own, issuance.finish(asked, known, signed))

    active = _publish("active", "active", (handle, *(new_handle(rand) for _ in range(MEMBERS - 1))))
    covered = _publish("covered", COVERED, _LISTED)
    bill, blinding = new_handle(rand), random_scalar(rand)
    total = backend().encode(pedersen.commit(TOTAL, blinding))
    found = Insured(chain, day, person_by, account_by, encounter_by, known, active, covered, bill, total, own)
    _treat(found, blinding)
    _show(play, found)
    return found


def _publish(kind: Literal["active", "covered"], name: str, members: Sequence[Member]) -> PublishedSet:
    """Bureau: the first version of a set, under a key that is drawn for it and forgotten."""
    secret, key = membership.new_version(kind, name, 1, rand)
    return membership.publish(secret, key, members)


def _treat(insured: Insured, blinding: int) -> None:
    """Hospital: the encounter credential of the bill, over the secret of whoever showed birth day and sex."""
    known: dict[str, Value] = {
        "bill": insured.bill,
        "hospital": HOSPITAL,
        "level": LEVEL,
        "med_type": "21",
        "day": insured.day,
        "diagnosis": DIAGNOSIS,
        "total": TOTAL,
        **dict(zip(CLASSES, AMOUNTS, strict=True)),
    }
    own, by, of_person = insured.wallet, insured.encounter_by, insured.person_by.of
    assert own.person is not None  # signed a moment ago
    occasion = _occasion(insured.chain, HOSPITAL)
    drawn = wallet.randomness(own, "encounter", insured.bill.hex())
    asked = issuance.request_encounter(by.of, occasion, own.person, of_person, _SHOWN_AT_HOSPITAL, drawn)
    shown = {name: insured.known[name] for name in _SHOWN_AT_HOSPITAL}
    signed = issuance.issue_encounter(by, of_person, occasion, asked.request, shown, known, {})
    insured.wallet = wallet.with_bill(own, issuance.finish(asked, known, signed), blinding)


def open_account(insured: Insured, payer: str, layer: int, cap: int, deductible: int) -> None:
    """Bureau: her account of one payer, layer and this year, under a serial that the bureau does not know.

    cap, deductible: fen. The holder shows what they depend on, and a nullifier by which she gets no second one.
    """
    own, by, of_person = insured.wallet, insured.account_by, insured.person_by.of
    assert own.person is not None  # `sign_up` did it
    scope, occasion = AccountScope(insured.chain, payer, layer, insured.year), _occasion(insured.chain, BUREAU)
    drawn = wallet.randomness(own, "account", payer, str(layer), str(insured.year))
    asked = issuance.request_account(by.of, occasion, scope, own.person, of_person, _SHOWN_FOR_ACCOUNT, drawn)
    shown = {name: insured.known[name] for name in _SHOWN_FOR_ACCOUNT}
    known: dict[str, Value] = {
        "payer": payer,
        "layer": layer,
        "year": insured.year,
        "visits": 0,
        "cap": cap,
        "deductible": deductible,
    }
    signed = issuance.open_account(by, of_person, occasion, scope, asked.request, shown, known, {})
    insured.wallet = wallet.with_account(own, issuance.finish(asked, known, signed))


def _show(play: Play, insured: Insured) -> None:
    """Put what a verifier needs to ask, and a holder to prove, beside the proofs."""
    keys: tuple[tuple[Kind, str, Issuer], ...] = (
        ("person", BUREAU, insured.person_by),
        ("account", BUREAU, insured.account_by),
        ("encounter", HOSPITAL, insured.encounter_by),
    )
    for kind, name, by in keys:
        play.show(f"{kind}-key", CredentialKey(files.KEY, kind, name, by.of.issuer))
    for published in (insured.active, insured.covered):
        play.show(f"set-{published.key.name}", SetFile(files.SET, published))
