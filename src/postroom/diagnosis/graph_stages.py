"""The stages of a test of an account that sends by Microsoft Graph (SPEC sections 2.9 and 7)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import uuid
from collections.abc import AsyncIterator

from ..mime.address import Mailbox
from ..mime.addressees import same
from ..mime.compose import ComposedMessage, compose
from ..model.content import StagedBody
from ..model.outcome import Captured, Delivered, Failure, Unknown
from ..model.outcome import Outcome as MessageOutcome
from ..net.graph import ROOTS, GraphAnswer, GraphMailbox
from ..net.http import HttpClient, HttpFailed
from ..net.observer import Observer
from ..net.stream import ConnectFailed
from ..policy.classify import Stage as ReplyStage
from ..policy.classify import classify
from ..transports import Transaction
from ..transports.graph import NO_DRAFT_MAILBOX, Places, place_of
from ..transports.graph_outcomes import harmless
from ..transports.graph_sending import GraphSender, Sending
from .advice import Known, finding, of_failure, of_graph, of_unanswered
from .order import House, Order
from .stages import Advice, Outcome, Recorder
from .token_stages import TokenStages

#: With any of these the mailbox may be read (learn.microsoft.com/graph/api/mailfolder-get).
_READ = frozenset({"Mail.ReadWrite", "Mail.Read", "Mail.ReadBasic", "Mail.ReadBasic.All"})

#: A mailbox that may be read may also refuse it.
_REFUSED = 403

#: How long a draft may take to go where nobody waits for the test any more.
_LEAVING_SECONDS = 2.0


class GraphTest:
    """One test: token, connection, mailbox, whose sender it may be, a draft, and a message where one is wanted."""

    def __init__(self, order: Order, house: House, recorder: Recorder, known: Known) -> None:
        self._order = order
        self._house = house
        self._recorder = recorder
        self._known = known
        self._account = order.account
        self._tokens = TokenStages(order.account, recorder, known, house.tokens, house.clock)
        self._token = ""

    async def run(self) -> None:
        """All stages, as far as they lead."""
        recorder, account = self._recorder, self._account
        await self._tokens.metadata()
        recorder.began("token")
        try:
            self._token = await self._tokens.token(account)
        except ConnectFailed as failed:
            self._no_token(failed)
            return
        recorder.end()
        if not self._order.mailbox:
            recorder.began("mailbox")
            failure = NO_DRAFT_MAILBOX
            recorder.current.worsen(Outcome.FAILED, failure.reason, Advice(failure.reason, failure.advice))
            recorder.end()
            return
        root, places = ROOTS[account.oauth.cloud], Places()
        if self._house.places is not None:
            places = self._house.places(place_of(root, self._order.mailbox))
        try:
            async with asyncio.timeout(account.command_timeout.total_seconds()):
                await places.take()
        except TimeoutError:
            recorder.skip("mailbox", "mail takes all requests that Graph allows for the mailbox: test again later")
            return
        try:
            await self._requests(root)
        finally:
            places.give_back()

    async def _requests(self, root: str) -> None:
        """All that asks Graph, one request at a time."""
        recorder, account = self._recorder, self._account
        observer = _Connecting(recorder)
        async with HttpClient.of(account, idle=account.idle_timeout, observer=observer) as http:
            mailbox = GraphMailbox(
                http, root, self._order.mailbox, self._given, self._house.clock, patience=account.command_timeout,
                long_patience=account.end_of_data_timeout, told=recorder.said,
            )  # fmt: skip
            await self._ask(mailbox)
        await self._message()

    async def _given(self, rejected: str) -> str:
        """A token for a request: the one that was had, or another where Graph `rejected` it."""
        if rejected:
            self._token = await self._tokens.token(self._account, rejected)
        return self._token

    async def _ask(self, mailbox: GraphMailbox) -> None:
        recorder = self._recorder
        try:
            is_there = await self._mailbox(mailbox)
            if self._account.graph.draft_only:
                if is_there:
                    await self._draft_that_goes(mailbox)
            elif is_there:
                self._send_as()
        except HttpFailed as failed:
            if not recorder.is_open:
                recorder.began(failed.stage)
            advice = of_unanswered(failed, self._known)
            recorder.current.worsen(Outcome.FAILED, failed.reason, advice)
        except ConnectFailed as failed:
            self._no_token(failed)
        recorder.end()

    def _no_token(self, failed: ConnectFailed) -> None:
        if not self._recorder.is_open:
            self._recorder.began(failed.stage)
        self._recorder.current.worsen(Outcome.FAILED, failed.reason, of_failure(failed, self._known))
        self._recorder.end()

    # The mailbox

    async def _mailbox(self, mailbox: GraphMailbox) -> bool:
        """Whether mail may be sent by it, as far as can be known."""
        recorder, name = self._recorder, self._order.mailbox
        answer = await mailbox.folder("drafts")
        stage = recorder.current
        stage.facts["mailbox"] = name
        if answer.status == 200:
            recorder.end()
            return True
        if answer.status == _REFUSED and self._cannot_be_known(answer):
            stage.worsen(Outcome.WARNING, "Graph does not say without sending", finding("graph-mailbox-not-known"))
            recorder.end()
            return True
        stage.worsen(Outcome.FAILED, answer.reply.text, self._advice(answer))
        recorder.end()
        return False

    def _cannot_be_known(self, answer: GraphAnswer) -> bool:
        """Whether the refusal may be one to read alone: what answers to Mail.Send is nothing but what sends."""
        if self._account.graph.draft_only or classify(ReplyStage.GRAPH, answer.reply).rule != "graph-access-denied":
            return False
        rights = self._tokens.rights
        return rights is None or (not rights & _READ and bool(rights & {"Mail.Send", "Mail.Send.Shared"}))

    def _advice(self, answer: GraphAnswer) -> Advice:
        return of_graph(answer.reply, self._known, self._order.mailbox, self._order.sender)

    def _send_as(self) -> None:
        """Graph tells whether a mailbox may be another sender only to who sends."""
        recorder, sender, mailbox = self._recorder, self._order.sender, self._order.mailbox
        recorder.began("send-as")
        recorder.found(address=sender)
        if same(sender) == same(mailbox):
            recorder.current.worsen(Outcome.PASSED, f"{mailbox} sends as itself")
        else:
            self._known.found["mailbox_itself"] = mailbox
            advice = finding(
                "graph-send-as", self._known, sender=harmless(sender, "the sender"),
                mailbox=harmless(mailbox, "the mailbox"),
            )  # fmt: skip
            recorder.current.worsen(Outcome.WARNING, f"whether {mailbox} may send as {sender} is not known", advice)
        recorder.end()

    # A draft, which comes and goes

    async def _draft_that_goes(self, mailbox: GraphMailbox) -> None:
        """As `_draft`; where the test is cancelled within it, it ends first."""
        drafting = asyncio.ensure_future(self._draft(mailbox))
        try:
            await asyncio.shield(drafting)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEAVING_SECONDS):
                    await asyncio.gather(drafting, return_exceptions=True)
            raise

    async def _draft(self, mailbox: GraphMailbox) -> None:
        recorder, name = self._recorder, self._order.mailbox
        subject = f"Test of the account {self._account.name}: delete this draft"
        composed = ComposedMessage(
            sender=Mailbox(name), to=(Mailbox(name),), subject=subject, text="A test of Postroom left this draft.\n"
        )
        message_id = f"<{uuid.uuid4()}@{name.rpartition('@')[2]}>"
        content = compose(composed, date=self._house.clock.now(), message_id=message_id, boundary_seed=os.urandom(16))
        recorder.began("draft")
        recorder.found(mailbox=name)
        left = finding("graph-draft-left", mailbox=name, subject=subject)
        try:
            made = await mailbox.draft_of_mime(base64.b64encode(content))
        except HttpFailed as failed:
            advice = of_unanswered(failed, self._known)
            recorder.current.worsen(Outcome.FAILED, failed.reason, advice, *([left] if failed.may_have_arrived else []))
            return
        identifier = made.found.get("id")
        if made.status != 201 or not isinstance(identifier, str):
            recorder.current.worsen(Outcome.FAILED, f"none could be made: {made.reply.text}", self._advice(made))
            return
        await self._delete(mailbox, identifier, left)

    async def _delete(self, mailbox: GraphMailbox, identifier: str, left: Advice) -> None:
        stage = self._recorder.current
        try:
            answer = await mailbox.delete(identifier)
        except HttpFailed as failed:
            stage.worsen(Outcome.FAILED, f"it was made, and whether it is gone is not known: {failed.reason}", left)
            return
        if answer.status in (204, 404):
            stage.worsen(Outcome.PASSED, f"one was made in the Drafts of {self._order.mailbox}, and deleted")
        else:
            stage.worsen(
                Outcome.FAILED, f"it was made and not deleted: {answer.reply.text}", self._advice(answer), left
            )

    # A message

    async def _message(self) -> None:
        """A real one, by the code that delivers."""
        recorder = self._recorder
        message = await self._order.begun_message(recorder)
        if message is None:
            return
        root = ROOTS[self._account.oauth.cloud]
        sender = GraphSender(self._account, self._order.mailbox, root, self._given, self._house.clock, _in_one_piece)
        size = len(message.head) + len(message.body)
        try:
            sending = Sending(sender, Transaction(message.envelope, message.head, message.body, size))
            (outcome,) = await sending.outcomes()
        finally:
            await sender.close()
        for line in sending.said:
            recorder.said(line)
        self._became(outcome)
        recorder.end()

    def _became(self, outcome: MessageOutcome) -> None:
        stage = self._recorder.current
        reply = outcome.reply
        if isinstance(outcome, Delivered | Captured):
            stage.facts["reply"] = reply.text if reply is not None else ""
            if outcome.note:
                stage.worsen(Outcome.PASSED, outcome.note)
        elif isinstance(outcome, Unknown):
            stage.worsen(Outcome.FAILED, outcome.reason, finding("message-broke-off"))
        elif reply is not None and reply.code >= 400:
            advice = of_graph(reply, self._known, self._order.mailbox, self._order.sender)
            stage.worsen(Outcome.FAILED, reply.text, advice)
        else:
            reason, advised = (outcome.reason, outcome.advice) if isinstance(outcome, Failure) else ("", "")
            advice = Advice(reason, advised) if advised else finding("unknown-failure")
            stage.worsen(Outcome.FAILED, reason or "it was not taken", advice)


class _Connecting(Observer):
    """Tells of the first connection, stage by stage; with the first request the stage mailbox begins."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._is_connected = False

    def began(self, stage: str) -> None:
        """See `Observer.began`."""
        if self._is_connected:
            return
        self._is_connected = stage == "answer"
        self._recorder.began("mailbox" if self._is_connected else stage)

    def found(self, **facts: object) -> None:
        """See `Observer.found`."""
        if not self._is_connected:
            self._recorder.found(**facts)

    def secured(self, tls: ssl.SSLObject) -> None:
        """See `Observer.secured`."""
        if not self._is_connected:
            self._recorder.secured(tls)


async def _in_one_piece(body: StagedBody) -> AsyncIterator[bytes]:
    """A test's message is never staged."""
    nothing: tuple[bytes, ...] = ()
    for piece in nothing:
        yield piece
