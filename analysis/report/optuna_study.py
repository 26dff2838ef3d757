"""Optuna studies as a search has left them, or is filling them: read, and never made."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanosq.sweeps.trial import LINK, RUN_ID

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

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
    """There is nothing to show; why, in a sentence."""


@dataclass(frozen=True)
class Objective:
    label: str
    maximize: bool

    def cost(self, value: float) -> float:
        """Less is better."""
        return -value if self.maximize else value


@dataclass(frozen=True)
class Trial:
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
    """A study. Trials in the order of their numbers; `space` has the axes of any of them."""

    name: str
    objectives: list[Objective]
    trials: list[Trial]
    space: "dict[str, BaseDistribution]"
    seeds: int
    others: list[str]  # studies in the same storage
    study: "optuna.Study"

    @property
    def complete(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "complete"]

    @property
    def counts(self) -> dict[str, int]:
        counts = Counter(trial.state for trial in self.trials)
        return {state: counts[state] for state in STATES if counts[state]}

    def front(self) -> list[Trial]:
        """The complete trials that no other is better than: those of the least cost, or the Pareto front."""
        costs = {
            trial.number: [objective.cost(v) for objective, v in zip(self.objectives, trial.values, strict=True)]
            for trial in self.complete
        }
        return [trial for trial in self.complete if not any(_better(c, costs[trial.number]) for c in costs.values())]

    def ranked(self) -> list[Trial]:
        """The best first: complete ones, those on the front before the others, by the first objective."""
        front = {trial.number for trial in self.front()}

        def rank(trial: Trial) -> tuple[int, bool, float, int]:
            cost = self.objectives[0].cost(trial.values[0]) if trial.values else 0.0
            return STATES.index(trial.state), trial.number not in front, cost, trial.number

        return sorted(self.trials, key=rank)

    def steps(self) -> tuple[float, float]:
        """What pruning has saved, and what complete and pruned trials would have taken without it; nan if unknown."""
        ended = [trial for trial in self.trials if trial.state in ("complete", "pruned")]
        saved = sum(t.max_steps - max(t.course, default=math.nan) for t in ended if t.state == "pruned")
        return saved, sum(trial.max_steps for trial in ended)


def load(url: str | None, name: str | None = None) -> Search:
    """The study of this name, or the one with trials that was begun last. Creates nothing.

    url: of an Optuna storage, sqlite:///FILE or postgresql://...; None: there is none. NoStudy where it holds no trial
    or cannot be reached; ValueError where it holds studies, but none of this name.
    """
    from nanosq.sweeps.study import shown

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
            raise ValueError(f"no study {name!r} in {shown(url)}; there are {known}")
        if not begun or (name is not None and name not in begun):
            raise NoStudy(f"No trial has been begun in {shown(url)}{f', study {name}' if name else ''}.")
        name = name or max(begun, key=lambda each: begun[each])
        return _search(optuna.load_study(study_name=name, storage=storage), sorted(begun.keys() - {name}))
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError, ImportError) as error:
        # No server, no driver, not a database, tables of another version of Optuna.
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
        raise NoStudy(f"The studies in {shown(url)} cannot be read ({reason}).") from error


def _open(url: str) -> "optuna.storages.RDBStorage":
    from optuna.storages import RDBStorage
    from sqlalchemy import create_engine, inspect, make_url

    from nanosq.sweeps.study import shown

    kind, database = make_url(url).get_backend_name(), make_url(url).database
    if kind == "sqlite" and not (database and Path(database).is_file()):
        raise NoStudy(f"There is no database {database or 'named'} of a search with Optuna.")
    arguments = {"connect_args": {"timeout" if kind == "sqlite" else "connect_timeout": SECONDS}}
    engine = create_engine(url, **arguments)
    try:
        if not inspect(engine).has_table("studies"):
            raise NoStudy(f"{shown(url)} holds no study of Optuna.")
    finally:
        engine.dispose()
    return RDBStorage(url, engine_kwargs=arguments, skip_table_creation=True)


def _search(study: "optuna.Study", others: list[str]) -> Search:
    from nanosq.sweeps.study import SETTINGS

    settings: Mapping[str, Any] = study.user_attrs.get(SETTINGS, {})
    n = len(study.directions)
    metrics: Sequence[str] = settings.get("hydra.sweeper.objectives") or study.metric_names or []
    if len(metrics) != n:
        metrics = [f"Objective {i + 1}" if n > 1 else "Objective" for i in range(n)]
    found = study.get_trials(deepcopy=False)
    return Search(
        name=study.study_name,
        objectives=[
            Objective(LABELS.get(metric, metric), direction.name == "MAXIMIZE")
            for metric, direction in zip(metrics, study.directions, strict=True)
        ],
        trials=[_trial(trial, settings.get("train.max_steps", math.nan)) for trial in found],
        space={name: axis for trial in found for name, axis in trial.distributions.items()},
        seeds=int(settings.get("seeds", 1)),
        others=others,
        study=study,
    )


def _trial(trial: "FrozenTrial", max_steps: float) -> Trial:
    from optuna.trial import TrialState

    from nanosq.sweeps.optuna_sweeper import DIVERGED, ERRORS

    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    state = states.get(trial.state, trial.state.name.lower())
    values = trial.values or []
    if state == "complete" and (DIVERGED in trial.user_attrs or not all(map(math.isfinite, values))):
        state = "diverged"
    return Trial(
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
