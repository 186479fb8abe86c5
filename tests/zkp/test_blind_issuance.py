"""zkp.blind_issuance and zkp.bbs_presentation: signed unseen, shown in part, and what does not pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import DecodeError, VerificationError
from zkp import attributes, bbs, bbs_presentation, blind_issuance, sigma
from zkp.attributes import Credential, Schema, Value, build
from zkp.batch import Check, settle
from zkp.bbs_presentation import Issued, Shown
from zkp.blind_issuance import BlindSignature
from zkp.groups import Backend, R, Rand, backend, encode_scalar
from zkp.sigma import SigmaProof
from zkp.transcript import Transcript

GROUP = backend()
SCHEMA = build("test.person", 1, [("region", "text"), ("birth", "day"), ("serial", "scalar")])
SK = bbs.key_gen(b"the issuer's key material, 32 by")
OF = Issued(SCHEMA, bbs.sk_to_pk(SK))
KNOWN = {"region": SCHEMA.scalar("region", "3301"), "birth": 20_000}
HIDDEN = {"secret": 11, "serial": R - 3, "blind": 13}
VALUES: dict[str, Value] = {
    "region": "3301",
    "birth": 20_000,
    **{name: encode_scalar(scalar) for name, scalar in HIDDEN.items()},
}


def issued(group: Backend = GROUP) -> tuple[bytes, BlindSignature]:
    commitment = blind_issuance.commit(SCHEMA, HIDDEN, group)
    answer = blind_issuance.sign(SK, OF, commitment, KNOWN, {"serial": 5}, group)
    return group.encode(commitment), answer


@pytest.fixture(scope="module")
def credential() -> Credential:
    return blind_issuance.finish(OF, VALUES, ["serial"], issued()[1], GROUP)


def test_an_ordinary_signature_over_the_sum(credential: Credential) -> None:
    scalars = credential.scalars(SCHEMA)
    assert scalars == [11, KNOWN["region"], 20_000, 2, 13]  # R - 3 + 5
    bbs.verify_scalars(OF.issuer, credential.signature, SCHEMA.header, scalars)


def test_the_same_request_gets_the_same_answer(reference: Backend) -> None:
    assert issued() == issued() == issued(reference)


def test_no_two_signatures_share_an_e() -> None:
    """Of two signatures with one e the weighted sum of A's signs the weighted sum of B's: a forgery for everybody."""
    commitment = blind_issuance.commit(SCHEMA, HIDDEN, GROUP)
    another = blind_issuance.commit(SCHEMA, {**HIDDEN, "blind": 14}, GROUP)
    answers = [
        blind_issuance.sign(SK, OF, commitment, KNOWN, {"serial": 5}, GROUP),
        blind_issuance.sign(SK, OF, another, KNOWN, {"serial": 5}, GROUP),
        blind_issuance.sign(SK, OF, commitment, {**KNOWN, "birth": 20_001}, {"serial": 5}, GROUP),
        blind_issuance.sign(SK, OF, commitment, KNOWN, {"serial": 6}, GROUP),
        blind_issuance.sign(SK + 1, Issued(SCHEMA, bbs.sk_to_pk(SK + 1)), commitment, KNOWN, {"serial": 5}, GROUP),
    ]
    assert len({answer.signature[48:] for answer in answers}) == len(answers)


def test_anybody_can_check_the_answer() -> None:
    commitment, answer = issued()
    blind_issuance.check(OF, commitment, KNOWN, ["serial"], answer, GROUP)
    other = GROUP.encode(blind_issuance.commit(SCHEMA, {**HIDDEN, "secret": 12}, GROUP))
    wrong: list[tuple[bytes, dict[str, int], BlindSignature]] = [
        (other, KNOWN, answer),
        (commitment, {**KNOWN, "birth": 20_001}, answer),
        (commitment, KNOWN, BlindSignature((encode_scalar(6),), answer.signature)),
        (commitment, KNOWN, BlindSignature((), answer.signature)),
        (commitment, KNOWN, BlindSignature((*answer.shares, *answer.shares), answer.signature)),
    ]
    for where, known, what in wrong:
        with pytest.raises(VerificationError):
            blind_issuance.check(OF, where, known, ["serial"], what, GROUP)
    with pytest.raises(DecodeError):
        blind_issuance.check(
            OF, commitment, KNOWN, ["serial"], BlindSignature((R.to_bytes(32, "big"),), bytes(80)), GROUP
        )


def test_the_holder_notices_other_attributes() -> None:
    _, answer = issued()
    with pytest.raises(VerificationError):
        blind_issuance.finish(OF, {**VALUES, "region": "3302"}, ["serial"], answer, GROUP)


def test_a_callers_bug() -> None:
    commitment = blind_issuance.commit(SCHEMA, HIDDEN, GROUP)
    with pytest.raises(ValueError):
        blind_issuance.commit(SCHEMA, {"secret": 1}, GROUP)
    with pytest.raises(ValueError):
        blind_issuance.commit(SCHEMA, {**HIDDEN, "other": 1}, GROUP)
    for known, shares in [({"secret": 1}, {}), ({"birth": 1}, {"birth": 1}), ({"other": 1}, {})]:
        with pytest.raises(ValueError):
            blind_issuance.sign(SK, OF, commitment, known, shares, GROUP)


# ----------------------------------------------------------------------------------- shown in a proof


def shown(
    credential: Credential, disclose: list[str], rand: Rand, group: Backend = GROUP, of: Issued = OF
) -> tuple[bytes, SigmaProof]:
    shape, witness = bbs_presentation.show(credential, of, "person", disclose, rand, group)
    transcript = Transcript(b"test")
    shape.append_to(transcript)
    return shape.encoded, sigma.prove(transcript, shape.relations(), witness, rand, group)


def accept(
    encoded: bytes, proof: SigmaProof, disclosed: dict[str, int], group: Backend = GROUP, of: Issued = OF
) -> Shown:
    shape = bbs_presentation.read(encoded, of, "person", disclosed, group)
    transcript = Transcript(b"test")
    shape.append_to(transcript)
    check = Check(group)
    sigma.verify(transcript, shape.relations(), proof, check)
    shape.add_to(check)
    settle([check], group)
    return shape


Seeded = Callable[[int], Rand]


@pytest.mark.parametrize("disclose", [[], ["region"], ["birth", "region", "serial"]])
def test_shown(credential: Credential, disclose: list[str], seeded: Seeded, either: Backend) -> None:
    encoded, proof = shown(credential, disclose, seeded(1), either)
    scalars = dict(zip(SCHEMA.names, credential.scalars(SCHEMA), strict=True))
    shape = accept(encoded, proof, {name: scalars[name] for name in disclose}, either)
    assert shape.variable("secret") == "secret"
    if "birth" in disclose:
        with pytest.raises(ValueError):
            shape.variable("birth")
    else:
        assert shape.variable("birth") == "person.birth"
    assert shape.encoded == encoded


def test_refused(credential: Credential, seeded: Seeded) -> None:
    encoded, proof = shown(credential, ["birth"], seeded(1))
    accept(encoded, proof, {"birth": 20_000})
    other_key = Issued(SCHEMA, bbs.sk_to_pk(SK + 1))
    other_schema = Issued(Schema(SCHEMA.name, 2, SCHEMA.attributes), OF.issuer)
    for disclosed, of in [
        ({"birth": 20_001}, OF),
        ({"birth": 20_000 + R}, OF),
        ({}, OF),
        ({"birth": 20_000, "region": KNOWN["region"]}, OF),
        ({"birth": 20_000}, other_key),
        ({"birth": 20_000}, other_schema),
    ]:
        with pytest.raises((VerificationError, ValueError)):
            accept(encoded, proof, disclosed, of=of)


@pytest.fixture(scope="module")
def birth_shown(credential: Credential) -> tuple[bytes, SigmaProof]:
    return shown(credential, ["birth"], lambda length: bbs.expand_message(b"", b"test", length))


@given(st.data())
def test_changed(birth_shown: tuple[bytes, SigmaProof], data: st.DataObject) -> None:
    encoded, proof = birth_shown
    whole = bytearray(encoded + proof.commitments + proof.responses)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    changed = bytes(whole)
    split = len(encoded), len(encoded) + len(proof.commitments)
    with pytest.raises(VerificationError):
        accept(changed[: split[0]], SigmaProof(changed[split[0] : split[1]], changed[split[1] :]), {"birth": 20_000})


def test_a_forger_without_a_signature(credential: Credential, seeded: Seeded) -> None:
    """The relations hold for a signature that the forger made with a key of her own: only the pairing refuses."""
    scalars = credential.scalars(SCHEMA)
    forged = resigned(credential, {}, bbs.sign_scalars(SK + 1, OF.issuer, SCHEMA.header, scalars))
    encoded, proof = shown(forged, ["birth"], seeded(1))
    with pytest.raises(VerificationError) as caught:
        accept(encoded, proof, {"birth": 20_000})
    assert caught.value.code == "zkp.bad_proof"


def test_a_forger_with_the_signature_of_another_showing(credential: Credential, seeded: Seeded) -> None:
    """Abar and Bbar of a true showing satisfy the pairing, and D her own messages: relation 1 ties them together."""
    true, _ = bbs_presentation.show(credential, OF, "person", [], seeded(1), GROUP)
    wanted = resigned(credential, {"birth": 1}, credential.signature)
    mine, witness = bbs_presentation.show(wanted, OF, "person", ["birth"], seeded(2), GROUP)
    mixed = replace(mine, a_bar=true.a_bar, b_bar=true.b_bar)
    transcript = Transcript(b"test")
    mixed.append_to(transcript)
    proof = sigma.prove(transcript, mixed.relations(), witness, seeded(3), GROUP)
    with pytest.raises(VerificationError) as caught:
        accept(mixed.encoded, proof, {"birth": 1})
    assert caught.value.code == "zkp.bad_proof"


def test_a_forger_with_the_identity_or_nothing_randomised(credential: Credential, seeded: Seeded) -> None:
    encoded, proof = shown(credential, [], seeded(1))
    identity = b"\xc0" + bytes(47)
    for at in (0, 48, 96):
        with pytest.raises(VerificationError):
            accept(encoded[:at] + identity + encoded[at + 48 :], proof, {})
    for length in (0, 143, 145):
        with pytest.raises(VerificationError):
            accept(encoded.ljust(145, b"\0")[:length], proof, {})


def test_two_showings_have_nothing_in_common(credential: Credential, seeded: Seeded) -> None:
    one, two = shown(credential, [], seeded(1)), shown(credential, [], seeded(2))
    pieces = [
        {whole[at : at + 48] for at in range(0, 144, 48)} | {proof.responses[at : at + 32] for at in range(0, 200, 32)}
        for whole, proof in (one, two)
    ]
    assert not pieces[0] & pieces[1]


def test_not_to_be_disclosed(credential: Credential, seeded: Seeded) -> None:
    for name in ("secret", "blind", "nothing"):
        with pytest.raises(ValueError):
            shown(credential, [name], seeded(1))
        with pytest.raises(ValueError):
            bbs_presentation.read(bytes(144), OF, "person", {name: 1}, GROUP)
    other = Issued(SCHEMA, bbs.sk_to_pk(SK + 1))
    with pytest.raises(DecodeError) as caught:
        shown(credential, [], seeded(1), of=other)
    assert caught.value.code == "credentials.other_issuer"


def resigned(held: Credential, changes: dict[str, Value], signature: bytes) -> Credential:
    return attributes.credential(SCHEMA, OF.issuer, {**held.named(SCHEMA), **changes}, signature)


def test_another_secret_in_the_same_proof(credential: Credential, seeded: Seeded) -> None:
    """Two credentials of two holders: each holds by itself, but not with one variable ``secret``."""
    scalars = credential.scalars(SCHEMA)
    theirs = bbs.sign_scalars(SK, OF.issuer, SCHEMA.header, [99, *scalars[1:]])
    second = resigned(credential, {"secret": encode_scalar(99)}, theirs)

    def together(first: Credential, other: Credential) -> None:
        rand, transcript, check = seeded(1), Transcript(b"test"), Check(GROUP)
        a, known_a = bbs_presentation.show(first, OF, "a", [], rand, GROUP)
        b, known_b = bbs_presentation.show(other, OF, "b", [], rand, GROUP)
        statement = [*a.relations(), *b.relations()]
        proof = sigma.prove(transcript, statement, {**known_a, **known_b}, rand, GROUP)
        sigma.verify(Transcript(b"test"), statement, proof, check)
        for each in (a, b):
            each.add_to(check)
        settle([check], GROUP)

    together(credential, credential)
    with pytest.raises(VerificationError):
        together(credential, second)


def test_the_transcript_holds_all(credential: Credential, seeded: Seeded) -> None:
    shape, _ = bbs_presentation.show(credential, OF, "person", ["birth"], seeded(1), GROUP)

    def after(each: Shown) -> bytes:
        transcript = Transcript(b"test")
        each.append_to(transcript)
        return transcript.digest()

    changes = [
        replace(shape, prefix="encounter"),
        replace(shape, disclosed={"birth": 20_001}),
        replace(shape, disclosed={}),
        replace(shape, of=Issued(SCHEMA, bbs.sk_to_pk(SK + 1))),
        replace(shape, shared={}),
        replace(shape, d=shape.a_bar),
    ]
    assert len({after(each) for each in [shape, *changes]}) == 1 + len(changes)
