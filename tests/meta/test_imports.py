"""The layers of DESIGN section 1: import-linter's contracts hold, and the pure layers ask for no time or chance."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.sources import ROOT, python_files, tree

PURE = ("model", "mime", "protocol", "policy")
IMPURE_CALLS = re.compile(
    r"\b(datetime|date)\.(now|utcnow|today)\(|\buuid\.uuid[14]\(|\bos\.(urandom|environ|getenv)\b"
)


def test_contracts_of_import_linter_hold(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--cache-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize("layer", PURE)
def test_pure_layers_take_time_and_chance_as_arguments(layer: str) -> None:
    asked = {
        str(path.relative_to(ROOT)): found.group()
        for path in python_files(f"src/postroom/{layer}")
        if (found := IMPURE_CALLS.search(path.read_text()))
    }
    assert asked == {}


def test_only_net_tls_makes_tls_contexts() -> None:
    """One place decides what is verified (reference: CVE-2016-0772 and its kin)."""
    makers = {
        str(path.relative_to(ROOT / "src/postroom"))
        for path in python_files("src")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute | ast.Name)
        and (node.attr if isinstance(node, ast.Attribute) else node.id)
        in {"SSLContext", "create_default_context", "_create_unverified_context", "wrap_socket"}
        and not _is_annotation_only(path, node)
    }
    assert makers == {"net/tls.py"}


def _is_annotation_only(path: Path, wanted: ast.AST) -> bool:
    """Whether the name stands in an annotation, or in isinstance and the like, but is not called."""
    called = {id(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    return id(wanted) not in called
