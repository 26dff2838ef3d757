"""The overrides on the command line of a single run or a sweep, before Hydra composes them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from nanosq import config
from nanosq.errors import InputError

# Groups of which a configuration has one option. Of presets, it may have several.
GROUPS = ("model", "loss", "optimizer", "schedule", "data", "tracking", "hydra/sweeper", "hydra/launcher")
OTHER = list | bool | int | float | None  # types of values that are no name


def prepared(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of run.py, with model=pretrained if init_from names weights and nothing chooses a model.

    A preset may choose a model: nothing is added to `experiment=...`, nor to a sweep that also trains new weights.

    Raises:
        InputError: Something else than a name is chosen from a group. Hydra would not name the group.
    """
    keys, names_weights = set(), False
    for override in _overrides(arguments):
        key, value = override.get_key_element().lstrip("+~"), override.value()
        keys.add(key)
        if key == "init_from":  # values of other keys are not listed here: a range may be endless
            names_weights = all(override.sweep_iterator() if override.is_discrete_sweep() else [value])
        if not key:
            raise InputError(f"{override.input_line} has no key: write KEY=VALUE, as in seed=1")
        if key in GROUPS and not override.is_delete() and isinstance(value, OTHER):
            raise InputError(f"{override.input_line}: {config.choices(key)}")
    is_chosen = not {"model", "model._target_", "experiment"}.isdisjoint(keys)
    return [*arguments, "model=pretrained"] if names_weights and not is_chosen else [*arguments]


def _overrides(arguments: Sequence[str]) -> Iterator[Override]:
    """Yield the overrides among arguments. Others are options, or mistakes that Hydra reports."""
    for argument in arguments:
        with suppress(HydraException):
            yield OverridesParser.create().parse_override(argument)
