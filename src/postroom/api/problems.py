"""Errors as problem details (RFC 9457): `type`, `title`, `status`, `detail`, and `errors` of field, fault and mend."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from ..errors import Fault, GatewayError, InvalidInput, LimitReached, NotFound, Refused, edge

MEDIA_TYPE = "application/problem+json"

#: `type` of a problem is this and the error's class in small letters, words parted by `-`.
TYPE_PREFIX = "urn:postroom:"

_log = structlog.get_logger()


def problem_type(cls: type[GatewayError]) -> str:
    """The `type` of problems that errors of `cls` become."""
    return TYPE_PREFIX + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()


def describe(error: GatewayError) -> dict[str, Any]:
    """The body of the problem that tells `error`."""
    told = edge(error)
    body: dict[str, Any] = {
        "type": problem_type(type(error)),
        "title": HTTPStatus(told.http_status).phrase,
        "status": told.http_status,
        "detail": str(error),
    }
    if isinstance(error, InvalidInput):
        body["errors"] = [{"field": fault.field, "fault": fault.fault, "mend": fault.mend} for fault in error.faults]
    if isinstance(error, Refused):
        body["enhanced_status"] = error.status
    return body


def respond(error: GatewayError) -> JSONResponse:
    """The response that tells `error`."""
    body = describe(error)
    headers = {}
    if isinstance(error, LimitReached) and error.retry_after is not None:
        headers["Retry-After"] = f"{error.retry_after.total_seconds():.0f}"  # RFC 9110 section 10.2.3
    return JSONResponse(body, body["status"], headers, media_type=MEDIA_TYPE)


async def _told(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, GatewayError)
    return respond(error)


async def _bad_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = []
    for entry in error.errors():
        place, *path = (str(part) for part in entry["loc"])
        message = str(entry["msg"])
        mend = "it is not known; `/v1/openapi.json` lists what is" if entry["type"] == "extra_forbidden" else ""
        faults.append(Fault(".".join(path) or place, message[:1].lower() + message[1:], mend))
    return respond(InvalidInput(faults))


async def _no_such_path(request: Request, _: Exception) -> JSONResponse:
    return respond(NotFound(Fault("path", f"there is nothing at {request.url.path}", "see /v1/openapi.json")))


async def _not_so(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: a method that a path does not have, a body that can't be read."""
    status = HTTPStatus(getattr(error, "status_code", HTTPStatus.BAD_REQUEST))
    detail = f"{request.method} {request.url.path}: {getattr(error, 'detail', status.phrase)}"
    body = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail}
    return JSONResponse(body, status, media_type=MEDIA_TYPE, headers=getattr(error, "headers", None))


async def _failed(request: Request, error: Exception) -> JSONResponse:
    # The cause is for the log alone.
    _log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return respond(GatewayError("something went wrong inside the gateway; its log says what"))


def install(app: FastAPI) -> None:
    """Let every error of `app` be told as a problem."""
    app.add_exception_handler(GatewayError, _told)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(HTTPStatus.NOT_FOUND, _no_such_path)
    app.add_exception_handler(HTTPStatus.METHOD_NOT_ALLOWED, _not_so)
    app.add_exception_handler(HTTPStatus.BAD_REQUEST, _not_so)
    app.add_exception_handler(Exception, _failed)
