"""What the server machine tells its driver, and the slot that keeps a late reply in its place."""

from __future__ import annotations


class ReplySlot:
    """The place of a reply that is not known yet; replies to later commands wait behind it (RFC 2920 section 3.2)."""

    __slots__ = ("behind", "reply")

    def __init__(self) -> None:
        self.reply: bytes | None = None
        self.behind: list[bytes] = []


class MailFrom:
    """MAIL: answer with `accept` or `refuse`. `path` is "" for the null reverse-path."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class RcptTo:
    """RCPT: answer with `accept` or `refuse`."""

    __slots__ = ("address",)

    def __init__(self, address: str) -> None:
        self.address = address


class Content:
    """Decoded content. `slot` is None until the last piece, which may be empty; then its reply is due by `fill`.

    At the last piece the machine's `reverse_path`, `recipients` and `eight_bit` are those of this message.
    """

    __slots__ = ("data", "slot")

    def __init__(self, data: bytes, slot: ReplySlot | None) -> None:
        self.data = data
        self.slot = slot


class ContentRefused:
    """Content came that will be refused at its end by the machine itself: forget what there is of it."""

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
