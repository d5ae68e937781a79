"""The hostile relay of `make bench PART=hostile`: good until its stage; then it does what its name says, and counts."""

from __future__ import annotations

import asyncio
import json
import smtplib
from collections.abc import Callable

import pytest

from bench import hostile, page
from bench.hostile_relay import STAGES, Seen, cells, listen
from tests.flow.smtp_client.talk import Line

PATIENCE = 60.0
LETTER = "Subject: x\r\n\r\ntext\r\n"


async def said(attack: str, stage: str, work: Callable[[int], object]) -> tuple[object, Seen]:
    """What `work` comes to with the port of that attack, and what the port saw."""
    seen = Seen()
    server, port = await listen(attack, stage, seen, set())
    try:
        return await asyncio.to_thread(work, port), seen
    finally:
        server.close()


def letter(port: int) -> object:
    """One message by a program of others: what it was answered."""
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.login("erp", "secret")
        try:
            return client.sendmail("s@x.test", ["a@y.test"], LETTER)
        except smtplib.SMTPRecipientsRefused as refused:
            return refused.recipients["a@y.test"][0]


async def test_the_honest_one_takes_a_message_and_one_refuses_each_recipient() -> None:
    answer, seen = await said("honest", "MAIL", letter)
    assert (answer, seen.connections, seen.logins, seen.envelopes) == ({}, 1, 1, 1)
    assert seen.octets == seen.most > 100
    answer, seen = await said("354 after refusals", "RCPT", letter)
    assert (answer, seen.envelopes) == (450, 1)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_close_comes_at_its_stage(stage: str) -> None:
    seen = Seen()
    server, port = await listen("close", stage, seen, set())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    line = Line(reader, writer)
    commands = {"EHLO": "EHLO x", "AUTH": "AUTH PLAIN AGEAYg==", "MAIL": "MAIL FROM:<>", "RCPT": "RCPT TO:<a@y.test>"}
    for step in STAGES[: STAGES.index(stage)]:
        if step != "greeting":
            line.say(commands.get(step, step))
        while (await line.line())[3:4] == b"-":
            pass
    if stage != "greeting":
        line.say("." if stage == "end of data" else commands.get(stage, stage))
    assert await line.end() == b""
    assert (seen.connections, seen.logins) == (1, STAGES.index(stage) >= STAGES.index("AUTH"))
    writer.close()
    server.close()


def test_a_slowed_account_and_a_grown_memory_miss_their_goals() -> None:
    counts = {f"{attack} at {stage}": vars(Seen(connections=1, octets=2048, most=1024)) for attack, stage in cells()}

    def found(beside: float, grown: float) -> hostile.Found:
        one = hostile.Found(ratios={"MAIL": [beside / 100] * 3}, alone=[100.0] * 3, beside=[beside] * 3)
        for name in ("cpu_alone", "cpu_beside", "late_alone", "late_beside", "grown_alone"):
            setattr(one, name, [1.0] * 3)
        one.grown_beside = [grown] * 3
        return one

    measured = {"close": found(96, 1), "reset": found(94, 1), "flood": found(99, 17)}
    measured |= {"354 after refusals": found(60, 1), "honest": found(60, 1)}
    rows = hostile.rows(measured, json.loads(json.dumps(counts)))
    verdicts = {row["attack"]: row.get("verdict") for row in rows}
    expected = {"close": "met", "reset": "missed", "flood": "missed", "354 after refusals": None, "honest": None}
    assert verdicts == expected
    together = hostile.whole(measured)
    assert (together["runs"], together["slowed_percent"], together["verdict"]) == (9, 4.0, "met")
    lasting = {"accounts": 1, "seconds": 1.0, "late_alone_ms": 5.0, "late_ms": 5.0, "grown_mib": 0.0, "seen": []}
    where = dict.fromkeys(("date", "cores", "cpu", "file_system", "python", "sqlite", "uvloop"), "x") | {
        "fsync_ms": 1.0
    }
    refusing = {"messages": 9, "refused": 3, "alone": 100.0, "beside": 96.0, "slowed_percent": 4.0, "verdict": "met"}
    figures = {"whole": together, "rows": rows, "refusing": refusing, "lasting": lasting, "rate": 200}
    lines = page.hostile({"surroundings": where} | figures)
    assert [line.rpartition("| ")[2] for line in lines if line.startswith("| reset")] == ["**missed** |"]


def test_runs_that_differ_too_much_tell_nothing() -> None:
    restless = hostile.Found(ratios={"MAIL": [0.7, 0.94, 1.2]})
    steady = hostile.Found(ratios={"MAIL": [0.93, 0.94, 0.95]})
    assert hostile.whole({"close": restless})["verdict"] == "open"
    assert hostile.whole({"close": steady})["verdict"] == "open"
    assert hostile.whole({"close": restless, "reset": steady})["slowed_percent"] == 6.0
    assert hostile.whole({"close": hostile.Found(ratios={"MAIL": [0.80, 0.81, 0.82]})})["verdict"] == "missed"
