"""The tests' own processes: an order of any size is taken, and one that nobody can take any more fails."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.forks import Forks


def test_orders_of_any_size_are_taken_until_the_process_that_forks_has_ended() -> None:
    forks = Forks()
    environment = {**os.environ, "POSTROOM_TEST_LONG": "x" * 1_000_000}
    short = forks.start(["--help"], environment, stdin=False, stderr=subprocess.PIPE)
    assert short.wait() == 0
    serving = forks.start(["--help"], environment, stdin=False, stderr=subprocess.PIPE)
    forks.end()
    serving.wait()
    with pytest.raises(OSError, match="the process that forks has ended"):
        forks.start(["--help"], environment, stdin=False, stderr=subprocess.PIPE)
    for process in (short, serving):
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
