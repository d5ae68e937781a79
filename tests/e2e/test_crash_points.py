"""The process ends itself at each named point; after a restart the relay, which outlives it, has what the row of the
point in docs/reliability.md says: so many copies and no more, marked or not.

CRASH_ROUNDS repeats it (`make soak`), each round with other sizes, numbers, connections, with and without pipelining;
a round's choices come from its number and CRASH_SEED.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postroom.model.content import CHUNK_BYTES
from tests.conftest import Served, run_postroom
from tests.e2e.crash_room import LARGE, ROUNDS, SMALL, Ledger, Room, Shape, begin, body_of, letter, reply_of

pytestmark = pytest.mark.both

# The client's side: A1 to A5. Nothing is sent before the crash, so that what comes can be told to the copy.


def test_a1_what_is_cut_in_its_content_never_comes(room: Room, shape: Shape) -> None:
    served = room.start(f"A1:{shape.chance.randrange(40, 60)}", sending=False)
    assert room.hand_over(served, "before") == 250
    with room.client(served) as client:
        begin(client, "cut@sink.example")
        client.docmd("DATA")
        with pytest.raises(OSError):
            client.send(letter("cut", body_of(100 * CHUNK_BYTES)))  # 60 parts are at most 60 chunks
    room.crashed(served)
    room.ends_with(room.start(), {"before": 1})
    room.collects_orphans()


def test_a2_before_the_commit_there_is_no_reply_and_no_copy(room: Room, shape: Shape) -> None:
    served = room.start(f"A2:{shape.nth}", sending=False)
    before = [f"before{n}" for n in range(shape.nth - 1)]
    assert [room.hand_over(served, name, shape.size_bytes) for name in before] == [250] * len(before)
    assert room.hand_over(served, "victim", shape.size_bytes) is None
    room.crashed(served)
    served = room.start()
    assert room.hand_over(served, "again") == 250
    room.ends_with(served, dict.fromkeys([*before, "again"], 1))


def test_a3_chunks_without_their_message_come_to_nothing(room: Room, shape: Shape) -> None:
    chunks = shape.nth + 1
    served = room.start(f"A3:{chunks}", sending=False)
    with room.client(served) as client:
        begin(client, "victim@sink.example")
        whole = letter("victim", body_of(chunks * CHUNK_BYTES))
        client.send(b"BDAT %d\r\n%b" % (len(whole), whole))  # RFC 3030: all of it, and not yet its end
        reply_of(client)
        assert reply_of(client) is None
    room.crashed(served)
    assert room.query("SELECT count(*) FROM chunk") == [(chunks,)]
    served = room.start()
    assert room.hand_over(served, "again", shape.size_bytes) == 250
    room.ends_with(served, {"again": 1})
    room.collects_orphans()


def test_a3_chunks_of_the_command_without_their_message_come_to_nothing(
    room: Room, shape: Shape, tmp_path: Path
) -> None:
    served = room.start("A3", sending=False)
    file = tmp_path / "victim.eml"
    file.write_bytes(letter("victim", body_of(LARGE)))
    sent = served.run("send", "--raw", str(file), "--to", "victim@sink.example", check=False)
    assert sent.returncode != 0
    assert "postroom:" in sent.stderr
    room.crashed(served)
    assert room.rows() == []
    room.collects_orphans()
    assert room.sink.seen.opened == 0


def test_a4_behind_the_commit_one_copy_comes_without_a_reply(room: Room, shape: Shape) -> None:
    served = room.start(f"A4:{shape.nth}", sending=False)
    before = [f"before{n}" for n in range(shape.nth - 1)]
    assert [room.hand_over(served, name) for name in before] == [250] * len(before)
    assert room.hand_over(served, "victim", shape.size_bytes) is None
    room.crashed(served)
    room.ends_with(room.start(), dict.fromkeys([*before, "victim"], 1))
    assert room.orphans() == 0


def test_a5_what_was_answered_comes_once(room: Room, shape: Shape) -> None:
    served = room.start(f"A5:{shape.nth}", sending=False)
    names = [f"m{n}" for n in range(shape.nth)]
    assert [room.hand_over(served, name, shape.size_bytes) for name in names] == [250] * shape.nth
    room.crashed(served)
    room.ends_with(room.start(), dict.fromkeys(names, 1))


def test_a_point_that_is_none_is_refused_at_start(tmp_path: Path) -> None:
    environment = {**os.environ, "POSTROOM_DATA": str(tmp_path / "data"), "POSTROOM_CRASH_AT": "D44:1"}
    refused = run_postroom(environment, "serve", check=False)
    assert refused.returncode not in (0, 137)
    assert refused.stderr.startswith("POSTROOM_CRASH_AT: 'D44:1' is no point and number, as in D4:2 (points: A1, A2,")
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()


# The relay's side: D1 to D6. The messages before have ended when the one comes that meets the point.


def submit_one_by_one(room: Room, served: Served, shape: Shape) -> list[str]:
    """`nth` messages, each once the one before is done with; the names of those before the last."""
    before = [f"before{n}" for n in range(shape.nth - 1)]
    for n, name in enumerate(before):
        assert room.hand_over(served, name) == 250
        while room.query("SELECT count(*) FROM delivery WHERE state = 'delivered'") != [(n + 1,)]:
            assert served.process.poll() is None
    assert room.hand_over(served, "victim", shape.size_bytes) == 250
    return before


def test_d1_behind_a_claim_it_comes_once_and_marked(room: Room, shape: Shape) -> None:
    served = room.start(f"D1:{shape.nth}")
    before = submit_one_by_one(room, served, shape)
    room.crashed(served)
    assert room.sink.seen.verbs["MAIL"] == len(before)
    room.ends_with(room.start(), dict.fromkeys([*before, "victim"], 1), marked=["victim"])


def test_d2_behind_the_envelope_it_comes_once_and_marked(room: Room, shape: Shape) -> None:
    served = room.start(f"D2:{shape.nth}")
    before = submit_one_by_one(room, served, shape)
    room.crashed(served)
    assert room.sink.seen.verbs["RCPT"] == shape.nth
    assert room.sink.seen.verbs["DATA"] == len(before)
    room.ends_with(room.start(), dict.fromkeys([*before, "victim"], 1), marked=["victim"])


def test_d3_within_the_content_it_comes_once_and_marked(room: Room, shape: Shape) -> None:
    served = room.start(f"D3:{shape.nth}")
    assert room.hand_over(served, "victim", 8 * CHUNK_BYTES) == 250
    room.crashed(served)
    room.sink.wait_for(lambda seen: len(seen.cut) == seen.opened)
    assert 32 * 1024 < max(room.sink.seen.cut) < 8 * CHUNK_BYTES
    assert not room.sink.seen.copies
    room.ends_with(room.start(), {"victim": 1}, marked=["victim"])


def test_d4_between_the_end_of_data_and_its_reply_it_comes_twice_and_marked(room: Room, shape: Shape) -> None:
    room.sink.hold("DATA", shape.nth)
    served = room.start(f"D4:{shape.nth}")
    before = submit_one_by_one(room, served, shape)
    room.crashed(served)
    room.sink.wait_for(lambda seen: seen.of("victim") == 1)
    room.sink.release()
    copies = dict.fromkeys(before, 1) | {"victim": 2}
    room.ends_with(room.start(), copies, marked=["victim"])


def test_d5_behind_the_reply_it_comes_twice_and_not_three_times(room: Room, shape: Shape) -> None:
    served = room.start(f"D5:{shape.nth}")
    before = submit_one_by_one(room, served, shape)
    room.crashed(served)
    assert room.sink.seen.of("victim") == 1
    copies = dict.fromkeys(before, 1) | {"victim": 2}
    room.ends_with(room.start(), copies, marked=["victim"])


def test_d6_of_three_recipients_each_gets_it_once(room: Room, shape: Shape) -> None:
    number = shape.chance.randrange(1, 3) if shape.number else 1
    room.told("accounts", "edit", "relay", "--recipients-per-transaction", "1", "--max-connections", "1")
    room.sink.hold("MAIL", number + 1)  # until the crash nothing of the next recipient's transaction is answered
    served = room.start(f"D6:{number}")
    names = ["r1", "r2", "r3"]
    assert room.hand_over(served, "m", shape.size_bytes, *(f"{name}@sink.example" for name in names)) == 250
    room.crashed(served)
    assert [recipient for _, recipient in room.sink.seen.copies] == [f"{name}@sink.example" for name in names[:number]]
    claimed = {name for (name,) in room.query("SELECT recipient FROM delivery WHERE state = 'sending'")}
    room.sink.release()
    marked = [name.partition("@")[0] for name in claimed]
    assert "r1" not in marked
    room.ends_with(room.start(), dict.fromkeys(names, 1), marked=marked)


# Under load nobody knows which message meets the point; what must be true then is true of all of them.


@pytest.mark.parametrize(
    "point", ("A1", "A2", "A4", "A5", "D1", "D2", "D4", "D5", "D6") if ROUNDS > 1 else ("A4", "D5")
)
def test_under_load_nothing_is_lost_and_little_comes_twice(room: Room, shape: Shape, point: str) -> None:
    served = room.start(f"{point}:{shape.chance.randrange(1, 60) if shape.number else 30}")
    ledger = Ledger(room, served, 100_000 if point == "A1" else SMALL)
    room.crashed(served)
    ledger.join()
    served = room.start()
    while room.query("SELECT count(*) FROM delivery WHERE ended IS NULL") != [(0,)]:
        assert served.process.poll() is None
    assert served.stop() == 0
    came = {name: times for (name, _), times in room.sink.seen.copies.items()}
    rows = room.rows()
    marked = {row["recipient"].partition("@")[0] for row in rows if row["may_be_sent_twice"]}
    twice = {name for name, times in came.items() if times > 1}
    assert ledger.acknowledged
    assert ledger.acknowledged - came.keys() == set(), "acknowledged and lost"
    assert came.keys() - ledger.acknowledged - ledger.unanswered == set(), "delivered though never taken"
    assert max(came.values()) <= 2
    assert twice - marked == set(), "sent twice and not marked"
    assert len(twice) <= 2 * shape.connections
    assert len(marked) <= 3 * shape.connections
    assert {row["state"] for row in rows} == {"delivered"}
