"""What a search varies: overrides of the command line as distributions of Optuna."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial


@dataclass(frozen=True)
class Part:
    """Some overrides, by their key without a prefix: axes to draw from, and lines that stay as they are."""

    axes: Mapping[str, BaseDistribution]
    fixed: Mapping[str, str]
    prefixes: Mapping[str, str]  # + or ++ of an axis, where it has one

    @classmethod
    def parse(cls, *layers: Mapping[str, str], arguments: Sequence[str] = ()) -> "Part":
        """Of each key the last counts."""
        lines = [f"{key}={value}" for layer in layers for key, value in layer.items()]
        overrides: dict[str, Override] = {}
        for override in OverridesParser.create().parse_overrides([*lines, *arguments]):
            overrides[override.get_key_element().lstrip("+~")] = override
        axes = {key: each for key, each in overrides.items() if each.is_sweep_override()}
        return cls(
            {key: create_optuna_distribution_from_override(each) for key, each in axes.items()},
            {key: str(each.input_line) for key, each in overrides.items() if key not in axes},
            {key: each.get_key_element().removesuffix(key) for key, each in axes.items()},
        )


@dataclass(frozen=True)
class Space:
    always: Part
    conditional: Mapping[tuple[str, str], Part]  # what takes part where (axis, choice) was drawn

    @classmethod
    def parse(
        cls,
        params: Mapping[str, str],
        spaces: Mapping[str, Mapping[str, str]],
        arguments: Sequence[str],
        chosen: Callable[[Sequence[str]], Mapping[str, str]],
    ) -> "Space":
        """The overrides of `params`, replaced or joined by those of the command line.

        spaces: what the choice of a component ("loss/squentropy") adds to `params`, or replaces there.
        chosen: which components the overrides that are no axes select, by their group.
        """
        given = Part.parse(arguments=arguments)
        told = {*given.axes, *given.fixed}
        base = Part.parse(params, arguments=arguments)
        choices = chosen([*base.fixed.values()])
        drawn = {key: axis.choices for key, axis in base.axes.items() if isinstance(axis, CategoricalDistribution)}
        adds: list[Mapping[str, str]] = []
        conditional: dict[tuple[str, str], Part] = {}
        for component, more in spaces.items():
            group, _, choice = component.partition("/")
            if choice in drawn.get(group, ()):
                conditional[group, choice] = Part.parse({key: each for key, each in more.items() if key not in told})
            elif group not in drawn and choices.get(group) == choice:
                adds.append(more)
        return cls(Part.parse(params, *adds, arguments=arguments), conditional)

    @property
    def axes(self) -> dict[str, BaseDistribution]:
        """Those that every trial draws from, each in the same way."""
        replaced = {key for part in self.conditional.values() for key in (*part.axes, *part.fixed)}
        return {key: axis for key, axis in self.always.axes.items() if key not in replaced}

    @property
    def fixed(self) -> list[str]:
        """The overrides that all trials have."""
        return [*self.always.fixed.values()]

    def overrides(self, trial: Trial) -> list[str]:
        """Those of a trial that has drawn from `axes`; from what depends on that, it draws here."""
        for key, axis in self._depending(trial.params).items():
            _suggest(trial, key, axis)
        return self.overrides_of(trial.params)

    def overrides_of(self, params: Mapping[str, Any]) -> list[str]:
        lines = dict(self.always.fixed)
        for part in self._drawn(params):
            lines |= part.fixed
        prefixes = dict(self.always.prefixes)
        return [*lines.values(), *(f"{prefixes.get(key, '')}{key}={_text(value)}" for key, value in params.items())]

    def example(self) -> list[str]:
        """The overrides of a trial that might be drawn."""
        params = {key: _first(axis) for key, axis in self.axes.items()}
        return self.overrides_of(params | {key: _first(axis) for key, axis in self._depending(params).items()})

    def varies(self, key: str) -> bool:
        """Whether a setting, by its dotted key, may differ between trials."""
        axes = {*self.always.axes, *(each for part in self.conditional.values() for each in (*part.axes, *part.fixed))}
        return any(key == axis or key.startswith(f"{axis}.") for axis in axes)

    def _drawn(self, params: Mapping[str, Any]) -> list[Part]:
        return [part for (group, choice), part in self.conditional.items() if params.get(group) == choice]

    def _depending(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """The axes besides `axes` of a trial that has drawn these."""
        depending = {key: axis for key, axis in self.always.axes.items() if key not in self.axes}
        for part in self._drawn(params):
            depending = {key: axis for key, axis in depending.items() if key not in part.fixed} | dict(part.axes)
        return depending


def _suggest(trial: Trial, name: str, axis: BaseDistribution) -> None:
    if isinstance(axis, CategoricalDistribution):
        trial.suggest_categorical(name, axis.choices)
    elif isinstance(axis, FloatDistribution):
        trial.suggest_float(name, axis.low, axis.high, step=axis.step, log=axis.log)
    else:
        assert isinstance(axis, IntDistribution)
        trial.suggest_int(name, axis.low, axis.high, step=axis.step, log=axis.log)


def _first(axis: BaseDistribution) -> Any:
    if isinstance(axis, CategoricalDistribution):
        return axis.choices[0]
    assert isinstance(axis, FloatDistribution | IntDistribution)
    return axis.low


def _text(value: Any) -> str:
    """A value as an override has it."""
    if value is None:
        return "null"
    if isinstance(value, str) and not re.fullmatch(r"[\w./@:+-]+", value):
        escaped = value.replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
