"""zkp.sigma: complete, sound against provers who really try, every part of a statement bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import VerificationError
from zkp import sigma
from zkp.batch import Check, Family, settle
from zkp.groups import Backend, Point, R, backend
from zkp.relations import Item, Plan, encoded_statement
from zkp.sigma import Folded, OneOf, Relation, SigmaProof, Statement, Sum, proof_bytes, prove, verify
from zkp.transcript import Transcript

Seeded = Callable[[int], Callable[[int], bytes]]

GROUP = backend()
BASES = Family("tests/sigma", lambda group, i: group.hash_to_point(b"tests/sigma", bytes([i])))
G, H, K = (BASES, 0), (BASES, 1), (BASES, 2)
OTHER = Family("tests/sigma-2", lambda group, i: group.hash_to_point(b"tests/sigma", bytes([i])))


def said(what: bytes = b"statement") -> Transcript:
    transcript = Transcript(b"test")
    transcript.append_bytes(b"statement", what)
    return transcript


def com(value: int, blinding: int, group: Backend = GROUP) -> Point:
    return group.msm(BASES.points(group, 2), [value, blinding])


def opening(label: bytes, value: str, blinding: str, point: Sum) -> Relation:
    return Relation(label, [(value, [(1, G)]), (blinding, [(1, H)])], point)


def is_blinding(point: Sum) -> Relation:
    """ "The sum commits to zero.\""""
    return Relation(b"zero", [("b", [(1, H)])], point)


def accepts(statement: Statement, proof: SigmaProof, group: Backend = GROUP, what: bytes = b"statement") -> None:
    check = Check(group)
    verify(said(what), statement, proof, check)
    settle([check], group)


def refused(statement: Statement, proof: SigmaProof, code: str = "zkp.bad_proof", what: bytes = b"statement") -> None:
    with pytest.raises(VerificationError) as caught:
        accepts(statement, proof, what=what)
    assert caught.value.code == code


def whole(group: Backend = GROUP) -> tuple[list[Item], dict[str, int], dict[bytes, int]]:
    """v + w = u in three commitments, a linear relation on points of the prover's, a fold, and v in {5, 6}."""
    v, w = 5, 70
    cv, cw, cu = com(v, 11, group), com(w, 12, group), com(v + w, 13, group)
    later, sums = com(v, 14, group), com(2 * v + 3 * w, 15, group)
    own = group.mul(cv, 9)
    statement: list[Item] = [
        opening(b"v", "v", "rv", [(1, cv)]),
        opening(b"w", "w", "rw", [(1, cw)]),
        Relation(b"u", [("v", [(1, G)]), ("w", [(1, G)]), ("ru", [(1, H)])], [(1, cu)]),
        Relation(b"own", [("n", [(1, cv), (2, cv)])], [(3, own)]),
        Folded(
            b"fold",
            [
                opening(b"later", "v", "r1", [(1, later)]),
                Relation(b"sum", [("v", [(2, G)]), ("w", [(3, G)]), ("r2", [(1, H)])], [(1, sums)]),
            ],
        ),
        OneOf(b"small", [is_blinding([(1, cv), (-value, G)]) for value in (5, 6)]),
        OneOf(b"equal", [is_blinding([(1, cv), (-1, cw)]), is_blinding([(1, cu), (-1, cv), (-1, cw)])]),
    ]
    witness = {"v": v, "w": w, "rv": 11, "rw": 12, "ru": 13, "n": 9, "r1": 14, "r2": 15}
    return statement, witness, {b"small": 0, b"equal": 1}


def with_blinding(statement: Statement, witness: Mapping[str, int]) -> tuple[Statement, dict[str, int]]:
    """The two OneOfs have different blindings under the same name: give the second its own."""
    *rest, equal = statement
    assert isinstance(equal, OneOf)
    renamed = [Relation(r.label, [("b2", base) for _, base in r.terms], r.target) for r in equal.branches]
    return [*rest, OneOf(equal.label, renamed)], {**witness, "b": 11, "b2": 13 - 11 - 12}


STATEMENT, WITNESS = with_blinding(*whole()[:2])
BRANCHES = whole()[2]


# ------------------------------------------------------------------------------------------- true statements


def test_a_whole_statement(either: Backend, seeded: Seeded) -> None:
    statement, witness = with_blinding(*whole(either)[:2])
    proof = prove(said(), statement, witness, seeded(1), either, BRANCHES)
    assert (len(proof.commitments), len(proof.responses)) == proof_bytes(statement) == (9 * 48, (7 + 5 + 1) * 32)
    accepts(statement, proof, either)
    compact = sigma.prove_compact(said(), statement, witness, seeded(1), either, BRANCHES)
    assert len(compact) == 32 + len(proof.responses) and compact[32:] == proof.responses
    sigma.verify_compact(said(), statement, compact, either)


def test_backends_write_the_same_bytes(arkworks: Backend, reference: Backend, seeded: Seeded) -> None:
    proofs = []
    for group in (arkworks, reference):
        statement, witness = with_blinding(*whole(group)[:2])
        proofs.append(prove(said(), statement, witness, seeded(1), group, BRANCHES))
    assert proofs[0] == proofs[1]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, R - 1), st.integers(1, R - 1)), min_size=1, max_size=4), st.binary(max_size=4))
def test_openings(pairs: list[tuple[int, int]], seed: bytes) -> None:
    statement = [
        opening(b"c", f"v{i}", f"r{i}", [(1, com(value, blinding))]) for i, (value, blinding) in enumerate(pairs)
    ]
    witness = {name: x for i, pair in enumerate(pairs) for name, x in zip((f"v{i}", f"r{i}"), pair, strict=True)}

    def rand(length: int) -> bytes:
        return (seed + bytes(length))[:length]

    accepts(statement, prove(said(), statement, witness, rand))
    wrong = {**witness, "v0": (witness["v0"] + 1) % R}
    refused(statement, prove(said(), statement, wrong, rand))


def test_each_branch_of_an_or(seeded: Seeded) -> None:
    """Whichever branch holds, and in whatever place: accepted, and of one shape."""
    for count in (2, 3):
        for true in range(count):
            branches = [is_blinding([(1, com(7, 3)), (-7 if i == true else -8 - i, G)]) for i in range(count)]
            statement = [OneOf(b"or", branches)]
            proof = prove(said(), statement, {"b": 3}, seeded(1), true_branch={b"or": true})
            assert (len(proof.commitments), len(proof.responses)) == (48 * count, 32 * (2 * count - 1))
            accepts(statement, proof)


def test_the_transcript_goes_on(seeded: Seeded) -> None:
    """After the proof both sides stand at the same place: the next part of a larger proof hangs on this one."""
    one, two = said(), said()
    proof = prove(one, STATEMENT, WITNESS, seeded(1), true_branch=BRANCHES)
    verify(two, STATEMENT, proof, Check(GROUP))
    assert one.challenge(b"next") == two.challenge(b"next")
    three, four = said(), said()
    compact = sigma.prove_compact(three, STATEMENT, WITNESS, seeded(1), GROUP, BRANCHES)
    sigma.verify_compact(four, STATEMENT, compact)
    assert three.challenge(b"next") == four.challenge(b"next")


def test_a_checks_digest_covers_the_last_byte(seeded: Seeded) -> None:
    """A batch's weights hang on it: statement, every commitment and every response."""

    def digest(statement: Statement, proof: SigmaProof, what: bytes = b"statement") -> bytes:
        check = Check(GROUP)
        verify(said(what), statement, proof, check)
        return check.digest

    proof = prove(said(), STATEMENT, WITNESS, seeded(1), true_branch=BRANCHES)
    digests = {digest(STATEMENT, proof), digest(STATEMENT, proof, b"another")}
    for at in range(0, len(proof.responses), 32):
        digests.add(
            digest(
                STATEMENT, SigmaProof(proof.commitments, proof.responses[:at] + bytes(32) + proof.responses[at + 32 :])
            )
        )
    for at in range(0, len(proof.commitments), 48):
        other = GROUP.encode(GROUP.generator())
        digests.add(
            digest(
                STATEMENT, SigmaProof(proof.commitments[:at] + other + proof.commitments[at + 48 :], proof.responses)
            )
        )
    assert len(digests) == 2 + len(proof.responses) // 32 + len(proof.commitments) // 48
    assert digest(STATEMENT, proof) in digests and all(len(found) == 32 for found in digests)


def test_fresh_randomness_fresh_proof(seeded: Seeded) -> None:
    proofs = [prove(said(), STATEMENT, WITNESS, seeded(seed), true_branch=BRANCHES) for seed in (1, 2, 1)]
    assert proofs[0] == proofs[2]
    pieces = [
        {proof.commitments[i : i + 48] for i in range(0, len(proof.commitments), 48)}
        | {proof.responses[i : i + 32] for i in range(0, len(proof.responses), 32)}
        for proof in proofs
    ]
    assert not pieces[0] & pieces[1]


def test_a_repeated_rand_does_not_give_the_witness_away(seeded: Seeded) -> None:
    """Two proofs by one seed for two statements: with equal nonces, (s - s') / (c - c') would be the witness."""
    statement = [opening(b"c", "v", "r", [(1, com(5, 6))])]
    found = []
    for what in (b"one", b"two"):
        transcript = said(what)
        compact = sigma.prove_compact(transcript, statement, {"v": 5, "r": 6}, seeded(1))
        found.append([int.from_bytes(compact[i : i + 32], "big") for i in (0, 32)])
    (c, s), (d, t) = found
    assert (s - t) * pow(c - d, -1, R) % R != 5


# ------------------------------------------------------------------------------------------ false statements


@pytest.mark.parametrize("name", WITNESS)
def test_a_false_witness_is_refused(name: str, seeded: Seeded) -> None:
    wrong = {**WITNESS, name: WITNESS[name] + 1}
    refused(STATEMENT, prove(said(), STATEMENT, wrong, seeded(1), true_branch=BRANCHES))
    compact = sigma.prove_compact(said(), STATEMENT, wrong, seeded(1), GROUP, BRANCHES)
    with pytest.raises(VerificationError) as caught:
        sigma.verify_compact(said(), STATEMENT, compact)
    assert caught.value.code == "zkp.bad_proof"


def test_equality_across_relations(seeded: Seeded) -> None:
    """Two commitments to different numbers, said to be the same name: no choice of witness passes."""
    statement = [opening(b"a", "v", "ra", [(1, com(5, 1))]), opening(b"b", "v", "rb", [(1, com(6, 2))])]
    for value in (5, 6):
        refused(statement, prove(said(), statement, {"v": value, "ra": 1, "rb": 2}, seeded(1)))
    apart = [statement[0], opening(b"b", "w", "rb", [(1, com(6, 2))])]
    proof = prove(said(), apart, {"v": 5, "w": 6, "ra": 1, "rb": 2}, seeded(1))
    accepts(apart, proof)
    refused(statement, SigmaProof(proof.commitments, proof.responses[:64] + proof.responses[96:]))


def test_no_branch_holds(seeded: Seeded) -> None:
    """The prover invents every branch: then the challenges do not add up to the transcript's."""
    branches = [is_blinding([(1, com(7, 3)), (-8 - i, G)]) for i in range(2)]
    statement = [OneOf(b"or", branches)]
    for true in (0, 1):
        refused(statement, prove(said(), statement, {"b": 3}, seeded(1), true_branch={b"or": true}))
    # both branches invented: T_i = s_i H - c_i target_i, any c_0, and what is left for c_1 is not what was used
    transcript = said()
    plan = Plan(statement, transcript)
    s, c = [101, 102], [201, 202]
    points = [sigma._computed(plan.equations[i], s, c[i], GROUP) for i in (0, 1)]
    commitments = b"".join(map(GROUP.encode, points))
    challenge = sigma._challenge(transcript, commitments)
    for first in (c[0], (challenge - c[1]) % R):
        responses = b"".join(x.to_bytes(32, "big") for x in [*s, first])
        refused(statement, SigmaProof(commitments, responses))


@pytest.mark.parametrize("off", [(1, 0), (0, 1), (1, -1), (5, 7)])
def test_a_fold_hides_no_false_relation(off: tuple[int, int], seeded: Seeded) -> None:
    """Errors in one or two relations, by the value or by the blinding's base, do not cancel under f."""
    v = 5
    for base in (G, H, K):
        shift = GROUP.mul(base[0].point(GROUP, base[1]), 1)
        points: list[Sum] = [[(1, com(v, 21)), (off[0], shift)], [(1, com(2 * v, 22)), (off[1], shift)]]
        statement = [
            opening(b"fixed", "v", "r", [(1, com(v, 20))]),
            Folded(
                b"fold",
                [
                    opening(b"one", "v", "r1", points[0]),
                    Relation(b"two", [("v", [(2, G)]), ("r2", [(1, H)])], points[1]),
                ],
            ),
        ]
        witness = {"v": v, "r": 20, "r1": 21, "r2": 22}
        if base is H:  # a multiple of the blinding's base is no error: it is another blinding
            witness |= {"r1": 21 + off[0], "r2": 22 + off[1]}
            accepts(statement, prove(said(), statement, witness, seeded(1)))
        else:
            refused(statement, prove(said(), statement, witness, seeded(1)))


def test_errors_made_for_the_folding_challenge(seeded: Seeded) -> None:
    """The prover takes f from the honest statement and shifts two targets by D and -D / f: then f is another one."""

    def folded(first: int, second: int) -> Statement:
        d = GROUP.generator()
        return [
            opening(b"fixed", "v", "r", [(1, com(5, 20))]),
            Folded(
                b"fold",
                [
                    opening(b"one", "v", "r1", [(1, GROUP.add(com(5, 21), GROUP.mul(d, first)))]),
                    opening(b"two", "v", "r2", [(1, GROUP.add(com(5, 22), GROUP.mul(d, second)))]),
                ],
            ),
        ]

    witness = {"v": 5, "r": 20, "r1": 21, "r2": 22}
    accepts(folded(0, 0), prove(said(), folded(0, 0), witness, seeded(1)))
    (_, _), (f, _) = Plan(folded(0, 0), said()).equations[1].target
    for target in (f, 1, 2, 3):
        forged = folded(1, -pow(target, -1, R))
        refused(forged, prove(said(), forged, witness, seeded(1)))


def test_folds_that_would_not_be_sound() -> None:
    """Each of these could be cheated; they are refused before anything is proved or verified."""
    fixed = opening(b"fixed", "v", "r", [(1, com(5, 20))])
    one = opening(b"one", "v", "r1", [(1, com(5, 21))])
    cases: list[list[Item]] = [
        # v is fixed by no relation: "both commit to the same number" would be lost
        [Folded(b"f", [one, opening(b"two", "v", "r2", [(1, com(5, 22))])])],
        # the second relation has no blinding: the first one's would cover a multiple of H in it
        [fixed, Folded(b"f", [one, Relation(b"two", [("v", [(1, G)])], [(1, com(5, 0))])])],
        # its blinding has another base
        [fixed, Folded(b"f", [one, Relation(b"two", [("v", [(1, G)]), ("r2", [(1, K)])], [(1, com(5, 22))])])],
        # one blinding for two relations: their equality would be lost
        [fixed, Folded(b"f", [one, opening(b"two", "v", "r1", [(1, com(5, 21))])])],
        # the same in two folds
        [fixed, Folded(b"f", [one]), Folded(b"g", [opening(b"two", "v", "r1", [(1, com(5, 21))])])],
        # two blindings for one base
        [fixed, Folded(b"f", [Relation(b"one", [("r1", [(1, H)]), ("r2", [(1, H)])], [(1, com(0, 22))])])],
        [fixed, Folded(b"f", [])],
    ]
    witness = {"v": 5, "r": 20, "r1": 21, "r2": 22}
    for statement in cases:
        with pytest.raises(ValueError):
            prove(said(), statement, witness, bytes)
        with pytest.raises(ValueError):
            verify(said(), statement, SigmaProof(bytes(48), bytes(64)), Check(GROUP))


def by_hand(statement: Sequence[Relation], secret: int, error: Point, transcript: Transcript) -> SigmaProof:
    """The prover of ``target = secret * G`` once more, spelled out, whose T is off by `error`."""
    transcript.append_bytes(b"sigma", encoded_statement(statement))
    k = 12345
    commitment = GROUP.encode(GROUP.add(GROUP.mul(BASES.point(GROUP, 0), k), error))
    transcript.append_point(b"T", commitment)
    response = ((k + transcript.challenge(b"c") * secret) % R).to_bytes(32, "big")
    transcript.append_bytes(b"responses", response)
    transcript.challenge(b"weight")
    return SigmaProof(commitment, response)


def test_errors_in_two_parts_of_one_proof_do_not_cancel() -> None:
    """T + D in one part and T - D in another: every part's equations have weights of their own."""
    statement = [Relation(b"dl", [("x", [(1, G)])], [(1, GROUP.mul(BASES.point(GROUP, 0), 77))])]
    zero, shift = GROUP.identity(), com(5, 6)
    for errors, holds in [((zero, zero), True), ((shift, GROUP.neg(shift)), False), ((shift, zero), False)]:
        proving, verifying, check = said(), said(), Check(GROUP)
        proofs = [by_hand(statement, 77, error, proving) for error in errors]
        for proof in proofs:
            verify(verifying, statement, proof, check)
        if holds:
            settle([check], GROUP)
        else:
            with pytest.raises(VerificationError):
                settle([check], GROUP)


def test_two_relations_of_one_proof_do_not_cancel(seeded: Seeded) -> None:
    """Targets off by +D and -D: the weighted equations tell."""
    first, second, shift = com(5, 1), com(6, 2), com(9, 9)
    statement = [
        opening(b"a", "v", "ra", [(1, first), (1, shift)]),
        opening(b"b", "w", "rb", [(1, second), (-1, shift)]),
    ]
    refused(statement, prove(said(), statement, {"v": 5, "ra": 1, "w": 6, "rb": 2}, seeded(1)))


# ------------------------------------------------------------------------------------- the statement is bound


def test_everything_public_is_bound(seeded: Seeded) -> None:
    """Any other label, name, coefficient, base, family, order or sort of statement is another transcript."""
    relation = opening(b"c", "v", "r", [(1, com(5, 6))])
    replace = dataclasses.replace
    other = com(5, 7)
    statements: list[Statement] = [
        [relation],
        [replace(relation, label=b"d")],
        [opening(b"c", "w", "r", [(1, com(5, 6))])],
        [replace(relation, target=[(1, other)])],
        [replace(relation, target=[(2, com(5, 6))])],
        [replace(relation, target=[(1, com(5, 6)), (0, G)])],
        [replace(relation, terms=[*relation.terms[:1], ("r", [(1, K)])])],
        [replace(relation, terms=[*relation.terms[:1], ("r", [(-1, H)])])],
        [replace(relation, terms=[*relation.terms[:1], ("r", [(2, H)])])],
        [replace(relation, terms=[*relation.terms[:1], ("r", [(1, H), (0, H)])])],
        [replace(relation, terms=[*relation.terms[:1], ("r", [(1, (OTHER, 1))])])],
        [replace(relation, terms=[*relation.terms[:1], ("r", [(1, BASES.point(GROUP, 1))])])],
        [replace(relation, terms=list(reversed(relation.terms)))],
        [relation, relation],
        [Folded(b"c", [relation])],
        [OneOf(b"c", [relation, relation])],
        [OneOf(b"d", [relation, relation])],
        [],
    ]
    challenges = set()
    for statement in statements:
        transcript = said()
        transcript.append_bytes(b"sigma", encoded_statement(statement))
        challenges.add(transcript.challenge(b"c"))
    assert len(challenges) == len(statements)
    proof = prove(said(), [relation], {"v": 5, "r": 6}, seeded(1))
    accepts([relation], proof)
    for statement in statements[1:13]:
        refused(statement, proof)
    refused([relation], proof, what=b"another")


def test_commitments_are_in_the_transcript_before_the_challenge(seeded: Seeded) -> None:
    """Weak Fiat-Shamir: with T left out, T = s G - c target would make any response pass."""
    statement = [Relation(b"dl", [("x", [(1, G)])], [(1, com(0, 77))])]
    transcript = said()
    transcript.append_bytes(b"sigma", encoded_statement(statement))
    c = transcript.challenge(b"c")
    committed = sigma._computed(Plan(statement, said()).equations[0], [5], c, GROUP)
    refused(statement, SigmaProof(GROUP.encode(committed), (5).to_bytes(32, "big")))


def test_the_identity_is_no_base(seeded: Seeded) -> None:
    for statement in (
        [Relation(b"c", [("v", [(1, GROUP.identity())])], [(1, com(5, 6))])],
        [Relation(b"c", [("v", [(1, G)])], [(1, GROUP.identity())])],
        [Folded(b"f", [Relation(b"c", [("v", [(1, GROUP.identity())])], [(1, com(5, 6))])])],
    ):
        with pytest.raises(VerificationError) as caught:
            prove(said(), statement, {"v": 5}, seeded(1))
        assert caught.value.code == "zkp.identity_point"
        refused(statement, SigmaProof(bytes(48), bytes(32)), "zkp.identity_point")


# -------------------------------------------------------------------------------------------------- bytes


def test_every_byte_counts(seeded: Seeded) -> None:
    proof = prove(said(), STATEMENT, WITNESS, seeded(1), true_branch=BRANCHES)
    for at in range(0, len(proof.commitments), 5):
        changed = bytearray(proof.commitments)
        changed[at] ^= 1 << at % 8
        with pytest.raises(VerificationError):
            accepts(STATEMENT, SigmaProof(bytes(changed), proof.responses))
    compact = sigma.prove_compact(said(), STATEMENT, WITNESS, seeded(1), GROUP, BRANCHES)
    for at in range(len(proof.responses)):
        changed = bytearray(proof.responses)
        changed[at] ^= 1 << at % 8
        with pytest.raises(VerificationError):
            accepts(STATEMENT, SigmaProof(proof.commitments, bytes(changed)))
    for at in range(0, len(compact), 7):
        changed = bytearray(compact)
        changed[at] ^= 1 << at % 8
        with pytest.raises(VerificationError):
            sigma.verify_compact(said(), STATEMENT, bytes(changed))


def test_malformed_proofs(seeded: Seeded) -> None:
    proof = prove(said(), STATEMENT, WITNESS, seeded(1), true_branch=BRANCHES)
    points, scalars = proof.commitments, proof.responses
    for commitments, responses in [
        (b"", scalars),
        (points[:-1], scalars),
        (points + points[:48], scalars),
        (points, b""),
        (points, scalars[:-32]),
        (points, scalars + b"\0"),
        (points + scalars, b""),
        (points[:-16], scalars + bytes(16)),
    ]:
        refused(STATEMENT, SigmaProof(commitments, responses), "zkp.proof_length")
    for at in range(0, len(points), 48):
        for other in (bytes([0xC0]) + bytes(47), bytes([0xE0]) + bytes(47), bytes(48), b"\xff" * 48):
            changed = points[:at] + other + points[at + 48 :]
            refused(STATEMENT, SigmaProof(changed, scalars), "zkp.malformed_proof")
    compact = sigma.prove_compact(said(), STATEMENT, WITNESS, seeded(1), GROUP, BRANCHES)
    for at in range(0, len(scalars), 32):
        value = int.from_bytes(scalars[at : at + 32], "big")
        for unreduced in (R, 2**256 - 1, *([value + R] if value + R < 2**256 else [])):
            changed = scalars[:at] + unreduced.to_bytes(32, "big") + scalars[at + 32 :]
            refused(STATEMENT, SigmaProof(points, changed), "zkp.malformed_proof")
            with pytest.raises(VerificationError) as caught:
                sigma.verify_compact(said(), STATEMENT, compact[:32] + changed)
            assert caught.value.code == "zkp.malformed_proof"
    for wrong in (b"", compact[:-32], compact + b"\0"):
        with pytest.raises(VerificationError) as caught:
            sigma.verify_compact(said(), STATEMENT, wrong)
        assert caught.value.code == "zkp.proof_length"


# -------------------------------------------------------------------------------------------- callers' bugs


def test_branches_are_named(seeded: Seeded) -> None:
    for wrong in ({}, {b"small": 0}, {**BRANCHES, b"third": 0}, {**BRANCHES, b"small": 2}, {**BRANCHES, b"small": -1}):
        with pytest.raises(ValueError, match="branch"):
            prove(said(), STATEMENT, WITNESS, seeded(1), true_branch=wrong)
    branch = is_blinding([(1, com(7, 3))])
    for statement in ([OneOf(b"or", [branch])], [OneOf(b"or", [branch] * 2)] * 2):
        with pytest.raises(ValueError, match="OneOf"):
            prove(said(), statement, {"b": 3}, seeded(1), true_branch={b"or": 0})


def test_names_of_an_or_stand_nowhere_else(seeded: Seeded) -> None:
    """The same name elsewhere would look like an equality, and none would be proved."""
    either_of = OneOf(b"or", [is_blinding([(1, com(7, 3)), (-7 - i, G)]) for i in range(2)])
    relation = Relation(b"c", [("b", [(1, H)])], [(1, com(0, 3))])
    fold = Folded(b"f", [relation])
    for statement in ([either_of, relation], [relation, either_of], [fold, either_of], [either_of, fold]):
        with pytest.raises(ValueError, match="nowhere else"):
            prove(said(), statement, {"b": 3}, seeded(1), true_branch={b"or": 0})
    with pytest.raises(ValueError, match="nowhere else"):
        again = OneOf(b"again", either_of.branches)
        prove(said(), [either_of, again], {"b": 3}, seeded(1), true_branch={b"or": 0, b"again": 0})
    accepts([relation, relation], prove(said(), [relation, relation], {"b": 3}, seeded(1)))
