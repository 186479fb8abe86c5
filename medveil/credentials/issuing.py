"""From an issuer's key to a holder's credential, one file a step.

    make_issuer    I   key                           a folder, and the public `CredentialKey`
    offer          I   `Offer`: a fresh nonce         I -> H
    apply          H   `Application`                  H -> I    (from her wallet's seed: made again, it is the same)
    issue          I   `Answer`                       I -> H    (the register is on disk before it is given out)
    take           H   the credential, checked

The same application again gets the same answer. Renewing a person credential and updating an account are the
library's (`zkp.issuance`, `zkp.account`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from medveil.credentials import files, wallets
from medveil.credentials.files import Answer, Application, CredentialKey, Kind, Offer
from medveil.credentials.folder import IssuerState, Rand, Signed, create, opened
from wire.canonical import decode, encode
from wire.errors import Refused
from wire.identifiers import check_name
from zkp import issuance, pedersen
from zkp.attributes import Value
from zkp.bbs_presentation import Issued
from zkp.credentials import ENCOUNTER, PERSON, Issuer, issuer, share
from zkp.groups import backend, decode_scalar, encode_scalar
from zkp.issuance import AccountScope, Occasion, Pending
from zkp.wallet import Wallet, randomness, with_account, with_bill, with_person


def make_issuer(folder: Path, passphrase: str, kind: Kind, name: str, rand: Rand) -> CredentialKey:
    """Issuer: fresh keys for one kind of credential, in a new folder. Returns the public one."""
    check_name(name, "issuer")
    material = rand(32)
    public = issuer(material, files.SCHEMAS[kind]).of.issuer
    create(folder, passphrase, IssuerState(kind, name, public, material, (), ()), rand)
    return CredentialKey(files.KEY, kind, name, public)


def _keys(state: IssuerState) -> Issuer:
    return issuer(state.material, files.SCHEMAS[state.kind])


def offer(
    folder: Path,
    passphrase: str,
    chain: str,
    rand: Rand,
    *,
    person: CredentialKey | None = None,
    disclose: Sequence[str] = (),
    scope: AccountScope | None = None,
    bill: bytes | None = None,
) -> Offer:
    """Issuer: let one holder ask, once. `person`: whose person credentials are taken.

    Raises Refused for what does not go with the kind: an account has a scope, a person credential needs no other.
    """
    check_name(chain, "chain")
    with opened(folder, passphrase) as kept:
        state = kept.read()
        if (person is None) != (state.kind == "person") or (person is not None and person.kind != "person"):
            raise Refused("credential_files.person_key", kind=state.kind)
        if (scope is None) != (state.kind != "account"):
            raise Refused("credential_files.scope", kind=state.kind)
        if (bill is None) != (state.kind != "encounter"):
            raise Refused("credential_files.bill", kind=state.kind)
        for name in disclose:
            if state.kind == "person" or name not in files.known_names("person"):
                raise Refused("credential_files.disclose", attribute=name[:64], kind=state.kind)
        occasion = Occasion(chain, state.issuer, rand(32))
        by = person.key if person else b""
        made = Offer(files.OFFER, state.kind, state.public, occasion, by, tuple(disclose), scope, bill)
        decode(Offer, encode(made))
        kept.write(msgspec.structs.replace(state, offers=(*state.offers, made)))
    return made


def _pending(wallet: Wallet, made: Offer) -> tuple[Pending, dict[str, Value]]:
    """The application that this wallet makes to an offer, and what it shows. The same for the same offer; another
    offer for the same thing gets the same commitment. Raises Refused."""
    if made.occasion.chain != wallet.chain:
        raise Refused("credential_files.other_chain", chain=wallet.chain, offered=made.occasion.chain)
    of = Issued(files.SCHEMAS[made.kind], made.key)
    if made.kind == "person":
        return issuance.request_person(of, made.occasion, randomness(wallet, "person")), {}
    person, by = wallet.person, Issued(PERSON, made.person_key)
    if person is None or person.issuer != made.person_key:
        raise Refused("credential_files.no_credential", kind="person")
    shown = {name: person.get(PERSON, name) for name in made.disclose}
    if made.scope is not None:
        place = ("account", made.scope.payer, str(made.scope.layer), str(made.scope.year))
        rand = randomness(wallet, *place)
        return issuance.request_account(of, made.occasion, made.scope, person, by, tuple(shown), rand), shown
    if made.bill is None:
        raise Refused("credential_files.bill", kind=made.kind)
    rand = randomness(wallet, "encounter", made.bill.hex())
    return issuance.request_encounter(of, made.occasion, person, by, tuple(shown), rand), shown


def apply(wallet: Path, passphrase: str, made: Offer, rand: Rand) -> Application:
    """Holder: ask for what is offered. The wallet is made if it is not there. H -> I"""
    if not wallet.exists():
        wallets.create(wallet, passphrase, made.occasion.chain, rand)
    with wallets.opened(wallet, passphrase) as kept:
        pending, shown = _pending(kept.wallet, made)
    return Application(files.APPLICATION, made, files.to_wire(shown, tuple(shown)), pending.request)


def issue(
    folder: Path, passphrase: str, application: Application, said: Mapping[str, object], person: str = ""
) -> Answer:
    """Issuer: sign what was applied for. `said`: the attributes as written in JSON, and under "shown" what the holder
    must have shown of her person credential; `person`: for a person credential, the issuer's own id of whom it is for.

    Raises VerificationError (the proof does not hold), DecodeError, Refused (no such offer, somebody else, or issued
    before).
    """
    with opened(folder, passphrase) as kept:
        state, made = kept.read(), application.offer
        if made not in state.offers:
            raise Refused("credential_files.no_offer")
        if (state.kind == "person") != bool(person):
            raise Refused("credential_files.whose", kind=state.kind)
        names, own = files.known_names(state.kind), dict(said)
        disclosed = files.from_wire(PERSON, application.disclosed, made.disclose)
        expected = own.pop("shown", {})
        if not isinstance(expected, dict) or files.parse_values(PERSON, expected, made.disclose) != disclosed:
            raise Refused("credential_files.other_person")
        values = files.parse_values(files.SCHEMAS[state.kind], own, names)
        register = {each.key: each.commitment for each in state.signed}
        by, occasion, request = _keys(state), made.occasion, application.request
        of_person, blinding = Issued(PERSON, made.person_key), None
        if made.scope is not None:
            for name in ("payer", "layer", "year"):
                if values[name] != getattr(made.scope, name):
                    raise Refused("credential_files.other_scope", attribute=name)
            key = request.nullifier
            signature = issuance.open_account(by, of_person, occasion, made.scope, request, disclosed, values, register)
        elif made.bill is not None:
            if values["bill"] != made.bill:
                raise Refused("credential_files.other_scope", attribute="bill")
            key = made.bill
            total = encode_scalar(ENCOUNTER.scalar("total", values["total"]))
            blinding = encode_scalar(share(by.share_key, b"total", key, total))
            signature = issuance.issue_encounter(by, of_person, occasion, request, disclosed, values, register)
        else:
            key = person.encode()
            signature = issuance.issue_person(by, occasion, request, key, values, register)
        if key not in register:
            entry = Signed(key, request.commitment)
            kept.write(msgspec.structs.replace(state, signed=(*state.signed, entry)))
    return Answer(files.ANSWER, made, files.to_wire(values, names), signature, blinding)


def total_commitment(answer: Answer) -> bytes:
    """C_total (48 bytes, public) of an encounter: what its hospital registers. ValueError for another credential."""
    if answer.total_blinding is None:
        raise ValueError("only encounters have a total")
    total = files.from_wire(ENCOUNTER, answer.values, files.known_names("encounter"))["total"]
    group = backend()
    return group.encode(pedersen.commit(ENCOUNTER.scalar("total", total), decode_scalar(answer.total_blinding), group))


def take(wallet: Path, passphrase: str, answer: Answer, rand: Rand) -> dict[str, str | int | None]:
    """Holder: check the signature, and keep the credential. Returns what it says, to be read before it is used.

    Raises VerificationError (nothing that this wallet applied for, or something else was signed), DecodeError, Refused.
    """
    made = answer.offer
    schema = files.SCHEMAS[made.kind]
    known = files.from_wire(schema, answer.values, files.known_names(made.kind))
    with wallets.opened(wallet, passphrase) as kept:
        pending, _ = _pending(kept.wallet, made)
        credential = issuance.finish(pending, known, answer.signature)
        if made.kind == "person":
            following = with_person(kept.wallet, credential)
        elif made.kind == "account":
            following = with_account(kept.wallet, credential)
        elif answer.total_blinding is None:
            raise Refused("credential_files.no_opening")
        else:
            following = with_bill(kept.wallet, credential, decode_scalar(answer.total_blinding))
        kept.save(following, rand)
    return files.readable(schema, known)
