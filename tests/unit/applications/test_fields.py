"""The fields of an application that are more than a name and a switch."""

from __future__ import annotations

import pytest

from postroom.applications.fields import APPLICATION_FIELDS, parse_application, show_application
from postroom.applications.unbuilt import UNBUILT, refusal
from postroom.errors import InvalidInput
from postroom.model.application import HeaderDoor
from postroom.model.limits import Day


@pytest.mark.parametrize(
    ("field", "value", "fault", "mend"),
    [
        ("address", "shop", "is not an address", "shop@example.org"),
        ("header_doors", "colour", "is not one of them", "account, template, send-at"),
        ("may_connect_to", "10.0.0.1/8", "is neither a network nor a name", "did you mean 10.0.0.0/8?"),
        ("may_connect_to", "http://x", "is neither a network nor a name", "*.example.org"),
        ("messages_per_hour", "-1", "out of range", "or none"),
        ("repeat_guard", "1", "out of range", "from 2"),
        ("repeat_guard_within", "60", "60 has no unit", "60s"),
        ("day_zone", "Europe/Berlin", "has no use as things stand", "set day to calendar"),
        ("owner", "a b", "can't be a name", "1 to 64"),
    ],
)
def test_bad_values(field: str, value: object, fault: str, mend: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_application({"name": "shop", field: value})
    (found,) = refused.value.faults
    assert (found.field, fault in found.fault, mend in found.mend) == (field, True, True)


def test_what_is_shown_reads_back() -> None:
    fields = {
        "name": "shop", "owner": "ann", "address": "shop@x.test", "urgent": True, "apply_suppressions": True,
        "header_doors": "X-Postroom-Tag, send-at", "may_connect_to": "10.0.0.0/8, Relay.example.org",
        "messages_per_hour": 5, "day": "calendar", "day_zone": "Europe/Berlin", "repeat_guard": 3,
    }  # fmt: skip
    application = parse_application(fields)
    assert application.header_doors == (HeaderDoor.TAG, HeaderDoor.SEND_AT)
    assert application.may_connect_to == ("10.0.0.0/8", "relay.example.org")
    assert (application.limits.messages_per_hour, application.limits.day) == (5, Day.CALENDAR)
    shown = {name: value for name, value in show_application(application).items() if name in APPLICATION_FIELDS}
    assert parse_application(shown) == application
    assert parse_application({"day": "rolling"}, application).limits.day_zone == "UTC"
    assert parse_application({"repeat_guard": None}, application).repeat_guard.count is None


def test_what_is_not_obeyed_is_told_and_rights_are_not() -> None:
    assert refusal(parse_application({"name": "shop", "urgent": True, "dynamic": True, "address": "a@x.test"})) == ""
    reason = refusal(parse_application({"name": "shop", "owner": "ann", "header_doors": "tag, send-at"}))
    assert "owner, header_doors" in reason
    assert "applications edit shop --reset owner" in reason
    assert refusal(parse_application({"name": "shop", "header_doors": "tag, account, priority"})) == ""
    assert set(UNBUILT) <= set(APPLICATION_FIELDS)
