"""The view of an experiment that links open in MLflow: the columns of its table of runs, and its charts.

MLflow stores a view that a user shares or saves as a tag of the experiment. Its pages list this one among their views,
and open it for links with its key.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from nanosq.tracking.location import experiment_link

KEY = "nanosq"
# Columns in their order, with their widths in pixels.
COLUMNS = {
    **{"attributes.`Run Name`": 220, "runDateAndNestInfo": 130, "tags.`state`": 72, "metrics.`val/perplexity`": 98},
    **{"metrics.`test/nll`": 78, "params.`loss`": 105, "params.`optimizer.lr`": 88, "params.`train.max_steps`": 115},
    **{"params.`seed`": 55, "tags.`sweep`": 120, "duration": 75, "tags.`trial`": 50, "attributes.`Dataset`": 280},
}
FIRST = "curves"  # the section of charts that is shown first
CURVES = ("val/nll", "train/nll", "val/perplexity", "train/loss", "train/lr", "train/grad_norm")
LINE = {  # a curve over steps, not smoothed
    **{"type": "LINE", "xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "lineSmoothness": 0},
    **{"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "ignoreOutliers": False},
}
BARS = ("test/nll", "test/perplexity", "test/bits_per_byte", "test/accuracy", "test/ece")  # one value of each run
CLOSED = ("val", "train", "best", "last")  # sections with the other metrics


def table_link(uri: str, experiment_id: str) -> str:
    """Return a link to a table of all runs."""
    return experiment_link(uri, experiment_id, "/runs", viewStateShareKey=KEY)


def charts_link(uri: str, experiment_id: str) -> str:
    """Return a link to the charts of all runs."""
    return experiment_link(uri, experiment_id, "/runs", viewStateShareKey=KEY, compareRunsMode="CHART")


def _charts(section: str, metrics: Iterable[str], kind: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"uuid": key, "metricSectionId": section, "metricKey": key, **kind} for key in metrics]


def _section(name: str) -> dict[str, Any]:
    return {"uuid": name, "name": name, "display": name not in CLOSED, "isReordered": True, "columns": 2}


VIEW = {
    "selectedColumns": [*COLUMNS],
    "columnOrder": [*COLUMNS],
    "columnWidths": COLUMNS,
    "compareRunCharts": [*_charts(FIRST, CURVES, LINE), *_charts("test", BARS, {"type": "BAR"})],
    "compareRunSections": [_section(name) for name in (FIRST, "test", *CLOSED)],
    "isAccordionReordered": True,  # MLflow keeps this order
}
# `state` is a text with JSON in it, as MLflow's pages write it.
TAGS = {
    f"mlflow.sharedViewState.{KEY}": json.dumps({"name": KEY, "createdAt": 0, "state": json.dumps(VIEW)}),
}
