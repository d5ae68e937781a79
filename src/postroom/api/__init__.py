"""The REST API `/v1`; the control socket serves the same routes (SPEC section 4, doors 2 and 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from ..model.submission import Door
from . import (
    accounts,
    applications,
    authorizations,
    connection_tests,
    deliveries,
    events,
    explain,
    messages,
    presets,
    problems,
    rerouting,
    settings,
    status,
    suppressions,
)

if TYPE_CHECKING:
    from ..gateway import Gateway


def create_app(gateway: Gateway, door: Door = Door.REST) -> FastAPI:
    """The application over `gateway`; messages that come through it are noted as taken at `door`."""
    app = FastAPI(title="Postroom", version="1", openapi_url="/v1/openapi.json", docs_url=None, redoc_url=None)
    app.state.gateway = gateway
    app.state.door = door
    app.state.is_ending = lambda: False
    problems.install(app)
    parts = (
        accounts, authorizations, applications, connection_tests, rerouting, messages, deliveries, events, explain,
        presets, settings,
        status, suppressions,
    )  # fmt: skip
    for part in parts:
        app.router.routes.extend(part.routes.routes)  # `include_router` would build each again for each app
    return app
