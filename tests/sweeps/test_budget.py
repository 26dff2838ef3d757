"""The budget of a sweep: its time limit."""

import re
from pathlib import Path
from typing import Any

import pytest

from nanosq.errors import InputError
from nanosq.sweeps.budget import parse_seconds
from tests.commandline import command, runs
from tests.sweeps.test_sweeps import FEW, load_study

SEARCH = [
    "hydra/sweeper=optuna",
    "loss=squentropy",
    "hydra/sweeper/pruner=none",
    "model.n_layer=1",
    "train.max_steps=300",
    *FEW,
]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), (90, 90), (0.5, 0.5), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("1.5h", 5400)],
)
def test_a_time_is_a_number_of_seconds_or_has_units(text: Any, seconds: float | None) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", 0, -1, "-1h", float("inf"), float("nan"), True, "nat", "10 parsecs"])
def test_other_times_are_refused(text: Any) -> None:
    with pytest.raises(InputError, match=r"hydra\.sweeper\.timeout=.*: give a time such as 90s, 10m or 1h30m"):
        parse_seconds(text)


def test_a_timeout_interrupts_a_trial_that_is_resumed_later(tmp_path: Path) -> None:
    ended = command("-m", *SEARCH, "hydra.sweeper.n_trials=200", "hydra.sweeper.timeout=5s", cwd=tmp_path, check=True)
    (step,) = re.findall(r"interrupted after step (\d+): run the same command again to resume", ended.stderr)
    assert "hydra.sweeper.timeout=5s ends the search; run the same command again" in ended.stderr
    assert "Traceback" not in ended.stderr
    states = [trial.state.name for trial in load_study(tmp_path).trials]
    assert states == ["COMPLETE"] * (len(states) - 1) + ["WAITING"]
    assert re.search(rf"^ +{len(states) - 1} interrupted ", ended.stdout, re.MULTILINE)
    assert sorted(run.info.status for run in runs(tmp_path)) == ["FINISHED"] * (len(states) - 1) + ["KILLED"]

    again = command("-m", *SEARCH, f"hydra.sweeper.n_trials={len(states)}", cwd=tmp_path, check=True)
    assert f"resumed after step {step}\n" in again.stderr
    assert {trial.state.name for trial in load_study(tmp_path).trials} == {"COMPLETE"}
    assert [run.info.status for run in runs(tmp_path)] == ["FINISHED"] * len(states)


def test_a_wrong_timeout_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    result = command("-m", *SEARCH, "hydra.sweeper.timeout=later", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: hydra.sweeper.timeout=later: give a time such as 90s, 10m or 1h30m\n"
    assert not [*tmp_path.iterdir()]
