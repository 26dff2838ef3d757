"""Table 1: the scores of each loss beside those of the student report, and texts that the models wrote."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.page import DASH, Block, Cell, Samples, Section, Table, Text, number
from analysis.recorded_run import RecordedRun
from analysis.runs import RecordedSetting, differing

REPORT = {  # Table 1 of the report, as printed: train loss, test loss, test perplexity
    "cross_entropy, the report": (1.805, 1.826, 3.8),
    "squentropy, the report": (1.885, 1.899, 5.2),
}
# Column: metric, factor.
SCORES = {
    "last batch, own unit": ("train/loss", 1.0),
    "test objective, own unit": ("test/loss", 1.0),
    "test nll, nats/token": ("test/nll", 1.0),
    "above the floor": ("test/excess_nll", 1.0),
    "test perplexity": ("test/perplexity", 1.0),
    "bits/byte": ("test/bits_per_byte", 1.0),
    "accuracy, %": ("test/accuracy", 100.0),
    "ece, %": ("test/ece", 100.0),
}
LESS_IS_BETTER = ("test/nll", "test/excess_nll", "test/perplexity", "test/bits_per_byte", "test/ece")


def section(chosen: Mapping[str, RecordedSetting]) -> Section:
    """Return the scores of the best setting of each loss: mean and 95 % confidence interval over its seeds."""
    blocks: list[Block] = [
        _scores(chosen),
        Text(
            "Mean over seeds, ± half of the 95 % t interval where there are several. An objective is in the unit of "
            "its own loss, and of one step's batch in the first column (the report's train loss is a mean): do not "
            "compare objectives of different losses. nll, perplexity, bits per byte, accuracy and ece mean the same "
            "for every loss. The report's perplexities do not follow from its losses: "
            f"exp(1.826) = {math.exp(1.826):.2f}, exp(1.899) = {math.exp(1.899):.2f}.",
            "note",
        ),
        _trained(chosen),
        _runs(chosen),
    ]
    return Section("Scores", blocks)


def samples(chosen: Mapping[str, RecordedSetting]) -> Section:
    """Return the first text of each loss, with the same seed and prompt if they share one."""
    seeds = [{run.seed for run in setting.runs if texts(run)} for setting in chosen.values()]
    seeds = [each for each in seeds if each]
    common = set.intersection(*seeds) if seeds else set()
    shown: list[RecordedRun] = []
    columns: list[tuple[str, str]] = []
    missing: list[str] = []
    for loss, setting in chosen.items():
        mine = [run for run in setting.runs if texts(run) and (not common or run.seed == min(common))]
        if mine:
            shown.append(mine[0])
            columns.append((f"{loss}, seed {mine[0].seed}", texts(mine[0])[0]))
        else:
            missing.append(loss)
    blocks: list[Block] = []
    if columns:
        keys = ("samples.prompt", "samples.temperature", "samples.length")
        asked = {key: dict.fromkeys(run.params.get(key, "") or "empty" for run in shown) for key in keys}
        told = ", ".join(f"{key.removeprefix('samples.')} {' and '.join(values)}" for key, values in asked.items())
        same = "" if common else " No seed is common to all of them."
        blocks += [Text(f"What each model writes: {told}.{same}"), Samples(columns)]
    if missing:
        blocks.append(
            Text(
                f"No text of {', '.join(missing)}: train with samples.count=3 (a grid writes none by default).", "note"
            )
        )
    return Section("Texts", blocks)


def texts(run: RecordedRun) -> list[str]:
    """Return the texts that a run has written at its end."""
    return [text for text in (run.artifact("samples.txt") or "").split("\n\n---\n\n") if text.strip()]


def interval(values: Sequence[float]) -> float:
    """Return half of the 95 % t interval of a mean; nan for a single value."""
    from scipy import stats

    if len(values) < 2:
        return math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1)) * error


def _scores(chosen: Mapping[str, RecordedSetting]) -> Table:
    rows: list[list[Cell | str]] = []
    for name, (train, test, perplexity) in REPORT.items():
        printed = {"train/loss": train, "test/loss": test, "test/perplexity": perplexity}
        cells = [Cell(str(printed[key]), printed[key]) if key in printed else Cell(DASH) for key, _ in SCORES.values()]
        rows.append([name, *cells, DASH])
    means = {loss: {key: setting.mean(key) for key, _ in SCORES.values()} for loss, setting in chosen.items()}
    for loss, setting in chosen.items():
        scores: list[Cell | str] = [loss]
        for key, factor in SCORES.values():
            others = [mean[key] for mean in means.values() if not math.isnan(mean[key])]
            sign = 1 if key in LESS_IS_BETTER else -1 if key == "test/accuracy" else 0
            leads = len(others) > 1 and sign != 0 and sign * means[loss][key] == min(sign * each for each in others)
            scores.append(_mean([run.metric(key) * factor for run in setting.runs], strong=leads))
        lost = ", ".join(f"{count} {state}" for state, count in setting.others.items())
        scores.append(Cell(f"{len(setting.runs)}" + (f" (and {lost})" if lost else ""), len(setting.runs)))
        rows.append(scores)
    return Table("table_1", ["loss", *SCORES, "seeds"], rows, "Table 1: the test split, and the report's own table")


def _mean(values: list[float], *, strong: bool) -> Cell:
    mean, half = sum(values) / len(values), interval(values)
    cell = number(mean, strong=strong)
    return cell if math.isnan(half) else Cell(f"{cell.text} ± {half:.2g}", mean, strong=strong)


def _trained(chosen: Mapping[str, RecordedSetting]) -> Table:
    keys = [key for key in differing([setting.params for setting in chosen.values()]) if key != "loss._target_"]
    header = ["loss", "parameters", "tokens", "seconds", *keys, "val nll"]
    rows: list[list[Cell | str]] = []
    for loss, setting in chosen.items():
        first = setting.runs[0]
        parameters = float(first.tags.get("parameters", "nan"))
        rows.append(
            [
                loss,
                number(parameters, 3),
                number(setting.mean("train/tokens"), 3),
                _mean([run.metric("train/seconds") for run in setting.runs], strong=False),
                *(setting.params.get(key, "") for key in keys),
                number(setting.mean("val/nll")),
            ]
        )
    return Table(
        "settings", header, rows, "What was trained: the setting of each loss that is best on the validation split"
    )


def _runs(chosen: Mapping[str, RecordedSetting]) -> Table:
    keys = ("val/nll", "test/nll", "test/perplexity", "test/bits_per_byte", "test/accuracy", "test/ece")
    rows: list[list[Cell | str]] = [
        [
            loss,
            Cell(str(run.seed), run.seed),
            *(number(run.metric(key), 5) for key in keys),
            Cell(run.id[:8], run.id, run.link),
        ]
        for loss, setting in chosen.items()
        for run in setting.runs
    ]
    return Table("runs", ["loss", "seed", *keys, "MLflow run"], rows, "Each run of them")
