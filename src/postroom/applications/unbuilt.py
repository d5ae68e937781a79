"""What applications may say and this release can't do yet: one list, from which an entry goes when it can.

Only what narrows an application down, or changes where its mail goes, is here: a right that nothing asks for yet does
no harm. Mail of an application that uses one of these is refused for the time being, and its sender keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..model.application import Application, HeaderDoor
from .fields import APPLICATION_FIELDS, DEFAULTS

#: Fields by name, and which of their values can't be done (of a list: which of its entries); none named: every one but
#: the default.
UNBUILT: Mapping[str, tuple[object, ...]] = {
    "owner": (),
    "header_doors": (HeaderDoor.TEMPLATE, HeaderDoor.SEND_AT, HeaderDoor.IDEMPOTENCY_KEY),
}


def _is_asked(application: Application, name: str, values: tuple[object, ...]) -> bool:
    value = APPLICATION_FIELDS[name].of(application)
    if isinstance(value, tuple) and values:
        return any(one in values for one in value)
    return bool(value != DEFAULTS[name])


def refusal(application: Application) -> str:
    """Why mail of `application` is not taken in this release; empty if it is."""
    names = [name for name, values in UNBUILT.items() if _is_asked(application, name, values)]
    if not names:
        return ""
    mend = f"postroom applications edit {application.name} --reset {names[0]}"
    shown = ", ".join(names)
    return f"application {application.name!r} uses what this release keeps but cannot obey yet: {shown} ({mend})"
