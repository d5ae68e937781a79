"""Who may speak on the control socket."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

import pytest

from postroom.api.control import _listen, _may_connect


class Peer:
    """A connected socket whose other end belongs to a user."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """See socket.getsockopt."""
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
        return struct.pack("3i", 4711, self._uid, 0)


@pytest.mark.parametrize(("uid", "may"), [(1000, True), (0, True), (1001, False)])
def test_only_the_owner_and_root(monkeypatch: pytest.MonkeyPatch, uid: int, may: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _may_connect(Peer(uid)) is may  # type: ignore[arg-type]


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert _may_connect(one)


def test_the_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    _listen(path).close()
    assert path.is_socket()
    listener = _listen(path)
    with listener, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client.connect(str(path))


def test_a_file_in_its_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        _listen(path)
    assert path.read_text() == "mine"
