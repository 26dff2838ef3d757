"""Checkpoints: writing, reading, and what a run resumes from."""

import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nanosq import checkpoint, identity
from nanosq.checkpoint import Checkpoints, Origin
from nanosq.data import corpus, tokenizers
from nanosq.train import Progress, TrainState
from tests.data.test_corpus import source_of_texts
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


def test_the_checkpoint_that_resume_means(tmp_path: Path) -> None:
    folder, run_id = tmp_path / "a1b2", "0123456789abcdef" * 2
    assert checkpoint.find("auto", folder) is None
    with pytest.raises(ValueError, match=f"init_from={run_id}"):
        checkpoint.find(run_id, folder)
    checkpoint.save(tmp_path / "other/last.pt", {"run_id": run_id})
    assert checkpoint.find(run_id, folder) == tmp_path / "other/last.pt"
    assert checkpoint.find("auto", folder) is None
    checkpoint.save(folder / "last.pt", {"run_id": ""})
    assert checkpoint.find("auto", folder) == folder / "last.pt"
    assert checkpoint.find("never", folder) is None
    assert checkpoint.find("some/last.pt", folder) == Path("some/last.pt")


def test_resumes_with_the_same_text_only(tmp_path: Path) -> None:
    def prepared(story: str) -> corpus.Corpus:
        texts = {"train": [story], "val": ["Sam ran."], "test": ["Tom sat."]}
        return corpus.prepare(partial(source_of_texts, texts=texts), tokenizers.byte_level(), cache_dir=tmp_path)

    def state(step: int) -> TrainState:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters())
        return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), Progress(step=step))

    before, after, path = prepared("Once."), prepared("Once upon a time."), tmp_path / "last.pt"
    assert identity.text_hash(before) != identity.text_hash(after)

    def facts(text: corpus.Corpus, config_hash: str = "a1b2") -> dict[str, Any]:
        return {"config_hash": config_hash, "run_id": "", **identity.text_identity(text)}

    trained = state(7)
    trained.progress.best_perplexity = 3.0
    Checkpoints(tmp_path, facts(before)).save_last(trained)
    resumed = state(0)
    settings = {"max_steps": 9, "folder": tmp_path}
    assert checkpoint.resume(resumed, path, facts=facts(before), **settings) == Origin(is_new=False)
    assert resumed.progress == Progress(step=7)  # the file of the best weights is missing
    (tmp_path / "best.pt").touch()
    checkpoint.resume(resumed, path, facts=facts(before), **settings)
    assert resumed.progress.best_perplexity == 3.0
    assert checkpoint.resume(resumed, path, facts=facts(before, "c3d4"), **settings) == Origin(resumed_from="")
    assert resumed.progress == Progress(step=7)
    with pytest.raises(ValueError, match=r"raise train\.max_steps"):
        checkpoint.resume(state(0), path, facts=facts(before), max_steps=6, folder=tmp_path)
    with pytest.raises(ValueError, match="another text"):
        checkpoint.resume(state(0), path, facts=facts(after), **settings)
    new = state(0)
    checkpoint.load_weights(new, path, facts=facts(after))  # weights fit any text of their vocabulary
    torch.testing.assert_close(new.model.state_dict(), trained.model.state_dict(), rtol=0, atol=0)
    assert new.progress == Progress()
