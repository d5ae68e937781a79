"""Every fuzz target for a while, the same inputs in each run; the inputs that once failed, or nearly, for good."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.__main__ import TARGETS, run_plainly, target
from tests.fuzz.inputs import CORPUS, kept, mutated, read, written

KEPT = [(name, one) for name in TARGETS for one in kept(name)]

#: Inputs for each target: what takes a second or so.
RUNS = {"server": 1500, "client": 3000, "head": 6000, "reply_reader": 4000}
RUNS_IN_ALL = 10_000


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_a_while(name: str) -> None:
    run_plainly(name, RUNS.get(name, RUNS_IN_ALL), seed=1)


@pytest.mark.parametrize(("name", "one"), KEPT)
def test_what_was_kept_holds(name: str, one: str) -> None:
    target(name).one_input(kept(name)[one])


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed (it has wheels for Linux on x86-64)")
def test_a_target_holds_where_coverage_leads(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--runs", "100"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    root = CORPUS.parent.parent.parent
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
    assert "Done " in ended.stderr


def test_every_target_says_its_invariant_first() -> None:
    assert {path.stem.removeprefix("fuzz_") for path in CORPUS.parent.glob("fuzz_*.py")} == set(TARGETS)
    for name in TARGETS:
        first = (target(name).__doc__ or "").partition("\n")[0]
        assert first.endswith(".") and len(first) > 60


def test_inputs_are_kept_as_text(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("corpus") / "one.txt"
    random = Random(1)
    for name in TARGETS:
        for octets in (*target(name).seeds(), *(random.randbytes(300) for _ in range(20))):
            path.write_text("# why\n" + written(octets))
            assert read(path) == octets


def test_mutation_is_the_same_for_the_same_seed() -> None:
    module = target("server")
    seeds = module.seeds()
    runs = [[mutated(seeds, module.TOKENS, random) for _ in range(50)] for random in (Random(5), Random(5))]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 25
