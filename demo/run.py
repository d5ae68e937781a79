"""Start a gateway and a relay, send real messages through every door, and show that each arrived as it was sent."""

from __future__ import annotations

import hashlib
import smtplib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import messages
from .gateway import GatewayProcess, free_port
from .messages import SENDER, DemoMessage
from .relay import Arrival, Relay

LONGEST_WAIT_SECONDS = 40.0
POLL_SECONDS = 0.5
ENDED = frozenset({"delivered", "captured", "bounced", "expired", "cancelled", "held"})


@dataclass(slots=True)
class Row:
    """One message on its way: `submitted` is when its door began to take it (monotonic seconds)."""

    message: DemoMessage
    door: str
    submitted: float
    states: dict[str, str] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)

    @property
    def state(self) -> str:
        """The states of its deliveries, each once."""
        return ", ".join(sorted(set(self.states.values()))) or "not listed"

    @property
    def recipients_arrived(self) -> list[str]:
        """Who it arrived for, in all transactions."""
        return sorted(recipient for arrival in self.arrivals for recipient in arrival.recipients)

    @property
    def is_identical(self) -> bool:
        """Every copy has the body that was submitted, octet by octet, and the parts that went into it."""
        wanted = _digest(self.message.body)
        if not self.arrivals or any(_digest(arrival.body) != wanted for arrival in self.arrivals):
            return False
        return not self.message.parts or messages.parts_of(self.arrivals[0].content) == self.message.parts

    @property
    def is_right(self) -> bool:
        """Delivered once to each recipient, with an identical body."""
        once = self.recipients_arrived == sorted(self.message.recipients)
        return once and self.is_identical and set(self.states.values()) == {"delivered"}


def main() -> int:
    """The whole demo; 0 when every message is delivered as it was submitted."""
    with tempfile.TemporaryDirectory(prefix="postroom-demo-") as folder:
        relay_port = free_port()
        with Relay(relay_port) as relay, GatewayProcess(Path(folder)) as gateway:
            print(f"The gateway listens on 127.0.0.1:{gateway.port}, the relay (aiosmtpd) on 127.0.0.1:{relay_port}.")
            add_account(gateway, relay_port)
            rows = [*send_all(gateway), send_composed(gateway, Path(folder))]
            wait_until_ended(gateway, rows)
            for row in rows:
                row.arrivals = [one for one in relay.arrivals if one.message_id == row.message.message_id]
            print()
            print(table(rows))
    wrong = [row for row in rows if not row.is_right]
    if wrong:
        print("\nThe gateway said:", *(line.rstrip() for line in gateway.output[-20:]), sep="\n  ", file=sys.stderr)
    print()
    print(f"{len(rows) - len(wrong)} of {len(rows)} messages are delivered with an identical body.")
    return 1 if wrong else 0


def add_account(gateway: GatewayProcess, port: int) -> None:
    """The relay as an account that the application `local` may use, for any sender."""
    command = ["accounts", "add", "relay", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--security", "none", "--for", "local", "--allow-sender", "*"]
    print("$ postroom " + " ".join(f"'{word}'" if word == "*" else word for word in command))
    gateway.cli(*command)


def send_all(gateway: GatewayProcess) -> list[Row]:
    """Every sort of message through every door."""
    doors: tuple[tuple[str, Callable[[GatewayProcess, DemoMessage], None]], ...] = (
        ("SMTP", send_by_smtp),
        ("CLI", send_by_cli),
    )
    makers = (messages.plain, messages.html, messages.utf8, messages.several, messages.large)
    rows = []
    for door, send in doors:
        for make in makers:
            row = Row(make(door), door, time.monotonic())
            send(gateway, row.message)
            rows.append(row)
    return rows


def send_by_smtp(gateway: GatewayProcess, message: DemoMessage) -> None:
    """With smtplib, as a program would; eight bits are declared where they are."""
    options = [] if message.content.isascii() else ["BODY=8BITMIME"]
    with smtplib.SMTP("127.0.0.1", gateway.port, timeout=30) as client:
        client.sendmail(SENDER, message.recipients, message.content, mail_options=options)


def send_by_cli(gateway: GatewayProcess, message: DemoMessage) -> None:
    """With `postroom send`, which hands it over on the control socket."""
    to = [word for recipient in message.recipients for word in ("--to", recipient)]
    gateway.cli("send", "--raw", "-", "--from", SENDER, *to, stdin=message.content)


def send_composed(gateway: GatewayProcess, folder: Path) -> Row:
    """With `postroom send` and the parts of a message; what it composed is read back from the store."""
    text, html = "Thank you – your invoice is attached.", '<p>Thank you!</p><img src="cid:logo.png" alt="">'
    picture, document = folder / "logo.png", folder / "Rechnung März.pdf"
    picture.write_bytes(messages.png(48, 48))
    document.write_bytes(messages.pdf("Invoice 2026-12"))
    subject, recipient = "Ihre Rechnung für Dezember", "ann@example.test"
    submitted = time.monotonic()
    sent = gateway.cli_json(
        *("send", "--from", f"The Demo Shop <{SENDER}>", "--to", recipient, "--subject", subject),
        *("--text", text, "--html", html, "--inline", str(picture), "--attach", str(document)),
    )
    content = gateway.cli("queue", "show", sent["id"], "--content")
    parts = (text.encode(), html.encode(), picture.read_bytes(), document.read_bytes())
    message_id = Arrival(0, "", (), content).message_id
    message = DemoMessage("HTML, image, PDF, by options", subject, (recipient,), message_id, content, parts)
    return Row(message, "CLI", submitted)


def wait_until_ended(gateway: GatewayProcess, rows: Sequence[Row]) -> None:
    """Ask the queue until each delivery has ended or waits for a person; after 40 s as it is."""
    expected = sum(len(row.message.recipients) for row in rows)
    give_up = time.monotonic() + LONGEST_WAIT_SECONDS
    while True:
        listed = gateway.cli_json("queue", "list")["deliveries"]
        if len(listed) == expected and all(entry["state"] in ENDED for entry in listed):
            break
        if time.monotonic() > give_up:
            print("Not everything has ended in time.", file=sys.stderr)
            break
        time.sleep(POLL_SECONDS)
    assign_states(rows, listed)


def assign_states(rows: Sequence[Row], listed: Sequence[dict[str, Any]]) -> None:
    """Give each row the states of its deliveries: no two messages of the demo have one subject."""
    by_subject = {row.message.subject: row for row in rows}
    for entry in listed:
        by_subject[entry["subject"]].states[entry["recipient"]] = entry["state"]


def table(rows: Sequence[Row]) -> str:
    """The rows as text in columns."""
    cells = [("message", "door", "recipients", "size", "submitted to delivered", "state", "body identical")]
    cells += [
        (
            row.message.title,
            row.door,
            f"{len(row.recipients_arrived)} of {len(row.message.recipients)}",
            _size(len(row.message.content)),
            f"{(row.arrivals[-1].at - row.submitted) * 1000:,.0f} ms" if row.arrivals else "-",
            row.state,
            "yes" if row.is_identical else "NO",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-+-".join("-" * width for width in widths), *lines[1:]])


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()


def _size(octets: int) -> str:
    for unit, size in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if octets >= size:
            return f"{octets / size:.1f} {unit}"
    return f"{octets} B"
