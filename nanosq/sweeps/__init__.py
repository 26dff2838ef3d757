"""Sweeps: all combinations of a grid, or a search with Optuna. Both can be stopped and started again."""

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from nanosq.sweeps.grid import GridSweeper
from nanosq.sweeps.optuna_sweeper import OptunaSweeper, OptunaSweeperSettings
from nanosq.sweeps.overrides import defer

__all__ = ["GridSweeper", "OptunaSweeper", "OptunaSweeperSettings", "defer", "register"]


def register() -> None:
    """Make the sweepers known to Hydra, without an installation."""
    # In the root group, where tab completion of hydra/sweeper= does not offer the schema as a sweeper.
    ConfigStore.instance().store(name="optuna_sweeper_schema", node=OptunaSweeperSettings, provider="nanosq")
    for sweeper in (GridSweeper, OptunaSweeper):
        Plugins.instance().register(sweeper)
