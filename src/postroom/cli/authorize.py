"""`postroom accounts authorize`: a person consents in a browser on this machine or another, or by typing a code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

import typer

from ..errors import Fault, InvalidInput, NotRunning
from .connection import GatewayClient, run
from .options import AsJson, Data, quoted
from .output import plain, print_fields, print_json

#: What a browser may send at most before it gets its page.
_LONGEST_REQUEST = 16 * 1024

#: What the gateway may take to ask an authorization server, in seconds.
_PATIENCE = 150.0

_PAGE = """\
<!doctype html><meta charset="utf-8"><title>Postroom</title>
<p>Postroom has the answer. You can close this window and go back to the command line.</p>
"""


def authorize(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The account.")],
    device: Annotated[bool, typer.Option("--device", help="By a code that is typed on another device.")] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser, only print the address.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Forget what was consented to.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Let a person consent that the account sends in the name of its mailbox (OAuth 2); its mail goes on by itself."""
    path = f"/v1/accounts/{quoted(name)}/authorization"
    if forget and (device or no_browser):
        raise InvalidInput(Fault("--forget", "goes alone", "leave the other options out"))

    async def work(client: GatewayClient) -> Any:
        if forget:
            await client.ask("DELETE", path)
            return {"account": name, "authorization": None}
        current = (await client.ask("GET", path))["authorization"]
        if device or (current and current["flow"] == "device-code"):
            return await _by_code(client, path)
        return await _by_browser(client, path, opens=not no_browser)

    answer = run(data, work)
    if as_json:
        print_json(answer)
    elif forget:
        typer.echo(f"account {name} has forgotten what was consented to")
    else:
        typer.echo(f"account {answer['account']} is authorized")
        print_authorization(answer["authorization"])


def print_authorization(authorization: dict[str, Any] | None) -> None:
    """How an account stands with its authorization server."""
    if authorization is None:
        return
    told = dict(authorization)
    why = f": {told.pop('why')}" if told.get("why") else ""
    consent = f"{told.pop('state')}{why}"
    print_fields({"consent": consent} | {key: value for key, value in told.items() if key != "flow"})


def _tell(text: str = "") -> None:
    """What is said on the way goes to standard error: the result alone is for programs."""
    typer.echo(text, err=True)


async def _by_code(client: GatewayClient, path: str) -> Any:
    begun = await client.ask("POST", path, {"device": True}, patience_seconds=_PATIENCE)
    _tell(f"Open {plain(begun['verification_uri'])} and enter the code {plain(begun['user_code'])}")
    if begun["complete"]:
        _tell(f"or open {plain(begun['complete'])}")
    interval = _seconds(begun["interval"])
    _tell(f"waiting until {begun['expires']}")
    while True:
        await asyncio.sleep(interval)
        found = await client.ask("POST", f"{path}/poll", {"state": begun["state"]}, patience_seconds=_PATIENCE)
        if not found["waiting"]:
            return found
        interval += 5 if found["slower"] else 0


def _seconds(duration: str) -> float:
    from ..model.quantity import parse_duration

    return parse_duration(duration).total_seconds()


async def _by_browser(client: GatewayClient, path: str, *, opens: bool) -> Any:
    answered: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    async with _listening(answered) as port:
        begun = await client.ask("POST", path, {"port": port})
        _tell("Open this address in a browser and consent:")
        _tell(f"\n  {begun['url']}\n")
        _tell("If that browser is on another machine, its last page can't be shown: paste its address here.")
        with _pasted(answered):
            if opens and _has_a_screen():
                import webbrowser

                await asyncio.to_thread(webbrowser.open, begun["url"])
            left = datetime.fromisoformat(begun["expires"]) - datetime.now(UTC)
            try:
                async with asyncio.timeout(left.total_seconds()):
                    parameters = await answered
            except TimeoutError:
                raise NotRunning("nobody has consented in time: begin again") from None
    return await client.ask("POST", f"{path}/answer", {"parameters": parameters}, patience_seconds=_PATIENCE)


def _has_a_screen() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def parameters_of(address: str) -> dict[str, str] | None:
    """The parameters of a redirect's address, if it is an answer (RFC 6749 section 4.1.2)."""
    try:
        found = dict(parse_qsl(urlsplit(address.strip()).query, max_num_fields=50))
    except ValueError:
        return None
    return found if "state" in found and ("code" in found or "error" in found) else None


@contextlib.asynccontextmanager
async def _listening(answered: asyncio.Future[dict[str, str]]) -> AsyncIterator[int]:
    """The port on loopback where the browser's answer is waited for (RFC 8252 section 7.3)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode("ascii")
            found = parameters_of(target) if head.startswith(b"GET ") else None
            page = _PAGE.encode() if found is not None else b""
            status = "200 OK" if found is not None else "404 Not Found"
            writer.write(_response(status, page))
            await writer.drain()
            if found is not None and not answered.done():
                answered.set_result(found)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_LONGEST_REQUEST)
    port: int = server.sockets[0].getsockname()[1]
    servers = [server]
    with contextlib.suppress(OSError):  # where localhost is ::1 first, browsers go there
        servers.append(await asyncio.start_server(serve, "::1", port, limit=_LONGEST_REQUEST))
    try:
        yield port
    finally:
        for one in servers:
            one.close()
            await one.wait_closed()


def _response(status: str, page: bytes) -> bytes:
    # The address of the page holds the code: it is kept nowhere and told to nobody.
    fields = (
        f"HTTP/1.1 {status}", "Content-Type: text/html; charset=utf-8", f"Content-Length: {len(page)}",
        "Cache-Control: no-store", "Referrer-Policy: no-referrer", "Content-Security-Policy: default-src 'none'",
        "Connection: close", "", "",
    )  # fmt: skip
    return "\r\n".join(fields).encode("ascii") + page


@contextlib.contextmanager
def _pasted(answered: asyncio.Future[dict[str, str]]) -> Any:
    """Lines of standard input that are an answer's address count as one."""
    loop = asyncio.get_running_loop()
    rest = bytearray()

    def read() -> None:
        got = os.read(0, 65536)
        if not got:
            loop.remove_reader(0)
        rest.extend(got)
        while b"\n" in rest:
            line, _, left = bytes(rest).partition(b"\n")
            rest[:] = left
            found = parameters_of(line.decode("utf-8", "replace"))
            if found is not None and not answered.done():
                answered.set_result(found)
            elif line.strip():
                _tell("that is no answer's address: it has code= and state= in it")

    try:
        loop.add_reader(0, read)
    except (OSError, ValueError):  # a file, or none: nothing is typed there
        yield
        return
    try:
        yield
    finally:
        loop.remove_reader(0)
