"""What the store asks of the keys that it is given."""

from __future__ import annotations

from typing import Protocol


class Keyring(Protocol):
    """Seals what must not be readable on disk."""

    def seal(self, secret: bytes) -> bytes:
        """`secret` encrypted and authenticated."""

    def open(self, sealed: bytes) -> bytes:
        """What was sealed."""
