"""Another address in From and Sender of a message that somebody else made: no octet more than that is changed.

Each function takes a whole field as it stands in the head, with its name and line ends, and gives it back so.
"""

from __future__ import annotations

from .address import FoundMailbox, Mailbox, find_mailboxes
from .header import addresses
from .words import read_text

_LINE_LIMIT = 998  # RFC 5322 section 2.1.1
_LONGEST_NAME = 500  # characters of a name that had to be written anew


def replace_mailbox(field: bytes, address: str, name: str = "") -> bytes:
    """`field` with `address` in place of its mailboxes. The name beside the first one stays, unless `name` is given.

    A name stays as it was written, octet by octet; in a field that can't be read with certainty what is in front of
    the last `<` is taken for it.
    """
    label, value = _parted(field)
    if name:
        return label + _written(Mailbox(address, name))
    try:
        found = find_mailboxes(value)
    except ValueError:
        return label + _written(Mailbox(address, _guessed_name(value)))
    replaced = label + _replaced(value, found, address)
    if max(map(len, replaced.split(b"\r\n"))) <= _LINE_LIMIT:
        return replaced
    return label + _written(Mailbox(address, _guessed_name(value)))


def same_mailbox(field: bytes, address: str) -> bool:
    """Whether `field` names `address` and nothing else, without regard to case."""
    return [one.lower() for one in addresses_of(field)] == [address.lower()]


def addresses_of(field: bytes) -> tuple[str, ...]:
    """The addresses in `field`; none where it can't be read with certainty."""
    try:
        return tuple(one.address for one in find_mailboxes(_parted(field)[1]))
    except ValueError:
        return ()


def renamed(field: bytes, name: bytes) -> bytes:
    """A field called `name` with the value of `field`, folded as there; empty where a line would be too long."""
    made = name + b":" + _parted(field)[1]
    return made if max(map(len, made.split(b"\r\n"))) <= _LINE_LIMIT else b""


def _parted(field: bytes) -> tuple[bytes, bytes]:
    label, colon, value = field.partition(b":")
    return label + colon, value if value.endswith(b"\n") else value + b"\r\n"


def _replaced(value: bytes, found: tuple[FoundMailbox, ...], address: str) -> bytes:
    written = address.encode()
    if not found:
        return b" " + written + b"\r\n"
    first = found[0]
    name = _name(value, first)
    if len(found) == 1 and not first.in_group and name is not None:
        return value[: first.address_start] + written + value[first.address_end :]
    return b" " + name + b"<" + written + b">\r\n" if name else b" " + written + b"\r\n"


def _name(value: bytes, found: FoundMailbox) -> bytes | None:
    """What is in front of the `<`; None where it is an address, which would stand there for the one replaced."""
    name = value[found.start : found.address_start].rpartition(b"<")[0]
    return None if name.lower().rstrip().startswith(found.address.lower().encode()) else name


def _guessed_name(value: bytes) -> str:
    name = read_text(value).rpartition("<")[0].strip().strip('"')
    name = "".join(character for character in name if character.isprintable())
    return "" if "@" in name else name[:_LONGEST_NAME]


def _written(mailbox: Mailbox) -> bytes:
    return addresses("From", [mailbox]).partition(b":")[2]
