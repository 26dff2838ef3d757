"""The trial of a sweep that a job runs, and the Optuna study to which the job reports.

A trial is one setting of a sweep. It has one run for each seed. The sweeper passes the trial to the job of a run as an
override, because launchers keep overrides, wherever they start the job.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from hydra.conf import HydraConf
from hydra.types import RunMode

from nanosq import config
from nanosq.sweeps import constraints
from nanosq.sweeps.attributes import LINK, PRUNED, SETTINGS, run_id_key
from nanosq.sweeps.constraints import Constraint
from nanosq.sweeps.metrics import TRAIN_SECONDS

if TYPE_CHECKING:
    import optuna

    from nanosq.tracking import Store

FULL_TRAINING = 1000  # the last step in a study, where a step is a thousandth of training
VARIABLE = "NANOSQ_TRIAL"  # a key of hydra.job.env_set, the one part of Hydra's configuration that takes any key


class Pruned(Exception):  # noqa: N818  (as optuna.TrialPruned)
    """The pruner ends the trial early."""


@dataclass(frozen=True)
class TrialRun:
    """One run of a trial."""

    sweep: str  # name of the sweep: of the Optuna study, or of the grid's folder
    trial: int
    repeat: int = 0  # index of the seed among the seeds of the trial
    setting: str = ""  # what distinguishes the trial from others, as a text for the console
    seed: int = 0
    label: str = ""  # name of the trial on the console; empty: its number
    in_study: bool = False  # whether the sweep is an Optuna study, to which the run reports
    contender: str = ""  # in the confirmation of a comparison
    deadline: float | None = None  # Unix time at which the run is interrupted
    is_parallel: bool = False  # whether other runs write to the same terminal
    progress: str = ""  # path of the file in which the runs of the sweep count how many have ended, if they share one

    def override(self) -> str:
        """Return the override that passes this object to a job. Its value has no character of Hydra's grammar."""
        return f"++hydra.job.env_set.{VARIABLE}={quote(json.dumps(asdict(self)), safe='')}"

    def __str__(self) -> str:
        return f"{self._name} seed {self.seed}" if self.repeat else self._name

    @property
    def _name(self) -> str:
        return self.label or f"#{self.trial}"

    @property
    def group(self) -> str:
        """The name of the runs with other seeds, and of this run, whose values are averaged."""
        return self.contender or self._name

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the run in the tracking store."""
        return {"sweep": self.sweep, "trial": str(self.trial)}


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to launch: its first run, from which the runs with other seeds are made, and its overrides."""

    run: TrialRun
    overrides: Sequence[str]

    @property
    def name(self) -> str:
        """The name of the trial in a sentence."""
        return self.run.label or f"trial {self.run.trial}"

    def __str__(self) -> str:
        return str(self.run)


def current(hydra: HydraConf) -> TrialRun | None:
    """Return the run of a trial that a job is, or None outside of a sweep.

    Args:
        hydra: The `hydra` node of the job's configuration, `HydraConfig.get()`.
    """
    if hydra.mode != RunMode.MULTIRUN:
        return None
    encoded = hydra.job.env_set.get(VARIABLE)
    if encoded:
        return TrialRun(**json.loads(unquote(encoded)))
    return TrialRun(Path(hydra.sweep.dir).resolve().name, int(hydra.job.num))  # a sweeper of another package


class PrunerReport:
    """Reports the evaluations of a run to the Optuna study of its trial, whose pruner may end the trial.

    Trials may train for different numbers of steps, and are compared at the same fraction of training: a step of the
    study is a thousandth of training. Of several evaluations within a thousandth, the study keeps the first.

    Only the first seed of a trial is compared with other trials. If it is pruned, so are the other seeds. Without a
    study, as in a grid, the methods do nothing.
    """

    def __init__(self, trial: TrialRun | None, sweeper: Any, *, max_steps: int) -> None:
        """Open the study.

        Args:
            trial: The run; None outside of a sweep.
            sweeper: The `hydra.sweeper` node of the job's configuration; that of a sweep with Optuna, if the run is in
                a study.
            max_steps: The last step of the run.
        """
        self._max_steps = max_steps
        self._metric = ""
        self._trial: optuna.Trial | None = None
        self._constraints: list[Constraint] = []
        if trial is None or not trial.in_study:
            return
        from nanosq.sweeps import storage

        self._repeat = trial.repeat
        self._study = storage.open_study(trial.sweep, sweeper.storage)
        self._study.pruner = config.build("hydra.sweeper.pruner", sweeper.pruner)
        self._trial = storage.open_trial(self._study, sweeper.storage, trial.trial)
        self._reported = {*self._stored_trial().intermediate_values}  # before the run was interrupted
        self._constraints = constraints.stored(self._study.user_attrs.get(SETTINGS, {}))
        if len(sweeper.objectives) == 1:  # Optuna does not prune for several metrics
            self._metric = sweeper.objectives[0]

    def _stored_trial(self) -> "optuna.trial.FrozenTrial":
        assert self._trial is not None
        return self._study.get_trials(deepcopy=False)[self._trial.number]

    @property
    def pruned_before(self) -> bool:
        """True if another run of the trial was pruned before this run started."""
        if self._trial is None:
            return False
        attributes = self._stored_trial().user_attrs
        return PRUNED in attributes and run_id_key(self._repeat) not in attributes

    def start(self, run_id: str, link: str) -> None:
        """Store the id and the link of the run in the study. An empty id, of a run that is not recorded, is ignored."""
        if self._trial is None or not run_id:
            return
        self._trial.set_user_attr(run_id_key(self._repeat), run_id)
        if not self._repeat:
            self._trial.set_user_attr(LINK, link)

    def violated(self, values: Mapping[str, float]) -> Constraint | None:
        """Return the first constraint of the study that one of these final values violates."""
        found = (c for c in self._constraints if c.key in values and c.excess(values[c.key]) > 0)
        return next(found, None)

    def evaluated(self, metrics: Mapping[str, float], step: int, *, is_last: bool) -> None:
        """Report an evaluation. Only the metric by which the sweep compares trials counts.

        Args:
            metrics: The metrics by their key.
            step: Number of training steps taken.
            is_last: Whether training has ended: pruning would then save nothing, and lose the result.

        Raises:
            Pruned: The pruner ends the trial, or has ended it in another run; or training takes longer than a
                constraint allows.
        """
        if self._trial is None:
            return
        seconds = {key: value for key, value in metrics.items() if key == TRAIN_SECONDS.key}  # they only grow
        if not is_last and self.violated(seconds):
            self._trial.set_user_attr(PRUNED, True)
            raise Pruned
        if self._metric not in metrics:
            return
        self._report(metrics[self._metric], step)
        if is_last:
            return
        if PRUNED in self._stored_trial().user_attrs or (self._repeat == 0 and self._trial.should_prune()):
            self._trial.set_user_attr(PRUNED, True)
            raise Pruned

    def evaluated_before(self, store: "Store", run_id: str) -> None:
        """Report the evaluations of a recorded run, which the pruner compares with those of other trials."""
        if self._trial is not None and self._metric:
            for step, value in store.history(run_id, self._metric):
                self._report(value, step)

    def _report(self, value: float, step: int) -> None:
        """Report a value to the study, if it is the first one of its fraction of training, and of the first seed."""
        assert self._trial is not None
        fraction = FULL_TRAINING * step // self._max_steps
        if self._repeat == 0 and fraction not in self._reported:
            self._trial.report(value, fraction)
            self._reported.add(fraction)
