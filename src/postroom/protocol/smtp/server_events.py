"""What the server machine tells its driver, and the slot that keeps a late reply in its place."""

from __future__ import annotations


class ReplySlot:
    """The place of a reply that is not known yet; replies to later commands wait behind it (RFC 2920 section 3.2)."""

    __slots__ = ("behind", "reply")

    def __init__(self) -> None:
        self.reply: bytes | None = None
        self.behind: list[bytes] = []


class MailFrom:
    """MAIL: answer with `accept` or `refuse`. Shared between connections: do not change it.

    `path` is "" for the null reverse-path, `size_bytes` what was declared (RFC 1870) or None; `eight_bit` is
    BODY=8BITMIME (RFC 6152), `smtputf8` RFC 6531, `ret` and `envid` are as in `DsnRequest` (RFC 3461).
    """

    __slots__ = ("eight_bit", "envid", "has_parameters", "path", "ret", "size_bytes", "smtputf8")

    def __init__(self, path: str, *, has_parameters: bool = False) -> None:
        self.path = path
        self.has_parameters = has_parameters
        self.size_bytes: int | None = None
        self.eight_bit = False
        self.smtputf8 = False
        self.ret = ""
        self.envid = ""


class RcptTo:
    """RCPT: answer with `accept` or `refuse`. Shared between connections: do not change it.

    `notify` and `orcpt` are as in `DsnRequest`; `needs_smtputf8` says that the command was not ASCII.
    """

    __slots__ = ("address", "has_parameters", "is_plain", "needs_smtputf8", "notify", "orcpt")

    def __init__(
        self, address: str, notify: str = "", orcpt: str = "", *, has_parameters: bool = False, is_ascii: bool = True
    ) -> None:
        self.address = address
        self.notify = notify
        self.orcpt = orcpt
        self.has_parameters = has_parameters
        self.needs_smtputf8 = not is_ascii
        self.is_plain = is_ascii and not has_parameters


class Content:
    """Decoded content. `slot` is None until the last piece, which may be empty; then its reply is due by `fill`.

    At the last piece the machine's `envelope` is that of this message.
    """

    __slots__ = ("data", "slot")

    def __init__(self, data: bytes, slot: ReplySlot | None) -> None:
        self.data = data
        self.slot = slot


class ContentRefused:
    """Forget what there is of the content: the machine refuses it itself, or the client took it back between chunks."""

    __slots__ = ()


class Login:
    """Credentials: answer with `accept` or `refuse`."""

    __slots__ = ("login", "password")

    def __init__(self, login: str, password: str) -> None:
        self.login = login
        self.password = password

    def __repr__(self) -> str:
        return f"Login({self.login!r}, <hidden>)"


class StartTls:
    """The 220 to STARTTLS is ready to be sent; then TLS starts, and `tls_started` once it is there."""

    __slots__ = ()


Event = MailFrom | RcptTo | Content | ContentRefused | Login | StartTls
