"""What a message asks for by fields of its header, where its application has the right (SPEC section 4, door 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..errors import Fault, InvalidInput
from ..mime.head import HeadFields
from ..mime.words import read_text
from ..model.application import HeaderDoor
from ..model.submission import Door, Submission, check_tag, parse_priority


def _account(submission: Submission, value: str) -> Submission:
    return replace(submission, account=value)


def _tag(submission: Submission, value: str) -> Submission:
    check_tag(value)
    return replace(submission, tag=value)


def _priority(submission: Submission, value: str) -> Submission:
    return replace(submission, priority=parse_priority(value, "X-Postroom-Priority"))


_DOORS: dict[HeaderDoor, Callable[[Submission, str], Submission]] = {
    HeaderDoor.ACCOUNT: _account,
    HeaderDoor.TAG: _tag,
    HeaderDoor.PRIORITY: _priority,
}


def obeyed(submission: Submission, fields: HeadFields) -> Submission:
    """The submission as the fields ask for it that its application may use; other doors have parameters for that.

    Raises:
        InvalidInput: a field stands there twice, is empty, or its value can't be.
    """
    if submission.door is not Door.SMTP:
        return submission
    for door in submission.application.header_doors:
        obey = _DOORS.get(door)
        values = fields.all(b"x-postroom-" + door.encode()) if obey is not None else []
        if obey is None or not values:
            continue
        value = read_text(values[0]).strip()
        if len(values) > 1 or not value:
            fault = "there are several" if len(values) > 1 else "it is empty"
            raise InvalidInput(Fault(f"X-Postroom-{door.title()}", fault, "write one value, or leave the field out"))
        submission = obey(submission, value)
    return submission
