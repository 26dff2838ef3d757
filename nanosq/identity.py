"""Identity of a trial: the settings that affect the result, the code and the text."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanosq import config
from nanosq.installation import CONF, PACKAGE
from nanosq.own_code import own_files

if TYPE_CHECKING:
    from nanosq.data.corpus import Corpus

# Settings of where a run computes, what it stores and what it prints. They do not affect its result.
WITHOUT_EFFECT = (
    *("device", "tracking", "cache_dir", "checkpoint_dir", "resume", "samples", "seeds"),
    *("train.log_every", "train.checkpoint_every", "train.keep_last"),
)
# Settings that may change when a run is resumed as another run.
RESUMABLE = (
    *("train.max_steps", "train.eval_every", "train.patience", "train.weights", "train.min_lr_factor", "score_test"),
)


def affects_result(key: str) -> bool:
    """Return whether a setting, given by its dotted key, can affect the result of a run."""
    return key not in WITHOUT_EFFECT and key.split(".")[0] not in WITHOUT_EFFECT


def relevant_settings(cfg: Any) -> dict[str, Any]:
    """Return the settings that affect the result, as `{dotted key: value}`. 0 and 0.0 are the same setting."""
    kept = {key: value for key, value in config.flatten(cfg).items() if affects_result(key)}
    return {k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in kept.items()}


def config_hash(cfg: Any, *, parent: str = "") -> str:
    """Return twelve hex digits that change with any setting that affects the result.

    Args:
        cfg: The configuration.
        parent: Digest of the file or folder that training starts from, if it starts from one. It takes the place of
            the setting `init_from`, because the same weights may have several names.
    """
    return _digest_of([{**relevant_settings(cfg), "init_from": None}, parent])


def planned_hash(cfg: Any) -> str:
    """Return the `config_hash` of a run of a sweep before its weights are read: their name stands for their digest."""
    return config_hash(cfg, parent=named_state(cfg) or cfg.get("init_from") or "")


def named_state(cfg: Any) -> str:
    """Return the path or run id that `resume` names, or an empty text for a run that starts by itself."""
    return "" if cfg.resume in ("auto", "never") else str(cfg.resume)


def code_hash(cfg: Any) -> str:
    """Return a hash of the code that a run depends on, the same in every checkout and installation.

    It is twelve hex digits of all files of this package. If the configuration names components of the user, "+" and
    twelve digits of their modules follow, including the modules of the user that these import. Installed packages do
    not count.

    Raises:
        ValueError: A component cannot be imported.
    """
    modules: set[str] = set()
    for key, value in config.flatten(cfg).items():
        if key.rpartition(".")[2] == "_target_" and affects_result(key):
            try:
                modules |= {value.rpartition(".")[0], config.get_target(value).__module__}
            except ImportError as error:
                raise ValueError(f"{key}: {error}") from error
    own = {name: _file_hash(path) for name, path in own_files(modules).items()}
    return f"{_package_hash()}+{_digest_of(own)}" if own else _package_hash()


# A file is read once, because the code of a process does not change when the file does.
@cache
def _file_hash(path: Path) -> str:
    return _digest(path.read_bytes())


@cache
def _package_hash() -> str:
    files = (path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".yaml"} and not path.is_relative_to(CONF))
    return _digest_of({path.relative_to(PACKAGE).as_posix(): _file_hash(path) for path in files})


def text_identity(corpus: "Corpus") -> dict[str, Any]:
    """Return the vocabulary, and the size and digest of each split. Names and order of files do not matter."""
    splits = (corpus.train, corpus.val, corpus.test)
    return {"tokenizer": corpus.tokenizer.state(), "splits": [[len(s.tokens), s.n_bytes, s.digest] for s in splits]}


def text_hash(corpus: "Corpus") -> str:
    """Return twelve hex digits of `text_identity`."""
    return _digest_of(text_identity(corpus))


def check_resumable(trained: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a run with the settings `trained` can be resumed with the settings `now`.

    Args:
        trained: The `relevant_settings` of the checkpoint.
        now: The `relevant_settings` of this run.

    Raises:
        ValueError: A setting differs that may not change. The message names it.
    """
    for key in sorted({*trained, *now} - {*RESUMABLE}):
        if trained.get(key) != now.get(key) and not key.startswith("schedule."):
            before, after = (_as_typed(settings.get(key)) for settings in (trained, now))
            raise ValueError(f"{key} was {before} in the run to resume and is now {after}: set it to the old value")


def _as_typed(setting: object) -> object:
    """Return one of `relevant_settings` as a user writes it: 10 and not 10.0."""
    return int(setting) if isinstance(setting, float) and setting.is_integer() else setting


def _digest_of(facts: object) -> str:
    return _digest(json.dumps(facts, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
