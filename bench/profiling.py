"""Who holds Python's interpreter lock while Postroom is under load: py-spy's samples by thread, module and function."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from .gateways import MeasuredGateway
from .traffic import Sink, Void, send

SAMPLES_PER_SECOND = 500

#: One frame of py-spy's raw form: `function (path/of/module.py:line)`.
_FRAME = re.compile(r"^(?P<function>.*) \((?P<path>[^()]*?)(?::\d+)?\)$")


def profiled(gateway: MeasuredGateway, sink: Sink, messages: int, connections: int) -> str:
    """The table of a load of `messages` through a gateway that runs; the load is slower while it is watched.

    Raises:
        Void: py-spy is missing or may not look into the process.
    """
    spy = Path(sys.executable).with_name("py-spy")
    command = str(spy) if spy.exists() else shutil.which("py-spy")
    if command is None:
        raise Void("py-spy is not installed (it is in requirements-dev.lock)")
    samples = Path(f"/tmp/postroom-profile-{gateway.pid}.raw")
    send(gateway.port, sink, min(messages, 1000), connections)
    options = ["-r", str(SAMPLES_PER_SECOND), "-f", "raw", "--threads", "--gil", "--nonblocking", "-o", str(samples)]
    spying = subprocess.Popen(
        [command, "record", "-p", str(gateway.pid), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        passage = send(gateway.port, sink, messages, connections)
    finally:
        spying.send_signal(signal.SIGINT)
        _, said = spying.communicate()
    if not samples.exists():
        raise Void(f"py-spy: {said.strip()[-300:]}")
    counted = summary(samples.read_text().splitlines())
    samples.unlink()
    rate = messages / passage.relayed_seconds
    return f"{messages} messages, {connections} connections, {rate:.0f}/s while watched\n{counted}"


def _module(path: str) -> str:
    """A module's path, short: from the package on."""
    for mark in ("site-packages/", "python3.", "src/"):
        path = path.rpartition(mark)[2] if mark in path else path
    return path


def summary(lines: list[str], most: int = 40) -> str:
    """Shares of the samples (`stack;of;frames count`): per thread, per module and function of its own time, and for
    Postroom's functions with what they called."""
    threads: Counter[str] = Counter()
    own: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        named = [frame for frame in frames if _FRAME.match(frame)]
        if not named:
            continue
        threads[frames[0]] += int(count)
        names = [_name(frame) for frame in named]
        own[names[-1]] += int(count)
        modules[names[-1].partition(":")[0]] += int(count)
        for name in {one for one in names if one.startswith("postroom/")}:
            within[name] += int(count)
    whole = max(1, sum(threads.values()))
    parts = {"threads": threads, "own time by module": modules, "own time by function": own, "with callees": within}
    blocks = []
    for title, counter in parts.items():
        rows = [f"  {100 * count / whole:5.1f} %  {name}" for name, count in counter.most_common(most)]
        blocks.append("\n".join([title, *rows]))
    return "\n".join(blocks)


def _name(frame: str) -> str:
    match = _FRAME.match(frame)
    assert match is not None
    return f"{_module(match['path'])}:{match['function']}"
