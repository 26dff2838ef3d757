"""From configuration to objects: the root schema, components checked against their signature, one-line errors."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Union, cast, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.utils import get_object
from omegaconf import MISSING, DictConfig, OmegaConf


@dataclass
class Train:
    max_steps: int = MISSING
    batch_size: int = MISSING
    accumulate: int = MISSING
    clip_norm: float | None = MISSING
    warmup: Union[int, float] = MISSING  # noqa: UP007  (OmegaConf does not know int | float)
    min_lr_factor: float = MISSING
    eval_every: int = MISSING
    log_every: int = MISSING
    checkpoint_every: int | None = MISSING
    patience: int | None = MISSING

    def check(self) -> None:
        """ValueError for a number that makes no sense."""
        for key in ("max_steps", "batch_size", "accumulate", "eval_every", "log_every", "checkpoint_every", "patience"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"train.{key} must be at least 1, not {value}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"train.clip_norm must be positive or null, not {self.clip_norm}")
        if self.warmup < 0 or (isinstance(self.warmup, float) and self.warmup >= 1):
            raise ValueError(f"train.warmup must be a number of steps or a fraction in [0, 1), not {self.warmup}")
        if not 0 <= self.min_lr_factor <= 1:
            raise ValueError(f"train.min_lr_factor must be in [0, 1], not {self.min_lr_factor}")

    @property
    def warmup_steps(self) -> int:
        return round(self.warmup * self.max_steps) if isinstance(self.warmup, float) else self.warmup


@dataclass
class Samples:
    count: int = MISSING
    length: int = MISSING
    temperature: float = MISSING
    prompt: str = MISSING

    def check(self) -> None:
        """ValueError for a number that makes no sense."""
        for key in ("count", "length", "temperature"):
            if not getattr(self, key) >= 0:
                raise ValueError(f"samples.{key} must not be negative, not {getattr(self, key)}")


@dataclass
class Config:
    """The root of conf/config.yaml. Components are `Any`: the signature of their target is their schema."""

    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    data: Any = MISSING
    tracking: Any = MISSING
    train: Train = MISSING
    samples: Samples = MISSING
    seed: int = MISSING
    seeds: int = MISSING
    device: str = MISSING
    precision: str = MISSING
    compile: Any = MISSING
    init_from: str | None = MISSING
    resume: str = MISSING
    cache_dir: str = MISSING
    checkpoint_dir: str = MISSING


def register() -> None:
    """Make the schema known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)


def check_component(node: DictConfig, **runtime: Any) -> None:
    """Check the arguments of a component's configuration against the signature of its target.

    `runtime` are the named arguments that the program will add. ValueError names the group, the target and the key.
    """
    group = str(node._get_full_key(None))
    try:
        target = get_target(node._target_)
    except Exception as error:
        raise ValueError(f"{group}._target_: cannot import {node._target_!r}") from error
    name = node._target_.removeprefix("nanosq.")
    given = arguments(node)
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    accepted = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    hints = _hints(target)
    for key, value in given.items():
        if key not in accepted and not open_ended:
            close = get_close_matches(key, accepted, 1)
            suggestion = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(accepted)}"
            raise ValueError(f"{group}.{key}: {name} has no argument {key!r}; {suggestion}")
        if value == "???":
            raise ValueError(f"{group}.{key} is missing: set it on the command line, {group}.{key}=...")
        if key in hints:
            _check_type(f"{group}.{key}", value, hints[key])
    for p in parameters.values():
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in {*given, *runtime}:
            raise ValueError(f"{group}.{p.name} is missing: {name} needs it")


def get_target(path: str) -> Callable[..., Any]:
    """Import the object that a `_target_` names."""
    target: Callable[..., Any] = get_object(path)
    return target


def build(node: DictConfig, *positional: Any, **runtime: Any) -> Any:
    """Check a component's configuration, then instantiate it; with `_partial_: true` the result is a callable."""
    check_component(node, **runtime)
    # Naming a target in the configuration is what makes it trusted.
    built = hydra.utils.instantiate(node, *positional, _execution_whitelist_=(node._target_,), **runtime)
    if isinstance(built, partial):
        # Hydra's own kind asks at every call whether it may: a loss is called thousands of times a second.
        plain = partial(built.func, *built.args, **built.keywords)
        return plain if plain.args or plain.keywords else plain.func
    return built


def load(path: Path) -> Any:
    """The component that a file of conf/ configures, as it stands there."""
    return build(cast(DictConfig, OmegaConf.load(path)))


def arguments(node: DictConfig) -> dict[str, Any]:
    """What a component's configuration says of its target's arguments, as plain values."""
    return {key: value for key, value in _plain(node).items() if not key.startswith("_")}


def settings(node: DictConfig) -> Any:
    """A typed section of the root schema as its dataclass, checked."""
    section = OmegaConf.to_object(node)
    section.check()  # type: ignore[union-attr]
    return section


def task(composed: DictConfig) -> DictConfig:
    """A composed configuration without Hydra's own part: what a job receives."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def flatten(cfg: DictConfig) -> dict[str, Any]:
    """`{"model.n_layer": 4, ...}`: the resolved configuration as it is logged."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                visit(f"{prefix}.{key}" if prefix else str(key), child)
        else:
            flat[prefix] = value

    visit("", _plain(cfg))
    return flat


def _plain(node: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
    except NameError:  # annotations that exist for type checkers only
        return {}


def _check_type(key: str, value: Any, hint: Any) -> None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    try:
        # A configuration is what JSON is: lists stand for tuples, integers for floats, nothing else is converted.
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError(f"{key}: {error.errors()[0]['msg'].lower()}, not {value!r}") from error
