"""What a relay took, as it came: for the relays that keep it themselves, and for what stands behind the others."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Taken:
    """A message that was answered 250; `lines` are those of MAIL and of each RCPT, `recipients` the accepted ones."""

    connection: str
    login: str
    encrypted: bool
    lines: tuple[str, ...]
    recipients: tuple[str, ...]
    content: bytes

    @property
    def reverse_path(self) -> str:
        """As it stood in MAIL."""
        return self.lines[0].partition("<")[2].partition(">")[0]

    @property
    def mail_parameters(self) -> set[str]:
        """What stands behind the reverse-path, without SIZE."""
        return {word for word in self.lines[0].partition(">")[2].split() if not word.startswith("SIZE=")}

    def rcpt_parameters(self, recipient: str) -> set[str]:
        """What stands behind the path of `recipient`."""
        (line,) = (line for line in self.lines[1:] if line.startswith(f"RCPT TO:<{recipient}>"))
        return set(line.partition(">")[2].split())


@dataclass
class Witness:
    """Everything that was taken; `add` is called by another thread than `to`."""

    taken: list[Taken] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def add(self, taken: Taken) -> None:
        """One more."""
        with self.news:
            self.taken.append(taken)
            self.news.notify_all()

    def to(self, *recipients: str, count: int = 1) -> list[Taken]:
        """What was taken for any of `recipients`, once there are `count`."""

        def found() -> list[Taken]:
            return [taken for taken in self.taken if not set(recipients).isdisjoint(taken.recipients)]

        with self.news:
            assert self.news.wait_for(lambda: len(found()) >= count, 60), f"{len(found())} of {count} came"
            return found()

    def connections(self) -> int:
        """On how many a message came."""
        with self.news:
            return len({taken.connection for taken in self.taken})
