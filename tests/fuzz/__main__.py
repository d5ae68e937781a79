"""Long fuzz runs: `python -m tests.fuzz server --runs 1000000 --seed 7`.

With atheris (installed by the extra `dev` where it has a wheel: Linux on x86-64) coverage of our code leads the
mutation; without it, or with `--plain`, seeds are mutated blindly. An input that fails is printed as the text to keep
it in `tests/fuzz/corpus/`.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from tests.fuzz.inputs import kept, mutated, written

TARGETS = ("address", "client", "content", "head", "path", "reply_reader", "server")
INSTRUMENTED = ["postroom.protocol", "postroom.mime", "postroom.model"]


def target(name: str) -> ModuleType:
    """The module of a target."""
    return importlib.import_module(f"tests.fuzz.fuzz_{name}")


def run_plainly(name: str, runs: int, seed: int) -> None:
    """Mutated seeds, the same for the same `seed`."""
    module = target(name)
    seeds = [*module.seeds(), *kept(name).values()]
    one_input = _shown(module.one_input)
    random = Random(seed)
    for octets in seeds:
        one_input(octets)
    for _ in range(runs):
        one_input(mutated(seeds, module.TOKENS, random))


def run_guided(atheris: Any, name: str, runs: int, seed: int) -> None:
    """As atheris does it; ends the process."""
    with atheris.instrument_imports(include=INSTRUMENTED):
        module = target(name)
    folder = Path(tempfile.mkdtemp(prefix="postroom-fuzz-"))
    seeds = [*module.seeds(), *kept(name).values()]
    for name_of_part in ("seeds", "found"):
        (folder / name_of_part).mkdir()
    for number, octets in enumerate(seeds):
        (folder / "seeds" / f"{number:04}").write_bytes(octets)
    words = folder / "words"
    words.write_text("".join('"' + "".join(f"\\x{octet:02x}" for octet in token) + '"\n' for token in module.TOKENS))
    # libFuzzer counts the seeds among its runs.
    options = [f"-runs={runs + len(seeds)}", f"-seed={seed}", "-max_len=4096", f"-dict={words}"]
    options += [f"-artifact_prefix={folder}/", "-print_final_stats=1"]
    folders = [str(folder / "found"), str(folder / "seeds")]
    atheris.Setup([sys.argv[0], *options, *folders], _shown(module.one_input))
    atheris.Fuzz()


def _shown(one_input: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Print the input that failed before the failure goes on."""

    def run(octets: bytes) -> None:
        try:
            one_input(octets)
        except BaseException:
            print(f"\nfailed on this input:\n{written(octets)}", flush=True)
            raise

    return run


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz one target, or all in turn.")
    parser.add_argument("target", choices=(*TARGETS, "all"))
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    asked = parser.parse_args()
    if asked.target == "all":  # each in a process of its own, since atheris ends it
        options = [f"--runs={asked.runs}", f"--seed={asked.seed}", *["--plain"] * asked.plain]
        for name in TARGETS:
            subprocess.run([sys.executable, "-m", "tests.fuzz", name, *options], check=True)
        return
    if not asked.plain:
        try:
            atheris = importlib.import_module("atheris")
        except ImportError:
            print("atheris is not installed: seeds are mutated without regard to coverage")
        else:
            run_guided(atheris, asked.target, asked.runs, asked.seed)
    run_plainly(asked.target, asked.runs, asked.seed)
    print(f"{asked.target}: {asked.runs} inputs from seed {asked.seed}, none failed")


if __name__ == "__main__":
    main()
