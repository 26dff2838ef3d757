"""A loss in a user's own module, outside the repository."""

import sys
from pathlib import Path

import pytest

from analysis.page import Section
from analysis.report import __main__ as report
from tests.commandline import SMALL, command, runs

MODULE = """
import torch
from torch.nn.functional import cross_entropy

def nll(logits, targets):
    return cross_entropy(logits, targets, reduction="none")

def own(logits, targets, *, gamma: float = 1.0):
    nll_N = nll(logits, targets)
    return nll_N * (1 - (-nll_N).exp()).detach() ** gamma

def weighted(logits, targets):
    return nll(logits, targets) * nll(logits, targets).detach().softmax(0) * len(targets)

def centred(logits, targets):
    return nll(logits, targets) - nll(logits, targets).mean()

def broadcast(logits, targets):
    return nll(logits, targets).mean().expand(len(targets))

def in_place(logits, targets):
    return nll(logits.mul_(2.0), targets)

def wrong(logits, targets):
    return nll(logits, target)

def balanced(logits, targets):
    return nll(logits, targets) / torch.bincount(targets)[targets]
"""
FOLDER = ["--config-dir", "conf"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a module, and with the configuration of a loss in it."""
    (tmp_path / "mymodule.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("def own(:\n")
    (tmp_path / "conf/loss").mkdir(parents=True)
    (tmp_path / "conf/loss/myloss.yaml").write_text("_target_: mymodule.own\n_partial_: true\ngamma: 1.0\n")
    return tmp_path


@pytest.mark.slow
def test_sweep_and_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(*FOLDER, "-m", "loss=cross_entropy,myloss", "seed=1,2", *SMALL, "samples.count=0", cwd=folder, check=True)
    assert sorted((run.data.params["loss"], run.data.params["seed"]) for run in runs(folder)) == [
        *[("cross_entropy", "1"), ("cross_entropy", "2")],
        *[("mymodule.own", "1"), ("mymodule.own", "2")],
    ]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(report.audit, "section", lambda *_, **__: Section("The report, audited"))
    assert report.main(["--tracking-uri", f"sqlite:///{folder}/mlflow.db"]) == 0
    assert "mymodule.own" in (folder / "report/report.html").read_text()
    assert "mymodule" not in sys.modules  # the report does not run the code of a user


@pytest.mark.slow
def test_sweep_in_worker_processes(folder: Path) -> None:
    sweep = ["-m", "loss=myloss", "loss.gamma=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command(*FOLDER, *sweep, *SMALL, "samples.count=0", cwd=folder, check=True, warm=False)
    assert {run.data.params["loss.gamma"] for run in runs(folder)} == {"0", "1"}


@pytest.mark.slow
def test_module_on_the_python_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    command("loss._target_=mymodule.own", *SMALL, "tracking=none", cwd=elsewhere, check=True, warm=False)


def refusal(*arguments: str, cwd: Path) -> str:
    """Return the line with which the program refuses a loss."""
    result = command(*arguments, *SMALL, cwd=cwd)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert not (cwd / "mlflow.db").exists()
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("name", ["weighted", "centred", "broadcast", "balanced"])
def test_a_loss_that_is_not_per_token_is_refused(name: str, folder: Path) -> None:
    line = refusal(f"loss._target_=mymodule.{name}", cwd=folder)
    assert line.startswith(f"error: loss: mymodule.{name} is not per token: ")
    assert line.endswith("(logits_NV, targets_N) to losses_N, each from its own row, for any N and V")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_loss_in_place_is_refused_in_every_precision(precision: str, folder: Path) -> None:
    line = refusal("loss._target_=mymodule.in_place", f"precision={precision}", cwd=folder)
    assert "mymodule.in_place changes its arguments in place" in line


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("mymodul.own", "No module named 'mymodul'; a module of your own must be in the current folder or"),
        ("mymodule.onw", "has no attribute 'onw'; did you mean 'own'?"),
        ("broken.own", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("mymodule.wrong", "NameError: name 'target' is not defined (mymodule.py, line 25)"),
    ],
)
def test_a_loss_that_cannot_be_used_is_refused_with_the_reason(target: str, reason: str, folder: Path) -> None:
    assert reason in refusal(f"loss._target_={target}", cwd=folder)
