"""The schemas of hydra/sweeper=optuna and compare, and of a sampler, where they differ from hydra-optuna-sweeper."""

from dataclasses import dataclass, field
from typing import Any

from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf, TPESamplerConfig
from omegaconf import MISSING

from nanosq.sweeps.metrics import Metric


@dataclass
class OptunaSweeperSettings(OptunaSweeperConf):
    """The schema of hydra/sweeper=optuna: that of hydra-optuna-sweeper, and what this sweeper adds."""

    _target_: str = "nanosq.sweeps.optuna_sweeper.OptunaSweeper"
    defaults: list[Any] = field(default_factory=list)  # conf/hydra/sweeper/optuna.yaml chooses the sampler
    n_jobs: int | None = None  # type: ignore[assignment]  # trials launched together; null: as many as the launcher runs
    pruner: Any = MISSING
    direction: Any = None  # null: that of each metric
    objectives: list[str] = field(default_factory=lambda: [Metric().key])
    timeout: Any = None  # seconds, or a text such as "1h30m"; null: no limit
    enqueue: list[Any] = field(default_factory=lambda: ["current"])  # see StartingPoints.find
    constraints: Any = None  # bounds by the key of a metric; see constraints.py. An empty mapping could not be extended
    spaces: dict[str, dict[str, str]] = field(default_factory=dict)  # see SearchSpace.parse


@dataclass
class CompareSweeperSettings(OptunaSweeperSettings):
    """The schema of hydra/sweeper=compare: that of the searches of its contenders, and what follows them."""

    _target_: str = "nanosq.sweeps.compare_sweeper.CompareSweeper"
    tune_steps: int | None = None  # steps of a tuning trial; null: a quarter of those of a full run
    seeds: int = 5  # runs of each contender in the confirmation
    report: str = MISSING  # function that writes the page: analysis.report.comparison.show


@dataclass
class TPESamplerSettings(TPESamplerConfig):
    """The schema of hydra/sweeper/sampler=tpe. hydra-optuna-sweeper has the defaults of Optuna 4."""

    multivariate: bool | None = None  # type: ignore[assignment]  # null: true for one metric, false for several
    constant_liar: bool = True
