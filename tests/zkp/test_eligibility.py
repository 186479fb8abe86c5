"""zkp.eligibility: true statements pass, and every way to a false one that we could think of does not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import pytest

from tests.zkp import holders
from tests.zkp.holders import BILL, BUREAU_PERSON, DAY, HOSPITAL, rand_of
from wire import canonical
from wire.dates import NO_END, birth_days
from wire.errors import DecodeError, Refused, VerificationError
from wire.evidence import read
from zkp import bbs_presentation, eligibility, membership, pedersen, range_proof
from zkp.credentials import PERSON, issuer
from zkp.eligibility import Conditions, Eligibility, EligibilityRequest, Holdings
from zkp.groups import Backend, R, backend
from zkp.membership import Filing, Member, PublishedSet, SetKey
from zkp.policy import Diagnoses

GROUP = backend()
CODE = "I10.x00x002"
ROW = hashlib.sha256(b"a row").digest()


def handle_of(name: str) -> bytes:
    return hashlib.sha256(f"handle of {name}".encode()).digest()[:16]


@cache
def holder(name: str = "anna", **changes: Any) -> holders.Holder:
    return holders.holder(name, handle=handle_of(name), **changes)


@cache
def whole_set(kind: str, version: int = 7) -> PublishedSet:
    members: dict[str, list[Member]] = {
        "active": [handle_of("anna"), handle_of("berta")],
        "covered": [CODE, "E11.900"],
        "filed": [
            Filing(handle_of("anna"), CODE, 45_000, 47_000),
            Filing(handle_of("berta"), "E11.900", 1, NO_END),
            Filing(handle_of("carla"), CODE, 1, 45_999),
        ],
    }
    y, key = membership.new_version(kind, f"set-{kind}", version, rand_of(f"{kind}/{version}"))  # type: ignore[arg-type]
    return membership.publish(y, key, members[kind])


def asked(kind: str | None = None, **changes: Any) -> EligibilityRequest:
    """A request; `changes` of it or of its conditions, by field."""
    wanted = None if kind is None else Diagnoses(kind, f"set-{kind}")  # type: ignore[arg-type]
    conditions = Conditions(
        "basic", 3, ROW, insutype="310", psn_type="11", region="330100", med_type="21", level="3",
        youngest=18, oldest=60, diagnoses=wanted,
    )  # fmt: skip
    own = {key: value for key, value in changes.items() if key in Conditions.__struct_fields__}
    request = EligibilityRequest(
        "demo", BUREAU_PERSON.of.issuer, HOSPITAL.of.issuer, whole_set("active").key,
        None if kind is None else whole_set(kind).key, msgspec.structs.replace(conditions, **own), BILL,
        "hospital-1", DAY, "insurer-1", bytes(32), "ELIGVER", "grant-1",
    )  # fmt: skip
    return msgspec.structs.replace(request, **{key: value for key, value in changes.items() if key not in own})


def held(kind: str | None = None, who: holders.Holder | None = None) -> Holdings:
    who = who or holder()
    diagnosis = None
    if kind is not None:
        member: Member = CODE if kind == "covered" else Filing(handle_of("anna"), CODE, 45_000, 47_000)
        diagnosis = membership.find(whole_set(kind), member)
    handle = who.person.get(PERSON, "handle")
    assert isinstance(handle, bytes)
    return Holdings(who.person, who.encounter, membership.find(whole_set("active"), handle), diagnosis)


KINDS = [None, "covered", "filed"]


@cache
def proved(kind: str | None = None) -> Eligibility:
    return eligibility.prove(asked(kind), held(kind), rand_of("proved"))


# --------------------------------------------------------------------------------------- what is true


@pytest.mark.parametrize("kind", KINDS)
def test_accepted(kind: str | None) -> None:
    proof = proved(kind)
    eligibility.verify(proof, asked(kind))
    data = canonical.encode(proof)
    assert read(data) == proof
    assert len(data) < 4000


def test_accepted_by_the_reference_backend(reference: Backend) -> None:
    eligibility.verify(proved("filed"), asked("filed"), reference)
    with pytest.raises(VerificationError):
        changed = msgspec.structs.replace(proved("filed"), responses=bytes(len(proved("filed").responses)))
        eligibility.verify(changed, asked("filed"), reference)


def test_made_alike_by_the_reference_backend(reference: Backend) -> None:
    assert eligibility.prove(asked(), held(), rand_of("proved"), reference) == proved()


@pytest.mark.parametrize(
    "changes, of",
    [
        ({"youngest": 0, "oldest": 150}, {}),
        ({"scheme": "390", "sex": "2"}, {}),
        ({"insutype": "", "psn_type": "", "region": "", "med_type": "", "level": ""}, {}),
        ({}, {"valid_from": DAY, "valid_to": DAY}),
        ({}, {"birth": birth_days(18, 60, DAY)[0]}),
        ({}, {"birth": birth_days(18, 60, DAY)[1]}),
    ],
)
def test_accepted_at_the_edges(changes: dict[str, Any], of: dict[str, Any]) -> None:
    request = asked(**changes)
    eligibility.verify(eligibility.prove(request, held(who=holder(**of)), rand_of("edge")), request)


def test_nothing_hidden_stands_in_the_proof() -> None:
    """Two people, one request: same lengths, no piece in common."""
    berta = holder("berta", psn_type="11", birth=28_000)
    other = eligibility.prove(asked(), held(who=berta), rand_of("other"))
    one = proved()
    for field, width in (("points", 48), ("commitments", 48), ("responses", 32), ("ranges", 16)):
        pieces = [
            {getattr(each, field)[at : at + width] for at in range(0, len(getattr(each, field)), width)}
            for each in (one, other)
        ]
        assert len(pieces[0]) == len(pieces[1])
        assert not pieces[0] & pieces[1]
    assert repr(held()).startswith("<")


# ------------------------------------------------------------------------- the prover says what fails


@pytest.mark.parametrize(
    "changes, of, code, fact",
    [
        ({"bill": bytes(16)}, {}, "other_value", "bill"),
        ({"hospital": "hospital-2"}, {}, "other_value", "hospital"),
        ({"service_day": DAY + 1}, {}, "other_value", "day"),
        ({"level": "2"}, {}, "other_value", "level"),
        ({"med_type": "11"}, {}, "other_value", "med_type"),
        ({"psn_type": "21"}, {}, "other_value", "psn_type"),
        ({"region": "330200"}, {}, "other_value", "region"),
        ({}, {"valid_to": DAY - 1}, "day_outside", "person.valid_to"),
        ({}, {"valid_from": DAY + 1}, "day_outside", "person.valid_from"),
        ({}, {"birth": birth_days(18, 60, DAY)[0] - 1}, "day_outside", "person.birth"),
        ({}, {"birth": birth_days(18, 60, DAY)[1] + 1}, "day_outside", "person.birth"),
    ],
)
def test_refused_by_the_prover(changes: dict[str, Any], of: dict[str, Any], code: str, fact: str) -> None:
    with pytest.raises(Refused) as caught:
        eligibility.prove(asked(**changes), held(who=holder(**of)), rand_of("refused"))
    assert (caught.value.code, caught.value.facts["attribute"]) == (f"eligibility.{code}", fact)


def row_of(kind: str, member: Member, version: int = 7) -> membership.Row:
    return membership.find(whole_set(kind, version), member)


@pytest.mark.parametrize(
    "kind, changes, code",
    [
        (None, {"encounter": lambda: holder("berta").encounter}, "two_holders"),
        (None, {"active": lambda: row_of("active", handle_of("berta"))}, "not_in_set"),
        (None, {"active": lambda: row_of("active", handle_of("anna"), 6)}, "not_in_set"),
        ("covered", {"diagnosis": lambda: row_of("covered", "E11.900")}, "not_in_set"),
        ("covered", {"diagnosis": lambda: None}, "not_in_set"),
        ("filed", {"diagnosis": lambda: row_of("filed", Filing(handle_of("carla"), CODE, 1, 45_999))}, "not_in_set"),
    ],
)
def test_refused_by_the_prover_about_others(kind: str | None, changes: dict[str, Callable[[], Any]], code: str) -> None:
    false = replace(held(kind), **{name: make() for name, make in changes.items()})
    with pytest.raises(Refused) as caught:
        eligibility.prove(asked(kind), false, rand_of("refused"))
    assert caught.value.code == f"eligibility.{code}"


@pytest.mark.parametrize(
    "kind, changes",
    [
        (None, {"active": "covered"}),
        ("covered", {"diagnoses": "filed"}),
        ("covered", {"diagnoses": None}),
        (None, {"diagnoses": "covered"}),
    ],
)
def test_requests_with_other_sets(kind: str | None, changes: dict[str, str | None]) -> None:
    request = msgspec.structs.replace(
        asked(kind), **{field: None if other is None else whole_set(other).key for field, other in changes.items()}
    )
    with pytest.raises(Refused) as caught:
        eligibility.check_request(request)
    assert caught.value.code == "eligibility.other_set"
    refuses(proved(kind), request)


@pytest.mark.parametrize(
    "changes", [{"youngest": 61}, {"service_day": NO_END}, {"service_day": -1}, {"bill": b""}, {"purpose": "x"}]
)
def test_no_requests(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        eligibility.check_request(asked(**changes))


# ----------------------------------------------------------------------- the verifier does not believe


def refuses(proof: Eligibility, request: EligibilityRequest) -> None:
    """Refused as an answer to this request; also with the request inside made to match."""
    with pytest.raises(VerificationError):
        eligibility.verify(proof, request)
    with pytest.raises(VerificationError):
        eligibility.verify(msgspec.structs.replace(proof, request=request), request)


@pytest.mark.parametrize(
    "changes",
    [
        {"chain": "other"},
        {"nonce": bytes(31) + b"\1"},
        {"audience": "insurer-2"},
        {"purpose": "TREAT"},
        {"grant": "grant-2"},
        {"bill": bytes(16)},
        {"hospital": "hospital-2"},
        {"service_day": DAY + 1},
        {"version": 4},
        {"policy": "better"},
        {"row": bytes(32)},
        {"level": "2"},
        {"psn_type": "21"},
        {"sex": "1"},
        {"sex": "2"},
        {"region": ""},
        {"youngest": 17},
        {"oldest": 150, "youngest": 0},
        {"person_key": issuer(bytes(32), PERSON).of.issuer},
        {"encounter_key": holders.OTHER_HOSPITAL.of.issuer},
    ],
    ids=str,
)
def test_replayed_elsewhere(changes: dict[str, Any]) -> None:
    refuses(proved(), asked(**changes))


@pytest.mark.parametrize("kind", ["covered", "filed"])
def test_replayed_in_another_epoch_or_set(kind: str) -> None:
    key = whole_set(kind).key
    others = [
        asked(kind, active=whole_set("active", 8).key),
        asked(kind, active=SetKey("active", "set-active", 8, whole_set("active").key.key)),
        with_set(kind, whole_set(kind, 8).key),
        with_set(kind, SetKey(key.kind, key.name, 8, key.key)),
        asked(),
    ]
    for request in others:
        refuses(proved(kind), request)


def with_set(kind: str, key: SetKey) -> EligibilityRequest:
    return msgspec.structs.replace(asked(kind), diagnoses=key)


def cheated(request: EligibilityRequest, false: Holdings) -> None:
    """A prover that skips her own refusal and proves as well as the false witness lets her."""
    proof = eligibility._prove(request, false, rand_of("cheat"), GROUP)
    with pytest.raises(VerificationError) as caught:
        eligibility.verify(proof, request)
    assert caught.value.code == "zkp.bad_proof"  # well formed, and false


def test_two_people_on_one_bill() -> None:
    """Colluding: the plan of one, the bill of the other, who is not insured."""
    cheated(asked(), replace(held(), encounter=holder("berta").encounter))
    cheated(asked(), replace(held(), person=holder("berta").person))


def test_not_active_in_this_epoch() -> None:
    gone = holder("carla")
    stranger = replace(held(), person=gone.person, encounter=gone.encounter)
    cheated(asked(), stranger)  # with another's row
    forged = membership.Row(whole_set("active").key, handle_of("carla"), GROUP.encode(GROUP.generator()))
    cheated(asked(), replace(stranger, active=forged))
    y, key = membership.new_version("active", "set-active", 7, rand_of("her own set"))
    own = membership.find(membership.publish(y, key, [handle_of("carla")]), handle_of("carla"))
    cheated(asked(), replace(stranger, active=own))
    cheated(asked(), replace(held(), active=row_of("active", handle_of("anna"), 6)))  # last epoch's


def test_somebody_elses_filing() -> None:
    false = replace(held("filed"), diagnosis=row_of("filed", Filing(handle_of("berta"), "E11.900", 1, NO_END)))
    cheated(asked("filed"), false)
    cheated(asked("covered"), replace(held("covered"), diagnosis=row_of("covered", "E11.900")))


def test_a_signature_of_ones_own() -> None:
    """A self-made person credential with all the right values, under a key of the cheat's."""
    mine = issuer(b"the cheat's own key material: 32", PERSON)
    with pytest.raises(DecodeError):
        eligibility.prove(asked(person_key=mine.of.issuer), held(), rand_of("own"))
    credential = msgspec.structs.replace(held().person, signature=holder("berta").person.signature)
    cheated(asked(), replace(held(), person=credential))


Patch = pytest.MonkeyPatch


def lie_about(monkeypatch: Patch, lies: dict[int, int]) -> None:
    """Commit to `lies` (by true value) and prove their ranges, while the credential says otherwise."""
    true = range_proof.prove
    monkeypatch.setattr(
        eligibility, "commit", lambda value, opening, group: pedersen.commit(lies.get(value, value), opening, group)
    )
    monkeypatch.setattr(
        range_proof,
        "prove",
        lambda t, sums, values, *rest: true(t, sums, [lies.get(value, value) for value in values], *rest),
    )


OLDEST, YOUNGEST = birth_days(18, 60, DAY)

OUTSIDE = [
    ("valid_to", DAY - 1, DAY),
    ("valid_from", DAY + 1, DAY),
    ("birth", OLDEST - 1, OLDEST),
    ("birth", YOUNGEST + 1, YOUNGEST),
]


@pytest.mark.parametrize("name, value, lie", OUTSIDE)
def test_a_day_outside_committed_as_inside(monkeypatch: Patch, name: str, value: int, lie: int) -> None:
    lie_about(monkeypatch, {value: lie})
    cheated(asked(), held(who=holder(**{name: value})))


@pytest.mark.parametrize("name, value, lie", OUTSIDE)
def test_a_day_outside_with_the_bits_of_one_inside(monkeypatch: Patch, name: str, value: int, lie: int) -> None:
    def forged(t: Any, sums: Any, values: Any, openings: Any, bounds: Any, rand: Any, group: Backend) -> bytes:
        shown = [lie if each == value else each for each in values]
        bits = [bit for each, bound in zip(shown, bounds, strict=True) for bit in bound.bits_of(each)]
        return range_proof._prove(t, sums, values, openings, bounds, bits, rand, group)

    monkeypatch.setattr(range_proof, "prove", forged)
    cheated(asked(), held(who=holder(**{name: value})))


def test_an_expired_filing(monkeypatch: Patch) -> None:
    carla = holder("carla")
    y, key = membership.new_version("active", "set-active", 9, rand_of("with carla"))
    active = membership.publish(y, key, [handle_of("carla")])
    row = row_of("filed", Filing(handle_of("carla"), CODE, 1, 45_999))
    false = Holdings(carla.person, carla.encounter, membership.find(active, handle_of("carla")), row)
    request = asked("filed", active=key)
    with pytest.raises(Refused) as caught:
        eligibility.prove(request, false, rand_of("expired"))
    assert caught.value.facts["attribute"] == "filing.to"
    lie_about(monkeypatch, {45_999: DAY})
    cheated(request, false)


@pytest.mark.parametrize("name, claimed", [("psn_type", "21"), ("level", "2"), ("day", DAY - 1), ("bill", bytes(16))])
def test_another_value_disclosed_than_signed(monkeypatch: Patch, name: str, claimed: Any) -> None:
    request = asked(**{"service_day" if name == "day" else name: claimed})
    true = bbs_presentation.show

    def shown_as_asked(credential: Any, of: Any, prefix: str, disclose: Any, *rest: Any) -> Any:
        shown, witness = true(credential, of, prefix, disclose, *rest)
        if name not in shown.disclosed:
            return shown, witness
        return replace(shown, disclosed={**shown.disclosed, name: of.schema.scalar(name, claimed)}), witness

    monkeypatch.setattr(bbs_presentation, "show", shown_as_asked)
    cheated(request, held())


def test_unknown_headers() -> None:
    for change in ({"suite": 2}, {"version": 2}, {"kind": "presentation"}):
        header = msgspec.structs.replace(eligibility.HEADER, **change)
        with pytest.raises(VerificationError) as caught:
            eligibility.verify(msgspec.structs.replace(proved(), header=header), asked())
        assert caught.value.code == "zkp.unknown_suite"


# ------------------------------------------------------------------------------------------- batches


def test_a_batch_names_the_bad_ones() -> None:
    bad = msgspec.structs.replace(proved(), ranges=proved().ranges[:-1] + bytes([proved().ranges[-1] ^ 1]))
    good = [(proved(kind), asked(kind)) for kind in KINDS] * 3
    eligibility.verify_batch(good)
    mixed = [*good[:4], (bad, asked()), *good[4:], (bad, asked())]
    with pytest.raises(VerificationError) as caught:
        eligibility.verify_batch(mixed)
    assert caught.value.facts["bad"] == "4, 10"
    torn = msgspec.structs.replace(proved(), points=proved().points[:-1])  # it spoils nobody else's
    with pytest.raises(VerificationError) as caught:
        eligibility.verify_batch([(torn, asked()), *mixed, (torn, asked())])
    assert caught.value.facts["bad"] == "0, 5, 11, 12"
    with pytest.raises(VerificationError) as caught:
        eligibility.verify_batch([(torn, asked())])
    assert (caught.value.code, caught.value.facts["bad"]) == ("zkp.bad_proofs", "0")
    with pytest.raises(VerificationError) as caught:
        eligibility.verify_batch([*good, (torn, asked())])
    assert caught.value.facts["bad"] == str(len(good))
    eligibility.verify_batch([])


def test_errors_of_two_products_do_not_cancel() -> None:
    """Abar of both credentials off by a point that cancels in an unweighted product of pairings."""
    proof = proved()
    off = GROUP.hash_to_point(b"test", b"off")
    points = bytearray(proof.points)
    for start, sign in ((48, 1), (192, R - 1)):  # Bbar of person and encounter: one side of the same key in G2
        shifted = GROUP.add(GROUP.decode(bytes(points[start : start + 48])), GROUP.mul(off, sign))
        points[start : start + 48] = GROUP.encode(shifted)
    refuses(msgspec.structs.replace(proof, points=bytes(points)), asked())
