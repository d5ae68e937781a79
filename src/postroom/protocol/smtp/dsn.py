"""Parameters of delivery status notifications (RFC 3461 sections 4.1 to 4.4, RFC 6533 section 3), as strict as written.

Every function takes the value as it stood in the command and returns its one form; it raises ValueError with words for
whoever sent it.
"""

from __future__ import annotations

import re

#: RFC 3461 sections 4.2 and 4.4: octets of a value.
MAX_ORCPT = 500
MAX_ENVID = 100

_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_HEX = re.compile(rb"\+([0-9A-F]{2})")
_ORCPT = re.compile(rb"([A-Za-z0-9!#$%&'*/?^_`{|}~-]{1,40});(.+)", re.DOTALL)
_CONDITIONS = ("SUCCESS", "FAILURE", "DELAY")

# RFC 6533 section 3: QCHAR, UTF-8, and what is written by its number.
_UNITEXT = re.compile(r"(?:[!-*,-<>-\[\]-~\x80-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})+")
_NUMBER = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def parse_ret(value: bytes | None) -> str:
    """RET: `FULL` or `HDRS`."""
    text = (value or b"").decode("ascii", "replace").upper()
    if text not in ("FULL", "HDRS"):
        raise ValueError("RET is FULL or HDRS")
    return text


def parse_envid(value: bytes | None) -> str:
    """ENVID: xtext that stands for printable ASCII."""
    if value is None or len(value) > MAX_ENVID or not _is_printable_xtext(value):
        raise ValueError("ENVID is xtext of at most 100 characters")
    return value.decode("ascii")


def parse_notify(value: bytes | None) -> str:
    """NOTIFY: `NEVER`, or some of `SUCCESS,FAILURE,DELAY` in that order."""
    words = (value or b"").decode("ascii", "replace").upper().split(",")
    if words == ["NEVER"]:
        return "NEVER"
    asked = [condition for condition in _CONDITIONS if condition in words]
    if len(asked) != len(words):
        raise ValueError("NOTIFY is NEVER alone, or any of SUCCESS, FAILURE, DELAY")
    return ",".join(asked)


def parse_orcpt(value: bytes | None) -> str:
    """ORCPT: address type and xtext; an address that is not ASCII becomes the 7-bit form of RFC 6533."""
    found = _ORCPT.fullmatch(value or b"")
    if found is None or len(found[0]) > MAX_ORCPT:
        raise ValueError("ORCPT is an address type, a semicolon, and xtext, of at most 500 characters")
    if found[1].lower() == b"utf-8":
        return "utf-8;" + _unitext(found[2])
    if _is_printable_xtext(found[2]):
        return found[0].decode("ascii")
    if found[1].lower() == b"rfc822" and _XTEXT.fullmatch(found[2]):
        return "utf-8;" + _from_xtext_of_utf8(found[2])
    raise ValueError("ORCPT is not xtext")


def _unitext(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if _UNITEXT.fullmatch(text):
        try:
            # A surrogate or a number over 10FFFF stands for nothing, a control would break the report.
            meant = _NUMBER.sub(lambda number: chr(int(number[1], 16)), text)
        except ValueError:
            meant = ""
        if meant.isprintable() and meant:
            return _NOT_ASCII.sub(lambda letter: f"\\x{{{ord(letter[0]):X}}}", text)
    raise ValueError("ORCPT is not an address of RFC 6533")


def _from_xtext_of_utf8(value: bytes) -> str:
    # Postfix has an address beyond ASCII as rfc822, in xtext of its UTF-8.
    try:
        text = _HEX.sub(lambda pair: bytes((int(pair[1], 16),)), value).decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not text:
        raise ValueError("ORCPT is not xtext of an address")
    return _NOT_QCHAR.sub(lambda letter: f"\\x{{{ord(letter[0]):X}}}", text)


def _is_printable_xtext(value: bytes) -> bool:
    if not _XTEXT.fullmatch(value):
        return False
    return all(0x20 <= int(pair, 16) < 0x7F for pair in _HEX.findall(value))
