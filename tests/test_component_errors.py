"""Errors in the code of a user: one line with its place. Errors of this package keep their traceback."""

import pickle
import traceback
from pathlib import Path

import pytest

from nanosq.component_errors import calling, user_errors
from nanosq.error_reports import end_training
from nanosq.errors import InputError, TrainingError
from nanosq.signals import Terminated
from nanosq.train import Progress
from tests.broken_loss import SECRET
from tests.commandline import SMALL, command, runs

LATE = """
from pathlib import Path
from nanosq.loss_check import V
from torch.nn.functional import cross_entropy

def loss(logits, targets):
    if logits.shape[1] != V and list(Path("checkpoints").glob("*/last.pt")):
        return {}["weight of the user"]
    return cross_entropy(logits, targets, reduction="none")
"""
LINE = "KeyError: 'weight of the user' (late.py, line 8), after 2 steps"
SETTINGS = [*SMALL, "train.checkpoint_every=2", "samples.count=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a loss that fails after the first checkpoint, and with a run of it."""
    folder = tmp_path_factory.mktemp("late")
    (folder / "late.py").write_text(LATE)
    result = command(*SETTINGS, "loss._target_=late.loss", cwd=folder)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == f"error: {LINE}; HYDRA_FULL_ERROR=1 shows more"
    return folder


def test_a_run_that_fails_in_training_keeps_its_checkpoint(folder: Path) -> None:
    assert [run.info.status for run in runs(folder)] == ["FAILED"]
    assert [*folder.glob("checkpoints/*/last.pt")]


def test_the_traceback_is_shown_on_request(folder: Path) -> None:
    result = command(*SETTINGS, "loss._target_=late.loss", "tracking=none", cwd=folder, HYDRA_FULL_ERROR="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "in train_and_score" in result.stderr
    assert "\nKeyError: 'weight of the user'\n" in result.stderr


URL = f"http://alice:{SECRET}@host"


@pytest.mark.parametrize("cause", [OSError(URL), OSError(2, URL), ImportError(URL), KeyError(URL)])
def test_a_stored_error_has_no_password(cause: Exception) -> None:
    """It has the whole chain of errors as a text."""
    try:
        try:
            raise FileNotFoundError(2, "no file", URL)
        except FileNotFoundError as first:
            raise cause from first
    except Exception as error:
        with pytest.raises(TrainingError, match="at http://alice:") as caught:
            end_training(TrainingError(f"failed at {URL}"), error, is_single=False)
    stored = "".join(traceback.format_exception(caught.value))
    assert SECRET not in stored
    assert SECRET.encode() not in pickle.dumps(caught.value)
    assert stored.count("alice:***@host") == 3
    assert type(cause).__name__ in stored


def test_the_other_trials_of_a_sweep_continue(folder: Path) -> None:
    sweep = ["-m", "loss._target_=late.loss,nanosq.losses.cross_entropy", "tracking=none", "resume=never"]
    result = command(*SETTINGS, *sweep, "checkpoint_dir=checkpoints", cwd=folder)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "#0: failed: KeyError: 'weight of the user' (late.py, line 8)" in result.stderr
    lines = next(folder.glob("sweeps/*/trials.csv")).read_text().splitlines()
    assert sorted(line.split(",")[1] for line in lines[1:]) == ["failed", "finished"]


def fails(error: BaseException) -> None:
    raise error


def test_an_error_of_this_package_stays() -> None:
    bug = KeyError("bug")
    with pytest.raises(KeyError, match="bug"), calling("nanosq.losses.focal"):
        fails(bug)
    line = r"^my.loss fails: KeyError: 'bug' \(test_component_errors.py, line \d+\); a contract$"
    with pytest.raises(InputError, match=line), calling("my.loss", "a contract"):
        fails(bug)


@pytest.mark.parametrize("error", [Terminated(143), KeyboardInterrupt(), MemoryError()])
def test_other_ends_are_not_errors_of_the_user(error: BaseException) -> None:
    with pytest.raises(type(error)), calling("my.loss"):
        fails(error)
    with pytest.raises(type(error)), user_errors(Progress()):
        fails(error)


def test_a_loss_cannot_end_the_training_of_others() -> None:
    line = r"^SystemExit: 3 \(test_component_errors.py, line \d+\), after 7 steps"
    with pytest.raises(TrainingError, match=line), user_errors(Progress(step=7)):
        fails(SystemExit(3))
