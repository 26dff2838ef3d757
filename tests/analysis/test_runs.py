import math
import shutil
from pathlib import Path

import mlflow
import pytest

from analysis import runs
from tests.analysis.store import add_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for seed in (1, 2, 3):
        add_run(folder, "squentropy", seed)
    add_run(folder, "squentropy", 1)  # once more
    add_run(folder, "squentropy", 4, status="FAILED")
    add_run(folder, "squentropy", 5, tags={"diverged": "true"}, leave_out=("val/nll", "test/nll"))
    add_run(folder, "squentropy", 1, optimizer__lr=0.1)
    add_run(folder, "cross_entropy", 1, status="RUNNING")
    add_run(folder, "cross_entropy", 2, leave_out=("curves.csv",))
    return folder


@pytest.fixture
def found(folder: Path) -> list[runs.RecordedRun]:
    return runs.load(f"sqlite:///{folder}/mlflow.db")


def test_runs_are_those_of_mlflow(found: list[runs.RecordedRun], folder: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert len(found) == 9
    for run in found:
        theirs = client.get_run(run.id)
        assert (run.metrics, run.params, run.tags) == (theirs.data.metrics, theirs.data.params, theirs.data.tags)
    assert [run.state for run in found].count("finished") == 6
    assert {run.state for run in found} == {"finished", "running", "failed", "diverged"}
    assert math.isnan(found[0].metric("no/such"))


def test_curves_from_the_artifact_and_from_the_server_are_the_same(found: list[runs.RecordedRun], folder: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    for run in found:
        for key in ("train/loss", "val/nll"):
            points = {point.step: point.value for point in client.get_metric_history(run.id, key)}
            curve = run.curve(key)
            assert dict(zip(curve.steps, curve.values, strict=True)) == pytest.approx(points)
            assert curve.steps == sorted(curve.steps)
        assert run.curve("no/such").steps == []


def test_a_setting_has_the_last_run_of_each_seed(found: list[runs.RecordedRun]) -> None:
    cross_entropy, *squentropy = runs.settings(found)
    assert (cross_entropy.loss, len(cross_entropy.runs)) == ("cross_entropy", 1)
    repeated, single = sorted(squentropy, key=lambda setting: -len(setting.runs))
    assert [run.seed for run in repeated.runs] == [1, 2, 3]
    again = [run for run in found if run.seed == 1 and run.params == repeated.runs[0].params]
    assert repeated.runs[0].started == max(run.started for run in again)
    assert repeated.others == {"failed": 1, "diverged": 1}
    assert runs.differing([repeated.params, single.params]) == ["optimizer.lr"]
    assert repeated.mean("val/nll") == pytest.approx(sum(run.metric("val/nll") for run in repeated.runs) / 3)


def test_the_best_setting_is_one_of_those_with_most_seeds(found: list[runs.RecordedRun]) -> None:
    chosen = runs.best(found)
    assert list(chosen) == ["cross_entropy", "squentropy"]
    assert len(chosen["squentropy"].runs) == 3
    single = next(setting for setting in runs.settings(found) if setting.params["optimizer.lr"] == "0.1")
    single.runs[0].metrics["val/nll"] = 0.0
    assert len(runs.best(found)["squentropy"].runs) == 3
    alone = runs.best([run for run in found if run.params["optimizer.lr"] == "0.1"])
    assert alone["squentropy"].params == single.params


def test_a_run_is_picked_by_id_or_name(found: list[runs.RecordedRun]) -> None:
    assert runs.pick(found, found[3].id[:12]) is found[3]
    assert runs.pick(found, "squentropy tiny stories").loss == "squentropy"
    with pytest.raises(ValueError, match=r"there is no run 'zzz'; some of the runs"):
        runs.pick(found, "zzz")


def test_a_deleted_artifact_is_none(folder: Path, found: list[runs.RecordedRun]) -> None:
    run = next(run for run in found if run.state == "finished" and run.loss == "cross_entropy")
    assert run.artifact("samples.txt")
    again = next(each for each in runs.load(f"sqlite:///{folder}/mlflow.db") if each.id == run.id)
    shutil.rmtree(folder / "mlruns" / run.id)
    assert again.artifact("samples.txt") is None
    assert again.rows("stories.csv") == []
    assert again.curve("train/loss").steps  # of the server


def test_what_is_not_there(tmp_path: Path) -> None:
    assert runs.load(f"sqlite:///{tmp_path}/none.db") == []
    assert not (tmp_path / "none.db").exists()
    add_run(tmp_path)
    assert runs.load(f"sqlite:///{tmp_path}/mlflow.db", "other") == []
    with pytest.raises(ValueError, match=r"MLflow store http://127.0.0.1:9 cannot be read .*; set --tracking-uri"):
        runs.load("http://127.0.0.1:9")


def test_runs_of_an_older_program_do_not_count(tmp_path: Path) -> None:
    for seed, code in ((1, "old"), (2, "old"), (1, "new")):
        add_run(tmp_path, "squentropy", seed, tags={"code": code})
    (setting,) = runs.settings(runs.load(f"sqlite:///{tmp_path}/mlflow.db"))
    assert [(run.seed, run.tags["code"]) for run in setting.runs] == [(1, "new")]


def test_a_setting_that_diverged_stands_for_its_loss_only_where_all_did(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        add_run(tmp_path, "squentropy", seed)
        add_run(tmp_path, "squentropy", seed, optimizer__lr=0.5)
    add_run(tmp_path, "squentropy", 4, optimizer__lr=0.5, tags={"diverged": "true"})
    found = runs.load(f"sqlite:///{tmp_path}/mlflow.db")
    for run in found:
        if run.params["optimizer.lr"] == "0.5":
            run.metrics["val/nll"] = 0.0
    assert runs.best(found)["squentropy"].params["optimizer.lr"] == "0.01"
    alone = runs.best([run for run in found if run.params["optimizer.lr"] == "0.5"])
    assert alone["squentropy"].others == {"diverged": 1}


def test_damaged_curves_come_from_the_server(tmp_path: Path) -> None:
    add_run(tmp_path)
    (run,) = runs.load(f"sqlite:///{tmp_path}/mlflow.db")
    whole = run.curve("train/loss")
    (again,) = runs.load(f"sqlite:///{tmp_path}/mlflow.db")
    again._texts["curves.csv"] = "step,metric,value\n1,train/loss,0.5\n2,tra"
    assert again.curve("train/loss") == whole


def test_a_database_that_is_away_is_told_at_once_and_without_its_password() -> None:
    with pytest.raises(ValueError, match=r"MLflow store postgresql://me:\*\*\*@127.0.0.1:9/x cannot be read"):
        runs.load("postgresql://me:secret@127.0.0.1:9/x")
