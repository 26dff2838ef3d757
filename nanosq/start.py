"""The start of training: new weights, weights that exist, or a state to resume."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanosq import checkpoint, config, identity, initial_weights, pretrained
from nanosq.data import tokenizers
from nanosq.filesystem import file_digest
from nanosq.model import GPT
from nanosq.pretrained import Pretrained
from nanosq.tracking import Store
from nanosq.train import Progress, TrainState


@dataclass
class Start:
    """The files or folders that the settings `resume` and `init_from` name."""

    state: Path | None = None  # checkpoint to resume from
    weights: Pretrained | None = None  # until `restore` takes them: training needs the memory
    parent: str = ""  # digest of the file of one of these if it is of another run: part of the identity of this run
    is_repeatable: bool = True  # whether the same command resumes or finds this run, instead of starting a new one


@dataclass(frozen=True)
class Origin:
    """The recorded run that training continues, if there is one."""

    is_new: bool = True
    run_id: str = ""  # of the run that is resumed, if it was recorded
    resumed_from: str | None = None  # id of another run, whose state this run starts with
    notice: str = ""  # why this run, which was interrupted, is not resumed
    lost: str = ""  # what is lost of the run that is resumed
    n_threads: int | None = None  # of the run that is resumed


def find(cfg: Any, store: Store, code: str) -> tuple[Any, Start]:
    """Look up what a configuration starts from, and check that training can start from it.

    Args:
        cfg: The configuration.
        store: Store of the runs that `resume` and `init_from` name by their id.
        code: The `code_hash` of this run.

    Returns:
        The configuration, with the sizes of the weights in place of null, and the start.

    Raises:
        ValueError: It does not exist, cannot be read, or is of a model with other settings.
    """
    is_gpt = cfg.model._target_ == pretrained.TARGET
    weights, parent = None, ""
    if identity.named_state(cfg):
        state = _find_state(cfg.resume, Path(cfg.checkpoint_dir), store)
        saved = checkpoint.load(state, checkpoint.STATE)
        _check_steps(state, saved, cfg.train.max_steps)
        cfg = _with_sizes(cfg, saved["architecture"]) if is_gpt else cfg
        defaults = {f"model.{key}": value for key, value in initial_weights.DEFAULTS.items()} if is_gpt else {}
        identity.check_resumable({**defaults, **saved["settings"]}, {**defaults, **identity.relevant_settings(cfg)})
        parent = saved.get("parent", "")
        if (saved["config_hash"], saved.get("code")) == (identity.config_hash(cfg, parent=parent), code):
            return cfg, Start(state=state, parent=parent, is_repeatable=False)
        return cfg, Start(state=state, parent=file_digest(state))
    if cfg.init_from is not None:
        weights = pretrained.load(cfg.init_from, store, is_gpt=is_gpt)
        parent = pretrained.digest(weights.path)
    if is_gpt and weights is not None:
        initial_weights.check_sizes(config.arguments(cfg.model), weights.architecture, f"init_from={cfg.init_from}")
        cfg = _with_sizes(cfg, weights.architecture)
    elif is_gpt:
        initial_weights.check_complete(config.arguments(cfg.model))
    return cfg, Start(weights=weights, parent=parent, is_repeatable=cfg.resume == "auto")


def _with_sizes(cfg: Any, trained: Mapping[str, Any]) -> Any:
    """Return the configuration with the sizes of weights in place of null."""
    sizes = initial_weights.missing_sizes(config.arguments(cfg.model), trained)
    return config.replaced(cfg, "model", sizes) if sizes else cfg


def _find_state(origin: str, folder: Path, store: Store) -> Path:
    """Return the checkpoint of a path or run id to resume from: of an interrupted run, or the kept state of another."""
    if Path(origin).is_dir():
        raise ValueError(
            f"resume={origin} is a folder: name the last.pt of a run, or start from the weights with init_from={origin}"
        )
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
    weights, start.weights = start.weights, None
    if start.is_repeatable and last.exists():
        saved = checkpoint.load(last, checkpoint.STATE)
        changed = [what for what in ("code", "text") if saved.get(what) != facts[what]]
        if not changed:
            return _resume(state, last, saved, facts=facts, max_steps=max_steps, folder=folder)
        notice = (
            f"the {' and the '.join(changed)} changed after this run stopped at step {saved['progress']['step']}: "
            f"a new run starts at step 0, and until it ends, {last.with_name('previous.pt')} is the old checkpoint"
        )
    if start.state is not None:
        saved = checkpoint.load(start.state, checkpoint.STATE)
        origin = _resume(state, start.state, saved, facts=facts, max_steps=max_steps, folder=folder)
        return replace(origin, notice=notice)
    if weights is not None:
        state.restore_weights({"model": _fitted(weights, state.model, facts)})
    return Origin(notice=notice)


def _resume(
    state: TrainState, path: Path, saved: Mapping[str, Any], *, facts: Mapping[str, Any], max_steps: int, folder: Path
) -> Origin:
    """Restore the state of a checkpoint: `saved`, the content of `path`."""
    _check_same(path, saved, facts, ("tokenizer", "splits"))
    _check_steps(path, saved, max_steps)
    try:
        state.restore(saved)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if any(saved.get(key) != facts[key] for key in ("config_hash", "code", "text")):
        state.progress = Progress(step=state.progress.step)  # the best step is to be one of this run
        return Origin(resumed_from=saved["run_id"])
    progress, lost = state.progress, ""
    try:
        checkpoint.load(folder / "best.pt", checkpoint.WEIGHTS)
    except ValueError:  # it was deleted or damaged: evaluate again
        if math.isfinite(progress.best_perplexity) and progress.best_step < progress.step:
            lost = f"evaluations before step {progress.step} do not count: {folder / 'best.pt'} is missing or damaged"
        state.progress = replace(progress, evaluated=0, best_perplexity=math.inf, since_best=0)
    return Origin(is_new=False, run_id=saved["run_id"], lost=lost, n_threads=saved.get("threads"))


def _fitted(weights: Pretrained, model: torch.nn.Module, facts: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return weights for a model. Those of a model of the user must fit as they are."""
    if isinstance(model, GPT):
        return initial_weights.fit(weights, tokenizers.load(facts["tokenizer"]), model.block_size)
    _check_same(weights.path, weights.facts, facts, ("tokenizer",))
    return weights.weights


def _check_steps(path: Path, saved: Mapping[str, Any], max_steps: int) -> None:
    if (step := saved["progress"]["step"]) > max_steps:
        raise ValueError(f"{path} is at step {step}, and train.max_steps={max_steps}: raise train.max_steps")


def _check_same(path: Path, saved: Mapping[str, Any], facts: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if saved[key] != facts[key]:
            raise ValueError(f"{path} was trained on another text ({key} is different): use the same data settings")
