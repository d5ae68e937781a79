"""One message by Microsoft Graph: as MIME in one request, or as a draft whose files follow (SPEC section 2.9)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import structlog

from ..crashing import reach
from ..mime.address import is_address
from ..mime.addressees import Addressed, addressed_to, recipients_named, same
from ..mime.draft import Draft, DraftReader, File, Leaves, NotKept
from ..mime.head import scan
from ..mime.sender import addresses_of
from ..model.account import Account, GraphRecipients
from ..model.clock import Clock
from ..model.outcome import Bounced, Captured, Deferred, Delivered, Outcome
from ..model.reply import Reply
from ..net.graph import IN_ONE_REQUEST_BYTES, RANGE_BYTES, GraphAnswer, GraphMailbox, Token, next_start
from ..net.http import HttpClient, HttpFailed
from ..net.stream import ConnectFailed
from ..policy.rewriting import FixedSender, rewrite
from . import ChunkReader, Transaction
from .graph_outcomes import Judge, with_transcript
from .smtp_outcomes import explain_connect_failure

_log = structlog.get_logger()

#: How often one range is begun again after a connection that broke off.
RANGE_TRIES = 3

#: What taking back a draft may last while the gateway stops.
_CLOSING_SECONDS = 0.5

#: Of what was taken out, so many addresses are named.
_NAMED = 10


class Ended(Exception):
    """The attempt is over: `outcome` is that of all its recipients."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


class GraphSender:
    """What the messages of one account share: connections, and the mailbox that sends."""

    def __init__(
        self, account: Account, mailbox: str, root: str, token: Token, clock: Clock, chunks: ChunkReader
    ) -> None:
        self.account = account
        self.mailbox = mailbox
        self.chunks = chunks
        self._root = root
        self._token = token
        self._clock = clock
        self._http = HttpClient.of(account, idle=account.idle_timeout)

    def requests(self) -> GraphMailbox:
        """For one message."""
        return GraphMailbox(
            self._http, self._root, self.mailbox, self._token, self._clock,
            patience=self.account.command_timeout, long_patience=self.account.end_of_data_timeout,
        )  # fmt: skip

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


class Sending:
    """One transaction. `was_handed_over`: the request was made after which Graph sends."""

    def __init__(self, sender: GraphSender, transaction: Transaction) -> None:
        self._sender = sender
        self._graph = sender.account.graph
        self._transaction = transaction
        self._mailbox = sender.requests()
        self._head = transaction.head
        if self._graph.draft_only:  # whatever the account does to others' senders
            self._head = rewrite(FixedSender(sender.mailbox), transaction.envelope, self._head).head
        self._note = ""
        author = scan(self._head).first(b"from") or b""
        authors = addresses_of(b"From: " + author + b"\r\n")
        self._judge = Judge(sender.account, sender.mailbox, self._mailbox.host, authors[0] if len(authors) == 1 else "")
        self.was_handed_over = False

    @property
    def said(self) -> Sequence[str]:
        """What was asked and answered so far, without content and tokens."""
        return self._mailbox.said

    async def outcomes(self) -> Sequence[Outcome]:
        """One for each recipient, in order."""
        recipients = self._transaction.envelope.recipients
        ended: dict[str, Outcome] = {one: self._unwritable(one) for one in recipients if not is_address(one)}
        try:
            left = [one for one in recipients if one not in ended]
            if self._transaction.in_doubt and left:
                ended |= await self._sent_before(left)
                left = [one for one in left if one not in ended]
            if left:
                outcome = await self._sent(left)
                ended |= dict.fromkeys(left, outcome)
        except Ended as over:
            ended |= dict.fromkeys(left, over.outcome)
        except HttpFailed as failed:
            ended |= dict.fromkeys(left, self._judge.no_answer(failed, sends=self.was_handed_over))
        except ConnectFailed as failed:  # no token
            unavailable = explain_connect_failure(self._sender.account, failed)
            ended |= dict.fromkeys(left, unavailable.failure)
        if self.was_handed_over and self._transaction.watch is not None:
            self._transaction.watch.answered()
            self._transaction.watch.was_begun()
        said = "\n".join(self._mailbox.said)
        return [with_transcript(ended[one], said) for one in recipients]

    async def _sent(self, recipients: Sequence[str]) -> Outcome:
        addressed = addressed_to(self._head, recipients)
        self._take(addressed)
        size = len(self._head) + self._transaction.size_bytes - len(self._transaction.head)
        if size < self._graph.draft_from:
            return await self._as_mime()
        return await self._as_draft()

    def _take(self, addressed: Addressed) -> None:
        """The copy whose header names this envelope, unless none may be made."""
        others = [*addressed.taken_out[:_NAMED], *(f"all of {name}" for name in addressed.unreadable)]
        if len(addressed.taken_out) > _NAMED:
            others.append(f"{len(addressed.taken_out) - _NAMED} more")
        named = ", ".join(others)
        if addressed.is_trimmed and self._graph.recipients is GraphRecipients.REFUSE:
            reason = f"its header names others than its recipients, and Graph would send to them: {named}"
            advice = "set graph_recipients to trim, name the recipients in To and Cc alone, or send by an SMTP account"
            raise Ended(Bounced(status="5.6.0", reason=reason, advice=advice, remote_host=self._mailbox.host))
        if addressed.is_trimmed:
            self._note = f"taken out of its header, since Graph would have sent to them: {named}"
        self._head = addressed.head

    # In one request

    async def _as_mime(self) -> Outcome:
        content = bytearray(self._head)
        async for piece in self._body():
            content += piece
        encoded = base64.b64encode(content)
        del content
        if self._graph.draft_only:
            return self._drafted(await self._mailbox.draft_of_mime(encoded))
        self.was_handed_over = True
        return self._judge.of_sending(await self._mailbox.send_mime(encoded), self._note)

    async def _body(self) -> AsyncIterator[bytes]:
        body = self._transaction.body
        if isinstance(body, bytes):
            yield body
            return
        async for chunk in self._sender.chunks(body):
            yield chunk

    # As a draft

    async def _as_draft(self) -> Outcome:
        draft = await self._read()
        if self._transaction.in_doubt and not self._graph.draft_only:
            await self._forget_drafts()
        made = await self._mailbox.draft(draft.message)
        identifier = made.found.get("id")
        if made.status != 201 or not isinstance(identifier, str):
            raise Ended(self._judge.refusal(made))
        try:
            await self._add_files(identifier, draft.files)
            reach("D3")
            if self._graph.draft_only:
                return self._drafted(made)
            self.was_handed_over = True
            answer = await self._mailbox.send(identifier)
        except asyncio.CancelledError:  # closing, which has no time
            if not self.was_handed_over:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSING_SECONDS):
                        await self._delete(identifier)
            raise
        except HttpFailed as failed:
            if not (self.was_handed_over and failed.may_have_arrived):
                await self._delete(identifier)
            raise
        except (Ended, ConnectFailed, ValueError):  # the last: an upload URL that can't be asked
            await self._delete(identifier)
            raise
        outcome = self._judge.of_sending(answer, self._note)
        if isinstance(outcome, Bounced | Deferred):
            await self._delete(identifier)
        return outcome

    async def _read(self) -> Draft:
        try:
            reader = DraftReader(self._head)
            async for piece in self._body():
                reader.feed(piece)
            return reader.end()
        except NotKept as fault:
            size = self._transaction.size_bytes
            reason = f"it is too large ({size} octets) to go as it is, and a draft could not keep it: {fault}"
            advice = (
                "send it by an SMTP account, which sends every message as it is, or make it smaller; up to 3MiB "
                "graph_draft_from lets it go as it is"
            )
            raise Ended(Bounced(status="5.6.3", reason=reason, advice=advice, remote_host=self._mailbox.host)) from None

    async def _add_files(self, draft: str, files: Sequence[File]) -> None:
        by_leaf = {file.leaf: file for file in files}
        adding: _Adding | None = None
        leaves = Leaves(self._head)
        async for pieces in self._pieces(leaves):
            for number, piece in pieces:
                file = by_leaf.get(number)
                if file is None:
                    continue
                if piece is None and adding is not None:
                    await adding.end()
                    adding = None
                elif isinstance(piece, bytes) and adding is not None:
                    await adding.feed(piece)
                else:
                    adding = _Adding(self._mailbox, self._judge, draft, file)

    async def _pieces(self, leaves: Leaves) -> AsyncIterator[Sequence[tuple[int, Any]]]:
        async for piece in self._body():
            yield list(leaves.feed(piece))
        yield list(leaves.end())

    def _drafted(self, answer: GraphAnswer) -> Outcome:
        if answer.status != 201:
            return self._judge.refusal(answer)
        said = f"a draft lies in the Drafts of {self._sender.mailbox}; nothing was sent"
        return Captured(reply=Reply(201, (said,), "", answer.command), remote_host=self._mailbox.host, note=self._note)

    # What an earlier attempt left

    async def _sent_before(self, recipients: Sequence[str]) -> Mapping[str, Outcome]:
        """Those of `recipients` to whom an attempt in doubt did send: the message lies in Sent Items (with drafts only:
        in Drafts). Nobody, where Graph does not let it be looked for."""
        found = await self._look("drafts" if self._graph.draft_only else "sentitems")
        reached = {same(address) for message in found for address in _addresses_in(message)}
        if self._graph.draft_only:
            said = f"the draft of an earlier attempt lies in the Drafts of {self._sender.mailbox}; nothing was sent"
            outcome: Outcome = Captured(reply=Reply(200, (said,), "", "GET drafts"), remote_host=self._mailbox.host)
        else:
            said = "it lies in Sent Items: an earlier attempt, whose answer was lost, has sent it"
            outcome = Delivered(reply=Reply(200, (said,), "", "GET sentitems"), remote_host=self._mailbox.host)
        return {one: outcome for one in recipients if same(one) in reached}

    async def _forget_drafts(self) -> None:
        """Drafts of this message that an attempt left behind when the gateway stopped within it."""
        wanted = {same(address) for address in recipients_named(self._head)}
        for message in await self._look("drafts"):
            is_ours = {same(address) for address in _addresses_in(message)} == wanted
            if is_ours and message.get("isDraft") is True and isinstance(message.get("id"), str):
                await self._delete(message["id"])

    async def _look(self, folder: str) -> Sequence[Mapping[str, Any]]:
        message_id = (scan(self._transaction.head).first(b"message-id") or b"").decode("ascii", "replace")
        if not message_id:
            return ()
        answer = await self._mailbox.look_for(message_id, folder)
        if answer.status in (401, 429, 503):
            raise Ended(self._judge.refusal(answer))
        found = answer.found.get("value")
        is_list = answer.status == 200 and isinstance(found, list)
        return [message for message in found if isinstance(message, dict)] if is_list and found is not None else ()

    async def _delete(self, draft: str) -> None:
        """Best effort: what stays is a draft that nobody got."""
        try:
            answer = await self._mailbox.delete(draft)
        except (HttpFailed, ConnectFailed) as error:
            _log.warning("draft_left_behind", mailbox=self._sender.mailbox, reason=str(error))
            return
        if answer.status not in (204, 404):
            _log.warning("draft_left_behind", mailbox=self._sender.mailbox, reason=answer.reply.text)

    def _unwritable(self, recipient: str) -> Outcome:
        reason = f"{recipient} is an address that no header can hold, and Graph takes recipients from there"
        return Bounced(
            status="5.1.3", reason=reason, advice="send to it by an SMTP account", remote_host=self._mailbox.host
        )


class _Adding:
    """One file on its way to its draft: in one request where it is small, else range by range."""

    def __init__(self, mailbox: GraphMailbox, judge: Judge, draft: str, file: File) -> None:
        self._mailbox = mailbox
        self._judge = judge
        self._draft = draft
        self._file = file
        self._inline = {"isInline": True, "contentId": file.content_id} if file.is_inline else {}
        if file.content_id and not file.is_inline:
            self._inline = {"contentId": file.content_id}
        self._held = bytearray()
        self._url = ""
        self._start = 0  # of what is held

    async def feed(self, octets: bytes) -> None:
        """The next octets of the file. Raises Ended, HttpFailed."""
        self._held += octets
        if self._file.size_bytes >= IN_ONE_REQUEST_BYTES:
            while len(self._held) >= RANGE_BYTES:
                await self._put(RANGE_BYTES)

    async def end(self) -> None:
        """The file is whole. Raises as `feed` does."""
        file = self._file
        if file.size_bytes < IN_ONE_REQUEST_BYTES:
            content = base64.b64encode(self._held)
            answer = await self._mailbox.attach(self._draft, file.name, file.content_type, content, self._inline)
            if answer.status != 201:
                raise Ended(self._judge.refusal(answer))
        elif self._held:
            await self._put(len(self._held))

    async def _put(self, count: int) -> None:
        """Send the first `count` octets of what is held, from where the session expects them."""
        if not self._url:
            await self._open()
        end = self._start + count
        tries = 0
        while self._start < end:
            try:
                content = bytes(self._held[: end - self._start])
                answer = await self._mailbox.put(self._url, content, self._start, self._file.size_bytes)
            except HttpFailed:
                tries += 1
                if tries == RANGE_TRIES:
                    await self._cancel()
                    raise
                answer = await self._mailbox.uploaded(self._url)
            if answer.status == 201 or (answer.status == 200 and end == self._file.size_bytes and not answer.found):
                self._advance(end)
                return
            expected = next_start(answer)
            if answer.status not in (200, 202) or expected is None or not self._start <= expected <= end:
                await self._cancel()
                raise Ended(self._judge.refusal(answer))
            if expected == self._start:
                tries += 1
                if tries == RANGE_TRIES:
                    await self._cancel()
                    raise Ended(self._judge.refusal(answer))
            self._advance(expected)

    async def _open(self) -> None:
        file = self._file
        answer = await self._mailbox.upload_session(
            self._draft, file.name, file.content_type, file.size_bytes, self._inline
        )
        url = answer.found.get("uploadUrl")
        if answer.status not in (200, 201) or not isinstance(url, str):
            raise Ended(self._judge.refusal(answer))
        self._url = url

    def _advance(self, to: int) -> None:
        del self._held[: to - self._start]
        self._start = to

    async def _cancel(self) -> None:
        try:
            await self._mailbox.cancel_upload(self._url)
        except (HttpFailed, ValueError) as error:
            _log.info("upload_session_left", reason=str(error))


def _addresses_in(message: Mapping[str, Any]) -> list[str]:
    """The recipients of a message as Graph lists them."""
    found = []
    for name in ("toRecipients", "ccRecipients", "bccRecipients"):
        listed = message.get(name)
        for one in listed if isinstance(listed, list) else ():
            named = one.get("emailAddress") if isinstance(one, dict) else None
            address = named.get("address") if isinstance(named, dict) else None
            if isinstance(address, str):
                found.append(address)
    return found
