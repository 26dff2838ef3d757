"""Sweeps: every combination of a grid, or a search with Optuna; either can be cut short and given again."""

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from nanosq.sweeps.grid import GridSweeper
from nanosq.sweeps.optuna_sweeper import OptunaSearch, SearchConf


def register() -> None:
    """Make the sweepers known to Hydra; no installation step is needed."""
    # A name of its own: conf/hydra/sweeper/optuna.yaml extends it, and stands before the plugin's own.
    ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchConf, provider="nanosq")
    for sweeper in (GridSweeper, OptunaSearch):
        Plugins.instance().register(sweeper)
