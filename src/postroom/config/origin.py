"""Where the value of a setting comes from."""

from __future__ import annotations

from enum import StrEnum


class Origin(StrEnum):
    """The sources of settings, the weakest first."""

    DEFAULT = "default"
    STORED = "stored"
    FILE = "file"
    ENVIRONMENT = "environment"
    GIVEN = "given at the start"  # by an option of the command, or by the program that embeds the gateway

    @property
    def is_locked(self) -> bool:
        """Whether the value can be changed there only."""
        return self not in (Origin.DEFAULT, Origin.STORED)
