import math
import shutil
from pathlib import Path

import mlflow
import pytest

from analysis import runs
from analysis.recorded_run import RecordedRun
from tests.analysis.conftest import MLflowStore
from tests.analysis.recorded import complete_run, run


@pytest.fixture(scope="module")
def recorded(store: MLflowStore) -> list[RecordedRun]:
    """Squentropy with two learning rates, a repeated seed, a failed and a diverged one; cross-entropy."""
    squentropy = [complete_run(seed=seed) for seed in (1, 2, 3)]
    squentropy += [complete_run(seed=1), complete_run(seed=4, status="FAILED")]
    squentropy += [complete_run(seed=5, tags={"diverged": "true"}, without=("val/nll", "test/nll"))]
    squentropy += [complete_run(seed=1, optimizer__lr=0.1), complete_run("cross_entropy", 1, status="RUNNING")]
    store.write("runs", squentropy)
    store.write("runs", [complete_run("cross_entropy", 2)], without=("curves.csv",))
    return store.load("runs")


def test_runs_equal_those_of_mlflow(recorded: list[RecordedRun], store: MLflowStore) -> None:
    client = mlflow.MlflowClient(store.uri)
    assert len(recorded) == 9
    for actual in recorded:
        expected = client.get_run(actual.id)
        assert (actual.metrics, actual.params, actual.tags) == (
            expected.data.metrics,
            expected.data.params,
            expected.data.tags,
        )
    assert [run.state for run in recorded].count("finished") == 6
    assert {run.state for run in recorded} == {"finished", "running", "failed", "diverged"}
    assert math.isnan(recorded[0].metric("no/such"))


def test_curves_from_the_artifact_and_from_the_server_are_equal(
    recorded: list[RecordedRun], store: MLflowStore
) -> None:
    client = mlflow.MlflowClient(store.uri)
    for actual in recorded:
        for key in ("train/loss", "val/nll"):
            points = {point.step: point.value for point in client.get_metric_history(actual.id, key)}
            curve = actual.curve(key)
            assert dict(zip(curve.steps, curve.values, strict=True)) == pytest.approx(points)
            assert curve.steps == sorted(curve.steps)
        assert actual.curve("no/such").steps == []


def test_a_setting_has_the_last_run_of_each_seed(recorded: list[RecordedRun]) -> None:
    cross_entropy, *squentropy = runs.settings(recorded)
    assert (cross_entropy.loss, len(cross_entropy.runs)) == ("cross_entropy", 1)
    repeated, single = sorted(squentropy, key=lambda setting: -len(setting.runs))
    assert [run.seed for run in repeated.runs] == [1, 2, 3]
    same = [run for run in recorded if run.params == repeated.runs[0].params]
    assert repeated.runs[0].started == max(run.started for run in same)
    assert repeated.left_out == {4: "failed", 5: "diverged"}
    assert runs.differing([repeated.params, single.params]) == ["optimizer.lr"]
    assert repeated.mean("val/nll") == pytest.approx(sum(run.metric("val/nll") for run in repeated.runs) / 3)


def test_parameters_without_effect_are_those_that_the_run_lists() -> None:
    params = {"model__n_layer": 2, "device": "cuda", "train__log_every": 5, "samples__count": 3}
    assert run(seed=1, **params).setting == {"loss": "squentropy", "model.n_layer": "2"}
    unlisted = run(seed=1, **params)
    del unlisted.tags["without_effect"]
    assert unlisted.setting == {key: value for key, value in unlisted.params.items() if key != "seed"}


def test_equal_weights_under_several_names_are_one_setting() -> None:
    one, same, other = (
        run(seed=seed, init_from=name, tags={"parent": digest})
        for seed, (name, digest) in enumerate([("a.pt", "d1"), ("b.pt", "d1"), ("a.pt", "d2")])
    )
    assert one.key == same.key != other.key
    assert runs.differing([one.setting, other.setting]) == ["init_from"]
    assert one.setting["init_from"] == "a.pt (d1)"
    assert len(runs.settings([one, same, other])) == 2


def test_runs_of_an_older_program_are_ignored() -> None:
    recorded = [run(seed=seed, tags={"code": code}) for seed, code in ((1, "old"), (2, "old"), (1, "new"))]
    (setting,) = runs.settings(recorded)
    assert [(run.seed, run.tags["code"]) for run in setting.runs] == [(1, "new")]
    assert setting.left_out == {2: "older version of the program"}
    (setting,) = runs.settings([*recorded[:2], run(seed=3, tags={"code": "new"}, status="RUNNING")])
    assert [run.seed for run in setting.runs] == [1, 2]  # until the newer version has a result
    assert setting.left_out == {3: "running"}


def test_a_module_of_a_user_is_part_of_the_program_within_a_setting() -> None:
    recorded = [run("my.loss", seed, tags={"code": code}) for seed, code in ((1, "c+old"), (2, "c+new"))]
    (setting,) = runs.settings(recorded)
    assert [run.seed for run in setting.runs] == [2]
    assert setting.left_out == {1: "older version of the program"}


def test_equal_numbers_are_the_same_setting() -> None:
    written = {1: ("1", "0.001"), 2: ("1.0", "1e-3")}
    recorded = [run(seed=seed, loss__weight=weight, optimizer__lr=lr) for seed, (weight, lr) in written.items()]
    (setting,) = runs.settings(recorded)
    assert [run.seed for run in setting.runs] == [1, 2]
    assert runs.differing([run.params for run in recorded]) == ["seed"]


def test_runs_that_start_from_another_run_are_a_setting_of_their_own() -> None:
    new, continued, other = run(seed=1), run(seed=1), run(seed=1)
    continued.tags["parent"], other.tags["parent"] = "a1b2c3", "d4e5f6"
    assert [len(group) for group in runs.by_setting([new, continued, other, run(seed=2)])] == [2, 1, 1]
    assert continued.setting["parent"] == "a1b2c3"


def test_functions_with_the_same_last_name_are_different_losses() -> None:
    recorded = [run("cross_entropy", 1), run("a.cross_entropy", 1), run("b.cross_entropy", 1)]
    assert [setting.loss for setting in runs.settings(recorded)] == [
        *("cross_entropy", "a.cross_entropy", "b.cross_entropy")
    ]


def test_a_run_is_picked_by_id_or_name() -> None:
    recorded = [run("focal"), run(), run()]
    recorded[1].name = recorded[2].name
    assert runs.pick(recorded, recorded[1].id[:6]) is recorded[1]
    assert runs.pick(recorded, recorded[0].name) is recorded[0]
    ids = f"{recorded[1].id[:8]}, {recorded[2].id[:8]}"
    with pytest.raises(ValueError, match=f"2 runs have the name .*: name one of them by its id, {ids}"):
        runs.pick(recorded, recorded[2].name)
    with pytest.raises(ValueError, match=r"no run 'zzz'; some of the runs: "):
        runs.pick(recorded, "zzz")
    with pytest.raises(ValueError, match="3 runs begin with '0'"):
        runs.pick(recorded, "0")


def test_a_deleted_artifact_is_none(store: MLflowStore) -> None:
    (run_id,) = store.write("deleted", [complete_run()])
    (before,) = store.load("deleted")
    assert before.artifact("samples.txt")
    (after,) = store.load("deleted")
    shutil.rmtree(store.folder / "deleted" / run_id)
    assert after.artifact("samples.txt") is None
    assert after.rows("stories.csv") == []
    assert after.curve("train/loss") == before.curve("train/loss")  # from the server


def test_damaged_curves_come_from_the_server(store: MLflowStore) -> None:
    store.write("damaged", [complete_run()])
    (whole,), (damaged,) = store.load("damaged"), store.load("damaged")
    damaged.texts["curves.csv"] = "step,metric,value\n1,train/loss,0.5\n2,tra"
    assert damaged.curve("train/loss") == whole.curve("train/loss")


def test_a_missing_store_is_not_created(tmp_path: Path) -> None:
    assert runs.load(f"sqlite:///{tmp_path}/none.db") == []
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_experiment_has_no_runs(recorded: list[RecordedRun], store: MLflowStore) -> None:
    assert recorded
    assert store.load("other") == []


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:secret@127.0.0.1:9", r"http://me:\*\*\*@127.0.0.1:9"),
        ("postgresql://me:secret@127.0.0.1:9/x", r"postgresql://me:\*\*\*@127.0.0.1:9/x"),
    ],
)
def test_an_unreachable_store_is_an_error_without_its_password(uri: str, shown: str) -> None:
    with pytest.raises(
        ValueError, match=f"MLflow store {shown} cannot be read .*; start the server or .* set --tracking-uri"
    ) as caught:
        runs.load(uri)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_password_that_a_run_has_recorded_is_not_shown(store: MLflowStore) -> None:
    store.write("leak", [complete_run(samples__prompt="http://me:secret@host")])
    (leak,) = store.load("leak")
    assert leak.params["samples.prompt"] == "http://me:***@host"
