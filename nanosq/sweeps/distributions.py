"""Optuna's distributions of the values that an override lists or bounds, by the rules of hydra-optuna-sweeper."""

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    FloatRange,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Transformer,
)
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from nanosq.sweeps import overrides


def from_override(override: Override) -> BaseDistribution:
    """Return the distribution that an override describes.

    `interval` is continuous, or of integers as `int(interval(1, 9))`; `tag(log, ...)` makes it logarithmic. `range` has
    evenly spaced numbers. Everything else is a choice of values: `choice`, `a,b`, and a range in `shuffle` or `float`.

    Raises:
        ValueError: There is no value, there are too many, or Optuna has no such distribution.
    """
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = cast(float, value.start), cast(float, value.end)
        is_log = "log" in value.tags
        if not math.isfinite(high - low) or low > high or (is_log and low <= 0):
            above = ", above 0 with tag(log, ...)" if is_log else ""
            raise ValueError(f"{override.input_line}: an interval needs finite bounds, the lower one first{above}")
        integers = isinstance(value.start, int) and isinstance(value.end, int)
        distribution: Any = IntDistribution if integers else FloatDistribution
        return cast(BaseDistribution, distribution(value.start, value.end, log="log" in value.tags))
    if not isinstance(value, ChoiceSweep | RangeSweep):
        raise ValueError(f"{override.input_line}: list the values, or use choice, range or interval")
    if isinstance(value, RangeSweep) and not value.shuffle and not value.transformers:
        n_values = overrides.count(override)
        start, step = Decimal(str(value.start)), Decimal(str(value.step))
        first, last = sorted((start, start + (n_values - 1) * step))
        if isinstance(value.range(), range):
            return IntDistribution(int(first), int(last), step=abs(int(step)))
        return FloatDistribution(float(first), float(last), step=abs(float(step)))
    overrides.count(override, overrides.MAX_CHOICES)
    choices: Any = override.sweep_iterator(transformer=Transformer.encode)
    return CategoricalDistribution([*choices])


def grid_points(distribution: BaseDistribution) -> Sequence[Any]:
    """Return all values of a distribution. Raise ValueError if it is continuous, or has too many values for a grid."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        overrides.check_grid([round((distribution.high - distribution.low) / distribution.step) + 1])
        return [*FloatRange(distribution.low, distribution.high, distribution.step), distribution.high]
    raise ValueError("hydra/sweeper/sampler=grid takes choices and ranges of values, not intervals")


def suggest(trial: Trial, name: str, distribution: Any) -> None:
    """Draw the parameter `name` of a trial."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    else:
        draw: Any = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
        draw(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def first_value(distribution: Any) -> Any:
    """Return the first choice or the lower bound of a distribution."""
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low


def largest_value(distribution: Any) -> Any:
    """Return the largest choice or the upper bound of a distribution; the first choice if there is no order."""
    if not isinstance(distribution, CategoricalDistribution):
        return distribution.high
    numbers = [choice for choice in distribution.choices if isinstance(choice, int | float)]
    return max(numbers) if len(numbers) == len(distribution.choices) else distribution.choices[0]


def override_text(value: Any) -> str:
    """Return the text that stands for a drawn value on the right-hand side of an override."""
    if value is None:
        return "null"
    # A list or a mapping is drawn as its text. Quotes would make it a string.
    if isinstance(value, str) and not re.fullmatch(r"[\w./@:+-]+|\[.*\]|\{.*\}", value):
        return QuotedString(value, Quote.single).with_quotes()
    return str(value)


def typed(value: Any) -> Any:
    """Return a value of a configuration. A text becomes the value that it has on the right-hand side of an override."""
    if not isinstance(value, str):
        return value
    try:
        return OverridesParser.create().parse_override(f"key={override_text(value)}").value()
    except HydraException:  # a text that looks like a list or a mapping
        return value


def parameter(distribution: Any, value: Any) -> Any:
    """Return the parameter of a trial that has this value. A number or a choice may be given as a text.

    Raises:
        ValueError: No trial can have this value. The message lists or bounds the values.
    """
    if isinstance(distribution, CategoricalDistribution):
        for choice in distribution.choices:
            if equal(typed(choice), value):
                return choice
        raise ValueError(f"one of {', '.join(map(str, distribution.choices))}")
    number = typed(value)
    low, high, step = distribution.low, distribution.high, distribution.step
    if isinstance(number, int | float) and not isinstance(number, bool) and low <= number <= high:
        n_steps = (number - low) / step if step else 0.0
        if math.isclose(n_steps, round(n_steps), abs_tol=1e-8):
            return int(number) if isinstance(distribution, IntDistribution) else float(number)
    raise ValueError(f"{low} to {high}" + (f" in steps of {step}" if step not in (None, 1) else ""))


def equal(one: Any, other: Any) -> bool:
    """Return whether two values of a configuration are equal. Each may be given as a text."""
    if str(one) == str(other):
        return True
    return not {_plain(one), _plain(typed(one))}.isdisjoint({_plain(other), _plain(typed(other))})


def _plain(value: Any) -> str:
    """Return a text that is the same for equal values: 1 and 1.0 are equal, 1 and true are not."""
    return json.dumps(json.loads(json.dumps(value, default=str), parse_int=float), sort_keys=True)
