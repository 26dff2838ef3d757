"""Overrides on the command line of a sweep: those that only its trials apply, and the seeds of its trials."""

import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig

from nanosq import signature
from nanosq.error_reports import bad_input
from nanosq.errors import InputError
from nanosq.schema import MAX_SEEDS, Seed

MULTIRUN = {"-m", "--multirun", "hydra.mode=MULTIRUN"}
HELP = {"-h", "--help", "--hydra-help"}
# A setting of a component: loss.weight=1. Settings of other sections exist whatever components a trial has.
SETTING = re.compile(r"((?:~|\+{0,2})(?:model|loss|optimizer|schedule|data|tracking)(?:\.\w+)+)(?:=.*)?", re.DOTALL)
DEFERRED = "deferred"
MAX_POINTS = 10_000  # of a grid, whose trials are all composed before the first one: 0.07 s each
MAX_CHOICES = 10_000  # of a list that a search draws from, which is stored with every trial
MAX_VALUES = 2**53  # of a range; with more, neighbouring numbers would be equal in double precision


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


def count(override: Override, most: int = MAX_VALUES) -> int:
    """Return the number of values that a list or a range has, without making them: a range may be very long.

    Raises:
        InputError: There is no value or more than `most`, or the range is not finite.
    """
    value = override.value()
    if isinstance(value, RangeSweep):
        start, stop, step = (Decimal(str(number)) for number in (value.start, value.stop, value.step))
        if not (start.is_finite() and stop.is_finite() and step.is_finite() and step):
            raise InputError(f"{override.input_line}: give a range a finite start and stop, and a step that is not 0")
        n_values = max(0, math.ceil((stop - start) / step))
    else:
        n_values = sum(1 for _ in override.sweep_iterator()) if override.is_discrete_sweep() else 0
    if not n_values:
        raise InputError(f"{override.input_line} has no value: list the values, or use choice, range or interval")
    if n_values > most:
        raise InputError(f"{override.input_line} has more than {most:,} values: list fewer")
    return n_values


def check_grid(counts: Iterable[int]) -> None:
    """Raise an InputError if a grid whose axes have these numbers of values has too many points."""
    if (n_points := math.prod(counts)) > MAX_POINTS:
        raise InputError(
            f"the grid has {n_points:,} points, and may have {MAX_POINTS:,}: list fewer values, or search with "
            "hydra/sweeper=optuna"
        )


def take_seeds(parsed: Sequence[Override]) -> tuple[list[Override], tuple[int, ...]]:
    """Return the overrides without one that lists seeds, and these seeds: every trial is trained with all of them.

    Raises:
        InputError: The seed is an axis, but not a list of at most MAX_SEEDS integers, or one is out of range.
    """
    last = {key_of(override): override for override in parsed}.get("seed")
    if last is None or not is_axis(last):
        return [*parsed], ()
    seeds: list[Any] = []
    if last.is_discrete_sweep():
        count(last, MAX_SEEDS)
        seeds = [*last.sweep_iterator()]
    if not seeds or not all(type(seed) is int for seed in seeds):
        raise InputError(f"{last.input_line}: list the seeds, as in seed=1,2,3, or give their number, as in seeds=3")
    with bad_input(is_single=False):
        for seed in seeds:
            signature.check_value("seed", seed, Seed)
    return [override for override in parsed if key_of(override) != "seed"], tuple(dict.fromkeys(seeds))


def seeds_of(cfg: DictConfig, listed: Sequence[int]) -> list[int]:
    """Return the seeds of a trial: those listed, or `cfg.seeds` numbers from `cfg.seed` on.

    Raises:
        InputError: The seeds are both listed and counted.
    """
    if listed and cfg.seeds > 1:
        raise InputError(f"seeds={cfg.seeds} and a list of {len(listed)} seeds: use one of them")
    return [*listed] or [*range(cfg.seed, cfg.seed + cfg.seeds)]
