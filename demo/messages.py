"""Real messages, made by the standard library, with a picture and a document made here."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import make_msgid

SENDER = "shop@demo.test"
POLICY = SMTP.clone(max_line_length=78)

_TEXT = """Dear customer,

your order has left our house.
.
. A line that begins with a dot, and one that is only a dot.

The Postroom demo
"""


@dataclass(frozen=True, slots=True)
class DemoMessage:
    """A message: `content` is the whole of it with CRLF line ends.

    `parts` are the texts and files that went into a message which the gateway's command composed, in order.
    """

    title: str
    subject: str
    recipients: tuple[str, ...]
    message_id: str
    content: bytes
    parts: tuple[bytes, ...] = ()

    @property
    def body(self) -> bytes:
        """What follows the empty line that ends the header section."""
        return self.content.partition(b"\r\n\r\n")[2]


def plain(door: str) -> DemoMessage:
    """A few lines of ASCII."""
    message = _new(f"Your order 4711, by {door}", ["ann@example.test"])
    message.set_content(_TEXT)
    return _made("plain text", message, ["ann@example.test"])


def utf8(door: str) -> DemoMessage:
    """A subject and a display name beyond ASCII, and a body in eight bits."""
    message = _new(f"Grüße aus Köln – 漢字 – 🎉, by {door}", ["joerg@example.test"])
    message.replace_header("To", str(Address("Jörg Müller", "joerg", "example.test")))
    message.set_content("Schöne Grüße!\n\n.\n漢字かな交じり文\n", cte="8bit")
    return _made("UTF-8 subject, 8-bit text", message, ["joerg@example.test"])


def html(door: str) -> DemoMessage:
    """Text and HTML, a picture that the HTML shows, and a document."""
    message = _new(f"Invoice 2026-11, by {door}", ["ann@example.test"])
    message.set_content(_TEXT)
    content_id = make_msgid(domain="demo.test")
    message.add_alternative(f'<p>Thank you!</p><img src="cid:{content_id[1:-1]}" alt="">', subtype="html")
    parts = message.get_payload()
    assert isinstance(parts, list) and isinstance(parts[1], EmailMessage)
    parts[1].add_related(png(48, 48), "image", "png", cid=content_id)
    message.add_attachment(pdf("Invoice 2026-11"), maintype="application", subtype="pdf", filename="Rechnung März.pdf")
    return _made("HTML, inline image, PDF", message, ["ann@example.test"])


def several(door: str) -> DemoMessage:
    """Three recipients, one of them not named in the header."""
    message = _new(f"Meeting on Monday, by {door}", ["ann@example.test", "bob@example.test"])
    message.set_content(_TEXT)
    return _made("several recipients", message, ["ann@example.test", "bob@example.test", "carol@example.test"])


def large(door: str) -> DemoMessage:
    """Twenty mebibytes that nothing on the way could shorten or repeat unnoticed."""
    message = _new(f"The drawings, by {door}", ["bob@example.test"])
    message.set_content(_TEXT)
    drawings = hashlib.shake_256(b"drawings").digest(20 * 1024 * 1024)
    message.add_attachment(drawings, maintype="application", subtype="octet-stream", filename="drawings.bin")
    return _made("20 MiB attachment", message, ["bob@example.test"])


def parts_of(content: bytes) -> tuple[bytes, ...]:
    """The decoded texts and files in `content`, texts without the line end that ends them."""
    leaves = [part for part in message_from_bytes(content).walk() if not part.is_multipart()]
    octets = [(part.get_content_maintype(), part.get_payload(decode=True)) for part in leaves]
    return tuple(one.rstrip(b"\r\n") if kind == "text" else one for kind, one in octets if isinstance(one, bytes))


def png(width: int, height: int) -> bytes:
    """A picture (PNG, eight bits, RGB): a colour gradient."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(
        b"\0" + bytes(value for x in range(width) for value in (x * 255 // width, y * 255 // height, 128))
        for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def pdf(line: str) -> bytes:
    """A document (PDF 1.4) of one page with one line."""
    text = line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    drawing = f"BT /F1 24 Tf 72 760 Td ({text}) Tj ET".encode("ascii")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawing), drawing),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(out)


def _new(subject: str, to: Sequence[str]) -> EmailMessage:
    message = EmailMessage(policy=POLICY)
    message["From"] = f"The Demo Shop <{SENDER}>"
    message["To"] = ", ".join(to)
    message["Subject"] = subject
    message["Message-ID"] = make_msgid(domain="demo.test")
    return message


def _made(title: str, message: EmailMessage, recipients: Sequence[str]) -> DemoMessage:
    return DemoMessage(
        title, str(message["Subject"]), tuple(recipients), str(message["Message-ID"]), message.as_bytes()
    )
