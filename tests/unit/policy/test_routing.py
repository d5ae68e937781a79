"""Routing by list order and by what the application may use."""

from __future__ import annotations

import pytest

from postroom.errors import Refused
from postroom.model.account import Account, AccountKind
from postroom.model.application import Application
from postroom.policy.routing import passed_over, route

RELAY = Account(id=1, name="relay", kind=AccountKind.SMTP, host="relay.example")
BACKUP = Account(id=2, name="Backup", kind=AccountKind.SMTP, host="backup.example", enabled=False)
SANDBOX = Account(id=3, name="sandbox", kind=AccountKind.SANDBOX)
ALL = (RELAY, BACKUP, SANDBOX)


def application(*accounts: str) -> Application:
    """An application that was given `accounts`."""
    return Application(id=1, name="erp", accounts=accounts)


def test_the_topmost_account_that_the_application_may_use_is_chosen() -> None:
    assert route(ALL, application("*")) is RELAY
    assert route(ALL[::-1], application("*")) is SANDBOX
    assert route(ALL, application("kind:sandbox")) is SANDBOX
    assert route(ALL, application("kind:sandbox", "relay")) is RELAY


def test_a_disabled_account_matches_so_that_its_mail_waits() -> None:
    assert route(ALL, application("Backup", "kind:sandbox")) is BACKUP


def test_a_named_account_is_used_if_it_is_allowed_and_nothing_else_is() -> None:
    assert route(ALL, application("*"), "backup") is BACKUP
    with pytest.raises(Refused, match="'relay'"):
        route(ALL, application("kind:sandbox"), "relay")


def test_with_no_match_the_message_is_refused_and_the_reason_names_the_application() -> None:
    with pytest.raises(Refused, match="'erp'"):
        route(ALL, application("gone"))


def test_why_an_account_was_passed_over_is_told() -> None:
    over = passed_over(RELAY, application("kind:sandbox"))
    assert over is not None
    assert "may not use it" in over.reason
    assert passed_over(SANDBOX, application("kind:sandbox")) is None
