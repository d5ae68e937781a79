"""`/v1/applications`: who may submit. A generated password is in the answer that made it, and never again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import WithJsonSchema

from ..gateway import APPLICATION_DEFAULTS, APPLICATION_FIELDS
from .parts import TheGateway
from .schema import fields_schema

routes = APIRouter(prefix="/v1/applications", tags=["applications"])

_SCHEMA = fields_schema(APPLICATION_FIELDS, APPLICATION_DEFAULTS)

Fields = Annotated[dict[str, Any], Body(description="fields of an application by name"), WithJsonSchema(_SCHEMA)]


@routes.get("")
async def list_applications(gateway: TheGateway) -> dict[str, Any]:
    """All applications by name."""
    return {"applications": [gateway.applications.show(one) for one in gateway.applications.snapshot()]}


@routes.post("", status_code=201)
async def add_application(gateway: TheGateway, fields: Fields) -> dict[str, Any]:
    """Add an application; `password` is its generated password, empty for a passwordless one."""
    application, password = await gateway.applications.add(fields)
    return gateway.applications.show(application) | {"password": password}


@routes.get("/{name}")
async def get_application(gateway: TheGateway, name: str) -> dict[str, Any]:
    """One application."""
    return gateway.applications.show(gateway.applications.get(name))


@routes.patch("/{name}")
async def edit_application(gateway: TheGateway, name: str, fields: Fields) -> dict[str, Any]:
    """Change the fields given."""
    return gateway.applications.show(await gateway.applications.edit(name, fields))


@routes.post("/{name}/rotate")
async def rotate_password(gateway: TheGateway, name: str) -> dict[str, Any]:
    """Give the application a new generated password; the old one ends at once."""
    return {"password": await gateway.applications.rotate(name)}
