"""The envelope of a mail transaction, out of what MAIL and RCPT said and was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...model.envelope import DsnRequest, Envelope
from .server_events import MailFrom, RcptTo

_NOTHING = RcptTo("")


def build_envelope(
    mail: MailFrom, recipients: Sequence[str], asks: Mapping[int, RcptTo], has_eight_bit: bool
) -> Envelope:
    """The envelope; `asks` are the recipients with parameters, by number, and most often none (RFC 3461)."""
    dsn = _request(mail, len(recipients), asks) if asks or mail.ret or mail.envid else None
    return Envelope(mail.path, tuple(recipients), has_eight_bit or mail.eight_bit, mail.smtputf8, dsn)


def _request(mail: MailFrom, recipients: int, asks: Mapping[int, RcptTo]) -> DsnRequest | None:
    all_asks = [asks.get(number, _NOTHING) for number in range(recipients)]
    notify, orcpt = tuple([asked.notify for asked in all_asks]), tuple([asked.orcpt for asked in all_asks])
    return DsnRequest.of(mail.ret, mail.envid, notify, orcpt)
