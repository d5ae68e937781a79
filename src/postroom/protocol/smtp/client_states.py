"""The states of an SMTP client and every legal move between them (RFC 5321 sections 3 and 4.3); docs draw from here.

Two tables. SESSION_MOVES is the connection: greeting, EHLO, STARTTLS, AUTH, QUIT. While it is READY, mail
transactions run, each by TRANSACTION_MOVES; at most two at a time, the second with no more than its envelope written
(RFC 2920). A reply is a cause by its first digit alone (RFC 5321 section 4.3.2). 421 and the end of the stream are in
neither table: they end the connection in any state. A reply without a move is the other side's error, anything else
without a move is ours.
"""

from __future__ import annotations

from enum import IntEnum


class Cause(IntEnum):
    """What moves a state: a reply, or what we write."""

    REPLY_2 = 2
    REPLY_3 = 3
    REPLY_4 = 4
    REPLY_5 = 5
    EHLO = 10
    HELO = 11
    STARTTLS = 12
    TLS_STARTED = 13
    AUTH = 14
    RESPONSE = 15
    RSET = 16
    QUIT = 17
    ENVELOPE = 20  # MAIL, with the RCPTs and DATA behind it where commands may be pipelined
    DATA = 21  # the last of these commands is the one to be answered next
    CONTENT = 22
    END_OF_DATA = 23
    ABANDON = 24  # without DATA: no recipient was accepted
    QUESTION = 25  # MAIL or RCPT of a transaction that will have no content, or RSET behind them


class SessionState(IntEnum):
    """Where the connection is."""

    GREETING = 0  # the server speaks first
    GREETED = 1
    EHLO = 2
    HELO = 3
    READY = 4
    STARTTLS = 5
    HANDSHAKE = 6  # nothing may be read or written in clear
    AUTH = 7
    CHALLENGED = 8
    RESET = 9
    ASKED = 10  # how an envelope would be answered
    REFUSED = 11  # not by this server: only QUIT is left
    QUIT = 12
    CLOSED = 13
    DEAD = 14


class Step(IntEnum):
    """Where a mail transaction is."""

    WAITING = 0  # nothing of it was written
    ENVELOPE = 1  # replies to MAIL and RCPT
    DATA = 2  # the reply to DATA
    GO = 3  # 354: the content may be written
    CONTENT = 4  # a part of it was written
    SENT = 5  # the end of data was written
    DOT = 6  # nothing but the end of data was written, for recipients that were all refused
    DONE = 7


S, T, C = SessionState, Step, Cause

SESSION_MOVES: dict[tuple[int, int], SessionState] = {
    (S.GREETING, C.REPLY_2): S.GREETED,
    (S.GREETING, C.REPLY_4): S.REFUSED,
    (S.GREETING, C.REPLY_5): S.REFUSED,
    (S.GREETED, C.EHLO): S.EHLO,
    (S.GREETED, C.HELO): S.HELO,
    (S.GREETED, C.QUIT): S.QUIT,
    (S.EHLO, C.REPLY_2): S.READY,
    (S.EHLO, C.REPLY_4): S.REFUSED,
    (S.EHLO, C.REPLY_5): S.GREETED,  # HELO may do (RFC 5321 section 3.2)
    (S.HELO, C.REPLY_2): S.READY,
    (S.HELO, C.REPLY_4): S.REFUSED,
    (S.HELO, C.REPLY_5): S.REFUSED,
    (S.READY, C.STARTTLS): S.STARTTLS,
    (S.STARTTLS, C.REPLY_2): S.HANDSHAKE,
    (S.STARTTLS, C.REPLY_4): S.READY,
    (S.STARTTLS, C.REPLY_5): S.READY,
    (S.HANDSHAKE, C.TLS_STARTED): S.GREETED,  # what was learnt in clear is forgotten (RFC 3207 section 4.2)
    (S.READY, C.AUTH): S.AUTH,
    (S.AUTH, C.REPLY_2): S.READY,
    (S.AUTH, C.REPLY_3): S.CHALLENGED,
    (S.AUTH, C.REPLY_4): S.READY,
    (S.AUTH, C.REPLY_5): S.READY,
    (S.CHALLENGED, C.RESPONSE): S.AUTH,
    (S.READY, C.ENVELOPE): S.READY,
    (S.READY, C.RSET): S.RESET,
    (S.RESET, C.REPLY_2): S.READY,
    (S.READY, C.QUESTION): S.ASKED,
    (S.ASKED, C.REPLY_2): S.READY,
    (S.ASKED, C.REPLY_4): S.READY,
    (S.ASKED, C.REPLY_5): S.READY,
    (S.READY, C.QUIT): S.QUIT,
    (S.REFUSED, C.QUIT): S.QUIT,
    (S.QUIT, C.REPLY_2): S.CLOSED,
    (S.QUIT, C.REPLY_4): S.CLOSED,
    (S.QUIT, C.REPLY_5): S.CLOSED,
}

TRANSACTION_MOVES: dict[tuple[int, int], Step] = {
    (T.WAITING, C.ENVELOPE): T.ENVELOPE,
    (T.ENVELOPE, C.REPLY_2): T.ENVELOPE,
    (T.ENVELOPE, C.REPLY_4): T.ENVELOPE,
    (T.ENVELOPE, C.REPLY_5): T.ENVELOPE,
    (T.ENVELOPE, C.DATA): T.DATA,
    (T.ENVELOPE, C.ABANDON): T.DONE,
    (T.DATA, C.REPLY_3): T.GO,
    (T.DATA, C.REPLY_4): T.DONE,
    (T.DATA, C.REPLY_5): T.DONE,
    (T.GO, C.CONTENT): T.CONTENT,
    (T.GO, C.END_OF_DATA): T.DOT,
    (T.CONTENT, C.END_OF_DATA): T.SENT,
    (T.CONTENT, C.REPLY_4): T.DONE,  # refused before its end: the connection is of no more use
    (T.CONTENT, C.REPLY_5): T.DONE,
    (T.SENT, C.REPLY_2): T.DONE,
    (T.SENT, C.REPLY_4): T.DONE,
    (T.SENT, C.REPLY_5): T.DONE,
    (T.DOT, C.REPLY_2): T.DONE,
    (T.DOT, C.REPLY_4): T.DONE,
    (T.DOT, C.REPLY_5): T.DONE,
}

#: What may be written in each state of the connection.
ALLOWED: dict[SessionState, frozenset[Cause]] = {
    state: frozenset(Cause(cause) for (at, cause) in SESSION_MOVES if at == state and cause >= C.EHLO) for state in S
}
del S, T, C
