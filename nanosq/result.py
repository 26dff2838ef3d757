"""The result of a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Ended = Literal["finished", "diverged", "pruned", "interrupted"]


@dataclass(frozen=True)
class Result:
    """How a run ended, and its metrics.

    Hydra's sweepers take it as a number: the validation perplexity, or inf unless the run finished.
    """

    state: Ended
    metrics: Mapping[str, float] = field(default_factory=dict)  # last value of each metric, by its name in MLflow
    run_id: str = ""  # empty where nothing was recorded, as is the link
    link: str = ""
    n_parameters: int = 0  # of the model; 0 if unknown
    is_recorded: bool = False  # whether it was found in the tracking store, and not trained now
    note: str = ""  # how it ended, in words
    unrecorded: str = ""  # the journal that the tracking store has not received, if there is one

    def __float__(self) -> float:
        return self.metrics["val/perplexity"] if self.state == "finished" else math.inf

    def __str__(self) -> str:
        return f"val perplexity {float(self):.4f}" if self.state == "finished" else self.note or self.state
