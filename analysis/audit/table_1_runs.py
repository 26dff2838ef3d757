"""Compare Table 1 of the report with finished runs in MLflow that have its settings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis import runs
from analysis.audit import recompute
from analysis.audit.claims import TABLE_1, Claim, ReportedNumbers
from analysis.page import Cell, number
from analysis.recorded_run import RecordedRun
from nanosq.installation import program
from nanosq.tracking.parameters import readable

TOLERANCE = 0.05  # relative, of a perplexity: two standard errors of the report's 10,240 tokens
GROUPS = ("data", "loss", "model", "optimizer", "schedule", "train")
# Keys of these groups that do not change the model that is trained.
NO_EFFECT = ("data.source.path", "train.log_every", "train.checkpoint_every")


def check(reported: ReportedNumbers, all_runs: Sequence[RecordedRun]) -> Iterator[Claim]:
    """Yield a claim for each column of Table 1, checked by the mean over seeds of the newest such setting."""
    for name, perplexity in zip(TABLE_1, reported.perplexities, strict=True):
        settings = readable(recompute.preset(name))
        matching = [setting for setting in runs.settings(all_runs) if _has_settings(setting.params, settings)]
        # The report's test set is the validation split of these settings.
        trained = matching[-1].mean("val/perplexity") if matching else math.nan
        missing = math.isnan(trained)
        yield Claim(
            f"{settings['loss']} with the settings of Table 1 reaches its perplexity",
            Cell(f"{perplexity:g}", perplexity),
            Cell("no such run in MLflow") if missing else number(trained),
            None if missing else abs(trained / perplexity - 1) <= TOLERANCE,
            f"{program()} experiment={name}",
        )


def _has_settings(params: Mapping[str, str], settings: Mapping[str, Any]) -> bool:
    compared = (key for key in settings if key.partition(".")[0] in GROUPS and key not in NO_EFFECT)
    wanted = {key: str(settings[key]) for key in compared}
    return all(params.get(key, "None") == value for key, value in wanted.items())  # MLflow stores no None
