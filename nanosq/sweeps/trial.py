"""A job of a sweep, seen from inside: which trial it is, and what it tells its Optuna study while it lasts.

A trial is one setting of a sweep; each of its jobs trains it with another seed. The sweeper tells a job which one it is
through the environment, the one way that every launcher keeps (hydra.job.env_set).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig

from nanosq import config

if TYPE_CHECKING:
    import optuna

VARIABLE = "NANOSQ_TRIAL"
PRUNED = "pruned"  # the attribute of an Optuna trial one of whose jobs was
# Attributes of an Optuna trial; the ids of further seeds end in their number.
RUN_ID, LINK = "mlflow_run_id", "mlflow_link"


class Pruned(Exception):  # noqa: N818  (as optuna.TrialPruned)
    """The pruner ends this trial early."""


@dataclass(frozen=True)
class TrialRun:
    sweep: str  # its name: that of an Optuna study, of the folder of a grid
    trial: int
    repeat: int = 0  # how much is added to the seed
    setting: str = ""  # what sets the trial apart from the others, to be shown

    def override(self) -> str:
        """By which a sweeper tells the job: in letters that mean nothing to Hydra."""
        return f"hydra.job.env_set.{VARIABLE}={quote(json.dumps(asdict(self)), safe='')}"

    def __str__(self) -> str:
        return f"#{self.trial} seed +{self.repeat}" if self.repeat else f"#{self.trial}"

    @property
    def tags(self) -> dict[str, str]:
        return {"sweep": self.sweep, "trial": str(self.trial)}


def current(hydra_config: HydraConf) -> TrialRun | None:
    """The job that this process is running; None for a single run."""
    if hydra_config.mode != RunMode.MULTIRUN:
        return None
    told = os.environ.get(VARIABLE)
    if told:
        return TrialRun(**json.loads(unquote(told)))
    return TrialRun(Path(hydra_config.sweep.dir).resolve().name, int(hydra_config.job.num))  # another plugin's sweep


class PrunerReport:
    """What a job tells the Optuna study that it belongs to; where there is none, nothing to nobody.

    Of a trial's seeds the first is compared with other trials; where it is given up, so are the others.
    """

    def __init__(self, job: TrialRun | None, sweeper: DictConfig, *, max_steps: int) -> None:
        self._max_steps = max_steps
        self._objective = ""
        self._trial: optuna.Trial | None = None
        if job is not None and "objectives" in sweeper:
            self._repeat = job.repeat
            self._connect(sweeper.storage, job, sweeper.pruner)
            if len(sweeper.objectives) == 1:  # of several, Optuna prunes none
                (self._objective,) = sweeper.objectives

    def _connect(self, url: str, job: TrialRun, pruner: DictConfig) -> None:
        import optuna

        from nanosq.sweeps.study import connect

        self._storage = connect(url)
        # What draws the settings is the sweeper's.
        study = optuna.load_study(
            study_name=job.sweep,
            storage=self._storage,
            sampler=optuna.samplers.RandomSampler(),
            pruner=config.build("hydra.sweeper.pruner", pruner),
        )
        study_id = self._storage.get_study_id_from_name(job.sweep)
        self._trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, job.trial)
        self._trial = optuna.Trial(study, self._trial_id)
        self._reported = {*self._storage.get_trial(self._trial_id).intermediate_values}  # before it was cut short

    @property
    def _run_id(self) -> str:
        return f"{RUN_ID}_{self._repeat}" if self._repeat else RUN_ID

    @property
    def pruned_before(self) -> bool:
        """Whether the trial was pruned before this job of it had begun."""
        return self._trial is not None and self._pruned() and self._run_id not in self._trial.user_attrs

    def _pruned(self) -> bool:
        return PRUNED in self._storage.get_trial(self._trial_id).user_attrs

    def start(self, run_id: str, link: str) -> None:
        """Make the run of the tracker known to the study."""
        if self._trial is None or not run_id:
            return
        self._trial.set_user_attr(self._run_id, run_id)
        if not self._repeat:
            self._trial.set_user_attr(LINK, link)

    def evaluated(self, metrics: Mapping[str, float], step: int) -> None:
        """Raises Pruned where the course of the objective, if it is among the metrics, does not promise enough."""
        if self._trial is None or self._objective not in metrics:
            return
        first = self._repeat == 0
        if first and step not in self._reported:
            self._trial.report(metrics[self._objective], step)
        if step == self._max_steps:  # it costs nothing any more
            return
        if self._pruned() or (first and self._trial.should_prune()):
            self._trial.set_user_attr(PRUNED, True)
            raise Pruned
