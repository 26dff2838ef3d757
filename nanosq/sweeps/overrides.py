"""Overrides on the command line of a sweep: those that only its trials apply, and the seeds of its trials."""

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig

from nanosq.errors import InputError

MULTIRUN = {"-m", "--multirun", "hydra.mode=MULTIRUN"}
HELP = {"-h", "--help", "--hydra-help"}
# A setting of a component: loss.weight=1. Settings of other sections exist whatever components a trial has.
SETTING = re.compile(r"((?:~|\+{0,2})(?:model|loss|optimizer|schedule|data|tracking)(?:\.\w+)+)(?:=.*)?", re.DOTALL)
DEFERRED = "deferred"


def defer(arguments: Sequence[str]) -> list[str]:
    """Return arguments that train such that the settings of components in a sweep are left to its trials.

    Before a sweep, Hydra composes a configuration without the values that overrides list, and so with the default
    components. It would refuse loss.weight=0.01 there, although every trial may choose a loss that has a weight. As a
    list with one item, the text of the override, it is left to the sweeper. `text` returns that item.
    """
    given = {*arguments}
    return [*map(_as_list, arguments)] if given & MULTIRUN and not given & HELP else [*arguments]


def _as_list(argument: str) -> str:
    setting = SETTING.fullmatch(argument)
    try:
        if setting is None or OverridesParser.create().parse_override(argument).is_sweep_override():
            return argument
    except HydraException:  # Hydra reports it
        return argument
    return f"{setting[1]}=tag({DEFERRED}, choice({QuotedString(argument, Quote.double).with_quotes()}))"


def is_axis(override: Override) -> bool:
    """Return whether an override lists or bounds values, and is not a single value that was deferred."""
    return override.is_sweep_override() and _deferred(override) is None


def text(override: Override) -> str:
    """Return an override as it was typed."""
    deferred = _deferred(override)
    assert override.input_line is not None
    return override.input_line if deferred is None else deferred


def _deferred(override: Override) -> str | None:
    value = override.value()
    return str(value.list[0]) if isinstance(value, ChoiceSweep) and DEFERRED in value.tags else None


def key_of(override: Override) -> str:
    """Return the key of an override without the prefixes +, ++ and ~."""
    return str(override.get_key_element().lstrip("+~"))


def take_seeds(parsed: Sequence[Override]) -> tuple[list[Override], tuple[int, ...]]:
    """Return the overrides without one that lists seeds, and these seeds: every trial is trained with all of them.

    Raises:
        InputError: The seed is an axis, but not a list of integers.
    """
    last = {key_of(override): override for override in parsed}.get("seed")
    if last is None or not is_axis(last):
        return [*parsed], ()
    seeds: list[Any] = [*last.sweep_iterator()] if last.is_discrete_sweep() else []
    if not seeds or not all(type(seed) is int for seed in seeds):
        raise InputError(f"{last.input_line}: list the seeds, as in seed=1,2,3, or give their number, as in seeds=3")
    return [override for override in parsed if key_of(override) != "seed"], tuple(dict.fromkeys(seeds))


def seeds_of(cfg: DictConfig, listed: Sequence[int]) -> list[int]:
    """Return the seeds of a trial: those listed, or `cfg.seeds` numbers from `cfg.seed` on.

    Raises:
        InputError: `cfg.seeds` is not positive, or the seeds are both listed and counted.
    """
    if cfg.seeds < 1:
        raise InputError(f"seeds must be at least 1, not {cfg.seeds}")
    if listed and cfg.seeds > 1:
        raise InputError(f"seeds={cfg.seeds} and a list of {len(listed)} seeds: use one of them")
    return [*listed] or [*range(cfg.seed, cfg.seed + cfg.seeds)]
