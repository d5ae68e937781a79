"""An HTTPS server on loopback that gives one answer to all, and keeps who asked for what."""

from __future__ import annotations

import http.server
import ssl
import threading
from types import TracebackType

import trustme


class PolicyHost:
    """Serves `body` by a certificate of `authority` for `names`, from entering to leaving the context."""

    def __init__(
        self, authority: trustme.CA, *names: str, body: bytes = b"", address: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.body = body
        self.status = 200
        self.headers = {"Content-Type": "text/plain"}
        self.asked: list[tuple[str, str]] = []
        self.names: list[str | None] = []  # that TLS asked for
        self.address = address
        self.port = port
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(*names).configure_cert(self._context)
        self._context.sni_callback = self._note
        self._server: http.server.ThreadingHTTPServer | None = None

    def _note(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        self.names.append(name)

    def __enter__(self) -> PolicyHost:
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append((self.headers["Host"], self.path))
                self.send_response(host.status)
                for name, value in host.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(host.body)))
                self.end_headers()
                self.wfile.write(host.body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is printed."""

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Clients that refuse the certificate are part of the tests."""

        self._server = Server((self.address, self.port), Handler)
        self._server.socket = self._context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
