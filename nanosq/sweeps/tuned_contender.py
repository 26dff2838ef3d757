"""A contender of a comparison: its search, and the setting that the search has chosen."""

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from nanosq import config
from nanosq.errors import InputError
from nanosq.sweeps.attributes import COMPARISON, COST, DIVERGED
from nanosq.sweeps.budget import Cost, Pace
from nanosq.sweeps.contenders import ContenderSetting, Entry
from nanosq.sweeps.launching import LENGTH, TrialLauncher
from nanosq.sweeps.metrics import Metric
from nanosq.sweeps.optuna_settings import CompareSweeperSettings
from nanosq.sweeps.search import LiveSearch

if TYPE_CHECKING:
    import optuna

MAX_EVALUATIONS = 16  # of a tuning trial; a pruner may end it at each of them
DEFAULT_LENGTH = 4  # steps of a run at full length over those of a tuning trial


class TunedContender:
    """A contender with its search. Nothing is written before the search is opened.

    Args:
        sweeper: The sweeper that composes the trials.
        settings: Settings of the sweeper.
        metric: What the tuning minimizes or maximizes.
        entry: The overrides of the comparison.
        setting: The contender.
    """

    def __init__(
        self,
        sweeper: TrialLauncher,
        settings: CompareSweeperSettings,
        metric: Metric,
        entry: Entry,
        setting: ContenderSetting,
    ) -> None:
        self.setting, self.label = setting, setting.label
        full = sweeper.check(self.label, [*entry.fixed, *setting.overrides])
        if full.seeds != 1:
            raise InputError(f"seeds={full.seeds}: in a comparison, hydra.sweeper.seeds is the number of seeds")
        if full.hydra.runtime.choices["tracking"] == "none":
            raise InputError("tracking=none: a comparison reads its verdict from the recorded runs; leave it out")
        if not full.score_test:
            raise InputError("score_test=false: the verdict of a comparison is on the test split; leave it out")
        self.seed, self.max_steps = int(full.seed), int(full.train.max_steps)
        self._data = {f"data.{key}": value for key, value in config.flatten(full.data).items() if key != "window"}
        self.length = {key: OmegaConf.select(full, key) for key in LENGTH}
        self._n_evaluations = self.max_steps / full.train.eval_every
        self.tune_steps = settings.tune_steps or max(1, self.max_steps // DEFAULT_LENGTH)
        if not 1 <= self.tune_steps <= self.max_steps:
            raise InputError(
                f"hydra.sweeper.tune_steps={self.tune_steps} is not between 1 and train.max_steps={self.max_steps}"
            )
        eval_every = math.ceil(self.tune_steps / MAX_EVALUATIONS)
        self._n_tuning_evaluations = math.ceil(self.tune_steps / eval_every)
        tuning = {
            "train.max_steps": self.tune_steps,
            "train.eval_every": eval_every,
            "samples.count": 0,
            "score_test": "false",
        }
        lines = [f"{key}={value}" for key, value in tuning.items()]
        self._tuning = [*tuning]
        self._full = [line for line in (*entry.fixed, *setting.overrides) if _key(line) in tuning]
        arguments = [*entry.fixed, *entry.axes, *setting.overrides, *lines]
        self.search = LiveSearch(sweeper, settings, [metric], arguments, label=self.label)
        self.most = self.search.total  # trials; a grid may have fewer points than trials are wanted
        if varied := [key for key in tuning if self.search.space.varies(key)]:
            raise InputError(f"hydra.sweeper: {varied[0]} cannot be an axis of a comparison, whose trials set it")

    def check_same_text(self, other: "TunedContender") -> None:
        """Refuse trials of this contender that have another text than those of another one.

        Raises:
            InputError: A setting of the data is an axis, or differs. No verdict is possible.
        """
        for key in sorted({*self._data, *other._data}):
            if self.search.space.varies(key) or self._data.get(key) != other._data.get(key):
                raise InputError(f"{key} has several values: a verdict needs contenders with the same text")

    @property
    def identity(self) -> list[Any]:
        """The facts that make the contender the same in another start: settings, search space, full length and code."""
        space = self.search.space
        parts = [{**part.axes, **part.fixed} for part in (space.always, *space.conditional.values())]
        return [
            self.label,
            self.search.shared,
            [{k: str(v) for k, v in part.items()} for part in parts],
            self.length,
            self.search.code,
        ]

    def note(self, comparison: dict[str, Any]) -> None:
        """Record facts about the comparison and its contender in the study, for the report."""
        own = {
            "label": self.label,
            "setting": dict(self.setting.setting),
            "tune_steps": self.tune_steps,
            "max_steps": self.max_steps,
        }
        self.search.study.study.set_user_attr(COMPARISON, comparison | own)

    @property
    def chosen(self) -> "optuna.trial.FrozenTrial | None":
        """The best tuning trial; None if none has finished."""
        return next(iter(self.search.best()), None)

    def full_setting(self) -> Sequence[str]:
        """Return the overrides of the chosen setting at full length."""
        assert self.chosen is not None
        drawn = self.search.space.overrides(self.chosen.params)
        return [*self._full, *(line for line in drawn if _key(line) not in self._tuning)]

    def costs(self) -> list[Cost]:
        """Return the costs of the trials that were trained to the end."""
        trials = self.search.study.trials
        ended = (t for t in trials if t.state.name == "COMPLETE" and DIVERGED not in t.user_attrs)
        return [Cost(**trial.user_attrs[COST]) for trial in ended if COST in trial.user_attrs]

    def pace(self, usual: Cost) -> Pace:
        """Return how far the tuning is and what is expected of the rest.

        Args:
            usual: The usual cost of a trial of any contender.
        """
        training = statistics.median(cost.in_training for cost in self.costs() or [usual])
        seconds = [usual.overhead + cost.in_training for cost in self.costs()]
        others = (t for t in self.search.study.trials if t.state.name != "COMPLETE")
        seconds += [trial.user_attrs[COST]["seconds"] for trial in others if COST in trial.user_attrs]
        evaluations = max(1.0, self._n_evaluations / self._n_tuning_evaluations)
        run = usual.overhead * evaluations + training * self.max_steps / self.tune_steps
        return Pace(self.search.n_done, statistics.fmean(seconds or [usual.seconds]), run)


def _key(line: str) -> str:
    return line.split("=")[0].lstrip("+~")
