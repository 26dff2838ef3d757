"""The command that registers a run's model, and the choice of the best run of a sweep."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from nanosq import checkpoint, register
from nanosq.filesystem import file_name
from nanosq.sweeps import summary
from nanosq.sweeps.summary import TrialSummary
from nanosq.tracking import registry
from nanosq.tracking.mlflow_store import MLflowStore
from tests.commandline import SMALL, command, provide_store, runs
from tests.mlflow_server import serve

WITHOUT_EFFECT = "device,tracking,seed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of one run."""
    folder = tmp_path_factory.mktemp("register")
    command(*SMALL, cwd=folder, check=True)
    return folder


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, default_store: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def client(folder: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the line that the command prints for bad input."""
    assert register.main([*arguments]) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    return written.err.removeprefix("error: ").strip()


def test_a_run_is_registered_twice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = runs(folder)
    uri = f"sqlite:///{folder}/mlflow.db"
    for version in ("1", "2"):
        assert register.main([run.info.run_id, "my stories", "--tracking-uri", uri]) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"my stories version {version}: the model of the run {run.info.run_name}",
            f"page: http://127.0.0.1:5000/#/models/my%20stories/versions/{version}",
            f"serve: MLFLOW_TRACKING_URI={uri} mlflow models serve --env-manager local --port 5001"
            f" -m 'models:/my stories/{version}'",
        ]
    (output,) = run.outputs.model_outputs
    registered = client(folder).get_model_version("my stories", "2")
    assert (registered.source, registered.run_id) == (f"models:/{output.model_id}", run.info.run_id)
    assert registered.description == run.data.tags["mlflow.note.content"]
    model = client(folder).get_logged_model(output.model_id)
    versions = json.loads(model.tags["mlflow.modelVersions"])
    assert [(one["name"], int(one["version"])) for one in versions] == [("my stories", 1), ("my stories", 2)]
    mlflow.set_tracking_uri(uri)
    served = mlflow.pyfunc.load_model("models:/my stories/2")
    written = served.predict(pd.DataFrame({"prompt": ["One day"]}), params={"max_new_tokens": 3})
    assert written["text"][0].startswith("One day")
    assert math.isfinite(written["nll"][0])


def test_bad_input_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = runs(folder)
    here = ["--tracking-uri", f"sqlite:///{folder}/mlflow.db"]
    for name in ("", " "):
        assert error(capsys, run.info.run_id, name, *here) == "NAME: is empty"
    for name in ("a/b", "a:b", ".."):
        assert error(capsys, run.info.run_id, name, *here).startswith(f"{name!r} cannot be the name")
    assert error(capsys, "0" * 32, "a", *here).endswith(f"has no run {'0' * 32}")
    assert error(capsys, "grid-1", "a", *here).startswith("there is no run and no sweep grid-1")
    assert error(capsys, "grid-1", "a", *here, "--experiment", "other").startswith("there is no run and no sweep")
    assert error(capsys, "grid-1", "a", *here, "--metric", "test/nll").startswith("--metric test/nll is not one of")
    assert error(capsys, "grid-1", "a").startswith("there is no run and no sweep grid-1")
    away = error(capsys, "0" * 32, "a", "--tracking-uri", "http://127.0.0.1:9")
    assert "start the server or correct its address" in away
    assert not [*tmp_path.iterdir()]
    (tmp_path / "mlruns/0").mkdir(parents=True)
    assert "mlflow migrate-filestore" in error(capsys, "0" * 32, "a", "--tracking-uri", "mlruns")
    assert not client(folder).search_registered_models("name = 'a'")


def test_a_run_without_a_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = provide_store(tmp_path)
    store = MLflowStore(experiment="nanosq", uri=uri)
    with store.start("r", params={}, tags={}) as diverged:
        diverged.tag(diverged="true", state="diverged")
    with store.start("r", params={}, tags={}) as empty:
        empty.log({"val/perplexity": 2.0}, 1)
    running = store.start("r", params={}, tags={})
    damaged = tmp_path / "best.pt"
    damaged.write_bytes(b"no checkpoint")
    with store.start("r", params={}, tags={}) as unreadable:
        unreadable.keep(damaged, "checkpoint")
    for run, reason in (
        (diverged, f"run {diverged.run_id} is diverged: only the model of a finished run can be registered"),
        (running, f"run {running.run_id} is running: only the model"),
        (empty, f"run {empty.run_id} has no best.pt"),
        (unreadable, "is not a checkpoint of nanosq, or is damaged"),
    ):
        assert reason in error(capsys, run.run_id, "a", "--tracking-uri", uri)
    assert client(tmp_path).search_registered_models() == []
    assert client(tmp_path).search_logged_models(["1"]) == []


@pytest.mark.slow
def test_a_server_registers_a_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run is of a version that has recorded no model: its best.pt is all there is."""
    (recorded,) = runs(folder)
    with serve(tmp_path) as port:
        uri = f"http://127.0.0.1:{port}"
        with MLflowStore(experiment="nanosq", uri=uri).start("old: 1", params=recorded.data.params, tags={}) as run:
            run.log({"val/perplexity": 8.0}, 2)
            run.log({"val/perplexity": 9.0}, 4)
            run.keep(Path(recorded.info.artifact_uri) / "checkpoint/best.pt", "checkpoint")
        assert register.main([run.run_id, "stories", "--tracking-uri", uri]) == 0
        assert f"page: {uri}/#/models/stories/versions/1" in capsys.readouterr().out
        (output,) = mlflow.MlflowClient(uri).get_run(run.run_id).outputs.model_outputs
        model = mlflow.MlflowClient(uri).get_logged_model(output.model_id)
        assert (model.name, model.status, output.step) == (f"old_ 1 · {run.run_id[:6]}", "READY", 2)
        mlflow.set_tracking_uri(uri)
        served = mlflow.pyfunc.load_model("models:/stories/1")
    assert math.isfinite(served.predict(pd.DataFrame({"prompt": ["One day"]}))["nll"][0])


def test_the_step_of_a_model_of_the_last_weights(folder: Path, tmp_path: Path) -> None:
    (recorded,) = runs(folder)
    saved = checkpoint.load(Path(recorded.info.artifact_uri) / "checkpoint/best.pt")
    saved["settings"]["train.weights"] = "last"
    checkpoint.save(tmp_path / "best.pt", saved)
    uri = provide_store(tmp_path)
    with MLflowStore(experiment="nanosq", uri=uri).start("old", params=recorded.data.params, tags={}) as run:
        run.log({"val/perplexity": 8.0}, 2)
        run.log({"val/perplexity": 9.0}, 4)
        run.keep(tmp_path / "best.pt", "checkpoint")
    assert register.main([run.run_id, "stories", "--tracking-uri", uri]) == 0
    (output,) = client(tmp_path).get_run(run.run_id).outputs.model_outputs
    assert output.step == 4


def test_the_best_trial_that_a_sweep_has_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run has no tag of this sweep, which has found it as recorded."""
    (run,) = runs(folder)
    here = ["--tracking-uri", f"sqlite:///{folder}/mlflow.db"]

    def write(sweep: str, metrics: Sequence[str], *trials: tuple[int, str, list[float], list[str]]) -> Path:
        path = tmp_path / f"sweeps/{file_name(sweep)}/trials.csv"
        path.parent.mkdir(parents=True)
        unknown = [math.nan] * len(metrics)
        summaries = [TrialSummary(at, state, values, unknown, {}, ids, "") for at, state, values, ids in trials]
        summary.write_csv(path, summaries, metrics)
        return path

    others = (0, "finished", [4.0], ["1" * 32]), (3, "diverged", [math.inf], ["3" * 32])
    write("loss/tiny", ["val/perplexity"], (2, "finished", [3.25], [run.info.run_id, "2" * 32]), *others)
    assert register.main(["loss/tiny", "a", *here]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "best of loss/tiny: trial 2 with val/perplexity 3.25, as in sweeps/loss_tiny/trials.csv"
    assert second == f"a version 1: the model of the run {run.info.run_name}"
    long = "a" * 250  # its folder has a shorter name
    write(long, ["val/perplexity"], (2, "finished", [3.25], [run.info.run_id]))
    assert register.main([long, "a", *here]) == 0
    assert capsys.readouterr().out.startswith(f"best of {long}: trial 2 with val/perplexity 3.25, as in sweeps/aaa")

    front = (0, "finished", [0.9, 9.0], ["1" * 32]), (1, "finished", [0.8, 5.0], [run.info.run_id])
    front = (*front, (2, "violates", [1.0, 1.0], ["2" * 32]))
    path = write("two", ["val/accuracy", "train/seconds"], *front)
    assert register.main(["two", "a", *here, "--metric", "train/seconds"]) == 0
    assert capsys.readouterr().out.startswith("best of two: trial 1 with train/seconds 5, ")
    path = path.rename(tmp_path / "trials.csv")
    assert summary.read_best(path, "val/accuracy").run == "1" * 32
    path.rename(tmp_path / "sweeps/two/trials.csv")
    write("none", ["val/nll"], (0, "pruned", [2.0], ["1" * 32]), (1, "finished", [math.inf], ["1" * 32]))
    write("untracked", ["val/nll"], (0, "finished", [2.0], []))
    (tmp_path / "sweeps/compare-1").mkdir()
    for sweep, message in {
        "two": "the sweep has best trials by val/accuracy and train/seconds: choose one with --metric",
        "none": "the sweep has no best trial, because none has finished",
        "untracked": "the runs of the best trial, 0, were not recorded",
        "compare-1": "compare-1 is a comparison, which has a best run for each contender: give the id of a run",
    }.items():
        assert error(capsys, sweep, "a", *here).endswith(message)
    assert error(capsys, "none", "a", *here, "--metric", "val/ece").endswith("none/trials.csv has val/nll")
    assert error(capsys, "two", "a", *here, "--sweeps", "elsewhere").startswith("there is no run and no sweep two")


def trained(store: MLflowStore, sweep: str, lr: float, seed: int, *, state: str = "finished", **metrics: float) -> str:
    """Record a run of a sweep and return its id."""
    params = {"optimizer.lr": lr, "seed": seed, "device": f"cuda:{seed}"}
    with store.start("r", params=params, tags={"sweep": sweep, "without_effect": WITHOUT_EFFECT}) as run:
        run.summarize({f"val/{key}": value for key, value in metrics.items()}, 5)
        run.tag(**({} if state == "finished" else {state: "true"}), state=state)
    return run.run_id


def test_the_best_run_of_a_sweep(tmp_path: Path) -> None:
    """The mean over seeds decides the setting. Settings with a seed that diverged or is missing do not count."""
    store = MLflowStore(experiment="nanosq", uri=provide_store(tmp_path))
    trained(store, "grid-1", 0.1, 2, perplexity=1.0, accuracy=0.9)
    trained(store, "grid-1", 0.1, 1, perplexity=9.0, accuracy=0.1)
    second = trained(store, "grid-1", 0.2, 2, perplexity=3.0, accuracy=0.2)
    again = trained(store, "grid-1", 0.2, 1, perplexity=99.0, accuracy=0.9)
    first = trained(store, "grid-1", 0.2, 1, perplexity=4.0, accuracy=0.4)  # trained again: this run counts
    trained(store, "grid-1", 0.3, 1, perplexity=1.0)
    trained(store, "grid-1", 0.3, 2, perplexity=1.0, state="diverged")
    trained(store, "grid-1", 0.4, 1, perplexity=1.0)
    trained(store, "grid-2", 0.5, 1, perplexity=1.0)
    found, value = registry.best_run(store, "grid-1", "val/perplexity")
    assert found == first not in (again, second)
    assert value == 3.5
    found, value = registry.best_run(store, "grid-1", "val/accuracy", maximize=True)
    assert value == 0.5
    best = client(tmp_path).get_run(found)
    assert (best.data.params["optimizer.lr"], best.data.params["seed"]) == ("0.1", "1")
    with pytest.raises(ValueError, match="sweep grid-2 has no setting that has finished with val/nll"):
        registry.best_run(store, "grid-2", "val/nll")
