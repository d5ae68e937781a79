"""With the staging guard on, a relay never hears of a recipient that is not listed, whatever happens to the gateway."""

from __future__ import annotations

import json
import smtplib
from collections.abc import Callable

from tests.conftest import Served
from tests.e2e.counting_sink import PATIENCE, CountingSink
from tests.e2e.crash_room import SENDER, begin, letter

INBOX = "inbox@staging.example"


def submit(served: Served, name: str, *recipients: str) -> None:
    with smtplib.SMTP("127.0.0.1", served.port, timeout=PATIENCE) as client:
        client.ehlo("client.example")
        begin(client, *recipients)
        assert client.data(letter(name, b"text\r\n"))[0] == 250


def deliveries(served: Served) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(served.run("queue", "list", "--limit", "1000", "--json").stdout)[
        "deliveries"
    ]
    return found


def test_nothing_reaches_who_is_not_listed_over_a_kill(
    start: Callable[..., Served], counting_sink: CountingSink
) -> None:
    served = start()
    served.run("settings", "set", "sending_enabled", "off")
    for n in range(8):
        submit(served, f"old{n}", f"real{n}@customer.example", f"qa{n}@test.example", f"other{n}@customer.example")
    served.run("settings", "set", "staging_guard.only_to", "test.example")
    refused = served.run("settings", "set", "staging_guard.enabled", "on", check=False)
    assert refused.returncode != 0
    assert "staging_guard.enabled: is on and there is no redirect_to" in refused.stderr + refused.stdout
    served.run("settings", "set", "staging_guard.redirect_to", INBOX)
    served.run("settings", "set", "staging_guard.enabled", "on")
    assert f"goes to {INBOX}" in served.run("status").stdout
    counting_sink.hold("DATA", 5)
    served.run("settings", "set", "sending_enabled", "on")
    counting_sink.wait_for(lambda seen: seen.verbs["DATA"] >= 5)
    served.kill()
    counting_sink.release()

    served = start(data=served.data)
    names = [f"old{n}" for n in range(8)]
    for n in range(8):
        submit(served, f"new{n}", f"real{n}@customer.example", f"gone{n}@test.example")
        names.append(f"new{n}")
    counting_sink.wait_for(lambda seen: all(seen.copies[name, INBOX] for name in names))
    counting_sink.wait_for(lambda seen: seen.copies["None", INBOX] == 8)  # the reports on those who are gone
    while any(row["state"] in ("queued", "sending", "deferred") for row in deliveries(served)):
        served.run("events", "--limit", "1")
    copies = counting_sink.seen.copies
    assert {recipient for _, recipient in copies} <= {INBOX, *(f"qa{n}@test.example" for n in range(8))}
    marked = {row["recipient"] for row in deliveries(served) if row["may_be_sent_twice"]}
    for n in range(8):
        name = f"old{n}"
        assert copies[name, f"qa{n}@test.example"] in ((1, 2) if f"qa{n}@test.example" in marked else (1,))
        assert copies[name, INBOX] in ((1, 2) if f"real{n}@customer.example" in marked else (1,))
        assert copies[f"new{n}", INBOX] == 1
    reports = 0
    for _, one in counting_sink.seen.contents:
        was_for = one["X-Postroom-Original-To"]
        assert str(one["Subject"]).startswith("[STAGING] ") == (was_for is not None), one.as_string()
        reports += was_for == SENDER
    assert reports == 8
    newest = next(row for row in deliveries(served) if row["recipient"] == "real7@customer.example")
    assert f"the staging guard redirected it to {INBOX}" in served.run("why", newest["message_id"]).stdout
    shown = json.loads(served.run("queue", "show", newest["message_id"], "--json").stdout)
    assert {one["sent_to"] for one in shown["attempts"] if one["n"] == newest["n"]} == {INBOX}
    explained = served.run("explain", "--from", SENDER, "--to", "x@customer.example", "--to", "qa@test.example").stdout
    assert explained.count("redirected to") == 1
    assert served.stop() == 0


def test_a_guard_that_a_file_gives_is_locked(start: Callable[..., Served]) -> None:
    served = start(
        POSTROOM_STAGING_GUARD__ENABLED="true",
        POSTROOM_STAGING_GUARD__REDIRECT_TO=INBOX,
        POSTROOM_STAGING_GUARD__ONLY_TO="test.example",
    )
    refused = served.run("settings", "set", "staging_guard.enabled", "off", check=False)
    assert refused.returncode != 0
    assert "staging_guard.enabled: is locked" in refused.stderr + refused.stdout
    assert served.stop() == 0


def test_nothing_leaves_where_the_stored_guard_can_not_be_obeyed(
    start: Callable[..., Served], counting_sink: CountingSink
) -> None:
    served = start()
    served.run("settings", "set", "staging_guard.redirect_to", INBOX)
    served.run("settings", "set", "staging_guard.enabled", "on")
    assert served.stop() == 0
    served = start(data=served.data, POSTROOM_STAGING_GUARD__REDIRECT_TO="")
    submit(served, "kept", "real@customer.example")
    (row,) = deliveries(served)
    assert "staging guard does not count" in served.run("why", row["message_id"]).stdout
    assert "nothing leaves" in served.run("status").stdout
    assert served.stop() == 0
    served = start(data=served.data)
    counting_sink.wait_for(lambda seen: seen.copies["kept", INBOX] == 1)
    assert {recipient for _, recipient in counting_sink.seen.copies} == {INBOX}
    assert served.stop() == 0
