"""Sweeps: all combinations of a grid, or a search with Optuna. Both can be stopped and started again."""

from functools import partial

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from nanosq.sweeps.grid import GridSweeper
from nanosq.sweeps.optuna_settings import OptunaSweeperSettings, TPESamplerSettings
from nanosq.sweeps.optuna_sweeper import OptunaSweeper
from nanosq.sweeps.overrides import defer

__all__ = ["GridSweeper", "OptunaSweeper", "OptunaSweeperSettings", "TPESamplerSettings", "defer", "register"]


def register() -> None:
    """Make the sweepers known to Hydra, without an installation."""
    # In the root group, where tab completion of hydra/sweeper= does not offer the schema as a sweeper.
    store = partial(ConfigStore.instance().store, provider="nanosq", replace=True)
    store(name="optuna_sweeper_schema", node=OptunaSweeperSettings)
    store(group="hydra/sweeper/sampler", name="tpe", node=TPESamplerSettings)  # it replaces that of the plugin
    for sweeper in (GridSweeper, OptunaSweeper):
        Plugins.instance().register(sweeper)
