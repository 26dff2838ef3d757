"""How far a sweep is: each of its runs ends with a line as "#4: ...; 7 of 27, best 3.41 (#4), about 2 min left".

The runs may be in several processes of one machine. They share a file to which lines are appended: a `Standing` by the
sweeper before it launches runs, and an `EndedRun` by each run.
"""

import json
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from nanosq import error_reports, errors, terminal
from nanosq.filesystem import writing
from nanosq.result import Result
from nanosq.sweeps.budget import duration
from nanosq.sweeps.constraints import PARAMETERS
from nanosq.sweeps.metrics import METRICS, Metric
from nanosq.sweeps.trial import PrunerReport, TrialRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """How far a sweep is before some of its runs are launched."""

    n_runs: int  # of the sweep, with those that have ended
    n_ended: int = 0
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of the runs of the best trials, by trial
    metric: str = Metric().key
    phase: str = ""  # of a comparison
    seconds_after: float | None = 0.0  # time of the phases that follow; None if it is unknown
    n_jobs: int = 1  # runs at the same time
    seconds: Sequence[float] = ()  # times of the runs of this phase that were trained since the sweep has started
    deadline: float | None = None  # Unix time at which the sweep ends


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended."""

    run: str  # its name
    trial: str  # name of the runs whose values are averaged
    metrics: Mapping[str, float]  # of METRICS; empty if the run has not finished, or violates a constraint
    seconds: float | None = None  # its time; None if the run was not trained now


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is: its standing at a launch, and the runs that have ended since then."""

    standing: Standing
    ended: Sequence[EndedRun]

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Return the content of the file. Of a run that was launched again after a failure, the last line counts.

        A line that is incomplete, because the disk was full or its process was killed, is left out.
        """
        standing, *runs = content.split(b"\n")
        ended = {}
        for line in runs:
            with suppress(ValueError):
                run = EndedRun(**json.loads(line))
                ended[run.run] = run
        return cls(Standing(**json.loads(standing)), [*ended.values()])

    @property
    def seconds(self) -> list[float]:
        """The times of the runs that were trained."""
        return [*self.standing.seconds, *(run.seconds for run in self.ended if run.seconds is not None)]

    @property
    def best(self) -> tuple[str, float] | None:
        """The best trial and the mean of its runs so far, none of which has failed; None if there is no such trial."""
        values = {trial: [*known] for trial, known in self.standing.values.items()}
        for run in self.ended:
            values.setdefault(run.trial, []).append(run.metrics.get(self.standing.metric, math.nan))
        means = {trial: statistics.fmean(known) for trial, known in values.items()}
        choose = max if Metric(self.standing.metric).maximize else min
        finished = [(trial, mean) for trial, mean in means.items() if math.isfinite(mean)]
        return choose(finished, key=lambda trial: trial[1], default=None)

    @property
    def seconds_left(self) -> float | None:
        """The time that the sweep still needs, or has; None if it is unknown, as before the first run has ended."""
        standing = self.standing
        if not self.seconds or standing.seconds_after is None:
            return None
        n_left = standing.n_runs - standing.n_ended - len(self.ended)
        usual = statistics.fmean(self.seconds[standing.n_jobs :] or self.seconds)  # the first ones also load PyTorch
        needed = n_left * usual / standing.n_jobs + standing.seconds_after
        return needed if standing.deadline is None else min(needed, standing.deadline - time.time())

    def __str__(self) -> str:
        standing, best, left = self.standing, self.best, self.seconds_left
        parts = [f"{standing.phase} {standing.n_ended + len(self.ended)} of {standing.n_runs}".lstrip()]
        if best is not None:
            metric = "" if standing.metric == Metric().key else f"{standing.metric} "
            parts.append(f"best {metric}{best[1]:.4g} ({best[0]})")
        if left is not None and left > 0:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)


@contextmanager
def shared(standing: Standing) -> Iterator[Path]:
    """Create the file of a launch, and delete it at the end."""
    with ExitStack() as stack:
        with writing(Path(tempfile.gettempdir()), "TMPDIR"):
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nanosq-")), "progress.jsonl")
            path.write_text(json.dumps(asdict(standing)) + "\n")
        yield path


def append(path: Path, run: EndedRun) -> SweepProgress:
    """Append a run to the file. Return its content up to this run, whatever other processes append meanwhile."""
    with path.open("ab+", buffering=0) as file:
        file.write(b"\n" + json.dumps(asdict(run)).encode() + b"\n")  # on a new line, even if the last is incomplete
        end = file.tell()
        file.seek(0)
        return SweepProgress.parse(file.read(end))


class TrialReport:
    """Prints the line with which a run of a sweep ends, also if it fails. Outside of a sweep it prints nothing."""

    def __init__(self, trial: TrialRun | None) -> None:
        self._trial, self._begin = trial, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        """Log a failure when it happens. The sweep reports it once more at the end."""
        if self._trial is not None and isinstance(error, Exception):
            errors.forget_variables(error)
            # A search does not count a trial that cannot be trained.
            is_counted = not (self._trial.in_study and isinstance(error, errors.InfeasibleError))
            progress = self._append({}) if is_counted else None
            logger.error(
                "%s: failed: %s%s", self._trial, error_reports.one_line(error), f"; {progress}" if progress else ""
            )

    def ended(self, result: Result, pruner: PrunerReport) -> Result:
        """Print how a run has ended, and return its result."""
        trial = self._trial
        if trial is None:
            if result.is_recorded:
                print(f"{result}: not trained again, because this run had ended and was only not recorded")
            return result
        is_valid = result.state == "finished" and not pruner.violated(
            {PARAMETERS: result.n_parameters, **result.metrics}
        )
        is_trained = bool(result.metrics) and not result.is_recorded
        progress = self._append(result.metrics if is_valid else {}, is_trained=is_trained)
        outcome = f"{result}{', as recorded' if result.is_recorded else ''}"
        is_long = sys.stdout.isatty() and len(f"{trial}: {outcome}; {progress}") > terminal.width()
        text = f"{trial}: {terminal.style(outcome, 'red' if result.state == 'diverged' else '', sys.stdout)}"
        if progress is not None:
            is_best = progress.best is not None and progress.best[0] == trial.group
            text += ";\n  " if is_long else "; "
            text += terminal.style(str(progress), "green" if is_best else "dim", sys.stdout)
        print(terminal.fit(text, sys.stdout), flush=True)  # also in a worker process, whose stdout does not wrap lines
        return result

    def _append(self, metrics: Mapping[str, float], *, is_trained: bool = False) -> SweepProgress | None:
        """Record that the run has ended. Return how far the sweep is; None if its runs are on several machines."""
        trial = self._trial
        if trial is None or not trial.progress:
            return None
        seconds = time.monotonic() - self._begin if is_trained else None
        values = {key: value for key, value in metrics.items() if key in METRICS}
        try:
            return append(Path(trial.progress), EndedRun(str(trial), trial.group, values, seconds))
        except OSError:  # the sweeper was killed
            return None
