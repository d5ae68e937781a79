"""Requests to Microsoft Graph about one mailbox (https://learn.microsoft.com/graph/api/resources/mail-api-overview).

Answers are values; only the lack of one is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ..model.account import Cloud
from ..model.clock import Clock
from ..model.reply import Reply
from .transcript import Transcript

if TYPE_CHECKING:
    from .http import Answer, HttpClient

#: Where the service is in each cloud (https://learn.microsoft.com/graph/deployments).
ROOTS = {
    Cloud.GLOBAL: "https://graph.microsoft.com",
    Cloud.US_GOVERNMENT: "https://graph.microsoft.us",
    Cloud.US_DOD: "https://dod-graph.microsoft.us",
    Cloud.CHINA: "https://microsoftgraph.chinacloudapi.cn",
}

#: Requests that Graph takes at a time for one application and mailbox
#: (https://learn.microsoft.com/graph/throttling-limits#outlook-service-limits).
AT_ONCE = 4

#: A file below is sent in one request, from there on in ranges by an upload session
#: (https://learn.microsoft.com/graph/outlook-large-attachments); both bounds of Graph leave room here.
IN_ONE_REQUEST_BYTES = 3_000_000

#: One range: a multiple of 320 KiB, as other upload sessions of Graph ask for, and less than 4 MB.
RANGE_BYTES = 10 * 320 * 1024

#: Longest time to wait that is believed (SPEC section 2.9).
LONGEST_WAIT = timedelta(hours=1)

#: Graph answers a draft with all of its text.
_LONGEST_ANSWER_BYTES = 16 * 1024 * 1024

_LONGEST_CODE, _LONGEST_TEXT = 120, 1000
#: What is looked through for secrets, which stands for longer than they do.
_LOOKED_THROUGH = 16 * 1024
_NOT_SHOWN = re.compile(r"[^\x20-\x7e\u00a0-\u2027\u202a-\ud7ff\ue000-\U0010ffff]+")

#: Gives a bearer token: another than the one that was refused, if one is named.
Token = Callable[[str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class GraphAnswer:
    """What Graph answered to `command`, such as `POST sendMail`.

    `code` and `message` are those of an error. `retry_after` is what it asks to wait, within bounds; `request_id` names
    the request to Microsoft's support.
    """

    command: str
    status: int
    code: str = ""
    message: str = ""
    retry_after: timedelta | None = None
    request_id: str = ""
    found: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def reply(self) -> Reply:
        """It, as replies are kept and classified: `ErrorSendAsDenied: The user account ...`."""
        words = f"{self.code}: {self.message}" if self.code and self.message else self.code or self.message
        return Reply(self.status, (words,) if words else (), "", self.command)


class GraphMailbox:
    """The requests that sending by `mailbox` needs; at most one at a time for each sender of mail.

    Each raises `HttpFailed` where no answer came, and what `token` raises. `patience` is for an answer; `long_patience`
    for one to a request with much content. `told` gets each line of what is asked and answered, as `said` keeps them.
    """

    def __init__(
        self,
        http: HttpClient,
        root: str,
        mailbox: str,
        token: Token,
        clock: Clock,
        *,
        patience: timedelta,
        long_patience: timedelta,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._http = http
        self._base = f"{root}/v1.0/users/{quote(mailbox, safe='@')}"
        self._token = token
        self._clock = clock
        self._patience = patience
        self._long_patience = long_patience
        self.host = urlsplit(root).hostname or ""
        self.said: list[str] = []
        self._secrets = Transcript()  # of it, what hides them
        self._told = told

    async def send_mime(self, content: bytes) -> GraphAnswer:
        """https://learn.microsoft.com/graph/api/user-sendmail: 202 is success. `content` is base64."""
        return await self._ask("POST sendMail", "sendMail", content, "text/plain")

    async def draft_of_mime(self, content: bytes) -> GraphAnswer:
        """https://learn.microsoft.com/graph/api/user-post-messages: 201, with the draft's `id`."""
        return await self._ask("POST messages", "messages", content, "text/plain")

    async def draft(self, message: bytes) -> GraphAnswer:
        """As `draft_of_mime`, of JSON."""
        return await self._ask("POST messages", "messages", message, "application/json")

    async def attach(self, draft: str, name: str, kind: str, content: bytes, inline: Mapping[str, Any]) -> GraphAnswer:
        """https://learn.microsoft.com/graph/api/message-post-attachments: 201. `content` is base64."""
        head = {"@odata.type": "#microsoft.graph.fileAttachment", "name": name, "contentType": kind, **inline}
        made = json.dumps(head, ensure_ascii=False).encode()[:-1] + b', "contentBytes": "' + content + b'"}'
        path = f"messages/{_segment(draft)}/attachments"
        return await self._ask("POST attachments", path, made, "application/json")

    async def upload_session(
        self, draft: str, name: str, kind: str, size_bytes: int, inline: Mapping[str, Any]
    ) -> GraphAnswer:
        """https://learn.microsoft.com/graph/api/attachment-createuploadsession: 201, with an `uploadUrl`."""
        item = {"attachmentType": "file", "name": name, "contentType": kind, "size": size_bytes, **inline}
        made = json.dumps({"AttachmentItem": item}, ensure_ascii=False).encode()
        path = f"messages/{_segment(draft)}/attachments/createUploadSession"
        return await self._ask("POST createUploadSession", path, made, "application/json")

    async def put(self, url: str, content: bytes, start: int, size_bytes: int) -> GraphAnswer:
        """A range of a file: 200 with `nextExpectedRanges`, 201 to the last one. The URL has its own right to write."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"bytes {start}-{start + len(content) - 1}/{size_bytes}",
        }
        return await self._once("PUT", url, "PUT attachment", content, headers, self._long_patience)

    async def uploaded(self, url: str) -> GraphAnswer:
        """How far an upload session has come: 200 with `nextExpectedRanges`."""
        return await self._once("GET", url, "GET upload", b"", {}, self._patience)

    async def cancel_upload(self, url: str) -> GraphAnswer:
        """https://learn.microsoft.com/graph/outlook-large-attachments: 204."""
        return await self._once("DELETE", url, "DELETE upload", b"", {}, self._patience)

    async def send(self, draft: str) -> GraphAnswer:
        """https://learn.microsoft.com/graph/api/message-send: 202."""
        return await self._ask("POST send", f"messages/{_segment(draft)}/send", b"", "")

    async def delete(self, draft: str) -> GraphAnswer:
        """https://learn.microsoft.com/graph/api/message-delete: 204."""
        return await self._ask("DELETE message", f"messages/{_segment(draft)}", b"", "")

    async def look_for(self, message_id: str, folder: str) -> GraphAnswer:
        """The messages of `folder` with that Message-ID: 200, with recipients in `value`
        (https://learn.microsoft.com/graph/api/user-list-messages, .../graph/filter-query-parameter)."""
        quoted = message_id.replace("'", "''")
        query = f"$filter={quote(f'internetMessageId eq {chr(39)}{quoted}{chr(39)}')}&$top=10"
        query += "&$select=id,isDraft,toRecipients,ccRecipients,bccRecipients"
        return await self._ask(f"GET {folder}", f"mailFolders/{folder}/messages?{query}", b"", "")

    async def folder(self, name: str) -> GraphAnswer:
        """https://learn.microsoft.com/graph/api/mailfolder-get: 200; it needs Mail.ReadBasic, Mail.Read or
        Mail.ReadWrite."""
        return await self._ask(f"GET {name}", f"mailFolders/{name}?$select=id", b"", "")

    async def _ask(self, command: str, path: str, content: bytes, content_type: str) -> GraphAnswer:
        """The answer; after a 401 the one to a second try, with another token."""
        method = command.partition(" ")[0]
        headers = {"Content-Type": content_type} if content_type else {}
        patience = self._long_patience if method == "POST" else self._patience
        token = await self._token("")
        for is_last in (False, True):
            sent = {**headers, "Authorization": f"Bearer {token}", "Accept": "application/json"}
            answer = await self._once(method, f"{self._base}/{path}", command, content, sent, patience)
            if answer.status != 401 or is_last:
                break
            token = await self._token(token)
        return answer

    async def _once(
        self, method: str, url: str, command: str, content: bytes, headers: Mapping[str, str], patience: timedelta
    ) -> GraphAnswer:
        from .http import HttpFailed  # here: it is loaded where there is a client

        self._say(f">>> {command} ({len(content)} octets)")
        # A bearer token, or the URL of an upload, which is a right to write.
        self._secrets.hide(headers.get("Authorization", url).removeprefix("Bearer "))
        clean = self._secrets.without_secrets
        try:
            answer = await self._http.request(
                method, url, headers=headers, content=content, patience=patience, longest_bytes=_LONGEST_ANSWER_BYTES
            )
        except HttpFailed as failed:
            failed.reason = clean(failed.reason)
            raise
        read = _read(command, answer, self._clock.now(), clean)
        words = read.reply.text + (f" (request {read.request_id})" if read.request_id else "")
        self._say(f"<<< {words}")
        return read

    def _say(self, line: str) -> None:
        self.said.append(line)
        self._told(line)


def _read(command: str, answer: Answer, now: datetime, clean: Callable[[str], str]) -> GraphAnswer:
    """The parts of an answer that count (https://learn.microsoft.com/graph/errors), its words made `clean`."""
    try:
        found = answer.json()
    except ValueError:
        found = {}
    error = found.get("error") if answer.status >= 300 else None
    error = error if isinstance(error, dict) else {}

    def words(text: str, longest: int) -> str:
        return clean(text[:_LOOKED_THROUGH])[:longest]

    return GraphAnswer(
        command,
        answer.status,
        words(_shown(error.get("code")), _LONGEST_CODE),
        words(_shown(error.get("message")) or ("" if answer.status < 300 else _title(answer)), _LONGEST_TEXT),
        retry_after(answer.headers.get("retry-after", ""), now),
        words(_shown(answer.headers.get("request-id")), _LONGEST_CODE),
        found,
    )


def _title(answer: Answer) -> str:
    """Of an HTML page, which something in between may send, what is meant for people."""
    found = re.search(rb"(?is)<title>([^<]{1,200})", answer.body[:8192])
    return _shown(found[1].decode("utf-8", "replace")) if found else ""


def retry_after(value: str, now: datetime) -> timedelta | None:
    """RFC 9110 section 10.2.3: seconds or a date; an hour at most, None where it names nothing."""
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        wait = timedelta(seconds=int(value))
    else:
        try:
            until = parsedate_to_datetime(value)
            wait = (until if until.tzinfo is not None else until.replace(tzinfo=UTC)) - now
        except (ValueError, OverflowError):
            return None
    return min(max(wait, timedelta(0)), LONGEST_WAIT)


def next_start(answer: GraphAnswer) -> int | None:
    """Where an upload session goes on, by `nextExpectedRanges`: `["2097152"]` or `["2097152-"]`; None: it does not
    say."""
    ranges = answer.found.get("nextExpectedRanges", answer.found.get("NextExpectedRanges"))
    if not isinstance(ranges, list) or not ranges or not isinstance(ranges[0], str):
        return None
    start = re.fullmatch(r"([0-9]{1,12})(-[0-9]{0,12})?", ranges[0])
    return int(start[1]) if start else None


def _segment(identifier: str) -> str:
    return quote(identifier, safe="", errors="replace")


def _shown(value: object) -> str:
    return _NOT_SHOWN.sub(" ", value).strip() if isinstance(value, str) else ""
