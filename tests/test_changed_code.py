"""An interrupted run whose code or text has changed is not resumed: it would be one run of two programs."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commandline import ROOT, SMALL, environment, runs

LONG = [*SMALL, "train.max_steps=4000", "train.checkpoint_every=2", "train.eval_every=4000", "samples.count=0"]
LOSS = """
from nanosq.losses import cross_entropy
from my_helper import FACTOR

def mine(logits_NV, targets_N):
    return FACTOR * cross_entropy(logits_NV, targets_N)
"""


def process(*arguments: str, cwd: Path, program: Path = ROOT) -> subprocess.Popen[str]:
    """Start run.py of a checkout in a folder whose modules can be imported."""
    return subprocess.Popen(
        [sys.executable, str(program / "run.py"), *arguments],
        cwd=cwd,
        env=environment() | {"PYTHONPATH": f"{program}:{cwd}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stop_at_first_checkpoint(*arguments: str, cwd: Path, program: Path = ROOT, how: int = signal.SIGTERM) -> None:
    run = process(*arguments, cwd=cwd, program=program)
    while not [*cwd.glob("checkpoints/*/last.pt")]:
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    run.send_signal(how)
    run.communicate(timeout=300)
    assert run.returncode != 0


def stop_after_line(text: str, *arguments: str, cwd: Path, program: Path = ROOT) -> str:
    """Run until a line with `text` is printed, stop the run, and return the line."""
    run = process(*arguments, cwd=cwd, program=program)
    assert run.stdout is not None
    found = next((line for line in run.stdout if text in line), "")
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=300)
    assert found
    return found


def test_a_changed_formula_of_the_package(tmp_path: Path) -> None:
    program = tmp_path / "program"
    for name in ("nanosq", "conf"):
        shutil.copytree(ROOT / name, program / name)
    shutil.copy(ROOT / "run.py", program)
    stop_at_first_checkpoint("loss=squentropy", *LONG, cwd=tmp_path, program=program)
    losses = program / "nanosq/losses.py"
    formula, other = "weight / (logits_NV.shape[-1] - 1)", "2 * weight / logits_NV.shape[-1]"
    assert formula in losses.read_text()
    losses.write_text(losses.read_text().replace(formula, other))
    line = stop_after_line("starts again", "loss=squentropy", *LONG, cwd=tmp_path, program=program)
    assert line.startswith("the code changed after this run stopped at step ")
    first, second = sorted(runs(tmp_path), key=lambda run: run.info.start_time)
    assert [first.info.status, second.info.status] == ["KILLED", "KILLED"]
    assert first.data.tags["code"] != second.data.tags["code"]
    assert first.data.tags["config_hash"] == second.data.tags["config_hash"]
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert {path.name for path in folder.iterdir()} >= {"previous.pt", "last.pt"}


@pytest.mark.parametrize(("file", "how"), [("my_loss.py", signal.SIGTERM), ("my_helper.py", signal.SIGKILL)])
def test_a_changed_module_of_the_user(file: str, how: int, tmp_path: Path) -> None:
    """A module that the loss imports counts too, and a killed run is marked."""
    (tmp_path / "my_loss.py").write_text(LOSS)
    (tmp_path / "my_helper.py").write_text("FACTOR = 1.0\n")
    settings = [*LONG, "loss._target_=my_loss.mine"]
    stop_at_first_checkpoint(*settings, cwd=tmp_path, how=how)
    resumed = stop_after_line("resumed after step", *settings, cwd=tmp_path)
    assert len(runs(tmp_path)) == 1, resumed
    (tmp_path / file).write_text((tmp_path / file).read_text() + "# an edit\n")
    stop_after_line("the code changed after this run stopped", *settings, cwd=tmp_path)
    old, new = sorted(runs(tmp_path), key=lambda run: run.info.start_time)
    assert [old.info.status, new.info.status] == ["KILLED", "KILLED"]
    assert old.data.tags["code"] != new.data.tags["code"]
    assert old.data.tags["code"].split("+")[0] == new.data.tags["code"].split("+")[0]


def test_a_run_killed_before_its_first_checkpoint_is_not_continued_by_other_code(tmp_path: Path) -> None:
    (tmp_path / "my_loss.py").write_text(LOSS)
    (tmp_path / "my_helper.py").write_text("FACTOR = 1.0\n")
    settings = [*LONG, "loss._target_=my_loss.mine", "train.checkpoint_every=null", "train.max_steps=200"]
    run = process(*settings, cwd=tmp_path)
    assert run.stdout is not None
    next(line for line in run.stdout if "training tokens" in line)
    run.kill()
    run.communicate()
    (tmp_path / "my_helper.py").write_text("FACTOR = 2.0\n")
    again = process(*settings, cwd=tmp_path)
    assert (again.communicate()[0], again.returncode)[1] == 0
    codes = {run.info.status: run.data.tags["code"] for run in runs(tmp_path)}
    assert {*codes} == {"KILLED", "FINISHED"}
    assert len({*codes.values()}) == 2


def test_changed_text(tmp_path: Path) -> None:
    stories = tmp_path / "stories.txt"
    stories.write_text("<|endoftext|>".join(f"Once upon a time, {n} birds sang." for n in range(400)))
    settings = [one for one in LONG if not one.startswith("data.")]
    settings += ["data=text", f"data.source.train={stories}"]
    stop_at_first_checkpoint(*settings, cwd=tmp_path)
    stories.write_text(stories.read_text() + "<|endoftext|>The end of all birds.")
    (last,) = tmp_path.glob("checkpoints/*/last.pt")
    stop_after_line("was trained on another text", *settings, f"resume={last}", cwd=tmp_path)
    stop_after_line("the text changed after this run stopped", *settings, cwd=tmp_path)
