"""Secrets in files that leave the machine: sealed under a passphrase, each in a block of its own.

The key comes from the passphrase by scrypt (RFC 7914), whose salt and costs the file names; a block is
ChaCha20-Poly1305 (RFC 8439) over the secret, bound to the account and field that it stands at. docs/accounts.md has
the format.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Any

from ..errors import Fault, InvalidInput

#: What a sealed secret begins with: the version of its form.
PREFIX = "sealed:1:"

SHORTEST_PASSPHRASE = 12
LONGEST_PASSPHRASE = 1024

_KDF = "scrypt"
_COSTS = {"n": 32768, "r": 8, "p": 3}  # 32 MiB and some tenths of a second for each guess
_MOST = {"n": 1 << 20, "r": 16, "p": 16}  # a file must not have us spend more
_MOST_BYTES = 256 * 1024 * 1024
_SALT_BYTES = 16
_NONCE_BYTES = 12
_NO_HEADER = "take the file as it was exported"


class PassphraseSeal:
    """Seals and opens the secrets of one file. Making one takes some tenths of a second of work: use a thread."""

    def __init__(self, passphrase: str, salt: bytes, costs: Mapping[str, int]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        key = Scrypt(salt=salt, length=32, **costs).derive(passphrase.encode())
        self._cipher = ChaCha20Poly1305(key)
        self._salt = salt
        self._costs = dict(costs)

    @classmethod
    def new(cls, passphrase: str) -> PassphraseSeal:
        """A seal for a new file.

        Raises:
            InvalidInput: the passphrase is too short or too long.
        """
        if not SHORTEST_PASSPHRASE <= len(passphrase) <= LONGEST_PASSPHRASE:
            fault = f"is {len(passphrase)} characters long"
            mend = f"write {SHORTEST_PASSPHRASE} to {LONGEST_PASSPHRASE}: several words that do not belong together"
            raise InvalidInput(Fault("passphrase", fault, mend))
        return cls(passphrase, os.urandom(_SALT_BYTES), _COSTS)

    @classmethod
    def of(cls, header: object, passphrase: str) -> PassphraseSeal:
        """The seal of a file whose table `sealing` is `header`.

        Raises:
            InvalidInput: there is no passphrase, or the table can't be obeyed.
        """
        costs, salt = _read_header(header)
        if not passphrase:
            fault = "there is none, and the file holds sealed secrets"
            raise InvalidInput(Fault("passphrase", fault, "give the one that they were exported with"))
        return cls(passphrase[:LONGEST_PASSPHRASE], salt, costs)

    def header(self) -> dict[str, object]:
        """The table `sealing` of the file."""
        return {"kdf": _KDF, **self._costs, "salt": base64.b64encode(self._salt).decode()}

    def seal(self, secret: str, account: str, field: str) -> str:
        """The block of a secret."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, secret.encode(), _place(account, field))
        return PREFIX + base64.b64encode(nonce + sealed).decode()

    def open(self, block: str, account: str, field: str) -> str:
        """The secret of a block.

        Raises:
            ValueError: another passphrase, another place, or the block was changed.
        """
        from cryptography.exceptions import InvalidTag

        try:
            sealed = base64.b64decode(block.removeprefix(PREFIX), validate=True)
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _place(account, field))
            return opened.decode()
        except (InvalidTag, binascii.Error, UnicodeDecodeError) as error:
            raise ValueError("it does not open") from error


def _place(account: str, field: str) -> bytes:
    return f"postroom accounts 1\0{account.lower()}\0{field}".encode()


def _read_header(header: object) -> tuple[dict[str, int], bytes]:
    if not isinstance(header, Mapping):
        raise InvalidInput(Fault("sealing", "there is no such table, and secrets are sealed", _NO_HEADER))
    values: dict[str, Any] = dict(header)
    if values.pop("kdf", None) != _KDF:
        raise InvalidInput(Fault("sealing.kdf", f"{header.get('kdf')!r} is not known", f"it is {_KDF!r}; {_NO_HEADER}"))
    salt_text, costs = values.pop("salt", None), {}
    for name, most in _MOST.items():
        value = values.pop(name, None)
        if type(value) is not int or not 1 <= value <= most:
            raise InvalidInput(Fault(f"sealing.{name}", f"{value!r} can't be used", _NO_HEADER))
        costs[name] = value
    if values:
        raise InvalidInput(Fault(f"sealing.{next(iter(values))}", "is not known", _NO_HEADER))
    n = costs["n"]
    if n < 2 or n & (n - 1) or 128 * n * costs["r"] > _MOST_BYTES:
        raise InvalidInput(Fault("sealing.n", f"{n} can't be used", _NO_HEADER))
    try:
        salt = base64.b64decode(str(salt_text), validate=True)
    except binascii.Error:
        salt = b""
    if not _SALT_BYTES <= len(salt) <= 64:
        raise InvalidInput(Fault("sealing.salt", "can't be used", _NO_HEADER))
    return costs, salt
