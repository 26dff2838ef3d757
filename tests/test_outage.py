"""A tracking store that cannot be reached while a run trains: nothing is lost, and nothing is recorded twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from omegaconf import OmegaConf

from nanosq import checkpoint, sync
from nanosq.sweeps.recording import SweepRecording
from nanosq.tracking import RecordedData, journal, mlflow_run
from nanosq.tracking.journal import undelivered
from nanosq.tracking.mlflow_run import MLflowRun
from nanosq.tracking.mlflow_store import MLflowStore
from tests.commandline import ROOT, provide_store

PARAMS = {"model": "GPT", "optimizer.lr": 0.1, "seed": 1}
TAGS = {"config_hash": "0123", "code": "4567", "checkpoints": "host:/checkpoints/0123"}
DATA = RecordedData("stories", "0123456789ab", {"n": 1}, {"train": {"tokens": 5}})
VARYING = ("mlflow.runName", "mlflow.source.name", "journal")  # tags
CALLS = (
    *("create_run", "update_run", "log_inputs", "log_batch", "log_text", "log_artifact", "create_logged_model"),
    *("log_outputs", "finalize_logged_model", "set_tag", "set_terminated", "get_metric_history", "search_runs"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint folder. The working folder has an empty store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mlflow_run, "FLUSH_SECONDS", 1e9)  # the tests deliver
    provide_store(tmp_path)
    checkpoints = tmp_path / "checkpoints/0123"
    checkpoints.mkdir(parents=True)
    (checkpoints / "best.pt").write_bytes(b"weights")
    return checkpoints


def store() -> MLflowStore:
    return MLflowStore(experiment="nanosq", uri=f"sqlite:///{Path.cwd()}/mlflow.db")


def take_away() -> None:
    """Make the store unusable."""
    Path("mlflow.db").rename("away.db")
    Path("mlflow.db").mkdir()


def bring_back() -> None:
    Path("mlflow.db").rmdir()
    Path("away.db").rename("mlflow.db")


def start(folder: Path) -> MLflowRun:
    return store().start("a name", params=PARAMS, tags=TAGS, data=DATA, folder=folder)


def train(
    run: MLflowRun, folder: Path, steps: range = range(1, 7), at_step: Callable[[int], None] = lambda _: None
) -> None:
    with run:
        run.text("settings", "config.yaml")
        for step in steps:
            at_step(step)
            run.log({"train/loss": 1 / step, "val/nll": 2.0 / step}, step)
        run.model("a model", folder / "best.pt", step=6)
        run.summarize({"val/nll": 2.0 / 6, "test/nll": 0.5}, 6)
        run.tag(state="finished")
        run.keep(folder / "best.pt", "checkpoint")


def recorded() -> tuple[Run, dict[str, Any]]:
    """Return the only run of the store, and everything about it that does not depend on its id and times."""
    client = mlflow.MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    (run,) = client.search_runs(["1"])
    models = client.search_logged_models(["1"])
    files = {str(path.relative_to("mlruns")): path.read_bytes() for path in Path("mlruns").rglob("*") if path.is_file()}
    facts = {
        "status": run.info.status,
        "params": run.data.params,
        "tags": {key: value for key, value in run.data.tags.items() if key not in VARYING},
        "points": {
            key: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        },
        "inputs": [each.dataset.digest for each in run.inputs.dataset_inputs],
        "outputs": [each.step for each in run.outputs.model_outputs],
        "models": [(model.name, model.status, [(m.key, m.value) for m in model.metrics]) for model in models],
        "files": {name.partition("/artifacts/")[2]: content for name, content in files.items()},
    }
    return run, facts


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Train an undisturbed run, and return what it records."""
    place, before = tmp_path_factory.mktemp("undisturbed"), Path.cwd()
    os.chdir(place)
    try:
        provide_store(place)
        (place / "best.pt").write_bytes(b"weights")
        train(start(place), place)
        return recorded()[1]
    finally:
        os.chdir(before)


def test_an_undisturbed_run(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    assert undisturbed["points"]["train/loss"] == [(step, 1 / step) for step in range(1, 7)]
    assert undisturbed["points"]["val/nll"][-2:] == [(6, 2 / 6), (6, 2 / 6)]  # the second one is that of the model
    assert [name for name, *_ in undisturbed["models"]] == ["a model"]
    assert {*undisturbed["files"]} == {"config.yaml", "curves.csv", "checkpoint/best.pt"}


@pytest.mark.parametrize("away", ["at the start", "in the middle", "at the end"])
def test_an_outage(away: str, folder: Path, undisturbed: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    if away == "at the start":
        take_away()
    run = start(folder)

    def at_step(step: int) -> None:
        if away == "in the middle" and step == 3:
            run._delivery.deliver()
            take_away()
            with pytest.raises(IsADirectoryError):
                run._delivery.deliver()
        if away == "in the middle" and step == 5:
            bring_back()

    def end(step: int) -> None:
        at_step(step)
        if away == "at the end" and step == 6:
            take_away()

    train(run, folder, at_step=end)
    if away != "in the middle":
        assert Path(run.unrecorded).is_dir()
        assert sync.main([]) == 3  # still away
        assert capsys.readouterr().err.count("\n") == 1
        (folder / "best.pt").unlink()  # as at the end of a run: the journal has its own copy
        bring_back()
        assert sync.main([]) == 0
        assert f"/runs/{recorded()[0].info.run_id}" in capsys.readouterr().out
    assert recorded()[1] == undisturbed
    assert not undelivered(folder)
    assert sync.main([]) == 0
    assert "nothing to deliver" in capsys.readouterr().out


def test_lost_replies(folder: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The store carries out every call, but its first reply is lost."""
    take_away()
    run = start(folder)
    train(run, folder)
    bring_back()
    seen: set[str] = set()

    def lossy(name: str) -> Callable[..., Any]:
        call = getattr(mlflow.MlflowClient, name)

        def called(client: mlflow.MlflowClient, *args: Any, **kwargs: Any) -> Any:
            result = call(client, *args, **kwargs)
            if name not in seen or name == "log_batch":
                key = name if name != "log_batch" else f"{args} {kwargs}"
                if key not in seen:
                    seen.add(key)
                    raise ConnectionError(name)
            return result

        return called

    for name in CALLS:
        monkeypatch.setattr(mlflow.MlflowClient, name, lossy(name))
    n_lost = 0
    while found := undelivered(folder):
        try:
            store().deliver(found[0])
        except ValueError:
            n_lost += 1
    assert n_lost >= len(CALLS) - 2  # a new run has nothing to update and no history
    monkeypatch.undo()
    os.chdir(folder.parents[1])
    assert recorded()[1] == undisturbed


def test_a_killed_run_is_resumed_with_its_journal(folder: Path, undisturbed: dict[str, Any]) -> None:
    script = """
import os
from tests.test_outage import Path, start, take_away
run = start(Path("checkpoints/0123"))
with run:
    run.text("settings", "config.yaml")
    for step in range(1, 5):
        if step == 2:
            run._delivery.deliver()
            take_away()
        run.log({"train/loss": 1 / step, "val/nll": 2.0 / step}, step)
    os.kill(os.getpid(), 9)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    (found,) = undelivered(folder)
    with (found.folder / journal.RECORDS).open("ab") as file:
        file.write(b'{"kind": "metr')  # as if the kill had come while this record was written
    bring_back()
    train(start(folder), folder, range(3, 7))  # from a checkpoint at step 2
    assert recorded()[1] == undisturbed


def test_a_database_that_is_deleted(folder: Path, undisturbed: dict[str, Any]) -> None:
    run = start(folder)
    train(run, folder, at_step=lambda step: Path("mlflow.db").unlink() if step == 4 else None)
    run_id = run.run_id
    if run.unrecorded:
        assert sync.main([]) == 0
        run_id = recorded()[0].info.run_id
    assert recorded()[0].info.run_id == run_id
    assert recorded()[1] == undisturbed


@pytest.mark.usefixtures("default_store")
def test_a_sweep_leaves_the_journals_of_other_processes_to_them(folder: Path) -> None:
    take_away()
    train(start(folder), folder)
    bring_back()
    tracking = {"_target_": "nanosq.tracking.mlflow_store.MLflowStore", "experiment": "nanosq", "uri": None}
    launcher = {"runtime": {"choices": {"hydra/launcher": "basic"}}}
    recording = SweepRecording(
        OmegaConf.create({"tracking": tracking, "checkpoint_dir": str(folder.parent), "hydra": launcher})
    )
    with checkpoint.exclusive(folder), recording.delivered() as is_complete:
        assert is_complete
        assert undelivered(folder)
    with recording.delivered():
        assert not undelivered(folder)
    assert recorded()[0].info.status == "FINISHED"
