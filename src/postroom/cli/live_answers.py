"""Answers of a gateway in this process as they come; the HTTP client's own way gives them whole, at their end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2


class LiveTransport(httpx2.AsyncBaseTransport):
    """Requests to the ASGI application `app`."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See `httpx2.AsyncBaseTransport`; the answer's body comes while the application makes it."""
        url = request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": None,
            "root_path": "",
        }
        answer = _Answer(await request.aread())
        return await answer.begin(self._app, scope)


class _Answer(httpx2.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._asked: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
        self._told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._left = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(self, app: Any, scope: dict[str, Any]) -> httpx2.Response:
        """Ask, and wait for the beginning of the answer."""
        self._task = asyncio.create_task(app(scope, self._receive, self._send))
        self._task.add_done_callback(lambda task: self._told.put_nowait(None))
        start = await self._told.get()
        if start is None:
            await self._task  # raises what it failed with
            raise httpx2.ReadError("there was no answer")
        return httpx2.Response(start["status"], headers=start.get("headers", []), stream=self)

    async def _receive(self) -> dict[str, Any]:
        if self._asked:
            return self._asked.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self._told.put_nowait(message)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._told.get()) is not None:
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return

    async def aclose(self) -> None:
        """Nobody reads on."""
        self._left.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
