"""What a search varies: overrides of the command line as distributions of Optuna."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial


@dataclass(frozen=True)
class Space:
    axes: Mapping[str, BaseDistribution]
    fixed: Sequence[str]  # overrides that all trials have
    conditional: Mapping[tuple[str, str], Mapping[str, BaseDistribution]]  # further axes where (axis, choice) was drawn

    @classmethod
    def parse(
        cls,
        params: Mapping[str, str],
        spaces: Mapping[str, Mapping[str, str]],
        arguments: Sequence[str],
        chosen: Callable[[Sequence[str]], Mapping[str, str]],
    ) -> "Space":
        """The overrides of `params`, replaced or joined by those of the command line.

        spaces: what the choice of a component ("loss/squentropy") adds to `params`.
        chosen: which components the overrides that are no axes select, by their group.
        """

        def parsed(*layers: Mapping[str, str]) -> dict[str, Override]:
            lines = [f"{key}={value}" for layer in layers for key, value in layer.items()]
            overrides = OverridesParser.create().parse_overrides([*lines, *arguments])
            return {override.get_key_element(): override for override in overrides}  # the last of a key counts

        axes, fixed = _split(parsed(params))
        choices = chosen(fixed)
        drawn = {key: axis.choices for key, axis in axes.items() if isinstance(axis, CategoricalDistribution)}
        adds: list[Mapping[str, str]] = []
        conditional = {}
        for component, more in spaces.items():
            group, _, choice = component.partition("/")
            if choice in drawn.get(group, ()):
                also, _ = _split(parsed(params, more))
                conditional[group, choice] = {key: also[key] for key in more if key in also}
            elif group not in drawn and choices.get(group) == choice:
                adds.append(more)
        axes, fixed = _split(parsed(params, *adds))
        return cls(axes, fixed, conditional)

    def overrides(self, trial: Trial) -> list[str]:
        """Those of a trial that has drawn a value on each of the axes; the further ones are drawn here."""
        for (group, choice), further in self.conditional.items():
            if trial.params.get(group) == choice:
                for key, axis in further.items():
                    _suggest(trial, key, axis)
        return self.overrides_of(trial.params)

    def overrides_of(self, params: Mapping[str, Any]) -> list[str]:
        return [*self.fixed, *(f"{key}={'null' if value is None else value}" for key, value in params.items())]

    def varies(self, key: str) -> bool:
        """Whether a setting, by its dotted key, may differ between trials."""
        keys = {*self.axes, *(key for further in self.conditional.values() for key in further)}
        return any(key == axis or key.startswith(f"{axis}.") for axis in keys)


def _split(overrides: Mapping[str, Override]) -> tuple[dict[str, BaseDistribution], list[str]]:
    axes, fixed = {}, []
    for key, override in overrides.items():
        if override.is_sweep_override():
            axes[key.lstrip("+")] = create_optuna_distribution_from_override(override)
        else:
            assert override.input_line is not None
            fixed.append(override.input_line)
    return axes, fixed


def _suggest(trial: Trial, name: str, axis: BaseDistribution) -> None:
    if isinstance(axis, CategoricalDistribution):
        trial.suggest_categorical(name, axis.choices)
    elif isinstance(axis, FloatDistribution):
        trial.suggest_float(name, axis.low, axis.high, step=axis.step, log=axis.log)
    else:
        assert isinstance(axis, IntDistribution)
        trial.suggest_int(name, axis.low, axis.high, step=axis.step, log=axis.log)
