"""The Optuna sweeper: Hydra's own with studies that go on, pruning, seeds, and the number of trials as a total."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from hydra.utils import get_method, instantiate
from hydra_plugins.hydra_optuna_sweeper.config import Direction, OptunaSweeperConf
from omegaconf import MISSING, DictConfig, OmegaConf

from nanosq import config, errors, identity
from nanosq.sweeps.launching import Jobs, Launching, Objective
from nanosq.sweeps.summary import STATES, Row
from nanosq.sweeps.trial import LINK, RUN_ID

# Optuna and what needs it are imported inside the methods: Hydra makes this class known before every run.
if TYPE_CHECKING:
    import optuna

    from nanosq.sweeps.search_space import Space
    from nanosq.sweeps.study import Study

logger = logging.getLogger(__name__)

# What a trial may be chosen by: the test split is for the verdict on what was chosen.
OBJECTIVES = (
    *("val/perplexity", "val/nll", "val/bits_per_byte", "val/accuracy", "val/ece", "val/loss"),
    "train/seconds",
)
ERRORS, DIVERGED = "standard_errors", "diverged"  # attributes of an Optuna trial


@dataclass
class SearchConf(OptunaSweeperConf):
    """The plugin's schema, and what is new."""

    _target_: str = "nanosq.sweeps.optuna_sweeper.OptunaSearch"
    n_jobs: int | None = None  # type: ignore[assignment]
    pruner: Any = MISSING
    objectives: list[str] = field(default_factory=lambda: [Objective().metric])
    spaces: dict[str, dict[str, str]] = field(default_factory=dict)


class OptunaSearch(Launching):
    """Tells Optuna's study what its trials come to until `n_trials` of them have been begun, now or before.

    n_jobs: trials launched together; null: as many as the launcher runs side by side.
    max_failure_rate: the part of those launched together that may fail without an end of the search.
    objectives: metrics of the runs, with a direction each or one for all.
    spaces: what a choice of component ("loss/squentropy") adds to `params`.
    """

    def __init__(
        self,
        *,
        sampler: DictConfig,
        pruner: DictConfig,
        direction: Any,
        objectives: Sequence[str],
        storage: str,
        study_name: str | None,
        n_trials: int,
        n_jobs: int | None,
        max_failure_rate: float,
        custom_search_space: str | None,
        params: Mapping[str, str] | None,
        spaces: Mapping[str, Mapping[str, str]],
    ) -> None:
        for name, number in (("n_trials", n_trials), ("n_jobs", n_jobs)):
            if number is not None and number < 1:
                raise errors.InputError(f"hydra.sweeper.{name} must be at least 1, not {number}")
        self.sampler = sampler
        self.pruner = pruner
        self.storage = storage
        self.study_name = study_name
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.max_failure_rate = max_failure_rate
        self.custom_search_space = custom_search_space
        self.params = dict(params or {})
        self.spaces = spaces
        given = [direction] if isinstance(direction, str | Direction) else list(direction)
        directions = [each.name if isinstance(each, Direction) else each for each in given]
        if len(directions) == 1:
            directions *= len(objectives)
        for name in directions:
            if name not in Direction.__members__:
                raise errors.InputError(f"hydra.sweeper.direction: {name} is neither minimize nor maximize")
        if not objectives:
            raise errors.InputError("hydra.sweeper.objectives names none")
        if len(directions) != len(objectives):
            raise errors.InputError(f"hydra.sweeper.direction: {len(directions)} for {len(objectives)} objectives")
        self.objectives = [
            Objective(metric, maximize=direction == "maximize")
            for metric, direction in zip(objectives, directions, strict=True)
        ]
        for metric in objectives:
            if metric not in OBJECTIVES:
                raise errors.InputError(f"hydra.sweeper.objectives: {metric} is none of {', '.join(OBJECTIVES)}")

    def sweep(self, arguments: list[str]) -> None:
        from nanosq.sweeps import study as studies
        from nanosq.sweeps.search_space import Space

        with _user_input():
            space = Space.parse(
                self.params, self.spaces, arguments, lambda fixed: self.compose(fixed).hydra.runtime.choices
            )
            pruner, (sampler, total) = config.build("hydra.sweeper.pruner", self.pruner), self._sampler(space)
        base = self.compose(space.fixed)
        self.compose(space.example())  # a mistake in the name of an axis would be in the study for good
        task = config.without_hydra(base)
        seeds = self.seeds(base)
        name = self.study_name or _name(base, space)
        if base.resume == "never":
            name = studies.unused(name, self.storage)
        settings = {key: value for key, value in config.flatten(task).items() if identity.affects_result(key)}
        settings = {key: value for key, value in settings.items() if not space.varies(key)}
        metrics = [objective.metric for objective in self.objectives]
        study = studies.Study(
            name,
            self.storage,
            directions=["maximize" if objective.maximize else "minimize" for objective in self.objectives],
            sampler=sampler,
            pruner=pruner,
            space=space.axes,
            settings={**settings, "seeds": seeds, "hydra.sweeper.objectives": metrics},
        )
        place = studies.shown(self.storage)
        logger.info("study %s in %s: %d trials begun of %d", name, place, len(study.trials), total)
        total += study.n_failed  # another is drawn for each that has failed before
        failures = self._search(study, space, total=total, seeds=seeds)
        rows = sorted((self._row(trial) for trial in study.trials), key=self._rank)
        best = {trial.number: space.overrides_of(trial.params) for trial in self._best(study)}
        self.summarize(name, rows, self.objectives, best, failures)

    def _search(self, study: "Study", space: "Space", *, total: int, seeds: int) -> dict[int, list[Exception]]:
        """Run trials until there are none left to take; what was raised by those that failed, by their number."""
        failures: dict[int, list[Exception]] = {}
        try:
            while taken := study.take(self._n_jobs(), total=total):
                if self.custom_search_space:
                    extend = get_method(self.custom_search_space)
                    for trial in taken:
                        extend(self.config, trial)
                trials = {trial.number: space.overrides(trial) for trial in taken}
                axes = {key for trial in taken for key in trial.params}
                failed = 0
                for trial, jobs in zip(taken, self.launch(study.name, trials, axes=axes, seeds=seeds), strict=True):
                    self._tell(study, trial, jobs)
                    if jobs.failures:
                        failures[trial.number] = jobs.failures
                        failed += 1
                self._say_how_far(study, total)
                if failed > self.max_failure_rate * len(taken):
                    logger.error("hydra.sweeper.max_failure_rate=%g ends the search", self.max_failure_rate)
                    break
        finally:
            study.release()
        return failures

    def _tell(self, study: "Study", trial: "optuna.Trial", jobs: Jobs) -> None:
        from optuna.trial import TrialState

        if jobs.state == "failed":
            study.tell(trial, TrialState.FAIL)
        elif jobs.state == "pruned":
            study.tell(trial, TrialState.PRUNED)
        else:
            values = [jobs.mean(objective) for objective in self.objectives]
            if jobs.state == "diverged":
                trial.set_user_attr(DIVERGED, True)
            elif len(jobs.results) > 1:
                trial.set_user_attr(ERRORS, [jobs.standard_error(objective) for objective in self.objectives])
            study.tell(trial, TrialState.COMPLETE, values)

    def _say_how_far(self, study: "Study", total: int) -> None:
        trials = study.trials
        done = sum(trial.state.is_finished() for trial in trials)
        best = [f"#{trial.number} {trial.values[0]:.5g}" for trial in self._best(study)]
        logger.info("%d of %d trials, best: %s", done, max(total, len(trials)), ", ".join(best) or "none yet")

    def _n_jobs(self) -> int:
        if self.n_jobs is not None:
            return self.n_jobs
        side_by_side = self.config.hydra.launcher.get("n_jobs")  # joblib's
        if side_by_side is None:
            return 1
        from joblib import effective_n_jobs

        return cast(int, effective_n_jobs(side_by_side))

    def _sampler(self, space: "Space") -> "tuple[Callable[[int], optuna.samplers.BaseSampler], int]":
        """The sampler after so many trials, and how many the study is to have: no more than a grid has points."""
        import optuna
        from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

        def build(**changes: Any) -> Any:
            node = OmegaConf.merge(self.sampler, changes)
            trusted = ("optuna.samplers.*", "hydra_plugins.hydra_optuna_sweeper.*")
            return instantiate(node, _execution_whitelist_=trusted)

        sampler, total = build(), self.n_trials
        if not isinstance(sampler, optuna.samplers.BaseSampler):
            if space.conditional:
                raise ValueError("hydra/sweeper/sampler=grid cannot search components that bring axes of their own")
            points = {key: OptunaSweeperImpl._to_grid_sampler_choices(axis) for key, axis in space.axes.items()}
            sampler, total = sampler(points), min(total, math.prod(map(len, points.values())))
        elif self.sampler.get("seed") is not None and not isinstance(sampler, optuna.samplers.QMCSampler):
            # With one seed it would draw the same after every start. QMC's sequence goes on by itself.
            return lambda n: build(seed=self.sampler.seed + n), total
        return lambda n: sampler, total

    def _best(self, study: "Study") -> "list[optuna.trial.FrozenTrial]":
        """The best trial, or those on the Pareto front of several objectives."""
        from optuna.trial import TrialState

        done = study.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not any(DIVERGED not in trial.user_attrs for trial in done):
            return []
        found = study.study.best_trials
        return found if len(self.objectives) > 1 else found[:1]

    def _row(self, trial: "optuna.trial.FrozenTrial") -> Row:
        from optuna.trial import TrialState

        states = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        state = "diverged" if DIVERGED in trial.user_attrs else states.get(trial.state, "running")
        unknown = [math.nan] * len(self.objectives)
        return Row(
            trial.number,
            state,
            values=trial.values if state == "finished" else unknown,
            errors=trial.user_attrs.get(ERRORS, unknown),
            settings={key: str(value) for key, value in trial.params.items()},
            runs=[value for key, value in trial.user_attrs.items() if key.startswith(RUN_ID)],
            link=trial.user_attrs.get(LINK, ""),
        )

    def _rank(self, row: Row) -> tuple[int, float, int]:
        value = row.values[0] if row.state == "finished" else 0.0
        return STATES.index(row.state), -value if self.objectives[0].maximize else value, row.number


@contextmanager
def _user_input() -> Iterator[None]:
    """What Optuna and its plugin say of a space or a sampler is the user's to mend."""
    try:
        yield
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise errors.InputError(errors.one_line(error)) from error


def _name(base: DictConfig, space: "Space") -> str:
    """Of the study of a search that was given none: what it trains, as far as that is not what it varies."""
    choices = base.hydra.runtime.choices
    model = "experiment" if choices.get("experiment") else "model"
    return "-".join(choices[group] for group in ("loss", model, "data") if group not in space.axes) or "search"
