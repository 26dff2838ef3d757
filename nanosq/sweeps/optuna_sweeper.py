"""The Optuna sweeper: a search with Optuna that can be resumed, prunes trials, and repeats them with several seeds."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig

from nanosq import config, errors, identity
from nanosq.privacy import mask
from nanosq.sweeps import overrides, summary
from nanosq.sweeps.attributes import DIVERGED, ERRORS, INFEASIBLE, LINK, RUN_ID, run_id_key
from nanosq.sweeps.launching import TrialLauncher
from nanosq.sweeps.metrics import parse_metrics
from nanosq.sweeps.optuna_settings import OptunaSweeperSettings
from nanosq.sweeps.seed_results import SeedResults
from nanosq.sweeps.summary import TrialSummary

# Optuna and modules that need it are imported inside the methods: Hydra loads this class before every run.
if TYPE_CHECKING:
    import optuna

    from nanosq.sweeps.search_space import SearchSpace
    from nanosq.sweeps.study import SharedStudy

logger = logging.getLogger(__name__)


class OptunaSweeper(TrialLauncher):
    """Runs trials of an Optuna study until it has `n_trials`, including those of earlier starts."""

    def __init__(self, **settings: Any) -> None:
        """Create the sweeper from its configuration, the fields of OptunaSweeperSettings, and check them."""
        super().__init__()
        self.settings = OptunaSweeperSettings(**settings)
        for name in ("n_trials", "n_jobs"):
            number = settings[name]
            if number is not None and number < 1:
                raise errors.InputError(f"hydra.sweeper.{name} must be at least 1, not {number}")
        if not 0 <= self.settings.max_failure_rate <= 1:
            rate = self.settings.max_failure_rate
            raise errors.InputError(f"hydra.sweeper.max_failure_rate is a fraction of the trials, 0 to 1, not {rate}")
        self.metrics = parse_metrics(self.settings.objectives, self.settings.direction)

    def sweep(self, arguments: list[str]) -> None:
        """Run the search. Hydra calls this method with the overrides of the command line."""
        from nanosq.sweeps import pruning, storage
        from nanosq.sweeps.search_space import SearchSpace
        from nanosq.sweeps.study import SharedStudy, build_sampler

        settings, directions = self.settings, [metric.direction for metric in self.metrics]
        self._check_effect()
        with _user_input():
            space = SearchSpace.parse(settings.params or {}, settings.spaces, arguments, self._choices)
            pruner = config.build("hydra.sweeper.pruner", settings.pruner)
            node = cast(DictConfig, settings.sampler)
            sampler, total = build_sampler(node, space, settings.n_trials, directions=directions)
            extend = config.get_target(settings.custom_search_space) if settings.custom_search_space else None
        if "val/loss" in settings.objectives and any(axis.split(".")[0] == "loss" for axis in space.varied):
            raise errors.InputError("hydra.sweeper.objectives: val/loss has another unit for every loss: use val/nll")
        compared = pruning.describe(pruner, self.metrics, space, arguments=config.arguments(settings.pruner))
        # A study would keep the misspelled name of an axis forever.
        base, *others = (self.check(name, example) for name, example in space.examples().items())
        if space.varies("seeds") or any(cfg.seeds != base.seeds for cfg in others):
            raise errors.InputError("seeds cannot be an axis: it is the number of runs of every trial")
        seeds = space.always.seeds
        n_seeds = len(overrides.seeds_of(base, seeds))
        url = cast(str, settings.storage)
        name = settings.study_name or _study_name(self._choices(space.always.components), space)
        if base.resume == "never":
            name = storage.unused_name(name, url)
        shared = {
            key: value
            for key, value in config.flatten(config.without_hydra(base)).items()
            if (identity.affects_result(key) or (key == "resume" and identity.named_state(base)))
            and not space.varies(key)
        }
        if seeds:
            shared["seed"] = [*seeds]
        with _user_input():
            code = identity.code_hash(base)
        study = SharedStudy(
            name,
            url,
            directions=directions,
            sampler=sampler,
            pruner=pruner,
            space=space.axes,
            settings=shared | {"seeds": n_seeds, "hydra.sweeper.objectives": [*settings.objectives]},
        )
        logger.info("study %s in %s: %d of %d trials started before", name, mask(url), len(study.trials), total)
        if study.note_code(code):
            logger.warning("the code has changed since the study was started: its trials are of different programs")
        if compared:
            logger.info(compared)
        failures = self._search(study, space, extend and partial(extend, base), total=total, seeds=seeds)
        trials = summary.rank(map(self._summary, study.trials), maximize=self.metrics[0].maximize)
        best = {trial.number: space.overrides(trial.params) for trial in self._best(study)}
        self.summarize(name, trials, self.metrics, best, failures)

    def _check_effect(self) -> None:
        """Refuse settings of the sweeper that would have no effect."""
        n_jobs = self.settings.n_jobs
        if n_jobs is not None and n_jobs > 1 and self.config.hydra.runtime.choices["hydra/launcher"] == "basic":
            raise errors.InputError(
                f"hydra.sweeper.n_jobs={n_jobs} needs a launcher that runs trials in parallel: hydra/launcher=joblib"
            )
        for component in self.settings.spaces:
            group, _, choice = component.partition("/")
            options = self.hydra_context.config_loader.get_group_options(group)
            if choice not in options:
                raise errors.InputError(
                    f"hydra.sweeper.spaces: there is no {component}; {group} has {', '.join(options) or 'no choices'}"
                )

    def _choices(self, overrides: Iterable[str]) -> DictConfig:
        """Return the component of each group that the overrides select."""
        return cast(DictConfig, self.compose(overrides).hydra.runtime.choices)

    def _search(
        self,
        study: "SharedStudy",
        space: "SearchSpace",
        extend: Callable[..., Any] | None,
        *,
        total: int,
        seeds: Sequence[int],
    ) -> dict[int, list[Exception]]:
        """Run trials until `total` of the study count, extended by a `custom_search_space` if there is one.

        Return the exceptions of failed trials by their number.
        """
        from nanosq.sweeps.study import MAX_INFEASIBLE

        failures: dict[int, list[Exception]] = {}
        infeasible: list[list[Exception]] = []
        try:
            while taken := study.take(self._n_jobs(), total=total):
                if extend is not None:
                    for trial in taken:
                        extend(trial)
                trials = {trial.number: space.draw(trial) for trial in taken}
                axes = {key for trial in taken for key in trial.params}
                results = self.launch(study.name, trials, axes=axes, seeds=seeds)
                for trial, result in zip(taken, results, strict=True):
                    self._tell(study, trial, result)
                self._log_progress(study, total)
                if results[-1].is_infeasible and study.is_infeasible:
                    reason = errors.one_line(results[-1].failures[0])
                    message = f"the last {MAX_INFEASIBLE} trials were infeasible: change the space; {reason}"
                    failures[taken[-1].number] = [errors.InputError(message)]
                    break
                pairs = zip(trials, results, strict=True)
                failed = {n: result.failures for n, result in pairs if result.failures and not result.is_infeasible}
                failures |= failed
                infeasible = [result.failures for result in results if result.is_infeasible] or infeasible
                if len(failed) > self.settings.max_failure_rate * len(taken):
                    logger.error("hydra.sweeper.max_failure_rate=%g ends the search", self.settings.max_failure_rate)
                    break
        finally:
            study.release()
        if infeasible and not failures and not self._best(study):
            failures[-1] = infeasible[-1]
        return failures

    def _tell(self, study: "SharedStudy", trial: "optuna.Trial", results: SeedResults) -> None:
        from optuna.trial import TrialState

        if results.is_infeasible:
            trial.set_user_attr(INFEASIBLE, True)
        if results.runs and RUN_ID not in study.trials[trial.number].user_attrs:  # the setting of an earlier trial
            trial.set_user_attr(LINK, results.link)
            for repeat, run in enumerate(results.runs):
                trial.set_user_attr(run_id_key(repeat), run)
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
        done = sum(trial.state.is_finished() for trial in study.trials) - study.n_uncounted
        best = [f"#{trial.number} {trial.values[0]:.5g}" for trial in self._best(study)]
        logger.info("%d of %d trials, best: %s", done, max(total, done), ", ".join(best) or "none yet")

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


@contextmanager
def _user_input() -> Iterator[None]:
    """Turn the exceptions for a bad space, sampler or function into errors of one line."""
    try:
        yield
    except (AssertionError, ImportError, NotImplementedError, TypeError, ValueError) as error:
        raise errors.InputError(errors.one_line(error)) from error


def _study_name(choices: DictConfig, space: "SearchSpace") -> str:
    """Return the default name of a study: the loss, model or experiment, and data that all its trials train."""
    model = "experiment" if choices.get("experiment") else "model"
    return "-".join(choices[group] for group in ("loss", model, "data") if group not in space.axes) or "search"
