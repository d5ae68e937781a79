"""`recording_sink.py` as a process that lives through the kills, and what it has said."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

#: How long the relay may have nothing to say, in seconds.
PATIENCE = 30.0


class RecordingSink:
    """The relay's process. `on_took` is called in the reader's thread after each message that came.

    `names` holds the X-Crash-Id of everything that came, `recipients` for whom.
    """

    def __init__(self, record: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.names: set[str] = set()
        self.recipients: set[str] = set()
        self.on_took: Callable[[], None] = lambda: None
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("recording_sink.py")), str(record)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._orders = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for(lambda: self.counts["port"] > 0)
        self.port = int(self._lines[0].removeprefix("port "))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            words = line.split()
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self.counts[words[0]] += 1
                if words[0] == "took":
                    self.names.add(words[2])
                    self.recipients.update(words[4].split(","))
                self._news.notify_all()
            if words[0] == "took":
                self.on_took()

    def comes(self, condition: Callable[[], bool]) -> bool:
        """Wait until the condition holds; False when nothing happens for long and it still does not."""
        with self._news:
            while not condition():
                if not self._news.wait(PATIENCE):
                    return condition()
            return True

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """As `comes`, and a failure where it does not."""
        assert self.comes(condition), f"the relay did not see it: {dict(self.counts)}"

    def wait_until_all_closed(self) -> None:
        """No connection is open."""
        self.wait_for(lambda: self.counts["open"] == self.counts["closed"])

    def lines(self) -> list[str]:
        """All so far."""
        with self._news:
            return list(self._lines)

    def order(self, *words: object) -> None:
        """See `recording_sink`."""
        assert self._process.stdin is not None
        with self._orders:
            self._process.stdin.write(" ".join(map(str, words)) + "\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
