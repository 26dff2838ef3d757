"""The test scores of settings, those of the student report apart from them, and differences from a first setting."""

import math
from collections.abc import Mapping, Sequence

from analysis.page import DASH, MINUS, Block, Cell, Row, Section, Table, Text, number, value_cell
from analysis.report import common_seeds
from analysis.report.verdict import signed
from analysis.runs import RecordedSetting, differing

TINYSTORIES = "tinystories"  # the data of the student report: name of the source, and of its file in conf/data/
REPORT = {  # Table 1 of the student report, as printed
    "cross_entropy, 12 layers, 124M parameters": {"train/loss": 1.805, "test/loss": 1.826, "test/perplexity": 3.8},
    "squentropy, 16 layers, 152M parameters": {"train/loss": 1.885, "test/loss": 1.899, "test/perplexity": 5.2},
}
CODE_OF_REPORT = "https://github.com/sujen07/NanoGPT-Loss-Stop-Analysis"
DATA_OF_REPORT = "TinyStories, GPT-2's vocabulary of 50,257 tokens padded to 50,304, losses in nats per token"
# Column: metric, factor, and the sign by which lower values are better; 0 if losses cannot be compared by it.
SCORES = {
    "last batch, own unit": ("train/loss", 1.0, 0),
    "test objective, own unit": ("test/loss", 1.0, 0),
    "test nll, nats/token": ("test/nll", 1.0, 1),
    "above the floor": ("test/excess_nll", 1.0, 1),
    "test perplexity": ("test/perplexity", 1.0, 1),
    "bits/byte": ("test/bits_per_byte", 1.0, 1),
    "accuracy, %": ("test/accuracy", 100.0, -1),
    "ece, %": ("test/ece", 100.0, 1),
}
CALIBRATED = {
    "test nll, nats/token": ("test/nll", 1.0, 1),
    "calibrated nll": ("test/nll_calibrated", 1.0, 1),
    "ece, %": ("test/ece", 100.0, 1),
    "calibrated ece, %": ("test/ece_calibrated", 100.0, 1),
    "temperature": ("val/temperature", 1.0, 0),
    "nll, frequent": ("test/nll_frequent", 1.0, 1),
    "nll, medium": ("test/nll_medium", 1.0, 1),
    "nll, rare": ("test/nll_rare", 1.0, 1),
}
COMPARABLE = {name: column for name, column in {**SCORES, **CALIBRATED}.items() if "own unit" not in name}
OF_RUNS = ("val/nll", "test/nll", "test/perplexity", "test/bits_per_byte", "test/accuracy", "test/ece")
UNITS = (
    "The sections from Differences to Stories show the same runs. Bold is the best mean, perhaps by chance. Mean over "
    "the seeds ± half of the 95 % confidence interval (Student's t). "
    "Compare losses by nll, perplexity, bits per byte, accuracy and ece. Do not compare objectives: every loss has its "
    "own unit. The first column is the objective of the last training batch."
)
OF_REPORT = (
    "The columns of the report are the mean objective of the training batches and that of its test set, a part of the "
    "training split of TinyStories. Its perplexities do not follow from its losses: "
    f"exp(1.826) = {math.exp(1.826):.2f} and exp(1.899) = {math.exp(1.899):.2f}."
)
APART = (
    f"These scores cannot be compared with Table 1 of the student report ({DATA_OF_REPORT}; 124M and 152M parameters), "
    "because they are not scores of TinyStories. The last sections check the numbers of the report."
)
DIFFERENCES = (
    "Mean over the seeds ± half of the 95 % confidence interval (Student's t). Differences are paired by seed. The "
    "page has them in bold if the interval does not include 0. The interval of the verdict also covers the choice of "
    "stories."
)
SCALE = (
    "A penalty on squared logits can make the logits small, so the model is less confident than it could be. For the "
    "calibrated scores, all logits are divided by one temperature, which is fitted on the validation split: a "
    "difference that remains is one of knowledge, not of scale. Frequent tokens are the most frequent ones that make "
    "up 80 % of the training split, medium ones the next 15 %, and rare ones the rest."
)


def section(best: Mapping[str, RecordedSetting]) -> Section:
    """Return the scores of the settings by their label: mean and 95 % confidence interval over their seeds."""
    notes = [Text(note, "note") for note in (UNITS, *common_seeds.unequal_seeds(best).values())]
    blocks: list[Block] = [_test_scores(best), *notes]
    if all(TINYSTORIES in (each.params.get("data.source"), each.runs[0].tags.get("data")) for each in best.values()):
        blocks += [_table_1(), Text(OF_REPORT, "note")]
    else:
        blocks.append(Text(APART, "note"))
    return Section("Scores", [*blocks, _calibrated(best), Text(SCALE, "note"), _settings(best), _runs(best)])


def differences(settings: Mapping[str, RecordedSetting], caption: str = "") -> Table:
    """Return the test scores of settings by their label, and the differences from the first setting."""
    first, *others = settings
    rows: list[Row] = []
    for score, (metric, factor, _) in COMPARABLE.items():
        values = {
            label: {run.seed: factor * run.metric(metric) for run in setting.runs}
            for label, setting in settings.items()
        }
        cells = [mean_cell([*by_seed.values()]) for by_seed in values.values()]
        if any(cell.value is not None for cell in cells):
            rows.append([score, *cells, *(difference_cell(values[first], values[other]) for other in others)])
    seeds = [", ".join(str(run.seed) for run in setting.runs) for setting in settings.values()]
    rows.append(["seeds", *seeds, *[DASH] * len(others)])
    return Table("differences", ["score", *settings, *(f"{other} minus {first}" for other in others)], rows, caption)


def half_interval(values: Sequence[float]) -> float:
    """Return half of the 95 % t interval of a mean; nan for a single value."""
    from scipy import stats

    if len(values) < 2:
        return math.nan
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def _test_scores(best: Mapping[str, RecordedSetting]) -> Table:
    rows: list[Row] = []
    for loss, cells in _scores(best, SCORES).items():
        n_seeds, left_out = len(best[loss].runs), ", ".join(map(str, best[loss].left_out))
        rows.append([loss, *cells, Cell(f"{n_seeds}" + (f" (without {left_out})" if left_out else ""), n_seeds)])
    return Table("test-scores", ["contender", *SCORES, "seeds"], rows, "Scores on the test split")


def _table_1() -> Table:
    names = {name: metric for name, (metric, *_) in SCORES.items() if any(metric in row for row in REPORT.values())}
    rows: list[Row] = [
        [Cell(label, link=CODE_OF_REPORT), *(Cell(str(row[metric]), row[metric]) for metric in names.values())]
        for label, row in REPORT.items()
    ]
    return Table("table_1", ["loss", *names], rows, f"Table 1 of the student report: {DATA_OF_REPORT}")


def _calibrated(best: Mapping[str, RecordedSetting]) -> Table:
    rows: list[Row] = [[loss, *cells] for loss, cells in _scores(best, CALIBRATED).items()]
    caption = "Calibrated scores, and nll by the frequency of the token, on the test split"
    return Table("calibrated", ["loss", *CALIBRATED], rows, caption)


def _scores(
    best: Mapping[str, RecordedSetting], columns: Mapping[str, tuple[str, float, int]]
) -> dict[str, list[Cell]]:
    """Return the cells of each row, with the best value of each column among the rows with the same seeds in bold."""
    comparable = best.keys() - common_seeds.unequal_seeds(best)
    rows: dict[str, list[Cell]] = {loss: [] for loss in best}
    for metric, factor, sign in columns.values():
        means = [sign * mean for loss in comparable if not math.isnan(mean := best[loss].mean(metric))]
        for loss, setting in best.items():
            is_best = sign != 0 and len(means) > 1 and loss in comparable and sign * setting.mean(metric) == min(means)
            rows[loss].append(mean_cell([run.metric(metric) * factor for run in setting.runs], strong=is_best))
    return rows


def mean_cell(values: Sequence[float], *, strong: bool = False) -> Cell:
    """Return the mean of values, one for each seed, with half of its 95 % confidence interval (Student's t)."""
    mean, half = sum(values) / len(values), half_interval(values)
    cell = number(mean, strong=strong)
    if math.isnan(half):
        return cell
    if half == 0:
        return Cell(f"{cell.text} ± 0", mean, strong=strong)
    digits = _digits(half)
    text = f"{mean:z,.{digits}f}".replace("-", MINUS)
    return Cell(f"{text} ± {half:,.{digits}f}", mean, strong=strong)


def _digits(half: float) -> int:
    """Return the number of decimals that shows two digits of half of an interval."""
    return min(6, max(0, 1 - math.floor(math.log10(half))))


def difference_cell(a: Mapping[int, float], b: Mapping[int, float]) -> Cell:
    """Return the mean difference of the common seeds, in bold if its confidence interval does not include 0."""
    values = [b[seed] - a[seed] for seed in a.keys() & b.keys()]
    if not values or math.isnan(sum(values)):
        return Cell(DASH)
    mean, half = sum(values) / len(values), half_interval(values)
    if math.isnan(half):
        return Cell(signed(mean, 4), mean)
    digits = _digits(half) if half else 4
    return Cell(f"{signed(mean, digits)} ± {half:.{digits}f}", mean, strong=abs(mean) > half)


def _settings(best: Mapping[str, RecordedSetting]) -> Table:
    keys = [key for key in differing([setting.params for setting in best.values()]) if key != "loss"]
    rows: list[Row] = [
        [
            loss,
            number(float(setting.runs[0].tags.get("parameters", "nan")), 3),
            number(setting.mean("train/tokens"), 3),
            mean_cell([run.metric("train/seconds") for run in setting.runs]),
            *(value_cell(setting.params.get(key)) for key in keys),
            number(setting.mean("val/nll")),
        ]
        for loss, setting in best.items()
    ]
    header = ["loss", "parameters", "tokens", "seconds", *keys, "val nll"]
    return Table("settings", header, rows, "The settings")


def _runs(best: Mapping[str, RecordedSetting]) -> Table:
    rows: list[Row] = [
        [loss, run.seed, *(number(run.metric(key), 5) for key in OF_RUNS), Cell(run.id[:8], run.id, run.link)]
        for loss, setting in best.items()
        for run in setting.runs
    ]
    return Table("runs", ["loss", "seed", *OF_RUNS, "MLflow run"], rows, "The runs of these settings")
