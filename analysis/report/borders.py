"""Best values that lie at the border of the searched space, so that a better value may lie beyond it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.distributions import FloatDistribution, IntDistribution

if TYPE_CHECKING:
    from analysis.report.contenders import Contender

BORDER = 0.05  # of the range of a setting, on its scale


def sentences(contender: "Contender", common: Sequence[str]) -> list[str]:
    """Return a sentence on each setting of the best trial whose value lies at a border: which one, and what to do.

    Args:
        contender: A contender of a comparison.
        common: The settings that were tuned for every contender. Others are set in `hydra.sweeper.spaces`.
    """
    result = []
    for key, value in contender.chosen.params.items() if contender.chosen else ():
        axis = contender.tuning.space[key]
        if isinstance(axis, FloatDistribution | IntDistribution) and (border := side(axis, value)):
            result.append(
                f"{contender.label}: the best {key}, {value:.4g}, lies at the {border} border of its space, "
                f"{axis.low:g} to {axis.high:g}. {_advice(key, axis, border, is_common=key in common)}"
            )
    return result


def side(axis: FloatDistribution | IntDistribution, value: float) -> str:
    """Return "lower" or "upper" if a value lies at this border of an axis, otherwise an empty string."""
    if axis.single():
        return ""
    if isinstance(axis, IntDistribution):
        return {axis.low: "lower", axis.high: "upper"}.get(int(value), "")
    scale = math.log if axis.log else float
    position = (scale(value) - scale(axis.low)) / (scale(axis.high) - scale(axis.low))
    return "lower" if position <= BORDER else "upper" if position >= 1 - BORDER else ""


def _advice(key: str, axis: FloatDistribution | IntDistribution, border: str, *, is_common: bool) -> str:
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
