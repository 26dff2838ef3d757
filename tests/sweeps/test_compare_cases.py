"""Comparisons of other things than two losses, and contenders without a result."""

import re
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import mlflow
import optuna
import pytest
from optuna.trial import TrialState

from tests.commandline import SMALL, command, runs, start

COMPARE = [
    *["-m", "hydra/sweeper=compare", "hydra.sweeper.study_name=mine", "hydra.sweeper.tune_steps=4", "samples.count=0"],
    *["hydra.sweeper.n_trials=2", "hydra.sweeper.seeds=2", *SMALL],
]
LOSSES = "loss=cross_entropy,squentropy"
RAISING = """
import torch.nn.functional as F

def loss(logits_NV, targets_N):
    if len(targets_N) > 100:
        raise RuntimeError("no such luck")
    return F.cross_entropy(logits_NV, targets_N, reduction="none")
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of the prepared text."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two losses of the user: cross-entropy under another name, and one that fails in training."""
    (tmp_path / "conf/loss").mkdir(parents=True)
    (tmp_path / "conf/loss/again.yaml").write_text("_target_: nanosq.losses.cross_entropy\n_partial_: true\n")
    (tmp_path / "conf/loss/raising.yaml").write_text("_target_: raising.loss\n_partial_: true\n")
    (tmp_path / "raising.py").write_text(RAISING)
    return tmp_path


def compare(folder: Path, cache: str, *settings: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    result = command("--config-dir", "conf", *COMPARE, *settings, cwd=folder, NANOSQ_CACHE=cache)
    assert result.returncode == status, result.stdout + result.stderr
    return result


def sentences(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the verdicts and the sentences on contenders without a result."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in result.stdout.split("\n\n"))
    return [text for text in paragraphs if "the test nll of" in text or "has no result" in text]


def study(folder: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=f"mine/{name}", storage=f"sqlite:///{folder}/optuna.db")


def confirmed(folder: Path) -> list[Sequence[object]]:
    return [(trial.params["contender"], trial.params["seed"]) for trial in study(folder, "confirmation").trials]


def test_a_loss_under_another_name_has_no_difference(folder: Path, cache: str) -> None:
    """Its trials are pruned as those of the first contender, and the trials that are not are not trained again."""
    settings = ["loss=cross_entropy,again", "hydra.sweeper.n_trials=4", "hydra.sweeper.pruner.n_startup_trials=1"]
    result = compare(folder, cache, *settings)
    (sentence,) = sentences(result)
    assert sentence.startswith("No difference was found")
    assert re.search(r"the test nll of again is 0\.0* nats per token higher", sentence)
    trials, again = (
        [(t.state.name, t.params, t.values, t.intermediate_values) for t in study(folder, name).trials]
        for name in ("cross_entropy", "again")
    )
    assert trials == again
    states = [state for state, *_ in trials]
    assert {*states} == {"COMPLETE", "PRUNED"}
    assert len(runs(folder)) == states.count("COMPLETE") + 2 * states.count("PRUNED") + 2


def test_three_contenders_have_a_verdict_for_each_pair(folder: Path, cache: str) -> None:
    found = sentences(compare(folder, cache, "optimizer=adamw,muon,sgd", "loss=squentropy", "seed=5,7"))
    assert [re.findall("adamw|muon|sgd", text)[-2:] for text in found] == [
        ["muon", "adamw"],
        ["sgd", "adamw"],
        ["sgd", "muon"],
    ]
    assert confirmed(folder) == [(name, seed) for seed in (5, 7) for name in ("adamw", "muon", "sgd")]
    assert "optimizer.lr" in study(folder, "sgd").trials[1].params
    assert "loss.weight" in study(folder, "muon").trials[1].params


def test_values_that_are_lists_and_the_commands_that_are_printed(folder: Path, cache: str) -> None:
    settings = ["loss=again", "optimizer=adamw", "optimizer.betas=[0.9,0.95],[0.8,0.9]"]
    result = compare(folder, cache, *settings, "hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=1")
    commands = re.findall(r"^best of (.*): python run.py (.*)$", result.stdout, re.MULTILINE)
    assert [label for label, _ in commands] == ["optimizer.betas=[0.9,0.95]", "optimizer.betas=[0.8,0.9]"]
    composed = command(*shlex.split(commands[1][1]), "--cfg", "job", cwd=folder, check=True).stdout
    assert "_target_: nanosq.losses.cross_entropy\n" in composed  # the command finds the user's loss
    assert "- 0.8\n" in composed
    repeat = study(folder, commands[0][0]).user_attrs["comparison"]["command"]
    assert repeat.startswith("python run.py --config-dir conf -m hydra/sweeper=compare ")


@pytest.mark.parametrize(
    ("settings", "reason", "status"),
    [
        (["optimizer.lr=1e-3,1e38", "precision=fp32", "train.clip_norm=null"], "(2 diverged)", 0),
        (["loss=cross_entropy,raising"], "(2 failed)", 1),
    ],
)
def test_a_contender_without_result(settings: list[str], reason: str, status: int, folder: Path, cache: str) -> None:
    """The other contender is confirmed."""
    result = compare(folder, cache, *settings, status=status)
    (sentence,) = sentences(result)
    assert re.match(rf"\S+ has no result: no tuning trial is complete {re.escape(reason)}\.", sentence)
    assert re.search(r"^plan: 2 trials and 2 seeds for each of 2 contenders, about", result.stderr, re.MULTILINE)
    assert "no tuning trial has finished, it is not confirmed" in result.stderr
    assert len(confirmed(folder)) == 2
    assert len({contender for contender, _ in confirmed(folder)}) == 1


def test_an_interval_is_tuned_and_never_starts_anew(folder: Path, cache: str) -> None:
    settings = [LOSSES, "optimizer.weight_decay=interval(0.0,0.1)", "model.n_layer=range(1,3)", "resume=never"]
    few = ["hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=1"]
    compare(folder, cache, *settings, *few)
    axes = {*study(folder, "squentropy").trials[0].params}
    assert {"optimizer.weight_decay", "model.n_layer", "loss.weight", "optimizer.lr"} <= axes
    again = compare(folder, cache, *settings, *few)
    assert "study mine-2/squentropy in sqlite:///optuna.db: 0 of 1 trials started before" in again.stderr
    assert len(runs(folder)) == 8
    assert "Not enough runs" in again.stdout


@pytest.mark.parametrize(
    ("moment", "tune_steps", "name"),
    [(r"muon #0: \S+=", 1000, "muon"), (r"muon seed 1338: \S+=", 2, "confirmation")],
)
def test_ctrl_c_leaves_a_trial_to_resume(moment: str, tune_steps: int, name: str, folder: Path, cache: str) -> None:
    settings = ["optimizer=muon,adamw", "hydra.sweeper.n_trials=1", "train.max_steps=1000", "train.eval_every=1000"]
    tuning = f"hydra.sweeper.tune_steps={tune_steps}"
    process = start(*COMPARE, *settings, tuning, cwd=folder, NANOSQ_CACHE=cache)
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
    (run,) = (run for run in runs(folder) if run.info.status == "KILLED")
    assert run.data.tags["sweep"] == f"mine/{name}"
    assert study(folder, name).trials[int(run.data.tags["trial"])].state is TrialState.WAITING
    assert len([*folder.glob("checkpoints/*/last.pt")]) == 1


def test_presets_as_contenders(folder: Path, cache: str) -> None:
    (folder / "conf/experiment").mkdir()
    for name, bias in (("plain", "false"), ("biased", "true")):
        text = f"# @package _global_\nmodel: {{bias: {bias}}}\n"
        (folder / f"conf/experiment/{name}.yaml").write_text(text)
    few = ["hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=1"]
    result = compare(folder, cache, "experiment=plain,biased", *few)
    assert "the test nll of biased" in " ".join(result.stdout.split())
    assert "plan: 1 trial and 1 seed for each of 2 contenders, about" in result.stderr
    for name, bias in (("plain", "False"), ("biased", "True")):
        (trial,) = study(folder, name).trials
        run = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").get_run(trial.user_attrs["mlflow_run_id"])
        assert run.data.params["model.bias"] == bias
