"""Tables of a comparison: its budget, the settings that were chosen, and the scores of their confirmation runs."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from analysis.page import DASH, Cell, Row, Table, number
from analysis.report.contenders import ENDED, Comparison, Contender
from analysis.report.optuna_study import StudyTrial
from analysis.report.scores import half_interval
from analysis.report.verdict import signed
from analysis.runs import RecordedSetting

INTERVALS = (
    "Mean over the seeds ± half of the 95 % confidence interval (Student's t). Differences are paired by seed. The "
    "page has them in bold if the interval does not include 0. The interval of the verdict also covers the choice of "
    "stories."
)
SCORES = {  # row: metric, factor
    "test nll, nats/token": ("test/nll", 1.0),
    "test perplexity": ("test/perplexity", 1.0),
    "bits/byte": ("test/bits_per_byte", 1.0),
    "accuracy, %": ("test/accuracy", 100.0),
    "ece, %": ("test/ece", 100.0),
    "nll, calibrated": ("test/nll_calibrated", 1.0),
    "ece, calibrated, %": ("test/ece_calibrated", 100.0),
    "nll, frequent tokens": ("test/nll_frequent", 1.0),
    "nll, medium tokens": ("test/nll_medium", 1.0),
    "nll, rare tokens": ("test/nll_rare", 1.0),
}


def budget(comparison: Comparison, settings: Mapping[str, RecordedSetting]) -> Table:
    """Return what each contender was given and what came of it, with a column for each contender."""
    columns = [_budget(comparison, contender, settings.get(contender.label)) for contender in comparison.contenders]
    unused = [state for state in ENDED if not any(column[state] for column in columns)]
    names = [name for name in columns[0] if name not in unused]
    rows: list[Row] = [[name, *(column[name] for column in columns)] for name in names]
    header = ["contender", *(contender.label for contender in comparison.contenders)]
    return Table("comparison-contenders", header, rows, "Budget and result of each contender")


def _budget(
    comparison: Comparison, contender: Contender, setting: RecordedSetting | None
) -> dict[str, Cell | str | int]:
    states = Counter(trial.state for trial in contender.tuning.trials)
    chosen, metric = contender.chosen, contender.tuning.metrics[0].label.split(" (")[0].lower()
    test = [setting.mean(key) if setting else math.nan for key in ("test/nll", "test/perplexity")]
    n_confirmed = len(setting.runs) if setting else 0
    return {
        "tuning trials": _of(contender.n_ended, contender.n_trials),
        **{state: states[state] for state in ENDED},
        "best trial": Cell(f"#{chosen.number}", chosen.number) if chosen else DASH,
        f"its {metric}": number(chosen.values[0] if chosen and chosen.values else math.nan),
        "confirmation runs": _of(comparison.n_confirmed(contender), len(comparison.seeds)),
        "seeds in the verdict": n_confirmed,
        "test nll, nats/token": number(test[0]),
        "test perplexity": number(test[1]),
        "training time, s": number(contender.seconds, 3),
    }


def _of(n: int, total: int) -> Cell:
    return Cell(f"{n} of {total}", n)


def confirmation(settings: Mapping[str, RecordedSetting]) -> Table:
    """Return the test scores of the contenders, and the differences from the first one."""
    first, *others = settings
    rows: list[Row] = []
    for name, (metric, factor) in SCORES.items():
        values = {
            label: {run.seed: factor * run.metric(metric) for run in setting.runs}
            for label, setting in settings.items()
        }
        cells = [_mean(list(by_seed.values())) for by_seed in values.values()]
        rows.append([name, *cells, *(_difference(values[first], values[other]) for other in others)])
    header = ["score", *settings, *(f"{other} minus {first}" for other in others)]
    return Table("comparison-confirmation", header, rows, "Confirmation: scores on the test split")


def _mean(values: Sequence[float]) -> Cell:
    mean, half = sum(values) / len(values), half_interval(values)
    cell = number(mean)
    return cell if math.isnan(half) else Cell(f"{cell.text} ± {half:.2g}", mean)


def _difference(a: Mapping[int, float], b: Mapping[int, float]) -> Cell:
    """Return the mean difference of the common seeds, in bold if its confidence interval does not include 0."""
    values = [b[seed] - a[seed] for seed in a.keys() & b.keys()]
    if not values or math.isnan(sum(values)):
        return Cell(DASH)
    mean, half = sum(values) / len(values), half_interval(values)
    if math.isnan(half):
        return Cell(signed(mean, 4), mean)
    digits = min(6, max(0, 1 - math.floor(math.log10(half)))) if half else 4
    return Cell(f"{signed(mean, digits)} ± {half:.{digits}f}", mean, strong=abs(mean) > half)


def best_settings(comparison: Comparison) -> Table:
    """Return the best setting of each contender beside the configuration as it stands."""
    axes = list(dict.fromkeys(key for contender in comparison.contenders for key in contender.tuning.space))
    rows: list[Row] = []
    for contender in comparison.contenders:
        start, best = contender.as_it_stands, contender.chosen
        named: list[tuple[str, StudyTrial]] = []
        if start:
            named.append(("as it stands, also the best" if start is best else "as it stands", start))
        if best and best is not start:
            named.append((f"best, #{best.number}", best))
        for name, trial in named:
            value = number(trial.values[0], strong=trial is best) if trial.values else trial.state
            rows.append([contender.label, name, value, *(_value(trial.params.get(key)) for key in axes)])
    header = ["contender", "setting", comparison.contenders[0].tuning.metrics[0].label, *axes]
    was_tried = any(contender.as_it_stands for contender in comparison.contenders)
    caption = "The best settings" + (", and the configuration as it stands" if was_tried else "")
    return Table("comparison-settings", header, rows, caption)


def _value(value: object) -> Cell:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(f"{value:.4g}", value)
    return Cell(DASH) if value is None else Cell(str(value), str(value))
