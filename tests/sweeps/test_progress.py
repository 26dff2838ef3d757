"""The line that says how far a sweep is, from the file that its runs share."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nanosq.errors import InfeasibleError
from nanosq.result import Result
from nanosq.sweeps import progress
from nanosq.sweeps.progress import EndedRun, Standing, SweepProgress, TrialReport
from nanosq.sweeps.trial import PrunerReport, TrialRun


def perplexity(run: str, value: float | None, *, trial: str = "", seconds: float | None = 20.0) -> EndedRun:
    return EndedRun(run, trial or run, {} if value is None else {"val/perplexity": value}, seconds)


def text(*runs: EndedRun, **standing: Any) -> str:
    return str(SweepProgress(Standing(**{"n_runs": 27, **standing}), runs))


FIRST, SECOND, FAILED = perplexity("#0", 4.0), perplexity("#1", 3.4123), perplexity("#2", None)
RECORDED = [perplexity("#0", 4.0, seconds=None), perplexity("#1", 5.0, seconds=None)]
SLOW_FIRST = [perplexity("#0", 4.0, seconds=60.0), perplexity("#1", 5.0, seconds=10.0)]
SEEDS = [FIRST, perplexity("#1", 3.0), perplexity("#1 seed 2", 9.0, trial="#1")]
EARLIER = {"n_ended": 10, "values": {"#7": [3.5]}, "seconds": [1.0, 1.0]}  # an earlier start of a search
ACCURACY = [EndedRun(name, name, {"val/accuracy": value}) for name, value in (("#0", 0.5), ("#1", 0.75))]
TUNING = {"n_runs": 2, "phase": "tuning"}
SGD = perplexity("sgd #0", 4.0, seconds=10.0)


@pytest.mark.parametrize(
    ("runs", "standing", "expected"),
    [
        ([], {}, "0 of 27"),
        ([FIRST, SECOND, FAILED], {}, "3 of 27, best 3.412 (#1), about 8 min left"),
        (RECORDED, {}, "2 of 27, best 4 (#0)"),  # they count and take no time
        ([*RECORDED, perplexity("#2", 6.0)], {"n_runs": 5}, "3 of 5, best 4 (#0), about 40 s left"),
        (SLOW_FIRST, {"n_runs": 4}, "2 of 4, best 4 (#0), about 20 s left"),  # the first run loads PyTorch
        (SEEDS, {"n_jobs": 2}, "3 of 27, best 4 (#0), about 4 min left"),  # a trial is as good as the mean of its seeds
        ([*SEEDS, perplexity("#0 seed 2", None, trial="#0")], {}, "4 of 27, best 6 (#1), about 8 min left"),
        ([], EARLIER, "10 of 27, best 3.5 (#7), about 17 s left"),
        ([perplexity("#10", 3.2, seconds=1.0)], EARLIER, "11 of 27, best 3.2 (#10), about 16 s left"),
        (ACCURACY, {"metric": "val/accuracy"}, "2 of 27, best val/accuracy 0.75 (#1)"),
        ([SGD], {**TUNING, "seconds_after": 50.0}, "tuning 1 of 2, best 4 (sgd #0), about 60 s left"),
        ([SGD], {**TUNING, "seconds_after": None}, "tuning 1 of 2, best 4 (sgd #0)"),
    ],
)
def test_runs_ended_best_trial_and_time_left(runs: list[EndedRun], standing: dict[str, Any], expected: str) -> None:
    assert text(*runs, **standing) == expected


def test_a_deadline_bounds_the_time_left() -> None:
    assert re.search(r"about \d s left", text(perplexity("#0", 4.0), deadline=time.time() + 9))


def test_every_process_counts_its_own_run() -> None:
    with progress.shared(Standing(40)) as path, ThreadPoolExecutor(8) as pool:
        runs = [perplexity(f"#{number}", 4.0) for number in range(40)]
        found = [*pool.map(lambda run: progress.append(path, run), runs)]
        assert sorted(len(each.ended) for each in found) == [*range(1, 41)]
        again = progress.append(path, perplexity("#0", 2.0))  # launched once more after a failure of the launcher
        assert str(again).startswith("40 of 40, best 2 (#0)")
    assert not path.exists()


@pytest.fixture
def pruner() -> PrunerReport:
    return PrunerReport(None, None, max_steps=1)


def test_a_run_says_how_it_ended_and_how_far_the_sweep_is(
    pruner: PrunerReport, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"val/perplexity": 4.0, "test/nll": 1.0}
    with progress.shared(Standing(3)) as path:
        trials = [TrialRun("a grid", number, progress=str(path)) for number in range(3)]
        TrialReport(trials[0]).ended(Result("finished", metrics, is_recorded=True), pruner)
        TrialReport(trials[1]).ended(Result("diverged", {"train/seconds": 1.0}, note="diverged after 9 steps"), pruner)
        _, recorded, diverged = map(json.loads, filter(None, path.read_text().splitlines()))
    TrialReport(trials[2]).ended(Result("finished", metrics), pruner)  # the sweeper was killed, or is elsewhere
    assert recorded == {"run": "#0", "trial": "#0", "metrics": {"val/perplexity": 4.0}, "seconds": None}
    assert diverged["metrics"] == {}
    assert diverged["seconds"] >= 0
    assert capsys.readouterr().out.splitlines() == [
        "#0: val perplexity 4.0000, as recorded; 1 of 3, best 4 (#0)",
        "#1: diverged after 9 steps; 2 of 3, best 4 (#0), about 1 s left",
        "#2: val perplexity 4.0000",
    ]


def test_a_failure_is_logged_with_the_progress(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with progress.shared(Standing(3)) as path:
        for in_study, error in ((False, InfeasibleError("no")), (True, InfeasibleError("no")), (True, ValueError("x"))):
            trial = TrialRun("a sweep", int(in_study), in_study=in_study, progress=str(path))
            with pytest.raises(type(error)), TrialReport(trial):
                raise error
    # A search does not count a trial that cannot be trained.
    assert caplog.messages == ["#0: failed: no; 1 of 3", "#1: failed: no", "#1: failed: x; 2 of 3"]


def test_a_single_run_prints_nothing(pruner: PrunerReport, capsys: pytest.CaptureFixture[str]) -> None:
    TrialReport(None).ended(Result("finished", {"val/perplexity": 4.0}), pruner)
    with pytest.raises(ValueError, match="wrong"), TrialReport(None):
        raise ValueError("wrong")
    assert capsys.readouterr() == ("", "")
