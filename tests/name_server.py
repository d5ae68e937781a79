"""A DNS server on loopback whose zone the test writes; it answers over UDP and TCP and counts what it is asked."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections import Counter
from types import TracebackType

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

#: What stands in a zone for a server that fails, or says nothing.
SERVFAIL = "SERVFAIL"
SILENT = "SILENT"


class NameServer:
    """Names and types with their records, as in `{"y.test MX": ["10 mx.y.test."]}`.

    A name of which nothing is said does not exist; one of which something is said has no records of other types.
    """

    def __init__(self, zone: dict[str, list[str]] | None = None, ttl: int = 300) -> None:
        self.zone = dict(zone or {})
        self.ttl = ttl
        self.asked: Counter[str] = Counter()
        self.over_tcp = 0
        self.port = 0
        self._servers: list[socketserver.BaseServer] = []

    def __enter__(self) -> NameServer:
        outer = self

        class Udp(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                answer = outer.answer(self.request[0], longest=1232)
                if answer:
                    self.request[1].sendto(answer, self.client_address)

        class Tcp(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer.over_tcp += 1
                (length,) = struct.unpack("!H", self.rfile.read(2))
                answer = outer.answer(self.rfile.read(length), longest=65535)
                self.wfile.write(struct.pack("!H", len(answer)) + answer)

        while True:
            tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tcp)
            self.port = tcp.server_address[1]
            try:
                udp = socketserver.ThreadingUDPServer(("127.0.0.1", self.port), Udp)
            except OSError:
                tcp.server_close()
                continue
            break
        self._servers = [tcp, udp]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def address(self) -> str:
        """As the setting `dns.servers` has it."""
        return f"127.0.0.1:{self.port}"

    def answer(self, asked: bytes, longest: int) -> bytes:
        """The answer to one question, nothing where it stays silent."""
        query = dns.message.from_wire(asked)
        (question,) = query.question
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked[f"{name} {kind}"] += 1
        records = self.zone.get(f"{name} {kind}", [])
        if records == [SILENT]:
            return b""
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if records == [SERVFAIL]:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif not any(key.partition(" ")[0] == name for key in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif records:
            response.answer.append(dns.rrset.from_text_list(question.name, self.ttl, "IN", kind, records))
        try:
            return response.to_wire(max_size=longest)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()
