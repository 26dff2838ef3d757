"""Optuna studies of finished or running searches. They are read and never created."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.recorded_run import STATES
from analysis.report.optuna_storage import NoStudy, comparisons, opened
from nanosq.privacy import link, mask
from nanosq.suggestion import closest

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# Attributes of studies and trials. nanosq/sweeps/attributes.py, which writes them, has the same names.
SETTINGS, RUN_ID, LINK, ERRORS, DIVERGED = "settings", "mlflow_run_id", "mlflow_link", "standard_errors", "diverged"
INFEASIBLE, STEP, PER_MILLE, MIXED = "infeasible", "step", "thousandths of training", "several_programs"
LABELS = {
    "val/perplexity": "Validation perplexity",
    "val/nll": "Validation nll (nats per token)",
    "val/bits_per_byte": "Validation bits per byte",
    "val/accuracy": "Validation accuracy",
    "val/ece": "Validation calibration error (ece)",
    "val/loss": "Validation loss (in the loss's own unit)",
    "train/seconds": "Training time (s)",
}
HIGHER_IS_BETTER = ("val/accuracy",)  # of LABELS; nanosq/sweeps/metrics.py has the same


@dataclass(frozen=True)
class StudyMetric:
    """A metric that a study minimizes or maximizes."""

    label: str
    maximize: bool

    @property
    def in_sentence(self) -> str:
        """The label as it stands within a sentence."""
        return self.label[0].lower() + self.label[1:]

    @property
    def better(self) -> str:
        """The direction in which values are better, in brackets."""
        return f"({'higher' if self.maximize else 'lower'} is better)"

    def cost(self, value: float) -> float:
        """Return a number that is lower for a better value."""
        return -value if self.maximize else value


@dataclass(frozen=True)
class StudyTrial:
    """A trial of a study."""

    number: int
    state: str  # one of STATES
    values: list[float]  # of the metrics; empty unless the trial is complete
    errors: list[float]  # standard errors of the values over the seeds; empty for one seed
    intermediate: dict[float, float]  # value of the metric by the fraction of training, for the first seed
    params: dict[str, Any]
    max_steps: float  # nan if unknown
    run_ids: list[str]  # a run for each seed
    link: str


@dataclass(frozen=True)
class Search:
    """A study with its trials in the order of their numbers."""

    name: str
    metrics: list[StudyMetric]
    trials: list[StudyTrial]
    space: "dict[str, BaseDistribution]"  # of all settings that a trial has
    seeds: int
    constraints: Mapping[str, float]  # bounds by the metric; a trial that violates one is not complete
    others: list[str]  # studies in the same storage
    misdirected: list[StudyMetric]  # metrics that the study has searched in the wrong direction
    is_mixed: bool  # whether the code has changed since trials had ended
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
        costs = {trial.number: self._costs(trial) for trial in self.complete}
        return [trial for trial in self.complete if not any(_dominates(c, costs[trial.number]) for c in costs.values())]

    def ranked(self) -> list[StudyTrial]:
        """Return the trials, best first: complete trials before others, those on the front before other complete ones.

        They are ordered by the first metric.
        """
        front = {trial.number for trial in self.front()}

        def rank(trial: StudyTrial) -> tuple[int, bool, list[float], int]:
            return STATES.index(trial.state), trial.number not in front, self._costs(trial)[:1], trial.number

        return sorted(self.trials, key=rank)

    def steps(self) -> tuple[float, float]:
        """Return the steps that pruning saved, and the steps of these trials without pruning; nan if unknown."""
        pruned = [trial for trial in self.trials if trial.state == "pruned"]
        saved = sum(trial.max_steps * (1 - max(trial.intermediate, default=math.nan)) for trial in pruned)
        # Early stopping may have ended complete trials.
        taken = sum(trial.max_steps * max(trial.intermediate, default=1.0) for trial in self.complete)
        return saved, taken + sum(trial.max_steps for trial in pruned)

    def _costs(self, trial: StudyTrial) -> list[float]:
        return [metric.cost(value) for metric, value in zip(self.metrics, trial.values, strict=False)]


def load(url: str, name: str | None = None) -> Search:
    """Return the study of this name, or the search with trials that was started last. Nothing is created.

    Args:
        url: Storage of Optuna: sqlite:///FILE or postgresql://...
        name: Name of the study. The studies of a comparison are shown only by their name.

    Raises:
        NoStudy: There is no study with trials, or the storage cannot be read.
        ValueError: The storage has studies, but none of this name.
    """
    with opened(url) as (storage, summaries):
        started = {s.study_name: s.datetime_start for s in summaries if s.n_trials and s.datetime_start}
        if name is not None and name not in (names := sorted(summary.study_name for summary in summaries)):
            known = ", ".join(names) or "none"
            raise ValueError(f"no study {name!r} in {mask(url)}; there are {known}{closest(name, names)}")
        if name is not None and name not in started:
            raise NoStudy(f"No trial has started in {mask(url)}, study {name}.")
        compared = tuple(f"{study}/" for study in comparisons(summaries))
        searches = {study: start for study, start in started.items() if not study.startswith(compared)}
        if name is None and not searches:
            raise NoStudy(f"No trial of a search has started in {mask(url)}.")
        name = name or max(searches, key=lambda study: searches[study])
        return read(storage, name, sorted(searches.keys() - {name}))


def read(storage: "optuna.storages.RDBStorage", name: str, others: Sequence[str] = ()) -> Search:
    """Return a study of a storage. `others` are the names of studies that a reader may look at besides."""
    import optuna

    study = optuna.load_study(study_name=name, storage=storage)
    settings: Mapping[str, Any] = study.user_attrs.get(SETTINGS, {})
    n = len(study.directions)
    names: Sequence[str] = settings.get("hydra.sweeper.objectives") or study.metric_names or []
    if len(names) != n:
        names = [f"Metric {i + 1}" if n > 1 else "Metric" for i in range(n)]
    trials = study.get_trials(deepcopy=False)
    searched = [direction.name == "MAXIMIZE" for direction in study.directions]
    metrics = [
        StudyMetric(LABELS.get(name, name), name in HIGHER_IS_BETTER if name in LABELS else maximized)
        for name, maximized in zip(names, searched, strict=True)
    ]
    common = settings.get("train.max_steps")
    max_steps = math.nan if common is None or isinstance(common, Sequence) else common  # contenders may differ in it
    last_step = 1000 if study.user_attrs.get(STEP) == PER_MILLE else None
    return Search(
        name=study.study_name,
        metrics=metrics,
        misdirected=[m for m, maximized in zip(metrics, searched, strict=True) if m.maximize != maximized],
        trials=[_trial(trial, max_steps, last_step) for trial in trials],
        space={name: axis for trial in trials for name, axis in trial.distributions.items()},
        seeds=int(settings.get("seeds", 1)),
        constraints=settings.get("hydra.sweeper.constraints", {}),
        others=[*others],
        is_mixed=bool(study.user_attrs.get(MIXED)),
        study=study,
    )


def _trial(trial: "FrozenTrial", max_steps: float, last_step: int | None) -> StudyTrial:
    """Convert a trial of Optuna.

    Args:
        trial: The trial.
        max_steps: Number of training steps of trials that do not draw it.
        last_step: The step in the study that is the end of training; None for studies of other versions, whose steps
            are training steps.
    """
    max_steps = float(trial.params.get("train.max_steps", max_steps))
    end = last_step or (max_steps if math.isfinite(max_steps) else max(trial.intermediate_values, default=1))
    is_failed = trial.state.name == "FAIL" or INFEASIBLE in trial.user_attrs
    state = "failed" if is_failed else trial.state.name.lower()
    values = trial.values or []
    if DIVERGED not in trial.user_attrs and any(excess > 0 for excess in trial.constraints.values()):
        state = "violates"
    elif state == "complete" and (DIVERGED in trial.user_attrs or not all(map(math.isfinite, values))):
        state = "diverged"
    return StudyTrial(
        number=trial.number,
        state=state,
        values=values if state == "complete" else [],
        errors=trial.user_attrs.get(ERRORS, []),
        intermediate={step / end: v for step, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)},
        params=trial.params,
        max_steps=max_steps,
        run_ids=[value for key, value in trial.user_attrs.items() if key.startswith(RUN_ID)],
        link=link(trial.user_attrs.get(LINK, "")),
    )


def _dominates(costs: Sequence[float], others: Sequence[float]) -> bool:
    return costs != others and all(cost <= other for cost, other in zip(costs, others, strict=True))
