"""Secrets at rest: sealed with a key that lies outside the database, or kept only as a keyed hash (SPEC section 9)."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from .config import Settings
from .config.folder import sync_folder, unusable
from .crashing import reach
from .errors import Fault, InvalidInput

KEYS_VARIABLE = "POSTROOM_KEYS"
KEYS_FILE = "keys"
CREDENTIAL = "postroom-keys"  # the name in systemd's credentials directory

#: What generated passwords are made of: letters and digits that are not mistaken for one another.
_LETTERS = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_PASSWORD_LENGTH = 32
_KEY_ID_BYTES = 4

#: Passwords that a person chose are guessed where the generated ones can't be, so a guess must cost: scrypt (RFC 7914)
#: with these parameters takes some 10 ms and 4 MiB. A credential with a salt in it is of such a one.
_SALT_BYTES = 16
_SCRYPT = {"n": 2**12, "r": 8, "p": 1, "dklen": 32}
_CHOSEN_BYTES = _KEY_ID_BYTES + _SALT_BYTES + 32


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """Whether a key was added, and of how many accounts the secrets were sealed anew."""

    added: bool
    resealed: int


class Keyring:
    """Keys for sealing and hashing. The first seals; every one opens, so a key is replaced by adding one above it."""

    def __init__(self, keys: Sequence[str | bytes], file: Path | None = None) -> None:
        self._file = file  # where they were read, and where one more can be written
        self._one_rotation = threading.Lock()
        self._right: dict[bytes, bytes] = {}  # by credential: the quick hash of a chosen password that was right
        self._take([key.encode() if isinstance(key, str) else key for key in keys])

    def _take(self, material: list[bytes]) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key) for key in material])
        except ValueError as error:
            raise InvalidInput(Fault("keys", f"a key can't be used: {error}", _KEY_MEND)) from None
        self._hash_keys = {
            hashlib.blake2b(key, digest_size=_KEY_ID_BYTES, person=b"key id").digest(): hashlib.blake2b(
                key, digest_size=32, person=b"credentials"
            ).digest()
            for key in material
        }

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._hash_keys)}>"

    def seal(self, secret: bytes) -> bytes:
        """`secret` encrypted and authenticated under the first key."""
        return self._fernet.encrypt(secret)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed under any of the keys.

        Raises:
            InvalidInput: no key opens it.
        """
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            fault = "none of the keys opens what is stored"
            raise InvalidInput(
                Fault("keys", fault, "put back the keys file that this data folder was used with")
            ) from None

    def hash_credential(self, password: str) -> bytes:
        """The keyed hash of a generated password: the key's id (4 octets) and BLAKE2b-256 under it."""
        key_id, key = next(iter(self._hash_keys.items()))
        return key_id + _keyed_hash(key, password)

    def hash_chosen(self, password: str) -> bytes:
        """The keyed hash of a password that a person chose: the key's id, a salt, BLAKE2b-256 of what scrypt made."""
        key_id, key = next(iter(self._hash_keys.items()))
        salt = os.urandom(_SALT_BYTES)
        return key_id + salt + _slow_hash(key, password, salt)

    def verify_credential(self, password: str, credential: bytes) -> bool:
        """Whether `credential` is the hash of `password` under one of the keys, in the same time for any password that
        is wrong; a chosen one that was right once is known again at once."""
        key = self._hash_keys.get(credential[:_KEY_ID_BYTES])
        quick = _keyed_hash(key or bytes(32), password)
        if not is_chosen(credential):
            return hmac.compare_digest(quick, credential[_KEY_ID_BYTES:]) and key is not None
        if hmac.compare_digest(quick, self._right.get(credential, b"")):
            return True
        salt, expected = credential[_KEY_ID_BYTES:-32], credential[-32:]
        is_right = hmac.compare_digest(_slow_hash(key or bytes(32), password, salt), expected) and key is not None
        if is_right:
            self._right[credential] = quick
        return is_right

    def digest(self, data: bytes) -> bytes:
        """A keyed hash of 16 octets under the first key, by which the same is found again: BLAKE2b."""
        key = next(iter(self._hash_keys.values()))
        return hashlib.blake2b(data, key=key, digest_size=16, person=b"same mail").digest()

    def knows(self, credential: bytes) -> bool:
        """Whether the key under which `credential` was made is among these."""
        return credential[:_KEY_ID_BYTES] in self._hash_keys

    def rotate(self) -> bool:
        """Put a new key above the others, in the file first; False where the keys do not come from a file of ours.

        Raises:
            InvalidInput: the file can't be written; nothing has changed then.
        """
        if self._file is None:
            return False
        with self._one_rotation:  # a second one must read what the first has written, or its key would be lost
            return self._rotate(self._file)

    def _rotate(self, file: Path) -> bool:
        text = Fernet.generate_key().decode() + "\n" + file.read_text("ascii")
        try:
            _replace(file, text)
        except OSError as error:
            fault = f"{file} can't be written: {error.strerror}"
            raise InvalidInput(Fault("keys", fault, "make room, or give this user the right to it")) from None
        self._take([key.encode() for key in _keys_of(text)])
        return True

    @classmethod
    def load(cls, data: Path, settings: Settings) -> Keyring:
        """The keys of this process: from POSTROOM_KEYS, systemd's credentials directory, or the file in `data`.

        The file is made when there is none, and no database yet that could hold what other keys have sealed.

        Raises:
            InvalidInput: the keys are missing, unreadable, open to others or no keys.
            GatewayError: they can't be made.
        """
        text, source = os.environ.get(KEYS_VARIABLE, ""), KEYS_VARIABLE
        directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
        if not text and directory and (Path(directory) / CREDENTIAL).is_file():
            text, source = (Path(directory) / CREDENTIAL).read_text("ascii"), f"{directory}/{CREDENTIAL}"
        file = None
        if not text:
            file = data / KEYS_FILE
            text, source = _read_or_make(file, settings.database_path.exists()), str(file)
        keys = _keys_of(text)
        if not keys:
            raise InvalidInput(Fault("keys", f"{source} holds no key", _KEY_MEND))
        return cls(keys, file)


_KEY_MEND = "a key is 32 octets in URL-safe base64, one a line"


def _keys_of(text: str) -> list[str]:
    return [key for line in text.splitlines() for key in re.split(r"[,\s]+", line.partition("#")[0]) if key]


def _keyed_hash(key: bytes, password: str) -> bytes:
    return hashlib.blake2b(password.encode("utf-8", "surrogatepass"), key=key, digest_size=32).digest()


def _slow_hash(key: bytes, password: str, salt: bytes) -> bytes:
    slow = hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, **_SCRYPT)
    return hashlib.blake2b(slow, key=key, digest_size=32).digest()


def is_chosen(credential: bytes) -> bool:
    """Whether it is of a password that a person chose."""
    return len(credential) == _CHOSEN_BYTES


def _read_or_make(path: Path, in_use: bool) -> str:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if in_use:
            fault = f"{path} is missing and the folder holds data sealed with it"
            raise InvalidInput(Fault("keys", fault, f"put it back, or give the keys in {KEYS_VARIABLE}")) from None
        try:
            _make(path)
            mode = path.stat().st_mode
        except OSError as error:
            raise unusable(path, error) from None
    if mode & 0o077:
        raise InvalidInput(Fault("keys", f"{path} is open to other users", f"chmod 600 {path}"))
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(Fault("keys", f"{path} can't be read: {error}", "check its owner and content")) from None


def _make(path: Path) -> None:
    """Make the file whole or not at all: written beside its place, then linked to a name that is still free."""
    fresh = _write_beside(path, Fernet.generate_key().decode() + "\n")
    try:
        os.link(fresh, path)
    except FileExistsError:
        return  # another process was first; its keys count
    finally:
        fresh.unlink()
    sync_folder(path.parent)


def _replace(path: Path, text: str) -> None:
    """Replace the file whole or not at all; what a crash left beside it goes too."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)
    fresh = _write_beside(path, text)
    reach("D8-keys")
    try:
        os.replace(fresh, path)
    except OSError:
        fresh.unlink()
        raise
    sync_folder(path.parent)


def _write_beside(path: Path, text: str) -> Path:
    """A new file (0600, under O_EXCL) in the folder of `path`, durable."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        fresh.unlink()
        raise
    return fresh


def generate_password() -> str:
    """A new password of 185 bits, easy to read out and to select with a double click."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_PASSWORD_LENGTH))


@contextlib.contextmanager
def made_keys_go_again(folder: Path, settings: Settings) -> Iterator[None]:
    """A keys file that was made for a database elsewhere stays only if that database opens with it: else the right one
    would not be asked for any more."""
    keys = folder / KEYS_FILE
    were_there = keys.exists()
    try:
        yield
    except BaseException:
        if settings.database and not were_there:
            keys.unlink(missing_ok=True)
        raise
