"""Checkpoints: writing, reading, and what a run resumes from."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanosq import checkpoint
from tests.stress import kill_and_resume


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


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
    kill_and_resume.check(kill=2, terminate=1, seed=1, scratch=tmp_path)


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
