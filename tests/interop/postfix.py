"""A private Postfix, as a relay and as a client: see bench/gateways.py for what it is made of."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.gateways import Postfix
from tests.conftest import PEERS_MUST_BE_THERE, find_peer
from tests.interop.conftest import Certificates


@contextmanager
def running_postfix(
    certificates: Certificates, relay_port: int, main_cf: str = "postfix.cf", services: str = "", **names: str
) -> Iterator[Postfix]:
    """One that sends all to `relay_port` as `main_cf` says, with `services` beside those of bench/postfix/master.cf;
    {...} in there is filled in from `names`, too."""
    find_peer("postfix")
    if os.geteuid() != 0:
        if PEERS_MUST_BE_THERE:
            pytest.fail("a private Postfix needs root", pytrace=False)
        pytest.skip("a private Postfix needs root")
    folder = Path(tempfile.mkdtemp(prefix="postroom-postfix-"))
    folder.chmod(0o755)  # Postfix's own user must get through; pytest's folders are closed
    names |= {"chain": str(folder / "chain.pem"), "ca": str(folder / "ca.pem"), "log": str(maillog(folder))}
    shutil.copyfile(certificates.chain, names["chain"])
    shutil.copyfile(certificates.ca, names["ca"])
    postfix = Postfix(Path(__file__).with_name(main_cf), folder, relay_port, services, **names)
    try:
        postfix.start()
        yield postfix
    finally:
        postfix.stop()
        shutil.rmtree(folder)


def maillog(folder: Path) -> Path:
    """Where its log lies."""
    return folder / "maillog"


def log_of(postfix: Postfix) -> str:
    """Its log so far."""
    return maillog(postfix.folder.parent).read_text("utf-8", "replace")
