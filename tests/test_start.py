"""The start of training: checkpoints that are resumed, and those that are not."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nanosq import checkpoint, identity, start
from nanosq.checkpoint import Checkpoints
from nanosq.data import corpus, tokenizers
from nanosq.data.corpus import Corpus
from nanosq.data.tokenizers import GPT2
from nanosq.pretrained import Pretrained
from nanosq.start import Origin, Start
from nanosq.train import Progress, TrainState
from tests.data.test_corpus import source_of_texts

RUN_ID = "0123456789abcdef" * 2


def prepared(story: str, cache_dir: Path) -> Corpus:
    texts = {"train": [story], "val": ["Sam ran."], "test": ["Tom sat."]}
    return corpus.prepare(partial(source_of_texts, texts=texts), tokenizers.byte_level(), cache_dir=cache_dir)


def new_state(step: int = 0) -> TrainState:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), Progress(step=step))


def facts(corpus: Corpus, **changes: Any) -> dict[str, Any]:
    known = {"config_hash": "a1b2", "code": "c0de", "text": identity.text_hash(corpus), "run_id": RUN_ID}
    known |= {"settings": {}, "architecture": {}}
    return {**known, **identity.text_identity(corpus), **changes}


def test_an_interrupted_run_is_resumed_with_the_same_code_and_text(tmp_path: Path) -> None:
    text, folder = prepared("Once.", tmp_path), tmp_path / "a1b2"
    trained = new_state(7)
    Checkpoints(folder, facts(text)).save_last(trained)
    resumed = new_state()
    settings: dict[str, Any] = {"max_steps": 9, "folder": folder}
    whole = Origin(is_new=False, run_id=RUN_ID)
    assert start.restore(Start(), resumed, facts=facts(text), **settings) == whole  # nothing was evaluated
    trained.progress.best_perplexity = 3.0
    Checkpoints(folder, facts(text)).save_last(trained)
    origin = start.restore(Start(), resumed, facts=facts(text), **settings)
    assert origin.lost == f"evaluations before step 7 do not count: {folder}/best.pt is missing or damaged"
    assert resumed.progress == Progress(step=7)
    (folder / "best.pt").touch()
    assert start.restore(Start(), resumed, facts=facts(text), **settings) == origin
    assert resumed.progress == Progress(step=7)
    Checkpoints(folder, facts(text)).save_best(trained)
    assert start.restore(Start(), resumed, facts=facts(text), **settings) == whole
    assert resumed.progress.best_perplexity == 3.0
    Checkpoints(folder, facts(text, threads=3)).save_last(trained)
    assert start.restore(Start(), resumed, facts=facts(text, threads=1), **settings).n_threads == 3
    never = new_state()
    assert start.restore(Start(is_repeatable=False), never, facts=facts(text), **settings) == Origin()
    assert never.progress == Progress()


def test_a_damaged_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    text = prepared("Once.", tmp_path)
    Checkpoints(tmp_path, facts(text)).save_last(new_state(7))
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"last\.pt is damaged.* start a new run with resume=never"):
        start.restore(Start(), new_state(), facts=facts(text), max_steps=9, folder=tmp_path)


@pytest.mark.parametrize(("change", "what"), [({"code": "c0de+1"}, "code"), ({"text": "other"}, "text")])
def test_an_interrupted_run_of_another_program_or_text_starts_again(
    change: dict[str, str], what: str, tmp_path: Path
) -> None:
    text, folder = prepared("Once.", tmp_path), tmp_path / "a1b2"
    Checkpoints(folder, facts(text)).save_last(new_state(7))
    state = new_state()
    origin = start.restore(Start(), state, facts=facts(text, **change), max_steps=9, folder=folder)
    assert origin.is_new
    assert f"the {what} changed after this run stopped at step 7" in origin.notice
    assert state.progress == Progress()
    checkpoint.clear(folder, keep_previous=True)
    assert {path.name for path in folder.iterdir()} == {"previous.pt"}


def test_a_named_checkpoint_is_trained_further_as_another_run(tmp_path: Path) -> None:
    text, other_text = prepared("Once.", tmp_path), prepared("Once upon a time.", tmp_path)
    assert identity.text_hash(text) != identity.text_hash(other_text)
    trained = new_state(7)
    Checkpoints(tmp_path / "parent", facts(text)).save_last(trained)
    path, folder = tmp_path / "parent/last.pt", tmp_path / "child"
    for change in ({"config_hash": "c3d4"}, {"code": "other"}):
        state = new_state()
        child = facts(text, **change)
        origin = start.restore(Start(state=path, parent="d1g"), state, facts=child, max_steps=9, folder=folder)
        assert origin == Origin(resumed_from=RUN_ID)
        assert state.progress == Progress(step=7)
        torch.testing.assert_close(state.model.state_dict(), trained.model.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"raise train\.max_steps"):
        start.restore(Start(state=path), new_state(), facts=facts(text), max_steps=6, folder=folder)
    with pytest.raises(ValueError, match="another text"):
        start.restore(Start(state=path), new_state(), facts=facts(other_text), max_steps=9, folder=folder)
    weights = new_state()
    named = Start(weights=Pretrained(path, {}, trained.model.state_dict(), text.tokenizer, facts(text)))
    start.restore(named, weights, facts=facts(other_text), max_steps=9, folder=folder)
    assert named.weights is None
    other = Pretrained(path, {}, trained.model.state_dict(), GPT2(), {"tokenizer": GPT2().state()})
    with pytest.raises(ValueError, match="tokenizer is different"):
        start.restore(Start(weights=other), new_state(), facts=facts(text), max_steps=9, folder=folder)
    torch.testing.assert_close(weights.model.state_dict(), trained.model.state_dict(), rtol=0, atol=0)
    assert weights.progress == Progress()  # weights fit any text of their vocabulary
