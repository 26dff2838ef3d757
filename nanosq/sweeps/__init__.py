"""Sweeps: a grid, a search with Optuna, or a comparison of tuned contenders. All can be stopped and started again."""

from functools import partial

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from nanosq.sweeps.compare_sweeper import CompareSweeper
from nanosq.sweeps.grid import GridSweeper
from nanosq.sweeps.optuna_settings import (
    CompareSweeperSettings,
    OptunaSweeperSettings,
    TPESamplerSettings,
)
from nanosq.sweeps.optuna_sweeper import OptunaSweeper
from nanosq.sweeps.overrides import defer

__all__ = [
    "CompareSweeper",
    "CompareSweeperSettings",
    "GridSweeper",
    "OptunaSweeper",
    "OptunaSweeperSettings",
    "TPESamplerSettings",
    "defer",
    "register",
]


def register() -> None:
    """Make the sweepers known to Hydra, without an installation."""
    # In the root group, where tab completion of hydra/sweeper= does not offer the schema as a sweeper.
    store = partial(ConfigStore.instance().store, provider="nanosq", replace=True)
    store(name="optuna_sweeper_schema", node=OptunaSweeperSettings)
    store(name="compare_sweeper_schema", node=CompareSweeperSettings)
    # They replace those of the plugin, whose motpe is an error that recommends tpe: Optuna has united them.
    for name in ("tpe", "motpe"):
        store(group="hydra/sweeper/sampler", name=name, node=TPESamplerSettings)
    for sweeper in (GridSweeper, OptunaSweeper, CompareSweeper):
        Plugins.instance().register(sweeper)
