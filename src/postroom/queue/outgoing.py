"""What an account does to a message before it leaves: another sender, then signatures, from the stored original."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Executor
from datetime import datetime
from functools import partial

from ..mime.body_hash import BodyHash
from ..mime.dkim import SigningKey, signatures
from ..mime.head import edit
from ..model.account import Account
from ..model.content import Content, StagedBody
from ..model.envelope import Envelope
from ..model.queue import DueMessage
from ..pending import Pending
from ..policy.rewriting import FixedSender, fixed_sender, rewrite
from ..policy.signing import replaced_fields, signing_keys, signs

#: Reads a staged body.
ChunkReader = Callable[[StagedBody], AsyncIterator[bytes]]


class KeysUnusable(Exception):
    """The account's keys can't be read: none of its mail can be signed."""


class Outgoing:
    """One account's definition at one revision; made anew when it changes.

    `keys` is called once, in `pool`, where all signing is done: an RSA signature takes longer than all else that
    happens to a message here. `replaced` names header fields, in small letters, that the relay replaces.
    """

    def __init__(
        self,
        fixed: FixedSender | None,
        keys: Callable[[], Sequence[SigningKey]] | None,
        *,
        pool: Executor,
        chunks: ChunkReader,
        replaced: Collection[bytes] = (),
    ) -> None:
        self._fixed = fixed
        self._load_keys = keys
        self._keys: Sequence[SigningKey] = ()
        self._pool = pool
        self._chunks = chunks
        self._replaced = replaced
        self._signing: set[asyncio.Task[DueMessage]] = set()

    @classmethod
    def of(cls, account: Account, postmaster: str, pool: Executor, chunks: ChunkReader) -> Outgoing | None:
        """What `account` does, None where that is nothing; `postmaster` is "" unless it is forced."""
        fixed = fixed_sender(account, postmaster)
        if fixed is None and not signs(account):
            return None
        keys = partial(signing_keys, account) if signs(account) else None
        return cls(fixed, keys, pool=pool, chunks=chunks, replaced=replaced_fields(account))

    def alter(self, message: DueMessage, now: datetime) -> Pending[DueMessage]:
        """`message` as this account sends it; an error where it can't be made so. Its body is the stored one."""
        altered: Pending[DueMessage] = Pending()
        if self._load_keys is None:
            try:
                altered.set_result(self._rewritten(message))
            except Exception as error:  # a fault of ours, for which no other message shall wait
                altered.set_exception(error)
            return altered
        task = asyncio.get_running_loop().create_task(self._sign(message, now))
        self._signing.add(task)
        task.add_done_callback(partial(self._signed, altered))
        return altered

    def _signed(self, altered: Pending[DueMessage], task: asyncio.Task[DueMessage]) -> None:
        self._signing.discard(task)
        if task.cancelled():
            altered.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            altered.set_exception(error)
        else:
            altered.set_result(task.result())

    async def _sign(self, message: DueMessage, now: datetime) -> DueMessage:
        body = message.content.body
        body_hash = b""
        if isinstance(body, StagedBody):
            body_hash = body.body_hash or await self._hash(body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._make, message, body_hash, now)

    async def _hash(self, body: StagedBody) -> bytes:
        """For a body that was stored before its hash was."""
        hashed = BodyHash()
        async for chunk in self._chunks(body):
            hashed.feed(chunk)
        return hashed.digest()

    def _make(self, message: DueMessage, body_hash: bytes, now: datetime) -> DueMessage:
        """In the pool: the message with its new sender and signatures."""
        if not self._keys and self._load_keys is not None:
            try:
                self._keys = self._load_keys()
            except ValueError as error:
                raise KeysUnusable(f"the account's DKIM key can't be used: it {error}") from None
        message = self._rewritten(message)
        body = message.content.body
        if isinstance(body, bytes):
            hashed = BodyHash()
            hashed.feed(body)
            body_hash = hashed.digest()
        head = message.content.head
        signed = signatures(head, body_hash, self._keys, now, self._replaced)
        return _with_head(message, edit(head, prepend=signed)) if signed else message

    def _rewritten(self, message: DueMessage) -> DueMessage:
        if self._fixed is None:
            return message
        envelope = Envelope(message.reverse_path, (), message.eight_bit, message.smtputf8)
        found = rewrite(self._fixed, envelope, message.content.head)
        if not found.changes:
            return message
        envelope = found.envelope
        return dataclasses.replace(
            _with_head(message, found.head),
            reverse_path=envelope.reverse_path,
            eight_bit=envelope.eight_bit,
            smtputf8=envelope.smtputf8,
        )


def _with_head(message: DueMessage, head: bytes) -> DueMessage:
    return dataclasses.replace(message, content=Content(head, message.content.body))
