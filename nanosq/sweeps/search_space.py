"""The space that a search draws from: axes with a distribution, fixed overrides, and parts that depend on a choice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import Trial

from nanosq.sweeps import distributions, overrides


@dataclass(frozen=True)
class ParsedOverrides:
    """Overrides by their key, without the prefix + or ++: axes to draw from, and lines that stay as they are."""

    axes: Mapping[str, BaseDistribution]
    fixed: Mapping[str, str]
    prefixes: Mapping[str, str]  # of the axes
    seeds: Sequence[int] = ()  # that an override of `seed` lists: every trial is trained with all of them

    @classmethod
    def parse(cls, *layers: Mapping[str, str], arguments: Sequence[str] = ()) -> "ParsedOverrides":
        """Parse mappings of keys to values, then command-line arguments. The last override of a key replaces others."""
        lines = [f"{key}={value}" for layer in layers for key, value in layer.items()]
        by_key: dict[str, Override] = {}
        parsed, seeds = overrides.take_seeds(OverridesParser.create().parse_overrides([*lines, *arguments]))
        for override in parsed:
            by_key[overrides.key_of(override)] = override
        axes = {key: override for key, override in by_key.items() if overrides.is_axis(override)}
        return cls(
            {key: distributions.from_override(override) for key, override in axes.items()},
            {key: overrides.text(override) for key, override in by_key.items() if key not in axes},
            {key: override.get_key_element().removesuffix(key) for key, override in axes.items()},
            seeds,
        )

    @property
    def components(self) -> list[str]:
        """The fixed overrides that choose components: a setting inside a component has a dot in its key."""
        return [line for key, line in self.fixed.items() if "." not in key]

    @property
    def choices(self) -> dict[str, CategoricalDistribution]:
        """The axes that choose between components."""
        axes = self.axes.items()
        return {key: axis for key, axis in axes if isinstance(axis, CategoricalDistribution) and "." not in key}


@dataclass(frozen=True)
class SearchSpace:
    """The overrides of every trial, and those of trials that draw a certain component."""

    always: ParsedOverrides
    conditional: Mapping[tuple[str, str], ParsedOverrides]  # by (group, choice): ("loss", "squentropy")

    @classmethod
    def parse(
        cls,
        params: Mapping[str, str],
        spaces: Mapping[str, Mapping[str, str]],
        arguments: Sequence[str],
        choices_of: Callable[[Sequence[str]], Mapping[str, str]],
    ) -> "SearchSpace":
        """Parse a configured space and the command line, which replaces and adds overrides.

        Args:
            params: The overrides of every trial, as values by their key.
            spaces: What the choice of a component ("loss/squentropy") adds to `params` or replaces there.
            arguments: The overrides of the command line.
            choices_of: A function that returns the component of each group under the overrides given to it.
        """
        typed = ParsedOverrides.parse(arguments=arguments)
        base = ParsedOverrides.parse(params, arguments=arguments)
        choices = choices_of(base.components)
        drawn = {key: axis.choices for key, axis in base.choices.items()}
        additions: list[Mapping[str, str]] = []
        conditional: dict[tuple[str, str], ParsedOverrides] = {}
        for component, space in spaces.items():
            group, _, choice = component.partition("/")
            if "seed" in space:
                raise ValueError(
                    f"hydra.sweeper.spaces: the seed of {component} cannot differ from that of other trials"
                )
            if choice in drawn.get(group, ()):
                conditional[group, choice] = ParsedOverrides.parse(
                    {key: value for key, value in space.items() if key not in {*typed.axes, *typed.fixed}}
                )
            elif group not in drawn and choices.get(group) == choice:
                additions.append(space)
        return cls(ParsedOverrides.parse(params, *additions, arguments=arguments), conditional)

    @property
    def axes(self) -> dict[str, BaseDistribution]:
        """The axes that every trial draws from, independently of what else it draws."""
        conditional = {key for part in self.conditional.values() for key in (*part.axes, *part.fixed)}
        return {key: axis for key, axis in self.always.axes.items() if key not in conditional}

    def draw(self, trial: Trial) -> list[str]:
        """Return the overrides of a trial that has drawn `axes`. Draw the axes that depend on the result."""
        for key, axis in self.dependent_axes(trial.params).items():
            distributions.suggest(trial, key, axis)
        return self.overrides(trial.params)

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial that has drawn `params`."""
        lines = dict(self.always.fixed)
        for part in self._drawn_parts(params):
            lines |= part.fixed
        prefixes = self.always.prefixes
        drawn = (f"{prefixes.get(key, '')}{key}={distributions.override_text(value)}" for key, value in params.items())
        return [*lines.values(), *drawn]

    def examples(self, *, largest: bool = False) -> dict[str, list[str]]:
        """Return the overrides of example trials, by the components that they choose.

        Every choice of a component occurs. Other axes have their first value, or the largest one.
        """
        value = distributions.largest_value if largest else distributions.first_value
        first = {key: value(axis) for key, axis in self.axes.items()}
        components = {key: axis for key, axis in self.always.choices.items() if key in first}
        others = ({**first, key: choice} for key, axis in components.items() for choice in axis.choices[1:])
        examples = {}
        for params in (first, *others):
            dependent = {key: value(axis) for key, axis in self.dependent_axes(params).items()}
            examples[" ".join(f"{key}={params[key]}" for key in components)] = self.overrides(params | dependent)
        return examples

    @property
    def all_axes(self) -> set[str]:
        """The keys of the axes that some trials draw from."""
        return {*self.always.axes, *(axis for part in self.conditional.values() for axis in part.axes)}

    @property
    def varied(self) -> set[str]:
        """The keys that some trials override with other values than others."""
        return self.all_axes | {key for part in self.conditional.values() for key in part.fixed}

    def varies(self, key: str) -> bool:
        """Return whether a setting, given by its dotted key, may differ between trials."""
        in_axis = key not in self.always.fixed and any(key.startswith(f"{axis}.") for axis in self.varied)
        return key in self.varied or in_axis

    def _drawn_parts(self, params: Mapping[str, Any]) -> list[ParsedOverrides]:
        return [part for (group, choice), part in self.conditional.items() if params.get(group) == choice]

    def dependent_axes(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Return the axes that a trial with these parameters has besides `axes`."""
        dependent = {key: axis for key, axis in self.always.axes.items() if key not in self.axes}
        for part in self._drawn_parts(params):
            dependent = {key: axis for key, axis in dependent.items() if key not in part.fixed} | dict(part.axes)
        return dependent
