"""Small sweeps through the real command line."""

import csv
import math
import statistics
from collections import Counter
from pathlib import Path

import mlflow
import optuna
import pytest
import yaml
from optuna.trial import TrialState

from nanosq.sweeps import summary
from tests.commandline import check_names_and_commands, command, runs
from tests.sweeps.commandline import FEW, Sweep, load_study, sweep, table

# Three heads do not divide 16, and a learning rate of 1e38 diverges.
MIXED = [
    *["hydra/sweeper=grid", "optimizer.lr=1e-3,1e38,2e-3", "model.dropout=0.0", "model.n_layer=1", "model.n_head=1,3"],
    *["train.max_steps=3", "precision=fp32", "train.clip_norm=null"],
    *[setting for setting in FEW if "n_head" not in setting],
]
# Hydra's default sweeper, with two paired axes. The last setting diverges.
PAIRED = [
    *["optimizer.lr=1e-3,1e-2,1e38", "train.warmup=0,1,0", "hydra.sweeper.zip=[optimizer.lr,train.warmup]", "seeds=2"],
    *["train.max_steps=3", "precision=fp32", "train.clip_norm=null", "model.n_layer=1", *FEW],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all sweeps: the first one in a folder takes three seconds to create the database."""
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def mixed(folder: Path) -> Sweep:
    return sweep(folder, *MIXED, exit_status=2)


@pytest.fixture(scope="module")
def paired(folder: Path) -> Sweep:
    return sweep(folder, *PAIRED)


def best_run(runs: list[mlflow.entities.Run]) -> mlflow.entities.Run:
    return min(
        (run for run in runs if "val/perplexity" in run.data.metrics),
        key=lambda run: run.data.metrics["val/perplexity"],
    )


def test_a_failed_trial_does_not_hide_the_others(mixed: Sweep) -> None:
    states = Counter((row["trial"], row["state"]) for row in mixed.rows)
    assert states == Counter(
        [*[("0", "finished"), ("4", "finished"), ("2", "diverged")], *[(trial, "failed") for trial in ("1", "3", "5")]]
    )
    reason = "n_embd=16 is not divisible by n_head=3"
    assert f"3 trials (trial 1, trial 3, trial 5) failed: {reason}" in mixed.result.stderr
    assert "Traceback" not in mixed.result.stderr
    assert "Launching" not in mixed.result.stderr
    assert len(mixed.runs) == 3


def test_a_grid_ends_with_a_table_and_a_file_of_its_trials(mixed: Sweep) -> None:
    best, rows = best_run(mixed.runs), mixed.rows
    assert list(rows[0]) == ["trial", "state", "val/perplexity", "lr", "n_head"]
    assert rows[0]["trial"] == best.data.tags["trial"]
    assert [row["state"] for row in rows] == ["finished"] * 2 + ["diverged"] + ["failed"] * 3
    assert float(rows[0]["val/perplexity"]) < float(rows[1]["val/perplexity"])
    written = list(csv.DictReader((mixed.folder / "trials.csv").open()))
    assert {row["runs"] for row in written if row["runs"]} == {run.info.run_id for run in mixed.runs}
    assert float(written[0]["val/perplexity"]) == best.data.metrics["val/perplexity"]


def test_the_best_setting_is_an_experiment_at_full_length(mixed: Sweep, folder: Path) -> None:
    (line,) = (line for line in mixed.result.stdout.splitlines() if line.startswith("best: python run.py "))
    composed = command(*line.split()[3:], "--cfg", "job", cwd=folder, check=True)
    cfg = yaml.safe_load(composed.stdout)
    assert cfg["optimizer"]["lr"] == float(best_run(mixed.runs).data.params["optimizer.lr"])
    assert cfg["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert cfg["model"]["n_layer"] == 1
    assert cfg["train"]["max_steps"] == 1200
    assert cfg["data"]["source"]["n_train"] == 150
    assert cfg["samples"]["count"] == 3


def test_names_of_runs_are_unique_and_their_commands_train_the_same(mixed: Sweep, paired: Sweep) -> None:
    check_names_and_commands([*mixed.runs, *paired.runs])


def test_every_setting_is_trained_with_every_seed(paired: Sweep) -> None:
    values: dict[tuple[str, str], dict[str, float]] = {}
    for run in paired.runs:
        setting = (run.data.params["optimizer.lr"], run.data.params["train.warmup"])
        values.setdefault(setting, {})[run.data.params["seed"]] = run.data.metrics.get("val/perplexity", math.inf)
    assert set(values) == {("0.001", "0"), ("0.01", "1"), ("1e+38", "0")}
    assert all(set(by_seed) == {"1337", "1338"} for by_seed in values.values())
    assert [row["lr"] for row in paired.rows[:2]] == ["0.01", "0.001"]
    assert [row["state"] for row in paired.rows] == ["finished", "finished", "diverged"]
    for row, by_seed in zip(paired.rows[:2], (values["0.01", "1"], values["0.001", "0"]), strict=True):
        assert float(row["val/perplexity"]) == pytest.approx(statistics.fmean(by_seed.values()), rel=1e-4)
        assert float(row["+-"]) == pytest.approx(statistics.stdev(by_seed.values()) / math.sqrt(2), rel=0.05)
    assert len({run.data.tags["trial"] for run in paired.runs}) == 3


def test_a_sweep_that_is_started_again_finds_the_runs_of_all_seeds(paired: Sweep, folder: Path) -> None:
    """It finds them although the seeds are now listed: a run is identified by its composed configuration."""
    again = sweep(folder, *PAIRED, "seeds=1", "seed=1337,1338")
    found = {run for row in csv.DictReader((again.folder / "trials.csv").open()) for run in row["runs"].split()}
    assert found == {run.info.run_id for run in paired.runs}
    assert not again.runs
    best = summary.read_best(again.folder / "trials.csv")  # which can be registered
    (params,) = (run.data.params for run in paired.runs if run.info.run_id == best.run)
    assert (params["optimizer.lr"], params["seed"]) == ("0.01", "1337")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["seed=1,2", "seeds=0"], "seeds=0: must be"),
        (["seeds=1,2"], "seeds cannot be an axis"),
        (["train.max_stps=1,2"], "Did you mean: 'max_steps'?"),
        (["hydra/sweeper=optuna", "model.n_layr=choice(1,2)"], "Did you mean: 'n_layer'?"),
        (["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid"], "takes choices and ranges of values"),
        (["hydra/sweeper=optuna", "hydra.sweeper.n_trial=3"], "Did you mean: 'n_trials'?"),
    ],
)
def test_a_bad_sweep_is_an_error_of_one_line(settings: list[str], message: str, tmp_path: Path) -> None:
    result = command("-m", *settings, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_search_prunes_over_seeds_resumes_and_refuses_other_settings(folder: Path) -> None:
    """n_trials is a total. If one seed of a trial is pruned, the others are not trained to the end."""
    search = [
        *[
            "-m",
            "hydra/sweeper=optuna",
            "loss=squentropy",
            "seeds=2",
            "train.max_steps=6",
            "train.eval_every=2",
            "model.n_layer=1",
            *FEW,
        ],
        *["hydra.sweeper.sampler.seed=3", "hydra.sweeper.pruner.n_startup_trials=1"],
    ]
    search.remove("train.eval_every=3")
    command(*search, "hydra.sweeper.n_trials=1", cwd=folder, check=True)
    assert len(load_study(folder).trials) == 1
    result = command(*search, "hydra.sweeper.n_trials=3", cwd=folder, check=True)
    study = load_study(folder)
    assert len({str(trial.params) for trial in study.trials}) == 3
    assert set(study.trials[0].params) == {*("optimizer.lr", "model.dropout", "train.warmup", "loss.weight")}
    states = Counter(trial.state for trial in study.trials)
    assert states[TrialState.PRUNED] >= 1
    assert states[TrialState.PRUNED] + states[TrialState.COMPLETE] == 3
    by_id = {run.info.run_id: run for run in runs(folder)}
    for trial in study.trials:
        ids = [value for key, value in trial.user_attrs.items() if key.startswith("mlflow_run_id")]
        pruned = [by_id[run_id].data.tags["pruned"] == "true" for run_id in ids]
        assert any(pruned) == (trial.state is TrialState.PRUNED)
        assert len(ids) == (2 if trial.state is TrialState.COMPLETE else pruned.index(True) + 1)
    rows = table(result.stdout)
    assert rows[0]["trial"] == str(study.best_trial.number)
    assert len(rows) == 3

    result = command(*search, "hydra.sweeper.n_trials=9", "train.batch_size=3", cwd=folder)
    assert result.returncode == 2
    assert "was started with train.batch_size=4, not 3" in result.stderr
    assert result.stderr.count("\n") == 1
    assert len(load_study(folder).trials) == 3


@pytest.mark.slow
def test_a_search_over_losses_for_two_metrics(folder: Path) -> None:
    """The weight is searched if the loss has one. The best trials are a Pareto front. Metrics are means over seeds.

    With resume=never the search does not continue the study of the same name.
    """
    optuna.create_study(study_name="two losses", storage=f"sqlite:///{folder}/optuna.db")
    found = sweep(
        folder,
        *["hydra/sweeper=optuna", "loss=cross_entropy,squentropy", "seeds=2", "train.max_steps=3", *FEW],
        *["hydra.sweeper.objectives=[val/perplexity,val/accuracy]", "hydra.sweeper.direction=[minimize,maximize]"],
        *["hydra.sweeper.n_trials=3", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.study_name='two losses'"],
        "resume=never",
    )
    study = load_study(folder, "two losses-2")
    assert len(study.trials) == len(found.rows) == 3
    assert {trial.params["loss"] for trial in study.trials} == {"cross_entropy", "squentropy"}
    by_id = {run.info.run_id: run for run in found.runs}
    assert len(by_id) == 6
    for trial in study.trials:
        assert ("loss.weight" in trial.params) == (trial.params["loss"] == "squentropy")
        ids = [trial.user_attrs[key] for key in ("mlflow_run_id", "mlflow_run_id_1")]
        for at, metric in enumerate(("val/perplexity", "val/accuracy")):
            values = [by_id[run_id].data.metrics[metric] for run_id in ids]
            assert trial.values[at] == pytest.approx(statistics.fmean(values))
    presets = {path.stem for path in (found.folder / "experiment").iterdir()}
    front = [trial.number for trial in study.best_trials]
    assert presets == ({f"best_two_losses-2_{n}" for n in front} if len(front) > 1 else {"best_two_losses-2"})
