"""Best values that lie at the border of the searched space, so that a better value may lie beyond it."""

import math
from typing import TYPE_CHECKING

from optuna.distributions import FloatDistribution, IntDistribution

if TYPE_CHECKING:
    from analysis.report.contenders import Comparison

Axis = FloatDistribution | IntDistribution
BORDER = 0.05  # of the range of a setting, on its scale


def sentences(comparison: "Comparison") -> list[str]:
    """Return a sentence on each border at which a best value of the contenders lies: which one, and what to do."""
    at_border: dict[tuple[str, str, Axis], list[str]] = {}
    for contender in comparison.contenders:
        for key, value in contender.chosen.params.items() if contender.chosen else ():
            axis = contender.tuning.space[key]
            if isinstance(axis, Axis) and (border := side(axis, value)):
                at_border.setdefault((key, border, axis), []).append(f"{value:.4g} of {contender.label}")
    return [
        f"The best {key} lies at the {border} border of its space, {axis.low:g} to {axis.high:g}: {', '.join(values)}. "
        f"{_advice(key, axis, border, is_common=key in comparison.common_axes)}"
        for (key, border, axis), values in at_border.items()
    ]


def side(axis: Axis, value: float) -> str:
    """Return "lower" or "upper" if a value lies at this border of an axis, otherwise an empty string."""
    if axis.single():
        return ""
    if isinstance(axis, IntDistribution):
        return {axis.low: "lower", axis.high: "upper"}.get(int(value), "")
    scale = math.log if axis.log else float
    position = (scale(value) - scale(axis.low)) / (scale(axis.high) - scale(axis.low))
    return "lower" if position <= BORDER else "upper" if position >= 1 - BORDER else ""


def _advice(key: str, axis: Axis, border: str, *, is_common: bool) -> str:
    is_integer, low, high = isinstance(axis, IntDistribution), axis.low, axis.high
    if border == "lower" and low in (0, int(is_integer)):  # one layer, for example
        return "If it cannot be lower, there is nothing to do."
    if border == "upper":
        high = high * 10 if axis.log else high + (high - low)
    else:
        low = low / 10 if axis.log else low - (high - low)
        low = max(low, float(is_integer)) if axis.low > 0 else low
    if is_integer and not axis.log:
        wider = f"range({low:.0f},{high + 1:.0f})"
    else:
        wider = f"int(interval({low:.0f},{high:.0f}))" if is_integer else f"interval({_float(low)},{_float(high)})"
    wider = f"tag(log, {wider})" if axis.log else wider
    where = f"'{key}={wider}'" if is_common else f'{key}: "{wider}" in hydra.sweeper.spaces'
    return f"A better value may lie beyond it. Compare with a wider space: {where}."


def _float(value: float) -> str:
    """Return a number that Hydra's grammar reads as a float."""
    text = f"{value:.4g}"
    return text if "." in text or "e" in text else f"{text}.0"
