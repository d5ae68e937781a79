"""What `explain` says of a message: its account, what is rewritten, limits, who takes over, why no other account."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from postroom.errors import InvalidInput
from postroom.model.account import Account, AccountKind, Dkim, Sender
from postroom.model.application import Application
from postroom.model.circuit import Circuit, Health
from postroom.model.limits import Limits
from postroom.policy.routing import RoutingTable
from postroom.queue.route_explained import RouteExplanation, explain_route, questions

ERP = Application(id=1, name="erp", senders=("*@example.org",), address="erp@example.org")


def relay(number: int, **fields: Any) -> Account:
    """An account."""
    return Account(id=number, name=f"r{number}", kind=AccountKind.SMTP, host="r.example", **fields)


def explained(
    *accounts: Account, sender: str = "a@example.org", named: str = "", postmaster: str = "", **circuits: Circuit
) -> RouteExplanation:
    """The explanation for one recipient, b@example.net."""
    (question,) = questions(ERP, sender, ["b@example.net"], [], named)
    return explain_route(
        question, RoutingTable(accounts), lambda account: circuits.get(account.name, Circuit()), postmaster
    )


def test_the_account_and_why_no_other() -> None:
    told = explained(relay(1, recipient_patterns=("*@example.com",)), relay(2), relay(3))
    assert (told.account, told.reason) == ("r2", "it is the topmost match")
    assert [(over.account, over.reason) for over in told.passed_over] == [
        ("r1", "its recipient patterns do not cover <b@example.net>"),
        ("r3", "it matches as well, and stands below"),
    ]
    assert told.takes_over == "r3"


def test_each_rewrite_and_each_limit() -> None:
    limits = Limits(messages_per_day=100, messages_per_second=2)
    told = explained(relay(1, sender=Sender(fixed="robot@example.org"), limits=limits, quota_group="ses"))
    assert [(change.field, change.before, change.after) for change in told.rewrites] == [
        ("reverse-path", "a@example.org", "robot@example.org"),
        ("From", "a@example.org", "robot@example.org"),
    ]
    assert told.limits == ("2 messages a second", "100 messages a day", "shared in quota group ses")
    forced = explained(relay(1), postmaster="pm@example.org")
    assert {change.after for change in forced.rewrites} == {"pm@example.org"}


def test_with_what_it_is_signed() -> None:
    dkim = Dkim(domain="example.org", selector="s1", rsa_key="key", ed25519_key="key", ed25519_selector="s2")
    told = explained(relay(1, dkim=dkim))
    assert [(one.domain, one.selector, one.algorithm) for one in told.signatures] == [
        ("example.org", "s1", "rsa-sha256"),
        ("example.org", "s2", "ed25519-sha256"),
    ]
    assert explained(relay(1)).signatures == ()


def test_an_account_that_cannot_send_now_and_who_takes_over() -> None:
    asleep = Circuit(health=Health.SLEEPING, reason="connection refused")
    told = explained(relay(1), relay(2, enabled=False), relay(3), r1=asleep)
    assert (told.account, told.waits, told.takes_over) == ("r1", "sleeping: connection refused", "r3")
    named = explained(relay(1), relay(3), named="R1", r1=asleep)
    assert (named.account, named.reason, named.takes_over) == ("r1", "the message names it", "")


def test_why_it_is_refused() -> None:
    told = explained(relay(1), sender="boss@example.com")
    assert (told.account, told.passed_over) == ("", ())
    assert "may not send as <boss@example.com>" in told.reason
    told = explained(relay(1, recipient_patterns=("*@example.com",)))
    assert told.account == ""
    assert "no account takes mail" in told.reason
    assert [over.account for over in told.passed_over] == ["r1"]
    off = dataclasses.replace(ERP, enabled=False)
    (question,) = questions(off, "", ["b@example.net"], [], "")
    assert "switched off" in explain_route(question, RoutingTable([relay(1)]), lambda _: Circuit(), "").reason


def test_without_a_sender_it_is_the_applications_own() -> None:
    (question,) = questions(ERP, "", ["b@example.net"], ["Sensitivity: Private"], "")
    assert question.sender == "erp@example.org"
    assert question.head == b"From: erp@example.org\r\nSensitivity: Private\r\n\r\n"


def test_what_cannot_be_read_is_refused_whole() -> None:
    with pytest.raises(InvalidInput) as refused:
        questions(ERP, "nobody", ["b@example.net", "@"], ["no field", "X: a\nBcc: b@c.example"], "")
    assert [fault.field for fault in refused.value.faults] == ["sender", "recipients", "header", "header"]
