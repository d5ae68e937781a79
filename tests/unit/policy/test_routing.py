"""Routing: the topmost account that may be used and whose patterns cover sender and recipient."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import Refused
from postroom.model.account import Account, AccountKind
from postroom.model.application import Application
from postroom.policy.patterns import matches
from postroom.policy.routing import RoutingTable, passed_over

RELAY = Account(id=1, name="relay", kind=AccountKind.SMTP, host="relay.example")
BACKUP = Account(id=2, name="Backup", kind=AccountKind.SMTP, host="backup.example", enabled=False)
SANDBOX = Account(id=3, name="sandbox", kind=AccountKind.SANDBOX)
ALL = (RELAY, BACKUP, SANDBOX)
FROM = ("a@x.example",)
TO = "b@y.example"


def application(*accounts: str) -> Application:
    """An application that was given `accounts`."""
    return Application(id=1, name="erp", accounts=accounts)


def route(accounts: Sequence[Account], who: Application, named: str = "") -> Account:
    """The account for a message from FROM to TO."""
    return RoutingTable(accounts).route(who, FROM, TO, named)


def relay(number: int, **fields: object) -> Account:
    """A relay, with patterns."""
    return Account(id=number, name=f"r{number}", kind=AccountKind.SMTP, host="relay.example", **fields)  # type: ignore[arg-type]


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


def test_a_named_account_is_used_whatever_its_patterns() -> None:
    narrow = relay(7, recipient_patterns=("nobody@nowhere.example",))
    assert route((RELAY, narrow), application("*"), "r7") is narrow


def test_with_no_match_the_message_is_refused_and_the_reason_names_the_application() -> None:
    with pytest.raises(Refused, match="'erp'"):
        route(ALL, application("gone"))


def test_with_no_pattern_that_covers_the_reason_names_sender_and_recipient() -> None:
    with pytest.raises(Refused, match=r"<a@x\.example> to <b@y\.example>"):
        route([relay(1, recipient_patterns=("*@z.example",))], application("*"))


def test_sender_patterns_cover_the_reverse_path_or_from() -> None:
    table = RoutingTable([relay(1, sender_patterns=("*@shop.example",)), relay(2)])
    one, two = table.accounts
    assert table.route(application("*"), ("bounce@x.example", "sales@shop.example"), TO) is one
    assert table.route(application("*"), ("sales@SHOP.example",), TO) is one
    assert table.route(application("*"), ("",), TO) is two


def test_who_may_take_over_are_the_matches_below_and_never_a_sandbox() -> None:
    accounts = (relay(1), relay(2, recipient_patterns=("*@elsewhere.example",)), SANDBOX, relay(4), relay(5))
    table = RoutingTable(accounts)
    names = [account.name for account in table.next_matches(application("*"), FROM, TO, after=1)]
    assert names == ["r4", "r5"]
    assert [account.name for account in table.next_matches(application("r1", "r5"), FROM, TO, after=1)] == ["r5"]
    assert list(table.next_matches(application("*"), FROM, TO, after=5)) == []
    assert list(table.next_matches(application("*"), FROM, TO, after=1, named="r1")) == []


def test_why_an_account_was_passed_over_is_told() -> None:
    over = passed_over(RELAY, application("kind:sandbox"), FROM, TO)
    assert over is not None
    assert "may not use it" in over.reason
    assert passed_over(SANDBOX, application("kind:sandbox"), FROM, TO) is None
    over = passed_over(relay(1, recipient_patterns=("*@z.example",)), application("*"), FROM, TO)
    assert over is not None
    assert "recipient patterns do not cover <b@y.example>" in over.reason
    over = passed_over(relay(1, sender_patterns=("*@z.example",)), application("*"), FROM, TO)
    assert over is not None
    assert "sender patterns do not cover <a@x.example>" in over.reason


# Against a plain model -------------------------------------------------------------------------------------------

_DOMAINS = st.sampled_from(["x.example", "a.x.example", "b.a.x.example", "y.example", "example", "ax.example"])
_LOCALS = st.sampled_from(["a", "b", "c"])
_ADDRESSES = st.builds("{}@{}".format, _LOCALS, _DOMAINS)
_PATTERNS = st.one_of(
    st.just("*"), _ADDRESSES, st.builds("*@{}".format, _DOMAINS), st.builds("*@*.{}".format, _DOMAINS)
)
_LISTS = st.lists(_PATTERNS, max_size=3).map(tuple)
_ACCOUNTS = st.lists(st.tuples(_LISTS, _LISTS, st.booleans()), max_size=6).map(
    lambda rows: [
        Account(
            id=n + 1,
            name=f"r{n + 1}",
            kind=AccountKind.SANDBOX if sandbox else AccountKind.SMTP,
            sender_patterns=senders,
            recipient_patterns=recipients,
        )
        for n, (senders, recipients, sandbox) in enumerate(rows)
    ]
)
_GRANTS = st.one_of(
    st.just(("*",)), st.lists(st.sampled_from(["r1", "r2", "r4", "kind:sandbox"]), max_size=3).map(tuple)
)


def _model(accounts: Sequence[Account], granted: tuple[str, ...], senders: Sequence[str], to: str) -> list[str]:
    """The names of all matches in order, read off the SPEC."""
    found = []
    for account in accounts:
        is_granted = "*" in granted or account.name in granted
        is_granted = is_granted or ("kind:sandbox" in granted and account.kind is AccountKind.SANDBOX)
        takes_from = not account.sender_patterns or any(matches(p, s) for p in account.sender_patterns for s in senders)
        takes_to = not account.recipient_patterns or any(matches(p, to) for p in account.recipient_patterns)
        if is_granted and takes_from and takes_to:
            found.append(account.name)
    return found


@given(_ACCOUNTS, _GRANTS, st.lists(_ADDRESSES | st.just(""), min_size=1, max_size=2), _ADDRESSES)
def test_the_table_answers_as_the_plain_model(
    accounts: list[Account], granted: tuple[str, ...], senders: list[str], to: str
) -> None:
    table, who, model = RoutingTable(accounts), application(*granted), _model(accounts, granted, senders, to)
    if not model:
        with pytest.raises(Refused):
            table.route(who, senders, to)
        return
    chosen = table.route(who, senders, to)
    assert chosen.name == model[0]
    below = [name for name in model[1:] if not _is_sandbox(accounts, name)]
    assert [account.name for account in table.next_matches(who, senders, to, after=chosen.id)] == below


@given(_ACCOUNTS, _GRANTS, st.lists(_ADDRESSES | st.just(""), min_size=1, max_size=2), _ADDRESSES)
def test_an_account_is_passed_over_with_a_reason_exactly_when_it_does_not_match(
    accounts: list[Account], granted: tuple[str, ...], senders: list[str], to: str
) -> None:
    who = application(*granted)
    matching = [account.name for account in accounts if passed_over(account, who, senders, to) is None]
    assert matching == _model(accounts, granted, senders, to)


def _is_sandbox(accounts: Sequence[Account], name: str) -> bool:
    return next(account for account in accounts if account.name == name).kind is AccountKind.SANDBOX
