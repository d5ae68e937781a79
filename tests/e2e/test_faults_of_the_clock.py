"""The time of day jumps under a running gateway, or between two: mail goes on, and nothing ends or goes because of it.

A jump ahead makes everything seem old. Postroom doubts it for a day (`queue/clock_watch.py`): what waits is sent as
ever, and neither expires nor is removed meanwhile. A jump back makes everything seem far in the future.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.attackers import queued_as
from tests.e2e.faults import Room, Shim, counting_relay, standing_room
from tests.e2e.scripted_relay import Script, Talk, within

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


def maintained(room: Room, shim: Shim) -> None:
    """A minute passes, and the gateway has looked after its queue."""
    before = len(room.log('"clock_jumped"'))
    shim.pass_time(61)
    room.until(lambda: len(room.log('"clock_jumped"')) > before)


@JUMPS
def test_mail_goes_on_when_the_time_of_day_jumps_and_jumps_back(shim: Shim, tmp_path: Path, jump: int) -> None:
    script = puts_off({"waits": 1, "later": 1})
    with standing_room(tmp_path / "data", script, **shim.environment) as room:
        ids = [queued_as(room.submit("done")), queued_as(room.submit("waits"))]
        room.until(lambda: states(room) == {"done": "delivered", "waits": "deferred"})

        shim.step(jump)
        maintained(room, shim)
        assert states(room)["done"] == "delivered"  # neither it nor its record is gone
        assert states(room)["waits"] in ("deferred", "sending", "delivered")
        ids += [queued_as(room.submit(f"then{n}")) for n in range(5)] + [queued_as(room.submit("later"))]
        shim.pass_time(90)  # by the schedule the second try comes after a minute
        room.until(lambda: states(room)["waits"] == "delivered")
        room.until(lambda: states(room)["later"] in ("deferred", "delivered"))

        shim.step(-jump)
        maintained(room, shim)
        ids += [queued_as(room.submit(f"back{n}")) for n in range(5)]
        shim.pass_time(90)
        room.until(lambda: set(states(room).values()) == {"delivered"})
        assert ids == sorted(set(ids)), "two messages have one id, or the newer seems older"
        assert [room.api.ask("GET", f"messages/{one}")["id"] for one in ids] == ids
        room.keeps_its_word()


@JUMPS
def test_mail_goes_on_when_the_clock_was_set_between_two_starts(shim: Shim, tmp_path: Path, jump: int) -> None:
    with counting_relay(puts_off({"waits": 1})) as relay:
        with standing_room(tmp_path / "data", relay=relay, **shim.environment) as room:
            room.submit("done")
            room.submit("waits")
            room.until(lambda: states(room) == {"done": "delivered", "waits": "deferred"})
            assert room.served.stop() == 0
        shim.step(jump)
        with standing_room(tmp_path / "data", relay=relay, **shim.environment) as again:
            again.acknowledged = room.acknowledged
            shim.pass_time(61)
            again.until(lambda: states(again) == {"done": "delivered", "waits": "delivered"})
            again.serves_others("after")
            again.keeps_its_word()


def test_a_clock_that_stays_ahead_is_believed_after_a_day(shim: Shim, tmp_path: Path) -> None:
    with standing_room(tmp_path / "data", puts_off({"waits": 9}), **shim.environment) as room:
        room.submit("done")
        room.submit("waits")
        room.until(lambda: states(room) == {"done": "delivered", "waits": "deferred"})
        shim.step(TEN_YEARS)
        maintained(room, shim)
        assert states(room) == {"done": "delivered", "waits": "deferred"}
        shim.pass_time(DAY)
        room.until_logged('"clock_believed"')
        room.until(lambda: states(room).get("waits") == "expired" and "done" not in states(room))
