"""The time of day jumps under a running gateway, or between two: mail goes on, and nothing ends or goes because of it.

A jump ahead makes everything seem old. Postroom doubts it for a day (`queue/clock_watch.py`): what waits is sent as
ever, and neither expires nor is removed meanwhile. A jump back makes everything seem far in the future.

Time passes here only while the gateway is at rest: it would run out for whatever is under way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.attackers import queued_as
from tests.e2e.faults import Room, Shim, counting_relay, standing_room
from tests.e2e.scripted_relay import Script, Talk, within

#: A second try comes after half an hour; a look at the clocks each minute.
SETTINGS: dict[str, Any] = {"POSTROOM_RETRY_SCHEDULE": "30m"}
UNTIL_DUE = 40 * 60
UNTIL_MAINTAINED = 61

DAY = 86_400
TEN_YEARS = 3653 * DAY
JUMPS = pytest.mark.parametrize(
    "jump", [DAY, TEN_YEARS, -DAY, -TEN_YEARS], ids=["a day ahead", "ten years ahead", "a day back", "ten years back"]
)


def puts_off(times: dict[str, int]) -> Script:
    """A relay that refuses each of these recipients so often, for now."""

    async def script(talk: Talk) -> None:
        await talk.normally("RCPT")
        while (command := talk.relay.commands[-1]).startswith("RCPT"):
            address = within(command)
            name = address.partition("@")[0]
            if times.get(name, 0) > 0:
                times[name] -= 1
                await talk.say(b"451 4.2.1 try later\r\n")
            else:
                talk.accept(address)
                await talk.say(b"250 2.1.5 ok\r\n")
            await talk.go_on("RCPT")

    return script


def states(room: Room) -> dict[str, str]:
    """The state of each delivery, by its recipient's name."""
    return {row["recipient"].partition("@")[0]: row["state"] for row in room.api.deliveries()}


def jumps(room: Room, shim: Shim, by: int) -> None:
    """The time of day jumps, and the gateway has seen it and looked after its queue."""
    before = len(room.log('"clock_followed"'))
    shim.step(by)
    shim.pass_time(UNTIL_MAINTAINED)
    room.until(lambda: len(room.log('"clock_followed"')) > before)


def second_try_comes(room: Room, shim: Shim, name: str, *, at_once: bool) -> None:
    """The message that was put off is delivered: at once, or when half an hour has passed and not before."""
    if not at_once:
        assert states(room)[name] == "deferred"
        shim.pass_time(UNTIL_DUE)
    room.until(lambda: states(room)[name] == "delivered")


@JUMPS
def test_mail_goes_on_when_the_time_of_day_jumps_and_jumps_back(shim: Shim, tmp_path: Path, jump: int) -> None:
    script = puts_off({"waits": 1, "later": 1})
    with standing_room(tmp_path / "data", script, **SETTINGS, **shim.environment) as room:
        ids = [queued_as(room.submit("done")), queued_as(room.submit("waits"))]
        room.until(lambda: states(room) == {"done": "delivered", "waits": "deferred"})

        jumps(room, shim, jump)
        second_try_comes(room, shim, "waits", at_once=jump > 0)
        assert states(room)["done"] == "delivered"  # neither it nor its record is gone
        ids += [queued_as(room.submit(f"then{n}")) for n in range(5)] + [queued_as(room.submit("later"))]
        room.until(lambda: sorted(states(room).values()) == ["deferred"] + ["delivered"] * 7)

        jumps(room, shim, -jump)
        second_try_comes(room, shim, "later", at_once=jump < 0)
        ids += [queued_as(room.submit(f"back{n}")) for n in range(5)]
        room.until(lambda: list(states(room).values()) == ["delivered"] * 13)
        assert ids == sorted(set(ids)), "two messages have one id, or the newer seems older"
        assert [room.api.ask("GET", f"messages/{one}")["id"] for one in ids] == ids
        room.keeps_its_word()


@JUMPS
def test_mail_goes_on_when_the_clock_was_set_between_two_starts(shim: Shim, tmp_path: Path, jump: int) -> None:
    settings = SETTINGS | shim.environment
    with counting_relay(puts_off({"waits": 1, "later": 1})) as relay:
        with standing_room(tmp_path / "data", relay=relay, **settings) as room:
            room.submit("done")
            room.submit("waits")
            room.until(lambda: states(room) == {"done": "delivered", "waits": "deferred"})
            assert room.served.stop() == 0
        shim.step(jump)
        with standing_room(tmp_path / "data", relay=relay, **settings) as again:
            again.acknowledged = room.acknowledged
            if jump < 0:
                again.until_logged('"clock_followed"')
            second_try_comes(again, shim, "waits", at_once=jump > 0)
            again.submit("later")
            again.until(lambda: states(again) == {"done": "delivered", "waits": "delivered", "later": "deferred"})
            assert again.served.stop() == 0
        with standing_room(tmp_path / "data", relay=relay, **settings) as third:  # the clock is as it was
            third.acknowledged = again.acknowledged
            second_try_comes(third, shim, "later", at_once=False)
            assert third.log('"clock_jumped"') == []
            third.serves_others("after")
            third.keeps_its_word()
            assert states(third) == dict.fromkeys(("done", "waits", "later", "after"), "delivered")


def test_a_clock_that_stays_ahead_is_believed_after_a_day(shim: Shim, tmp_path: Path) -> None:
    with standing_room(tmp_path / "data", puts_off({"waits": 9}), **SETTINGS, **shim.environment) as room:
        room.submit("done")
        room.submit("waits")
        room.until(lambda: states(room) == {"done": "delivered", "waits": "deferred"})
        jumps(room, shim, TEN_YEARS)
        room.until(lambda: {row["tries"] for row in room.api.deliveries()} == {1, 2})
        assert states(room) == {"done": "delivered", "waits": "deferred"}
        shim.pass_time(DAY)
        room.until_logged('"clock_believed"')
        room.until(lambda: states(room).get("waits") == "expired" and "done" not in states(room))
