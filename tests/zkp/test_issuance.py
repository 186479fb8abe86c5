"""zkp.credentials and zkp.issuance: three credentials over one secret, each once, to nobody else."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zkp import holders
from tests.zkp.holders import BUREAU_ACCOUNT, BUREAU_PERSON, HOSPITAL, SCOPE, occasion, rand_of
from wire import canonical
from wire.errors import DecodeError, MedveilError, Refused, VerificationError
from zkp import attributes, bbs, issuance
from zkp.attributes import Credential, Value
from zkp.credentials import ACCOUNT, ENCOUNTER, PERSON, SCHEMAS, issuer, share
from zkp.groups import R, backend
from zkp.issuance import AccountScope, Pending, Request

GROUP = backend()


def test_three_credentials_over_one_secret() -> None:
    held = holders.holder()
    secrets = set()
    for credential, schema, by in [
        (held.person, PERSON, BUREAU_PERSON),
        (held.account, ACCOUNT, BUREAU_ACCOUNT),
        (held.encounter, ENCOUNTER, HOSPITAL),
    ]:
        assert SCHEMAS[credential.schema] is schema
        bbs.verify_scalars(by.of.issuer, credential.signature, schema.header, credential.scalars(schema))
        secrets.add(credential.get(schema, "secret"))
    assert len(secrets) == 1
    assert holders.person("berta").get(PERSON, "secret") not in secrets


def test_nobody_picks_her_own_secret() -> None:
    pending = issuance.request_person(BUREAU_PERSON.of, occasion("a"), rand_of("a"))
    credential = holders.person("anna")
    assert pending.hidden["secret"] != PERSON.scalar("secret", credential.get(PERSON, "secret"))
    # nor does the answer for one person fit another: the share depends on whom it is for
    shares = {
        issuance.issue_person(BUREAU_PERSON, occasion("a"), pending.request, who, holders.person_values(), {}).shares
        for who in (b"anna", b"berta")
    }
    assert len(shares) == 2


def test_issuer_keys_differ_by_schema_and_material() -> None:
    keys = [issuer(bytes([i]) * 32, schema) for i in (1, 2) for schema in (PERSON, ACCOUNT)]
    assert len({each.sk for each in keys}) == len({each.share_key for each in keys}) == 4
    assert len({share(keys[0].share_key, *what) for what in [(b"a",), (b"b",), (b"a", b""), (b"", b"a")]}) == 4
    assert 0 <= share(keys[0].share_key, b"a") < R
    assert str(keys[0].sk) not in repr(keys[0])


# ------------------------------------------------------------------------------------------- once only


def first_request(seed: str = "first") -> Pending:
    return issuance.request_person(BUREAU_PERSON.of, occasion("once"), rand_of(seed))


def test_one_person_credential_a_person() -> None:
    pending, known = first_request(), holders.person_values()
    answer = issuance.issue_person(BUREAU_PERSON, occasion("once"), pending.request, b"anna", known, {})
    register = {b"anna": pending.request.commitment}
    assert answer == issuance.issue_person(BUREAU_PERSON, occasion("once"), pending.request, b"anna", known, register)
    second = first_request("second")
    with pytest.raises(Refused) as caught:
        issuance.issue_person(BUREAU_PERSON, occasion("once"), second.request, b"anna", known, register)
    assert caught.value.code == "credentials.issued_before"


def account_request(seed: str, held: Credential, scope: AccountScope = SCOPE) -> Pending:
    return issuance.request_account(
        BUREAU_ACCOUNT.of, occasion("once"), scope, held, BUREAU_PERSON.of, ["region"], rand_of(seed)
    )


def test_one_account_a_person_payer_layer_and_year() -> None:
    held, disclosed, known = holders.person(), {"region": "330100"}, holders.account_values()

    def opened(pending: Pending, register: dict[bytes, bytes]) -> object:
        return issuance.open_account(
            BUREAU_ACCOUNT, BUREAU_PERSON.of, occasion("once"), SCOPE, pending.request, disclosed, known, register
        )

    one, two = account_request("one", held), account_request("two", held)
    assert one.request.nullifier == two.request.nullifier
    assert one.request.commitment != two.request.commitment
    register = {one.request.nullifier: one.request.commitment}
    assert opened(one, {}) == opened(one, register)
    with pytest.raises(Refused):
        opened(two, register)
    opened(account_request("three", holders.person("berta")), register)
    next_year = AccountScope("demo", "bureau-1", 1, 2026)
    assert account_request("four", held, next_year).request.nullifier != one.request.nullifier
    with pytest.raises(VerificationError):  # another scope's nullifier, to have two accounts in this one
        opened(account_request("five", held, next_year), {})
    with pytest.raises(ValueError):
        issuance.open_account(
            BUREAU_ACCOUNT,
            BUREAU_PERSON.of,
            occasion("once"),
            SCOPE,
            one.request,
            disclosed,
            {**known, "year": 2026},
            {},
        )


def test_one_encounter_credential_a_bill() -> None:
    held, known = holders.person(), holders.encounter_values()
    when = occasion("once", "hospital-1")
    requests = [
        issuance.request_encounter(HOSPITAL.of, when, who, BUREAU_PERSON.of, (), rand_of("x")).request
        for who in (held, holders.person("berta"))
    ]
    register = {known["bill"]: requests[0].commitment}
    assert isinstance(known["bill"], bytes)
    answers = {
        canonical.encode(issuance.issue_encounter(HOSPITAL, BUREAU_PERSON.of, when, requests[0], {}, known, seen))
        for seen in ({}, {known["bill"]: requests[0].commitment})
    }
    assert len(answers) == 1
    with pytest.raises(Refused):
        issuance.issue_encounter(HOSPITAL, BUREAU_PERSON.of, when, requests[1], {}, known, register)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        issuance.issue_encounter(HOSPITAL, BUREAU_PERSON.of, when, requests[0], {}, {**known, "total": 5}, {})
    with pytest.raises(ValueError):
        issuance.issue_encounter(HOSPITAL, BUREAU_PERSON.of, when, requests[0], {}, {"total": 5}, {})


def test_a_renewal_keeps_the_secret() -> None:
    held, when = holders.person(), occasion("renewal")
    handle = holders.person_values()["handle"]
    assert isinstance(handle, bytes)
    known = holders.person_values(handle=bytes(16), valid_to=47_000)
    pending = issuance.request_renewal(BUREAU_PERSON.of, when, held, BUREAU_PERSON.of, rand_of("renewal"))

    def renewed(handle: bytes, register: dict[bytes, bytes], request: Request = pending.request) -> Credential:
        answer = issuance.renew_person(BUREAU_PERSON, BUREAU_PERSON.of, when, request, handle, known, register)
        return issuance.finish(pending, known, answer)

    fresh = renewed(handle, {})
    assert fresh.get(PERSON, "secret") == held.get(PERSON, "secret")
    assert fresh.get(PERSON, "valid_to") == 47_000
    with pytest.raises(VerificationError):  # somebody else's handle
        renewed(bytes(16), {})
    with pytest.raises(Refused):
        renewed(handle, {handle: bytes(48)})
    with pytest.raises(VerificationError):  # a first request, which shows nothing, is no renewal
        renewed(handle, {}, first_request().request)
    with pytest.raises(VerificationError):  # and a renewal is no first request: the bureau would add a share
        issuance.issue_person(BUREAU_PERSON, when, pending.request, b"anna", known, {})


# ------------------------------------------------------------------------------------- bound to what


ENCOUNTER_WHEN = occasion("bound", "hospital-1")


@pytest.fixture(scope="module")
def asked() -> Pending:
    return issuance.request_encounter(
        HOSPITAL.of, ENCOUNTER_WHEN, holders.person(), BUREAU_PERSON.of, (), rand_of("bound")
    )


def issue(request: Request) -> None:
    issuance.issue_encounter(HOSPITAL, BUREAU_PERSON.of, ENCOUNTER_WHEN, request, {}, holders.encounter_values(), {})


def test_bound_to_the_occasion_and_keys(asked: Pending) -> None:
    issue(asked.request)
    known = holders.encounter_values()
    for by, person_of, when in [
        (holders.OTHER_HOSPITAL, BUREAU_PERSON.of, ENCOUNTER_WHEN),
        (HOSPITAL, issuer(bytes(32), PERSON).of, ENCOUNTER_WHEN),
        (HOSPITAL, BUREAU_PERSON.of, occasion("another", "hospital-1")),
        (HOSPITAL, BUREAU_PERSON.of, occasion("bound", "hospital-2")),
    ]:
        with pytest.raises(VerificationError):
            issuance.issue_encounter(by, person_of, when, asked.request, {}, known, {})
    with pytest.raises(DecodeError):
        issuance.issue_person(BUREAU_PERSON, ENCOUNTER_WHEN, asked.request, b"anna", holders.person_values(), {})


def test_what_the_hospital_compares_is_proved() -> None:
    """An insured friend stands in for the patient: her own birth day and sex are all that she can show."""
    request = issuance.request_encounter(
        HOSPITAL.of, ENCOUNTER_WHEN, holders.person(), BUREAU_PERSON.of, ("birth", "sex"), rand_of("shown")
    ).request
    known = holders.encounter_values()

    def issued_for(patient: dict[str, Value]) -> None:
        issuance.issue_encounter(HOSPITAL, BUREAU_PERSON.of, ENCOUNTER_WHEN, request, patient, known, {})

    issued_for({"birth": 29_000, "sex": "2"})
    for patient in ({"birth": 29_001, "sex": "2"}, {"birth": 29_000, "sex": "1"}, {"birth": 29_000}, {}):
        with pytest.raises(VerificationError):
            issued_for(patient)


@given(st.data())
def test_changed(asked: Pending, data: st.DataObject) -> None:
    whole = bytearray(canonical.encode(asked.request))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((VerificationError, DecodeError)):
        issue(canonical.decode(Request, bytes(whole)))


OPENED = occasion("mutated")


@cache
def opening() -> Request:
    """A request with all parts: commitment, a shown credential, nullifier and proof."""
    return issuance.request_account(
        BUREAU_ACCOUNT.of, OPENED, SCOPE, holders.person(), BUREAU_PERSON.of, (), rand_of("mutated")
    ).request


def mutated(chance: random.Random) -> bytes | Request:
    """A flip, a cut, an extension, pieces that change places, x + r, the identity."""
    whole, request = canonical.encode(opening()), opening()
    field = chance.choice(["shown", "proof", "commitment", "nullifier"])
    width = 32 if field == "proof" else 48
    data: bytes = getattr(request, field)
    at, other = (width * chance.randrange(len(data) // width) for _ in range(2))
    place = chance.randrange(len(whole))
    one, two = data[at : at + width], data[other : other + width]
    swapped = bytearray(data)
    swapped[at : at + width], swapped[other : other + width] = two, one
    unreduced = (int.from_bytes(request.proof[:32], "big") + R) % 2**256
    of_field: tuple[bytes, ...] = (
        bytes(swapped) if one != two else data + one,
        data[: chance.randrange(len(data))],
        data + bytes(width),
        data[:at] + (bytes([0xC0]) + bytes(47))[:width] + data[at + width :],
        data[:at] + request.commitment[:width] + data[at + width :] if one != request.commitment[:width] else b"",
    )
    turn = chance.randrange(8)
    if turn < 5:
        return Request(**{**_fields(request), field: of_field[turn]})
    return (
        Request(**{**_fields(request), "proof": unreduced.to_bytes(32, "big") + request.proof[32:]}),
        whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :],
        whole[:place] + whole[place + 1 :],
    )[turn - 5]


def campaign(count: int, seed: int) -> set[str]:
    """Refused, and by no other error."""
    chance, codes = random.Random(seed), set()
    for _ in range(count):
        changed = mutated(chance)
        with pytest.raises((VerificationError, DecodeError)) as caught:
            read = canonical.decode(Request, changed) if isinstance(changed, bytes) else changed
            assert read != opening()
            issuance.open_account(
                BUREAU_ACCOUNT, BUREAU_PERSON.of, OPENED, SCOPE, read, {}, holders.account_values(), {}
            )
        codes.add(caught.value.code)
    return codes


def test_five_hundred_mutations() -> None:
    found = campaign(500, 5)
    assert {"zkp.bad_proof", "zkp.malformed_proof", "zkp.proof_length", "wire.not_canonical"} <= found


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_thousand_mutations() -> None:
    assert campaign(10_000, 6)


@pytest.mark.parametrize("field", ["shown", "nullifier", "proof", "commitment"])
def test_cut_and_swapped(asked: Pending, field: str) -> None:
    changes = {
        "shown": [b"", asked.request.shown[:-1], asked.request.shown[48:] + asked.request.shown[:48]],
        "nullifier": [asked.request.commitment],
        "proof": [b"", asked.request.proof[:-32], asked.request.proof + bytes(32)],
        "commitment": [b"\xc0" + bytes(47), asked.request.shown[:48]],
    }
    for value in changes[field]:
        with pytest.raises(VerificationError):
            issue(Request(**{**_fields(asked.request), field: value}))


def _fields(request: Request) -> dict[str, bytes]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


def test_a_cheat_with_another_secret() -> None:
    """She shows her own person credential, but commits to another's secret (or any other)."""
    held = holders.person()
    theirs = PERSON.scalar("secret", holders.person("berta").get(PERSON, "secret"))
    person = (held, BUREAU_PERSON.of, ())
    pending = issuance._request(HOSPITAL.of, ENCOUNTER_WHEN, theirs, rand_of("cheat"), GROUP, person)
    with pytest.raises(VerificationError):
        issue(pending.request)


def test_a_cheat_with_a_person_credential_of_her_own_making() -> None:
    """All its relations hold; only the pairing knows that the bureau did not sign it."""
    mine = issuer(b"a key of the cheat's own: 32 byte", PERSON)
    values = holders.person("berta").named(PERSON)
    signature = bbs.sign_scalars(mine.sk, BUREAU_PERSON.of.issuer, PERSON.header, PERSON.scalars(values))
    forged = attributes.credential(PERSON, BUREAU_PERSON.of.issuer, values, signature)
    request = issuance.request_encounter(
        HOSPITAL.of, ENCOUNTER_WHEN, forged, BUREAU_PERSON.of, (), rand_of("forged")
    ).request
    with pytest.raises(VerificationError) as caught:
        issue(request)
    assert caught.value.code == "zkp.bad_proof"


def test_the_holder_checks_what_was_signed(asked: Pending) -> None:
    known = holders.encounter_values()
    answer = issuance.issue_encounter(HOSPITAL, BUREAU_PERSON.of, ENCOUNTER_WHEN, asked.request, {}, known, {})
    issuance.finish(asked, known, answer)
    with pytest.raises(VerificationError):
        issuance.finish(asked, holders.encounter_values(diagnosis="E11.900"), answer)
    with pytest.raises(VerificationError):
        issuance.finish(replace(asked, hidden={**asked.hidden, "secret": 1}), known, answer)
    with pytest.raises(MedveilError):
        issuance.finish(asked, known, type(answer)((bytes(32),), answer.signature))


def test_the_handle_is_for_the_bureau_alone() -> None:
    """With it a hospital would find a patient's filings in the published set, trying codes and days."""
    when, held = occasion("nosy", "hospital-1"), holders.person()
    with pytest.raises(Refused) as caught:
        issuance.request_encounter(HOSPITAL.of, when, held, BUREAU_PERSON.of, ("birth", "handle"), rand_of("nosy"))
    assert caught.value.code == "credentials.handle_asked"
    with pytest.raises(Refused) as caught:
        issuance.request_account(BUREAU_ACCOUNT.of, when, SCOPE, held, BUREAU_PERSON.of, ("handle",), rand_of("nosy"))
    assert caught.value.code == "credentials.handle_asked"


def test_secrets_are_not_shown() -> None:
    pending = first_request()
    assert str(pending.hidden["secret"]) not in repr(pending)
    assert repr(holders.person()) == "Credential(...)"
