"""The contenders of a comparison: the studies that tuned them, and the runs that confirm what was chosen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from analysis.recorded_run import RecordedRun
from analysis.report.common_seeds import on_common_seeds
from analysis.report.components import enumeration
from analysis.report.matched import Matched
from analysis.report.optuna_storage import COMPARISON, NoStudy, comparisons, opened
from analysis.report.optuna_study import Search, StudyTrial, read
from analysis.runs import RecordedSetting, differing
from nanosq.privacy import mask
from nanosq.suggestion import closest

if TYPE_CHECKING:
    from optuna.study import StudySummary

ENDED = ("complete", "violates", "pruned", "diverged", "failed")  # states of trials that are not trained further
NOT_FOUND = "not in this experiment of MLflow"
OTHER_TEXT = "trained on another text"
ENQUEUED, CURRENT = "enqueued", "current"  # attribute of a trial, and its value for the configuration as it stands


@dataclass(frozen=True)
class Contender:
    """One of the settings that are compared. Runs and trials of the confirmation are those of the chosen setting."""

    label: str
    setting: Mapping[str, Any]  # the keys that distinguish the contenders, with its values
    n_trials: int  # as planned
    tuning: Search
    chosen: StudyTrial | None  # the best tuning trial; None before the choice
    tuning_runs: Sequence[RecordedRun]
    confirmation: Mapping[int, StudyTrial]  # by seed
    runs: Mapping[int, RecordedRun]  # by seed

    @property
    def as_it_stands(self) -> StudyTrial | None:
        """The trial of the configuration as it stands; None if the configuration does not lie in the space."""
        recorded = zip(self.tuning.trials, self.tuning.study.get_trials(deepcopy=False), strict=False)
        return next((trial for trial, frozen in recorded if frozen.user_attrs.get(ENQUEUED) == CURRENT), None)

    @property
    def n_ended(self) -> int:
        """The number of tuning trials that have ended, of those that were planned. Others may replace failed ones."""
        return min(self.n_trials, sum(trial.state in ENDED for trial in self.tuning.trials))

    @property
    def is_tuned(self) -> bool:
        """True if all planned tuning trials have ended."""
        return self.n_ended >= self.n_trials

    @property
    def seconds(self) -> float:
        """The training time of all its runs."""
        runs = {run.id: run for run in (*self.tuning_runs, *self.runs.values())}
        return sum(run.metrics.get("train/seconds", 0.0) for run in runs.values())

    def finished(self, seeds: Sequence[int]) -> list[RecordedRun]:
        """Return the finished runs of the planned seeds."""
        return [run for seed in seeds if (run := self.runs.get(seed)) and run.state == "finished"]

    def recorded(self, seeds: Sequence[int], text_hash: str | None = None) -> RecordedSetting | None:
        """Return the chosen setting with its finished runs of the planned seeds; None if no run has finished.

        Leave out runs on another text than that of `text_hash`: the files of a data set can change.
        """
        finished = [run for run in self.finished(seeds) if text_hash in (None, run.text_hash)]
        if not finished:
            return None
        states = {seed: self.state(seed) for seed in {*seeds} - {run.seed for run in finished}}
        left_out = {seed: OTHER_TEXT if states[seed] == "finished" else states[seed] for seed in sorted(states)}
        return RecordedSetting(finished[0].loss, finished[0].setting, finished, left_out)

    def state(self, seed: int) -> str:
        """Return the state of the confirmation run with a seed."""
        if seed not in self.confirmation:
            return "not trained yet"
        run, trial = self.runs.get(seed), self.confirmation[seed]
        if run:
            return run.state
        return NOT_FOUND if trial.state == "complete" else trial.state


@dataclass(frozen=True)
class Comparison:
    """A comparison with its contenders in their order."""

    name: str
    command: str
    tune_steps: str  # of a tuning trial; contenders may differ in it
    max_steps: str  # of a confirmation run
    seeds: Sequence[int]  # of the confirmation, as planned
    contenders: Sequence[Contender]

    @property
    def keys(self) -> list[str]:
        """The keys that distinguish the contenders."""
        return list(dict.fromkeys(key.lstrip("+") for contender in self.contenders for key in contender.setting))

    @property
    def common_axes(self) -> list[str]:
        """The settings that were tuned for every contender."""
        first, *others = (contender.tuning.space for contender in self.contenders)
        return [key for key in first if all(key in space for space in others)]

    @property
    def is_finished(self) -> bool:
        """True if every trial and every run that was planned has ended."""
        return all(
            contender.is_tuned and (not contender.tuning.complete or self.n_confirmed(contender) == len(self.seeds))
            for contender in self.contenders
        )

    def n_confirmed(self, contender: Contender) -> int:
        """Return the number of confirmation runs of a contender that have ended."""
        trials = (contender.confirmation.get(seed) for seed in self.seeds)
        return sum(trial is not None and trial.state in ENDED for trial in trials)

    def matched(self) -> Matched:
        """Return the chosen settings that have finished runs, as a comparison like any other."""
        finished = [run for contender in self.contenders for run in contender.finished(self.seeds)]
        text_hash = max(finished, key=lambda run: run.started).text_hash if finished else None
        recorded = {contender.label: contender.recorded(self.seeds, text_hash) for contender in self.contenders}
        settings = on_common_seeds({label: setting for label, setting in recorded.items() if setting})
        compared = [*self.keys, *self.common_axes]
        if "experiment" in self.keys:  # a preset is a contender with all that it sets
            compared += differing([setting.params for setting in settings.values()])
        tried = {contender.label: contender.n_ended for contender in self.contenders}
        more = "hydra.sweeper.seeds=5"
        return Matched(self.name, enumeration(self.keys), settings, tried, compared, more, self.command)


def load(url: str, all_runs: Sequence[RecordedRun], name: str | None = None) -> list[Comparison]:
    """Return the comparisons in a storage of Optuna, the one that was started last first; or only that of this name.

    Their runs are found by their id among `all_runs`, the runs of MLflow.

    Raises:
        NoStudy: There is no comparison, or the storage cannot be read.
        ValueError: The storage can be read, but has no comparison of this name.
    """
    with opened(url) as (storage, summaries):
        found = comparisons(summaries)
        if name is not None and name not in found:
            known = ", ".join(found) or "none"
            raise ValueError(f"no comparison {name!r} in {mask(url)}; there are {known}{closest(name, found)}")
        if not found:
            raise NoStudy(f"There is no comparison in {mask(url)}.")
        names = {summary.study_name for summary in summaries}
        by_id = {run.id: run for run in all_runs}
        result = []
        for one in [name] if name else sorted(found, key=lambda each: _started(found[each]), reverse=True):
            confirmation = f"{one}/confirmation"
            confirmed = read(storage, confirmation).trials if confirmation in names else []
            contenders = [
                _contender(summary.user_attrs[COMPARISON], read(storage, summary.study_name), confirmed, by_id)
                for summary in found[one]
            ]
            plans = [summary.user_attrs[COMPARISON] for summary in found[one]]
            tune_steps, max_steps = (_steps(plan[key] for plan in plans) for key in ("tune_steps", "max_steps"))
            command, seeds = plans[0]["command"], plans[0]["seeds"]
            result.append(Comparison(one, command, tune_steps, max_steps, seeds, contenders))
    return result


def _steps(numbers: Iterable[int]) -> str:
    return " or ".join(f"{number:,}" for number in dict.fromkeys(numbers))


def _started(studies: "Sequence[StudySummary]") -> datetime:
    return min((study.datetime_start for study in studies if study.datetime_start), default=datetime.min)


def _contender(
    plan: Mapping[str, Any], tuning: Search, confirmed: Sequence[StudyTrial], by_id: Mapping[str, RecordedRun]
) -> Contender:
    trials: dict[int, StudyTrial] = {}
    for trial in confirmed:
        counts = (trial.params.get("contender"), trial.params.get("trial")) == (plan["label"], plan["chosen"])
        if counts and ((seed := trial.params["seed"]) not in trials or trials[seed].state == "failed"):
            trials[seed] = trial
    return Contender(
        label=plan["label"],
        setting=plan["setting"],
        n_trials=plan["n_trials"],
        tuning=tuning,
        chosen=next((trial for trial in tuning.trials if trial.number == plan["chosen"]), None),
        tuning_runs=_runs(tuning.trials, by_id),
        confirmation=trials,
        runs={seed: run for seed, trial in trials.items() for run in _runs([trial], by_id)},
    )


def _runs(trials: Sequence[StudyTrial], by_id: Mapping[str, RecordedRun]) -> list[RecordedRun]:
    return [by_id[run_id] for trial in trials for run_id in trial.run_ids if run_id in by_id]
