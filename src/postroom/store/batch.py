"""What one group commit writes: operations, how many fit, in which order they are written, and their answers."""

from __future__ import annotations

import asyncio
import enum
from typing import Any, NamedTuple

from ..pending import Pending

BATCH_OPERATIONS = 256
BATCH_BYTES = 4 * 1024 * 1024
#: The most that is written on the loop: a few milliseconds.
LIGHT_OPERATIONS = 128
LIGHT_BYTES = 1024 * 1024


class Kind(enum.IntEnum):
    """Kinds of operations, in the order in which a batch writes them; a later kind may depend on an earlier one."""

    STAGE = 0
    ENQUEUE = 1
    COMPLETE = 2
    UNCLAIM = 3
    CLAIM = 4
    EVENT = 5
    ALONE = 6


# An enum's member costs a look-up each time.
STAGE = Kind.STAGE
ALONE = Kind.ALONE


class Operation(NamedTuple):
    """One call of a verb. `key` names the message that it is about (operations on one message keep their order);
    `payload` is the verb's argument, for ALONE a function of the transaction."""

    kind: int
    future: asyncio.Future[Any] | Pending[Any]
    payload: Any
    key: bytes
    size_bytes: int


#: Futures with their results or errors.
Done = list[tuple["asyncio.Future[Any] | Pending[Any]", Any, BaseException | None]]


def segments(batch: list[Operation]) -> list[dict[int, list[Operation]]]:
    """Cut a batch where writing by kind would change the order of two operations on one message, and around ALONE."""
    segments: list[dict[int, list[Operation]]] = []
    groups: dict[int, list[Operation]] = {}
    latest: dict[bytes, int] = {}
    for operation in batch:
        kind = operation.kind
        key = operation.key
        if groups and (kind == ALONE or ALONE in groups or latest.get(key, 0) > kind):
            segments.append(groups)
            groups = {}
            latest = {}
        latest[key] = kind
        if kind in groups:
            groups[kind].append(operation)
        else:
            groups[kind] = [operation]
    segments.append(groups)
    return segments


def fitting(operations: list[Operation]) -> tuple[int, int, bool]:
    """How many of `operations` one batch takes, how many octets they carry, and whether they are light work."""
    size = 0
    light = True
    count = 0
    for operation in operations:
        count += 1
        size += operation.size_bytes
        light = light and operation.kind != ALONE and operation.kind != STAGE
        if count == BATCH_OPERATIONS or size >= BATCH_BYTES:
            break
    return count, size, light and count <= LIGHT_OPERATIONS and size <= LIGHT_BYTES


def failed(batch: list[Operation], error: BaseException) -> Done:
    """The same error for all of them."""
    return [(operation.future, None, error) for operation in batch]


def resolve(done: Done) -> None:
    """Tell all who wait; on the loop."""
    for future, result, error in done:
        if future.done():
            continue  # its waiter was cancelled; the write stands
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
