"""Microsoft Graph as its documentation describes it, as far as sending mail goes; each rule with the page it is from.

It keeps mailboxes with Drafts and Sent Items, and what was delivered: the MIME, read by the parser of the standard
library, or the JSON with its files. A test may tell it to fail in any documented way.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import email
import email.policy
import itertools
import json
import re
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import getaddresses, parseaddr
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .web_server import HANG_UP, SILENCE, Asked, WebServer, answer

MB = 1024 * 1024

#: A request is of 4 MB at most, else 413: https://learn.microsoft.com/graph/api/user-post-messages
LONGEST_REQUEST = 4 * MB

#: A file of 3 MB or more goes by an upload session, a smaller one must not:
#: https://learn.microsoft.com/graph/outlook-large-attachments#erroratttachmentsizeshouldnotbelessthanminimumsize
LEAST_UPLOAD = 3 * MB - 200_000  # "exactly 2097152", found out in github.com/microsoftgraph/msgraph-sdk-java/pull/52
MOST_UPLOAD = 150 * MB

#: https://learn.microsoft.com/graph/throttling-limits#outlook-service-limits
AT_ONCE = 4


@dataclass
class Item:
    """A message in a mailbox: a draft, or sent. `mime` is empty for one made of JSON."""

    id: str
    mailbox: str
    message: dict[str, Any]
    mime: bytes = b""
    files: list[dict[str, Any]] = field(default_factory=list)
    is_draft: bool = True

    @property
    def recipients(self) -> list[str]:
        """Everybody to whom it is delivered: https://learn.microsoft.com/graph/api/resources/message."""
        fields = ("toRecipients", "ccRecipients", "bccRecipients")
        return [one["emailAddress"]["address"] for name in fields for one in self.message.get(name, [])]

    @property
    def content(self) -> EmailMessage:
        """Its MIME, as another parser reads it."""
        return email.message_from_bytes(self.mime, policy=email.policy.default)


@dataclass
class Upload:
    """An upload session."""

    item: Item
    file: dict[str, Any]
    size: int
    content: bytes = b""


@dataclass
class Fault:
    """What becomes of requests whose `METHOD path` has `pattern` in it: `said` instead of the answer, once it was done
    (`is_done`) or not."""

    pattern: str
    said: bytes | None
    is_done: bool = False


def error(status: int, code: str, message: str, **headers: str) -> bytes:
    """https://learn.microsoft.com/graph/errors."""
    inner = {"date": "2026-01-01T00:00:00", "request-id": "r-1"}
    body = {"error": {"code": code, "message": message, "innerError": inner}}
    return answer(body, status, **{"request_id": "r-1", **headers})


class GraphPeer:
    """`async with GraphPeer() as peer`; over TLS with `context`, and takes ranges of files at `uploads` where that is
    another host. `tokens` are those it takes, `may_read`: they have Mail.ReadWrite."""

    def __init__(self, context: ssl.SSLContext | None = None, uploads: str = "") -> None:
        self.mailboxes = {"box@x.test"}
        self.send_as: set[tuple[str, str]] = set()  # (mailbox, other address that it may send as)
        self.tokens = {"token-1"}
        self.may_read = True
        self.sent: list[Item] = []
        self.drafts: dict[str, Item] = {}
        self.uploads: dict[str, Upload] = {}
        self.faults: deque[Fault] = deque()
        self.at_once = self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._numbers = itertools.count(1)
        self.server = WebServer(self._say, context)
        self._uploads = uploads

    async def __aenter__(self) -> GraphPeer:
        await self.server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.__aexit__(kind, error, trace)

    @property
    def url(self) -> str:
        """Where it is."""
        return self.server.url

    @property
    def asked(self) -> list[str]:
        """`METHOD path` of each request, without what names mailboxes and items."""
        found = []
        for asked in self.server.asked:
            path = re.sub(r"^/v1\.0/users/[^/]+/", "", asked.path.partition("?")[0])
            path = re.sub(r"(messages|/upload)/[^/]+", r"\1/ID", path)
            found.append(f"{asked.method} {path}")
        return found

    @property
    def requests(self) -> list[Asked]:
        """Them, whole."""
        return self.server.asked

    def fail(self, pattern: str, said: bytes | None, *, done: bool = False) -> None:
        """Answer the next request with `pattern` in its `METHOD path` so, once it was done or instead of doing it."""
        self.faults.append(Fault(pattern, said, done))

    def lose(self, pattern: str) -> None:
        """Do it, and break the connection off in front of the answer."""
        self.fail(pattern, HANG_UP, done=True)

    def be_silent(self, pattern: str) -> None:
        """Do it, and never answer."""
        self.fail(pattern, SILENCE, done=True)

    async def _say(self, asked: Asked) -> bytes | None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.at_once > AT_ONCE:
                return error(429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.")
            await self.gate.wait()
            line = f"{asked.method} {asked.path}"
            fault = next((one for one in self.faults if one.pattern in line), None)
            if fault is None:
                return self._done(asked)
            self.faults.remove(fault)
            if fault.is_done:
                self._done(asked)
            return fault.said
        finally:
            self.at_once -= 1

    def _done(self, asked: Asked) -> bytes:
        path = urlsplit(asked.path)
        if path.path.startswith("/upload/"):
            return self._upload(asked, path.path.removeprefix("/upload/"))
        # https://learn.microsoft.com/graph/resolve-auth-errors
        if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return error(401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")
        found = re.fullmatch(r"/v1\.0/users/([^/]+)/(.+)", path.path)
        if found is None:
            return error(400, "BadRequest", "Resource not found for the segment.")
        mailbox, rest = unquote(found[1]), found[2]
        if mailbox not in self.mailboxes:
            # github.com/InnoGE/laravel-msgraph-mail/issues/16
            return error(404, "ErrorInvalidUser", f"The requested user '{mailbox}' is invalid.")
        if len(asked.body) > LONGEST_REQUEST:
            return answer(b"<html><title>413 - Request Entity Too Large</title>", 413, Content_Type="text/html")
        if rest == "sendMail":
            return self._send_mail(asked, mailbox)
        if not self.may_read:
            return error(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
        return self._with_drafts(asked, mailbox, rest, parse_qs(path.query))

    # https://learn.microsoft.com/graph/api/user-sendmail

    def _send_mail(self, asked: Asked, mailbox: str) -> bytes:
        made = self._made(asked, mailbox, lambda body: body["message"])
        return made if isinstance(made, bytes) else self._sent(made)

    def _made(self, asked: Asked, mailbox: str, within: Callable[[Any], dict[str, Any]]) -> Item | bytes:
        """A message of the request's body: MIME in base64 as text/plain, or JSON."""
        number = f"AAMk{next(self._numbers)}="
        if asked.headers.get("content-type") == "text/plain":
            try:
                mime = base64.b64decode(asked.body, validate=True)
            except binascii.Error:
                return error(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
            return Item(number, mailbox, _resource(mime), mime)
        message = within(json.loads(asked.body))
        own = message.get("internetMessageHeaders", [])
        # github.com/terminal42/contao-notification_center/issues/436
        for one in own:
            if not one["name"].lower().startswith("x-"):
                said = f"The internet message header name '{one['name']}' should start with 'x-' or 'X-'."
                return error(400, "InvalidInternetMessageHeader", said)
        if len(own) > 5:
            said = "Maximum number of headers in one message should be less than or equal to 5."
            return error(400, "InvalidInternetMessageHeaderCollection", said)
        return Item(number, mailbox, message, files=list(message.get("attachments", [])))

    def _sent(self, item: Item) -> bytes:
        author = item.message.get("from", {}).get("emailAddress", {}).get("address", item.mailbox)
        if author != item.mailbox and (item.mailbox, author) not in self.send_as:
            # https://learn.microsoft.com/graph/outlook-send-mail-from-other-user
            said = "The user account which was used to submit this request does not have the right to send mail on "
            said += "behalf of the specified sending account. Cannot submit message."
            return error(403, "ErrorSendAsDenied", said)
        if not item.recipients:
            # github.com/microsoftgraph/php-connect-sample/issues/13
            return error(400, "ErrorInvalidRecipients", "At least one recipient isn't valid.")
        item.is_draft = False
        self.drafts.pop(item.id, None)
        self.sent.append(item)
        return answer(b"", 202)

    # https://learn.microsoft.com/graph/api/user-post-messages, .../message-send, .../message-delete

    def _with_drafts(self, asked: Asked, mailbox: str, rest: str, query: dict[str, list[str]]) -> bytes:
        if (asked.method, rest) == ("POST", "messages"):
            made = self._made(asked, mailbox, lambda body: body)
            if isinstance(made, bytes):
                return made
            self.drafts[made.id] = made
            return answer({**made.message, "id": made.id, "isDraft": True}, 201)
        if found := re.fullmatch(r"mailFolders/(drafts|sentitems)/messages", rest):
            return self._list(mailbox, found[1], query["$filter"][0])
        # https://learn.microsoft.com/graph/api/mailfolder-get, by its well-known name
        if (asked.method, rest) == ("GET", "mailFolders/drafts"):
            return answer(
                {"@odata.context": f"{self.url}/v1.0/$metadata#users/mailFolders/$entity", "id": "AQMkDrafts="}
            )
        found = re.fullmatch(r"messages/([^/]+)(/.+)?", rest)
        item = self.drafts.get(unquote(found[1])) if found else None
        if found is None or item is None:
            return error(404, "ErrorItemNotFound", "The specified object was not found in the store.")
        action = f"{asked.method} {found[2] or ''}"
        if action == "POST /send":
            return self._sent(item)
        if action == "DELETE ":
            del self.drafts[item.id]
            return answer(b"", 204)
        if action == "POST /attachments":
            return self._attach(item, json.loads(asked.body))
        assert action == "POST /attachments/createUploadSession", action
        return self._open_upload(item, json.loads(asked.body)["AttachmentItem"])

    def _list(self, mailbox: str, folder: str, wanted: str) -> bytes:
        """https://learn.microsoft.com/graph/api/user-list-messages, with $filter."""
        named = re.fullmatch(r"internetMessageId eq '(.*)'", wanted)
        assert named, wanted
        items = list(self.drafts.values()) if folder == "drafts" else self.sent
        message_id = named[1].replace("''", "'")
        found = [
            {"id": item.id, "isDraft": item.is_draft, **item.message}
            for item in items
            if item.mailbox == mailbox and item.message.get("internetMessageId") == message_id
        ]
        return answer({"value": found})

    # https://learn.microsoft.com/graph/api/message-post-attachments, .../attachment-createuploadsession

    def _attach(self, item: Item, file: dict[str, Any]) -> bytes:
        assert file["@odata.type"] == "#microsoft.graph.fileAttachment"
        item.files.append(file | {"content": base64.b64decode(file["contentBytes"], validate=True)})
        return answer({"id": "a"}, 201)

    def _open_upload(self, item: Item, file: dict[str, Any]) -> bytes:
        if file["size"] < LEAST_UPLOAD:
            return error(400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize", "Attachment size is too small.")
        if file["size"] > MOST_UPLOAD:
            return error(400, "ErrorAttachmentSizeLimitExceeded", "The size of the attachment is too large.")
        token = f"authtoken{next(self._numbers)}"
        self.uploads[token] = Upload(item, file, file["size"])
        return answer({"uploadUrl": f"{self._uploads or self.url}/upload/{token}", "nextExpectedRanges": ["0-"]}, 201)

    # https://learn.microsoft.com/graph/outlook-large-attachments

    def _upload(self, asked: Asked, token: str) -> bytes:
        assert "authorization" not in asked.headers, "the URL has its own right"
        upload = self.uploads.get(token)
        if upload is None:
            return error(404, "ErrorItemNotFound", "Upload session not found.")
        if asked.method == "DELETE":
            del self.uploads[token]
            return answer(b"", 204)
        here = answer({"nextExpectedRanges": [f"{len(upload.content)}"]})
        if asked.method == "GET":
            return here
        found = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)", asked.headers["content-range"])
        assert found, asked.headers
        start, end, size = int(found[1]), int(found[2]), int(found[3])
        assert size == upload.size
        assert len(asked.body) == end - start + 1
        assert asked.headers["content-type"] == "application/octet-stream"
        if len(asked.body) > LONGEST_REQUEST:
            return error(413, "maxFragmentLengthExceeded", "Max file size exceeded.")
        if start != len(upload.content):
            return error(416, "invalidRange", "Uploaded fragment overlaps with existing data.")
        upload.content += asked.body
        if len(upload.content) < size:
            return answer({"nextExpectedRanges": [f"{len(upload.content)}"]})
        del self.uploads[token]
        upload.item.files.append(upload.file | {"content": upload.content})
        return answer(b"", 201, Location=f"{self.url}/attachments/1")


def _resource(mime: bytes) -> dict[str, Any]:
    """The message as Exchange reads its header: recipients come from To, Cc and Bcc."""
    message = email.message_from_bytes(mime, policy=email.policy.default)
    made: dict[str, Any] = {"internetMessageId": str(message["message-id"] or ""), "subject": str(message["subject"])}
    for name, header in (("toRecipients", "to"), ("ccRecipients", "cc"), ("bccRecipients", "bcc")):
        mailboxes = getaddresses([str(value) for value in message.get_all(header, [])])
        made[name] = [{"emailAddress": {"name": who, "address": where}} for who, where in mailboxes if where]
    if message["from"] is not None:
        made["from"] = {"emailAddress": {"address": parseaddr(str(message["from"]))[1]}}
    return made
