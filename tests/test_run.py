"""Single runs through the real command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanosq import generate
from tests.commandline import ROOT, SMALL, check_names_and_commands, command, environment, printed_perplexity, runs


def test_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = command("loss=squentropy", *SMALL, cwd=tmp_path, check=True)
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert printed_perplexity(result) == pytest.approx(run.data.metrics["val/perplexity"], abs=1e-4)
    own = {"val": ["temperature"], "test": ["nll_frequent", "nll_medium", "nll_rare"]}
    for split in ("val", "test"):
        names = ["loss", "nll", "perplexity", "bits_per_byte", "accuracy", "ece", "floor_nll", "excess_nll"]
        names += ["nll_calibrated", "ece_calibrated", *own[split]]
        assert {key for key in run.data.metrics if key.startswith(f"{split}/")} == {f"{split}/{name}" for name in names}
        assert run.data.metrics[f"{split}/excess_nll"] > 0
    assert run.data.metrics["val/loss"] > run.data.metrics["val/nll"]
    assert run.data.metrics["best/val_perplexity"] <= run.data.metrics["val/perplexity"]
    names = ("loss", "nll", "grad_norm", "lr", "seconds", "tokens_per_second", "mfu")
    assert {f"train/{name}" for name in names} <= {*run.data.metrics}
    assert run.data.params["loss.weight"] == "1.0"
    assert run.data.tags["config_hash"]
    assert (run.data.tags["diverged"], run.data.tags["state"]) == ("false", "finished")
    check_names_and_commands([run])
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("stories", run.data.tags["text"])
    size = json.loads(data.dataset.profile)["train"]
    assert size["documents"] == 150
    assert int(run.data.tags["vocabulary"]) > 100

    files = Path(run.info.artifact_uri.removeprefix("file://"))
    texts = {"config.yaml", "curves.csv", "samples.txt", "stories.csv", "calibration.csv"}
    assert {path.name for path in files.iterdir()} == {*texts, "checkpoint"}
    assert (
        f"experiments/{run.info.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=nanosq"
        in result.stdout
    )
    left = {path.name for path in tmp_path.iterdir()} - {"mlflow.db.lock"}
    assert left == {"cache", "checkpoints", "mlflow.db", "mlruns"}
    assert not [*(tmp_path / "checkpoints").iterdir()]

    store = ["--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    texts = []
    for name in (str(files / "checkpoint/best.pt"), run.info.run_id):
        assert generate.main([name, *store, "--prompt", "Once upon", "--max-new-tokens", "20"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0].startswith("Once upon")
    assert texts[0] == texts[1]


def test_same_seed_same_result_and_tracking_none(tmp_path: Path) -> None:
    results = [command("tracking=none", f"seed={seed}", *SMALL, cwd=tmp_path, check=True) for seed in (1, 1, 2)]
    first, again, other = map(printed_perplexity, results)
    assert first == again != other
    assert not (tmp_path / "mlflow.db").exists()
    assert len(list((tmp_path / "checkpoints").glob("*/best.pt"))) == 2


def patched(
    patch: str, *arguments: str, cwd: Path, program: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run run.py of a checkout after Python code that replaces a part of nanosq."""
    script = f"""
import os, runpy, signal, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
{patch}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    return subprocess.run(
        [sys.executable, "-c", script, str(program / "run.py"), *arguments],
        cwd=cwd,
        env=environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def cut_short(how: str, *arguments: str, cwd: Path, **variables: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run a command, execute `how` right after it has written its first last.pt, and return that checkpoint too."""
    patch = f"""
from nanosq import checkpoint
save = checkpoint.save
def cut(path, content):
    save(path, content)
    if path.name == "last.pt":
        checkpoint.save = save
        {how}
checkpoint.save = cut
"""
    result = patched(patch, *arguments, cwd=cwd, **variables)
    (last,) = (cwd / "checkpoints").glob("*/last.pt")
    return result, last.relative_to(cwd)


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
def test_init_from_another_run(tmp_path: Path) -> None:
    command(*SMALL, cwd=tmp_path, check=True)
    (run,) = runs(tmp_path)
    best = Path(run.info.artifact_uri.removeprefix("file://")) / "checkpoint/best.pt"
    still = ["optimizer.lr=0", "loss=squentropy", "model.dropout=0.1"]  # the weights do not change
    by_id = command(*SMALL, *still, f"init_from={run.info.run_id}", cwd=tmp_path, check=True)
    by_path = command(*SMALL, *still, f"init_from={best}", cwd=tmp_path, check=True)
    expected = pytest.approx(run.data.metrics["best/val_perplexity"], rel=1e-4)
    assert printed_perplexity(by_id) == printed_perplexity(by_path) == expected
    for change, complaint in [
        ("init_from=nowhere.pt", "there is no model nowhere.pt: give the id of a run"),
        ("init_from=" + 32 * "0", "has no run " + 32 * "0"),
        ("data.source.seed=9", "trained on another text"),
    ]:
        refused = command(*SMALL, f"init_from={best}", change, cwd=tmp_path)
        assert refused.returncode == 2, change
        assert complaint in refused.stderr
    other_model = command(*SMALL, f"init_from={best}", "model.n_embd=32", cwd=tmp_path)
    assert other_model.returncode == 2
    assert f"model.n_embd is 32, and the weights of init_from={best} have 16" in other_model.stderr
    assert len(runs(tmp_path)) == 3


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


def test_divergence_is_a_result(tmp_path: Path) -> None:
    result = command(*SMALL, "optimizer.lr=1e38", "train.clip_norm=null", "precision=fp32", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert printed_perplexity(result) == float("inf")
    assert "diverged after" in result.stderr
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert run.data.tags["diverged"] == "true"
