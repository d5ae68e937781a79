"""Message ids: UUIDv7 that grow, whatever the clock does."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import NotFound
from postroom.model.ids import MessageIds, message_id_text, new_message_id, parse_message_id

MILLISECONDS = st.integers(min_value=0, max_value=(1 << 47) - 1)


@given(MILLISECONDS, st.binary(min_size=10, max_size=10))
def test_an_id_is_a_uuid_of_version_7_with_its_time(milliseconds: int, random: bytes) -> None:
    made = uuid.UUID(message_id_text(new_message_id(milliseconds, random)))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == milliseconds


@given(st.lists(MILLISECONDS, min_size=1, max_size=20), st.binary(min_size=8, max_size=8))
def test_ids_grow_even_when_the_clock_stands_or_steps_back(clock: list[int], random: bytes) -> None:
    ids = MessageIds()
    made = [ids.make(now, random) for now in clock]
    assert made == sorted(set(made))
    assert {uuid.UUID(bytes=bytes(one)).version for one in made} == {7}


def test_ten_thousand_ids_of_one_millisecond_grow() -> None:
    ids = MessageIds()
    made = [ids.make(5, b"\xff" * 8) for _ in range(10_000)]
    assert made == sorted(set(made))


def test_text_and_octets_are_the_same_id() -> None:
    made = new_message_id(1795000000000, bytes(range(10)))
    assert parse_message_id(f" {message_id_text(made).upper()} ") == made


@pytest.mark.parametrize("text", ["", "1", "not-an-id", "01a1ee56-5e00-7bba-9448-a4fc68c4302"])
def test_what_is_no_id_is_not_found(text: str) -> None:
    with pytest.raises(NotFound, match="queue list"):
        parse_message_id(text)
