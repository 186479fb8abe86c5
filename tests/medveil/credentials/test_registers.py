"""What an issuer's register keeps: one answer to an offer, one set of values for an application; renewal."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from medveil.credentials import contract, files, folder, issuing, policy_table, updating, wallets
from medveil.credentials.files import Application, CredentialKey, Kind
from tests.medveil.credentials.conftest import BILL, ENCOUNTER, FIRST, HANDLE, PASS, PERSON, Desk
from wire.canonical import encode
from wire.errors import DecodeError, MedveilError, Refused, VerificationError
from zkp.credentials import PERSON as PERSON_SCHEMA
from zkp.issuance import AccountScope

NEW = "1a" * 16
RENEWED: dict[str, Any] = PERSON | {"handle": NEW, "shown": {"handle": HANDLE}}


def offered(desk: Desk, wallet: str = "me") -> Application:
    """An application to a fresh offer to renew."""
    made = issuing.offer(desk / "person", PASS, "demo", secrets.token_bytes, renews=desk.key("person"))
    return issuing.apply(desk / wallet, PASS, made, secrets.token_bytes, renew=True)


def refused(code: str, what: Callable[[], Any]) -> None:
    with pytest.raises(Refused) as caught:
        what()
    assert caught.value.code == f"credential_files.{code}"


# ---------------------------------------------------------------------------------- one answer, one set of values


def test_an_offer_is_good_for_one_answer(desk: Desk) -> None:
    made = issuing.offer(desk / "person", PASS, "demo", secrets.token_bytes)
    mine, hers = (issuing.apply(desk / name, PASS, made, secrets.token_bytes) for name in ("one", "two"))
    first = encode(desk.issued(mine, PERSON | {"handle": "0d" * 16}, "4712"))
    register = desk.register("person")
    refused("offer_answered", lambda: desk.issued(hers, PERSON | {"handle": "0f" * 16}, "4713"))
    assert encode(desk.issued(mine, PERSON | {"handle": "0d" * 16}, "4712")) == first
    assert desk.register("person") == register


def test_an_offer_whose_answer_failed_is_still_good(desk: Desk) -> None:
    application = desk.applied("person", "one")
    refused("whose", lambda: desk.issued(application, PERSON))
    with pytest.raises(DecodeError):
        desk.issued(application, PERSON | {"birth": "no day"}, "4712")
    other = msgspec.structs.replace(
        application, request=msgspec.structs.replace(application.request, proof=bytes(len(application.request.proof)))
    )
    with pytest.raises(VerificationError):
        desk.issued(other, PERSON, "4712")
    assert desk.register("person").given[-1].answered == b""
    desk.issued(application, PERSON | {"handle": "0d" * 16}, "4712")


@pytest.mark.parametrize(
    "kind, values, changed",
    [
        ("person", PERSON | {"handle": "0d" * 16}, {"valid_to": "2020-12-31"}),
        ("account", {"visits": 0, "cap": 5, "deductible": 0}, {"cap": 6}),
        ("encounter", ENCOUNTER | {"bill": "0d" * 16}, {"diagnosis": "E11.900"}),
    ],
)
def test_other_values_for_the_same_application(
    desk: Desk, kind: Any, values: dict[str, Any], changed: dict[str, Any]
) -> None:
    """Neither to the same application, nor to another of the same wallet to a fresh offer."""
    scope = AccountScope("demo", "insurer-9", 3, 2025)
    more: dict[str, Any] = {"account": {"scope": scope}, "encounter": {"bill": bytes.fromhex("0d" * 16)}}.get(kind, {})
    if kind == "account":
        values = values | {"payer": scope.payer, "layer": scope.layer, "year": scope.year}
    wallet, person = ("one", "4712") if kind == "person" else ("me", "")
    application = desk.applied(kind, wallet, **more)
    first = desk.issued(application, values, person)
    register = desk.register(kind)
    for again in (application, desk.applied(kind, wallet, **more)):
        refused("other_values", lambda again=again: desk.issued(again, values | changed, person))  # type: ignore[misc]
    assert desk.register(kind).signed == register.signed
    assert encode(desk.issued(application, values, person)) == encode(first)


def test_a_bill_of_more_classes_than_its_total(desk: Desk) -> None:
    application = desk.applied("encounter", bill=bytes.fromhex("0d" * 16))
    refused("classes", lambda: desk.issued(application, ENCOUNTER | {"bill": "0d" * 16, "total": 420_054}))


def test_an_offer_does_not_ask_for_the_secret(desk: Desk) -> None:
    """Offers are strangers' files: this one was not made by `offer`."""
    made = issuing.offer(
        desk / "encounter", PASS, "demo", secrets.token_bytes, person=desk.key("person"), bill=bytes(16)
    )
    me = desk / "me"
    for name in ("secret", "blind", "nothing"):
        asks = msgspec.structs.replace(made, disclose=(name,))
        with pytest.raises(Refused) as caught:
            issuing.apply(me, PASS, asks, secrets.token_bytes)
        assert caught.value.code == "credential_files.disclose"
        renews = msgspec.structs.replace(asks, kind="person", bill=None, key=desk.key("person").key)
        with pytest.raises(Refused) as caught:
            issuing.apply(me, PASS, renews, secrets.token_bytes, renew=True)
        assert caught.value.code == "credential_files.disclose"


def test_no_wallet_is_made_where_one_is_named_wrongly(desk: Desk) -> None:
    with pytest.raises(MedveilError) as caught:
        desk.applied("encounter", "mistyped", bill=bytes(16))
    assert caught.value.code == "credential_files.no_wallet" and not (desk / "mistyped").exists()


def test_the_handle_is_shown_to_a_bureau_that_renews_and_only_if_she_means_it(desk: Desk) -> None:
    handed: dict[str, Any] = {"person": desk.key("person"), "bill": bytes(16)}
    made = issuing.offer(desk / "encounter", PASS, "demo", secrets.token_bytes, **handed)
    asks = msgspec.structs.replace(made, disclose=("handle",))
    for ask in (
        lambda: issuing.offer(desk / "encounter", PASS, "demo", secrets.token_bytes, disclose=["handle"], **handed),
        lambda: issuing.apply(desk / "me", PASS, asks, secrets.token_bytes),
    ):
        with pytest.raises(Refused) as caught:
            ask()
        assert caught.value.code == "credentials.handle_asked"
    # a hospital's offer made up as the renewal of a bureau
    key = desk.key("person").key
    renews = msgspec.structs.replace(asks, kind="person", bill=None, key=key, person_key=key)
    refused("renewal", lambda: issuing.apply(desk / "me", PASS, renews, secrets.token_bytes))
    assert issuing.apply(desk / "me", PASS, renews, secrets.token_bytes, renew=True).disclosed
    refused("no_renewal", lambda: issuing.apply(desk / "me", PASS, made, secrets.token_bytes, renew=True))


# ------------------------------------------------------------------------------------------- renewal


def test_a_renewed_person_goes_on(desk: Desk) -> None:
    """Same secret: accounts, bills and payments stay good, under the new handle."""
    before = desk.wallet().person
    answer = desk.issued(offered(desk), RENEWED)
    desk.take(answer)
    after = desk.wallet().person
    assert before is not None and after is not None
    assert after.get(PERSON_SCHEMA, "secret") == before.get(PERSON_SCHEMA, "secret")
    assert after.get(PERSON_SCHEMA, "handle") == bytes.fromhex(NEW)
    desk.take(answer)  # cut short after it was kept: the same again
    assert desk.wallet().person == after
    with pytest.raises(Refused):  # the old epoch's set does not hold the new handle
        desk.settle()
    desk.agree(desk.published(2, NEW))
    assert desk.done(desk.settle())[0]["step"] == "idle"


def test_renewed_once(desk: Desk) -> None:
    copy = (desk / "me").read_bytes()
    application = offered(desk)
    first = desk.issued(application, RENEWED)
    assert encode(desk.issued(application, RENEWED)) == encode(first)
    assert desk.issued(offered(desk), RENEWED).signature == first.signature  # another offer, the same commitment
    refused("other_values", lambda: desk.issued(application, RENEWED | {"handle": "1b" * 16}))
    twin = wallets.Kept(desk / "twin", PASS, msgspec.structs.replace(desk.wallet(), seed=bytes(32)))
    twin.save(twin.wallet, secrets.token_bytes)
    with pytest.raises(Refused) as caught:
        desk.issued(offered(desk, "twin"), RENEWED)
    assert caught.value.code == "credentials.issued_before"
    assert (desk / "me").read_bytes() == copy


def test_who_is_renewed(desk: Desk) -> None:
    application = offered(desk)
    refused("whose", lambda: desk.issued(application, RENEWED, "4711"))
    refused("other_person", lambda: desk.issued(application, RENEWED | {"shown": {"handle": "0e" * 16}}))
    refused("other_person", lambda: desk.issued(application, RENEWED | {"shown": []}))
    refused("old_handle", lambda: desk.issued(application, RENEWED | {"handle": HANDLE}))
    lied = msgspec.structs.replace(application, disclosed=(bytes.fromhex("0e" * 16),))
    with pytest.raises(VerificationError):
        desk.issued(lied, RENEWED | {"shown": {"handle": "0e" * 16}})
    wallets.create(desk / "nobody", PASS, "demo", secrets.token_bytes)
    refused("no_credential", lambda: offered(desk, "nobody"))


def test_only_people_are_renewed(desk: Desk) -> None:
    for kind, key in (("account", "person"), ("person", "account")):
        renews: CredentialKey = desk.key(key)
        taken = None if kind == "person" else desk.key("person")
        with pytest.raises(Refused) as caught:
            issuing.offer(
                desk / kind, PASS, "demo", secrets.token_bytes, person=taken, renews=renews,
                scope=None if kind == "person" else AccountScope("demo", "bureau-1", 1, 2026),
            )  # fmt: skip
        assert caught.value.code == "credential_files.renews"


def test_a_lost_wallet_after_a_renewal(desk: Desk) -> None:
    desk.take(desk.issued(offered(desk), RENEWED))
    lost = desk.wallet()
    (desk / "me").unlink()
    wallets.restore(desk / "me", PASS, "demo", lost.seed, secrets.token_bytes)
    desk.take(desk.issued(desk.applied("person"), PERSON, "4711"))
    desk.take(desk.issued(offered(desk), RENEWED))
    assert desk.wallet().person == lost.person
    desk.take(desk.issued(desk.applied("encounter", bill=bytes.fromhex(BILL)), ENCOUNTER))
    assert desk.wallet().bills == lost.bills


def test_killed_before_the_register_is_written(desk: Desk, cut: Callable[..., Any]) -> None:
    application = offered(desk)
    before = desk.register("person")
    with cut(folder.Folder, "write"):
        desk.issued(application, RENEWED)
    assert desk.register("person") == before
    first = desk.issued(application, RENEWED)
    with cut(wallets.Kept, "save"):
        desk.take(first)
    desk.take(first)
    assert desk.wallet().person is not None


# -------------------------------------------------------------------------------------- versions and tables


def test_a_folder_of_another_version(desk: Desk) -> None:
    with folder.opened(desk / "person", PASS) as kept:
        state = kept.read()
        kept.write(msgspec.structs.replace(state, header=msgspec.structs.replace(state.header, suite=2)))
    with pytest.raises(MedveilError):
        desk.register("person")


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"first_day": "2025-02-30"}, "first_day"),
        ({"first_day": None}, "first_day"),
        ({"rates": [700, 800]}, "rates"),
        ({"rates": [700, 800, 1001]}, "rates"),
        ({"weights": 5}, "weights"),
        ({"diagnoses": {"kind": "any", "name": "x"}}, "diagnoses"),
        ({"diagnoses": {"name": "x"}}, "diagnoses"),
        ({"diagnoses": "covered"}, "diagnoses"),
        ({"layer": "1"}, "layer"),
        ({"statutory": 1}, "statutory"),
        ({"deductible": -1}, "deductible"),
        ({"payer": "Bureau 1"}, "payer"),
        ({"more": 1}, "more"),
    ],
)
def test_no_row(desk: Desk, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(DecodeError) as caught:
        policy_table.parse({"rows": [FIRST, FIRST | changes]})
    assert caught.value.code == "credential_files.row" and caught.value.facts == {"row": 2, "field": field}


@pytest.mark.parametrize("said", [{}, {"rows": []}, {"rows": {}}, {"rows": [FIRST], "more": 1}])
def test_no_table(said: dict[str, Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        policy_table.parse(said)
    assert caught.value.facts["row"] == 0


def test_a_row_with_a_diagnosis_and_a_table_that_lets_choose() -> None:
    made = policy_table.parse({"rows": [FIRST | {"diagnoses": {"kind": "covered", "name": "chronic"}}]})
    assert made.rows[0].diagnoses is not None and made.rows[0].diagnoses.name == "chronic"
    with pytest.raises(Refused) as caught:
        policy_table.parse({"rows": [FIRST, FIRST]})
    assert caught.value.code == "policy.ambiguous_rows"


@pytest.mark.parametrize("name", ["no", "two people", "no level", "no active"])
def test_no_contract(desk: Desk, name: str) -> None:
    keys = [desk.key(one) for one in ("person", "account", "encounter")]
    known, levels = [files.read(desk / "active.set", files.SetFile)], {"hospital-1": "3"}
    if name == "no":
        keys = []
    elif name == "two people":
        keys.append(keys[0])
    elif name == "no level":
        levels = {}
    else:
        known = []
    with pytest.raises(Refused) as caught:
        contract.agree(desk / "fresh", "demo", keys, known, levels, policy_table.parse({"rows": [FIRST]}))
    assert caught.value.code == "credential_files.terms"
    assert not (desk / "fresh").exists()


def test_what_a_wallet_says_of_itself(desk: Desk) -> None:
    assert [one["payer"] for one in updating.accounts(desk.wallet())] == ["bureau-1", "insurer-1"]
    assert updating.payments(desk.wallet()) == []


def test_a_file_is_written_again_as_it_is_and_never_over_another(desk: Desk) -> None:
    made = desk.key("person")
    before = (desk / "person.key").read_bytes()
    files.write(desk / "person.key", made)
    assert (desk / "person.key").read_bytes() == before
    for path in (desk / "account.key", desk / "person"):
        with pytest.raises(Refused) as caught:
            files.write(path, made)
        assert caught.value.code == "client.file_exists"


# ------------------------------------------------------------------------------------------- an issuer's key


def made_again(path: Path, kind: Kind = "person", name: str = "bureau-1", passphrase: str = PASS) -> CredentialKey:
    return issuing.make_issuer(path, passphrase, kind, name, secrets.token_bytes)


def test_a_key_whose_file_was_not_written(desk: Desk) -> None:
    """The folder is whole and the public key was not handed out: the same line again gives it."""
    assert made_again(desk / "person") == desk.key("person")
    before = desk.register("person")
    for changes in ({"kind": "account"}, {"name": "bureau-2"}):
        with pytest.raises(Refused) as caught:
            made_again(desk / "person", **changes)  # type: ignore[arg-type]
        assert caught.value.code == "client.file_exists"
    with pytest.raises(VerificationError):
        made_again(desk / "person", passphrase="another one")
    assert desk.register("person") == before


@pytest.mark.parametrize("module, name", [(folder.FileKeyProvider, "create"), (folder, "write_file")])
def test_a_folder_cut_short(desk: Desk, cut: Callable[..., Any], module: Any, name: str) -> None:
    with cut(module, name):
        made_again(desk / "new")
    (desk / "new" / "secret.part").write_bytes(b"half")
    assert made_again(desk / "new") == made_again(desk / "new")


def test_a_folder_of_something_else(desk: Desk) -> None:
    (desk / "new").mkdir()
    (desk / "new" / "letters.txt").write_text("mine")
    with pytest.raises(Refused) as caught:
        made_again(desk / "new")
    assert caught.value.code == "client.file_exists"
    assert [one.name for one in (desk / "new").iterdir()] == ["letters.txt"]
