"""Encrypted scoring end to end, its adversaries, and the pitfalls of phe."""

from __future__ import annotations

import builtins
import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy
import phe
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpc import scoring
from mpc.scoring import (
    MODELS_PER_RECORD,
    RECORDS,
    Answer,
    Feature,
    ModelOpening,
    ModelUse,
    PaillierSecret,
    ScoreAnswers,
    ScoreModel,
    UseBook,
    build_model,
    check_model,
    encrypt_weights,
    evaluate,
    generate_key,
    integer_features,
    model_digest,
    read_flags,
    review,
)
from wire import canonical
from wire.errors import DecodeError, MedveilError, ProtocolAbort, Refused, Unavailable, VerificationError

FEATURES = (
    Feature("visits", 0, 60, 1, 0),
    Feature("spend", 0, 5000, 10, 100),
    Feature("change", -50, 50, 2, 0),
)
WEIGHTS = (40, 1, -7)
LOW, HIGH, LIMIT = -50, 50, 2600
SESSION = b"s" * 16
UNUSED = UseBook()

ROWS = (
    (0, 0, 0),
    (60, 50_000, -100),
    (65, 0, 0),
    (5, 2400, 0),
    (5, 2399, 0),
    (5, 2401, 0),
    (12, 800, -60),
)


@dataclass(frozen=True)
class Made:
    secret: PaillierSecret
    model: ScoreModel
    opening: ModelOpening

    @property
    def n(self) -> int:
        return int.from_bytes(self.model.key, "big")


@pytest.fixture(scope="module")
def made() -> Made:
    secret = generate_key()
    return Made(secret, *build_model(secret, "over-use", FEATURES, WEIGHTS, LOW, HIGH, LIMIT, secrets.token_bytes))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch, made: Made) -> Iterator[None]:
    """Takes the key's proof as checked (0.2 s): for tests that look at other things."""
    monkeypatch.setattr(scoring, "check_key", lambda key, proof: int.from_bytes(key, "big"))
    yield


def plain_score(row: Sequence[int]) -> int:
    return sum(weight * value for weight, value in zip(WEIGHTS, row, strict=True))


def clamped(row: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        min(max(value, one.low * one.scale), one.high * one.scale) for one, value in zip(FEATURES, row, strict=True)
    )


def answers_of(made: Made, rows: Sequence[Sequence[int]], uses: UseBook = UNUSED) -> scoring.Evaluation:
    records = [(f"row-{number}", clamped(row)) for number, row in enumerate(rows)]
    return evaluate(made.model, model_digest(made.model), SESSION, records, uses, secrets.token_bytes)


def encrypt(made: Made, value: int) -> bytes:
    return phe.PaillierPublicKey(made.n).raw_encrypt(value % made.n).to_bytes(512, "big")


def code_of(caught: pytest.ExceptionInfo[MedveilError]) -> str:
    assert caught.value.message != caught.value.code and caught.value.fix
    return caught.value.code


# the honest run


def test_flags_equal_the_plain_computation(made: Made) -> None:
    found = review(made.model, made.opening)
    assert found.digest == model_digest(made.model) and (found.weight_low, found.weight_high) == (LOW, HIGH)
    done = evaluate(
        made.model,
        found.digest,
        SESSION,
        [(f"row-{number}", clamped(row)) for number, row in enumerate(ROWS)],
        UseBook(),
        secrets.token_bytes,
    )
    sent = canonical.encode(done.answers)
    flags = read_flags(made.secret, made.model, SESSION, "hospital-1", canonical.decode(ScoreAnswers, sent))
    names = dict(done.records)
    assert {names[flag.handle]: flag.reached for flag in flags} == {
        f"row-{number}": plain_score(clamped(row)) >= LIMIT for number, row in enumerate(ROWS)
    }
    assert len(sent) < 560 * len(ROWS)


def test_the_rows_hold_both_flags_and_the_limit_itself() -> None:
    distances = [plain_score(clamped(row)) - LIMIT for row in ROWS]
    assert 0 in distances and -1 in distances and 1 in distances


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.tuples(st.integers(0, 60), st.integers(0, 50_000), st.integers(-100, 100)))
def test_any_row_gets_its_plain_flag(made: Made, unchecked: None, row: tuple[int, int, int]) -> None:
    done = answers_of(made, [row])
    (flag,) = read_flags(made.secret, made.model, SESSION, "hospital-1", done.answers)
    assert flag.reached == (plain_score(row) >= LIMIT)


@pytest.mark.parametrize("distance", [-1, 0, 1])
def test_the_limit_itself_counts_as_reached(made: Made, unchecked: None, distance: int) -> None:
    for _ in range(4):
        done = answers_of(made, [(0, LIMIT + distance, 0)])
        (flag,) = read_flags(made.secret, made.model, SESSION, "hospital-1", done.answers)
        assert flag.reached == (distance >= 0)


def test_the_answers_are_in_no_order_of_the_rows(made: Made, unchecked: None) -> None:
    done = answers_of(made, ROWS)
    handles = [answer.handle for answer in done.answers.answers]
    assert handles == sorted(handles) and len(set(handles)) == len(ROWS)
    assert b"row-" not in canonical.encode(done.answers)


def test_the_run_replays_from_its_randomness(made: Made, unchecked: None) -> None:
    def drawn(seed: int) -> Any:
        stream = iter(range(seed, 10**9))

        def rand(length: int) -> bytes:
            return b"".join(
                __import__("hashlib").sha256(next(stream).to_bytes(8, "big")).digest() for _ in range(length // 32 + 1)
            )[:length]

        return rand

    digest = model_digest(made.model)
    records = [("a", (1, 2, 3)), ("b", (4, 5, 6))]
    first = evaluate(made.model, digest, SESSION, records, UseBook(), drawn(1))
    assert evaluate(made.model, digest, SESSION, records, UseBook(), drawn(1)) == first
    other = evaluate(made.model, digest, SESSION, records, UseBook(), drawn(500))
    assert not {one.ciphertext for one in other.answers.answers} & {one.ciphertext for one in first.answers.answers}


# what an answer is: exactly a (s - L) + b, fresh


def test_the_masks_are_within_their_bounds_and_never_wrap(made: Made) -> None:
    bounds = check_model(made.model)
    assert (1 << bounds.mask_high) * (bounds.distance + 1) < made.n >> 130
    assert 1 << bounds.mask_low > (bounds.distance + 1) << 79
    assert bounds.lowest <= -50 * (60 + 50_000 + 100) and bounds.highest >= 50 * 50_000
    private = scoring._private_key(made.secret)
    for row in ((60, 50_000, -100), (0, 0, 100)):
        done = answers_of(made, [row])
        value = private.raw_decrypt(int.from_bytes(done.answers.answers[0].ciphertext, "big"))
        value = value - made.n if value > made.n // 2 else value
        # value = a d + b with 0 <= b < a: a lies between |value| / (|d| + 1) and |value| / (|d| - 1)
        distance = plain_score(row) - LIMIT
        assert (value >= 0) == (distance >= 0)
        assert (
            (1 << bounds.mask_low) * (abs(distance) - 1) <= abs(value) < (1 << bounds.mask_high) * (abs(distance) + 1)
        )


def test_the_same_record_never_gives_the_same_answer_twice(made: Made, unchecked: None) -> None:
    private = scoring._private_key(made.secret)
    one, two = answers_of(made, [ROWS[3]]), answers_of(made, [ROWS[3]])
    first, second = (int.from_bytes(done.answers.answers[0].ciphertext, "big") for done in (one, two))
    assert first != second and private.raw_decrypt(first) != private.raw_decrypt(second)


# pitfalls of phe (findings)


def test_pitfall_exponents_of_phe_show_magnitudes_and_none_leaves_here(made: Made, unchecked: None) -> None:
    public = phe.PaillierPublicKey(made.n)
    assert len({public.encrypt(value).exponent for value in (5, 0.5, 1e-9)}) == 3
    done = answers_of(made, ROWS)
    # a message holds session, digest, handles and ciphertexts of one length: no field for an exponent
    assert {len(answer.ciphertext) for answer in done.answers.answers} == {512}
    assert Answer.__struct_fields__ == ("handle", "ciphertext")
    assert {len(ciphertext) for ciphertext in made.model.ciphertexts} == {512}


def test_pitfall_numpy_integers_become_python_integers(made: Made, unchecked: None) -> None:
    wide = numpy.array([60, 50_000, -100], dtype=numpy.int64)
    records = [("numpy", tuple(wide))]
    done = evaluate(made.model, model_digest(made.model), SESSION, records, UseBook(), secrets.token_bytes)
    (flag,) = read_flags(made.secret, made.model, SESSION, "hospital-1", done.answers)
    assert flag.reached
    (row,) = integer_features([Feature("big", 0, 1 << 31, 10**6, 0)], [[numpy.int64(1 << 31)]])
    assert row == ((1 << 31) * 10**6,) and type(row[0]) is int
    model, opening = build_model(
        made.secret,
        "m",
        FEATURES,
        numpy.array(WEIGHTS),
        LOW,
        HIGH,
        LIMIT,
        secrets.token_bytes,  # type: ignore[arg-type]
    )
    assert all(type(weight) is int for weight in opening.weights)
    assert review(model, opening)


def test_pitfall_a_float_is_not_an_integer(made: Made, unchecked: None) -> None:
    with pytest.raises(TypeError):
        evaluate(
            made.model,
            model_digest(made.model),
            SESSION,
            [("a", (1.0, 2.0, 3.0))],  # type: ignore[list-item]
            UseBook(),
            secrets.token_bytes,
        )


def test_pitfall_sums_of_phe_are_not_rerandomised_and_ours_are(made: Made, unchecked: None) -> None:
    # phe: the sum of two ciphertexts is their product, which who made them recognises
    weights = [int.from_bytes(ciphertext, "big") for ciphertext in made.model.ciphertexts]
    public = phe.PaillierPublicKey(made.n)
    left, right = (phe.EncryptedNumber(public, weight) for weight in weights[:2])
    assert (left + right).ciphertext(be_secure=False) == weights[0] * weights[1] % (made.n**2)
    # ours: take (1+n)^v and the bureau's own r_j^(a x_j) away, and a fresh n-th power remains
    row = (3, 5, 2)
    drawn: list[int] = []
    original = scoring._mask

    def watched(low: int, high: int, rand: scoring.Rand) -> int:
        drawn.append(original(low, high, rand))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_mask", watched)
        done = answers_of(made, [row])
    (a,) = drawn
    known = math.prod(
        pow(int.from_bytes(r, "big"), a * value, made.n) for r, value in zip(made.opening.randomness, row, strict=True)
    )
    # modulo n the ciphertext is (its randomness)^n
    answer = int.from_bytes(done.answers.answers[0].ciphertext, "big")
    fresh = answer * pow(known, -made.n, made.n) % made.n
    assert fresh != 1
    assert math.gcd(fresh, made.n) == 1


# the dishonest bureau


def registered_by_nobody(made: Made, **changes: Any) -> ScoreModel:
    return msgspec.structs.replace(made.model, **changes)


def test_a_model_that_was_not_reviewed_is_not_evaluated(made: Made) -> None:
    other, _ = encrypt_weights(
        made.secret, "over-use", FEATURES, (1, 1000, 1_000_000), LOW, HIGH, LIMIT, secrets.token_bytes
    )
    with pytest.raises(Refused) as caught:
        evaluate(other, model_digest(made.model), SESSION, [("a", (1, 2, 3))], UNUSED, secrets.token_bytes)
    assert code_of(caught) == "scoring.not_registered"


def test_weights_of_a_million_cannot_be_declared(made: Made, unchecked: None) -> None:
    wide = ("m", FEATURES, (1, 1000, 1_000_000), 0, 1_000_000, 5, secrets.token_bytes)
    with pytest.raises(Refused) as caught:
        build_model(made.secret, *wide)
    assert code_of(caught) == "scoring.range_too_wide"
    # whoever builds it all the same is refused by everybody, also were it registered
    other, opening = encrypt_weights(made.secret, *wide)
    for look in (
        lambda: check_model(other),
        lambda: review(other, opening),
        lambda: evaluate(other, model_digest(other), SESSION, [("a", (1, 2, 3))], UNUSED, secrets.token_bytes),
    ):
        with pytest.raises(Refused) as caught:
            look()
        assert code_of(caught) == "scoring.range_too_wide"


def test_a_weight_outside_its_declared_range_fails_the_review(made: Made, unchecked: None) -> None:
    model, opening = encrypt_weights(
        made.secret, "m", FEATURES, (40, 1_000_000, -7), LOW, HIGH, LIMIT, secrets.token_bytes
    )
    with pytest.raises(Refused) as caught:
        review(model, opening)
    assert code_of(caught) == "scoring.weight_out_of_range"
    assert caught.value.facts["feature"] == "spend"
    # shown as another weight, it is found by its ciphertext
    with pytest.raises(VerificationError) as wrong:
        review(model, ModelOpening(WEIGHTS, opening.randomness))
    assert code_of(wrong) == "scoring.other_ciphertext" and wrong.value.facts["feature"] == "spend"
    with pytest.raises(ValueError, match="declared range"):
        build_model(made.secret, "m", FEATURES, (40, 51, 0), LOW, HIGH, LIMIT, secrets.token_bytes)


def test_ciphertexts_of_other_weights_than_shown_fail_the_review(made: Made, unchecked: None) -> None:
    for shown in ((41, 1, -7), (40, 1, 7)):
        with pytest.raises(VerificationError) as caught:
            review(made.model, ModelOpening(shown, made.opening.randomness))
        assert code_of(caught) == "scoring.other_ciphertext"


def test_ciphertexts_under_other_randomness_fail_the_review(made: Made, unchecked: None) -> None:
    first = made.opening.randomness[0]
    for wrong, code in (
        (first[:-1] + bytes([first[-1] ^ 1]), "scoring.other_ciphertext"),
        (b"\0" * 256, "scoring.bad_opening"),
        (b"\0" + first, "scoring.bad_opening"),
        (made.model.key, "scoring.bad_opening"),
        (made.secret.p.rjust(256, b"\0"), "scoring.bad_opening"),
    ):
        with pytest.raises(VerificationError) as caught:
            review(made.model, ModelOpening(WEIGHTS, (wrong, *made.opening.randomness[1:])))
        assert code_of(caught) == code
    with pytest.raises(VerificationError) as caught:
        review(made.model, ModelOpening(WEIGHTS[:2], made.opening.randomness[:2]))
    assert code_of(caught) == "scoring.bad_opening"


@pytest.mark.parametrize(
    ("weights", "readable"),
    [((1, 42, 7), True), ((-7, 1, 60), True), ((20, 1, -7), False), ((1, 100, 0), False), ((5, 6, 7), False)],
)
def test_weights_that_are_the_places_of_a_number_system_fail_the_review(
    made: Made, unchecked: None, weights: tuple[int, ...], readable: bool
) -> None:
    # 1, 10^3, 10^6 on a smaller scale: within the range, and still digit by digit
    features = tuple(Feature(name, 0, high, 1, 0) for name, high in (("a", 6), ("b", 5), ("c", 3)))
    model, opening = build_model(made.secret, "m", features, weights, -100, 100, 20, secrets.token_bytes)
    if readable:
        with pytest.raises(Refused) as caught:
            review(model, opening)
        assert code_of(caught) == "scoring.readable_weights"
    else:
        review(model, opening)


def test_scales_do_not_hide_the_places_of_a_number_system(made: Made, unchecked: None) -> None:
    """Weights 1, 1, 1 over whole numbers of scales 1, 100, 10^4: the score is the record, two digits a column."""
    features = tuple(Feature(name, 0, 99, scale, 0) for name, scale in (("a", 1), ("b", 100), ("c", 10_000)))
    model, opening = build_model(made.secret, "m", features, (1, 1, 1), -10, 10, 500_000, secrets.token_bytes)
    with pytest.raises(Refused) as caught:
        review(model, opening)
    assert code_of(caught) == "scoring.readable_weights"


def test_ciphertexts_that_are_zero_or_not_invertible_are_refused(made: Made, unchecked: None) -> None:
    n, square = made.n, made.n**2
    p = int.from_bytes(made.secret.p, "big")
    for bad in (0, n, p, p * 12345, square, square + 5):
        encoded = bad.to_bytes(512, "big") if bad < 1 << 4096 else b"\xff" * 512
        model = registered_by_nobody(made, ciphertexts=(encoded, *made.model.ciphertexts[1:]))
        for look in (
            lambda model=model: check_model(model),
            lambda model=model: review(model, made.opening),
            lambda model=model: evaluate(
                model, model_digest(model), SESSION, [("a", (1, 2, 3))], UseBook(), secrets.token_bytes
            ),
        ):
            with pytest.raises(VerificationError) as caught:
                look()
            assert code_of(caught) == "scoring.bad_ciphertext"
    for wrong in (made.model.ciphertexts[:2], (b"", *made.model.ciphertexts[1:]), (*made.model.ciphertexts, b"")):
        with pytest.raises(VerificationError) as caught:
            check_model(registered_by_nobody(made, ciphertexts=wrong))
        assert code_of(caught) == "scoring.bad_ciphertext"


def test_a_malformed_key_is_refused_by_reviewer_and_hospital(made: Made) -> None:
    n = made.n
    for key, code in (
        ((n + 1).to_bytes(256, "big"), "scoring.key_small_factor"),
        ((2**2048 - 1942289).to_bytes(256, "big"), "scoring.key_prime"),
        (b"\x03", "scoring.key_length"),
        ((n + 2).to_bytes(256, "big"), None),
    ):
        model = registered_by_nobody(made, key=key)
        for look in (
            lambda model=model: review(model, made.opening),
            lambda model=model: evaluate(
                model, model_digest(model), SESSION, [("a", (1, 2, 3))], UseBook(), secrets.token_bytes
            ),
        ):
            with pytest.raises(VerificationError) as caught:
                look()
            assert code_of(caught) == code or (code is None and caught.value.code.startswith("scoring.key_"))


def test_a_changed_byte_of_the_model_is_another_model(made: Made) -> None:
    data = canonical.encode(made.model)
    digest = model_digest(made.model)
    for at in range(0, len(data), 37):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            other = canonical.decode(ScoreModel, changed)
        except DecodeError:
            continue
        assert model_digest(other) != digest
        with pytest.raises(Refused) as caught:
            evaluate(other, digest, SESSION, [("a", (1, 2, 3))], UseBook(), secrets.token_bytes)
        assert caught.value.code == "scoring.not_registered"


# each record once per model


def test_a_record_is_scored_once_per_model(made: Made, unchecked: None) -> None:
    done = answers_of(made, ROWS[:2])
    with pytest.raises(Refused) as caught:
        answers_of(made, ROWS[1:3], done.uses)
    assert code_of(caught) == "scoring.already_scored" and caught.value.facts["records"] == 2
    again = canonical.decode(UseBook, canonical.encode(done.uses))
    records = [("row-7", (1, 2, 3))]
    more = evaluate(made.model, model_digest(made.model), SESSION, records, again, secrets.token_bytes)
    assert more.uses == UseBook((ModelUse(model_digest(made.model), ("row-0", "row-1", "row-7")),))
    with pytest.raises(Refused) as caught:
        evaluate(
            made.model,
            model_digest(made.model),
            SESSION,
            [("row-8", (1, 2, 3)), ("row-8", (1, 2, 3))],
            more.uses,
            secrets.token_bytes,
        )
    assert code_of(caught) == "scoring.already_scored" and caught.value.facts["records"] == 1
    assert "row-8" not in str(caught.value)


def test_a_record_is_scored_under_few_models(made: Made, unchecked: None) -> None:
    # the same weights with L, L+1, L+2, ... would read the score by bisection
    uses = UseBook(tuple(ModelUse(bytes([number]) * 32, ("row-0",)) for number in range(MODELS_PER_RECORD)))
    with pytest.raises(Refused) as caught:
        answers_of(made, ROWS[:2], uses)
    assert code_of(caught) == "scoring.too_many_models" and caught.value.facts["records"] == 1
    assert answers_of(made, ROWS[:1], UseBook(uses.uses[1:])).uses.uses != uses.uses


def test_at_most_so_many_records_at_once(made: Made, unchecked: None) -> None:
    for count in (0, RECORDS + 1):
        with pytest.raises(Refused) as caught:
            answers_of(made, [(0, 0, 0)] * count)
        assert code_of(caught) == "scoring.too_many_records"


def test_features_outside_their_bounds_are_a_callers_bug(made: Made, unchecked: None) -> None:
    for row in ((61, 0, 0), (0, 0), (0, 0, 0, 0), (0, -1, 0)):
        with pytest.raises(ValueError, match="bounds"):
            evaluate(made.model, model_digest(made.model), SESSION, [("a", row)], UseBook(), secrets.token_bytes)


# the dishonest hospital


def spoiled(done: scoring.Evaluation, *ciphertexts: bytes) -> ScoreAnswers:
    first, *rest = done.answers.answers
    return ScoreAnswers(SESSION, done.answers.model, (*(Answer(first.handle, one) for one in ciphertexts), *rest))


def test_nonsense_from_a_hospital_aborts_and_names_it(made: Made, unchecked: None) -> None:
    done = answers_of(made, ROWS[:2])
    bounds = check_model(made.model)
    beyond = (1 << bounds.mask_high) * (bounds.distance + 1)
    p = int.from_bytes(made.secret.p, "big")
    for bad in (
        b"\0" * 512,
        b"",
        b"\xff" * 512,
        made.n.to_bytes(512, "big"),
        p.to_bytes(512, "big"),
        done.answers.answers[0].ciphertext[1:],
        encrypt(made, beyond),
        encrypt(made, -beyond),
        encrypt(made, made.n // 2),
        secrets.token_bytes(511).rjust(512, b"\0"),
    ):
        with pytest.raises(ProtocolAbort) as caught:
            read_flags(made.secret, made.model, SESSION, "hospital-1", spoiled(done, bad))
        assert code_of(caught) == "scoring.bad_answer" and caught.value.parties == ("hospital-1",)


def test_an_answer_twice_none_or_too_many_aborts(made: Made, unchecked: None) -> None:
    done = answers_of(made, ROWS[:2])
    one = done.answers.answers[0]
    many = tuple(Answer(number.to_bytes(16, "big"), one.ciphertext) for number in range(RECORDS + 1))
    for answers in ((one, one), (), many):
        with pytest.raises(ProtocolAbort) as caught:
            read_flags(
                made.secret, made.model, SESSION, "hospital-1", ScoreAnswers(SESSION, done.answers.model, answers)
            )
        assert code_of(caught) == "scoring.bad_count"
        if answers != (one, one):
            with pytest.raises(DecodeError):
                canonical.decode(ScoreAnswers, canonical.encode(ScoreAnswers(SESSION, b"m" * 32, answers)))


def test_an_answer_of_another_session_or_model_aborts(made: Made, unchecked: None) -> None:
    done = answers_of(made, ROWS[:1])
    for session, message in (
        (b"t" * 16, done.answers),
        (SESSION, msgspec.structs.replace(done.answers, model=b"m" * 32)),
    ):
        with pytest.raises(ProtocolAbort) as caught:
            read_flags(made.secret, made.model, session, "hospital-1", message)
        assert code_of(caught) == "scoring.other_session"
    with pytest.raises(ValueError, match="not the model's"):
        read_flags(generate_key(), made.model, SESSION, "hospital-1", done.answers)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_any_changed_byte_of_the_answers_aborts(
    made: Made, tampered: tuple[bytes, frozenset[bytes]], where: int, flip: int
) -> None:
    data, handles = tampered
    at = where % len(data)
    changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
    try:
        message = canonical.decode(ScoreAnswers, changed)
        flags = read_flags(made.secret, made.model, SESSION, "hospital-1", message)
    except MedveilError as error:
        assert isinstance(error, (DecodeError, ProtocolAbort))
    else:
        # only the handle is free: the hospital's own name for the record
        assert {flag.handle for flag in flags} != handles


@pytest.fixture(scope="module")
def tampered(made: Made) -> tuple[bytes, frozenset[bytes]]:
    done = answers_of(made, ROWS[:1])
    return canonical.encode(done.answers), frozenset(handle for handle, _ in done.records)


# secrets


def test_no_repr_and_no_message_shows_a_secret(made: Made, unchecked: None) -> None:
    done = answers_of(made, ROWS[:2])
    shown = repr((made.secret, made.opening, done.uses, ModelUse(b"m" * 32, ("row-0",)), done))
    assert "row-0" not in shown and "40" not in repr(made.opening)
    assert made.secret.p.hex() not in shown and repr(made.secret.p) not in shown


def test_without_phe_the_error_says_what_to_install(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == "phe":
            raise ImportError(name)
        return original(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Unavailable) as caught:
        generate_key()
    assert code_of(caught) == "scoring.needs_phe" and "medveil[scoring]" in caught.value.fix
    check_model(made.model)


def test_a_key_has_a_known_length() -> None:
    with pytest.raises(ValueError, match="2048"):
        generate_key(1024)
