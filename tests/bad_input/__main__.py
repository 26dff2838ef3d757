"""Count what is wrong with the answers to bad inputs, by kind. Each command is a new process.

python -m tests.bad_input              # all kinds
python -m tests.bad_input paths sweeps
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests import bad_input
from tests.commandline import ROOT, environment


def main() -> int:
    """Run all cases and print one line for each kind. The status is 1 if an answer is wrong."""
    kinds = bad_input.by_kind()
    parser = argparse.ArgumentParser(description="Count what is wrong with the answers to bad inputs.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"one of {', '.join(kinds)}")
    chosen = parser.parse_args().kinds or [*kinds]
    print(f"{'kind':<14}{'inputs':>7}{'right':>7}{'tracebacks':>12}{'slowest':>9}")
    total: Counter[str] = Counter()
    for kind in chosen:
        counts, slowest = Counter(inputs=len(kinds[kind]), right=0, traceback=0), 0.0
        for case in kinds[kind]:
            seconds, faults, output = run(case)
            slowest = max(slowest, seconds)
            counts.update(faults or ["right"])
            if faults:
                print(f"  {', '.join(faults)}: {case.command}\n    {output}", flush=True)
        print(
            f"{kind:<14}{counts['inputs']:>7}{counts['right']:>7}{counts['traceback']:>12}{slowest:>7.1f} s", flush=True
        )
        total.update(counts)
    print(f"{'all':<14}{total['inputs']:>7}{total['right']:>7}{total['traceback']:>12}")
    return int(total["right"] < total["inputs"])


def run(case: bad_input.Case) -> tuple[float, list[str], str]:
    """Return the seconds that a command takes, what is wrong with its answer, and its output."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bad_input.fill(folder)
        case.prepare(folder)
        before = bad_input.content(folder)
        program = [str(ROOT / "run.py")] if case.program == "run.py" else ["-m", case.program]
        env = environment() | {"PYTHONPATH": str(ROOT)} | dict(case.variables or {})
        begin = time.perf_counter()
        result = subprocess.run(
            [sys.executable, *program, *case.arguments],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - begin
        after = bad_input.content(folder)
        written = {path: data for path, data in after.items() if path not in before or before[path] != data}
        faults = bad_input.faults(case, result.returncode, result.stdout, result.stderr, written)
        return seconds, faults, f"{result.returncode} {(result.stdout + result.stderr).strip()} {sorted(written)}"


if __name__ == "__main__":
    sys.exit(main())
