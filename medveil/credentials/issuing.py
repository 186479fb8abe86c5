"""From an issuer's key to a holder's credential, one file a step.

    make_issuer    I   key                           a folder, and the public `CredentialKey`
    offer          I   `Offer`: a fresh nonce         I -> H
    apply          H   `Application`                  H -> I    (from her wallet's seed: made again, it is the same)
    issue          I   `Answer`                       I -> H    (the register is on disk before it is given out)
    take           H   the credential, checked

The same application again gets the same answer, with other values none. An offer is good for one answer. A person
credential is renewed by an offer that names the old one's key; an account goes on by `medveil.credentials.updating`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from medveil.credentials import files, wallets
from medveil.credentials.files import Answer, Application, CredentialKey, Kind, Offer
from medveil.credentials.folder import ISSUER, Given, IssuerState, Rand, Signed, create, opened
from wire.canonical import decode, encode
from wire.domains import CREDENTIAL_VALUES, digest
from wire.errors import DecodeError, Refused
from wire.identifiers import check_name
from zkp import issuance, pedersen
from zkp.attributes import Value
from zkp.bbs_presentation import Issued
from zkp.blind_issuance import BlindSignature
from zkp.credentials import CLASSES, ENCOUNTER, PERSON, Issuer, issuer, share
from zkp.groups import backend, decode_scalar, encode_scalar
from zkp.issuance import AccountScope, Occasion, Pending
from zkp.wallet import Account, Wallet, randomness, with_account, with_bill, with_person


def make_issuer(folder: Path, passphrase: str, kind: Kind, name: str, rand: Rand) -> CredentialKey:
    """Issuer: fresh keys for one kind of credential, in a new folder. Returns the public one; of a folder that this
    issuer made before, the one that it has. Raises Refused, Unavailable, VerificationError."""
    check_name(name, "issuer")
    material = rand(32)
    public = issuer(material, files.SCHEMAS[kind]).of.issuer
    made = create(folder, passphrase, IssuerState(ISSUER, kind, name, public, material, (), ()), rand)
    return CredentialKey(files.KEY, kind, name, made.public)


def keys(state: IssuerState) -> Issuer:
    """The issuer's secret keys."""
    return issuer(state.material, files.SCHEMAS[state.kind])


def offer(
    folder: Path,
    passphrase: str,
    chain: str,
    rand: Rand,
    *,
    person: CredentialKey | None = None,
    renews: CredentialKey | None = None,
    disclose: Sequence[str] = (),
    scope: AccountScope | None = None,
    bill: bytes | None = None,
) -> Offer:
    """Issuer: let one holder ask, once. `person`: whose person credentials are taken; `renews`: the key of the person
    credential in whose place this one is.

    Raises Refused for what does not go with the kind: an account has a scope, a first person credential needs no other;
    for a handle to be shown, but by a renewal.
    """
    check_name(chain, "chain")
    with opened(folder, passphrase) as kept:
        state = kept.read()
        if (person is None) != (state.kind == "person") or (person is not None and person.kind != "person"):
            raise Refused("credential_files.person_key", kind=state.kind)
        if renews is not None and (state.kind, renews.kind) != ("person", "person"):
            raise Refused("credential_files.renews", kind=state.kind)
        if (scope is None) != (state.kind != "account"):
            raise Refused("credential_files.scope", kind=state.kind)
        if (bill is None) != (state.kind != "encounter"):
            raise Refused("credential_files.bill", kind=state.kind)
        for name in disclose:
            if state.kind == "person" or name not in files.known_names("person"):
                raise Refused("credential_files.disclose", attribute=name[:64], kind=state.kind)
            if name == "handle":  # by it rows of sets are found, codes of filings tried one by one
                raise Refused("credentials.handle_asked")
        shown = ("handle",) if renews else tuple(disclose)
        occasion = Occasion(chain, state.issuer, rand(32))
        shower = person or renews
        by = shower.key if shower else b""
        made = Offer(files.OFFER, state.kind, state.public, occasion, by, shown, scope, bill)
        decode(Offer, encode(made))
        kept.write(msgspec.structs.replace(state, given=(*state.given, Given(made, b""))))
    return made


def _pending(wallet: Wallet, made: Offer) -> tuple[Pending, dict[str, Value]]:
    """The application that this wallet makes to an offer, and what it shows. The same for the same offer; another
    offer for the same thing gets the same commitment. Raises DecodeError, Refused."""
    if made.occasion.chain != wallet.chain:
        raise Refused("credential_files.other_chain", chain=wallet.chain, offered=made.occasion.chain)
    of = Issued(files.SCHEMAS[made.kind], made.key)
    if made.kind == "person" and not made.renewal:
        return issuance.request_person(of, made.occasion, randomness(wallet, "person")), {}
    for name in made.disclose:  # an offer is a stranger's file: it does not ask for the secret
        if name not in files.known_names("person"):
            raise Refused("credential_files.disclose", attribute=name, kind=made.kind)
    person, by = wallet.person, Issued(PERSON, made.person_key)
    if person is None or person.issuer != made.person_key:
        raise Refused("credential_files.no_credential", kind="person")
    shown = {name: person.get(PERSON, name) for name in made.disclose}
    if made.renewal:
        if tuple(shown) != ("handle",):
            raise DecodeError("credential_files.values", expected=1, count=len(made.disclose))
        rand = randomness(wallet, "renewal", files.to_wire(shown, ("handle",))[0].hex())  # type: ignore[union-attr]
        return issuance.request_renewal(of, made.occasion, person, by, rand), shown
    if made.scope is not None:
        place = ("account", made.scope.payer, str(made.scope.layer), str(made.scope.year))
        rand = randomness(wallet, *place)
        return issuance.request_account(of, made.occasion, made.scope, person, by, tuple(shown), rand), shown
    if made.bill is None:
        raise Refused("credential_files.bill", kind=made.kind)
    rand = randomness(wallet, "encounter", made.bill.hex())
    return issuance.request_encounter(of, made.occasion, person, by, tuple(shown), rand), shown


def apply(wallet: Path, passphrase: str, made: Offer, rand: Rand, *, renew: bool = False) -> Application:
    """Holder: ask for what is offered. H -> I. The wallet is made if it is not there and a first credential is offered.

    renew: she means to renew her person credential, and shows its handle. An offer is a stranger's file: one that says
    so by itself could be anybody's who wants the handle. Raises Refused, DecodeError, VerificationError, Unavailable.
    """
    if made.renewal and not renew:
        raise Refused("credential_files.renewal")
    if renew and not made.renewal:
        raise Refused("credential_files.no_renewal", kind=made.kind)
    if made.kind == "person" and not made.renewal and not wallet.exists():  # whoever asks for more has one already
        wallets.create(wallet, passphrase, made.occasion.chain, rand)
    with wallets.opened(wallet, passphrase) as kept:
        pending, shown = _pending(kept.wallet, made)
    return Application(files.APPLICATION, made, files.to_wire(shown, tuple(shown)), pending.request)


def issue(
    folder: Path, passphrase: str, application: Application, said: Mapping[str, object], person: str = ""
) -> Answer:
    """Issuer: sign what was applied for. `said`: the attributes as written in JSON, and under "shown" what the holder
    must have shown of her person credential; `person`: for a person credential, the issuer's own id of whom it is for.

    Raises VerificationError (the proof does not hold), DecodeError, Refused: no such offer, or one that was answered;
    somebody else; issued before, or with other values.
    """
    with opened(folder, passphrase) as kept:
        state, made, request = kept.read(), application.offer, application.request
        given = next((one for one in state.given if one.offer == made), None)
        if given is None:
            raise Refused("credential_files.no_offer")
        if given.answered not in (b"", request.commitment):
            raise Refused("credential_files.offer_answered")
        if (state.kind == "person" and not made.renewal) != bool(person):
            raise Refused("credential_files.whose", kind=state.kind)
        names, own = files.known_names(state.kind), dict(said)
        disclosed = files.from_wire(PERSON, application.disclosed, made.disclose)
        expected = own.pop("shown", {})
        if not isinstance(expected, dict) or files.parse_values(PERSON, expected, made.disclose) != disclosed:
            raise Refused("credential_files.other_person")
        values = files.parse_values(files.SCHEMAS[state.kind], own, names)
        entry = _entry(application, disclosed, values, person)
        same = [one for one in state.signed if one.what == entry.what]
        if any(one.key == entry.key and one.commitment == entry.commitment and one != entry for one in same):
            raise Refused("credential_files.other_values", kind=state.kind)
        register = {one.key: one.commitment for one in same}
        signature, blinding = _sign(keys(state), application, disclosed, values, entry.key, register)
        following = (*(one for one in state.given if one != given), Given(made, request.commitment))
        signed = state.signed if entry in same else (*state.signed, entry)
        if (following, signed) != (state.given, state.signed):
            kept.write(msgspec.structs.replace(state, given=following, signed=signed))
    return Answer(files.ANSWER, made, files.to_wire(values, names), signature, blinding)


def _entry(
    application: Application, disclosed: Mapping[str, Value], values: Mapping[str, Value], person: str
) -> Signed:
    """What the register will say of it. Raises Refused for values that are not of the offer."""
    made, request = application.offer, application.request
    what: Literal["person", "renewal", "account", "encounter"] = made.kind
    if made.scope is not None:
        for name in ("payer", "layer", "year"):
            if values[name] != getattr(made.scope, name):
                raise Refused("credential_files.other_scope", attribute=name)
        key = request.nullifier
    elif made.bill is not None:
        if values["bill"] != made.bill:
            raise Refused("credential_files.other_scope", attribute="bill")
        if sum(ENCOUNTER.scalar(name, values[name]) for name in CLASSES) > ENCOUNTER.scalar("total", values["total"]):
            raise Refused("credential_files.classes")
        key = made.bill
    elif made.renewal:
        if values["handle"] == disclosed["handle"]:
            raise Refused("credential_files.old_handle")
        what, key = "renewal", PERSON.scalar("handle", disclosed["handle"]).to_bytes(16, "big")
    else:
        key = person.encode()
    text = encode(files.Values(files.to_wire(values, files.known_names(made.kind))))
    return Signed(what, key, request.commitment, digest(CREDENTIAL_VALUES, made.key, text))


def _sign(
    by: Issuer,
    application: Application,
    disclosed: Mapping[str, Value],
    values: Mapping[str, Value],
    key: bytes,
    register: Mapping[bytes, bytes],
) -> tuple[BlindSignature, bytes | None]:
    """The signature, and of an encounter the blinding of C_total. Raises VerificationError, DecodeError, Refused."""
    made, request = application.offer, application.request
    occasion, of_person = made.occasion, Issued(PERSON, made.person_key)
    if made.scope is not None:
        scope = made.scope
        return issuance.open_account(by, of_person, occasion, scope, request, disclosed, values, register), None
    if made.bill is not None:
        total = encode_scalar(ENCOUNTER.scalar("total", values["total"]))
        blinding = encode_scalar(share(by.share_key, b"total", key, total))
        return issuance.issue_encounter(by, of_person, occasion, request, disclosed, values, register), blinding
    if made.renewal:
        return issuance.renew_person(by, of_person, occasion, request, key, values, register), None
    return issuance.issue_person(by, occasion, request, key, values, register), None


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
        person = kept.wallet.person
        own = person.named(PERSON) if made.renewal and person is not None and person.issuer == made.key else {}
        if own and own | known == own:
            return files.readable(schema, known)  # taken before
        pending, _ = _pending(kept.wallet, made)
        credential = issuance.finish(pending, known, answer.signature)
        if made.kind == "person":
            following = with_person(kept.wallet, credential)
        elif made.scope is not None:
            there = [one.place for one in kept.wallet.accounts]
            fresh = Account(credential, None)  # one that is there has perhaps gone on since: it stays
            following = kept.wallet if fresh.place in there else with_account(kept.wallet, credential)
        elif answer.total_blinding is None:
            raise Refused("credential_files.no_opening")
        else:
            following = with_bill(kept.wallet, credential, decode_scalar(answer.total_blinding))
        if following != kept.wallet:
            kept.save(following, rand)
    return files.readable(schema, known)
