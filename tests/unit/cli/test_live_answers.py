"""Answers of an application in this process come while it makes them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from postroom.cli.live_answers import LiveTransport


def client(app: Any) -> httpx2.AsyncClient:
    """A client of it."""
    return httpx2.AsyncClient(transport=LiveTransport(app), base_url="http://postroom")


async def test_a_line_is_read_before_the_next_one_is_made() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": asked["body"] + b"\n", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"last\n", "more_body": False})

    async with client(app) as http, http.stream("POST", "/x", content=b"first") as response:
        lines = response.aiter_lines()
        assert await anext(lines) == "first"
        go_on.set()
        assert await anext(lines) == "last"


async def test_an_application_that_is_not_heard_to_its_end_is_told_so() -> None:
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with client(app) as http, http.stream("GET", "/x") as response:
        assert response.status_code == 200
    assert ended.is_set()


async def test_what_it_fails_with_is_raised() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("nothing here")

    async with client(app) as http:
        with pytest.raises(LookupError):
            await http.get("/x")
