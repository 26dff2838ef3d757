"""What a run comes to."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Ended = Literal["finished", "diverged", "pruned"]


@dataclass(frozen=True)
class Result:
    """To Hydra, whose sweepers take numbers, it is its validation perplexity: inf unless the run finished."""

    state: Ended
    metrics: Mapping[str, float] = field(default_factory=dict)  # the last value of each, by its MLflow key
    run_id: str = ""  # of the tracker, and where to look at the run; empty where nothing was recorded
    link: str = ""

    def __float__(self) -> float:
        return self.metrics["val/perplexity"] if self.state == "finished" else math.inf
