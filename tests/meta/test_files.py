"""No file of the project names a package index, a folder of somebody's machine, or a lock of another tool."""

from __future__ import annotations

import re

from tests.meta.sources import ROOT, project_files

INDEX_HOSTS = re.compile(
    r"(pypi\.org|pythonhosted\.org|registry\.npmjs\.org|npmmirror|devpi|artifactory|(?:extra-)?index-url|find-links)"
    r"\s*[/:=\"']",
    re.IGNORECASE,
)
MACHINE_PATHS = re.compile(r"(?<![\w.~])/(?:home|Users|root|work|mnt)/[\w.]+")
FOREIGN_LOCKS = {"uv.lock", "package-lock.json", "poetry.lock", "Pipfile.lock", "yarn.lock", "pnpm-lock.yaml"}
HERE = "tests/meta/test_files.py"
# It says that no index is to be named, so it has to name the option.
SAYS_SO = {HERE, "scripts/lock"}


def _texts() -> dict[str, str]:
    texts = {}
    for path in project_files():
        try:
            texts[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return texts


def test_no_package_index_is_named() -> None:
    found = {name: match.group() for name, text in _texts().items() if (match := INDEX_HOSTS.search(text))}
    assert {name: match for name, match in found.items() if name not in SAYS_SO} == {}


def test_no_folder_of_a_machine_is_named() -> None:
    found = {name: match.group() for name, text in _texts().items() if (match := MACHINE_PATHS.search(text))}
    found.pop(HERE, None)
    assert found == {}


def test_no_lock_of_another_tool() -> None:
    assert {path.name for path in project_files()} & FOREIGN_LOCKS == set()


def test_the_lock_holds_hashes_for_everything() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        pins = re.findall(r"(?m)^[A-Za-z0-9].*?(?=^[A-Za-z0-9]|\Z)", (ROOT / name).read_text(), re.DOTALL)
        assert len(pins) > 30
        assert [pin.splitlines()[0] for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []


def test_nothing_that_a_tool_made_is_kept() -> None:
    assert [str(path) for path in project_files() if re.search(r"_cache/|__pycache__|\.egg-info/", str(path))] == []
