"""Settings of training and of sample texts: the typed sections of conf/config.yaml, passed whole to what uses them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Union


@dataclass
class TrainSettings:
    """Settings of the training loop. conf/config.yaml explains each of them and holds the defaults."""

    max_steps: int
    batch_size: int
    accumulate: int
    clip_norm: float | None
    warmup: Union[int, float]  # noqa: UP007  (OmegaConf does not support int | float)
    min_lr_factor: float
    eval_every: Union[int, float]  # noqa: UP007
    log_every: int
    checkpoint_every: int | None
    patience: int | None
    weights: str
    keep_last: bool

    def check(self) -> None:
        """Raise a ValueError that names the first setting that is out of range."""
        for key in ("max_steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "patience"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"train.{key} must be at least 1, not {value}")
        if self.eval_every <= 0 or (isinstance(self.eval_every, float) and self.eval_every >= 1):
            raise ValueError(
                f"train.eval_every must be a number of steps or a fraction in (0, 1), not {self.eval_every}"
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"train.clip_norm must be positive or null, not {self.clip_norm}")
        if self.warmup < 0 or (isinstance(self.warmup, float) and self.warmup >= 1):
            raise ValueError(f"train.warmup must be a number of steps or a fraction in [0, 1), not {self.warmup}")
        if not 0 <= self.min_lr_factor <= 1:
            raise ValueError(f"train.min_lr_factor must be in [0, 1], not {self.min_lr_factor}")
        if self.weights not in ("best", "last"):
            raise ValueError(f"train.weights={self.weights}: choose best or last")

    @property
    def warmup_steps(self) -> int:
        """Number of warmup steps."""
        return round(self.warmup * self.max_steps) if isinstance(self.warmup, float) else self.warmup

    @property
    def eval_steps(self) -> int:
        """Number of steps from one evaluation to the next."""
        if isinstance(self.eval_every, float):
            return max(1, math.ceil(round(self.eval_every * self.max_steps, 6)))  # 0.1 * 30 is a little more than 3
        return self.eval_every

    @property
    def n_evaluations(self) -> int:
        """Number of evaluations of a run that trains all of its steps."""
        return math.ceil(self.max_steps / self.eval_steps)

    def is_logged(self, step: int) -> bool:
        """Return whether the training loss of a step is logged."""
        return step % self.log_every == 0 or step == self.max_steps

    def is_evaluated(self, step: int) -> bool:
        """Return whether the model is evaluated after a step. The last step of a run is evaluated in any case."""
        return step % self.eval_steps == 0

    def is_checkpointed(self, step: int) -> bool:
        """Return whether a checkpoint is written after a step."""
        return step > 0 and self.checkpoint_every is not None and step % self.checkpoint_every == 0

    def is_read(self, step: int) -> bool:
        """Return whether the loop reads the values of a step in any case, because it logs, evaluates or saves them."""
        return self.is_logged(step) or self.is_evaluated(step) or self.is_checkpointed(step)


@dataclass
class SampleSettings:
    """Settings of the texts that a trained model writes."""

    count: int
    length: int
    temperature: float
    prompt: str
    top_k: int | None
    top_p: float | None

    def check(self, name: Callable[[str], str] = "samples.{}".format) -> None:
        """Raise a ValueError about the first setting that is out of range. `name` returns how the user calls it."""
        for key in ("count", "length", "temperature"):
            value = getattr(self, key)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name(key)} must not be negative or infinite, not {value}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"{name('top_k')} must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"{name('top_p')} must be above 0 and at most 1, not {self.top_p}")
