"""The data folder: private to its owner, and used by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Generator
from pathlib import Path
from types import TracebackType

from ..errors import Fault, GatewayError, InvalidInput, NotRunning, StorageFull

LOCK_NAME = "postroom.lock"

#: Why a folder is locked, as it stands in the lock.
SERVE = "serve"
COMMAND = "command"

#: How long a starting gateway waits for a command to end.
COMMAND_SECONDS = 10.0

#: sun_path of the BSDs, the shorter one, without its final zero.
_LONGEST_PATH = 103


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM})


def unusable(path: Path, error: OSError) -> GatewayError:
    """Why a file of the data folder, or the folder itself, can't be used, and the mend."""
    if error.errno in _NO_ROOM:
        return StorageFull(f"there is no room for {path}: make room on its file system, then try again")
    if error.errno in _NO_DESCRIPTOR:
        return NotRunning(f"no file descriptor is left for {path}: raise the limit (ulimit -n, or LimitNOFILE=)")
    if error.errno == errno.EROFS:
        fault, mend = f"{path} is on a file system that is read-only", "mount it for writing (the kernel's log says why"
        return InvalidInput(Fault("data", fault, f"{mend} it is so), or name another folder with --data"))
    if error.errno in _NO_RIGHT:
        mend = f"run as its owner, or hand it over: chown -R {os.geteuid()} {path.parent}; chmod 600 {path}"
        return InvalidInput(Fault("data", f"{path} can't be opened for writing by this user", mend))
    mend = "name another folder with --data or POSTROOM_DATA, or give this user the right to it"
    return InvalidInput(Fault("data", f"{path} can't be used: {error.strerror or error}", mend))


def make_data_folder(data: Path) -> None:
    """Make the folder with mode 0700 if there is none, and close it to other users if it was open.

    Raises:
        InvalidInput: it can't be made, is no folder, or belongs to somebody else.
        StorageFull: there is no room for it.
    """
    try:
        made = [folder for folder in (data, *data.parents) if not folder.exists()]
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in made:
            sync_folder(folder.parent)  # else a power cut could take the folder away with everything in it
        owner = data.stat().st_uid
        if owner != os.geteuid():
            mend = f"run as that user, or hand it over: chown -R {os.geteuid()} {data}"
            raise InvalidInput(Fault("data", f"{data} belongs to the user with the id {owner}", mend))
        data.chmod(0o700)
    except OSError as error:
        raise unusable(data, error) from None


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FolderLock:
    """The right to be the one process on a data folder; the kernel gives it back when the process ends."""

    def __init__(self, data: Path, purpose: str = COMMAND) -> None:
        self.path = data / LOCK_NAME
        self._purpose = purpose
        self._descriptor = -1

    def take(self) -> bool:
        """Take the lock if it is free, and write this process's id into it; whether it is held now.

        Raises:
            GatewayError: the file can't be made or opened.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable(self.path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # on a full disk the lock holds, and only does not say whose it is
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {self._purpose}\n".encode(), 0)
        return True

    def give_back(self) -> None:
        """Let the next process in; safe to call twice."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def holder(self) -> int:
        """The process that holds the lock, 0 when it can't be told."""
        return int(self._content()[0])

    def _content(self) -> tuple[str, str]:
        """Process id and purpose of the holder; "0" when it can't be told."""
        try:
            pid, _, purpose = self.path.read_text("ascii").strip().partition(" ")
        except (OSError, ValueError):
            return "0", ""
        return (pid if pid.isascii() and pid.isdigit() else "0"), purpose

    def __enter__(self) -> FolderLock:
        """Take the lock or say who has it; a command, which ends soon, is waited for.

        Raises:
            NotRunning: another process holds it.
        """
        deadline = time.monotonic() + COMMAND_SECONDS
        while not (taken := self.take()) and self._content()[1] != SERVE and time.monotonic() < deadline:
            time.sleep(0.05)
        if not taken:
            raise NotRunning(
                f"another process{self.holder_in_words()} uses the data folder {self.path.parent}; "
                "stop it, or name another folder with --data"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def holder_in_words(self) -> str:
        """` (pid 4711)`, or nothing when it can't be told."""
        pid = self.holder()
        return f" (pid {pid})" if pid else ""


@contextlib.contextmanager
def reachable(path: Path) -> Generator[str, None, None]:
    """A name of `path` that fits into a socket address, valid inside the block: a long one goes by its folder."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
