"""Kill a comparison at random moments, start it again, and check that it is the same as an undisturbed one.

python -m tests.stress.kill_comparison              kill it 5 times: twice in the tuning, at its end, in the
                                                    confirmation, and while the report is written (5 minutes)
python -m tests.stress.kill_comparison --seed 3     at other moments

All processes are killed at once (SIGKILL). The same trials must have the same parameters, values and states, the same
runs must be in MLflow, each trained once, and the verdict must be the same. Then both comparisons get more trials and
seeds, and must train only what is missing.
"""

import argparse
import os
import random
import re
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from tests.commandline import runs
from tests.stress.kill_sweeps import start, values

COMPARISON = [
    *["hydra/sweeper=compare", "loss=cross_entropy,squentropy", "hydra.sweeper.study_name=losses", "model.n_layer=1"],
    *["hydra.sweeper.tune_steps=20", "train.max_steps=40", "train.eval_every=20", "samples.length=8"],
    # The draws depend on earlier trials, and trials are pruned.
    *["hydra.sweeper.sampler.n_startup_trials=2", "hydra.sweeper.pruner.n_startup_trials=1"],
]
CONTENDERS = ("cross_entropy", "squentropy")


@dataclass(frozen=True)
class Moment:
    """A moment of a comparison: so many seconds after a number of lines that match a pattern."""

    name: str
    pattern: str
    most_lines: int
    most_seconds: float

    def kill(self, settings: list[str], folder: Path, cache: Path, moments: random.Random) -> None:
        """Start a comparison, and kill it at this moment."""
        process = start(settings, folder, cache)
        assert process.stdout is not None
        lines = moments.randint(1, self.most_lines)
        output: list[str] = []
        while sum(re.search(self.pattern, line) is not None for line in output) < lines:
            output.append(process.stdout.readline())
            assert output[-1], f"ended before line {lines} of {self.pattern}: {''.join(output)}"
        time.sleep(moments.uniform(0, self.most_seconds))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        print(f"killed {self.name}: {output[-1].strip()}", flush=True)


MOMENTS = [
    Moment("in the tuning", r"#\d+: \S+=", most_lines=2, most_seconds=1.0),
    Moment("in the tuning", r"#\d+: \S+=", most_lines=2, most_seconds=1.0),
    Moment("at the end of the tuning", r"; tuning (\d+) of \1,", most_lines=1, most_seconds=0.3),
    Moment("in the confirmation", r"seed \d+: \S+=", most_lines=2, most_seconds=1.0),
    Moment("in the report", r"; confirmation (\d+) of \1,", most_lines=1, most_seconds=1.0),
]


def finish(settings: list[str], folder: Path, cache: Path) -> str:
    """Run a comparison to its end and return its verdict."""
    process = start(settings, folder, cache)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return verdict(output)


def verdict(output: str) -> str:
    """Return the verdict in the output of a comparison of two contenders."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in output.split("\n\n")]
    (found,) = (paragraph for paragraph in paragraphs if "the test nll of" in paragraph)
    return found


def trials(folder: Path) -> dict[str, list[Any]]:
    """Return the trials of all studies: state, parameters, values, and values during training."""
    storage = f"sqlite:///{folder}/optuna.db"
    found = {}
    for name in optuna.get_all_study_names(storage):
        trials = optuna.load_study(study_name=name, storage=storage).trials
        found[name] = [(t.state.name, t.params, t.values, t.intermediate_values) for t in trials]
    return found


def chosen(folder: Path) -> dict[str, int]:
    """Return the number of the chosen trial of each contender."""
    storage = f"sqlite:///{folder}/optuna.db"
    studies = {label: optuna.load_study(study_name=f"losses/{label}", storage=storage) for label in CONTENDERS}
    return {label: study.user_attrs["comparison"]["chosen"] for label, study in studies.items()}


def check_equal(whole: Path, killed: Path) -> None:
    """Check that two comparisons have the same trials and the same runs."""
    expected, actual = trials(whole), trials(killed)
    assert actual.keys() == expected.keys()
    for name in expected:
        assert actual[name] == expected[name], f"{name}:\n{actual[name]}\n{expected[name]}"
    assert chosen(killed) == chosen(whole)
    assert values(killed) == values(whole)


def settings(n_trials: int, seeds: int) -> list[str]:
    """Return the settings of a comparison with this budget."""
    return [*COMPARISON, f"hydra.sweeper.n_trials={n_trials}", f"hydra.sweeper.seeds={seeds}"]


def check(scratch: Path, *, n_trials: int, seeds: int, kills: int, moments: random.Random) -> None:
    """Check a comparison that is killed at `kills` of the moments."""
    cache, whole, killed = scratch / "cache", scratch / "whole", scratch / "killed"
    whole.mkdir()
    killed.mkdir()
    small = settings(n_trials, seeds)
    expected = finish(small, whole, cache)
    for moment in sorted(moments.sample(range(len(MOMENTS)), kills)):
        MOMENTS[moment].kill(small, killed, cache, moments)
    assert finish(small, killed, cache) == expected
    check_equal(whole, killed)
    print(f"killed {kills} times, {len(values(killed))} runs of the undisturbed comparison\n{expected}", flush=True)


def check_extension(scratch: Path, *, n_trials: int, seeds: int) -> None:
    """Extend both comparisons of `check` by a trial and a seed. Check that only what is missing is trained."""
    cache, whole, killed = scratch / "cache", scratch / "whole", scratch / "killed"
    verdicts: set[str] = set()
    for folder in (whole, killed):
        before, chosen_before = {run.info.run_id: run.info.end_time for run in runs(folder)}, chosen(folder)
        verdicts.add(finish(settings(n_trials + 1, seeds + 1), folder, cache))
        after = {run.info.run_id: run.info.end_time for run in runs(folder)}
        assert before.items() <= after.items(), "a run that had finished was trained again"
        n_seeds = [1 if chosen(folder)[label] == number else seeds + 1 for label, number in chosen_before.items()]
        assert len(after) - len(before) == len(CONTENDERS) + sum(n_seeds)
    check_equal(whole, killed)
    (extended,) = verdicts
    print(f"one more trial and seed: {len(after)} runs, {len(before)} of them from before\n{extended}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills (default: 0)")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="nanosq-"))
    print(scratch)
    check(scratch, n_trials=6, seeds=3, kills=len(MOMENTS), moments=random.Random(options.seed))
    check_extension(scratch, n_trials=6, seeds=3)


if __name__ == "__main__":
    main()
