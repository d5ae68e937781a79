"""What a new data folder begins with: a sandbox, and an application for this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.application import SANDBOXES

if TYPE_CHECKING:
    from ..gateway import Gateway

_DONE = "first_start_done"

SANDBOX = {"name": "sandbox", "kind": "sandbox", "description": "captures what is sent; nothing leaves"}
LOCAL = {
    "name": "local",
    "description": "programs on this machine",
    "passwordless": True,
    "networks": ["127.0.0.0/8", "::1/128"],
    "senders": ["*"],
    "accounts": [SANDBOXES],
}


async def provision(gateway: Gateway) -> None:
    """Add the sandbox and the application `local`, once in the life of a folder: what a person removes stays away."""
    if _DONE in await gateway.store.settings():
        return
    if gateway.accounts.spelling(SANDBOX["name"]) is None:
        await gateway.accounts.add(SANDBOX)
    if all(application.name != LOCAL["name"] for application in gateway.applications.snapshot()):
        await gateway.applications.add(LOCAL)
    await gateway.store.save_setting(_DONE, "yes")
