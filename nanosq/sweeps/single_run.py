"""Settings of sweeps in a single run: a user has forgotten -m, or wants one run of a preset that is for sweeps."""

from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig

from nanosq.installation import program

ONCE = "hydra.mode=RUN"  # trains once, whatever is set for sweeps
SETTINGS = ("hydra.sweeper.", "hydra.launcher.", "hydra/launcher=")  # which a single run does not read
DEFAULTS = {"hydra/sweeper": "basic", "hydra/launcher": "joblib"}


def check(cfg: DictConfig, context: HydraConf) -> None:
    """Raise a ValueError for settings of a sweep in a single run, unless its overrides say that it is one."""
    if context.mode != RunMode.RUN or ONCE in context.overrides.hydra:
        return
    typed = [text for text in context.overrides.hydra if text.lstrip("+").startswith(SETTINGS)]
    for text in [*_chosen(context), *typed]:
        if text in context.overrides.hydra:
            raise ValueError(f"{text} is for sweeps and needs -m: {program()} -m {text}")
        preset = context.runtime.choices.get("experiment")
        where = f"experiment={preset}" if preset else "the configuration"
        raise ValueError(f"{where} is for sweeps ({text}) and needs -m, or {ONCE} to train it once")
    if cfg.seeds != 1:
        raise ValueError(f"seeds={cfg.seeds} repeats the trials of a sweep and needs -m: {program()} -m ...")


def overrides(cfg: DictConfig, context: HydraConf) -> list[str]:
    """Return the overrides that `check` demands for a single run of the configuration of a job.

    They are for settings of sweeps that the overrides of the job do not choose, or that a preset may choose otherwise.
    """
    typed = {text.partition("=")[0].lstrip("+") for text in [*context.overrides.hydra, *context.overrides.task]}
    keys = {text.partition("=")[0] for text in _chosen(context)} | ({"seeds"} if cfg.seeds != 1 else set())
    is_chosen = keys if "experiment" in typed else keys - typed
    return [ONCE] if is_chosen or ONCE in context.overrides.hydra else []


def _chosen(context: HydraConf) -> list[str]:
    choices = context.runtime.choices
    return [f"{key}={choices[key]}" for key, default in DEFAULTS.items() if choices[key] != default]
