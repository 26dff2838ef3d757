from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from nanosq import checkpoint, identity, resume
from nanosq.data import corpus, tokenizers
from nanosq.train import Progress, State
from tests.data.test_corpus import given_texts
from tests.stress import kill_and_resume


def test_a_run_that_is_killed_ends_where_an_undisturbed_one_ends(tmp_path: Path) -> None:
    kill_and_resume.check(kill=2, terminate=1, seed=1, scratch=tmp_path)


def test_what_resume_means(tmp_path: Path) -> None:
    folder, run_id = tmp_path / "a1b2", "0123456789abcdef" * 2
    assert resume.find("auto", folder) is None
    with pytest.raises(ValueError, match=f"init_from={run_id}"):
        resume.find(run_id, folder)
    checkpoint.save(tmp_path / "other/last.pt", {"run_id": run_id})
    assert resume.find(run_id, folder) == tmp_path / "other/last.pt"
    assert resume.find("auto", folder) is None
    checkpoint.save(folder / "last.pt", {"run_id": ""})
    assert resume.find("auto", folder) == folder / "last.pt"
    assert resume.find("never", folder) is None
    assert resume.find("some/last.pt", folder) == Path("some/last.pt")


def test_goes_on_with_the_same_text_alone(tmp_path: Path) -> None:
    def prepared(story: str) -> corpus.Corpus:
        texts = {"train": [story], "val": ["Sam ran."], "test": ["Tom sat."]}
        return corpus.prepare(partial(given_texts, texts=texts), tokenizers.byte_level(), cache_dir=tmp_path)

    def state(step: int) -> State:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters())
        return State(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), Progress(step=step))

    before, after, path = prepared("Once."), prepared("Once upon a time."), tmp_path / "last.pt"
    assert identity.text_hash(before) != identity.text_hash(after)
    facts = {"config_hash": "a1b2", "run_id": "", **identity.text_identity(before)}
    trained = state(7)
    trained.progress.best_perplexity = 3.0
    checkpoint.save(path, {**facts, **trained.snapshot()})
    settings = {"config_hash": "a1b2", "max_steps": 9, "best": tmp_path / "best.pt"}
    resumed = state(0)
    assert resume.go_on(resumed, path, corpus=before, **settings) == resume.Origin(anew=False)
    assert resumed.progress == Progress(step=7)  # the best perplexity went with the file of the best weights
    (tmp_path / "best.pt").touch()
    resume.go_on(resumed, path, corpus=before, **settings)
    assert resumed.progress.best_perplexity == 3.0
    longer = {**settings, "config_hash": "c3d4"}
    assert resume.go_on(resumed, path, corpus=before, **longer) == resume.Origin(resumed_from="")
    assert resumed.progress == Progress(step=7)
    with pytest.raises(ValueError, match=r"raise train\.max_steps"):
        resume.go_on(state(0), path, corpus=before, **{**settings, "max_steps": 6})
    with pytest.raises(ValueError, match="another text"):
        resume.go_on(state(0), path, corpus=after, **settings)
    fresh = state(0)
    resume.start_from(fresh, path, corpus=after)  # weights fit any text of their vocabulary
    torch.testing.assert_close(fresh.model.state_dict(), trained.model.state_dict(), rtol=0, atol=0)
    assert fresh.progress == Progress()
