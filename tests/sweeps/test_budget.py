"""The budget of a sweep: its time limit."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nanosq.errors import InputError
from nanosq.sweeps.budget import Cost, Pace, duration, fit, parse_seconds, usual
from tests.commandline import command, runs
from tests.sweeps.commandline import FEW, load_study

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
    [
        (None, None),
        (90, 90),
        ("90", 90),
        (0.5, 0.5),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2h", 7200),
        ("1.5h", 5400),
    ],
)
def test_a_time_is_a_number_of_seconds_or_has_units(text: Any, seconds: float | None) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", 0, -1, "-1h", float("inf"), float("nan"), True, "nat", "10 parsecs"])
def test_other_times_are_refused(text: Any) -> None:
    with pytest.raises(InputError, match=r"hydra\.sweeper\.timeout=.*: give a time such as 90s, 10m or 1h30m"):
        parse_seconds(text)


def test_the_usual_cost_is_not_that_of_the_first_trial() -> None:
    first, second = Cost(60, training=5, evaluation=2), Cost(20, training=7, evaluation=1)
    assert usual([first, second]) == Cost(20, training=6, evaluation=1)
    assert second.setup(10) == 3
    assert second.setup(20) == 0


@given(
    n_trials=st.integers(1, 50),
    n_seeds=st.integers(1, 9),
    paces=st.lists(st.builds(Pace, st.integers(0, 9), st.floats(0.1, 99), st.floats(0.1, 999)), min_size=2, max_size=4),
    seconds_left=st.floats(1, 1e5),
)
def test_a_plan_is_the_largest_that_fits(n_trials: int, n_seeds: int, paces: list[Pace], seconds_left: float) -> None:
    done = max(pace.n_done for pace in paces)
    n_trials += done
    plan = fit(n_trials, n_seeds, paces, seconds_left=seconds_left)
    whole = fit(n_trials, n_seeds, paces, seconds_left=math.inf)
    assert (whole.n_trials, whole.n_seeds) == (n_trials, n_seeds)
    assert max(1, done) <= plan.n_trials <= n_trials
    assert min(2, n_seeds) <= plan.n_seeds <= n_seeds
    trials = sum((plan.n_trials - pace.n_done) * pace.trial for pace in paces)
    assert plan.seconds == pytest.approx(trials + plan.n_seeds * sum(pace.run for pace in paces))
    smallest = fit(n_trials, n_seeds, paces, seconds_left=0)
    assert plan.fits(seconds_left) or plan == smallest
    if whole.fits(seconds_left):
        assert plan == whole
    assert fit(n_trials, n_seeds, paces, seconds_left=2 * seconds_left).seconds >= plan.seconds


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (98, "98 s"), (601, "11 min"), (6601, "1 h 51 min")])
def test_a_duration_is_rounded_up(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.slow
def test_a_timeout_interrupts_a_trial_that_is_resumed_later(tmp_path: Path) -> None:
    for seconds in (5, 10, 20, 40, 80):  # a busy machine needs longer until the first step
        folder = tmp_path / str(seconds)
        folder.mkdir()
        timeout = f"hydra.sweeper.timeout={seconds}s"
        ended = command("-m", *SEARCH, "hydra.sweeper.n_trials=200", timeout, cwd=folder, check=True)
        assert f"{timeout} ends the search; run the same command again" in ended.stderr
        assert "Traceback" not in ended.stderr
        if step := re.search(r"interrupted after step ([1-9]\d*): run the same command again to resume", ended.stderr):
            break
    assert step is not None
    states = [trial.state.name for trial in load_study(folder).trials]
    assert states == ["COMPLETE"] * (len(states) - 1) + ["WAITING"]
    (written,) = (folder / "sweeps").glob("*/trials.csv")
    rows = list(csv.DictReader(written.open()))
    assert (rows[-1]["trial"], rows[-1]["state"]) == (str(len(states) - 1), "interrupted")
    assert sorted(run.info.status for run in runs(folder)) == ["FINISHED"] * (len(states) - 1) + ["KILLED"]

    again = command("-m", *SEARCH, f"hydra.sweeper.n_trials={len(states)}", cwd=folder, check=True)
    assert f"resumed after step {step[1]}\n" in again.stderr
    assert {trial.state.name for trial in load_study(folder).trials} == {"COMPLETE"}
    assert [run.info.status for run in runs(folder)] == ["FINISHED"] * len(states)


def test_a_wrong_timeout_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    result = command("-m", *SEARCH, "hydra.sweeper.timeout=later", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: hydra.sweeper.timeout=later: give a time such as 90s, 10m or 1h30m\n"
    assert not [*tmp_path.iterdir()]
