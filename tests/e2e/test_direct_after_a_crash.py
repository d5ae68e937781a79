"""SIGKILL while hosts of several domains have mail that they did not answer: nothing is lost, little comes twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.traffic import free_port
from tests.conftest import end_serving, start_serving
from tests.e2e.scripted_relay import Background
from tests.interop.gateway import Gateway, a_message
from tests.name_server import NameServer
from tests.smarthost import Smarthost

DOMAINS = 4
EACH = 3


@pytest.fixture
def background() -> Iterator[Background]:
    """Where the hosts run."""
    made = Background()
    yield made
    made.close()


def test_what_a_crash_cut_off_comes_once_or_twice_and_is_marked(tmp_path: Path, background: Background) -> None:
    port = free_port()
    hosts = [Smarthost(address=f"127.0.2.{n + 1}", port=port) for n in range(DOMAINS)]
    for host in hosts:
        background.run(host.start())
        background.run(set_gate(host, is_open=False))
    zone = {f"d{n}.test A": [host.address] for n, host in enumerate(hosts)}
    recipients = [f"r{m}@d{n}.test" for m in range(EACH) for n in range(DOMAINS)]
    with NameServer(zone) as names:
        environment = {"POSTROOM_DNS__SERVERS": json.dumps([names.address])}
        served = start_serving(tmp_path, '[{"address": "127.0.0.1", "port": 0}]', **environment)
        try:
            gateway = Gateway(served)
            served.run("accounts", "add", "mx", "--kind", "direct", "--mx-port", str(port), "--max-connections", "8")
            gateway.add_application("mx", account="mx")
            ids = gateway.submit_each("mx", {recipient: a_message(recipient) for recipient in recipients})
            while sum(host.contents for host in hosts) < DOMAINS:
                assert served.process.poll() is None
            served.kill()
        finally:
            end_serving(served)
        open_at_the_kill = sum(host.connections for host in hosts)
        for host in hosts:
            background.run(set_gate(host, is_open=True))
        again = start_serving(tmp_path, '[{"address": "127.0.0.1", "port": 0}]', **environment)
        try:
            after = Gateway(again)
            marked = {}
            for recipient, message in zip(recipients, ids, strict=True):
                (row,) = after.ended(message).values()
                assert row["state"] == "delivered", row
                marked[recipient] = any("sent twice" in mark for mark in row["marks"])
            assert again.stop() == 0
        finally:
            end_serving(again)
    for host in hosts:
        background.run(host.stop())
    copies = Counter(recipient for host in hosts for taken in host.taken for recipient in taken.recipients)
    assert set(copies) == set(recipients)
    assert 0 < sum(marked.values()) <= 3 * open_at_the_kill
    assert 0 < sum(count - 1 for count in copies.values()) <= 2 * open_at_the_kill
    assert [recipient for recipient, count in copies.items() if count > 1 and not marked[recipient]] == []


async def set_gate(host: Smarthost, *, is_open: bool) -> None:
    """Whether contents are answered."""
    if is_open:
        host.gate.set()
    else:
        host.gate.clear()
