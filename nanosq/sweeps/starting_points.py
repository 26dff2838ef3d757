"""Starting points: settings that a search tries before it draws others, as parameters of its space."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from optuna.samplers import BaseSampler, GridSampler

from nanosq import config, identity
from nanosq.errors import InputError
from nanosq.suggestion import closest
from nanosq.sweeps import distributions
from nanosq.sweeps.launching import TrialLauncher
from nanosq.sweeps.search_space import SearchSpace
from nanosq.tracking.parameters import belongs, readable

logger = logging.getLogger(__name__)

KEY = "hydra.sweeper.enqueue"
CURRENT, AS_IT_STANDS = "current", "the configuration as it stands"  # without the axes of the search
UNCOMPARED = ("seed", "train.max_steps", "train.eval_every")  # settings that a sweep is expected to change


@dataclass(frozen=True)
class StartingPoint:
    """A setting to try."""

    name: str  # as the user has written it
    params: Mapping[str, Any]

    def __str__(self) -> str:
        return AS_IT_STANDS if self.name == CURRENT else self.name


class OutsideError(InputError):
    """A space does not contain a setting."""


class StartingPoints:
    """Finds starting points in a space. The label is the name of the search, if there are several."""

    def __init__(self, space: SearchSpace, sampler: BaseSampler, sweeper: TrialLauncher, *, label: str = "") -> None:
        self._space, self._is_grid, self._sweeper = space, isinstance(sampler, GridSampler), sweeper
        self._is_one_of_several, self._prefix = bool(label), f"{label}: " if label else ""

    def find(self, items: Sequence[Any]) -> list[StartingPoint]:
        """Return the starting points that the items describe.

        Args:
            items: CURRENT, names of presets, ids of runs, and mappings of axes to values. CURRENT is left out, with a
                line in the log, if the space does not contain it. So are other items if there are several searches.

        Raises:
            InputError: An item is unknown, or the space does not contain it; or the search is a grid.
        """
        if self._is_grid:
            if items not in ([], [CURRENT]):
                raise InputError(f"{KEY} has no effect with hydra/sweeper/sampler=grid, which tries all points")
            return []
        if not self._is_one_of_several:
            check_axes(items, self._space.all_axes)
        points = []
        for item in (OmegaConf.to_container(item) if OmegaConf.is_config(item) else item for item in items):
            try:
                points.append(self._find(item))
            except InputError as error:
                if item != CURRENT and not (self._is_one_of_several and isinstance(error, OutsideError)):
                    raise
                what = AS_IT_STANDS if item == CURRENT else _name(item)
                reason = str(error).removeprefix(f"{KEY}: {_name(item)}: ")
                logger.info("%s%s is not tried: %s", self._prefix, what, reason)
        return points

    def _find(self, item: Any) -> StartingPoint:
        from nanosq.checkpoint import RUN_ID

        if isinstance(item, Mapping):
            return self._replaced(item)
        if item == CURRENT:
            return self._composed(CURRENT, [])
        folder, _, name = f"experiment/{item}".rpartition("/")
        presets = self._sweeper.hydra_context.config_loader.get_group_options(folder)
        if isinstance(item, str) and name in presets:
            return self._composed(item, [f"experiment={item}"])
        if isinstance(item, str) and RUN_ID.fullmatch(item):
            return self._recorded(item)
        advice = closest(item, [CURRENT, *presets], otherwise=f"the presets are {', '.join(presets)}")
        raise InputError(f"{KEY}: {item} is not {CURRENT}, a preset, the id of a run or a mapping of axes{advice}")

    def _replaced(self, item: Mapping[str, Any]) -> StartingPoint:
        """Return the configuration as it stands with other values of some axes."""
        name, axes = _name(item), self._space.all_axes
        values = {key: value for key, value in item.items() if key in axes}  # others are axes of another search
        if not values:
            raise OutsideError(f"{KEY}: {name}: none of these is an axis of this search")
        components = [f"{key}={distributions.override_text(value)}" for key, value in values.items() if "." not in key]
        cfg = self._sweeper.check(f"{KEY}: {name}", [*self._fixed(), *components])
        params = self._params(name, lambda key: values[key] if key in values else _value(cfg, key))
        for key in values:
            if key not in params:
                drawn = " ".join(f"{group}={params[group]}" for group in self._space.always.choices if group in params)
                raise OutsideError(f"{KEY}: {name}: {key} is no axis of trials with {drawn}")
        return StartingPoint(name, params)

    def _composed(self, name: str, overrides: Sequence[str]) -> StartingPoint:
        cfg = self._sweeper.check(f"{KEY}: {name}", [*self._fixed(overrides), *overrides])
        params = self._params(name, lambda key: _value(cfg, key))
        self._log_differences(name, params, config.flatten(config.without_hydra(cfg)))
        return StartingPoint(name, params)

    def _recorded(self, run_id: str) -> StartingPoint:
        cfg = self._sweeper.check(KEY, self._fixed())
        try:
            recorded = readable(config.build("tracking", cfg.tracking).parameters(run_id))
        except ValueError as error:
            raise InputError(f"{KEY}: {error}") from error

        def value(key: str) -> Any:
            is_group = key in cfg.hydra.runtime.choices
            return self._component(run_id, key, recorded) if is_group else distributions.typed(recorded.get(key))

        params = self._params(run_id, value)
        self._log_differences(run_id, params, recorded)
        return StartingPoint(run_id, params)

    def _component(self, run_id: str, group: str, recorded: Mapping[str, str]) -> str:
        """Return the choice of a group that a run has: the same components, and the most settings in common."""
        if not any(belongs(key, [group]) for key in recorded):
            raise InputError(f"{KEY}: run {run_id} does not say which {group} it has")
        common: dict[str, int] = {}
        components: dict[str, str | None] = {}
        for choice in self._space.always.choices[group].choices:
            cfg = self._sweeper.check(f"{KEY}: {run_id}", [*self._fixed(), f"{group}={choice}"])
            settings = {f"{group}.{key}": value for key, value in config.flatten(cfg[group]).items()}
            named = {key: str(value) for key, value in readable(settings).items()}
            components = {key: recorded.get(key) for key in named if f"{key}._target_" in settings}
            if all(named[key] == value for key, value in components.items()):
                common[str(choice)] = len(named.items() & recorded.items())
        return max(common, key=lambda choice: common[choice], default=", ".join(map(str, components.values())))

    def _params(self, name: str, value: Callable[[str], Any]) -> dict[str, Any]:
        """Return the parameters of a trial with the values that a function returns for the keys of axes."""
        params: dict[str, Any] = {}

        def add(axes: Mapping[str, Any]) -> None:
            for key, axis in axes.items():
                found = value(key)
                try:
                    params[key] = distributions.parameter(axis, found)
                except ValueError as error:
                    raise OutsideError(f"{KEY}: {name}: {key}={found} is outside of its axis, {error}") from error

        add(self._space.axes)
        add(self._space.dependent_axes(params))
        return params

    def _fixed(self, replaced: Sequence[str] = ()) -> list[str]:
        """Return the overrides that all trials have, without those of the same key as in `replaced`."""
        keys = {override.split("=")[0] for override in replaced}
        return [override for key, override in self._space.always.fixed.items() if key not in keys]

    def _log_differences(self, name: str, params: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Say which settings a trial with these parameters does not share with what the user has named."""
        cfg = config.without_hydra(self._sweeper.check(name, self._space.overrides(params)))
        trial, settings = readable(config.flatten(cfg)), readable(settings)
        others = [
            key
            for key, value in trial.items()
            if identity.affects_result(key)
            and key not in UNCOMPARED
            and not distributions.equal(settings.get(key), value)
        ]
        if others:
            logger.info("%s%s: the search has other values of %s", self._prefix, name, ", ".join(others))


def check_axes(items: Sequence[Any], axes: Collection[str]) -> None:
    """Raise an InputError if a key of a mapping among the items is not one of these axes."""
    for item in items:
        for key in item if isinstance(item, Mapping) else ():
            if key not in axes:
                advice = closest(key, axes, otherwise=f"the axes are {', '.join(sorted(axes))}")
                raise InputError(f"{KEY}: {_name(item)}: {key} is no axis of this search{advice}")


def _name(item: Any) -> str:
    """Return an item as the user has written it."""
    if not isinstance(item, Mapping):
        return str(item)
    return "{" + ", ".join(f"{key}: {value}" for key, value in item.items()) + "}"


def _value(cfg: DictConfig, key: str) -> Any:
    """Return the value of an axis in a composed configuration; None if there is none."""
    if key in cfg.hydra.runtime.choices:
        return cfg.hydra.runtime.choices[key]
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
