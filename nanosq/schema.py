"""The schema of the configuration: the type and the range of every value outside of components, and its check."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Union, get_type_hints

from annotated_types import Ge, Le, Lt, MinLen
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from nanosq import config, signature
from nanosq.filesystem import check_folder
from nanosq.installation import program
from nanosq.settings import SampleSettings, TrainSettings
from nanosq.suggestion import closest

MAX_SEEDS = 1000  # of a trial

Name = Annotated[str, MinLen(1)]
Seed = Annotated[int, Ge(0), Lt(10**18)]
NumberOfSeeds = Annotated[int, Ge(1), Le(MAX_SEEDS)]
Component = Any  # a mapping; the signature of its target is its schema


@dataclass
class DataSettings:
    """Settings of the text."""

    source: Component
    tokenizer: Component
    window: str


@dataclass
class Config:
    """Root of conf/config.yaml."""

    model: Component
    loss: Component
    optimizer: Component
    schedule: Component
    data: DataSettings
    tracking: Component
    train: TrainSettings
    samples: SampleSettings
    seed: Seed
    seeds: NumberOfSeeds
    score_test: bool
    device: Name
    precision: Name
    compile: Union[bool, str]  # noqa: UP007  (OmegaConf does not support bool | str)
    init_from: Name | None
    resume: Name
    cache_dir: Name
    checkpoint_dir: Name


@dataclass
class GridSweeperSettings:
    """Settings of hydra/sweeper=basic and grid. A configuration has them also without a sweep."""

    _target_: str = "nanosq.sweeps.grid.GridSweeper"
    # The values of each axis, as on the command line. null: only the axes on the command line.
    params: dict[str, str] | None = field(default_factory=dict)
    zip: list[str] = field(default_factory=list)  # axes to pair value by value instead of combining them


COMPONENTS = ("model", "loss", "optimizer", "schedule", "tracking", "data.source", "data.tokenizer")


def register() -> None:
    """Register the schemas with Hydra, and `${program:}` of the help in conf/config.yaml."""
    for name, node in (("schema", Config), ("grid_sweeper_schema", GridSweeperSettings)):
        ConfigStore.instance().store(name=name, node=node, provider="nanosq", replace=True)
    OmegaConf.register_resolver("program", program, replace=True)


def check(cfg: DictConfig) -> None:
    """Check that a composed configuration is complete, as `check_values` does, and that its folder can be written.

    Raises:
        ValueError: A value is wrong, or the folder cannot be written.
        OmegaConfBaseException: As for `check_values`.
    """
    check_values(cfg)
    check_folder("checkpoint_dir", Path(cfg.checkpoint_dir))


def check_values(cfg: DictConfig) -> None:
    """Check that a configuration is complete, and that the values outside of components are in their ranges.

    Raises:
        ValueError: A setting is unknown, missing or out of range, or a component is none.
        OmegaConfBaseException: A value refers to a setting that does not exist.
    """
    _check_keys("", cfg, Config)
    for section, kind in (("data", DataSettings), ("train", TrainSettings), ("samples", SampleSettings)):
        _check_keys(f"{section}.", cfg[section], kind)
    for group in COMPONENTS:
        config.check_shape(group, OmegaConf.select(cfg, group))
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{key} is missing: set {key}=VALUE on the command line")
    OmegaConf.to_container(cfg, resolve=True)
    for key, hint in get_type_hints(Config, include_extras=True).items():
        if not OmegaConf.is_config(cfg[key]):
            signature.check_value(key, cfg[key], hint)
    for section in (cfg.train, cfg.samples):
        config.settings(section)


def _check_keys(prefix: str, section: Any, kind: type) -> None:
    """Raise a ValueError if a section does not have the fields of a dataclass."""
    fields = get_type_hints(kind)
    for key in section if OmegaConf.is_dict(section) else ():
        if key not in fields:
            names = [f"{prefix}{field}" for field in fields]
            advice = closest(f"{prefix}{key}", names, otherwise=f"{program()} --help lists them all")
            raise ValueError(f"unknown setting {f'{prefix}{key}'!r}{advice}")
    for key in fields:
        if OmegaConf.select(section, key, default="???") == "???":
            raise ValueError(f"{prefix}{key} is missing: set {prefix}{key}=VALUE on the command line")
