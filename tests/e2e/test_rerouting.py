"""`postroom queue reroute` on a running gateway with two relays: each message arrives once, where it was sent to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Served
from tests.e2e.counting_sink import CountingSink
from tests.e2e.crash_room import arrived


@pytest.fixture(scope="module")
def sinks() -> Iterator[tuple[CountingSink, CountingSink]]:
    """Two relays."""
    both = CountingSink(), CountingSink()
    yield both
    for one in both:
        one.stop()


def _send(served: Served, name: str) -> str:
    said = served.run("send", "--from", "a@source.example", "--to", f"{name}@sink.example", "--text", "x", "--json")
    return str(json.loads(said.stdout)["id"])


def test_what_waits_leaves_by_the_other_account_and_what_is_being_sent_stays(
    serve: Callable[..., Served], sinks: tuple[CountingSink, CountingSink]
) -> None:
    first, second = sinks
    served = serve()
    for name, sink in zip(("first", "second"), sinks, strict=True):
        relay = ("--host", "127.0.0.1", "--port", str(sink.port), "--security", "none", "--max-connections", "1")
        served.run("accounts", "add", name, *relay, "--for", "local", "--allow-sender", "*", "--fallback", "none")
    first.hold("DATA")
    held_back = _send(served, "under-way")
    first.wait_for(lambda seen: seen.verbs["DATA"] == 1)
    waiting = {f"waits{n}@sink.example": _send(served, f"waits{n}") for n in range(6)}
    answer = json.loads(served.run("queue", "reroute", "--account", "first", "--to", "second", "--json").stdout)
    moved = answer["moved"]  # but for those that the one connection has claimed already
    assert 1 <= moved < 6
    assert answer["results"][0]["accounts"] == {"second": moved}
    second.wait_for(lambda seen: len(seen.copies) == moved)
    refused = served.run("queue", "reroute", held_back, "--to", "second", check=False)
    assert refused.returncode != 0
    assert "there is nothing to reroute: sending" in refused.stderr
    first.release()
    first.wait_for(lambda seen: len(seen.copies) == 7 - moved)
    at_second = arrived(second.seen.copies)
    assert arrived(first.seen.copies) | at_second == dict.fromkeys([*waiting, "under-way@sink.example"], 1)
    assert served.stop() == 0

    # With no gateway running the command does the same in process.
    served = serve(data=served.data, POSTROOM_SENDING_ENABLED="off")
    last = _send(served, "last")
    assert served.stop() == 0
    answer = json.loads(served.run("queue", "reroute", last, "--to", "second", "--json").stdout)
    assert (answer["moved"], answer["results"][0]["accounts"]) == (1, {"second": 1})
    served = serve(data=served.data)
    second.wait_for(lambda seen: arrived(seen.copies) == at_second | {"last@sink.example": 1})
    assert sum(arrived(first.seen.copies).values()) == 7 - moved
    ended = json.loads(served.run("queue", "list", "--json").stdout)["deliveries"]
    assert {row["recipient"] for row in ended if row["account"] == "second"} == {*at_second, "last@sink.example"}
    assert served.stop() == 0
