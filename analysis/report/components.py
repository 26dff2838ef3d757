"""The components of a setting, in which settings are compared: loss, optimizer, schedule and model."""

from collections.abc import Mapping, Sequence

from analysis.recorded_run import normal
from analysis.report.grid_trials import short
from analysis.runs import RecordedSetting, differing
from nanosq.tracking.parameters import belongs

COMPONENTS = ("loss", "optimizer", "schedule", "model")


def name(params: Mapping[str, str], component: str) -> str:
    """Return the name of a component: that of a class or function of nanosq or torch, or the full name of another."""
    return params.get(component, "unknown").removeprefix("torch.optim.")


def own(params: Mapping[str, str], component: str) -> dict[str, str]:
    """Return the own parameters of a component, by name: weight for loss.weight."""
    prefix = f"{component}."
    return {key.removeprefix(prefix): normal(params[key]) for key in sorted(params) if key.startswith(prefix)}


def compared(settings: Sequence[RecordedSetting]) -> list[str]:
    """Return what settings compare: the only component or key in which they differ, or else the loss if it differs."""
    keys = differing([setting.params for setting in settings])
    for component in COMPONENTS:
        if keys and all(belongs(key, [component]) for key in keys):
            return [component]
    return keys if len(keys) == 1 else ["loss"] if "loss" in keys else []


def labels(settings: Sequence[RecordedSetting], component: str = "loss") -> list[str]:
    """Return the name of the component of each setting, with its parameters in which settings of this name differ.

    Settings that differ only otherwise are told apart by a letter. Instead of a component, it may be any other key.
    """
    if component not in COMPONENTS:
        return [f"{component}={setting.params.get(component, 'none')}" for setting in settings]
    result = []
    for setting in settings:
        same = [other for other in settings if name(other.params, component) == name(setting.params, component)]
        keys = differing([own(other.params, component) for other in same])
        values = own(setting.params, component)
        result.append(" ".join([name(setting.params, component), *(f"{k}={short(values.get(k))}" for k in keys)]))
    return [f"{label} {chr(ord('A') + i)}" if result.count(label) > 1 else label for i, label in enumerate(result)]


def enumeration(words: Sequence[str]) -> str:
    """Return words as a clause lists them: a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
