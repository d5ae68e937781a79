"""What was sent, as limits count it (SPEC section 2.7): rows that survive a restart."""

from __future__ import annotations

from .record import record

#: The span of the row that keeps when the last message of a meter started: in `count`, under bucket 0.
LAST = "last"

#: Spans of sends of which only the time is known, the bucket: what was under way at a crash. They count in every span.
MESSAGES_AT = "messages/at"
RECIPIENTS_AT = "recipients/at"


@record
class Usage:
    """`count` more in a bucket of a meter's span; worthless from `ends` on. Times are microseconds of the clock of
    limits, which starts at the time of day and never goes back.

    A meter is an account, a quota group or an application; a span and its buckets are those of `policy.limits.Span`.
    """

    meter: str
    span: str
    bucket: int
    count: int
    ends: int


def lane_meter(lane: int) -> str:
    """The meter under which what was under way on a lane at a crash is kept."""
    return f"lane/{lane}"
