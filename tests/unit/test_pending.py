"""A result that is told at once: order, errors, and being awaited like a future."""

from __future__ import annotations

import asyncio

import pytest

from postroom.pending import Pending


def test_callbacks_run_at_once_in_their_order_and_later_ones_too() -> None:
    pending: Pending[int] = Pending()
    told: list[str] = []
    pending.add_done_callback(lambda one: told.append(f"first {one.result()}"))
    pending.add_done_callback(lambda one: told.append(f"second {one.result()}"))
    assert told == []
    pending.set_result(7)
    pending.add_done_callback(lambda one: told.append(f"late {one.result()}"))
    assert told == ["first 7", "second 7", "late 7"]


def test_one_listeners_fault_is_not_the_others() -> None:
    pending: Pending[int] = Pending()
    told: list[int] = []
    pending.add_done_callback(lambda one: told.append(1 // (one.result() - 7)))
    pending.add_done_callback(lambda one: told.append(one.result()))
    pending.set_result(7)
    assert told == [7]


def test_nothing_is_known_before_and_it_is_known_once() -> None:
    pending: Pending[int] = Pending()
    for ask in (pending.result, pending.exception):
        with pytest.raises(asyncio.InvalidStateError):
            ask()
    pending.set_result(1)
    with pytest.raises(asyncio.InvalidStateError):
        pending.set_result(2)
    with pytest.raises(asyncio.InvalidStateError):
        pending.set_exception(ValueError())
    assert pending.result() == 1


async def test_it_can_be_awaited_before_and_after() -> None:
    pending: Pending[int] = Pending()

    async def wait() -> int:
        return await pending

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    pending.set_result(7)
    assert await waiting == 7
    assert await pending == 7


async def test_its_error_is_raised_where_it_is_awaited() -> None:
    pending: Pending[int] = Pending()
    pending.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await pending


async def test_a_waiter_that_was_cancelled_harms_nobody() -> None:
    pending: Pending[int] = Pending()

    async def wait() -> int:
        return await pending

    gone, stays = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    gone.cancel()
    pending.set_result(7)
    assert await stays == 7
    (ended,) = await asyncio.gather(gone, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError)
