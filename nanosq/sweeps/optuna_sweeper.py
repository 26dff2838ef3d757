"""The Optuna sweeper: a search with Optuna that can be resumed, prunes trials, and repeats them with several seeds."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from hydra.utils import get_method
from hydra_plugins.hydra_optuna_sweeper.config import Direction, OptunaSweeperConf
from omegaconf import MISSING, DictConfig

from nanosq import config, errors, identity
from nanosq.privacy import mask
from nanosq.sweeps import summary
from nanosq.sweeps.attributes import DIVERGED, ERRORS, LINK, RUN_ID
from nanosq.sweeps.launching import Metric, SeedResults, TrialLauncher
from nanosq.sweeps.summary import TrialSummary

# Optuna and modules that need it are imported inside the methods: Hydra loads this class before every run.
if TYPE_CHECKING:
    import optuna

    from nanosq.sweeps.search_space import SearchSpace
    from nanosq.sweeps.study import SharedStudy

logger = logging.getLogger(__name__)

# What a search may minimize or maximize. The test split is kept for the comparison of what was chosen.
METRICS = (
    *("val/perplexity", "val/nll", "val/bits_per_byte", "val/accuracy", "val/ece", "val/loss"),
    "train/seconds",
)


@dataclass
class OptunaSweeperSettings(OptunaSweeperConf):
    """The schema of hydra/sweeper=optuna: that of hydra-optuna-sweeper, and what this sweeper adds."""

    _target_: str = "nanosq.sweeps.optuna_sweeper.OptunaSweeper"
    defaults: list[Any] = field(default_factory=list)  # conf/hydra/sweeper/optuna.yaml chooses the sampler
    n_jobs: int | None = None  # type: ignore[assignment]  # trials launched together; null: as many as the launcher runs
    pruner: Any = MISSING
    objectives: list[str] = field(default_factory=lambda: [Metric().key])
    spaces: dict[str, dict[str, str]] = field(default_factory=dict)  # see SearchSpace.parse


class OptunaSweeper(TrialLauncher):
    """Runs trials of an Optuna study until it has `n_trials`, including those of earlier starts."""

    def __init__(self, **settings: Any) -> None:
        """Create the sweeper from its configuration, the fields of OptunaSweeperSettings, and check them."""
        self.settings = OptunaSweeperSettings(**settings)
        for name in ("n_trials", "n_jobs"):
            number = settings[name]
            if number is not None and number < 1:
                raise errors.InputError(f"hydra.sweeper.{name} must be at least 1, not {number}")
        self.metrics = parse_metrics(self.settings.objectives, self.settings.direction)

    def sweep(self, arguments: list[str]) -> None:
        """Run the search. Hydra calls this method with the overrides of the command line."""
        from nanosq.sweeps import storage
        from nanosq.sweeps.search_space import SearchSpace
        from nanosq.sweeps.study import SharedStudy, build_sampler

        settings = self.settings
        with _user_input():
            space = SearchSpace.parse(settings.params or {}, settings.spaces, arguments, self._choices)
            pruner = config.build("hydra.sweeper.pruner", settings.pruner)
            sampler, total = build_sampler(cast(DictConfig, settings.sampler), space, settings.n_trials)
        base = self.compose(space.fixed)
        self.compose(space.example())  # a study would keep the misspelled name of an axis forever
        seeds = self.seeds(base)
        url = cast(str, settings.storage)
        name = settings.study_name or _study_name(base, space)
        if base.resume == "never":
            name = storage.unused_name(name, url)
        shared = {
            key: value
            for key, value in config.flatten(config.without_hydra(base)).items()
            if identity.affects_result(key) and not space.varies(key)
        }
        study = SharedStudy(
            name,
            url,
            directions=["maximize" if metric.maximize else "minimize" for metric in self.metrics],
            sampler=sampler,
            pruner=pruner,
            space=space.axes,
            settings={**shared, "seeds": seeds, "hydra.sweeper.objectives": [metric.key for metric in self.metrics]},
        )
        logger.info("study %s in %s: %d of %d trials started before", name, mask(url), len(study.trials), total)
        total += study.n_failed  # failed trials do not count
        failures = self._search(study, space, total=total, seeds=seeds)
        trials = summary.rank(map(self._summary, study.trials), maximize=self.metrics[0].maximize)
        best = {trial.number: space.overrides(trial.params) for trial in self._best(study)}
        self.summarize(name, trials, self.metrics, best, failures)

    def _choices(self, overrides: Iterable[str]) -> DictConfig:
        """Return the component of each group that the overrides select."""
        return cast(DictConfig, self.compose(overrides).hydra.runtime.choices)

    def _search(
        self, study: "SharedStudy", space: "SearchSpace", *, total: int, seeds: int
    ) -> dict[int, list[Exception]]:
        """Run trials until the study has `total`. Return the exceptions of failed trials by their number."""
        failures: dict[int, list[Exception]] = {}
        extend = get_method(self.settings.custom_search_space) if self.settings.custom_search_space else None
        try:
            while taken := study.take(self._n_jobs(), total=total):
                if extend is not None:
                    for trial in taken:
                        extend(self.config, trial)
                trials = {trial.number: space.draw(trial) for trial in taken}
                axes = {key for trial in taken for key in trial.params}
                failed = 0
                for trial, results in zip(taken, self.launch(study.name, trials, axes=axes, seeds=seeds), strict=True):
                    self._tell(study, trial, results)
                    if results.failures:
                        failures[trial.number] = results.failures
                        failed += 1
                self._log_progress(study, total)
                if failed > self.settings.max_failure_rate * len(taken):
                    logger.error("hydra.sweeper.max_failure_rate=%g ends the search", self.settings.max_failure_rate)
                    break
        finally:
            study.release()
        return failures

    def _tell(self, study: "SharedStudy", trial: "optuna.Trial", results: SeedResults) -> None:
        from optuna.trial import TrialState

        if results.state == "failed":
            study.tell(trial, TrialState.FAIL)
        elif results.state == "pruned":
            study.tell(trial, TrialState.PRUNED)
        else:
            if results.state == "diverged":
                trial.set_user_attr(DIVERGED, True)
            elif len(results.results) > 1:
                trial.set_user_attr(ERRORS, [results.standard_error(metric) for metric in self.metrics])
            study.tell(trial, TrialState.COMPLETE, [results.mean(metric) for metric in self.metrics])

    def _log_progress(self, study: "SharedStudy", total: int) -> None:
        trials = study.trials
        done = sum(trial.state.is_finished() for trial in trials)
        best = [f"#{trial.number} {trial.values[0]:.5g}" for trial in self._best(study)]
        logger.info("%d of %d trials, best: %s", done, max(total, len(trials)), ", ".join(best) or "none yet")

    def _n_jobs(self) -> int:
        """Return the number of trials to launch together."""
        n_jobs = self.settings.n_jobs or self.config.hydra.launcher.get("n_jobs", 1)  # the joblib launcher's
        from joblib import effective_n_jobs

        return cast(int, effective_n_jobs(n_jobs))

    def _best(self, study: "SharedStudy") -> "list[optuna.trial.FrozenTrial]":
        """Return the best trial, or for several metrics the trials on the Pareto front."""
        from optuna.trial import TrialState

        complete = study.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if all(DIVERGED in trial.user_attrs for trial in complete):
            return []
        best = study.study.best_trials
        return best if len(self.metrics) > 1 else best[:1]

    def _summary(self, trial: "optuna.trial.FrozenTrial") -> TrialSummary:
        from optuna.trial import TrialState

        states = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        state = "diverged" if DIVERGED in trial.user_attrs else states.get(trial.state, "running")
        unknown = [math.nan] * len(self.metrics)
        return TrialSummary(
            trial.number,
            state,
            values=trial.values if state == "finished" else unknown,
            errors=trial.user_attrs.get(ERRORS, unknown),
            settings={key: mask(str(value)) for key, value in trial.params.items()},
            runs=[value for key, value in trial.user_attrs.items() if key.startswith(RUN_ID)],
            link=trial.user_attrs.get(LINK, ""),
        )


def parse_metrics(keys: Sequence[str], direction: Any) -> list[Metric]:
    """Return the metrics of a search from their MLflow keys and one direction, or one for each of them."""
    given = [direction] if isinstance(direction, str | Direction) else list(direction)
    directions = [item.name if isinstance(item, Direction) else item for item in given]
    if len(directions) == 1:
        directions *= len(keys)
    for name in directions:
        if name not in Direction.__members__:
            raise errors.InputError(f"hydra.sweeper.direction: {name} is neither minimize nor maximize")
    if not keys:
        raise errors.InputError("hydra.sweeper.objectives is empty: name at least one metric")
    if len(directions) != len(keys):
        raise errors.InputError(f"hydra.sweeper.direction: {len(directions)} directions for {len(keys)} objectives")
    for key in keys:
        if key not in METRICS:
            raise errors.InputError(f"hydra.sweeper.objectives: {key} is not one of {', '.join(METRICS)}")
    return [Metric(key, maximize=name == "maximize") for key, name in zip(keys, directions, strict=True)]


@contextmanager
def _user_input() -> Iterator[None]:
    """Turn the exceptions of Optuna for a bad space or sampler into errors of one line."""
    try:
        yield
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise errors.InputError(errors.one_line(error)) from error


def _study_name(base: DictConfig, space: "SearchSpace") -> str:
    """Return the default name of a study: the loss, model or experiment, and data that all its trials train."""
    choices = base.hydra.runtime.choices
    model = "experiment" if choices.get("experiment") else "model"
    return "-".join(choices[group] for group in ("loss", model, "data") if group not in space.axes) or "search"
