"""What applications may say and this release can't do yet: one list, from which an entry goes when it can.

Only what narrows an application down, or changes where its mail goes, is here: a right that nothing asks for yet does
no harm. Mail of an application that uses one of these is refused for the time being, and its sender keeps it.
"""

from __future__ import annotations

from ..model.application import Application
from .fields import APPLICATION_FIELDS, DEFAULTS

UNBUILT = (
    "owner",
    "header_doors",
    "apply_suppressions",
    "send_interval",
    "messages_per_second",
    "messages_per_minute",
    "messages_per_hour",
    "messages_per_day",
    "recipients_per_day",
    "repeat_guard",
)


def refusal(application: Application) -> str:
    """Why mail of `application` is not taken in this release; empty if it is."""
    names = [name for name in UNBUILT if APPLICATION_FIELDS[name].of(application) != DEFAULTS[name]]
    if not names:
        return ""
    mend = f"postroom applications edit {application.name} --reset {names[0]}"
    shown = ", ".join(names)
    return f"application {application.name!r} uses what this release keeps but cannot obey yet: {shown} ({mend})"
