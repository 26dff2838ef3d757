"""An interrupted run whose code or text has changed is not resumed: it would be one run of two programs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from optuna.trial import TrialState

from analysis.page import Text
from analysis.report.search import find, section
from nanosq.sweeps.attributes import INFEASIBLE
from tests.commandline import ROOT, SMALL, command, runs
from tests.patched import patched
from tests.sweeps.test_study import open_study

SETTINGS = [*SMALL, "train.checkpoint_every=2", "samples.count=0", "loss._target_=my_loss.mine"]
# A loss that sends its own process a signal when a file exists. The file `stop` names both.
LOSS = """
import os
from pathlib import Path

import torch
from nanosq.losses import cross_entropy
from my_helper import FACTOR

def mine(logits_NV, targets_N):
    if Path("stop").exists():
        signal, file = Path("stop").read_text().split()
        if [*Path().glob(file)]:
            os.kill(os.getpid(), int(signal))
    return FACTOR * cross_entropy(logits_NV, targets_N)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a loss of the user."""
    (tmp_path / "my_loss.py").write_text(LOSS)
    (tmp_path / "my_helper.py").write_text("FACTOR = 1.0\n")
    return tmp_path


def stop(folder: Path, *arguments: str, signal: int = 15, when: str = "checkpoints/*/last.pt") -> None:
    (folder / "stop").write_text(f"{signal} {when}")
    assert command(*arguments, cwd=folder).returncode != 0
    (folder / "stop").unlink()


def old_and_new(folder: Path) -> list[mlflow.entities.Run]:
    """Return the two runs of a folder, in the order of their start."""
    found = sorted(runs(folder), key=lambda run: run.info.start_time)
    assert [run.info.status for run in found] == ["KILLED", "FINISHED"]
    old, new = (run.data.tags for run in found)
    assert old["config_hash"] == new["config_hash"]
    assert (old["code"], old["text"]) != (new["code"], new["text"])
    return found


@pytest.mark.parametrize(
    ("file", "signal"), [pytest.param("my_loss.py", 15, marks=pytest.mark.slow), ("my_helper.py", 9)]
)
@pytest.mark.slow
def test_a_changed_module_of_the_user(file: str, signal: int, folder: Path) -> None:
    """A module from which the loss imports counts too. A run that was killed at once is marked as KILLED."""
    stop(folder, *SETTINGS, signal=signal)
    (last,) = folder.glob("checkpoints/*/last.pt")
    copy = shutil.copy(last, folder / "copy.pt")
    assert "resumed after step" in command(*SETTINGS, cwd=folder, check=True).stderr
    assert [run.info.status for run in runs(folder)] == ["FINISHED"]

    stop(folder, *SETTINGS, "seed=2", signal=signal)
    (folder / file).write_text((folder / file).read_text() + "# an edit\n")
    result = command(*SETTINGS, "seed=2", cwd=folder, check=True)
    assert "a new run starts at step 0, and until it ends, checkpoints/" in result.stderr
    assert "resumed" not in result.stderr
    assert sorted(run.info.status for run in runs(folder)) == ["FINISHED", "FINISHED", "KILLED"]
    codes = {run.data.tags["code"] for run in runs(folder)}
    assert len(codes) == 2
    assert len({code.split("+")[0] for code in codes}) == 1  # one version of the package
    # On request the new code continues the old state, as another run that names its parent.
    further = command(*SETTINGS, f"resume={copy}", cwd=folder, check=True)
    assert "resumed after step" in further.stderr
    assert [run for run in runs(folder) if "resumed_from" in run.data.tags]


@pytest.mark.slow
def test_a_changed_formula_of_the_package(tmp_path: Path) -> None:
    program = tmp_path / "program"
    for name in ("nanosq", "conf"):
        shutil.copytree(ROOT / name, program / name)
    shutil.copy(ROOT / "run.py", program)
    settings = [*SMALL, "loss=squentropy", "train.checkpoint_every=2"]
    at_step_2 = "from nanosq import checkpoint as c; save = c.save"
    at_step_2 += "; c.save = lambda path, content: (save(path, content), path.name == 'last.pt' and os._exit(9))"
    killed = patched(at_step_2, *settings, cwd=tmp_path, program=program)
    assert killed.returncode == 9, killed.stderr
    losses = program / "nanosq/losses.py"
    formula, other = "weight / (logits_NV.shape[-1] - 1)", "2 * weight / logits_NV.shape[-1]"
    assert formula in losses.read_text()
    losses.write_text(losses.read_text().replace(formula, other))
    result = patched("", *settings, cwd=tmp_path, program=program)
    assert "the code changed after this run stopped at step" in result.stderr
    old_and_new(tmp_path)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint(folder: Path) -> None:
    settings = [*SETTINGS, "train.checkpoint_every=null"]
    stop(folder, *settings, signal=9, when="mlflow.db")
    (folder / "my_helper.py").write_text("FACTOR = 2.0\n")
    command(*settings, cwd=folder, check=True)
    old_and_new(folder)


@pytest.mark.slow
def test_a_trial_of_a_sweep(folder: Path) -> None:
    sweep = ["-m", *SETTINGS, "optimizer.lr=1e-3,2e-3"]
    stop(folder, *sweep)
    (folder / "my_helper.py").write_text("FACTOR = 2.0\n")
    result = command(*sweep, cwd=folder, check=True)
    assert "#0: the code changed after this run stopped at step" in result.stderr
    assert sorted(run.info.status for run in runs(folder)) == ["FINISHED", "FINISHED", "KILLED"]


@pytest.mark.slow
def test_a_search_and_a_comparison(folder: Path) -> None:
    """A search is continued with a note, also if its first component has not changed. A verdict has one program."""
    (folder / "conf/loss").mkdir(parents=True)
    (folder / "conf/loss/mine.yaml").write_text("_target_: my_loss.mine\n_partial_: true\n")
    few = [setting for setting in SMALL if not setting.startswith("model.n_layer")]
    common = ["-m", "--config-dir", "conf", *few, "samples.count=0", "hydra.sweeper.study_name=mine"]
    search = [*common, "hydra/sweeper=optuna", "loss=choice(cross_entropy,mine)"]
    comparison = [*common, "hydra/sweeper=compare", "loss=cross_entropy,mine", "hydra.sweeper.n_trials=1"]
    note = "code has changed since the study was started: its trials are of different programs"
    assert note not in command(*search, "hydra.sweeper.n_trials=1", cwd=folder, check=True).stderr
    command(*comparison, "hydra.sweeper.seeds=1", cwd=folder, check=True)
    (folder / "my_helper.py").write_text("FACTOR = 2.0\n")
    for n_trials in (2, 3):  # every start says it
        assert note in command(*search, f"hydra.sweeper.n_trials={n_trials}", cwd=folder, check=True).stderr
    found = section(find(f"sqlite:///{folder}/optuna.db", "mine"))
    assert any(isinstance(block, Text) and note in block.text for block in found.blocks)
    result = command(*comparison, "hydra.sweeper.seeds=2", cwd=folder)
    assert result.returncode == 2
    assert "error: study mine/mine was started with code=" in result.stderr
    (folder / "my_helper.py").write_text("FACTOR = 1.0\n")
    command(*comparison, "hydra.sweeper.seeds=2", cwd=folder, check=True)


def edit(stories: Path) -> None:
    stories.write_text(stories.read_text() + "<|endoftext|>The end of all birds.")


def replace(stories: Path) -> None:
    """Change letters, but not the number of bytes and tokens."""
    stories.write_text(stories.read_text().replace("birds", "trees"))


@pytest.mark.slow
@pytest.mark.parametrize("change", [edit, replace])
def test_changed_text(change: Callable[[Path], None], folder: Path) -> None:
    stories = folder / "stories.txt"
    stories.write_text("<|endoftext|>".join(f"Once upon a time, {n} birds sang." for n in range(400)))
    text = ["data=text", f"data.source.train={stories}"]
    settings = [*(one for one in SETTINGS if not one.startswith("data.")), *text]
    stop(folder, *settings)
    change(stories)
    (last,) = folder.glob("checkpoints/*/last.pt")
    refused = command(*settings, f"resume={last}", cwd=folder)
    assert refused.returncode == 2
    assert "was trained on another text" in refused.stderr
    result = command(*settings, cwd=folder, check=True)
    assert "the text changed after this run stopped at step" in result.stderr
    old_and_new(folder)


def test_programs_of_a_study(tmp_path: Path) -> None:
    """A trial counts that has a result, or that is trained now; infeasible settings are not the program's."""
    study = open_study(f"sqlite:///{tmp_path}/optuna.db")
    infeasible, other = study.take(2, total=2)
    infeasible.set_user_attr(INFEASIBLE, True)
    study.tell(infeasible, TrialState.PRUNED)
    study.tell(other, TrialState.FAIL)
    assert [study.note_code(code) for code in ("a", "b")] == [False, False]
    (running,) = study.take(1, total=3)
    assert [study.note_code(code) for code in ("b", "c", "c")] == [False, True, True]
    study.tell(running, TrialState.COMPLETE, [1.0])
