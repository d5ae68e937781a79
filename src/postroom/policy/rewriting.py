"""As whom an account sends (SPEC section 2.5): another sender in the envelope, From and Sender, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..mime.head import HeadFields, edit, scan
from ..mime.sender import addresses_of, renamed, replace_mailbox, same_mailbox
from ..model.account import Account
from ..model.envelope import Envelope


@dataclass(frozen=True, slots=True)
class FixedSender:
    """Who stands for the sender of every message of an account.

    `name` replaces display names, "" keeps them. `original_to_reply_to`: the original From becomes Reply-To where there
    is none. `keep_private`: a message with `Sensitivity: Private` keeps its sender.
    """

    address: str
    name: str = ""
    original_to_reply_to: bool = False
    keep_private: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is rewritten: `reverse-path` or a field of the header, with its addresses before and after."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A message as it leaves, and what is other than in the stored one."""

    envelope: Envelope
    head: bytes
    changes: tuple[Change, ...]


def fixed_sender(account: Account, postmaster: str) -> FixedSender | None:
    """Who stands for the senders of `account`: its draft mailbox where it leaves nothing but drafts, its own fixed
    sender, else `postmaster` ("" unless it is forced)."""
    own = account.sender
    if account.graph.draft_only and account.graph.draft_mailbox:
        return FixedSender(account.graph.draft_mailbox)
    if own.fixed:
        return FixedSender(own.fixed, own.fixed_name, own.keep_original_as_reply, own.private_keeps_sender)
    return FixedSender(postmaster) if postmaster else None


def rewrites(account: Account, postmaster: str, envelope: Envelope, head: bytes) -> tuple[Change, ...]:
    """What `account` would change in a message; `postmaster` as for `fixed_sender`."""
    return rewrite(fixed_sender(account, postmaster), envelope, head).changes


def rewrite(fixed: FixedSender | None, envelope: Envelope, head: bytes) -> Rewritten:
    """The message with `fixed` for its sender; a null reverse-path stays null.

    Of several From or Sender fields the topmost stays, since readers differ in which one they show.
    """
    fields = scan(head)
    if fixed is None or (fixed.keep_private and is_private(fields)):
        return Rewritten(envelope, head, ())
    changes: list[Change] = []
    new_head = _header(fixed, fields, changes)
    path = fixed.address if envelope.reverse_path else ""
    if path != envelope.reverse_path:
        changes.insert(0, Change("reverse-path", envelope.reverse_path, path))
    if not changes:
        return Rewritten(envelope, head, ())
    beyond_ascii = not fixed.address.isascii()
    envelope = replace(
        envelope,
        reverse_path=path,
        eight_bit=envelope.eight_bit or beyond_ascii,
        smtputf8=(envelope.smtputf8 or beyond_ascii) and not new_head.isascii(),
    )
    return Rewritten(envelope, new_head, tuple(changes))


def is_private(fields: HeadFields) -> bool:
    """`Sensitivity: Private` (RFC 4021)."""
    return (fields.first(b"sensitivity") or b"").lower() == b"private"


def _header(fixed: FixedSender, fields: HeadFields, changes: list[Change]) -> bytes:
    """The head with its new sender; what differs is added to `changes`."""
    head = fields.head
    pieces: list[bytes] = []
    seen: set[bytes] = set()
    at = 0
    for name, start, end in fields.fields:
        if name not in (b"from", b"sender"):
            continue
        field = head[start:end]
        new = b"" if name in seen else _mailbox_field(fixed, name, field, fields)
        seen.add(name)
        if new != field:
            changes += _told(name, field, new)
            pieces += (head[at:start], new)
            at = end
    pieces.append(head[at:])
    head = b"".join(pieces)
    if b"from" not in seen:
        changes.append(Change("From", "", fixed.address))
        head = edit(head, append=replace_mailbox(b"From:\r\n", fixed.address, fixed.name))
    return head


def _mailbox_field(fixed: FixedSender, name: bytes, field: bytes, fields: HeadFields) -> bytes:
    is_same = same_mailbox(field, fixed.address)
    new = field if is_same and not fixed.name else replace_mailbox(field, fixed.address, fixed.name)
    if name == b"from" and fixed.original_to_reply_to and not is_same and not fields.count(b"reply-to"):
        return new + (renamed(field, b"Reply-To") if addresses_of(field) else b"")
    return new


def _told(name: bytes, field: bytes, new: bytes) -> list[Change]:
    told = []
    before = ", ".join(addresses_of(field))
    for made in scan(new).fields:
        after = ", ".join(addresses_of(new[made[1] : made[2]]))
        told.append(Change(made[0].decode("ascii").title(), "" if made[0] == b"reply-to" else before, after))
    return told or [Change(name.decode("ascii").title(), before, "")]
