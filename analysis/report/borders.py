"""Best values that lie at the border of the searched space, so that a better value may lie beyond it."""

import math

from optuna.distributions import FloatDistribution, IntDistribution

from analysis.report.contenders import Comparison

Axis = FloatDistribution | IntDistribution
BORDER = 0.05  # of the range of a setting, on its scale


def sentences(comparison: Comparison) -> list[str]:
    """Return a sentence on each border at which a best value of the contenders lies: which one, and what to do."""
    at_border: dict[tuple[str, str, str, Axis], list[str]] = {}
    for contender in comparison.contenders:
        for key, value in contender.chosen.params.items() if contender.chosen else ():
            axis, group = contender.tuning.space[key], key.split(".")[0]
            if isinstance(axis, Axis) and (border := side(axis, value)):
                is_own = key not in comparison.common_axes and group in contender.setting
                component = f"{group}/{contender.setting[group]}" if is_own else ""
                values = at_border.setdefault((key, component, border, axis), [])
                values.append(f"{value:.4g} of {contender.label}")
    return [
        f"The best {key} lies at the {border} border of its space, {axis.low:g} to {axis.high:g}: {', '.join(values)}. "
        f"{_advice(key, component, axis, border)}"
        for (key, component, border, axis), values in at_border.items()
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


def wider(axis: Axis, border: str) -> str:
    """Return a space that is wider at a border, as an override; empty if most settings have no value beyond it."""
    is_integer, low, high = isinstance(axis, IntDistribution), axis.low, axis.high
    if border == "lower" and low in (0, int(is_integer)):  # one layer, for example
        return ""
    if border == "upper":
        high = high * 10 if axis.log else high + (high - low)
    else:
        low = low / 10 if axis.log else low - (high - low)
        low = max(low, float(is_integer)) if axis.low > 0 else low
    if is_integer and not axis.log:
        text = f"range({low:.0f},{high + 1:.0f})"
    else:
        text = f"int(interval({low:.0f},{high:.0f}))" if is_integer else f"interval({_float(low)},{_float(high)})"
    return f"tag(log, {text})" if axis.log else text


def _advice(key: str, component: str, axis: Axis, border: str) -> str:
    """Return what to do about a border. A component such as loss/squentropy is the only one that has this setting."""
    if not (space := wider(axis, border)):
        return f"If {axis.low:g} is the lowest possible value, there is nothing to do."
    own = f"\"hydra.sweeper.spaces={{{component}:{{{key}:'{space}'}}}}\""
    return (
        f"A better value may lie beyond it. Compare with a wider space: {own if component else repr(f'{key}={space}')}"
    )


def _float(value: float) -> str:
    """Return a number that Hydra's grammar reads as a float."""
    text = f"{value:.4g}"
    return text if "." in text or "e" in text else f"{text}.0"
