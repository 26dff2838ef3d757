"""The schemas of the sweepers with Optuna: names, types and ranges of their keys; and that of a sampler.

Hydra checks the types, and `check` the ranges. hydra-optuna-sweeper has what these schemas do not change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Union, get_type_hints

from annotated_types import Ge
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf, TPESamplerConfig
from omegaconf import MISSING, OmegaConf

from nanosq import config, signature
from nanosq.filesystem import checked_name
from nanosq.ranges import Count, UnitInterval
from nanosq.schema import NumberOfSeeds
from nanosq.suggestion import closest
from nanosq.sweeps.metrics import Metric

CountOrNone = Annotated[int | None, Ge(1)]


@dataclass
class OptunaSweeperSettings(OptunaSweeperConf):
    """The schema of hydra/sweeper=optuna: that of hydra-optuna-sweeper, and what this sweeper adds."""

    _target_: str = "nanosq.sweeps.optuna_sweeper.OptunaSweeper"
    defaults: list[Any] = field(default_factory=list)  # conf/hydra/sweeper/optuna.yaml chooses the sampler
    storage: str = MISSING
    n_trials: Count = 20
    n_jobs: CountOrNone = None  # type: ignore[assignment]  # trials launched together; null: as many as the launcher runs
    max_failure_rate: UnitInterval = 1.0
    params: dict[str, str] | None = field(default_factory=dict)
    pruner: dict[str, Any] = MISSING
    direction: Any = None  # null: that of each metric
    objectives: list[str] = field(default_factory=lambda: [Metric().key])
    timeout: Union[int, float, str, None] = None  # noqa: UP007  # seconds, or a text as "1h30m"; null: no limit
    enqueue: list[Any] = field(default_factory=lambda: ["current"])  # see StartingPoints.find
    constraints: Any = None  # bounds by the key of a metric; see constraints.py. An empty mapping could not be extended
    spaces: dict[str, dict[str, str]] = field(default_factory=dict)  # see SearchSpace.parse


@dataclass
class CompareSweeperSettings(OptunaSweeperSettings):
    """The schema of hydra/sweeper=compare: that of the searches of its contenders, and what follows them."""

    _target_: str = "nanosq.sweeps.compare_sweeper.CompareSweeper"
    tune_steps: CountOrNone = None  # steps of a tuning trial; null: a quarter of those of a full run
    seeds: NumberOfSeeds = 5  # runs of each contender in the confirmation
    report: str = MISSING  # function that writes the page: analysis.report.comparison.show


@dataclass
class TPESamplerSettings(TPESamplerConfig):
    """The schema of hydra/sweeper/sampler=tpe. hydra-optuna-sweeper has the defaults of Optuna 4."""

    multivariate: bool | None = None  # type: ignore[assignment]  # null: true for one metric, false for several
    constant_liar: bool = True


def check(settings: Mapping[str, Any], schema: type[OptunaSweeperSettings]) -> None:
    """Check the ranges of the settings of a sweeper, of which Hydra has checked the names and types.

    Raises:
        ValueError: A setting is out of its range. The message names its key.
    """
    hints = get_type_hints(schema, include_extras=True)
    for key, value in config.arguments(OmegaConf.create(dict(settings))).items():
        if key not in hints:
            raise ValueError(f"hydra.sweeper has no setting {key!r}{closest(key, hints)}")
        if key not in ("sampler", "pruner"):  # they have signatures of their own
            signature.check_value(f"hydra.sweeper.{key}", value, hints[key])
    if settings["study_name"] is not None:
        checked_name("hydra.sweeper.study_name", settings["study_name"])
