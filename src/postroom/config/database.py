"""Where the store is: a file in the data folder, or a PostgreSQL database by its URL, whose password is never shown."""

from __future__ import annotations

import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from .quantities import fault

_MEND = "write postgresql://USER:PASSWORD@HOST:PORT/NAME, or leave it empty for SQLite in the data folder"

#: All between the user's name and the last @: who forgets to write an @ as %40 has a password with one in it.
_PASSWORD = re.compile(r"(://[^:@/?#]*):.*@")
_PARAMETER = re.compile(r"([?&](?:password|sslpassword)=)[^&]*", re.IGNORECASE)
HIDDEN = "***"


class DatabaseUrl:
    """`postgresql://...`, or empty for SQLite; as text without its password, which `reveal` has."""

    __slots__ = ("_url",)

    def __init__(self, url: str = "") -> None:
        self._url = url

    def reveal(self) -> str:
        """The whole URL, for the driver alone."""
        return self._url

    def __str__(self) -> str:
        return _PARAMETER.sub(rf"\1{HIDDEN}", _PASSWORD.sub(rf"\1:{HIDDEN}@", self._url))

    def __repr__(self) -> str:
        return f"DatabaseUrl({str(self)!r})"

    def __bool__(self) -> bool:
        return bool(self._url)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatabaseUrl) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._parse, serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json")
        )

    @classmethod
    def _parse(cls, value: object) -> DatabaseUrl:
        if isinstance(value, DatabaseUrl):
            return value
        if not isinstance(value, str):
            raise fault("is not text", _MEND)
        if value and not value.startswith(("postgresql://", "postgres://")):
            kind = value.partition("://")[0] if "://" in value else ""
            known = re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", kind)
            raise fault(f"{kind} is not supported" if known else "is not a URL of PostgreSQL", _MEND)
        return cls(value)
