"""Identity of a trial: the settings that affect the result, the code and the text."""

import hashlib
import inspect
import json
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nanosq import config

if TYPE_CHECKING:
    from nanosq.data.corpus import Corpus

PACKAGE = Path(__file__).resolve().parent
# Settings of where a run computes, what it stores and what it prints. They do not affect its result.
WITHOUT_EFFECT = (
    *("device", "tracking", "cache_dir", "checkpoint_dir", "resume", "samples", "seeds"),
    *("train.log_every", "train.checkpoint_every", "train.keep_last"),
)
# Settings that may change when a run is resumed as another run.
RESUMABLE = ("train.max_steps", "train.eval_every", "train.patience", "train.weights", "train.min_lr_factor")


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
        parent: Digest of the checkpoint file that training starts from, if it starts from one.
    """
    return _digest_of([relevant_settings(cfg), parent])


def code_hash(cfg: Any) -> str:
    """Return a hash of the code that a run depends on, the same in every checkout.

    It is twelve hex digits of all files of this package. If the configuration names components of the user, "+" and
    twelve digits of their modules follow, including the modules of the user from which these import. Installed packages
    do not count.
    """
    named = ((key.rpartition("."), value) for key, value in config.flatten(cfg).items() if affects_result(key))
    targets = (config.get_target(value) for (_, _, name), value in named if name == "_target_")
    own = {module.__name__: _module_hash(module) for module in _own_modules(map(inspect.getmodule, targets))}
    return f"{_package_hash()}+{_digest_of(own)}" if own else _package_hash()


# Both are computed once, because the code of a process does not change when its files do.
@cache
def _package_hash() -> str:
    files = (path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".yaml"})
    return _digest_of({path.relative_to(PACKAGE).as_posix(): _digest(path.read_bytes()) for path in files})


@cache
def _module_hash(module: ModuleType) -> str:
    return _digest(Path(str(module.__file__)).read_bytes())


def _own_modules(modules: Iterable[ModuleType | None]) -> list[ModuleType]:
    """Return the given modules and those that they import, without this package and installed packages."""
    installed = {Path(path).resolve() for path in (*site.getsitepackages(), site.getusersitepackages())}
    installed |= {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    own: dict[str, ModuleType] = {}
    waiting = [*modules]
    while waiting:
        module = waiting.pop()
        file = getattr(module, "__file__", None)
        if module is None or file is None or module.__name__ in own:
            continue
        path = Path(file).resolve()
        if any(path.is_relative_to(folder) for folder in (PACKAGE, *installed)):
            continue
        own[module.__name__] = module
        for value in [*vars(module).values()]:
            name = getattr(value, "__module__", None)
            waiting.append(value if isinstance(value, ModuleType) else sys.modules.get(str(name)))
    return [*own.values()]


def text_identity(corpus: "Corpus") -> dict[str, Any]:
    """Return what tells one text from another: its vocabulary, and the number of tokens and bytes of each split."""
    splits = (corpus.train, corpus.val, corpus.test)
    return {"tokenizer": corpus.tokenizer.state(), "splits": [[len(s.tokens), s.n_bytes] for s in splits]}


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
            raise ValueError(
                f"{key} was {trained.get(key)} in the run to resume and is {now.get(key)}: do not change it"
            )


def _digest_of(facts: object) -> str:
    return _digest(json.dumps(facts, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
