"""Comparisons of other things than two losses, and contenders without a result."""

import csv
import re
import shlex
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow
import optuna
import pytest
from optuna.trial import TrialState

from tests.commandline import SMALL, command, runs, start

pytestmark = pytest.mark.slow
COMPARE = [
    *["-m", "hydra/sweeper=compare", "hydra.sweeper.tune_steps=4", "samples.count=0"],
    *["hydra.sweeper.n_trials=2", "hydra.sweeper.seeds=2", *SMALL],
]
LOSSES = "loss=cross_entropy,squentropy"
RAISING = """
import torch.nn.functional as F
from nanosq.loss_check import V

def loss(logits_NV, targets_N):
    if logits_NV.shape[1] != V:
        raise RuntimeError("no such luck")
    return F.cross_entropy(logits_NV, targets_N, reduction="none")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two losses of the user: cross-entropy under another name, and one that fails in training."""
    folder = tmp_path_factory.mktemp("comparisons")
    (folder / "conf/loss").mkdir(parents=True)
    (folder / "conf/loss/again.yaml").write_text("_target_: nanosq.losses.cross_entropy\n_partial_: true\n")
    (folder / "conf/loss/raising.yaml").write_text("_target_: raising.loss\n_partial_: true\n")
    (folder / "raising.py").write_text(RAISING)
    return folder


def compare(folder: Path, name: str, *settings: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    study_name = f"hydra.sweeper.study_name={name}"
    result = command("--config-dir", "conf", *COMPARE, study_name, *settings, cwd=folder)
    assert result.returncode == status, result.stdout + result.stderr
    return result


def sentences(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the verdicts and the sentences on contenders without a result."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in result.stdout.split("\n\n"))
    return [text for text in paragraphs if "test nll of" in text or "has no result" in text]


def study(folder: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/optuna.db")


def confirmed(folder: Path, name: str) -> list[Sequence[object]]:
    trials = study(folder, f"{name}/confirmation").trials
    return [(trial.params["contender"], trial.params["seed"]) for trial in trials]


def test_contenders_of_other_lengths(folder: Path) -> None:
    result = compare(folder, "lengths", "train.max_steps=4,8", "hydra.sweeper.tune_steps=null")
    assert "its validation perplexity, 1 or 2 steps " in result.stdout
    page = (folder / "sweeps/lengths/report.html").read_text()
    assert "2 trials of 1 or 2 steps for each contender" in page
    assert "trained for 4 or 8 steps with each of the seeds" in page


def test_a_loss_under_another_name_has_no_difference(folder: Path) -> None:
    """Its trials are pruned as those of the first contender, and the trials that are not are not trained again."""
    settings = ["loss=cross_entropy,again", "hydra.sweeper.n_trials=4", "hydra.sweeper.pruner.n_startup_trials=1"]
    result = compare(folder, "again", *settings)
    assert "cross_entropy and again have equal scores in all 2 seeds" in " ".join(result.stdout.split())
    first, second = (study(folder, f"again/{label}").trials for label in ("cross_entropy", "again"))
    assert {trial.state for trial in first} == {TrialState.COMPLETE, TrialState.PRUNED}
    for one, other in zip(first, second, strict=True):
        facts = [(t.state, t.params, t.values, t.intermediate_values) for t in (one, other)]
        assert facts[0] == facts[1]
        same_run = one.user_attrs["mlflow_run_id"] == other.user_attrs["mlflow_run_id"]
        assert same_run == (one.state is TrialState.COMPLETE)
        assert ("cost" in other.user_attrs) != same_run


def test_three_contenders_have_a_verdict_for_each_pair(folder: Path) -> None:
    (found,) = sentences(compare(folder, "optimizers", "optimizer=adamw,muon,sgd", "loss=squentropy", "seed=5,7"))
    assert re.match("(adamw|muon|sgd) has the lowest test nll of the 3, ", found)
    pairs = csv.DictReader((folder / "sweeps/optimizers/pairs.csv").open())
    compared = sorted(sorted((row["first"], row["second"])) for row in pairs)
    assert compared == [["adamw", "muon"], ["adamw", "sgd"], ["muon", "sgd"]]
    assert confirmed(folder, "optimizers") == [(name, seed) for seed in (5, 7) for name in ("adamw", "muon", "sgd")]
    assert "optimizer.lr" in study(folder, "optimizers/sgd").trials[1].params
    assert "loss.weight" in study(folder, "optimizers/muon").trials[1].params


def test_values_that_are_lists_and_the_commands_that_are_printed(folder: Path) -> None:
    settings = ["loss=again", "optimizer=adamw", "optimizer.betas=[0.9,0.95],[0.8,0.9]"]
    result = compare(folder, "lists", *settings, "hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=1")
    commands = re.findall(r"^best of (.*): python run.py (.*)$", result.stdout, re.MULTILINE)
    assert [label for label, _ in commands] == ["optimizer.betas=[0.9,0.95]", "optimizer.betas=[0.8,0.9]"]
    composed = command(*shlex.split(commands[1][1]), "--cfg", "job", cwd=folder, check=True).stdout
    assert "_target_: nanosq.losses.cross_entropy\n" in composed  # the command finds the user's loss
    assert "- 0.8\n" in composed
    repeat = study(folder, f"lists/{commands[0][0]}").user_attrs["comparison"]["command"]
    assert repeat.startswith("python run.py --config-dir conf -m hydra/sweeper=compare ")


@pytest.mark.parametrize(
    ("name", "settings", "reason", "status"),
    [
        ("diverging", ["optimizer.lr=1e-3,1e38", "precision=fp32", "train.clip_norm=null"], "(2 diverged)", 0),
        ("failing", ["loss=cross_entropy,raising"], "(2 failed)", 1),
    ],
)
def test_a_contender_without_result(name: str, settings: list[str], reason: str, status: int, folder: Path) -> None:
    """The other contender is confirmed."""
    result = compare(folder, name, *settings, status=status)
    (sentence,) = sentences(result)
    assert re.match(rf"\S+ has no result: no tuning trial is complete {re.escape(reason)}\.", sentence)
    assert re.search(r"^plan: 2 trials and 2 seeds for each of 2 contenders, about", result.stderr, re.MULTILINE)
    assert "no tuning trial has finished, it is not confirmed" in result.stderr
    assert len(confirmed(folder, name)) == 2
    assert len({contender for contender, _ in confirmed(folder, name)}) == 1


def test_a_time_that_does_not_suffice_is_known_after_the_first_trials(folder: Path) -> None:
    few = ["optimizer=muon,adamw", "hydra.sweeper.n_trials=3", "train.max_steps=100000", "hydra.sweeper.timeout=10m"]
    error = compare(folder, "short", *few, status=2).stderr.splitlines()[-1]
    what = "2 runs of each of 2 contenders with train.max_steps=100000 need about"
    assert re.fullmatch(rf"error: hydra\.sweeper\.timeout=10m is too short: {what} \d.*", error)
    muon, adamw = (len(study(folder, f"short/{label}").trials) for label in ("muon", "adamw"))
    assert muon == adamw < 3  # the first trials may have been recorded by other comparisons, and then have no cost


def test_an_interval_is_tuned_and_never_starts_anew(folder: Path) -> None:
    settings = [LOSSES, "optimizer.weight_decay=interval(0.0,0.1)", "model.n_layer=range(1,3)", "resume=never"]
    few = ["hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=1"]
    compare(folder, "never", *settings, *few)
    axes = {*study(folder, "never/squentropy").trials[0].params}
    assert {"optimizer.weight_decay", "model.n_layer", "loss.weight", "optimizer.lr"} <= axes
    again = compare(folder, "never", *settings, *few)
    assert "study never-2/squentropy in sqlite:///optuna.db: 0 of 1 trials started before" in again.stderr
    sweeps = Counter(run.data.tags["sweep"].split("/")[0] for run in runs(folder))
    assert (sweeps["never"], sweeps["never-2"]) == (4, 4)
    assert "Not enough runs" in again.stdout


@pytest.mark.parametrize(
    ("moment", "tune_steps", "name"),
    [(r"muon #0: \S+=", 1000, "tuning/muon"), (r"muon seed 1338: \S+=", 2, "confirming/confirmation")],
)
def test_ctrl_c_leaves_a_trial_to_resume(moment: str, tune_steps: int, name: str, folder: Path) -> None:
    settings = ["optimizer=muon,adamw", "hydra.sweeper.n_trials=1", "train.max_steps=1000", "train.eval_every=1000"]
    settings += [f"hydra.sweeper.tune_steps={tune_steps}", f"hydra.sweeper.study_name={name.split('/')[0]}"]
    process = start(*COMPARE, *settings, cwd=folder)
    assert process.stdout is not None
    output = ""
    while not re.search(moment, output):
        line = process.stdout.readline()
        assert line, output
        output += line
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate()
    assert process.returncode == 130, output + rest
    assert "Traceback" not in rest
    (run,) = (run for run in runs(folder) if run.data.tags["sweep"] == name)
    assert run.info.status == "KILLED"
    assert study(folder, name).trials[int(run.data.tags["trial"])].state is TrialState.WAITING
    assert (Path(run.data.tags["checkpoints"].split(":")[1]) / "last.pt").exists()


def test_presets_as_contenders(folder: Path) -> None:
    (folder / "conf/experiment").mkdir()
    for name, bias in (("plain", "false"), ("biased", "true")):
        text = f"# @package _global_\nmodel: {{bias: {bias}}}\n"
        (folder / f"conf/experiment/{name}.yaml").write_text(text)
    few = ["hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=1"]
    result = compare(folder, "presets", "experiment=plain,biased", *few)
    assert re.search("the test nll of (plain|biased) is", " ".join(result.stdout.split()))
    assert "also differ" not in result.stdout
    assert "plan: 1 trial and 1 seed for each of 2 contenders, about" in result.stderr
    for name, bias in (("plain", "False"), ("biased", "True")):
        (trial,) = study(folder, f"presets/{name}").trials
        run = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").get_run(trial.user_attrs["mlflow_run_id"])
        assert run.data.params["model.bias"] == bias
