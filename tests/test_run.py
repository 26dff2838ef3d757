"""Single runs through the real command line."""

import json
from pathlib import Path

import pytest

from nanosq import generate
from tests.commandline import SMALL, check_names_and_commands, command, printed_perplexity, runs


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


def test_divergence_is_a_result(tmp_path: Path) -> None:
    result = command(*SMALL, "optimizer.lr=1e38", "train.clip_norm=null", "precision=fp32", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert printed_perplexity(result) == float("inf")
    assert "diverged after" in result.stderr
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert run.data.tags["diverged"] == "true"
