"""The function of hydra.sweeper.custom_search_space, which draws more values of a trial than its axes say."""

from collections.abc import Callable
from typing import Any

from optuna.trial import Trial

from nanosq import component_errors, config
from nanosq.errors import InputError

KEY = "hydra.sweeper.custom_search_space"
CONTRACT = "it takes (cfg, trial) and calls trial.suggest_float and the like with the keys of settings"


def load(path: str | None) -> Callable[[Any, Trial], None]:
    """Return the function that a path names, or one that draws nothing. Its errors become errors of one line.

    Raises:
        ImportError: The path names no function.
    """
    if not path:
        return lambda cfg, trial: None
    try:
        function = config.get_target(path)
    except ImportError as error:
        raise ImportError(f"{KEY}: {error}") from error

    def extend(cfg: Any, trial: Trial) -> None:
        with component_errors.calling(f"{KEY}={path}", CONTRACT):
            function(cfg, trial)
        if drawn := {"seed", "seeds"} & {key.lstrip("+") for key in trial.params}:
            raise InputError(f"{KEY}={path}: {min(drawn)} is no setting of a trial: list seeds, seed=1,2,3")

    return extend
