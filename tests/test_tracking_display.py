"""Tests of the names, states, data sets and the view that the pages of MLflow show."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from nanosq.tracking import RecordedData, views
from nanosq.tracking.connection import connect
from nanosq.tracking.creation import log_data
from nanosq.tracking.mlflow_run import MLflowRun
from nanosq.tracking.mlflow_store import MLflowStore
from tests.commandline import provide_store

DATA = RecordedData("stories", "0123456789ab", {"data.source": "stories"}, {"train": {"documents": 2, "tokens": 9}})
TAG = f"mlflow.sharedViewState.{views.KEY}"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("display")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield provide_store(folder)


@pytest.fixture
def store(uri: str) -> MLflowStore:
    return MLflowStore(experiment="nanosq", uri=uri)


def recorded(uri: str, run: MLflowRun) -> Run:
    return mlflow.MlflowClient(uri).get_run(run.run_id)


def name(uri: str, run: MLflowRun) -> str:
    return str(recorded(uri, run).info.run_name)


def test_names_are_unique(store: MLflowStore, uri: str) -> None:
    plain = [store.start("a lr=0.1 seed=1", params={}, tags={}) for _ in range(2)]
    assert [name(uri, run) for run in plain] == [f"a lr=0.1 seed=1 · {run.run_id[:6]}" for run in plain]
    trial = "it's \u00b7 grid-1 #0"
    trials = [store.start(trial, params={}, tags={"sweep": "grid-1", "trial": "0"}) for _ in range(2)]
    assert [name(uri, run) for run in trials] == [trial, f"{trial} · {trials[1].run_id[:6]}"]


def test_a_resumed_run_keeps_its_name_and_an_edited_description(store: MLflowStore, uri: str) -> None:
    note = "mlflow.note.content"
    with pytest.raises(KeyboardInterrupt), store.start("first", params={}, tags={note: "old", "hardware": "a"}) as run:
        raise KeyboardInterrupt
    before = name(uri, run)
    assert recorded(uri, run).data.tags["state"] == "killed"
    mlflow.MlflowClient(uri).set_tag(run.run_id, note, "edited")
    resumed = store.start("other", params={}, tags={note: "new", "hardware": "b"}, run_id=run.run_id)
    tags = recorded(uri, resumed).data.tags
    assert (resumed.run_id, name(uri, resumed)) == (run.run_id, before)
    assert (tags[note], tags["hardware"], tags["state"]) == ("edited", "b", "running")


def test_a_run_that_another_sweep_resumes_is_named_by_it(store: MLflowStore, uri: str) -> None:
    tags = {"sweep": "grid-1", "trial": "0", "mlflow.note.content": "trial 0 of grid-1"}
    first = store.start("a · grid-1 #0", params={}, tags=tags)
    same = store.start("a · grid-1 #0", params={}, tags=tags, run_id=first.run_id)
    moved = {"sweep": "grid-2", "trial": "5", "mlflow.note.content": "trial 5 of grid-2"}
    other = store.start("a · grid-2 #5", params={}, tags=moved, run_id=same.run_id)
    alone = store.start("a", params={}, tags={"mlflow.note.content": "alone"}, run_id=other.run_id)
    tags = recorded(uri, alone).data.tags
    assert (alone.run_id, name(uri, alone)) == (first.run_id, "a · grid-2 #5")
    assert {key: tags[key] for key in moved} == moved


@pytest.mark.parametrize("state", ["pruned", "diverged"])
def test_the_state_is_visible(state: str, store: MLflowStore, uri: str) -> None:
    with store.start("r", params={}, tags={}) as run:
        assert recorded(uri, run).data.tags["state"] == "running"
        run.tag(**{state: "true"}, state=state)
    assert (recorded(uri, run).info.status, recorded(uri, run).data.tags["state"]) == ("FINISHED", state)


def test_a_run_that_fails_after_its_end_was_tagged_is_failed(store: MLflowStore, uri: str) -> None:
    run = store.start("r", params={}, tags={})
    run.tag(state="pruned")
    with pytest.raises(RuntimeError), run:
        raise RuntimeError
    assert recorded(uri, run).data.tags["state"] == "failed"


def test_the_data_set_is_recorded_once(store: MLflowStore, uri: str) -> None:
    run = store.start("r", params={}, tags={}, data=DATA)
    store.start("r", params={}, tags={}, data=DATA, run_id=run.run_id)
    (found,) = recorded(uri, run).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("stories", "0123456789ab")
    assert json.loads(found.dataset.source) == DATA.source
    assert json.loads(found.dataset.profile) == DATA.profile
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]


def test_the_view_shows_what_runs_record(store: MLflowStore, uri: str) -> None:
    store.start("r", params={}, tags={})
    experiment = mlflow.MlflowClient(uri).get_experiment_by_name("nanosq")
    saved = json.loads(experiment.tags[TAG])  # the form in which MLflow's pages save a view
    assert {key: type(value) for key, value in saved.items()} == {"name": str, "createdAt": int, "state": str}
    view = json.loads(saved["state"])
    shown = {"state", "loss", "val/perplexity", "test/nll", "optimizer.lr", "train.max_steps", "seed", "sweep"}
    assert shown <= {column.partition("`")[2].strip("`") for column in view["selectedColumns"]}
    sections = [section["uuid"] for section in view["compareRunSections"]]
    assert [(chart["metricKey"], chart["type"]) for chart in view["compareRunCharts"]][:2] == [
        *(("val/nll", "LINE"), ("train/nll", "LINE"))
    ]
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} <= {*sections}
    assert sections.index("curves") < sections.index("test") < sections.index("best")


def test_an_older_experiment_gets_the_view(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, calls = MLflowStore(experiment="older", uri=uri), []
    client = connect(uri)
    older = client.create_experiment("older", artifact_location=str(Path(uri.removeprefix("sqlite:///")).parent))
    set_tag = mlflow.MlflowClient.set_experiment_tag

    def counted(client: mlflow.MlflowClient, *arguments: str) -> None:
        calls.append(arguments[1])
        set_tag(client, *arguments)

    monkeypatch.setattr(mlflow.MlflowClient, "set_experiment_tag", counted)
    store.find({"a": "b"})
    store.find({"a": "b"})
    assert calls == [TAG]
    assert client.get_experiment(older).tags[TAG] == views.TAGS[TAG]


def test_runs_may_record_the_same_text_at_once(store: MLflowStore, uri: str) -> None:
    started = [store.start("r", params={}, tags={}) for _ in range(8)]
    together = threading.Barrier(len(started))

    def record(run: MLflowRun) -> None:
        together.wait()
        log_data(connect(uri), run.run_id, replace(DATA, digest="at once"))

    with ThreadPoolExecutor(len(started)) as threads:
        assert [*threads.map(record, started)] == [None] * len(started)
    assert all(len(recorded(uri, run).inputs.dataset_inputs) == 1 for run in started)
