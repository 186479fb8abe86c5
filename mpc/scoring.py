"""Encrypted scoring: the bureau owns the weights, a hospital the features; neither shows them to the other.

A model is a linear score ``s = sum_j w_j x_j`` over integers and a public limit L. The bureau learns
which of the hospital's records reach the limit (s >= L); the hospital learns nothing of the weights.

    bureau      E_j = (1+n)^{w_j} r_j^n mod n^2 under its own key n        -> ScoreModel
    bureau      (w_j, r_j)                                                 -> regulator: ModelOpening
    regulator   re-encrypts, checks the declared range, signs the digest   -> ledger
    hospital    (prod_j E_j^{x_j} (1+n)^{-L})^a (1+n)^b R^n                -> bureau: ScoreAnswers
    bureau      decrypts v = a (s - L) + b;  s >= L exactly when v >= 0

with a log-uniform, 0 <= b < a and R uniform in Z_n*, all fresh for every record, drawn by the hospital.
No wrap: |v| < a (D + 1) < 2^-MARGIN n / 4, where D bounds |s - L| over the declarations.

**Adversaries.** *Dishonest bureau*: weights that write a record into one score (1, 10^3, 10^6), weights
outside the range, other ciphertexts than those reviewed, a malformed key. The hospital evaluates only a
model whose digest stands on the ledger after a review, at most RECORDS records at a time, each once per
model and under at most MODELS_PER_RECORD models. Every reviewed E_j is (1+n)^{w_j} r_j^n by the
regulator's own computation, so an answer is (1+n)^v times a uniform n-th power, *whatever n is*: the
secrecy of a record rests on no assumption and not on the form of the key. *Dishonest hospital*: it can
send anything; damage and nonsense abort, since a random plaintext is within the provable bounds with
probability 2^-MARGIN, but a wrong score made with care counts (a proof of correct evaluation is not part
of this). It never gets flags back, since chosen answers would read the weights bit by bit.
*Regulator*: honest in reviewing; it learns the weights. It is not shown p and q: it needs neither, and
with them it could decrypt the hospitals' answers.

**What the bureau learns beside the flag.** v, whose law hardly depends on how far s is from L: with
a in [2^low, 2^high) of density 1/a, P(v | d) = 1 / (v ln(A/a0)) for every distance d in the middle of
the range. The statistical distance between any two scores on the same side of the limit is below
`Bounds.leak_per_mille` (about 1 %); in that share of the cases a small or large v bounds the distance,
and v < 2^low says s = L. Details and proof: docs/protocols/encrypted-scoring.md.

Spec: Paillier, EUROCRYPT 1999, with g = n + 1; the arithmetic is `phe`'s raw integer functions (GPLv3,
docs/adr/0003-phe-is-gpl.md; no other file imports it). Departures: (1) never its `EncodedNumber`, whose
exponent tells the size of the number in clear; (2) key generation draws randomness inside `phe`.
Not constant-time. Review status: none from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd
from operator import index
from typing import TYPE_CHECKING, Annotated, Any, SupportsFloat, SupportsIndex

import msgspec

from mpc.paillier_key import LENGTHS, check_key, prove_key
from wire.canonical import Wire, encode
from wire.domains import MODEL, digest
from wire.errors import ProtocolAbort, Refused, Unavailable, VerificationError
from wire.identifiers import Handle, Hash, Name

if TYPE_CHECKING:
    from phe import paillier

Rand = Callable[[int], bytes]

RECORDS = 300
"""Most records that one evaluation answers for."""

MODELS_PER_RECORD = 8
"""Most models that one record is ever scored under: each gives a bit about it."""

FEATURES = 64
LARGEST_WEIGHT = 1000
"""The declared range of weights lies within -LARGEST_WEIGHT..LARGEST_WEIGHT."""

LARGEST_BOUND = 1 << 31
LARGEST_SCALE = 1_000_000
SLACK = 80
"""Bits by which the smallest mask exceeds every distance: rounding shows with probability 2^-SLACK."""

MARGIN = 128
"""Bits between the largest answer and the modulus: what is no masked score decrypts in range with 2^-MARGIN."""


class Feature(Wire, frozen=True, tag="scoring.feature"):
    """One input of a model, public. A value is clamped to low..high (natural units), multiplied by
    `scale` and rounded; a missing one counts as `missing`."""

    name: Name
    low: int
    high: int
    scale: int
    missing: int


class ScoreModel(Wire, frozen=True, tag="scoring.model"):
    """A model as everybody sees it. limit: L in score units; key: n, big-endian; ciphertexts: one E_j a feature."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    model: Name
    features: tuple[Feature, ...]
    weight_low: int
    weight_high: int
    limit: int
    key: bytes
    key_proof: tuple[bytes, ...]
    ciphertexts: tuple[bytes, ...]


class ModelOpening(Wire, frozen=True, tag="scoring.opening"):
    """What the bureau shows the regulator, sealed, and nobody else. Secret: the weights w_j and the r_j."""

    weights: tuple[int, ...]
    randomness: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"ModelOpening({len(self.weights)} weights)"


class PaillierSecret(Wire, frozen=True, tag="scoring.secret"):
    """The bureau's secret primes, big-endian; they stay in its vault."""

    p: bytes
    q: bytes

    def __repr__(self) -> str:
        return "PaillierSecret()"


class Answer(Wire, frozen=True, tag="scoring.answer"):
    """One record's masked score. handle: random, known to the hospital alone; ciphertext of a (s - L) + b."""

    handle: Handle
    ciphertext: bytes


class ScoreAnswers(Wire, frozen=True, tag="scoring.answers"):
    """Hospital to bureau: answers in the order of their random handles, which says nothing of the rows."""

    session: Handle
    model: Hash
    answers: Annotated[tuple[Answer, ...], msgspec.Meta(min_length=1, max_length=RECORDS)]


class ModelUse(Wire, frozen=True, tag="scoring.use"):
    """Which records (the hospital's own ids) were scored under the model of this digest."""

    model: Hash
    records: tuple[str, ...]

    def __repr__(self) -> str:
        return f"ModelUse({len(self.records)} records)"


class UseBook(Wire, frozen=True, tag="scoring.uses"):
    """A hospital's private memory of what it has scored. Stored durably before an answer leaves."""

    uses: tuple[ModelUse, ...] = ()

    def __repr__(self) -> str:
        return f"UseBook({len(self.uses)} models)"


@dataclass(frozen=True)
class Bounds:
    """What the declarations of a model prove.

    lowest, highest: every possible score lies between; distance: D >= |s - L|; mask_low, mask_high:
    a is in [2^mask_low, 2^mask_high); leak_per_mille: bound on the statistical distance between what
    two records on the same side of the limit make the bureau see.
    """

    lowest: int
    highest: int
    distance: int
    mask_low: int
    mask_high: int
    leak_per_mille: int


@dataclass(frozen=True)
class Review:
    """The regulator's finding on a model it accepts; what it signs is the digest and the declared range."""

    digest: bytes
    weight_low: int
    weight_high: int
    leak_per_mille: int


@dataclass(frozen=True)
class Evaluation:
    """A hospital's result. answers: to be sent; uses: to be stored *first*; records: (handle, record id), private."""

    answers: ScoreAnswers
    uses: UseBook
    records: tuple[tuple[bytes, str], ...] = field(repr=False)


@dataclass(frozen=True)
class Flag:
    """What the bureau learns of one record: whether its score reaches the limit."""

    handle: bytes
    reached: bool


def _phe() -> Any:
    try:
        import phe
        import phe.util
    except ImportError:
        raise Unavailable("scoring.needs_phe") from None
    return phe


def _below(bound: int, rand: Rand) -> int:
    """A uniform integer in 0..bound-1."""
    bits = (bound - 1).bit_length()
    length = (bits + 7) // 8
    while True:
        drawn = int.from_bytes(rand(length), "big") >> (8 * length - bits) if bits else 0
        if drawn < bound:
            return drawn


def _unit(n: int, rand: Rand) -> int:
    """A uniform element of Z_n*."""
    while True:
        drawn = _below(n, rand)
        if gcd(drawn, n) == 1:
            return drawn


def _mask(low: int, high: int, rand: Rand) -> int:
    """a in [2^low, 2^high) with density 1/a: a uniform octave, then rejection within it. Integers only."""
    least = 1 << (low + _below(high - low, rand))
    while True:
        drawn = least + _below(least, rand)
        if _below(drawn, rand) < least:
            return drawn


def _ciphertext(data: bytes, n: int) -> int | None:
    """The unit of Z_{n^2} that `data` encodes in full length, or None."""
    value = int.from_bytes(data, "big")
    if len(data) != n.bit_length() // 4 or not 0 < value < n * n or gcd(value, n) != 1:
        return None
    return value


# what everybody checks


def declared_bounds(
    features: Sequence[Feature], weight_low: int, weight_high: int, limit: int, key_bits: int = LENGTHS[0]
) -> Bounds:
    """What the declarations prove about scores and masks. Public. Raises Refused where they are not acceptable."""
    if not 1 <= len(features) <= FEATURES or len({feature.name for feature in features}) != len(features):
        raise Refused("scoring.bad_features", limit=FEATURES)
    for one in features:
        if not (
            -LARGEST_BOUND <= one.low <= one.missing <= one.high <= LARGEST_BOUND and 1 <= one.scale <= LARGEST_SCALE
        ):
            raise Refused("scoring.bad_feature", feature=one.name)
    if not -LARGEST_WEIGHT <= weight_low <= weight_high <= LARGEST_WEIGHT:
        raise Refused("scoring.range_too_wide", low=weight_low, high=weight_high, limit=LARGEST_WEIGHT)
    lowest = highest = 0
    for one in features:
        corners = [weight * x * one.scale for weight in (weight_low, weight_high) for x in (one.low, one.high)]
        lowest, highest = lowest + min(corners), highest + max(corners)
    if not lowest < limit <= highest:
        raise Refused("scoring.limit_out_of_reach", low=lowest, high=highest)
    distance = max(highest - limit, limit - lowest)
    reach = (distance + 1).bit_length()
    # a (D + 1) < 2^mask_high 2^reach = 2^(key_bits - 3 - MARGIN) <= 2^-MARGIN n / 4
    mask_low, mask_high = reach + SLACK, key_bits - 3 - MARGIN - reach
    # (ln(D + 1) + 1) / ln 2^(mask_high - mask_low), rounded up: 1 / ln 2 < 1.4427
    leak = -((-1000 * reach - 1443) // (mask_high - mask_low))
    return Bounds(lowest, highest, distance, mask_low, mask_high, leak)


def check_model(model: ScoreModel) -> Bounds:
    """Check all of a model that is public: declarations, key, ciphertexts. Anyone runs it; about 0.2 s.

    Raises Refused (declarations) or VerificationError (key or ciphertext). It does not show that the
    ciphertexts hold weights in the declared range: only the review does.
    """
    n = check_key(model.key, model.key_proof)
    bounds = declared_bounds(model.features, model.weight_low, model.weight_high, model.limit, n.bit_length())
    if len(model.ciphertexts) != len(model.features):
        raise VerificationError("scoring.bad_ciphertext", position=len(model.ciphertexts))
    for position, ciphertext in enumerate(model.ciphertexts):
        if _ciphertext(ciphertext, n) is None:
            raise VerificationError("scoring.bad_ciphertext", position=position)
    return bounds


def model_digest(model: ScoreModel) -> bytes:
    """The 32 bytes that are reviewed, registered and looked up: a hash of everything in the model."""
    return digest(MODEL, encode(model))


def integer_features(
    features: Sequence[Feature], rows: Iterable[Sequence[SupportsIndex | SupportsFloat | None]]
) -> list[tuple[int, ...]]:
    """The hospital's rows (one value a feature, natural units) as the integers that are scored. Secret.

    Clamps to the declared bounds, takes None and NaN as the declared `missing`, rounds half to even,
    exactly. Never refuses a value: nothing depends on the data in the open.
    """
    return [tuple(_integer(one, value) for one, value in zip(features, row, strict=True)) for row in rows]


def _integer(one: Feature, value: SupportsIndex | SupportsFloat | None) -> int:
    if value is None:
        return one.missing * one.scale
    if isinstance(value, SupportsIndex):
        # A numpy.int64 would overflow inside phe: from here on there are Python ints only.
        return min(max(index(value), one.low), one.high) * one.scale
    number = float(value)
    if math.isnan(number):
        return one.missing * one.scale
    return round(Fraction(min(max(number, one.low), one.high)) * one.scale)


# bureau


def generate_key(bits: int = LENGTHS[0]) -> PaillierSecret:
    """The bureau's fresh key, of 2048, 3072 or 4096 bits. The randomness is drawn inside phe (SystemRandom)."""
    if bits not in LENGTHS:
        raise ValueError(f"a Paillier modulus has {LENGTHS} bits")
    _, private = _phe().generate_paillier_keypair(n_length=bits)
    return PaillierSecret(private.p.to_bytes(bits // 16, "big"), private.q.to_bytes(bits // 16, "big"))


def _private_key(secret: PaillierSecret) -> paillier.PaillierPrivateKey:
    phe, p, q = _phe(), int.from_bytes(secret.p, "big"), int.from_bytes(secret.q, "big")
    return phe.PaillierPrivateKey(phe.PaillierPublicKey(p * q), p, q)


def build_model(
    secret: PaillierSecret,
    model: str,
    features: Sequence[Feature],
    weights: Sequence[SupportsIndex],
    weight_low: int,
    weight_high: int,
    limit: int,
    rand: Rand,
) -> tuple[ScoreModel, ModelOpening]:
    """The bureau encrypts its weights: the public model, and the opening for the regulator (secret).

    weights: secret integers, one a feature, within weight_low..weight_high; limit: L, public.
    Raises Refused where the declarations are not acceptable, ValueError where the weights do not fit them.
    """
    declared_bounds(features, weight_low, weight_high, limit, 16 * len(secret.p))
    plain = tuple(index(weight) for weight in weights)
    if len(plain) != len(features) or not all(weight_low <= weight <= weight_high for weight in plain):
        raise ValueError("one weight a feature, each within the declared range")
    return encrypt_weights(secret, model, features, plain, weight_low, weight_high, limit, rand)


def encrypt_weights(
    secret: PaillierSecret,
    model: str,
    features: Sequence[Feature],
    weights: Sequence[int],
    weight_low: int,
    weight_high: int,
    limit: int,
    rand: Rand,
) -> tuple[ScoreModel, ModelOpening]:
    """`build_model` without its checks: what a dishonest bureau can do, whom the others refuse."""
    public = _private_key(secret).public_key
    n, length = public.n, public.n.bit_length() // 8
    randomness = [_unit(n, rand) for _ in weights]
    ciphertexts = tuple(
        public.raw_encrypt(weight % n, r_value=r).to_bytes(2 * length, "big")
        for weight, r in zip(weights, randomness, strict=True)
    )
    proof = prove_key(int.from_bytes(secret.p, "big"), int.from_bytes(secret.q, "big"))
    built = ScoreModel(
        1, model, tuple(features), weight_low, weight_high, limit, n.to_bytes(length, "big"), proof, ciphertexts
    )
    return built, ModelOpening(tuple(weights), tuple(r.to_bytes(length, "big") for r in randomness))


# regulator


def readable(features: Sequence[Feature], weights: Sequence[int]) -> bool:
    """Whether three or more weights are the places of a number system, so that one exact score spells the record.

    A place is a weight times its feature's scale: a column of whole numbers moves the score by no less,
    and a scale must not do what a weight may not. Such a model does not pass `review`; its bureau can ask
    beforehand.
    """
    used = sorted(
        (abs(weight) * one.scale, abs(weight) * (one.high - one.low) * one.scale)
        for one, weight in zip(features, weights, strict=True)
        if weight and one.high > one.low
    )
    below = 0
    for place, swing in used:
        if place <= below:
            return False
        below += swing
    return len(used) >= 3


def review(model: ScoreModel, opening: ModelOpening) -> Review:
    """The regulator's check before it signs: the model is sound and holds weights of the declared range.

    Raises VerificationError where a ciphertext is not the encryption of the weight shown, Refused where a
    weight is out of the declared range or the weights spell the record, and whatever `check_model` raises.
    """
    bounds = check_model(model)
    n = int.from_bytes(model.key, "big")
    if not len(opening.weights) == len(opening.randomness) == len(model.features):
        raise VerificationError("scoring.bad_opening", model=model.model)
    public = _phe().PaillierPublicKey(n)
    for one, weight, shown, ciphertext in zip(
        model.features, opening.weights, opening.randomness, model.ciphertexts, strict=True
    ):
        if not model.weight_low <= weight <= model.weight_high:
            raise Refused("scoring.weight_out_of_range", feature=one.name, low=model.weight_low, high=model.weight_high)
        r = int.from_bytes(shown, "big")
        if len(shown) != len(model.key) or not 0 < r < n or gcd(r, n) != 1:
            raise VerificationError("scoring.bad_opening", model=model.model)
        # E_j = (1+n)^{w_j} r_j^n mod n^2
        if public.raw_encrypt(weight % n, r_value=r) != int.from_bytes(ciphertext, "big"):
            raise VerificationError("scoring.other_ciphertext", feature=one.name)
    if readable(model.features, opening.weights):
        raise Refused("scoring.readable_weights", model=model.model)
    return Review(model_digest(model), model.weight_low, model.weight_high, bounds.leak_per_mille)


# hospital


def _with_uses(book: UseBook, model: ScoreModel, name: bytes, records: Sequence[str]) -> UseBook:
    """`book` after these records were scored under the model of digest `name`; Refused where it forbids that."""
    earlier = {use.model: use.records for use in book.uses}
    again = len(set(records) & set(earlier.get(name, ()))) + len(records) - len(set(records))
    if again:
        raise Refused("scoring.already_scored", model=model.model, records=again)
    models = dict.fromkeys(records, 0)
    for use in book.uses:
        for record in use.records:
            if record in models:
                models[record] += 1
    full = sum(1 for count in models.values() if count >= MODELS_PER_RECORD)
    if full:
        raise Refused("scoring.too_many_models", records=full, limit=MODELS_PER_RECORD)
    earlier[name] = tuple(sorted((*earlier.get(name, ()), *records)))
    return UseBook(tuple(ModelUse(one, ids) for one, ids in sorted(earlier.items())))


def evaluate(
    model: ScoreModel,
    registered: bytes,
    session: bytes,
    records: Sequence[tuple[str, Sequence[SupportsIndex]]],
    uses: UseBook,
    rand: Rand,
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """The hospital scores its records under the bureau's encrypted weights. About 15 ms a record.

    registered: the digest that stands, reviewed and final, on the ledger under the model's name;
    session: 16 public bytes agreed with the bureau; records: (own id, features from `integer_features`),
    secret, at most RECORDS; uses: what was scored before. Store `Evaluation.uses` durably, then send
    `Evaluation.answers` (about 530 bytes a record). progress: called with 1 after each record.
    Raises Refused where the model is not the registered one or a record may not be scored, VerificationError
    where the model is malformed, ValueError where features are outside their declared bounds.
    """
    if model_digest(model) != registered:
        raise Refused("scoring.not_registered", model=model.model)
    if not 1 <= len(records) <= RECORDS:
        raise Refused("scoring.too_many_records", records=len(records), limit=RECORDS)
    bounds = check_model(model)
    rows = [tuple(index(value) for value in row) for _, row in records]
    for row in rows:
        if len(row) != len(model.features) or not all(
            one.low * one.scale <= value <= one.high * one.scale for one, value in zip(model.features, row, strict=True)
        ):
            raise ValueError("features must be integers within their declared bounds: use integer_features")
    after = _with_uses(uses, model, registered, [record for record, _ in records])

    n = int.from_bytes(model.key, "big")
    phe = _phe()
    public, powmod, mulmod, invert = phe.PaillierPublicKey(n), phe.util.powmod, phe.util.mulmod, phe.util.invert
    square: int = public.nsquare
    weights = [int.from_bytes(ciphertext, "big") for ciphertext in model.ciphertexts]
    inverses = [invert(weight, square) for weight in weights]
    minus_limit = public.raw_encrypt(-model.limit % n, r_value=1)
    answers: dict[bytes, tuple[str, bytes]] = {}
    for (record, _), row in zip(records, rows, strict=True):
        # Enc(s - L) = prod_j E_j^{x_j} (1+n)^{-L}
        distance = minus_limit
        for value, weight, inverse in zip(row, weights, inverses, strict=True):
            distance = mulmod(distance, powmod(weight if value >= 0 else inverse, abs(value), square), square)
        # Enc(a (s - L) + b), under randomness of our own: phe does not re-randomise sums by itself
        a = _mask(bounds.mask_low, bounds.mask_high, rand)
        fresh = public.raw_encrypt(_below(a, rand), r_value=_unit(n, rand))
        masked = mulmod(powmod(distance, a, square), fresh, square)
        answers[rand(16)] = (record, masked.to_bytes(n.bit_length() // 4, "big"))
        progress(1)
    if len(answers) != len(records):
        raise ValueError("the randomness repeats itself")
    # H -> B
    message = ScoreAnswers(session, registered, tuple(Answer(handle, answers[handle][1]) for handle in sorted(answers)))
    return Evaluation(message, after, tuple((handle, answers[handle][0]) for handle in sorted(answers)))


# bureau again


def read_flags(
    secret: PaillierSecret, model: ScoreModel, session: bytes, hospital: str, message: ScoreAnswers
) -> tuple[Flag, ...]:
    """The bureau decrypts a hospital's answers: which records reach the limit. About 3 ms a record.

    Flags are not sent back to the hospital: by answering what it likes it would read the weights.
    Raises ProtocolAbort naming the hospital where the message is of another session or model, or holds
    a handle twice, something that is no ciphertext, or a value outside what the declarations allow.
    """
    private = _private_key(secret)
    n = private.public_key.n
    bounds = declared_bounds(model.features, model.weight_low, model.weight_high, model.limit, n.bit_length())
    if model.key != n.to_bytes(n.bit_length() // 8, "big"):
        raise ValueError("this secret key is not the model's")
    if message.session != session or message.model != model_digest(model):
        raise ProtocolAbort("scoring.other_session", round="answers", parties=[hospital])
    handles = {answer.handle for answer in message.answers}
    if not len(handles) == len(message.answers) <= RECORDS or not handles:
        raise ProtocolAbort("scoring.bad_count", round="answers", parties=[hospital], limit=RECORDS)
    largest = ((1 << bounds.mask_high) - 1) * (bounds.distance + 1)
    flags = []
    for position, answer in enumerate(message.answers):
        ciphertext = _ciphertext(answer.ciphertext, n)
        if ciphertext is None:
            raise ProtocolAbort("scoring.bad_answer", round="answers", parties=[hospital], position=position)
        value = private.raw_decrypt(ciphertext)
        if value > n // 2:
            value -= n
        if abs(value) > largest:
            raise ProtocolAbort("scoring.bad_answer", round="answers", parties=[hospital], position=position)
        flags.append(Flag(answer.handle, value >= 0))
    return tuple(flags)
