"""Where a run begins: anew, where it was cut short, or with what another run has learned."""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanosq import checkpoint, identity
from nanosq.data.corpus import Corpus
from nanosq.train import Progress, State

RUN_ID = re.compile("[0-9a-f]{32}")  # MLflow's


@dataclass(frozen=True)
class Origin:
    """Which recorded run training continues, if any."""

    anew: bool = True
    run_id: str = ""  # of the run that goes on, where it was recorded
    resumed_from: str | None = None  # the id of another run, from whose state this one begins


def find(resume: str, folder: Path) -> Path | None:
    """The checkpoint that `resume` means to a run whose own are in `folder`; None where it starts anew.

    resume: "auto", the last one of this very run, if there is one; "never"; a file; or the MLflow id of a run that
    has left one beside `folder`. ValueError where there is none of the last two.
    """
    last = folder / "last.pt"
    if resume == "never" or (resume == "auto" and not last.exists()):
        return None
    if resume == "auto":
        return last
    if not RUN_ID.fullmatch(resume):
        return Path(resume)
    for path in sorted(folder.parent.glob("*/last.pt")):
        with suppress(ValueError):  # another run's, and damaged
            if checkpoint.load(path)["run_id"] == resume:
                return path
    raise ValueError(f"run {resume} left no checkpoint in {folder.parent}: init_from={resume} starts from its weights")


def go_on(state: State, path: Path, *, corpus: Corpus, config_hash: str, max_steps: int, best: Path) -> Origin:
    """Restore the state of a checkpoint.

    best: where the best weights of this very run are kept. ValueError for a checkpoint of another text, model or
    optimizer, or of more steps than `max_steps`.
    """
    saved = checkpoint.load(path)
    _check(path, saved, identity.text_identity(corpus))
    state.restore(saved)
    if state.progress.step > max_steps:
        raise ValueError(f"{path} is at step {state.progress.step} already: raise train.max_steps")
    if saved["config_hash"] != config_hash:  # a longer run is another, with a best step of its own
        state.progress = Progress(step=state.progress.step)
        return Origin(resumed_from=saved["run_id"])
    if not best.exists():
        state.progress.best_perplexity = math.inf
    return Origin(anew=False, run_id=saved["run_id"])


def start_from(state: State, path: Path, *, corpus: Corpus) -> None:
    """Restore the weights alone; ValueError for those of another model or vocabulary."""
    saved = checkpoint.load(path)
    _check(path, saved, {"tokenizer": corpus.tokenizer.state()})
    state.restore_weights(saved)


def _check(path: Path, saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for key, what in expected.items():
        if saved[key] != what:
            raise ValueError(f"{path} was trained on another text: its {key} is not that of data")
