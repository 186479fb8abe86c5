"""What another organisation says no with reaches a reader in the reader's language, whatever the other sends."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from medveil.gateway import problems
from medveil.gateway.organisation import Refusal, refusal, told_facts
from medveil.network.answers import Told, told, write_answer
from medveil.service.work.job_tables import _kept, _revived
from wire import messages
from wire.canonical import decode, encode
from wire.errors import ConsentDenied, DecodeError, MedveilError, ProtocolAbort, Refused, Unavailable

Play = Callable[[Callable[[Any], Any]], Any]


def heard(refused: Refusal) -> MedveilError:
    """What the organisation that hears it tells its own people, after its job was kept and read again."""
    sent = decode(Refusal, encode(refused))
    found = _revived(_kept(ConsentDenied("gateway.site_refused", organisation="hospital-1", **sent.told())))
    assert found is not None
    return found


def shown(error: MedveilError, language: str) -> str:
    problem = problems.describe(error, "00000000-0000-4000-8000-000000000000", language)
    return f"{problem.detail} {problem.fix}"


@pytest.mark.parametrize(
    "error",
    [
        Refused("gateway.small_groups", minimum=3, least=10),
        ProtocolAbort("gateway.cancelled", round="run", parties=("hospital-1",)),
        Unavailable("gateway.trouble", organisation="hospital-1"),
    ],
    ids=lambda error: error.code,
)
def test_a_reason_is_in_the_readers_language(error: MedveilError) -> None:
    found = heard(refusal("hospital-1", error))
    for language in messages.LANGUAGES:
        assert error.text(language) in shown(found, language)
    assert error.text("en") not in shown(found, "zh") and "{" not in shown(found, "zh")


def test_one_who_repeats_what_another_said_is_understood() -> None:
    inner = Refused("privacy.deny_no_grant", rule="no-grant", grant="-", missing="grant", recipient="a", dataset="b")
    outer = Refused("gateway.proof_refused", organisation="hospital-2", **refusal("hospital-2", inner).told())
    found = heard(refusal("insurer", outer))
    assert inner.text("zh") in shown(found, "zh") and inner.text("en") in shown(found, "en")


@pytest.mark.parametrize("many", [1, 20, 200])
def test_a_long_list_arrives(many: int) -> None:
    """Else who says it would be heard to send what cannot be read, and be blamed for that."""
    parties = tuple(f"hospital-of-a-long-name-{number}" for number in range(many))
    stopped = ProtocolAbort("mpc.incomplete", round="mask keys", parties=parties)
    for error in (stopped, Refused("gateway.proof_refused", organisation="a", **refusal("b", stopped).told())):
        sent = decode(Refusal, encode(refusal("hospital-1", error)))
        assert parties[0] in shown(heard(sent), "en")
        answered = told(decode(Told, write_answer(error)), "hospital-1")
        assert (type(answered), answered.code) == (type(error), error.code)


@pytest.mark.parametrize(
    "sent",
    [
        Refusal("nobody.knows", "It is too late in the day."),
        Refusal("gateway.small_groups", "It is too late in the day."),
        Refusal("gateway.small_groups", "It is too late in the day.", (("minimum", "3"),)),
        Refusal("", "It is too late in the day.", (("words", "x"), ("reason", "y"))),
    ],
    ids=["unknown code", "no facts", "too few facts", "no code"],
)
def test_what_is_not_known_is_shown_in_the_others_words(sent: Refusal) -> None:
    for language in messages.LANGUAGES:
        assert "It is too late in the day." in shown(heard(sent), language)


def test_what_another_sends_stays_text() -> None:
    """Neither its facts nor its words are looked into, and there are few of them."""
    facts = (("minimum", "{least.__class__} \x1b[31m{0}"), ("least", "{organisation}"))
    found = shown(heard(Refusal("gateway.small_groups", "no", facts)), "en")
    assert "{least.__class__} \ufffd[31m{0}" in found and "{organisation}" in found
    deep = Refusal("gateway.site_refused", "no")
    for _ in range(20):
        told = ConsentDenied("gateway.site_refused", organisation="a", **deep.told())
        deep = decode(Refusal, encode(refusal("a", told)))
    assert "no" in shown(heard(deep), "zh")
    for bad in ((("a b", "x"),), (("a", "x" * 2004),), tuple((f"a{n}", "") for n in range(40))):
        with pytest.raises(DecodeError):
            decode(Refusal, encode(msgspec.structs.replace(deep, facts=bad)))
    assert len(told_facts({f"a{n}": n for n in range(40)})) == 32


def test_the_researcher_reads_a_sites_no_in_chinese(play: Play) -> None:
    async def story(world: Any) -> None:
        answer, _ = await world.run(world.query(), secrets.token_bytes(16))
        assert isinstance(answer, ConsentDenied)
        facts = {"rule": "no-grant", "grant": "-", "missing": "grant", "recipient": "researcher"}
        for language in messages.LANGUAGES:
            denial = messages.text("privacy.deny_no_grant", facts | {"dataset": "stays-hospital-1"}, language)
            assert denial in answer.text(language)

    play(story)
