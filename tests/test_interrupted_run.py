"""Runs that are killed or interrupted, and the command that continues them."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.commandline import SMALL, command, printed_perplexity, runs
from tests.patched import cut_short, patched


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = [*SMALL, "tracking=none", "model.dropout=0.1", "train.checkpoint_every=4", "train.log_every=1"]
    two_threads = {"OMP_NUM_THREADS": "2"}  # the resumed run uses two as well: their number changes the rounding
    whole = command(*settings, "checkpoint_dir=whole", cwd=tmp_path, check=True, warm=False, **two_threads)
    killed, last = cut_short("os._exit(9)", *settings, cwd=tmp_path, **two_threads)
    assert killed.returncode == 9
    kept = shutil.copy(tmp_path / last, tmp_path / "kept.pt")
    resumed = command(*settings, cwd=tmp_path, check=True)
    assert "resumed after step 4" in resumed.stderr
    assert printed_perplexity(resumed) == printed_perplexity(whole)
    assert not (tmp_path / last).exists()
    best, expected = (
        torch.load(next((tmp_path / folder).glob("*/best.pt")), weights_only=True)
        for folder in ("checkpoints", "whole")
    )
    assert best["threads"] == expected["threads"] == 2
    assert best["model"].keys() == expected["model"].keys()
    for name, weight in best["model"].items():
        assert torch.equal(weight, expected["model"][name]), name
    finished = command(*settings, f"resume={kept}", "train.max_steps=3", cwd=tmp_path)
    assert finished.returncode == 2
    assert "raise train.max_steps" in finished.stderr


@pytest.mark.parametrize(
    ("signal", "status"),
    [
        ("SIGINT", 130),
        *[pytest.param(name, 143, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGHUP", "SIGUSR2")],
    ],
)
def test_an_interrupted_run_says_how_to_resume(signal: str, status: int, tmp_path: Path) -> None:
    settings = [*SMALL, "train.checkpoint_every=2"]
    interrupted, last = cut_short(f"os.kill(os.getpid(), signal.{signal})", *settings, cwd=tmp_path)
    assert interrupted.returncode == status
    assert "interrupted after step 2: run the same command again to resume" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    (run,) = runs(tmp_path)
    assert run.info.status == "KILLED"
    if signal == "SIGTERM":
        by_id = command(*settings, f"resume={run.info.run_id}", cwd=tmp_path, check=True)
        assert "resumed after step 2" in by_id.stderr
        assert [other.info.status for other in runs(tmp_path)] == ["FINISHED"]  # it is the same run
        nothing_left = command(*settings, f"resume={run.info.run_id}", cwd=tmp_path)
        assert nothing_left.returncode == 2
        assert f"start from its weights with init_from={run.info.run_id}" in nothing_left.stderr
        assert not list((tmp_path / "checkpoints").iterdir())
    if signal == "SIGINT":
        for change, complaint in [
            ("optimizer.lr=1e-9", "optimizer.lr was 0.012 in the run to resume and is now 1e-09"),
            ("optimizer=adamw", "optimizer._target_ was nanosq.muon.Muon"),
            ("data.source.seed=9", "data.source.seed was 0 in the run to resume"),
        ]:
            refused = command(*settings, f"resume={last}", change, cwd=tmp_path)
            assert refused.returncode == 2, change
            assert complaint in refused.stderr
        longer = command(*settings, f"resume={last}", "train.max_steps=8", cwd=tmp_path)
        assert longer.returncode == 0, longer.stderr
        states = {other.info.status: other for other in runs(tmp_path)}
        assert {*states} == {"KILLED", "FINISHED"}
        assert states["FINISHED"].data.tags["resumed_from"] == run.info.run_id
        new_run = command(*settings, "resume=never", cwd=tmp_path, check=True)
        assert "resumed" not in new_run.stderr
        assert len(runs(tmp_path)) == 3
        assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
def test_init_from_counts_if_the_checkpoint_disappears_before_the_run_starts(tmp_path: Path) -> None:
    """Another process may finish the same run, and delete its checkpoint, after this one has found it."""
    source = command(*SMALL, "tracking=none", "checkpoint_dir=source", cwd=tmp_path, check=True)
    (best,) = (tmp_path / "source").glob("*/best.pt")
    settings = [*SMALL, "tracking=none", f"init_from={best}", "optimizer.lr=0", "train.checkpoint_every=2"]
    _, last = cut_short("os._exit(9)", *settings, cwd=tmp_path)
    patch = f"""
from nanosq import training_run
prepare = training_run.prepare
def delete_and_prepare(experiment):
    os.remove({str(last)!r})
    return prepare(experiment)
training_run.prepare = delete_and_prepare
"""
    result = patched(patch, *settings, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert printed_perplexity(result) == pytest.approx(printed_perplexity(source), rel=1e-4)


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_that_reuses_recorded_trials(tmp_path: Path) -> None:
    sweep = ["-m", *SMALL, "model.dropout=0.0,0.1"]
    command(*sweep, cwd=tmp_path, check=True)
    patch = """
from nanosq.tracking.mlflow_store import MLflowStore
find = MLflowStore.find
def find_and_interrupt(*arguments):
    result = find(*arguments)
    os.kill(os.getpid(), signal.SIGINT)
    return result
MLflowStore.find = find_and_interrupt
"""
    result = patched(patch, *sweep, cwd=tmp_path)
    assert result.returncode == 130, result.stdout + result.stderr
    assert "#1" not in result.stdout


@pytest.mark.slow
def test_a_second_process_with_the_same_configuration_is_refused(tmp_path: Path) -> None:
    """The first one is not disturbed."""
    from filelock import FileLock

    _, last = cut_short("os._exit(9)", *SMALL, "train.checkpoint_every=4", cwd=tmp_path)
    folder = (tmp_path / last).parent
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        second = command(*SMALL, "train.checkpoint_every=4", cwd=tmp_path)
    assert second.returncode == 2
    assert "another process is training this very configuration" in second.stderr
    assert (tmp_path / last).exists()
