"""When to try again: a schedule as text, `1m, 5m*2, 15m, 1h*4, 4h`; the last step repeats (SPEC section 2.8)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import Fault, InvalidInput
from ..model.account import Retry
from ..model.quantity import QuantityFault, parse_duration

_STEP = re.compile(r"([0-9]{1,6})(ms|s|m|h|d)(?:\s*\*\s*([0-9]{1,4}))?\Z")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}

#: A delay varies by up to this share, so that deliveries that failed together do not come back together.
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """Delays before the second, third, ... try."""

    steps: tuple[timedelta, ...]

    @classmethod
    def parse(cls, text: str, field: str = "schedule") -> Schedule:
        """The schedule that `text` writes.

        Raises:
            InvalidInput: naming `field`, the step that can't be read and the mend.
        """
        steps: list[timedelta] = []
        for part in text.split(","):
            match = _STEP.match(part.strip())
            if not match:
                raise InvalidInput(Fault(field, f"{part.strip()!r} is not a step", "write steps as in 1m, 5m*2, 1h"))
            number, unit, times = match.groups()
            steps += [timedelta(seconds=int(number) * _UNITS[unit])] * int(times or 1)
        if not steps:
            raise InvalidInput(Fault(field, "has no step", "write steps as in 1m, 5m*2, 1h"))
        return cls(tuple(steps))

    def delay(self, failures: int) -> timedelta:
        """How long to wait after the failure number `failures` (from 1)."""
        return self.steps[min(max(failures, 1), len(self.steps)) - 1]


#: No retry window of a message or an account is longer, nor is anything given up later.
LONGEST = timedelta(days=365)


def own_terms(schedule: str, window: str, give_up: str) -> Retry | None:
    """The rules of retrying that a message brings, as its sender wrote them ("": those of its account); None without.

    Raises:
        InvalidInput: a fault for each of retry_schedule, retry_window and give_up that can't be read, with its mend.
    """
    if not (schedule or window or give_up):
        return None
    faults: list[Fault] = []
    if schedule:
        try:
            Schedule.parse(schedule, "retry_schedule")
        except InvalidInput as error:
            faults += error.faults
    lengths = [_length(name, text, faults) for name, text in (("retry_window", window), ("give_up", give_up))]
    if faults:
        raise InvalidInput(faults)
    return Retry(schedule=schedule, window=lengths[0], give_up=lengths[1])


def _length(field: str, text: str, faults: list[Fault]) -> timedelta | None:
    if not text:
        return None
    try:
        length = parse_duration(text)
    except QuantityFault as error:
        faults.append(Fault(field, error.fault, error.mend))
        return None
    if not timedelta(0) < length <= LONGEST:
        faults.append(Fault(field, f"{text} is not between 1ms and 365d", "write a time such as 2h or 5d"))
    return length


def jittered(delay: timedelta, random_unit: float) -> timedelta:
    """`delay` moved by at most the jitter; `random_unit` is in [0, 1)."""
    return delay * (1 - JITTER + 2 * JITTER * random_unit)


def window_has_ended(window_from: datetime, window: timedelta, next_try: datetime) -> bool:
    """Whether a next try at `next_try` would come after the retry window that began at `window_from`."""
    return next_try > window_from + window
