"""Tables of a comparison: its budget, and the settings that were chosen."""

import math
from collections import Counter
from collections.abc import Mapping

from analysis.page import DASH, Cell, Row, Table, number, value_cell
from analysis.report.contenders import ENDED, Comparison, Contender
from analysis.report.optuna_study import StudyTrial
from analysis.runs import RecordedSetting


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
    its = f"its {metric}, {comparison.tune_steps} steps"
    test = [setting.mean(key) if setting else math.nan for key in ("test/nll", "test/perplexity")]
    n_confirmed = len(setting.runs) if setting else 0
    return {
        "tuning trials": _of(contender.n_ended, contender.n_trials),
        **{state: states[state] for state in ENDED},
        "best trial": Cell(f"#{chosen.number}", chosen.number) if chosen else DASH,
        its: number(chosen.values[0] if chosen and chosen.values else math.nan),
        "confirmation runs": _of(comparison.n_confirmed(contender), len(comparison.seeds)),
        "seeds in the verdict": n_confirmed,
        "test nll, nats/token": number(test[0]),
        "test perplexity": number(test[1]),
        "training time of all, s": number(contender.seconds, 3),
    }


def _of(n: int, total: int) -> Cell:
    return Cell(f"{n} of {total}", n)


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
            rows.append([contender.label, name, value, *(value_cell(trial.params.get(key)) for key in axes)])
    header = ["contender", "setting", comparison.contenders[0].tuning.metrics[0].label, *axes]
    was_tried = any(contender.as_it_stands for contender in comparison.contenders)
    caption = "The best settings" + (", and the configuration as it stands" if was_tried else "")
    return Table("comparison-settings", header, rows, caption)
