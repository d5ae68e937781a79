"""Which SASL mechanism a client logs in with, and which one next when that was refused (RFC 4954 section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from . import ClientStepper
from .bearer import OAUTHBEARER, XOAUTH2
from .clear import LoginClient, PlainClient
from .cram_md5 import CramMd5Client
from .scram import SCRAM_SHA_1, SCRAM_SHA_256, ScramClient

_SCRAM = (SCRAM_SHA_256, SCRAM_SHA_1)
_CLEAR = (PlainClient.mechanism, LoginClient.mechanism)

#: To a server that is known for what it is, a password may go; CRAM-MD5 is there for what knows nothing else.
_VERIFIED_ORDER = (*_SCRAM, *_CLEAR, CramMd5Client.mechanism)
_ORDER = (*_SCRAM, CramMd5Client.mechanism, *_CLEAR)

#: Those that carry a token: what Google and Microsoft describe for their servers before the standard.
_TOKEN_ORDER = (XOAUTH2, OAUTHBEARER)


def mechanisms(offered: Sequence[str], *, only: str = "", is_verified: bool = False) -> list[str]:
    """The mechanisms of ours to try, in their order, of those `offered`; `only` (in capitals) leaves but that one.

    `is_verified`: over TLS with a server whose certificate was checked.
    """
    names = {name.upper() for name in offered}
    order = (only,) if only else _VERIFIED_ORDER if is_verified else _ORDER
    return [name for name in order if name in names]


def token_mechanisms(offered: Sequence[str], *, only: str = "") -> list[str]:
    """The mechanisms that carry a token, in their order, of those `offered`; `only` (in capitals) but that one."""
    names = {name.upper() for name in offered}
    return [name for name in ((only,) if only else _TOKEN_ORDER) if name in names]


def left_after(refused: str, code: int, left: Sequence[str], *, is_verified: bool = False) -> list[str]:
    """What of `left` may be tried after a reply with `code` to the mechanism `refused`.

    504: it is offered and not to be had, so that the next one may do. 534 and 535 to a mechanism with a challenge may
    mean that the server has but a hash of the password: once it goes itself, where it goes to nobody else.
    """
    if code == 504:
        return list(left)
    if code in (534, 535) and is_verified and not sends_clear_password(refused):
        return [name for name in left if sends_clear_password(name)][:1]
    return []


def sends_clear_password(mechanism: str) -> bool:
    """Whether who reads the exchange knows the password."""
    return mechanism in _CLEAR


def client_stepper(mechanism: str, login: str, password: str, nonce: str) -> ClientStepper:
    """A new exchange of `mechanism`, one of `mechanisms`.

    Raises:
        SaslError: user name or password cannot be sent by it.
    """
    if mechanism in _SCRAM:
        return ScramClient(mechanism, login, password, nonce)
    if mechanism == CramMd5Client.mechanism:
        return CramMd5Client(login, password)
    return (PlainClient if mechanism == PlainClient.mechanism else LoginClient)(login, password)
