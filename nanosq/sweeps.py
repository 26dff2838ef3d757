"""The grid sweeper: Hydra's basic sweeper, told to finish whatever fails and to end with a table."""

import logging
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

logger = logging.getLogger(__name__)


class GridSweeper(BasicSweeper):
    """Runs every combination of `params` and of the overrides on the command line, which replace or add axes.

    A failing trial does not stop the others. At the end the trials are listed by validation perplexity, with the
    command that runs the best one again.
    """

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        self.overrides = self.split_arguments(overrides, self.max_batch_size)
        for batch in self.overrides:
            self.validate_batch_is_legal(batch)
        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, sweep_dir / "multirun.yaml")

        batches: list[Sequence[JobReturn]] = []
        while not self.is_done():
            n_done = sum(map(len, batches))
            batches.append(self.launcher.launch(self.get_job_batch(), initial_job_idx=n_done))
        results = [result for batch in batches for result in batch]
        chosen_by_hand = any(key.startswith("hydra/sweeper=") for key in self.config.hydra.overrides.hydra)
        # The best trial is run without -m, which an experiment that brings a sweeper would not allow.
        print(f"\n{table(results, [] if chosen_by_hand else ['hydra/sweeper=basic'])}\n")
        _raise_failures(results)
        return batches


def table(results: Sequence[JobReturn], more: Sequence[str] = ()) -> str:
    """The trials of a sweep by validation perplexity, best first, and the command of the best with `more` overrides."""
    settings = [_settings(result) for result in results]
    axes = [key for key in settings[0] if len({setting[key] for setting in settings}) > 1]
    ranked = sorted(range(len(results)), key=lambda trial: _value(results[trial]))
    rows = [("trial", *axes, "val perplexity")]
    rows += [(str(trial), *(settings[trial][axis] for axis in axes), _outcome(results[trial])) for trial in ranked]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    best = ranked[0]
    if math.isfinite(_value(results[best])):
        overrides = [f"{key}={value}" for key, value in settings[best].items()]
        lines += ["", f"best: python run.py {shlex.join([*overrides, *more])}"]
    return "\n".join(lines)


def _settings(result: JobReturn) -> dict[str, str]:
    assert result.overrides is not None
    return dict(override.split("=", 1) for override in result.overrides)


def _value(result: JobReturn) -> float:
    """What the sweep minimises; inf for a trial that diverged or failed."""
    return float(result.return_value) if result.status is JobStatus.COMPLETED else math.inf


def _outcome(result: JobReturn) -> str:
    if result.status is not JobStatus.COMPLETED:
        return "failed"
    return f"{_value(result):.4g}" if math.isfinite(_value(result)) else "diverged"


def _raise_failures(results: Sequence[JobReturn]) -> None:
    """Name every failed trial, then raise the first failure."""
    failures: list[tuple[int, Any]] = []
    for trial, result in enumerate(results):
        if result.status is not JobStatus.COMPLETED:
            try:
                _ = result.return_value
            except Exception as error:
                failures.append((trial, error))
    for trial, failure in failures:
        logger.error("trial %d failed: %s", trial, failure)
    if failures:
        raise failures[0][1]
