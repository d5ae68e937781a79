"""What the code declares is in the docs: settings, commands, states, errors, standards, decisions."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from postroom import crashing, errors
from postroom.cli import app
from postroom.config import Settings
from postroom.errors import EDGES, GatewayError
from postroom.model.queue import FINAL, TRANSITIONS, DeliveryState
from tests.meta.sources import ROOT, project_files, python_files

DOCS = ROOT / "docs"
RFC = re.compile(r"\bRFC[ \n]?([0-9]{3,5})\b")


def test_generated_pages_are_in_step() -> None:
    command = [sys.executable, "-m", "scripts.docs", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_setting_is_on_its_page() -> None:
    page = (DOCS / "settings.md").read_text()
    entries = Settings.describe()
    assert len(entries) > 10
    assert [entry.name for entry in entries if f"`{entry.name}`" not in page] == []
    assert [entry.name for entry in entries if not entry.description] == []


def _commands(command: Any, name: str) -> Iterator[str]:
    """The full names of a command's inner commands that are not hidden, of itself when it has none."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
        return
    for word, one in inner.items():
        if not one.hidden:
            yield from _commands(one, f"{name} {word}")


def test_every_command_is_on_its_page() -> None:
    page = (DOCS / "commands.md").read_text()
    commands = list(_commands(typer.main.get_command(app), "postroom"))
    assert len(commands) > 15
    assert [command for command in commands if command not in page] == []


def test_every_state_and_move_is_in_the_queue_page() -> None:
    page = (DOCS / "queue.md").read_text()
    assert [state for state in DeliveryState if f"`{state.value}`" not in page] == []
    assert [who for who in TRANSITIONS.values() if who not in page] == []


def test_no_move_leaves_an_ended_state() -> None:
    assert [source for source, _ in TRANSITIONS if source in FINAL] == []
    reached = {target for _, target in TRANSITIONS}
    assert set(DeliveryState) - reached == set()


def test_every_error_has_an_edge() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, GatewayError)]
    assert len(classes) > 8
    assert [cls.__name__ for cls in classes if cls not in EDGES] == []
    page = (DOCS / "errors.md").read_text()
    assert [cls.__name__ for cls in classes if f"`{cls.__name__}`" not in page] == []


@pytest.mark.parametrize("cls", EDGES, ids=lambda cls: cls.__name__)
def test_reply_code_and_enhanced_status_agree(cls: type[GatewayError]) -> None:
    edge = EDGES[cls]
    assert edge.enhanced[0] == str(edge.reply_code)[0]


def _cited(paths: list[Path]) -> set[str]:
    return {number for path in paths for number in RFC.findall(path.read_text())}


def test_standards_page_and_citations_agree() -> None:
    """Both ways: what the code cites has its row, and a row names a module that cites it (or says that none does)."""
    rows = re.findall(r"(?m)^\| RFC ([0-9]+) \|.*?\| (yes|partial|no) \| (.*?) \|", (DOCS / "standards.md").read_text())
    listed = {number for number, _, _ in rows}
    cited = _cited(python_files("src"))
    assert len(listed) > 10
    assert cited - listed == set()
    for number, status, modules in rows:
        named = [ROOT / "src" / "postroom" / name for name in re.findall(r"`([\w/]+\.py)`", modules)]
        assert [path for path in named if not path.is_file()] == []
        assert all(number in _cited([path]) for path in named), f"RFC {number}: not cited in {modules}"
        assert named or status == "no", f"RFC {number}: names no module"


def test_every_decision_is_listed() -> None:
    folder = DOCS / "decisions"
    index = (folder / "README.md").read_text()
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert len(pages) > 5
    assert [name for name in pages if f"]({name})" not in index] == []


def test_links_between_pages_lead_somewhere() -> None:
    pages = [path for path in project_files() if path.suffix == ".md"]
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text())
        if not (path.parent / target).exists()
    ]
    assert pages
    assert broken == []


def test_paths_that_the_docs_name_exist() -> None:
    """Module and test paths in backquotes, as in `queue/intake.py` or `tests/e2e`."""
    missing = []
    for path in (path for path in project_files() if path.suffix == ".md"):
        for name in re.findall(r"`((?:src|tests|bench|demo|scripts|docs|changes)/[\w./-]*)`", path.read_text()):
            if not (ROOT / name).exists():
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []


def test_tests_that_the_docs_name_exist() -> None:
    """A promise that names a test, as in `tests/unit/test_x.py::test_y`, names one that is there."""
    missing = []
    named = 0
    for path in (path for path in project_files() if path.suffix == ".md"):
        for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", path.read_text()):
            named += 1
            if not (ROOT / file).is_file() or f"def {test}(" not in (ROOT / file).read_text():
                missing.append(f"{path.relative_to(ROOT)}: {file}::{test}")
    assert named > 20
    assert missing == []


def test_every_crash_point_is_in_the_code_and_has_its_row_and_its_test() -> None:
    page = (DOCS / "reliability.md").read_text()
    section = page.partition("\n## Crash points\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"(?m)^\| ([A-Z][0-9](?:-[a-z]+)?) \|.*\| (.*) \|$", section))
    assert list(rows) == [*crashing.POINTS, *crashing.FAULTS, *crashing.ALIASES]
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "e2e").glob("test_crash_points*.py"))
    assert [name for name in rows if not re.search(rf'["(]{name}[:"]', tests)] == []
    assert [name for name, proof in rows.items() if "test_crash_points" not in proof and proof != "the same"] == []
    code = "".join(path.read_text() for path in python_files("src"))
    placed = set(re.findall(r'\b(?:reach|written|fails)\("([A-Z][\w-]*)"', code))
    assert placed == crashing.POINTS.keys() | crashing.FAULTS.keys()
