"""What the crash test counts: for every kill what was open, marked, duplicated and lost, and every fault by name.

A delivery is named by its recipient, which no other delivery has; reports go to the sender of a submission, and are
named by it. A *generation* is the time between two kills. A copy that comes in a later generation than the one before
it is a duplicate of the kill that ended the generation of the earlier copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.e2e.crash_clients import ALLOWED, Fate, Submission

LEAST_OPEN = 20
MOST_MARKED, MOST_DUPLICATED = 3, 2  # messages for each connection that is open at the kill

COLUMNS = ("kill", "moment", "open", "connections", "acknowledged", "cut", "in_doubt", "marked", "duplicated", "lost")


@dataclass
class Kill:
    """One row: `moment` is what came just before the kill; at the sink `open` messages taken and not answered, and so
    many `connections`; `acknowledged`, `cut` and `in_doubt` submissions since the kill before; messages `marked`,
    `duplicated` and `lost`: acknowledged since the kill before, and never there."""

    kill: int
    moment: str = ""
    open: int = 0
    connections: int = 0
    acknowledged: int = 0
    cut: int = 0
    in_doubt: int = 0
    marked: int = 0
    duplicated: int = 0
    lost: int = 0


@dataclass
class Copy:
    """A message that came to the sink."""

    generation: int
    name: str
    digest: str
    recipients: tuple[str, ...]


@dataclass
class SinkLog:
    """What the sink's lines say."""

    copies: list[Copy] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    @classmethod
    def read(cls, lines: Iterable[str]) -> SinkLog:
        """Of the lines of `recording_sink`. What came out of the kernel after a kill belongs before it."""
        log = cls()
        generation = 0
        connections: set[str] = set()
        held: set[str] = set()  # connections that wait for the reply to their content
        gone: set[str] = set()
        is_holding = False
        for line in lines:
            word, *rest = line.split()
            if word == "open":
                connections.add(rest[0])
            elif word == "closed":
                gone.add(rest[0])
            elif word == "took":
                held.add(rest[0])
                log.copies.append(Copy(generation, rest[1], rest[2], tuple(rest[3].split(","))))
            elif word == "answered":
                held.discard(rest[0])
            elif word == "holding":
                is_holding = True  # who kills says so afterwards: what is closed meanwhile was open
            elif word == "killed":
                log.kills.append(Kill(len(log.kills) + 1, open=len(held), connections=len(connections)))
                is_holding = False
            elif word == "restarted":
                generation += 1
            if not is_holding:
                connections -= gone
                held -= gone
        return log


@dataclass(frozen=True)
class Row:
    """A delivery as the gateway shows it at the end."""

    recipient: str
    state: str
    is_marked: bool


def message_of(recipient: str) -> str:
    """The message that a recipient's name belongs to: a submission, or the report about it."""
    local, _, domain = recipient.partition("@")
    return f"report about {local}" if domain == ALLOWED else local.partition("-")[0]


class Judgement:
    """The rows of the report, and what is wrong."""

    def __init__(
        self,
        submissions: Sequence[Submission],
        lines: Iterable[str],
        marks: Sequence[Sequence[str]],
        rows: list[Row],
        moments: Sequence[str] = (),
    ) -> None:
        """`marks`: for each kill the recipients that the start after it marked; `rows`: all deliveries at the end."""
        log = SinkLog.read(lines)
        self.kills = log.kills
        for kill, moment in zip(self.kills, moments, strict=False):
            kill.moment = moment
        self.faults: list[str] = []
        self._copies = log.copies
        self._submissions = {one.name: one for one in submissions}
        self._marks = [set(of) for of in marks]
        self._generations: dict[str, list[int]] = {}
        for copy in log.copies:
            for recipient in copy.recipients:
                self._generations.setdefault(recipient, []).append(copy.generation)
        self._count_submissions(submissions)
        self._look_at_content()
        self._look_for_lost()
        self._look_for_uninvited()
        self._look_at_copies()
        self._look_at_bounds()
        self._look_at_states(rows)

    def _count_submissions(self, submissions: Sequence[Submission]) -> None:
        """What was cut in a generation was cut by the kill that ended it, except by the client's own will."""
        fates = Counter((one.generation, one.fate) for one in submissions if not one.name.startswith("a"))
        for generation, kill in enumerate(self.kills):
            kill.acknowledged = fates[generation, Fate.ACKNOWLEDGED]
            kill.cut = fates[generation, Fate.CUT]
            kill.in_doubt = fates[generation, Fate.IN_DOUBT]

    def _fault(self, what: str, found: Iterable[str]) -> None:
        names = sorted(found)
        if names:
            self.faults.append(f"{what}: {len(names)}, as {', '.join(names[:5])}")

    def _look_at_content(self) -> None:
        self._fault(
            "changed content",
            (
                copy.name
                for copy in self._copies
                if (one := self._submissions.get(copy.name)) is not None and one.digest != copy.digest
            ),
        )

    def _look_for_lost(self) -> None:
        lost = []
        for one in self._submissions.values():
            if one.fate is Fate.ACKNOWLEDGED and not expected(one) <= self._generations.keys():
                lost.append(one.name)
                if one.generation < len(self.kills):
                    self.kills[one.generation].lost += 1
        self._fault("acknowledged and lost", lost)

    def _look_for_uninvited(self) -> None:
        invited: set[str] = set()
        for one in self._submissions.values():
            if one.fate in (Fate.ACKNOWLEDGED, Fate.IN_DOUBT):
                invited |= expected(one)
        self._fault("delivered though refused, cut or never sent", self._generations.keys() - invited)

    def _look_at_copies(self) -> None:
        unmarked, uncaused = set(), set()
        duplicated: list[set[str]] = [set() for _ in self.kills]
        for recipient, generations in self._generations.items():
            for before, after in pairwise(generations):
                if before == after:
                    uncaused.add(recipient)
                    continue
                duplicated[before].add(message_of(recipient))
                if recipient not in self._marks[before]:
                    unmarked.add(recipient)
        for kill, messages in zip(self.kills, duplicated, strict=True):
            kill.duplicated = len(messages)
        self._fault("twice without a kill between", uncaused)
        self._fault("twice and not marked", unmarked)
        in_doubt = {name for one in self._submissions.values() if one.fate is Fate.IN_DOUBT for name in expected(one)}
        self._fault("in doubt, and there more often than sent", in_doubt & (unmarked | uncaused))

    def _look_at_bounds(self) -> None:
        assert len(self._marks) == len(self.kills)
        for kill, marked in zip(self.kills, self._marks, strict=True):
            kill.marked = len({message_of(recipient) for recipient in marked})
        bounds: dict[str, Callable[[Kill], bool]] = {
            "too few open": lambda kill: kill.open < LEAST_OPEN,
            "too many marked": lambda kill: kill.marked > MOST_MARKED * kill.connections,
            "too many duplicated": lambda kill: kill.duplicated > MOST_DUPLICATED * kill.connections,
        }
        for what, is_broken in bounds.items():
            self._fault(what, (str(kill) for kill in self.kills if is_broken(kill)))

    def _look_at_states(self, rows: list[Row]) -> None:
        wanted = {name: "bounced" for one in self._submissions.values() for name in bounced(one)}
        self._fault(
            "in a wrong state at the end",
            (f"{row.recipient} {row.state}" for row in rows if row.state != wanted.get(row.recipient, "delivered")),
        )
        self._fault("delivered and not shown", self._generations.keys() - {row.recipient for row in rows})
        self._fault("shown twice", (name for name, n in Counter(row.recipient for row in rows).items() if n > 1))
        marked = set[str]().union(*self._marks)
        self._fault("marked and not shown so", marked ^ {row.recipient for row in rows if row.is_marked})
        self._fault(
            "refused with nothing wrong",
            (f"{one.name} {one.code}" for one in self._submissions.values() if one.code and not one.is_refusable),
        )

    def table(self) -> str:
        """All kills, line by line, with the sums and the faults at the end."""
        cells = [[str(getattr(kill, column)) for column in COLUMNS] for kill in self.kills]
        sums = ["sum", "", *(str(sum(getattr(kill, column) for kill in self.kills)) for column in COLUMNS[2:])]
        lines = [list(COLUMNS), *cells, sums]
        return "\n".join(
            ["".join(f"{cell:>13}" for cell in line) for line in lines] + [f"FAULT {fault}" for fault in self.faults]
        )

    def figures(self) -> Mapping[str, object]:
        """For the report's file; what arrived counts each delivery once."""
        fates = Counter(one.fate.name.lower() for one in self._submissions.values())
        return {
            "submissions": dict(sorted(fates.items())),
            "arrived": len(self._generations),
            "columns": COLUMNS,
            "kills": [" ".join(str(getattr(kill, column)) for column in COLUMNS) for kill in self.kills],
            "faults": self.faults,
        }


def bounced(submission: Submission) -> set[str]:
    """Its recipients that the sink refuses."""
    return {name for name, way in zip(submission.recipients, submission.ways, strict=True) if way == "no"}


def expected(submission: Submission) -> set[str]:
    """For whom something of it must arrive: the recipients that the sink takes, and the sender where one is refused."""
    refused = bounced(submission)
    return (set(submission.recipients) - refused) | ({submission.sender} if refused else set())
