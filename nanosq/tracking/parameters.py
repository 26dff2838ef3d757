"""Parameters of runs: the settings of a run in the form in which a store records them and people read them."""

from collections.abc import Iterable, Mapping
from typing import Any

PACKAGE = "nanosq."
UNRECORDED = "tracking"  # the store itself


def readable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run as its parameters: a component is named, as in `loss = squentropy`.

    Older runs have recorded `loss._target_ = nanosq.losses.squentropy` and other keys of Hydra. Their parameters become
    those of a new run.

    Args:
        settings: Settings by dotted key, or the parameters of a run.
    """
    parameters: dict[str, Any] = {}
    for key, value in settings.items():
        group, *names = key.split(".")
        if group == UNRECORDED:
            continue
        if names and names[-1] == "_target_":
            # The last part of the name of a component of this package, and the whole name of any other.
            parameters[key.rpartition(".")[0]] = value.rpartition(".")[2] if value.startswith(PACKAGE) else value
        elif not any(name.startswith("_") for name in names):
            parameters[key] = value
    return parameters


def belongs(key: str, groups: Iterable[str]) -> bool:
    """Return whether a key is one of these keys and groups of keys, or lies in one of these groups."""
    return any(key == group or key.startswith(f"{group}.") for group in groups)
