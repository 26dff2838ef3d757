"""The contenders of a comparison: what the lists on its command line name."""

import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep

from nanosq.errors import InputError
from nanosq.installation import program
from nanosq.privacy import mask_setting
from nanosq.sweeps import overrides

Setting = Mapping[str, str]  # the values of the keys in which contenders differ


@dataclass(frozen=True)
class Entry:
    """The overrides of a comparison, sorted by what they mean."""

    contenders: Mapping[str, Setting]  # by the label of the contender
    fixed: Sequence[str]  # overrides of all contenders
    axes: Sequence[str]  # intervals and ranges, which are tuned
    seeds: Sequence[int]  # of the confirmation, if they are listed
    typed: Sequence[str]  # all overrides, in the order of the command line

    def command(self, hydra_overrides: Iterable[str], config_dirs: Iterable[Path] = ()) -> str:
        """Return the command line, with the overrides of Hydra's own configuration. Passwords in URLs are masked."""
        hydra = [line for line in hydra_overrides if not line.startswith("hydra.mode=")]
        options = [option for path in config_dirs for option in ("--config-dir", str(path))]
        return f"{program()} {shlex.join(map(mask_setting, [*options, '-m', *hydra, *self.typed]))}"


def parse(arguments: Sequence[str]) -> Entry:
    """Parse the overrides of a comparison.

    A list, as `loss=cross_entropy,squentropy`, names contenders; several lists name all combinations. An interval or a
    range is an axis that is tuned. A list of seeds names those of the confirmation.

    Raises:
        InputError: There are fewer than two contenders, or two have the same name.
    """
    typed = OverridesParser.create().parse_overrides([*arguments])
    parsed, seeds = overrides.take_seeds(typed)
    by_key = {overrides.key_of(override): override for override in parsed}  # a later override replaces an earlier one
    axes = [override for override in by_key.values() if overrides.is_axis(override)]
    lists = [override for override in axes if isinstance(override.value(), ChoiceSweep)]
    values = [[(each.get_key_element(), value) for value in each.sweep_string_iterator()] for each in lists]
    settings = [dict(setting) for setting in itertools.product(*values)]
    if len(settings) < 2:
        raise InputError("hydra/sweeper=compare needs two contenders: list them, as in loss=cross_entropy,squentropy")
    labels = [_label(setting) for setting in settings]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"the contender {twice[0]} is listed twice: name each contender once")
    return Entry(
        dict(zip(labels, settings, strict=True)),
        fixed=[overrides.text(override) for override in by_key.values() if override not in axes],
        axes=[overrides.text(override) for override in axes if override not in lists],
        seeds=seeds,
        typed=[overrides.text(override) for override in typed],
    )


def _label(setting: Setting) -> str:
    """Return the name of a contender: the component that it chooses, or the setting with its value."""
    names = (value if "." not in key else f"{key.lstrip('+')}={value}" for key, value in setting.items())
    return " ".join(map(mask_setting, names))
