"""Who a composed message is from, and where its answers go."""

from __future__ import annotations

from typing import Any

import pytest

from postroom.errors import InvalidInput
from postroom.mime.address import Mailbox
from postroom.model.account import Account, AccountKind, Sender
from postroom.model.application import Application
from postroom.policy.composing import ComposedSender, Composing, composed_sender
from postroom.policy.routing import RoutingTable

ANN = Mailbox("ann@x.test", "Ann")
SHOP = Application(id=1, name="shop", address="shop@x.test")
NOBODY = Application(id=2, name="nobody")
INFO = Mailbox("info@x.test", "Info of X")


def account(**fields: Any) -> Account:
    return Account(id=1, name="relay", kind=AccountKind.SMTP, sender=Sender(**fields))


def composed(
    own: Mailbox | None,
    reply_to: tuple[Mailbox, ...],
    application: Application,
    through: Account,
    postmaster: str,
) -> ComposedSender:
    return composed_sender(Composing(application, "b@y.test", own, reply_to), RoutingTable([through]), postmaster)


FULL = account(full_name="Info of X", address="info@x.test")


@pytest.mark.parametrize(
    ("own", "application", "through", "postmaster", "sender"),
    [
        (ANN, SHOP, FULL, "", ANN),
        (None, SHOP, FULL, "", Mailbox("shop@x.test")),
        (None, NOBODY, FULL, "", INFO),
        (None, NOBODY, FULL, "post@x.test", INFO),
        (None, NOBODY, account(), "post@x.test", Mailbox("post@x.test")),
    ],
)
def test_the_sender_is_the_first_that_there_is(
    own: Mailbox | None, application: Application, through: Account, postmaster: str, sender: Mailbox
) -> None:
    assert composed(own, (), application, through, postmaster).sender == sender


def test_without_any_it_is_refused_with_what_would_help() -> None:
    with pytest.raises(InvalidInput, match="from: there is no sender .*application nobody.*account relay"):
        composed(None, (), NOBODY, account(), "")


@pytest.mark.parametrize(
    ("own", "through", "reply_to"),
    [
        (ANN, FULL, (INFO,)),
        (None, FULL, ()),
        (Mailbox("INFO@x.test"), FULL, ()),
        (ANN, account(), ()),
        (ANN, account(address="info@x.test", reply_address="help@x.test"), (Mailbox("help@x.test"),)),
        (None, account(address="info@x.test", reply_address="help@x.test"), (Mailbox("help@x.test"),)),
        (Mailbox("help@x.test"), account(reply_address="help@x.test"), ()),
    ],
)
def test_answers_go_to_the_reply_address_else_to_the_account(
    own: Mailbox | None, through: Account, reply_to: tuple[Mailbox, ...]
) -> None:
    assert composed(own, (), NOBODY, through, "").reply_to == reply_to


def test_a_reply_to_of_its_own_stays() -> None:
    assert composed(ANN, (ANN,), NOBODY, FULL, "").reply_to == (ANN,)


def test_it_is_routed_first_by_recipient_and_sender() -> None:
    first = Account(
        id=1, name="first", kind=AccountKind.SMTP, sender=Sender(address="one@x.test"), sender_patterns=("shop@x.test",)
    )
    second = Account(
        id=2,
        name="second",
        kind=AccountKind.SMTP,
        sender=Sender(address="two@x.test"),
        recipient_patterns=("*@y.test",),
    )
    third = Account(id=3, name="third", kind=AccountKind.SMTP, sender=Sender(address="three@x.test"))
    routes = RoutingTable([first, second, third])
    found = [
        composed_sender(one, routes, "").sender.address
        for one in (
            Composing(NOBODY, "b@y.test"), Composing(NOBODY, "b@z.test"), Composing(NOBODY, "b@y.test", account="third")
        )
    ]  # fmt: skip
    assert found == ["two@x.test", "three@x.test", "three@x.test"]
    assert composed_sender(Composing(SHOP, "b@y.test"), routes, "").reply_to == (Mailbox("one@x.test"),)
