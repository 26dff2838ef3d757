"""The configuration that `python run.py` composes from conf/, for programs that read it without running it."""

from collections.abc import Sequence

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nanosq import schema, sweeps
from nanosq.error_reports import one_line
from nanosq.errors import InputError
from nanosq.installation import CONF

schema.register()
sweeps.register()  # conf/hydra/sweeper refers to their schemas


def compose(overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of `python run.py OVERRIDES`, without Hydra's own part.

    Raises:
        InputError: An override names an unknown key or file.
    """
    try:
        with hydra.initialize_config_dir(str(CONF)):
            return hydra.compose("config", overrides=[*overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(one_line(error)) from error
