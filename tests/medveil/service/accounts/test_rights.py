"""The table of rights: every line is meant, and who lacks a right is told who has it."""

from __future__ import annotations

import pytest

from medveil.service.accounts.rights import NOBODY, RIGHTS, ROLES, Principal, check, check_roles, rights_of, who_has
from wire.errors import Refused

CHANGES = ("issue", "revoke", "ask", "load", "register", "vote", "erase", "manage", "serve", "answer", "cancel")


def _person(*roles: str) -> Principal:
    return Principal("person", "ada", frozenset(roles), rights_of(roles))


@pytest.mark.parametrize("right", sorted(RIGHTS))
@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_what_the_table_says_and_a_refusal_names_right_and_roles(role: str, right: str) -> None:
    if role in RIGHTS[right].roles:
        check(_person(role), right)
        return
    with pytest.raises(Refused) as raised:
        check(_person(role), right)
    assert raised.value.code == "rights.not_yours"
    assert right in raised.value.message and all(name in raised.value.fix for name in who_has(right))


def test_every_right_names_known_roles_and_at_least_one() -> None:
    assert all(right.roles and right.roles <= set(ROLES) for right in RIGHTS.values())
    assert all(who_has(name) for name in RIGHTS)


def test_an_auditor_changes_nothing_and_an_admin_touches_no_data() -> None:
    own = {"account.own", "tokens.own"}
    assert not [right for right in rights_of({"auditor"}) - own if right.split(".")[1] in CHANGES]
    data = ("grants.", "queries.", "eligibility.", "scores.", "bills.", "extracts.", "records.", "datasets.", "audit.")
    assert not [right for right in rights_of({"admin"}) if right.startswith(data)]


def test_nobody_has_nothing_and_no_program_makes_accounts_or_tokens() -> None:
    for right in RIGHTS:
        with pytest.raises(Refused):
            check(NOBODY, right)
    programs = rights_of(ROLES, programs=True)
    assert not programs & {"people.manage", "tokens.own", "tokens.revoke", "account.own", "members.vote"}
    assert "queries.ask" in programs


def test_whoever_has_not_set_up_codes_is_told_so() -> None:
    with pytest.raises(Refused) as raised:
        check(
            Principal("person", "ada", frozenset({"officer"}), frozenset({"account.own"}), enrolling=True),
            "grants.issue",
        )
    assert raised.value.code == "rights.enrol_first"


def test_a_right_that_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no right"):
        check(_person("officer"), "grants.isue")


@pytest.mark.parametrize("roles", [[], ["officer", "root"], ["Officer"]])
def test_unknown_roles_are_refused(roles: list[str]) -> None:
    with pytest.raises(Refused):
        check_roles(roles)
