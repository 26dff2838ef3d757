"""Optuna studies of finished or running searches. They are read and never created."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# Attributes of studies and trials, which nanosq/sweeps writes: the names are those of nanosq/sweeps/attributes.py.
SETTINGS, RUN_ID, LINK, ERRORS, DIVERGED = "settings", "mlflow_run_id", "mlflow_link", "standard_errors", "diverged"
STATES = ("complete", "pruned", "diverged", "failed", "running", "waiting")  # the better ones first
SECONDS = 20  # that a database may take to answer, or be locked by those who write
LABELS = {
    "val/perplexity": "Validation perplexity",
    "val/nll": "Validation nll (nats per token)",
    "val/bits_per_byte": "Validation bits per byte",
    "val/accuracy": "Validation accuracy",
    "val/ece": "Validation calibration error (ece)",
    "val/loss": "Validation loss (in the loss's own unit)",
    "train/seconds": "Training time (s)",
}


class NoStudy(Exception):  # noqa: N818  (nothing is wrong: there has been no search yet)
    """There is no study to show. The message says why."""


@dataclass(frozen=True)
class StudyMetric:
    """A metric that a study minimizes or maximizes."""

    label: str
    maximize: bool

    def cost(self, value: float) -> float:
        """Return a number that is lower for a better value."""
        return -value if self.maximize else value


@dataclass(frozen=True)
class StudyTrial:
    """A trial of a study."""

    number: int
    state: str  # one of STATES
    values: list[float]  # of each objective; empty unless it is complete
    errors: list[float]  # their standard errors over seeds; empty for one seed
    course: dict[int, float]  # of the objective, by step: of the first seed
    params: dict[str, Any]
    max_steps: float  # that it was to train; nan where it is not known
    run_id: str
    link: str


@dataclass(frozen=True)
class Search:
    """A study. Trials are in the order of their numbers; `space` has the axes of all of them."""

    name: str
    objectives: list[StudyMetric]
    trials: list[StudyTrial]
    space: "dict[str, BaseDistribution]"
    seeds: int
    others: list[str]  # studies in the same storage
    study: "optuna.Study"

    @property
    def complete(self) -> list[StudyTrial]:
        """The complete trials."""
        return [trial for trial in self.trials if trial.state == "complete"]

    @property
    def counts(self) -> dict[str, int]:
        """The number of trials by state."""
        counts = Counter(trial.state for trial in self.trials)
        return {state: counts[state] for state in STATES if counts[state]}

    def front(self) -> list[StudyTrial]:
        """Return the complete trials that no other dominates: the best one, or the Pareto front."""
        costs = {
            trial.number: [objective.cost(v) for objective, v in zip(self.objectives, trial.values, strict=True)]
            for trial in self.complete
        }
        return [trial for trial in self.complete if not any(_better(c, costs[trial.number]) for c in costs.values())]

    def ranked(self) -> list[StudyTrial]:
        """Return the trials, best first: complete ones before others, those on the front first."""
        front = {trial.number for trial in self.front()}

        def rank(trial: StudyTrial) -> tuple[int, bool, float, int]:
            cost = self.objectives[0].cost(trial.values[0]) if trial.values else 0.0
            return STATES.index(trial.state), trial.number not in front, cost, trial.number

        return sorted(self.trials, key=rank)

    def steps(self) -> tuple[float, float]:
        """Return the steps that pruning has saved, and the steps of these trials without pruning; nan if unknown."""
        ended = [trial for trial in self.trials if trial.state in ("complete", "pruned")]
        saved = sum(t.max_steps - max(t.course, default=math.nan) for t in ended if t.state == "pruned")
        return saved, sum(trial.max_steps for trial in ended)


def load(url: str | None, name: str | None = None) -> Search:
    """Return the study of this name, or the study with trials that was started last. Nothing is created.

    url: of an Optuna storage, sqlite:///FILE or postgresql://...; None: there is none. NoStudy where it holds no trial
    or cannot be reached; ValueError where it holds studies, but none of this name.
    """
    if url is None:
        raise NoStudy("There has been no search with Optuna here.")
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = _open(url)
        summaries = optuna.get_all_study_summaries(storage, include_best_trial=False)
        begun = {each.study_name: each.datetime_start for each in summaries if each.n_trials and each.datetime_start}
        if name is not None and name not in [each.study_name for each in summaries]:
            known = ", ".join(sorted(each.study_name for each in summaries)) or "none"
            raise ValueError(f"no study {name!r} in {without_password(url)}; there are {known}")
        if not begun or (name is not None and name not in begun):
            raise NoStudy(f"No trial has been begun in {without_password(url)}{f', study {name}' if name else ''}.")
        name = name or max(begun, key=lambda each: begun[each])
        return _search(optuna.load_study(study_name=name, storage=storage), sorted(begun.keys() - {name}))
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError, ImportError) as error:
        # No server, no driver, not a database, tables of another version of Optuna.
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
        raise NoStudy(f"The studies in {without_password(url)} cannot be read ({reason}).") from error


def without_password(url: str) -> str:
    """Return a URL of a database without its password."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string()
    except ArgumentError:
        return url


def _open(url: str) -> "optuna.storages.RDBStorage":
    from optuna.storages import RDBStorage
    from sqlalchemy import create_engine, inspect, make_url

    kind, database = make_url(url).get_backend_name(), make_url(url).database
    if kind == "sqlite" and not (database and Path(database).is_file()):
        raise NoStudy(f"There is no database {database or 'named'} of a search with Optuna.")
    arguments = {"connect_args": {"timeout" if kind == "sqlite" else "connect_timeout": SECONDS}}
    engine = create_engine(url, **arguments)
    try:
        if not inspect(engine).has_table("studies"):
            raise NoStudy(f"{without_password(url)} holds no study of Optuna.")
    finally:
        engine.dispose()
    return RDBStorage(url, engine_kwargs=arguments, skip_table_creation=True)


def _search(study: "optuna.Study", others: list[str]) -> Search:
    settings: Mapping[str, Any] = study.user_attrs.get(SETTINGS, {})
    n = len(study.directions)
    metrics: Sequence[str] = settings.get("hydra.sweeper.objectives") or study.metric_names or []
    if len(metrics) != n:
        metrics = [f"Objective {i + 1}" if n > 1 else "Objective" for i in range(n)]
    found = study.get_trials(deepcopy=False)
    return Search(
        name=study.study_name,
        objectives=[
            StudyMetric(LABELS.get(metric, metric), direction.name == "MAXIMIZE")
            for metric, direction in zip(metrics, study.directions, strict=True)
        ],
        trials=[_trial(trial, settings.get("train.max_steps", math.nan)) for trial in found],
        space={name: axis for trial in found for name, axis in trial.distributions.items()},
        seeds=int(settings.get("seeds", 1)),
        others=others,
        study=study,
    )


def _trial(trial: "FrozenTrial", max_steps: float) -> StudyTrial:
    from optuna.trial import TrialState

    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    state = states.get(trial.state, trial.state.name.lower())
    values = trial.values or []
    if state == "complete" and (DIVERGED in trial.user_attrs or not all(map(math.isfinite, values))):
        state = "diverged"
    return StudyTrial(
        number=trial.number,
        state=state,
        values=values if state == "complete" else [],
        errors=trial.user_attrs.get(ERRORS, []),
        course={step: v for step, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)},
        params=trial.params,
        max_steps=float(trial.params.get("train.max_steps", max_steps)),
        run_id=trial.user_attrs.get(RUN_ID, ""),
        link=trial.user_attrs.get(LINK, ""),
    )


def _better(costs: Sequence[float], others: Sequence[float]) -> bool:
    return costs != others and all(cost <= other for cost, other in zip(costs, others, strict=True))
