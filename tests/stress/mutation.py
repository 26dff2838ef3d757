"""Change one operator or number of the code at a time, and list the changes that no test notices.

pip install cosmic-ray                             (its operators make the changes)
python -m tests.stress.mutation                    100 changes of each file in TESTS, always the same ones (an hour)
python -m tests.stress.mutation --count 1000       all changes
python -m tests.stress.mutation losses head        of these files

A change that makes a test fail, or run for too long, is noticed. Each change is tested in a forked process, in a copy
of the checkout. The results are written to --log. A second call tests only what has no result there, and again the
changes that were not noticed, because tests may have been added. The exit status is 1 if less than 85 % are noticed.
"""

import argparse
import ast
import contextlib
import difflib
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import hydra
import hypothesis
import mlflow
import pydantic
import pytest
import scipy
import torch
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

PRELOADED = (hydra, hypothesis, mlflow, pydantic, scipy, torch)  # imported once, before the processes are forked
ROOT = Path(__file__).parents[2]
GOAL = 0.85
SETTINGS = "tests/test_config.py::test_hash_knows_what_matters"
# The quickest tests of each file. Those that start processes or compile are left out: see SLOW.
TESTS = {
    "identity": ("nanosq/identity.py", ["tests/test_identity.py", SETTINGS, "tests/test_start.py"]),
    "batches": ("nanosq/data/batches.py", ["tests/data/test_batches.py"]),
    "evaluation": ("nanosq/evaluation.py", ["tests/test_evaluation.py", "tests/test_temperature.py"]),
    "losses": ("nanosq/losses.py", ["tests/test_losses.py", "tests/test_loss_gradients.py", "tests/test_head.py"]),
    "head": ("nanosq/head.py", ["tests/test_head.py", "tests/test_head_execution.py"]),
}
# Operators of integers only, which would fail in almost every place. A sample with them would look too good.
TRIVIAL = re.compile("_(LShift|RShift|BitAnd|BitOr|BitXor)$")
SLOW = "not compiled and not two_processes and not tokens_a_second"
QUIET = ("-qq", "-p", "no:cacheprovider", "-p", "no:warnings")
FORK = multiprocessing.get_context("fork")


class Mutant(NamedTuple):
    """One change: the n-th place where an operator of cosmic-ray can change a file."""

    path: str
    operator: str
    occurrence: int
    line: int


def mutants(path: str) -> list[Mutant]:
    """Return the changes of a file, without those of type annotations and those that are no Python."""
    source = (ROOT / path).read_text()
    nodes, types, lines = list(ast_nodes(get_ast(source))), list(_annotations(source)), source.splitlines()
    found = []
    for name in operator_names():
        if get_operator(name).arguments() or TRIVIAL.search(name):
            continue
        places = [place for node in nodes for place in get_operator(name)().mutation_positions(node)]
        for occurrence, (begin, end) in enumerate(places):
            is_parameter = lines[end[0] - 1][end[1] : end[1] + 1] == ","  # the * before parameters by keyword
            if not is_parameter and not any(first <= begin and end <= last for first, last in types):
                found.append(Mutant(path, name, occurrence, begin[0]))
    return [mutant for mutant in found if _compiles(changed(mutant))]


def _compiles(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            if (hint := getattr(node, name, None)) is not None:
                yield (hint.lineno, hint.col_offset), (hint.end_lineno, hint.end_col_offset)


def changed(mutant: Mutant) -> str:
    """Return the changed source of a file."""
    result = mutate_code((ROOT / mutant.path).read_text(), get_operator(mutant.operator)(), mutant.occurrence)
    assert result is not None
    return result


def diff(mutant: Mutant) -> str:
    """Return the changed lines, the old ones first."""
    lines = ((ROOT / mutant.path).read_text().splitlines(), changed(mutant).splitlines())
    return "\n".join(line for line in difflib.ndiff(*lines) if line.startswith(("+", "-")))


def is_noticed(tests: list[str], copy: Path, seconds: float) -> bool:
    """Return whether a test fails in a copy of the checkout, or the tests take longer than `seconds`."""
    process = FORK.Process(target=_test, args=(tests, copy))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode != 0


def _test(tests: list[str], copy: Path) -> None:
    os.setsid()
    os.chdir(copy)
    own = [name for name in sys.modules if name.partition(".")[0] in ("analysis", "nanosq", "tests")]
    for name in own:
        del sys.modules[name]
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path).resolve() != ROOT)]
    sys.dont_write_bytecode = True  # the time of a file has not enough digits for so many changes
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    code = pytest.main([*QUIET, "-x", "-n", "0", "-k", SLOW, *tests])
    os._exit(int(code))  # without the threads and files of the libraries


def test_changes(name: str, count: int, copy: Path, log: Path) -> tuple[int, int]:
    """Test a sample of the changes of a file, and print those that are not noticed.

    Returns:
        The number of changes that are noticed, and of all that have been tested.
    """
    path, tests = TESTS[name]
    chosen = mutants(path)
    total = len(chosen)
    random.Random(0).shuffle(chosen)  # a larger sample holds a smaller one
    chosen = sorted(chosen[:count], key=lambda mutant: mutant.line)
    digest = hashlib.sha256((ROOT / path).read_bytes()).hexdigest()[:12]
    results = {tuple(row["mutant"]) for row in _rows(log) if row["digest"] == digest and row["noticed"]}
    begin = time.perf_counter()
    if is_noticed(tests, copy, 600):
        raise SystemExit(f"the tests of {path} fail without any change")
    limit = 30 + 5 * (time.perf_counter() - begin)
    survivors = []
    for mutant in chosen:
        if tuple(mutant) in results:
            continue
        (copy / path).write_text(changed(mutant))
        noticed = is_noticed(tests, copy, limit)
        (copy / path).write_text((ROOT / path).read_text())
        with log.open("a") as file:
            print(json.dumps({"digest": digest, "mutant": mutant, "noticed": noticed}), file=file)
        if not noticed:
            survivors.append(mutant)
            print(f"{path}:{mutant.line} {mutant.operator}\n{diff(mutant)}", flush=True)
    n_noticed = len(chosen) - len(survivors)
    print(f"{path}: {n_noticed} of {len(chosen)} noticed ({n_noticed / len(chosen):.1%}); all changes: {total}\n")
    return n_noticed, len(chosen)


def _rows(log: Path) -> list[dict]:
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in log.read_text().splitlines()]
    return []


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*TESTS, []], help=f"of {', '.join(TESTS)}")
    parser.add_argument("--count", type=int, default=100, help="changes of each file, at most; default: %(default)s")
    parser.add_argument("--log", type=Path, default=Path("mutation.jsonl"), help="default: %(default)s")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        pytest.main([*QUIET, "--collect-only", "--rootdir", folder, folder])  # imports plugins
        copy = Path(folder, "checkout")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache"))
        results = [test_changes(name, options.count, copy, options.log) for name in options.names or TESTS]
    noticed, tested = map(sum, zip(*results, strict=True))
    print(f"all: {noticed} of {tested} noticed ({noticed / tested:.1%})")
    return int(noticed / tested < GOAL)


if __name__ == "__main__":
    sys.exit(main())
