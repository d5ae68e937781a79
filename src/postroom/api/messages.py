"""`/v1/messages`: taking a message, raw or described, and looking after one that was taken."""

from __future__ import annotations

import base64
import json
import os
import uuid
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import Fault, InvalidInput, NotFound, Refused, StateConflict, TooLarge
from ..gateway import Composing
from ..mime.address import Mailbox
from ..mime.compose import Attachment, ComposedMessage, InlineImage, compose
from ..mime.typed import typed_mailbox
from ..model.application import Application
from ..model.connection import OwnConnection
from ..model.content import Content
from ..model.envelope import Envelope
from ..model.ids import message_id_text
from ..model.queue import FINAL, DeliveryState
from ..model.submission import Submission, check_tag, parse_priority
from ..store import Selection
from .content import receive_content
from .envelope import envelope_of, header_recipients, header_sender, recipient, reverse_path
from .parts import TheGateway, message_of, show_delivery, show_times, to_json

routes = APIRouter(prefix="/v1/messages", tags=["messages"])

RAW = "message/rfc822"

#: Parameters with the message's own rules of retrying.
_RETRY = ("retry_schedule", "retry_window", "give_up")

Verb = Literal["hold", "release", "retry", "cancel"]

_ON_ITS_WAY = "what is being sent can be moved once its outcome is known"
#: What else helps where a verb moves nothing.
_HINTS = {
    ("hold", DeliveryState.SENDING): _ON_ITS_WAY,
    ("cancel", DeliveryState.SENDING): _ON_ITS_WAY,
    ("retry", DeliveryState.HELD): "what is held goes on with `postroom queue release`",
}


class DescribedFile(BaseModel):
    """A file: `content` in base64; with a `content_id` it is an image that the HTML shows."""

    model_config = ConfigDict(extra="forbid")

    file_name: str = ""
    media_type: str = "application/octet-stream"
    content: str
    content_id: str = ""


class DescribedMessage(BaseModel):
    """A message in parts; the gateway composes it. What it does not say of its sender, the account it goes by does."""

    model_config = ConfigDict(extra="forbid")

    sender: str = Field("", alias="from", description="empty: the application's address, else the account's")
    to: list[str] = Field(default_factory=list)
    cc: list[str] = Field(default_factory=list)
    bcc: list[str] = Field(default_factory=list)
    reply_to: list[str] = Field(default_factory=list)
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    connection: dict[str, Any] | None = Field(None, description="overrides its account's connection for it alone")
    files: list[DescribedFile] = Field(default_factory=list)


@routes.post("", status_code=202)
async def submit_message(
    gateway: TheGateway,
    request: Request,
    application: str = "local",
    account: str = "",
    sender: Annotated[str | None, Query(alias="from", description="reverse-path; else Sender or From")] = None,
    to: Annotated[list[str] | None, Query(description="recipients; else those of To, Cc and Bcc")] = None,
    tag: Annotated[str, Query(description="a word by which the message is found again")] = "",
    priority: Annotated[str, Query(description="urgent (by right of the application), normal or bulk")] = "normal",
    retry_schedule: Annotated[str, Query(description="waits between its tries; else the account's")] = "",
    retry_window: Annotated[str, Query(description="how long it is tried; else the account's")] = "",
    give_up: Annotated[str, Query(description="age at which it expires; else the account's")] = "",
    smtputf8: Annotated[bool, Query(description="the header needs RFC 6531: addresses in it are in UTF-8")] = False,
    postroom_connection: Annotated[
        str, Header(description="of a raw message: the `connection` that it brings, as JSON in ASCII")
    ] = "",
) -> dict[str, Any]:
    """Take a message: raw (`message/rfc822`, envelope in the query) or described (JSON). 202 once it is durable.

    A message may bring a `connection` of its own: fields of an account that it overrides for itself alone.
    """
    submitter = gateway.applications.get(application)
    if account:
        gateway.accounts.get(account)
    check_tag(tag)
    parse_priority(priority)
    gateway.own_retry(retry_schedule, retry_window, give_up)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == RAW:
        connection = _connection(gateway, postroom_connection)
        submission = await _raw(gateway, request, submitter, sender, to, smtputf8)
        submission = replace(submission, connection=connection)
    elif postroom_connection:
        mend = "give it as `connection` in the body"
        raise InvalidInput(Fault("Postroom-Connection", "is for raw messages", mend))
    else:
        submission = await _described(gateway, request, submitter)
    accepted = await gateway.submit(submission)
    return {"id": message_id_text(accepted.id), "accounts": sorted(set(accepted.accounts))}


@routes.get("/sender")
async def composed_sender(
    gateway: TheGateway,
    application: str = "local",
    account: str = "",
    sender: Annotated[str, Query(alias="from", description="the sender that the message names itself")] = "",
    to: Annotated[str, Query(description="its first recipient, by whom it is routed")] = "",
) -> dict[str, Any]:
    """Who a composed message would be from, and where its answers would go."""
    submitter = gateway.applications.get(application)
    if account:
        gateway.accounts.get(account)
    own = _mailbox("from", sender) if sender else None
    found = gateway.composed_sender(Composing(submitter, to and recipient(to), own, account=account))
    return {"from": to_json(found.sender), "reply_to": to_json(found.reply_to)}


async def _raw(
    gateway: TheGateway,
    request: Request,
    application: Application,
    sender: str | None,
    to: list[str] | None,
    smtputf8: bool,
) -> Submission:
    limits = gateway.settings.smtp
    recipients = tuple(recipient(text) for text in to or ())
    path = None if sender is None else reverse_path(sender)
    if path is not None:
        _refuse_sender(gateway, application, path)
    content, eight_bit = await receive_content(
        gateway.store,
        request.stream(),
        max_size_bytes=limits.max_size_bytes,
        max_header_bytes=limits.max_header_bytes,
        max_mime_depth=limits.max_mime_depth,
    )
    if path is None:
        path = header_sender(content.head)
        _refuse_sender(gateway, application, path)
    envelope = envelope_of(
        path,
        recipients or header_recipients(content.head),
        eight_bit=eight_bit,
        smtputf8=smtputf8,
        max_recipients=limits.max_recipients,
    )
    return await _submission(gateway, request, application, envelope, content)


async def _described(gateway: TheGateway, request: Request, application: Application) -> Submission:
    described = _parse(await _body(request, 2 * gateway.settings.smtp.max_size_bytes))
    connection = None if described.connection is None else gateway.own_connection(described.connection)
    lists = {name: tuple(_mailbox(name, text) for text in getattr(described, name)) for name in ("to", "cc", "bcc")}
    recipients = [recipient(box.address, name) for name, boxes in lists.items() for box in boxes]
    composed = gateway.composed_sender(
        Composing(
            application,
            recipients[0] if recipients else "",
            _mailbox("from", described.sender) if described.sender else None,
            tuple(_mailbox("reply_to", text) for text in described.reply_to),
            request.query_params.get("account", ""),
        )
    )
    mailbox = composed.sender
    _refuse_sender(gateway, application, mailbox.address)
    files = [(file, _octets(file)) for file in described.files]
    message = ComposedMessage(
        sender=mailbox,
        to=lists["to"],
        cc=lists["cc"],
        reply_to=composed.reply_to,
        subject=described.subject,
        text=described.text,
        html=described.html,
        images=tuple(
            InlineImage(content_id=f.content_id, media_type=f.media_type, content=octets, file_name=f.file_name)
            for f, octets in files
            if f.content_id
        ),
        attachments=tuple(
            Attachment(file_name=f.file_name, content=octets, media_type=f.media_type)
            for f, octets in files
            if not f.content_id
        ),
        headers=tuple(described.headers.items()),
    )
    raw = _composed(gateway, message)
    path = reverse_path(mailbox.address)
    limits = gateway.settings.smtp
    # Composed content is ASCII but for addresses in its header that are not, which is what RFC 6531 is for.
    beyond = not raw.isascii()
    envelope = envelope_of(path, recipients, eight_bit=beyond, smtputf8=beyond, max_recipients=limits.max_recipients)
    if len(raw) > limits.max_size_bytes:
        raise TooLarge(f"the message is larger than {limits.max_size_bytes} octets")
    submission = await _submission(gateway, request, application, envelope, await gateway.keep_content(raw))
    return replace(submission, connection=connection)


def _connection(gateway: TheGateway, text: str) -> OwnConnection | None:
    """The connection that a header brings."""
    if not text:
        return None
    try:
        given = json.loads(text)
    except ValueError as error:
        raise InvalidInput(Fault("connection", f"is not JSON: {error}", "write an object of its fields")) from None
    return gateway.own_connection(given)


def _composed(gateway: TheGateway, message: ComposedMessage) -> bytes:
    domain = message.sender.address.rpartition("@")[2]
    message_id = f"<{uuid.uuid4()}@{domain}>"
    try:
        return compose(message, date=gateway.clock.now(), message_id=message_id, boundary_seed=os.urandom(16))
    except ValueError as error:
        raise InvalidInput(Fault("message", str(error), "mend that value")) from None


async def _body(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise TooLarge(f"the description is larger than {most} octets: send the message raw ({RAW})")
    return bytes(body)


def _parse(body: bytes) -> DescribedMessage:
    try:
        return DescribedMessage.model_validate_json(body)
    except ValidationError as error:
        faults = [Fault(".".join(map(str, one["loc"])) or "body", str(one["msg"])) for one in error.errors()]
        raise InvalidInput(faults) from None


def _mailbox(field: str, text: str) -> Mailbox:
    try:
        return typed_mailbox(text)
    except ValueError as error:
        raise InvalidInput(Fault(field, str(error), "write ann@example.org or Ann <ann@example.org>")) from None


def _octets(file: DescribedFile) -> bytes:
    try:
        return base64.b64decode(file.content, validate=True)
    except ValueError:
        raise InvalidInput(Fault("files", f"{file.file_name!r} is not base64", "encode the file's octets")) from None


def _refuse_sender(gateway: TheGateway, application: Application, path: str) -> None:
    if not gateway.may_send_as(application, path):
        shown = path or "the null reverse-path"
        raise Refused(
            f"application {application.name!r} may not send as {shown}: add it to the application's allowed senders"
        )


async def _submission(
    gateway: TheGateway, request: Request, application: Application, envelope: Envelope, content: Content
) -> Submission:
    return Submission(
        door=request.app.state.door,
        application=application,
        envelope=envelope,
        content=content,
        received=gateway.clock.now(),
        with_protocol="HTTP",
        account=request.query_params.get("account", ""),
        tag=request.query_params.get("tag", ""),
        priority=parse_priority(request.query_params.get("priority", "normal")),
        retry=gateway.own_retry(*(request.query_params.get(name, "") for name in _RETRY)),
    )


@routes.get("/{message_id}")
async def get_message(gateway: TheGateway, message_id: str) -> dict[str, Any]:
    """One message with its deliveries, attempts and events; its content apart. `marks` of a delivery say what is not
    known of it: whether the relay has it, or has it twice; `as_sent` what its account changes, or changed, in it."""
    view = await message_of(gateway, message_id)
    shown: dict[str, Any] = to_json(view)
    told = zip(view.deliveries, gateway.answers.marks(view), await gateway.answers.as_sent(view), strict=True)
    shown["deliveries"] = [
        show_delivery(gateway, row) | {"marks": list(marks), "as_sent": to_json(sent)} for row, marks, sent in told
    ]
    return shown


@routes.get("/{message_id}/content")
async def get_content(gateway: TheGateway, message_id: str) -> Response:
    """The message as it was stored."""
    view = await message_of(gateway, message_id)
    raw = await gateway.store.content(view.id)
    if raw is None:
        raise NotFound(Fault("id", f"the content of message {message_id} was removed", "its record is kept longer"))
    return Response(raw, media_type=RAW)


@routes.get("/{message_id}/why")
async def explain_message(gateway: TheGateway, message_id: str) -> dict[str, Any]:
    """What each delivery waits for, until when, the command that would release it, and as whom it is sent."""
    view = await message_of(gateway, message_id)
    told = zip(await gateway.answers.why(view.id), await gateway.answers.as_sent(view), strict=True)
    shown = [to_json(one) | show_times(one.times) | {"as_sent": to_json(sent)} for one, sent in told]
    for one in shown:
        del one["times"]
    return {"id": message_id, "deliveries": shown}


@routes.post("/{message_id}/{verb}")
async def change_message(gateway: TheGateway, message_id: str, verb: Verb, n: int | None = None) -> dict[str, Any]:
    """Hold, release, retry or cancel the deliveries of a message (or its delivery `n` alone); `moved` says how many.

    Retry and release of a message that has ended make a new one for those it did not reach: `resubmitted_as`.
    """
    view = await message_of(gateway, message_id)
    moved = await getattr(gateway, verb)(Selection(message_id=view.id, n=n))
    if moved:
        return {"id": message_id, "moved": moved}
    rows = [row for row in view.deliveries if n is None or row.n == n]
    if not rows:
        raise NotFound(Fault("n", f"message {message_id} has no delivery {n}", "`postroom queue show` lists them"))
    if verb in ("retry", "release") and n is None and all(row.state in FINAL for row in rows):
        accepted = await gateway.resubmit(view.id)
        return {"id": message_id, "moved": 0, "resubmitted_as": message_id_text(accepted.id)}
    states = ", ".join(sorted({row.state.value for row in rows}))
    hints = {_HINTS[verb, row.state] for row in rows if (verb, row.state) in _HINTS}
    raise StateConflict("; ".join([f"there is nothing to {verb}: {states}", *sorted(hints)]))
