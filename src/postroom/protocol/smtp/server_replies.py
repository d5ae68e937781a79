"""The server's replies (RFC 5321 section 4.2, RFC 2034, RFC 3463), whole lines with their CRLF."""

from __future__ import annotations

OK = b"250 2.0.0 Ok\r\n"
OK_MAIL = b"250 2.1.0 Ok\r\n"
OK_RCPT = b"250 2.1.5 Ok\r\n"
LOGGED_IN = b"235 2.7.0 Authentication successful\r\n"
GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"
TLS_GO_AHEAD = b"220 2.0.0 Ready to start TLS\r\n"
BYE = b"221 2.0.0 Bye\r\n"
COMMANDS = b"214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP HELP VRFY AUTH STARTTLS QUIT\r\n"
WILL_TRY = b"252 2.1.5 Send some mail, it will be tried\r\n"

TOO_MANY_RECIPIENTS = b"452 4.5.3 Too many recipients\r\n"
TOO_LARGE = b"552 5.3.4 Message too large\r\n"
BARE_CR = b"554 5.6.0 Bare CR in the content\r\n"
BARE_LF = b'554 5.6.0 Bare LF in the content; lines end with CRLF (listener setting profile = "devices" takes it)\r\n'

LINE_TOO_LONG = b"500 5.5.2 Line too long\r\n"
BARE_LINE_END = b"500 5.5.2 Lines end with CRLF; a bare CR or LF is refused\r\n"
NOT_ASCII = b"500 5.5.2 Commands are printable ASCII, addresses may be UTF-8\r\n"
NOT_RECOGNISED = b"500 5.5.2 Command not recognised\r\n"
NOT_IMPLEMENTED = b"502 5.5.1 Command is not implemented\r\n"
NO_TLS = b"502 5.5.1 STARTTLS is not offered\r\n"
TLS_IS_ON = b"503 5.5.1 TLS is on\r\n"
EHLO_FIRST = b"503 5.5.1 Send EHLO first\r\n"
MAIL_FIRST = b"503 5.5.1 Send MAIL first\r\n"
NOT_NOW = b"503 5.5.1 Not within a mail transaction\r\n"
ALREADY_LOGGED_IN = b"503 5.5.1 Already logged in\r\n"
NO_VALID_RECIPIENTS = b"554 5.5.1 No valid recipients\r\n"
BAD_HELO = b'501 5.5.4 Syntax: EHLO hostname (listener setting profile = "devices" takes any name or none)\r\n'
NO_ARGUMENT = b"501 5.5.4 The command takes no argument\r\n"
PARAMETERS_NEED_EHLO = b"555 5.5.4 Parameters need EHLO\r\n"
NEEDS_SMTPUTF8 = b"553 5.6.7 An address that is not ASCII needs SMTPUTF8 in MAIL\r\n"
ENCRYPT_FIRST = (
    b"538 5.7.11 Encryption is required to log in "
    b'(listener settings profile = "devices" and allow_clear_login = true take a login in clear)\r\n'
)
NO_PROXY_LOGIN = b"535 5.7.8 A login acts for no other name\r\n"

# These end the connection.
BAD_CHUNK = b"501 5.5.4 Syntax: BDAT octets [LAST]\r\n"
NOT_HTTP = b"554 5.5.1 This is a mail server\r\n"
TLS_NOT_STARTED = b"554 5.5.1 TLS was not started\r\n"
TOO_MANY_ERRORS = b"421 4.7.0 Too many errors\r\n"
TOO_MANY_FAILED_LOGINS = b"421 4.7.0 Too many failed logins\r\n"
SHUTTING_DOWN = b"421 4.3.2 Shutting down\r\n"


def reply_line(code: int, enhanced: str, text: str) -> bytes:
    """One reply of one line; what is not printable ASCII becomes `?`, and it stays within 512 octets
    (RFC 5321 section 4.5.3.1.5)."""
    safe = "".join(letter if " " <= letter <= "~" else "?" for letter in text[:480])
    return f"{code} {enhanced} {safe}\r\n".encode("ascii")


def chunk_reply(size_bytes: int) -> bytes:
    """The reply to a chunk that others follow (RFC 3030 section 2)."""
    return b"250 2.0.0 %d octets received\r\n" % size_bytes
