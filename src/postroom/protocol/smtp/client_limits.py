"""What a server says it takes on one connection and in one transaction: the LIMITS extension (RFC 9422)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

# RFC 9422 section 4: each of the three is a number of 1 to 999999 without leading zeros.
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True)
class OfferedLimits:
    """The limits of LIMITS; None where the server names none.

    `mails`: MAIL commands on one connection (MAILMAX); `recipients`: RCPT commands in one transaction (RCPTMAX);
    `recipient_domains`: different domains in them (RCPTDOMAINMAX).
    """

    mails: int | None = None
    recipients: int | None = None
    recipient_domains: int | None = None

    @classmethod
    def parse(cls, parameters: str) -> OfferedLimits:
        """The limits in the parameters of LIMITS.

        What is not written as RFC 9422 section 4 says, and what it does not define, is ignored; of a limit that is
        given more than once, the smallest counts.
        """
        found: dict[str, int] = {}
        for parameter in parameters.split(" "):
            name, _, value = parameter.partition("=")
            if _NUMBER.fullmatch(value) is not None:
                name = name.upper()
                found[name] = min(int(value), found.get(name, 999_999))
        return cls(found.get("MAILMAX"), found.get("RCPTMAX"), found.get("RCPTDOMAINMAX"))


def believe_less(
    extensions: dict[str, str], limits: OfferedLimits | None, *, plain: bool, most_recipients: int | None
) -> OfferedLimits | None:
    """For a server that takes less than it offers: with `plain` no parameters that may be left out (taken out of
    `extensions`), at most `most_recipients` in one transaction. The limits to keep to."""
    for keyword in ("SIZE", "8BITMIME", "DSN") if plain else ():
        extensions.pop(keyword, None)
    if most_recipients is None:
        return limits
    limits = limits or OfferedLimits()
    return replace(limits, recipients=min(most_recipients, limits.recipients or most_recipients))
