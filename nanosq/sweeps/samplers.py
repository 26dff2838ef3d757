"""Optuna's samplers, built from their configuration. With a seed, a search draws the same values if it was killed."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import optuna
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, QMCSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

import nanosq.sweeps.storage  # noqa: F401  (it sets what Optuna logs)
from nanosq.sweeps.distributions import grid_points
from nanosq.sweeps.overrides import check_grid
from nanosq.sweeps.search_space import SearchSpace

# Samplers that learn from constraints, by their names in the configuration.
CONSTRAINED = {"tpe": TPESampler, "gp": GPSampler, "nsgaii": NSGAIISampler, "nsgaiii": NSGAIIISampler}


class RepeatableSampler(BaseSampler):
    """A sampler whose draws depend on the seed, the number of the trial, the axis and the finished trials only.

    Optuna's samplers continue one sequence of random numbers, which starts again with every process. A process that
    resumes a trial of which another process has drawn some axes would draw other values for the rest. `build` returns a
    new sampler with a seed, and `seed` is that of the search.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int) -> None:
        self._build, self._seed = build, seed
        self.kind = self._relative = build(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the axes of `sample_relative`, which Optuna calls next."""
        self._relative = self._at(trial, "")
        return self._relative.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw several axes together."""
        return self._relative.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one axis."""
        return self._at(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Prepare the drawing of a trial."""
        self.kind.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Note the end of a trial."""
        self.kind.after_trial(study, trial, state, values)

    def _at(self, trial: FrozenTrial, axis: str) -> BaseSampler:
        digest = hashlib.sha256(f"{self._seed} {trial.number} {axis}".encode()).digest()
        return self._build(int.from_bytes(digest[:4]))


def build_sampler(
    node: DictConfig,
    space: SearchSpace,
    n_trials: int,
    *,
    directions: Sequence[str],
    is_constrained: bool = False,
) -> tuple[BaseSampler, int]:
    """Build an Optuna sampler from `node`, its configuration, for metrics with these directions.

    Returns:
        The sampler, and the total number of trials: `n_trials`, or the number of points of a grid if it is smaller.

    Raises:
        ValueError: The sampler is a grid, and the space has intervals or conditional axes; or the sampler cannot
            search this space or several metrics, or does not learn from constraints.
    """

    def build(**changes: Any) -> Any:
        trusted = ("optuna.samplers.*", "hydra_plugins.hydra_optuna_sweeper.*")
        return instantiate(OmegaConf.merge(node, changes), _execution_whitelist_=trusted)

    sampler = build()
    if is_constrained and not isinstance(sampler, tuple(CONSTRAINED.values())):
        choices = f"hydra/sweeper/sampler={', '.join(CONSTRAINED)}"
        raise ValueError(f"hydra.sweeper.constraints: this sampler does not learn from constraints; choose {choices}")
    if not isinstance(sampler, BaseSampler):  # a grid still lacks its points
        if space.conditional:
            raise ValueError("hydra/sweeper/sampler=grid cannot search components that have axes of their own")
        points = {key: grid_points(axis) for key, axis in space.axes.items()}
        check_grid(map(len, points.values()))
        return sampler(points), min(n_trials, math.prod(map(len, points.values())))
    in_memory = optuna.create_study(directions=cast(Any, directions), sampler=build())
    try:
        in_memory.ask(space.axes)  # the checks of the sampler itself run before anything is written
    except ValueError as error:
        raise ValueError(f"hydra.sweeper.sampler: {error}") from error
    if node.get("seed") is None or isinstance(sampler, QMCSampler):  # QMC's sequence continues by itself
        return sampler, n_trials
    return RepeatableSampler(lambda seed: cast(BaseSampler, build(seed=seed)), node.seed), n_trials


def learns_from_pruned(sampler: BaseSampler) -> bool:
    """Return whether a sampler learns from the constraints of pruned trials, and not of complete ones only."""
    return isinstance(sampler.kind if isinstance(sampler, RepeatableSampler) else sampler, TPESampler)
