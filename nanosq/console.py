"""Output of a run for the user: a progress bar on a terminal, a few plain lines elsewhere."""

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Self

from tqdm import tqdm

from nanosq import terminal
from nanosq.evaluation import Score
from nanosq.result import Result
from nanosq.temperature import CalibratedScore
from nanosq.tracking import Run

logger = logging.getLogger(__name__)

LINE_SECONDS = 10.0  # interval between lines where there is no terminal
SCORES = ("", "perplexity", "nll", "above floor", "bits/byte", "accuracy", "ece")


class Console:
    """Print the progress and the result of a run.

    Args:
        max_steps: Number of steps of the run.
        first_step: Step that the run is resumed after.
        label: Prefix of every line of a trial of a sweep. A trial prints less than a single run.
        quiet: Whether to print nothing, as all but one of several processes do.
        bar: Whether to show a progress bar on a terminal. Several processes would disturb each other's bars.
    """

    def __init__(
        self, max_steps: int, *, first_step: int = 0, label: str = "", quiet: bool = False, bar: bool = True
    ) -> None:
        self._label = f"{label}: " if label else ""
        self._quiet = quiet
        self._max_steps = max_steps
        self._first_step = first_step
        self._begin = self._last_line = time.monotonic()
        self._bar = tqdm(
            total=max_steps,
            initial=first_step,
            unit="step",
            disable=quiet or not bar or not sys.stderr.isatty(),
            dynamic_ncols=True,
            leave=False,
            bar_format="{n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}{postfix}",
        )

    def evaluated(self, score: Score, step: int) -> None:
        """Print the score of the validation split."""
        self._bar.update(step - self._bar.n)
        if not self._label or self._is_due():
            self._line(step, f"val perplexity {score.perplexity:.4g}  nll {score.nll:.4f}")

    def stepped(self, metrics: Mapping[str, float], step: int) -> None:
        """Show the metrics of a training step in the bar, or on a line now and then."""
        self._bar.update(step - self._bar.n)
        loss, nll, speed = (metrics[f"train/{key}"] for key in ("loss", "nll", "tokens_per_second"))
        text = f"loss {loss:.3f}  nll {nll:.3f}  {speed / 1000:.1f}k tokens/s"
        self._bar.set_postfix_str(text)
        if self._bar.disable and self._is_due():
            self._line(step, f"{text}  {self._time_left(step)} left")

    def say(self, text: str, *, also_in_sweeps: bool = True) -> None:
        """Print a line to stderr."""
        if self._quiet or (self._label and not also_in_sweeps):
            return
        with tqdm.external_write_mode():
            logger.info(self._label + text)

    def report(
        self, *, val: Score, test: Score | None, calibrated: CalibratedScore | None, samples: Sequence[str]
    ) -> None:
        """Print the result of a run to stdout."""
        self._bar.close()
        for sample in samples:
            print(f"\n{sample}\n\n---")
        scores = {"val": val} if test is None else {"val": val, "test": test}
        print(f"\n{terminal.table(SCORES, [[split, *_cells(score)] for split, score in scores.items()])}")
        if calibrated is not None:
            values = f"nll {calibrated.nll:.4f}, ece {calibrated.ece:.2%}"
            print(f"test, calibrated with temperature {calibrated.temperature:.4f}: {values}")

    def end(self, result: Result, run: Run, *, further: str) -> None:
        """Print the last lines of a run to stdout: its result, where to see it, and what to do next.

        Args:
            result: The result.
            run: The run of the tracking store. Its links are shown if the store has all of it.
            further: The command that trains it further; empty if that is not possible.
        """
        print(terminal.style(f"\nvalidation perplexity {float(result):.4f}", "green", sys.stdout))
        if further:
            print(terminal.command(f"to train further: {further}", sys.stdout))
        if run.run_id and not run.unrecorded:
            print("\n`mlflow ui` shows this run and all others:")
            print(f"table: {run.table}\ncharts: {run.charts}\nrun: {run.link}\n{terminal.next_step()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _is_due(self) -> bool:
        return time.monotonic() - self._last_line > LINE_SECONDS

    def _line(self, step: int, text: str) -> None:
        self.say(f"step {step:{len(str(self._max_steps))}}/{self._max_steps}  {text}")
        self._last_line = time.monotonic()

    def _time_left(self, step: int) -> str:
        seconds = (time.monotonic() - self._begin) / (step - self._first_step) * (self._max_steps - step)
        return tqdm.format_interval(int(seconds))


def _cells(score: Score) -> list[str]:
    """Return the scores of a split, in the order of SCORES."""
    floor = "" if math.isnan(score.floor_nll) else f"{score.excess_nll:.4f}"
    numbers = [f"{score.perplexity:.4f}", f"{score.nll:.4f}", floor, f"{score.bits_per_byte:.4f}"]
    return [*numbers, f"{score.accuracy:.1%}", f"{score.ece:.2%}"]
