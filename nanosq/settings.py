"""Settings of training and of sample texts: the typed sections of conf/config.yaml, passed whole to what uses them.

The range of a setting is part of its type.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, Union

from annotated_types import Ge, Le, doc

from nanosq.ranges import BelowOne, Count, NonNegative, Part, Positive, Share, UnitInterval
from nanosq.signature import check_fields

# Union: OmegaConf does not support int | float. The text is what a message says.
Interval = Annotated[Union[Count, Share], doc("a number of steps, 1 or more, or a fraction above 0 and below 1")]  # noqa: UP007
Warmup = Annotated[Union[Annotated[int, Ge(0)], BelowOne], doc("a number of steps, or a fraction below 1")]  # noqa: UP007


@dataclass
class TrainSettings:
    """Settings of the training loop. conf/config.yaml explains each of them and holds the defaults."""

    max_steps: Count
    batch_size: Count
    accumulate: Count
    clip_norm: Positive | None
    warmup: Warmup
    min_lr_factor: UnitInterval
    eval_every: Interval
    log_every: Count
    checkpoint_every: Count | None
    patience: Count | None
    weights: Literal["best", "last"]
    keep_last: bool

    def check(self) -> None:
        """Raise a ValueError that names the first setting that is out of range."""
        check_fields(self, "train.{}".format)

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

    count: Annotated[int, Ge(0), Le(10**4)]
    length: Annotated[int, Ge(0)]
    temperature: NonNegative
    prompt: str
    top_k: Count | None
    top_p: Part | None

    def check(self, name: Callable[[str], str] = "samples.{}".format) -> None:
        """Raise a ValueError about the first setting that is out of range. `name` returns how the user calls it."""
        check_fields(self, name)
