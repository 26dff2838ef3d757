"""The contenders of a comparison: what the lists on its command line name."""

import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override

from nanosq.errors import InputError
from nanosq.privacy import mask
from nanosq.sweeps import overrides


@dataclass(frozen=True)
class ContenderSetting:
    """One of the settings that are compared."""

    label: str
    setting: Mapping[str, str]  # the values of the keys in which contenders differ

    @property
    def overrides(self) -> list[str]:
        """The overrides that make the contender."""
        return [f"{key}={value}" for key, value in self.setting.items()]


@dataclass(frozen=True)
class Entry:
    """The overrides of a comparison, sorted by what they mean."""

    contenders: Sequence[ContenderSetting]
    fixed: Sequence[str]  # overrides of all contenders
    axes: Sequence[str]  # intervals and ranges, which are tuned
    seeds: Sequence[int]  # of the confirmation, if they are listed

    def command(self, hydra_overrides: Iterable[str], config_sources: Iterable[Any] = ()) -> str:
        """Return the command line. Passwords in URLs are masked.

        Args:
            hydra_overrides: The overrides of Hydra's own configuration.
            config_sources: Hydra's sources of configurations; that of --config-dir is a part of the command.
        """
        folders = (source.path for source in config_sources if source.provider == "command-line")
        options = [text for folder in folders for text in ("--config-dir", folder)]
        hydra = [line for line in hydra_overrides if not line.startswith("hydra.mode=")]
        lists: dict[str, dict[str, None]] = {}
        for contender in self.contenders:
            for key, value in contender.setting.items():
                lists.setdefault(key, {})[value] = None
        swept = [f"{key}={','.join(values)}" for key, values in lists.items()]
        seeds = [f"seed={','.join(map(str, self.seeds))}"] if self.seeds else []
        return mask(f"python run.py -m {shlex.join([*options, *hydra, *swept, *seeds, *self.fixed, *self.axes])}")


def parse(arguments: Sequence[str]) -> Entry:
    """Parse the overrides of a comparison.

    A list, as `loss=cross_entropy,squentropy`, names contenders; several lists name all combinations. An interval or a
    range is an axis that is tuned. A list of seeds are those of the confirmation.

    Raises:
        InputError: There are fewer than two contenders, or two have the same name.
    """
    parsed, seeds = overrides.take_seeds(OverridesParser.create().parse_overrides([*arguments]))
    by_key = {overrides.key_of(override): override for override in parsed}  # a later override replaces an earlier one
    lists = {key: override for key, override in by_key.items() if _is_list(override)}
    values = [[(override.get_key_element(), value) for value in _values(override)] for override in lists.values()]
    contenders = [ContenderSetting(_label(setting), dict(setting)) for setting in itertools.product(*values)]
    if len(contenders) < 2:
        raise InputError("hydra/sweeper=compare needs two contenders: list them, as in loss=cross_entropy,squentropy")
    labels = [contender.label for contender in contenders]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"the contender {twice[0]} is listed twice: name each contender once")
    rest = [override for key, override in by_key.items() if key not in lists]
    return Entry(
        contenders,
        fixed=[overrides.text(override) for override in rest if not overrides.is_axis(override)],
        axes=[str(override.input_line) for override in rest if overrides.is_axis(override)],
        seeds=seeds,
    )


def _is_list(override: Override) -> bool:
    return overrides.is_axis(override) and isinstance(override.value(), ChoiceSweep)


def _values(override: Override) -> list[str]:
    return [*override.sweep_string_iterator()]


def _label(setting: Sequence[tuple[str, str]]) -> str:
    """Return the name of a contender: the component that it chooses, or the setting with its value."""
    return " ".join(value if "." not in key else f"{key.lstrip('+')}={value}" for key, value in setting)
