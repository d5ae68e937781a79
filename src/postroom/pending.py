"""A result that is on its way, told at once: `asyncio.Future` without the turn of the loop between result and callback.

On the path that every message takes, each such turn is time between two commits. Like a future it can be awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")

_log = structlog.get_logger()


class Pending(Generic[T]):
    """Not known yet, a result, or an error. Callbacks run inside `set_result` or `set_exception`, in their order."""

    __slots__ = ("_callbacks", "_error", "_is_done", "_result")

    _result: T

    def __init__(self) -> None:
        self._is_done = False
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Pending[T]], None]] = []

    def done(self) -> bool:
        """Whether it is known."""
        return self._is_done

    def result(self) -> T:
        """The result; raises the error, if it is one."""
        if self._error is not None:
            raise self._error
        if not self._is_done:
            raise asyncio.InvalidStateError("not known yet")
        return self._result

    def exception(self) -> BaseException | None:
        """The error, or None."""
        if not self._is_done:
            raise asyncio.InvalidStateError("not known yet")
        return self._error

    def add_done_callback(self, callback: Callable[[Pending[T]], None]) -> None:
        """Call `callback` as soon as it is known: now, if it is."""
        if self._is_done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def set_result(self, result: T) -> None:
        """It is known."""
        self._refuse_twice()
        self._result = result
        self._tell()

    def set_exception(self, error: BaseException) -> None:
        """It has failed."""
        self._refuse_twice()
        self._error = error
        self._tell()

    def _refuse_twice(self) -> None:
        if self._is_done:
            raise asyncio.InvalidStateError("known already")

    def _tell(self) -> None:
        self._is_done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # one listener's fault is not the others'
                _log.exception("callback_failed")

    def __await__(self) -> Generator[object, None, T]:
        if not self._is_done:
            known: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def tell(_: Pending[T]) -> None:
                if not known.done():  # whoever waited may have been cancelled
                    known.set_result(None)

            self.add_done_callback(tell)
            yield from known
        return self.result()
