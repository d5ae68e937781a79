"""Encoded words (RFC 2047): text that is not ASCII in header fields, written and read."""

from __future__ import annotations

import base64
import binascii
import re

_ENCODED_WORD = 75
_SHORTEST_ENCODED = 28  # room for the frame and one character of four octets in either encoding
_Q_CHARS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_ENCODED = re.compile(rb"=\?([!->@-~]{1,60})\?([bBqQ])\?([!->@-~]*+)\?=")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BETWEEN_ENCODED = re.compile(rb"(\?=)[ \t\r\n]++(?==\?)")
_LONGEST_READ = 64 * 1024
# Of the codecs that Python knows, those that are charsets of mail; the rest are slow (punycode) or no charsets.
_CHARSET = re.compile(
    r"utf-?8|us-ascii|ascii|iso[-_]8859[-_]\d{1,2}|(windows-|cp)\d{3,5}|koi8-[rut]|gb\w{4,5}|big5(-hkscs)?|euc-\w\w"
    r"|shift[-_]jis|iso-2022-(jp(-[123])?|kr)",
    re.ASCII | re.IGNORECASE,
)


def is_charset(name: str) -> bool:
    """Whether `name` is a charset of mail that can be read here."""
    return _CHARSET.fullmatch(name) is not None


def encoded_words(text: str, room: int) -> list[str]:
    """`text` as encoded words of at most 75 octets, the first of at most `room` if that is worth while.

    No character is divided between two words (RFC 2047 section 5).
    """
    octets = text.encode()
    q_cost = sum(1 if octet in _Q_CHARS or octet == 0x20 else 3 for octet in octets)
    with_q = q_cost <= (len(octets) + 2) // 3 * 4
    limit = (min(room, _ENCODED_WORD) if room >= _SHORTEST_ENCODED else _ENCODED_WORD) - len("=?utf-8?q??=")
    words: list[str] = []
    part: list[str] = []
    used = 0
    for character in text:
        encoded = _q(character.encode())
        cost = len(encoded) if with_q else len(character.encode())
        if part and (used + cost > limit if with_q else (used + cost + 2) // 3 * 4 > limit):
            words.append(_encoded_word("".join(part), with_q))
            part, used, limit = [], 0, _ENCODED_WORD - len("=?utf-8?q??=")
        part.append(character)
        used += cost
    return [*words, _encoded_word("".join(part), with_q)]


def _encoded_word(text: str, with_q: bool) -> str:
    content = _q(text.encode()) if with_q else base64.b64encode(text.encode()).decode("ascii")
    return f"=?utf-8?{'q' if with_q else 'b'}?{content}?="


def _q(octets: bytes) -> str:
    """RFC 2047 section 4.2, with only the octets literal that may stand in a display name (section 5, rule 3)."""
    return "".join("_" if octet == 0x20 else chr(octet) if octet in _Q_CHARS else f"={octet:02X}" for octet in octets)


def read_text(value: bytes) -> str:
    """The text of an unstructured value for people: unfolded, encoded words decoded, in doubt left as written.

    Never fails; at most 64 KiB of the value are looked at. Control characters become spaces.
    """
    value = value[:_LONGEST_READ]
    if b"=?" in value:
        # RFC 2047 section 6.2: white space between two encoded words is not part of the text.
        value = _BETWEEN_ENCODED.sub(rb"\1", value)
        parts: list[str] = []
        at = 0
        for word in _ENCODED.finditer(value):
            parts += (value[at : word.start()].decode("utf-8", "replace"), _decoded(word))
            at = word.end()
        text = "".join(parts) + value[at:].decode("utf-8", "replace")
    else:
        text = value.decode("utf-8", "replace")
    if text.isprintable():
        return text.strip()
    return _CONTROLS.sub(" ", text.replace("\r\n", "")).strip()


def _decoded(word: re.Match[bytes]) -> str:
    charset = word[1].split(b"*")[0].decode("ascii")  # RFC 2231 section 5 may add a language
    if not _CHARSET.fullmatch(charset):
        return word[0].decode("ascii")
    try:
        if word[2] in b"bB":
            octets = base64.b64decode(word[3] + b"==")
        else:
            octets = binascii.a2b_qp(word[3], header=True)
        return octets.decode(charset, "replace")
    except (LookupError, ValueError):
        return word[0].decode("ascii")
