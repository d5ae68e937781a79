"""What the server says to commands that it does not know, does not serve, or not now, or not so."""

from __future__ import annotations

from . import server_replies as replies
from .server_events import MailFrom, RcptTo
from .server_lines import LineRefused, announces_octets
from .server_states import ServerLimits, State, Verb

#: Known, and not for clients of this server (RFC 5321 section 4.2.4: 502).
_NOT_IMPLEMENTED = frozenset(b"EXPN ETRN ATRN TURN SEND SOML SAML XCLIENT XFORWARD BURL".split())
#: Another protocol: a browser made to talk to a mail port must not get as far as the body of its request.
_HTTP = frozenset(b"GET POST PUT HEAD DELETE PATCH OPTIONS TRACE CONNECT PRI".split())


def unknown(word: bytes) -> LineRefused:
    """The refusal of a command that is none of ours."""
    if word in _HTTP:
        return LineRefused(replies.NOT_HTTP, is_fatal=True)
    if announces_octets(word):  # and is not quite BDAT
        return LineRefused(replies.BAD_CHUNK, is_fatal=True)
    return LineRefused(replies.NOT_IMPLEMENTED if word in _NOT_IMPLEMENTED else replies.NOT_RECOGNISED)


def out_of_order(state: State, verb: Verb) -> bytes:
    """The reply to a command that has no move in `state`."""
    if state is State.CONNECTED:
        return replies.EHLO_FIRST
    if verb in (Verb.DATA, Verb.BDAT) and state is State.MAIL:
        return replies.NO_VALID_RECIPIENTS
    if verb in (Verb.RCPT, Verb.DATA, Verb.BDAT) and state is State.READY:
        return replies.MAIL_FIRST
    return replies.NOT_NOW


def mail_fault(mail: MailFrom, limits: ServerLimits, is_extended: bool) -> bytes:
    """The refusal of MAIL for its parameters, or b"". They are for those who said EHLO (RFC 5321 section 2.2.1)."""
    if mail.has_parameters and not is_extended:
        return replies.PARAMETERS_NEED_EHLO
    return replies.TOO_LARGE if (mail.size_bytes or 0) > limits.max_size_bytes else b""


def rcpt_fault(rcpt: RcptTo, mail: MailFrom, is_extended: bool) -> bytes:
    """The refusal of RCPT for its parameters, or for what MAIL did not declare (RFC 6531 section 3.5), or b""."""
    if rcpt.has_parameters and not is_extended:
        return replies.PARAMETERS_NEED_EHLO
    return replies.NEEDS_SMTPUTF8 if rcpt.needs_smtputf8 and not mail.smtputf8 else b""
