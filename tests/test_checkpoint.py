"""Checkpoints: writing, reading, and what a run resumes from."""

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from nanosq import checkpoint
from nanosq.errors import FileError
from tests.commandline import SMALL, command, runs
from tests.stress import kill_and_resume


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


# A loss of the user that replaces the folder of checkpoints by a file, once there is a checkpoint.
OWN = """
import shutil
from pathlib import Path
import torch.nn.functional as F

def cross_entropy(logits_NV, targets_N):
    if Path("fault").exists() and [*Path("checkpoints").glob("*/best.pt")]:
        shutil.rmtree("checkpoints")
        Path("checkpoints").touch()
    return F.cross_entropy(logits_NV, targets_N, reduction="none")
"""


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file of this process become larger than `size` bytes inside the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_that_are_no_checkpoint_are_refused_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.save(Path("whole.pt"), {"model": {"w": torch.zeros(1000)}})
    Path("truncated.pt").write_bytes(Path("whole.pt").read_bytes()[:2000])
    Path("empty.pt").touch()
    Path("text.pt").write_text("Once upon a time")
    Path("words.pt").write_text("add a few words")  # bytes that the unpickler takes for opcodes
    Path("bomb.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"model": Bomb()}, "bomb2.pt")
    torch.save({"model": {}}, "foreign.pt")
    torch.save({"format": "nanosq-1", "model": {}}, "old.pt")
    for name in ("missing", "truncated", "empty", "text", "words", "bomb", "bomb2", "foreign", "old"):
        with pytest.raises(ValueError, match=f"{name}.pt"):
            checkpoint.load(f"{name}.pt")
    assert not Path("exploded").exists()


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"model": {"w": torch.arange(9.0)}})
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(
            ValueError, match=r"last\.pt (is damaged|is not a checkpoint of nanosq|was written by another)"
        ):
            checkpoint.load(path)
    path.write_bytes(whole)
    assert checkpoint.load(path)["model"]["w"].tolist() == [*range(9)]


def test_a_kill_during_saving_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 1})
    script = f"""
import os, signal, torch
from pathlib import Path
from nanosq import checkpoint
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save(Path({str(path)!r}), {{"step": 2, "w": torch.zeros(100_000)}})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert checkpoint.load(path)["step"] == 1


def test_a_failure_during_saving_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        checkpoint.save(tmp_path / "last.pt", {"function": lambda: None})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_one_line_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 1})
    for size in (100, 5000, 9000, 10**5):  # at which the disk is full: torch.save writes a part, or nothing
        with (
            small_files(size),
            pytest.raises(FileError, match=r"cannot write .*last\.pt \(.*, or set checkpoint_dir=DIR$"),
        ):
            checkpoint.save(path, {"step": 2, "w": torch.zeros(25_000)})
        assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
        assert checkpoint.load(path)["step"] == 1
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file/a", tmp_path / "file/a/b"):
        with pytest.raises(FileError, match="checkpoint_dir=DIR"), checkpoint.exclusive(folder):
            pass


def test_a_checkpoint_folder_belongs_to_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints/a1b2"
    with checkpoint.exclusive(folder):
        assert folder.is_dir()
        with pytest.raises(ValueError, match="another process"), checkpoint.exclusive(folder):
            pass
    with checkpoint.exclusive(folder):
        pass
    assert not list(folder.parent.iterdir())
    with checkpoint.exclusive(folder):
        (folder / "last.pt").touch()
        (folder / "best.pt.partial").touch()
    assert [path.name for path in folder.iterdir()] == ["last.pt"]


@pytest.mark.slow
def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    kill_and_resume.check(kill=1, terminate=1, seed=1, scratch=tmp_path)


def test_the_checkpoint_of_an_interrupted_run_is_found_by_the_id_of_the_run(tmp_path: Path) -> None:
    run_id = "0123456789abcdef" * 2
    assert checkpoint.find(run_id, tmp_path) is None
    for name in ("a", "b", "c"):
        checkpoint.save(tmp_path / name / "last.pt", {"run_id": run_id if name == "b" else name})
    (tmp_path / "a/last.pt").write_text("damaged")
    assert checkpoint.find(run_id, tmp_path) == tmp_path / "b/last.pt"


def test_files_of_a_finished_run(tmp_path: Path) -> None:
    """A state that the store keeps needs no local file. Without a store it is final.pt, which nothing resumes alone."""

    def left(kept: list[str], *, keep_last: bool) -> set[str]:
        for name in ("last.pt", "best.pt", "previous.pt"):
            (tmp_path / name).touch()
        checkpoint.finish(tmp_path, kept=[tmp_path / name for name in kept], keep_last=keep_last)
        return {path.name for path in tmp_path.iterdir()}

    assert left(["best.pt"], keep_last=False) == set()
    assert left([], keep_last=False) == {"best.pt"}
    assert left(["best.pt", "last.pt"], keep_last=True) == set()
    assert left([], keep_last=True) == {"best.pt", "final.pt"}


def test_a_checkpoint_folder_that_disappears_during_training_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "fault").touch()
    arguments = [*SMALL, "loss._target_=own.cross_entropy", "samples.count=0", "score_test=false"]
    result = command(*arguments, cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert line.startswith("error: cannot write checkpoints/")
    assert line.endswith(": make it writable, or set checkpoint_dir=DIR")
    (tmp_path / "checkpoints").unlink()
    (tmp_path / "fault").unlink()
    command(*arguments, cwd=tmp_path, check=True)
    assert sorted(run.info.status for run in runs(tmp_path)) == ["FAILED", "FINISHED"]
