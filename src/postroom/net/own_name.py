"""The name of this machine."""

from __future__ import annotations

import asyncio
import socket

#: How long the resolver may take to tell the machine's own name at start.
NAME_SECONDS = 2.0


async def own_name() -> str:
    """The machine's fully qualified name if it has one, else the name it has."""
    name = socket.gethostname()
    if "." in name:
        return name
    try:
        async with asyncio.timeout(NAME_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, flags=socket.AI_CANONNAME)
    except (OSError, TimeoutError):
        return name
    return next((canonical for *_, canonical, _ in found if "." in canonical), name)
