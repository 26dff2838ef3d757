"""Identity of a trial: the settings that affect the result, the code and the text."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanosq import config

if TYPE_CHECKING:
    from nanosq.data.corpus import Corpus

# Settings of where a run computes, what it stores and what it prints. They do not affect its result.
WITHOUT_EFFECT = (
    *("device", "tracking", "cache_dir", "checkpoint_dir", "resume", "samples", "seeds"),
    *("train.log_every", "train.checkpoint_every"),
)
# Settings that may change when a run is resumed.
RESUMABLE = ("train.max_steps", "train.eval_every", "train.patience")


def affects_result(key: str) -> bool:
    """Return whether a setting, given by its dotted key, can affect the result of a run."""
    return key not in WITHOUT_EFFECT and key.split(".")[0] not in WITHOUT_EFFECT


def relevant_settings(cfg: Any) -> dict[str, Any]:
    """Return the settings that affect the result, as `{dotted key: value}`. 0 and 0.0 are the same setting."""
    kept = {key: value for key, value in config.flatten(cfg).items() if affects_result(key)}
    return {k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in kept.items()}


def config_hash(cfg: Any) -> str:
    """Return twelve hex digits that change with any setting that affects the result."""
    return _digest(json.dumps(relevant_settings(cfg), sort_keys=True).encode())


def code_hash(cfg: Any) -> str:
    """Return twelve hex digits that change with any file of the package, or with a file that defines a component."""
    targets = [value for key, value in config.flatten(cfg).items() if key.split(".")[-1] == "_target_"]
    modules = [inspect.getmodule(config.get_target(target)) for target in targets]
    files = {Path(module.__file__) for module in modules if module is not None and module.__file__ is not None}
    files |= {path for path in Path(__file__).parent.rglob("*") if path.suffix in {".py", ".yaml"}}
    return _digest(b"".join(path.read_bytes() for path in sorted(files)))


def text_identity(corpus: "Corpus") -> dict[str, Any]:
    """Return what tells one text from another: its vocabulary, and the size and digest of each split.

    The names, places and order of the files have no part in it.
    """
    splits = (corpus.train, corpus.val, corpus.test)
    return {"tokenizer": corpus.tokenizer.state(), "splits": [[len(s.tokens), s.n_bytes, s.digest] for s in splits]}


def text_hash(corpus: "Corpus") -> str:
    """Return twelve hex digits of `text_identity`."""
    return _digest(json.dumps(text_identity(corpus), sort_keys=True).encode())


def check_resumable(trained: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a run with the settings `trained` can be resumed with the settings `now`.

    Args:
        trained: The `relevant_settings` of the checkpoint.
        now: The `relevant_settings` of this run.

    Raises:
        ValueError: A setting differs that may not change. The message names it.
    """
    for key in sorted({*trained, *now} - {*RESUMABLE}):
        if trained.get(key) != now.get(key):
            raise ValueError(
                f"{key} was {trained.get(key)} in the run to resume and is {now.get(key)}: do not change it"
            )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
