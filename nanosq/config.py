"""Components that are built from the configuration, and its sections as plain values.

A component is a section with a `_target_`. The signature of its target is its schema: `build` checks the section
against it before it calls the target.
"""

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from nanosq import component_errors, errors, signature
from nanosq.installation import CONF
from nanosq.privacy import mask_values
from nanosq.signals import Terminated
from nanosq.suggestion import closest


def choices(group: str) -> str:
    """Return a sentence with the options of a group, such as "loss" or "hydra/sweeper", that this program has."""
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return f"choose {group}={', '.join(names[:-1])} or {names[-1]}" if names else "name a _target_"


def check_shape(group: str, node: Any) -> None:
    """Raise a ValueError if a section is no component: a mapping with the name of a target."""
    target = node.get("_target_") if OmegaConf.is_dict(node) else None
    if not isinstance(target, str) or not target:
        key, value = (f"{group}._target_", target) if OmegaConf.is_dict(node) else (group, node)
        folder = group.replace(".", "/") if group.startswith("hydra.") else group.split(".")[0]
        raise ValueError(f"{key}={'null' if value is None else value} is no component: {choices(folder)}")


def check_component(group: str, node: DictConfig, **runtime: Any) -> None:
    """Check the arguments of a component against the signature of its target.

    Args:
        group: Dotted key of the component, for messages: "loss", "data.source".
        node: Section of the configuration.
        runtime: Keyword arguments that the program will add.

    Raises:
        ValueError: As for `signature.check_arguments`, or the target cannot be imported.
    """
    check_shape(group, node)
    name = node._target_.removeprefix("nanosq.")
    signature.check_arguments(group, _target_of(group, node), arguments(node), name=name, given=runtime)


def check_axes(cfg: DictConfig, axes: Iterable[str]) -> None:
    """Check the values of axes of a sweep that are arguments of components, in the configuration of one of its trials.

    Raises:
        ValueError: As for `signature.check_values`, or a target cannot be imported.
    """
    for axis in axes:
        group, _, key = axis.rpartition(".")
        node = OmegaConf.select(cfg, group) if group else None
        if isinstance(node, DictConfig) and "_target_" in node and arguments(node).get(key) is not None:
            name = node._target_.removeprefix("nanosq.")
            signature.check_values(group, _target_of(group, node), {key: arguments(node)[key]}, name=name)


def _target_of(group: str, node: DictConfig) -> Callable[..., Any]:
    """Import the target of a component. A ValueError for one that cannot be imported names its key."""
    try:
        return get_target(node._target_)
    except ImportError as error:
        raise ValueError(f"{group}._target_: {error}") from error


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
    except component_errors.FAILURES as error:
        if isinstance(error, Terminated):
            raise
        advice = ""
        if isinstance(error, ModuleNotFoundError) and error.name == path.split(".")[0]:
            advice = "; a module of your own must be in the current folder or on PYTHONPATH"
        elif isinstance(error, AttributeError):
            advice = closest(error.name, dir(error.obj))
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
        ValueError: As for `check_component`, or the target has raised an error.
    """
    check_component(group, node, **runtime)
    if not node.get("_partial_"):
        signature.check_call(group, get_target(node._target_), *positional, **arguments(node), **runtime)
    with component_errors.calling(node._target_):
        try:
            # A target that the configuration names is trusted.
            built = hydra.utils.instantiate(node, *positional, _execution_whitelist_=(node._target_,), **runtime)
        except InstantiationException as error:
            if error.__cause__ is None:
                raise errors.InputError(f"Hydra does not call {node._target_}: it could run any program") from None
            raise error.__cause__ from None  # Hydra repeats the error of the target in several lines
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
