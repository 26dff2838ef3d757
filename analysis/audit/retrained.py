"""Table 1 of the report, where its models have been trained again."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis import runs
from analysis.audit import recompute
from analysis.audit.claims import TABLE_1, Report, Row
from analysis.page import Cell, number

RETRAINED = 0.05  # of a perplexity: two standard errors of the report's 10,240 tokens


def rows(said: Report, all_runs: Sequence[runs.RecordedRun]) -> Iterator[Row]:
    """Table 1 against finished runs with its settings, the last such by the mean over its seeds."""
    for name, perplexity in zip(TABLE_1, said.perplexities, strict=True):
        settings = recompute.preset(name)
        alike = [setting for setting in runs.settings(all_runs) if _has(setting, settings)]
        # The set that the report calls test is the validation split of these settings.
        found = alike[-1].mean("val/perplexity") if alike else math.nan
        yield Row(
            f"{settings['/loss']}, trained with the settings of Table 1, comes to its perplexity",
            Cell(f"{perplexity:g}", perplexity),
            Cell("no such run in MLflow") if math.isnan(found) else number(found),
            None if math.isnan(found) else abs(found / perplexity - 1) <= RETRAINED,
            f"python run.py experiment={name}",
        )


def _has(setting: runs.RecordedSetting, settings: Mapping[str, Any]) -> bool:
    """Whether it is set as a preset says."""
    wanted = {key: value for key, value in settings.items() if key not in runs.NO_SETTING and not key.startswith("/")}
    found = {key: recompute.as_number(setting.params.get(key)) for key in wanted}
    on_tinystories = setting.params.get("data.source._target_", "").endswith(".tinystories")
    same = all(str(found[key]) == str(wanted[key]) for key in wanted)
    return setting.loss == settings["/loss"] and on_tinystories and same
