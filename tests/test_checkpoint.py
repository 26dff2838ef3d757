import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanosq import checkpoint


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_refuses_what_is_no_checkpoint_and_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.save(Path("whole.pt"), {"model": {"w": torch.zeros(1000)}})
    Path("truncated.pt").write_bytes(Path("whole.pt").read_bytes()[:2000])
    Path("empty.pt").touch()
    Path("text.pt").write_text("Once upon a time")
    Path("words.pt").write_text("add a few words")  # bytes that the unpickler takes for opcodes
    Path("bomb.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"model": Bomb()}, "bomb2.pt")
    torch.save({"model": {}}, "foreign.pt")
    for name in ("missing", "truncated", "empty", "text", "words", "bomb", "bomb2", "foreign"):
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


def test_a_folder_is_one_process_s(tmp_path: Path) -> None:
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
