"""Settings of sweeps in a single run: a user has forgotten -m, or wants one run of a preset that is for sweeps."""

from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig

from nanosq.installation import program

ONCE = "hydra.mode=RUN"  # trains once, whatever is set for sweeps
SETTINGS = ("hydra.sweeper.", "hydra.launcher.", "hydra/launcher=")  # which a single run does not read
FOR_SWEEPS = {"hydra/sweeper": "basic", "hydra/launcher": "joblib", "seeds": 1}  # and their values in a single run


def check(cfg: DictConfig, context: HydraConf) -> None:
    """Raise a ValueError for settings of a sweep in a single run, unless it has the override `hydra.mode=RUN`."""
    if context.mode != RunMode.RUN or ONCE in context.overrides.hydra:
        return
    typed = {_key(text): text for text in [*context.overrides.hydra, *context.overrides.task]}
    for_sweeps = _chosen(cfg, context)
    for_sweeps |= {key: text for key, text in typed.items() if text.lstrip("+").startswith(SETTINGS)}
    for key, text in for_sweeps.items():
        if key in typed:
            raise ValueError(f"{typed[key]} is for sweeps and needs -m: {program()} -m {typed[key]}")
        preset = context.runtime.choices.get("experiment")
        where = f"experiment={preset}" if preset else "the configuration"
        raise ValueError(f"{where} is for sweeps ({text}) and needs -m, or {ONCE} to train it once")


def overrides(cfg: DictConfig, context: HydraConf) -> list[str]:
    """Return the override that a single run with the settings of a job needs so that `check` accepts it, if any.

    The command of this run has none of the overrides that are for sweeps. So a preset decides about them.
    """
    typed = {_key(text) for text in [*context.overrides.hydra, *context.overrides.task]}
    chosen = {*_chosen(cfg, context)}
    chosen = chosen | (typed & FOR_SWEEPS.keys()) if "experiment" in typed else chosen - typed
    return [ONCE] if chosen or ONCE in context.overrides.hydra else []


def _chosen(cfg: DictConfig, context: HydraConf) -> dict[str, str]:
    """Return the settings of a configuration that are for sweeps, by their keys."""
    values = {**context.runtime.choices, "seeds": cfg.seeds}
    return {key: f"{key}={values[key]}" for key, value in FOR_SWEEPS.items() if values[key] != value}


def _key(text: str) -> str:
    return text.lstrip("+").partition("=")[0]
