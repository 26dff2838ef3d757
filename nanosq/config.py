"""The schema of the configuration, and components that are built from it.

A component is a section with a `_target_`. The signature of its target is its schema: `build` checks the section
against it before it calls the target.
"""

import copy
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, cast, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from nanosq import errors
from nanosq.installation import program
from nanosq.privacy import mask_values
from nanosq.settings import SampleSettings, TrainSettings


@dataclass
class Config:
    """Root of conf/config.yaml. Components have the type Any, as the signature of their target is their schema."""

    model: Any
    loss: Any
    optimizer: Any
    schedule: Any
    data: Any
    tracking: Any
    train: TrainSettings
    samples: SampleSettings
    seed: int
    seeds: int
    score_test: bool
    device: str
    precision: str
    compile: Any
    init_from: str | None
    resume: str
    cache_dir: str
    checkpoint_dir: str


def register() -> None:
    """Register the schema with Hydra, and `${program:}` of the help in conf/config.yaml."""
    ConfigStore.instance().store(name="schema", node=Config, provider="nanosq", replace=True)
    OmegaConf.register_resolver("program", program, replace=True)


def check_component(group: str, node: DictConfig, **runtime: Any) -> None:
    """Check the arguments of a component against the signature of its target.

    Args:
        group: Dotted key of the component, for messages: "loss", "data.source".
        node: Section of the configuration.
        runtime: Keyword arguments that the program will add.

    Raises:
        ValueError: An argument is unknown, missing or of the wrong type. The message names the group and the key.
    """
    try:
        target = get_target(node._target_)
    except ImportError as error:
        raise ValueError(f"{group}._target_: {error}") from error
    name = node._target_.removeprefix("nanosq.")
    configured = arguments(node)
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    accepted = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    hints = _type_hints(target)
    for key, value in configured.items():
        if key not in accepted and not takes_any:
            close = get_close_matches(key, accepted, 1)
            suggestion = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(accepted)}"
            raise ValueError(f"{group}.{key}: {name} has no argument {key!r}; {suggestion}")
        if value == "???":
            raise ValueError(f"{group}.{key} is missing: set it on the command line, {group}.{key}=...")
        if key in hints:
            _check_type(f"{group}.{key}", value, hints[key])
    for p in parameters.values():
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in {*configured, *runtime}:
            raise ValueError(f"{group}.{p.name} is missing: {name} needs it")


def get_target(path: str) -> Callable[..., Any]:
    """Import the function or class that a `_target_` names.

    Raises:
        ImportError: This is impossible. The message says why, on one line.
    """
    try:
        try:
            target = pkgutil.resolve_name(path)
        except AttributeError:
            importlib.import_module(path.rpartition(".")[0])  # if this fails, it is the reason
            raise
    except Exception as error:
        advice = ""
        if isinstance(error, ModuleNotFoundError) and error.name == path.split(".")[0]:
            advice = "; a module of your own must be in the current folder or on PYTHONPATH"
        elif isinstance(error, AttributeError) and (close := get_close_matches(str(error.name), dir(error.obj), 1)):
            advice = f"; did you mean {close[0]!r}?"
        raise ImportError(f"cannot import {path!r}: {errors.reason(error)}{advice}") from error
    if not callable(target):
        raise ImportError(f"{path!r} is of type {type(target).__name__}, not a function or a class")
    return cast(Callable[..., Any], target)


def build(group: str, node: DictConfig, *positional: Any, **runtime: Any) -> Any:
    """Check a component and call its target. With `_partial_: true` the result is a callable.

    Args:
        group: Dotted key of the component, for messages.
        node: Section of the configuration.
        positional: Positional arguments for the target.
        runtime: Keyword arguments for the target that the configuration does not hold.

    Raises:
        ValueError: As for `check_component`.
    """
    check_component(group, node, **runtime)
    # A target that the configuration names is trusted.
    built = hydra.utils.instantiate(node, *positional, _execution_whitelist_=(node._target_,), **runtime)
    if isinstance(built, partial):
        # Hydra's own kind of partial checks its whitelist in every call, and a loss is called very often.
        plain = partial(built.func, *built.args, **built.keywords)
        return plain if plain.args or plain.keywords else plain.func
    return built


def takes(function: Callable[..., Any], argument: str) -> bool:
    """Return whether a component built with `_partial_: true` has a parameter of this name."""
    return argument in inspect.signature(function).parameters


def load(path: Path) -> Any:
    """Build the component that a file of conf/ configures."""
    return build(path.stem, cast(DictConfig, OmegaConf.load(path)))


def arguments(node: DictConfig) -> dict[str, Any]:
    """Return the arguments of a component as plain values."""
    return {key: value for key, value in _plain(node).items() if not key.startswith("_")}


def settings(node: Any) -> Any:
    """Return a typed section as its dataclass, checked."""
    section = OmegaConf.to_object(node)
    section.check()  # type: ignore[union-attr]
    return section


def replaced(cfg: Any, group: str, values: Mapping[str, Any]) -> Any:
    """Return a copy of a configuration with other values in one section."""
    copied = copy.deepcopy(cfg)
    for key, value in values.items():
        OmegaConf.update(copied, f"{group}.{key}", value, force_add=True)
    return copied


def with_pretrained_model(arguments: Sequence[str]) -> list[str]:
    """Return arguments that train, with model=pretrained if init_from names weights and nothing chooses a model.

    A preset may choose a model: nothing is added to `experiment=...`, nor to a sweep that also trains new weights.
    """
    values: dict[str, list[Any]] = {}
    for argument in arguments:
        with suppress(HydraException):  # it is an option, or a mistake that Hydra reports
            override = OverridesParser.create().parse_override(argument)
            listed = override.sweep_iterator() if override.is_discrete_sweep() else [override.value()]
            values[override.get_key_element().lstrip("+~")] = [*listed]
    is_chosen = not {"model", "model._target_", "experiment"}.isdisjoint(values)
    names_weights = all(values.get("init_from", [None]))
    return [*arguments, "model=pretrained"] if names_weights and not is_chosen else [*arguments]


def without_hydra(composed: DictConfig) -> DictConfig:
    """Return a composed configuration without Hydra's own node: what a job receives."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def config_dirs(hydra: Any) -> list[Path]:
    """Return the folder that --config-dir names on the command line, if it does, from the `hydra` node."""
    paths = [Path(source.path) for source in hydra.runtime.config_sources if source.provider == "command-line"]
    return [path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path for path in paths]


def to_yaml(cfg: Any) -> str:
    """Return the resolved configuration as YAML. Passwords in URLs are masked."""
    return OmegaConf.to_yaml(OmegaConf.create(mask_values(_plain(cfg))))


def flatten(cfg: Any) -> dict[str, Any]:
    """Return the resolved configuration by dotted keys: `{"model.n_layer": 4, ...}`. Passwords in URLs are masked."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, child in value.items():
                visit(f"{prefix}.{key}" if prefix else str(key), child)
        else:
            flat[prefix] = value

    visit("", mask_values(_plain(cfg)))
    return flat


def _plain(node: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
    except NameError:  # annotations that exist for type checkers only
        return {}


def _check_type(key: str, value: Any, hint: Any) -> None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    try:
        # JSON has what a configuration has: lists stand for tuples and integers for floats. Nothing else is converted.
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError(f"{key}: {error.errors()[0]['msg'].lower()}, not {value!r}") from error
