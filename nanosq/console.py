"""What a person sees of a run while it lasts: a progress bar on a terminal, a few plain lines elsewhere."""

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Self

from tqdm import tqdm

from nanosq.evaluate import Score

logger = logging.getLogger(__name__)

LINE_SECONDS = 10.0  # without a terminal, training is reported this often


class Console:
    """Shows the metrics of a run of `max_steps` as they are logged.

    label: stands before every line of a trial of a sweep, which shows as little of itself as a bar does.
    """

    def __init__(self, max_steps: int, *, first_step: int = 0, label: str = "", quiet: bool = False) -> None:
        self._label = f"{label}: " if label else ""
        self._quiet = quiet
        self._max_steps = max_steps
        self._first_step = first_step
        self._begin = self._last_line = time.monotonic()
        self._bar = tqdm(
            total=max_steps,
            initial=first_step,
            unit="step",
            disable=quiet or not sys.stderr.isatty(),
            dynamic_ncols=True,
            leave=False,
            bar_format="{n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}{postfix}",
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._bar.update(step - self._bar.n)
        if "val/nll" in metrics:
            if not self._label or self._due():
                self._line(step, f"val perplexity {metrics['val/perplexity']:.4g}  nll {metrics['val/nll']:.4f}")
        elif "train/nll" in metrics:
            loss, nll, speed = (metrics[f"train/{key}"] for key in ("loss", "nll", "tokens_per_second"))
            text = f"loss {loss:.3f}  nll {nll:.3f}  {speed / 1000:.1f}k tokens/s"
            self._bar.set_postfix_str(text)
            if self._bar.disable and self._due():
                self._line(step, f"{text}  {self._remaining(step)} left")

    def say(self, text: str) -> None:
        if self._quiet:
            return
        with tqdm.external_write_mode():
            logger.info(self._label + text)

    def report(self, *, val: Score, test: Score, samples: Sequence[str]) -> None:
        """Print the result of a run to stdout."""
        self._bar.close()
        for sample in samples:
            print(f"\n{sample}\n\n---")
        print()
        for split, score in (("val", val), ("test", test)):
            floor = "" if math.isnan(score.floor_nll) else f" ({score.excess_nll:.4f} above the floor)"
            print(
                f"{split:4}  perplexity {score.perplexity:.4f}  nll {score.nll:.4f}{floor}  "
                f"bits/byte {score.bits_per_byte:.4f}  accuracy {score.accuracy:.1%}  ece {score.ece:.2%}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _due(self) -> bool:
        return time.monotonic() - self._last_line > LINE_SECONDS

    def _line(self, step: int, text: str) -> None:
        self.say(f"step {step:{len(str(self._max_steps))}}/{self._max_steps}  {text}")
        self._last_line = time.monotonic()

    def _remaining(self, step: int) -> str:
        seconds = (time.monotonic() - self._begin) / (step - self._first_step) * (self._max_steps - step)
        return tqdm.format_interval(int(seconds))
