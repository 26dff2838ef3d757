"""One search with Optuna: a study and the space that its trials are drawn from."""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig

from nanosq import config, error_reports, errors, identity
from nanosq.privacy import mask, mask_setting
from nanosq.sweeps import checks, constraints, overrides, summary
from nanosq.sweeps.attributes import CODE, DIVERGED, ERRORS, INFEASIBLE, LINK, run_id_key
from nanosq.sweeps.budget import Cost
from nanosq.sweeps.launching import TrialLauncher
from nanosq.sweeps.metrics import Metric, check_units
from nanosq.sweeps.optuna_settings import OptunaSweeperSettings
from nanosq.sweeps.progress import Standing
from nanosq.sweeps.seed_results import SeedResults
from nanosq.sweeps.summary import TrialSummary
from nanosq.sweeps.trial import PlannedTrial, TrialRun

# Optuna and modules that need it are imported inside the methods: Hydra loads the sweepers before every run.
if TYPE_CHECKING:
    import optuna

    from nanosq.sweeps.study import SharedStudy

logger = logging.getLogger(__name__)

N_DRAWN = 8  # trials that are tried before a space is refused of which the first and the last values fail


class LiveSearch:
    """A search: checked when it is created, before anything is written, and stored in a study once it is opened.

    `arguments` are the overrides of all trials, and axes that replace or add to those of the settings. `label` is the
    name of the search on the console, if there are several.

    Raises:
        InputError: Something is wrong; the message says what to change.
    """

    study: "SharedStudy"

    def __init__(
        self,
        sweeper: TrialLauncher,
        settings: OptunaSweeperSettings,
        metrics: Sequence[Metric],
        arguments: Sequence[str],
        *,
        label: str = "",
    ) -> None:
        from nanosq.sweeps import custom, pruning, storage
        from nanosq.sweeps.samplers import build_sampler
        from nanosq.sweeps.search_space import SearchSpace
        from nanosq.sweeps.starting_points import StartingPoints
        from nanosq.tracking.location import default_uri

        self.settings, self.metrics, self.label, self._sweeper = settings, metrics, label, sweeper
        self.url = settings.storage
        self.constraints = constraints.parse(settings.constraints)
        pruner = cast(DictConfig, settings.pruner)
        with _user_input():
            self.space = SearchSpace.parse(settings.params or {}, settings.spaces, arguments, self._choices)
            self.pruner = config.build("hydra.sweeper.pruner", pruner)
            node, directions = cast(DictConfig, settings.sampler), [metric.direction for metric in metrics]
            self._sampler, self.total = build_sampler(
                node, self.space, settings.n_trials, directions=directions, is_constrained=bool(self.constraints)
            )
            self._extend = custom.load(settings.custom_search_space)
        for name, keys in (("objectives", settings.objectives), ("constraints", settings.constraints or ())):
            check_units(f"hydra.sweeper.{name}", keys, self.space.varied)
        # A study would keep the misspelled name of an axis forever.
        self.examples = [sweeper.check(name, example) for name, example in self.space.examples().items()]
        self.base = self.examples[0]
        store = self.base.tracking
        uri = "uri" in store and (store.uri or os.environ.get("MLFLOW_TRACKING_URI"))
        if uri:
            storage.check_apart(self.url, str(uri))
        storage.check(self.url)
        self.largest = [sweeper.check(*example) for example in self.space.examples(largest=True).items()]
        self.seeds = self.space.always.seeds
        with _user_input():
            checks.check_values([*self.examples, *self.largest], self.space.all_axes)
            self.code = " ".join(sorted({*map(identity.code_hash, self.examples)}))
            train = config.settings(self.base.train)
        self.compared = pruning.describe(self.pruner, metrics, self.space, train, arguments=pruner)
        checks.check_seeds([*self.examples, *self.largest], self.seeds)
        self.n_seeds = len(overrides.seeds_of(self.base, self.seeds))
        drawn = self._draw()
        checks.check_trials([*self.examples, *self.largest, next(drawn)], drawn)
        if "uri" in store and not uri:
            storage.check_apart(self.url, default_uri())  # late, because it imports MLflow
        points = StartingPoints(self.space, self._sampler, sweeper, label=label)
        self._starting_points = points.find([*settings.enqueue])

    def _draw(self) -> Iterator[DictConfig]:
        """Draw trials in memory and compose them, with what a function adds to the space."""
        import optuna

        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(N_DRAWN):
            trial = study.ask(self.space.axes)
            self._extend(self.base, trial)
            yield self._sweeper.check("hydra.sweeper.custom_search_space", self.space.draw(trial))

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all trials have in common, by their dotted key. In a comparison, also the code."""
        shared = {
            key: value
            for key, value in config.flatten(config.without_hydra(self.base)).items()
            if key != "score_test"  # the trials are the same with and without it, and older studies do not have it
            and (identity.affects_result(key) or (key == "resume" and identity.named_state(self.base)))
            and not self.space.varies(key)
        }
        return shared | ({"seed": [*self.seeds]} if self.seeds else {}) | ({CODE: self.code} if self.label else {})

    @property
    def default_name(self) -> str:
        """The name of a study that has none: the loss, model or experiment, and data that all its trials train."""
        choices = self._choices(self.space.always.components)
        model = "experiment" if choices.get("experiment") else "model"
        return "-".join(choices[group] for group in ("loss", model, "data") if group not in self.space.axes) or "search"

    def open(self, name: str) -> None:
        """Create the study of this name, or continue it."""
        from nanosq.sweeps.study import SharedStudy

        self.study = SharedStudy(
            name,
            self.url,
            directions=[metric.direction for metric in self.metrics],
            sampler=self._sampler,
            pruner=self.pruner,
            space=self.space.axes,
            settings={
                **self.shared,
                "seeds": self.n_seeds,
                "hydra.sweeper.objectives": [*self.settings.objectives],
                **constraints.as_setting(self.constraints),
            },
        )
        started = f"{len(self.study.trials) - self.study.n_uncounted} of {self.total} trials started before"
        logger.info("study %s in %s: %s", name, mask(self.url), started)
        if self.study.note_code(self.code):
            logger.warning("the code has changed since the study was started: its trials are of different programs")
        self.study.enqueue(self._starting_points, total=self.total)

    def take(self, n_trials: int) -> list[PlannedTrial]:
        """Take up to `n_trials` trials, interrupted ones first, until the study has as many as the settings say."""
        planned = []
        for trial in self.study.take(n_trials, total=self.total):
            self._extend(self.base, trial)
            run = TrialRun(self.study.name, trial.number, label=self.label and self._name(trial.number), in_study=True)
            planned.append(PlannedTrial(run, self.space.draw(trial)))
        return planned

    def tell(self, planned: PlannedTrial, results: SeedResults, cost: Cost | None) -> None:
        """Record the results and the cost of a trial."""
        from optuna.trial import TrialState

        trial = self.study.record(planned.run.trial, results, cost)
        if trial is None:
            return
        if results.state == "finished" and len(results.results) > 1:
            trial.set_user_attr(ERRORS, [results.standard_error(metric) for metric in self.metrics])
        if constraints.record(trial, self.constraints, results, self._sampler):
            self.study.tell(trial, TrialState.COMPLETE, [results.mean(metric) for metric in self.metrics])
        else:
            self.study.tell(trial, TrialState.PRUNED)

    @property
    def n_done(self) -> int:
        """The number of trials that count and have ended."""
        return sum(trial.state.is_finished() for trial in self.study.trials) - self.study.n_uncounted

    @property
    def n_started(self) -> int:
        """The number of trials that count and were started, without those that wait to be resumed."""
        waiting = sum(trial.state.name == "WAITING" for trial in self.study.trials)
        return len(self.study.trials) - waiting - self.study.n_uncounted

    def best(self) -> "list[optuna.trial.FrozenTrial]":
        """Return the best trial, or for several metrics the trials on the Pareto front."""
        from optuna.trial import TrialState

        complete = self.study.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        valid = [trial for trial in complete if DIVERGED not in trial.user_attrs and not constraints.is_violated(trial)]
        if not valid:
            return []
        if len(self.metrics) > 1:
            return self.study.study.best_trials  # without those that violate a constraint
        choose = max if self.metrics[0].maximize else min
        return [choose(valid, key=lambda trial: trial.values[0])]  # Optuna would copy all trials to find it

    def _name(self, number: int) -> str:
        return f"{self.label} #{number}".lstrip()

    def standing(self) -> Standing:
        """Return how far the search is."""
        best = {self._name(trial.number): [trial.values[0]] for trial in self.best()}
        n_runs, n_ended = (self.n_seeds * n for n in (max(self.total, self.n_started), self.n_done))
        return Standing(n_runs, n_ended, best, self.metrics[0].key)

    def note_violations(self) -> None:
        """Say that the constraints are the reason if there is no best trial."""
        if not self.best() and any(map(constraints.is_violated, self.study.trials)):
            logger.warning("no trial meets %s: relax them, or change the space", constraints.KEY)

    def summaries(self) -> list[TrialSummary]:
        """Return how the trials have ended, best first."""
        return summary.rank(map(self._summary, self.study.trials), maximize=self.metrics[0].maximize)

    def _summary(self, trial: "optuna.trial.FrozenTrial") -> TrialSummary:
        from optuna.trial import TrialState

        states = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        states |= {TrialState.PRUNED: "failed"} if INFEASIBLE in trial.user_attrs else {}
        states[TrialState.WAITING] = "interrupted" if LINK in trial.user_attrs else "waiting"
        state = "diverged" if DIVERGED in trial.user_attrs else states.get(trial.state, "running")
        if state in ("finished", "pruned") and constraints.is_violated(trial):
            state = "violates"
        unknown = [math.nan] * len(self.metrics)
        return TrialSummary(
            trial.number,
            state,
            values=unknown if state == "diverged" else trial.values or unknown,
            errors=trial.user_attrs.get(ERRORS, unknown),
            settings={key: mask_setting(str(value)) for key, value in trial.params.items()},
            runs=[trial.user_attrs[key] for key in map(run_id_key, range(self.n_seeds)) if key in trial.user_attrs],
            link=trial.user_attrs.get(LINK, ""),
        )

    def _choices(self, overrides: Iterable[str]) -> Mapping[str, str]:
        """Return the component of each group that the overrides select."""
        return cast(Mapping[str, str], self._sweeper.compose(overrides).hydra.runtime.choices)


@contextmanager
def _user_input() -> Iterator[None]:
    """Turn the exceptions for a bad space, sampler or function into errors of one line."""
    try:
        yield
    except (AssertionError, ImportError, NotImplementedError, TypeError, ValueError) as error:
        raise errors.InputError(error_reports.one_line(error)) from error
