"""The tables of the study's main comparison on a text."""

import math
from collections.abc import Sequence
from functools import cache

from analysis.page import DASH, Cell, Row, Table, number, value_cell
from analysis.report.bootstrap import Difference
from analysis.report.scores import difference_cell, mean_cell
from analysis.report.verdict import decimals, signed, size_and_interval
from analysis.study import results
from analysis.study.contrasts import BASELINE, EQUAL, Contrast, contrasts

LEAST_SHOWN_P, MOST_SHOWN_P = 0.001, 0.9995
MAIN = {  # column: metric and factor
    "test nll": ("test/nll", 1.0),
    "bits/byte": ("test/bits_per_byte", 1.0),
    "above the floor": ("test/excess_nll", 1.0),
    "accuracy, %": ("test/accuracy", 100.0),
    "ece, %": ("test/ece", 100.0),
    "seconds": ("train/seconds", 1.0),
}
SECONDARY = {
    "accuracy, %": ("test/accuracy", 100.0),
    "ece, %": ("test/ece", 100.0),
    "nll at the temperature": ("test/nll_calibrated", 1.0),
    "ece at the temperature, %": ("test/ece_calibrated", 100.0),
    "nll, frequent tokens": ("test/nll_frequent", 1.0),
    "nll, medium": ("test/nll_medium", 1.0),
    "nll, rare": ("test/nll_rare", 1.0),
}
FINDINGS = {
    "worse": "{arm} is worse than cross-entropy: its test nll is {size} ({interval}; corrected p {p}){small}.",
    "better": "{arm} is better than cross-entropy: its test nll is {size} ({interval}; corrected p {p}){small}.",
    "equal": "{arm} and cross-entropy are equal for practical purposes: {arm} minus cross-entropy is {signed}.",
    "no difference": "No difference was found: {arm} minus cross-entropy is {signed}.",
}
SMALL = f", within the margin of {EQUAL} that the plan calls equal for practical purposes"


@cache
def of_part(part: str) -> Sequence[Contrast]:
    """Return the contrasts of a part of the study."""
    nll, tokens, _ = results.stories(part)
    return contrasts(nll, tokens, n_planned=len(results.ARMS) - 1)


def sentence(contrast: Contrast) -> str:
    """Return the sentence on a contrast by the rules of design.md."""
    size, interval = size_and_interval(contrast.difference)
    arm, p = f"`{contrast.arm}`", p_text(contrast.corrected_p)
    p = p if p.startswith("<") else f"= {p}"
    small = SMALL if contrast.is_small else ""
    difference = in_words(contrast.difference, f"; corrected p {p}" if contrast.finding == "no difference" else "")
    return FINDINGS[contrast.finding].format(arm=arm, size=size, interval=interval, p=p, small=small, signed=difference)


def in_words(difference: Difference, more: str = "") -> str:
    """Return a difference with its sign and interval as words, and `more` after the interval."""
    effect, interval = (cell.text for cell in difference_cells(difference))
    return f"{effect} nats per token (95 % confidence interval {interval}{more})"


def p_text(p: float) -> str:
    """Return a p-value as text."""
    return f"< {LEAST_SHOWN_P}" if p < LEAST_SHOWN_P else f"{p:.3f}" if p < MOST_SHOWN_P else "1"


def difference_cells(difference: Difference) -> list[Cell]:
    """Return the effect and its interval as two cells."""
    digits = max(3, decimals(difference))
    effect, low, high = (signed(value, digits) for value in (difference.effect, difference.low, difference.high))
    return [Cell(effect, difference.effect), Cell(f"{low} to {high}")]


def n_seeds(part: str) -> int:
    """Return the number of final runs of each arm."""
    return len(results.finals(part)[BASELINE])


def baseline(part: str) -> float:
    """Return the mean test nll of cross-entropy, in nats per token."""
    return float(results.finals(part)[BASELINE]["test/nll"].mean(skipna=False))


def slower(part: str, arm: str) -> float:
    """Return by how much more time an arm takes than cross-entropy: 0.1 is 10 %."""
    seconds = {name: float(frame["train/seconds"].mean()) for name, frame in results.finals(part).items()}
    return seconds[arm] / seconds[BASELINE] - 1


def scores(part: str) -> Table:
    """Return the scores of the final runs of each arm on the test split: mean ± half of the 95 % interval."""
    finals = results.finals(part)
    columns = {
        name: column
        for name, column in MAIN.items()
        if any(frame[column[0]].notna().any() for frame in finals.values())
    }
    rows: list[Row] = []
    for arm, frame in finals.items():
        setting = [value_cell(frame.iloc[0][key]) for key in ("lr", "dropout")]
        rows.append([arm, *setting, *(mean_cell((frame[key] * factor).tolist()) for key, factor in columns.values())])
    return Table(f"{part}-scores", ["arm", "chosen lr", "dropout", *columns], rows)


def differences(part: str) -> Table:
    """Return the contrasts of the test nll with cross-entropy."""
    rows: list[Row] = []
    for contrast in of_part(part):
        higher = sum(effect > 0 for effect in contrast.seed_effects)
        rows.append(
            [
                contrast.arm,
                *difference_cells(contrast.difference),
                f"{higher} of {len(contrast.seed_effects)}",
                Cell(p_text(contrast.difference.p_value), contrast.difference.p_value),
                Cell(p_text(contrast.corrected_p), contrast.corrected_p),
                contrast.finding,
            ]
        )
    header = ["arm", "minus cross_entropy", "95 % interval", "seeds with a higher nll", "p", "corrected p", "finding"]
    return Table(f"{part}-differences", header, rows)


def overview(part: str) -> Table:
    """Return a short table: test nll, the difference from cross-entropy, and what else is compared."""
    found = {contrast.arm: contrast for contrast in of_part(part)}
    rows: list[Row] = []
    for arm, frame in results.finals(part).items():
        effect, interval = difference_cells(found[arm].difference) if arm in found else (Cell(DASH), Cell(DASH))
        metrics = (("test/nll", 1, 4), ("test/bits_per_byte", 1, 4), ("test/accuracy", 100, 4), ("test/ece", 100, 2))
        nll, *others = (
            number(float(frame[metric].mean(skipna=False)) * factor, digits) for metric, factor, digits in metrics
        )
        rows.append([arm, nll, effect, interval, *others, found[arm].finding if arm in found else DASH])
    header = [
        "arm",
        "test nll",
        "minus cross_entropy",
        "95 % interval",
        "bits/byte",
        "accuracy, %",
        "ece, %",
        "finding",
    ]
    return Table(f"{part}-overview", header, rows)


def secondary(part: str) -> Table:
    """Return the secondary outcomes: cross-entropy as it is, the others minus cross-entropy, paired by seed."""
    by_seed = {arm: frame.set_index("seed") for arm, frame in results.finals(part).items()}
    rows: list[Row] = []
    for arm, frame in by_seed.items():
        values = [(by_seed[BASELINE][metric] * factor, frame[metric] * factor) for metric, factor in SECONDARY.values()]
        if arm == BASELINE:
            rows.append([arm, *(mean_cell(own.tolist()) for _, own in values)])
        else:
            rows.append([f"{arm} minus cross_entropy", *(difference_cell(dict(a), dict(b)) for a, b in values)])
    return Table(f"{part}-secondary", ["arm", *SECONDARY], rows)


def tuning(part: str) -> Table:
    """Return the validation nll of every tuning run, with a column for each arm. The best ones are bold."""
    frames = {arm: results.tuning(part, arm) for arm in results.finals(part)}
    keys = sorted({(row.lr, row.dropout) for frame in frames.values() for row in frame.itertuples()})
    rows: list[Row] = []
    for lr, dropout in keys:
        cells = []
        for frame in frames.values():
            found = frame[(frame["lr"] == lr) & (frame["dropout"] == dropout)]
            nll = [float(value) for value in found["val/nll"]]
            is_best = len(found) > 0 and found.index[0] == frame.index[0]
            cells.append(number(nll[0], 4, strong=is_best) if nll else Cell(DASH))
        rows.append([value_cell(lr), value_cell(dropout), *cells])
    return Table(f"{part}-tuning", ["lr", "dropout", *frames], rows)


def luck(part: str) -> Table:
    """Return how much the choice of a setting may matter: what the intervals do not cover."""
    rows: list[Row] = []
    base = results.tuning(part, BASELINE).set_index(["lr", "dropout"])["val/nll"]
    for arm, frame in results.finals(part).items():
        tuned = results.tuning(part, arm)
        best, second = [*tuned["val/nll"].tolist(), math.nan][:2]
        differences = (tuned.set_index(["lr", "dropout"])["val/nll"] - base).dropna()
        same = [number(math.nan), Cell(DASH)]
        if arm != BASELINE:
            mean, n_higher = float(differences.mean()), int((differences > 0).sum())
            same = [Cell(signed(mean, 3), mean), Cell(f"{n_higher} of {len(differences)}")]
        final = frame["val/nll"]
        mean, deviation = float(final.mean(skipna=False)), float(final.std(skipna=False))
        rows.append([arm, *(number(value, 4) for value in (best, second, mean)), number(deviation, 2), *same])
    header = ["arm", "best val nll of tuning", "second best", "mean of the final runs", "their standard deviation"]
    header += ["minus cross_entropy at the same setting, mean", "settings in which it is higher"]
    return Table(f"{part}-luck", header, rows)
