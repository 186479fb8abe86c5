"""zkp.account: one successor, signed the same way however often it is asked for."""

from __future__ import annotations

import hashlib

import pytest

from tests.zkp import holders
from tests.zkp.holders import BUREAU_ACCOUNT
from wire.errors import DecodeError, VerificationError
from zkp import account, bbs, sigma
from zkp.account import Next
from zkp.batch import Check, settle
from zkp.blind_issuance import BlindSignature
from zkp.credentials import ACCOUNT, issuer
from zkp.groups import Backend, backend, encode_scalar
from zkp.transcript import Transcript

GROUP = backend()
OP = hashlib.sha256(b"an op").digest()
OF = BUREAU_ACCOUNT.of


def following(group: Backend = GROUP, cap: int = 19_900_000) -> Next:
    return account.successor(
        holders.holder().account, cap=cap, deductible=0, visits=1, serial_share=7, blind=9, group=group
    )


def test_renewed() -> None:
    now, following_state = holders.holder().account, following()
    answer = account.sign_update(BUREAU_ACCOUNT, OP, following_state.commitment)
    account.check_update(OF, following_state.commitment, answer)
    fresh = account.finish_update(OF, following_state, answer)
    before, after = now.named(ACCOUNT), fresh.named(ACCOUNT)
    kept = ("secret", "payer", "layer", "year")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert (after["cap"], after["deductible"], after["visits"]) == (19_900_000, 0, 1)
    assert account.spent_serial(fresh) == encode_scalar(7 + int.from_bytes(answer.shares[0], "big"))
    assert len({account.spent_serial(now), account.spent_serial(fresh), encode_scalar(7), answer.shares[0]}) == 4
    bbs.verify_scalars(OF.issuer, fresh.signature, ACCOUNT.header, fresh.scalars(ACCOUNT))


def test_the_same_answer_on_every_retry(reference: Backend) -> None:
    commitment = following().commitment
    assert commitment == following(reference).commitment
    answers = [account.sign_update(BUREAU_ACCOUNT, OP, commitment) for _ in range(3)]
    answers.append(account.sign_update(BUREAU_ACCOUNT, OP, commitment, reference))
    assert len(set(answers)) == 1
    other_op = account.sign_update(BUREAU_ACCOUNT, bytes(32), commitment)
    assert other_op.shares != answers[0].shares


def test_anybody_can_check_what_was_posted() -> None:
    commitment = following().commitment
    answer = account.sign_update(BUREAU_ACCOUNT, OP, commitment)
    forked = account.sign_update(BUREAU_ACCOUNT, bytes(32), commitment)
    richer = following(cap=20_000_000).commitment
    wrong = [
        (OF, richer, answer),
        (OF, commitment, BlindSignature(forked.shares, answer.signature)),
        (OF, commitment, BlindSignature((), answer.signature)),
        (issuer(bytes(32), ACCOUNT).of, commitment, answer),
    ]
    for of, where, what in wrong:
        with pytest.raises(VerificationError):
            account.check_update(of, where, what)
    with pytest.raises(VerificationError):
        account.finish_update(OF, following(cap=20_000_000), answer)


def test_the_next_account_opens_to_what_the_proof_names() -> None:
    state = following()
    variables = {name: "secret" if name == "secret" else f"next.{name}" for name in ACCOUNT.names}
    statement = [account.relation(GROUP.decode(state.commitment), variables)]

    def prove(scalars: dict[str, int]) -> None:
        witness = {variables[name]: scalar for name, scalar in scalars.items()}
        proof = sigma.prove(Transcript(b"test"), statement, witness, holders.rand_of("next"), GROUP)
        check = Check(GROUP)
        sigma.verify(Transcript(b"test"), statement, proof, check)
        settle([check], GROUP)

    prove(state.scalars)
    for name in ACCOUNT.names:
        with pytest.raises(VerificationError):
            prove({**state.scalars, name: state.scalars[name] + 1})
    with pytest.raises(ValueError):
        account.relation(GROUP.generator(), {**variables, "secret": "other"})
    with pytest.raises(ValueError):
        account.relation(GROUP.generator(), {"secret": "secret"})


@pytest.mark.parametrize("changes", [{"cap": -1}, {"cap": 2**40}, {"deductible": -1}, {"visits": 65536}])
def test_nothing_below_zero(changes: dict[str, int]) -> None:
    numbers = {"cap": 1, "deductible": 1, "visits": 1, **changes}
    with pytest.raises(DecodeError):
        account.successor(holders.holder().account, **numbers, serial_share=1, blind=1)


def test_a_callers_bug() -> None:
    with pytest.raises(ValueError):
        account.sign_update(BUREAU_ACCOUNT, bytes(31), following().commitment)
    with pytest.raises(DecodeError):
        account.sign_update(BUREAU_ACCOUNT, OP, b"\xc0" + bytes(47))
    with pytest.raises(DecodeError):
        account.spent_serial(holders.holder().person)
    assert "19900000" not in repr(following())
