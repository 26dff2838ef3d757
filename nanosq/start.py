"""The start of training: new weights, the weights of a checkpoint, or a state to resume."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nanosq import checkpoint, identity
from nanosq.filesystem import file_digest
from nanosq.tracking import Store
from nanosq.train import Progress, TrainState


@dataclass(frozen=True)
class Start:
    """The checkpoints that the settings `resume` and `init_from` name."""

    state: Path | None = None  # checkpoint to resume from
    weights: Path | None = None  # checkpoint to take the weights from
    parent: str = ""  # digest of one of these files if it is of another run: part of the identity of this run
    is_repeatable: bool = True  # whether the same command resumes or finds this run, instead of starting a new one


@dataclass(frozen=True)
class Origin:
    """The recorded run that training continues, if there is one."""

    is_new: bool = True
    run_id: str = ""  # of the run that is resumed, if it was recorded
    resumed_from: str | None = None  # id of another run, whose state this run starts with
    notice: str = ""  # why this run, which was interrupted, is not resumed
    n_threads: int | None = None  # of the run that is resumed


def find(cfg: Any, store: Store, code: str) -> Start:
    """Look up the checkpoints that a configuration names, and check that training can start from them.

    Args:
        cfg: The configuration.
        store: Store of the runs that `resume` and `init_from` name by their id.
        code: The `code_hash` of this run.

    Raises:
        ValueError: A checkpoint does not exist, cannot be read, or was trained with other settings.
    """
    weights, parent = None, ""
    if cfg.resume not in ("auto", "never"):
        state = _find_state(cfg.resume, Path(cfg.checkpoint_dir), store)
        saved = checkpoint.load(state)
        identity.check_resumable(saved["settings"], identity.relevant_settings(cfg))
        parent = saved.get("parent", "")
        if (saved["config_hash"], saved.get("code")) == (identity.config_hash(cfg, parent=parent), code):
            return Start(state=state, parent=parent, is_repeatable=False)
        return Start(state=state, parent=file_digest(state))
    if cfg.init_from is not None:
        is_id = checkpoint.RUN_ID.fullmatch(cfg.init_from)
        weights = store.checkpoint(cfg.init_from, "best.pt") if is_id else Path(cfg.init_from)
        checkpoint.load(weights)
        parent = file_digest(weights)
    return Start(weights=weights, parent=parent, is_repeatable=cfg.resume == "auto")


def _find_state(origin: str, folder: Path, store: Store) -> Path:
    """Return the checkpoint of a path or run id to resume from: of an interrupted run, or the kept state of another."""
    if not checkpoint.RUN_ID.fullmatch(origin):
        return Path(origin)
    try:
        return checkpoint.find(origin, folder) or store.checkpoint(origin, "last.pt")
    except ValueError as error:
        raise ValueError(
            f"run {origin} left no state to resume: train it with train.keep_last=true, or start from its weights with "
            f"init_from={origin} ({error})"
        ) from error


def restore(start: Start, state: TrainState, *, facts: Mapping[str, Any], max_steps: int, folder: Path) -> Origin:
    """Restore the state or the weights that a run starts with.

    A run that was interrupted is resumed, unless its code or text has changed: it would be one run of two programs.

    Args:
        start: What the settings name.
        state: State to restore into.
        facts: The facts of this run, as in `Checkpoints`.
        max_steps: Number of steps of this run.
        folder: Checkpoint folder of this run.

    Raises:
        ValueError: A checkpoint is of another text, model or optimizer, or of more than `max_steps` steps.
    """
    last, notice = folder / "last.pt", ""
    if start.is_repeatable and last.exists():
        saved = checkpoint.load(last)
        changed = [what for what in ("code", "text") if saved.get(what) != facts[what]]
        if not changed:
            return _resume(state, last, saved, facts=facts, max_steps=max_steps, folder=folder)
        notice = (
            f"the {' and the '.join(changed)} changed after this run stopped at step {saved['progress']['step']}: "
            f"a new run starts at step 0, and until it ends, {last.with_name('previous.pt')} is the old checkpoint"
        )
    if start.state is not None:
        saved = checkpoint.load(start.state)
        origin = _resume(state, start.state, saved, facts=facts, max_steps=max_steps, folder=folder)
        return replace(origin, notice=notice)
    if start.weights is not None:
        saved = checkpoint.load(start.weights)
        _check_same(start.weights, saved, facts, ("tokenizer",))
        state.restore_weights(saved)
    return Origin(notice=notice)


def _resume(
    state: TrainState, path: Path, saved: Mapping[str, Any], *, facts: Mapping[str, Any], max_steps: int, folder: Path
) -> Origin:
    """Restore the state of a checkpoint: `saved`, the content of `path`."""
    _check_same(path, saved, facts, ("tokenizer", "splits"))
    state.restore(saved)
    if state.progress.step > max_steps:
        raise ValueError(
            f"{path} is at step {state.progress.step}, and train.max_steps={max_steps}: raise train.max_steps"
        )
    if any(saved.get(key) != facts[key] for key in ("config_hash", "code", "text")):
        state.progress = Progress(step=state.progress.step)  # the best step is to be one of this run
        return Origin(resumed_from=saved["run_id"])
    if not (folder / "best.pt").exists():  # evaluate again
        state.progress = replace(state.progress, evaluated=0, best_perplexity=math.inf, since_best=0)
    return Origin(is_new=False, run_id=saved["run_id"], n_threads=saved.get("threads"))


def _check_same(path: Path, saved: Mapping[str, Any], facts: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if saved[key] != facts[key]:
            raise ValueError(f"{path} was trained on another text ({key} is different): use the same data settings")
