"""Two processes under torchrun, which exchange gradients through gloo on the CPU."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanosq import distributed, error_reports
from tests.commandline import ROOT, SMALL, command, environment, printed_perplexity, runs


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.Popen(
        [*launcher, str(ROOT / "run.py"), *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    process = start(*arguments, cwd=cwd)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


# So little text that the best step is not the last one: all processes restore its weights.
OVERFIT = ["data.source.n_train=10", "optimizer.lr=2e-2", "train.max_steps=20", "train.eval_every=5", "train.warmup=0"]


@pytest.mark.parametrize(
    "shared",
    [
        ["train.accumulate=1", *OVERFIT],
        pytest.param(["train.accumulate=2", "model.dropout=0.1"], marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_two_processes_train_the_same_model_as_one(shared: list[str], tmp_path: Path) -> None:
    """They share micro-batches, with dropout, if there are two; otherwise rows. Only the order of sums differs."""
    settings = [*SMALL, *shared, "precision=fp32", "train.log_every=1"]
    one = command(*settings, cwd=tmp_path, check=True)
    (alone,) = runs(tmp_path)
    two = torchrun(*settings, cwd=tmp_path)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("validation perplexity") == 1
    assert printed_perplexity(two) == pytest.approx(printed_perplexity(one), rel=1e-4)
    together = next(run for run in runs(tmp_path) if run.info.run_id != alone.info.run_id)
    is_best = alone.data.metrics["last/val_perplexity"] == alone.data.metrics["val/perplexity"]
    assert is_best == (OVERFIT[0] not in shared)
    assert len(runs(tmp_path)) == 2
    assert together.info.status == "FINISHED"
    times = {"train/seconds", "train/tokens_per_second", "train/mfu", "last/val_seconds"}
    assert together.data.metrics.keys() == alone.data.metrics.keys()
    for key in {*alone.data.metrics} - times:
        assert together.data.metrics[key] == pytest.approx(alone.data.metrics[key], rel=1e-4, abs=1e-6), key


@pytest.mark.slow
def test_two_processes_stop_together_and_one_resumes(tmp_path: Path) -> None:
    settings = [*SMALL, "train.max_steps=200", "train.eval_every=200", "train.checkpoint_every=2"]
    process = start(*settings, cwd=tmp_path)
    while process.poll() is None and not list((tmp_path / "checkpoints").glob("*/last.pt")):
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode != 0
    assert errors.count("interrupted after step") == 1, errors
    (run,) = runs(tmp_path)
    assert run.info.status == "KILLED"
    resumed = command(*settings, cwd=tmp_path, check=True)
    assert "resumed after step" in resumed.stderr
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_unequal_shares_and_sweeps_are_refused(tmp_path: Path) -> None:
    odd = torchrun(*SMALL, "train.batch_size=3", cwd=tmp_path)
    assert odd.returncode != 0
    assert odd.stderr.count("2 processes cannot divide a step equally") == 1
    sweep = torchrun("-m", *SMALL, "seed=1,2", cwd=tmp_path)
    assert sweep.returncode != 0
    assert "torchrun trains one model" in sweep.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_another_process_than_the_first_prints_its_error_if_it_is_not_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(error_reports, "SECONDS_FOR_FIRST", 0.0)
    assert error_reports.report(ValueError("wrong")) == 2
    assert capsys.readouterr().err == "error: process 1: wrong\n"


@pytest.mark.parametrize(("accumulate", "batch_size"), [(6, 5), (4, 9), (1, 6), (5, 12)])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_all_processes_together_compute_every_window_once(
    accumulate: int, batch_size: int, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(n))
    if accumulate % n and batch_size % n:
        with pytest.raises(ValueError, match=r"train\.batch_size"):
            distributed.share_of_step(accumulate, batch_size)
        return
    taken = []
    for rank in range(n):
        monkeypatch.setenv("RANK", str(rank))
        micro_batches, rows = distributed.share_of_step(accumulate, batch_size)
        share = [(i, row) for i in range(accumulate)[micro_batches] for row in range(batch_size)[rows]]
        assert len(share) == accumulate * batch_size / n
        taken += share
    assert sorted(taken) == [(i, row) for i in range(accumulate) for row in range(batch_size)]
