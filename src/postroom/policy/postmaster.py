"""The postmaster as everybody's sender (SPEC section 2.5): an address that is nobody else's."""

from __future__ import annotations

from collections.abc import Iterable

from ..model.application import Application


def named_by(postmaster: str, applications: Iterable[Application]) -> tuple[str, ...]:
    """What else `postmaster` is: the address of an application, or one that an application may send as by its name.

    Patterns for many addresses do not count. Nothing is anything to an empty address.
    """
    wanted = postmaster.lower()
    found = []
    for application in applications if wanted else ():
        if application.address.lower() == wanted:
            found.append(f"the address of application {application.name}")
        if wanted in application.senders:  # patterns are in small letters
            found.append(f"an allowed sender of application {application.name}")
    return tuple(found)
