"""The tables of the study's main comparison on a text: scores, contrasts and tuning."""

from collections.abc import Mapping, Sequence
from functools import cache

from analysis.page import DASH, Cell, Row, Table, number, value_cell
from analysis.report.scores import mean_cell
from analysis.report.verdict import signed, size_and_interval
from analysis.study import results
from analysis.study.contrasts import Contrast, contrasts

LEAST_SHOWN_P = 0.001
DECIMALS = 3  # of differences, in nats per token
MAIN = {  # column: metric and factor
    "test nll": ("test/nll", 1.0),
    "bits/byte": ("test/bits_per_byte", 1.0),
    "above floor": ("test/excess_nll", 1.0),
    "accuracy, %": ("test/accuracy", 100.0),
    "ece, %": ("test/ece", 100.0),
}
SECONDARY = {
    "calibrated nll": ("test/nll_calibrated", 1.0),
    "calibrated ece, %": ("test/ece_calibrated", 100.0),
    "temperature": ("val/temperature", 1.0),
    "nll, frequent": ("test/nll_frequent", 1.0),
    "nll, medium": ("test/nll_medium", 1.0),
    "nll, rare": ("test/nll_rare", 1.0),
    "seconds": ("train/seconds", 1.0),
}
FINDINGS = {
    "worse": "{arm} is worse than cross-entropy: its test nll is {size} ({interval}; corrected p {p}).",
    "better": "{arm} is better than cross-entropy: its test nll is {size} ({interval}; corrected p {p}).",
    "equal": "{arm} and cross-entropy are equal for practical purposes: the test nll of {arm} is {size} ({interval}).",
    "no difference": "No difference was found between {arm} and cross-entropy: the test nll of {arm} is {size} "
    "({interval}; corrected p {p}).",
}


@cache
def of_part(part: str) -> Sequence[Contrast]:
    """Return the contrasts of a part of the study."""
    nll, tokens, _ = results.stories(part)
    return contrasts(nll, tokens)


def sentence(contrast: Contrast) -> str:
    """Return the sentence on a contrast by the rules of design.md."""
    size, interval = size_and_interval(contrast.difference)
    arm, p = f"`{contrast.arm}`", p_text(contrast.corrected_p)
    return FINDINGS[contrast.finding].format(arm=arm, size=size, interval=interval, p=p)


def p_text(p: float) -> str:
    """Return a p-value as text."""
    return f"< {LEAST_SHOWN_P}" if p < LEAST_SHOWN_P else f"= {p:.2g}"


def scores(part: str, columns: Mapping[str, tuple[str, float]]) -> Table:
    """Return the scores of the final runs of each arm on the test split: mean ± half of the 95 % interval."""
    finals = results.finals(part)
    known = {
        name: column for name, column in columns.items() if any(f[column[0]].notna().any() for f in finals.values())
    }
    rows: list[Row] = [
        [arm, *(mean_cell((frame[metric] * factor).tolist()) for metric, factor in known.values())]
        for arm, frame in finals.items()
    ]
    return Table(f"{part}-scores", ["arm", *known], rows)


def overview(part: str) -> Table:
    """Return a short table: test nll, the difference from cross-entropy, and what else is compared."""
    found = {contrast.arm: contrast for contrast in of_part(part)}
    rows: list[Row] = []
    for arm, frame in results.finals(part).items():
        contrast = found.get(arm)
        difference = Cell(DASH)
        if contrast:
            interval = interval_cell(contrast.difference.low, contrast.difference.high).text
            difference = Cell(f"{signed(contrast.difference.effect, DECIMALS)} ({interval})")
        metrics = (("test/nll", 1), ("test/bits_per_byte", 1), ("test/accuracy", 100), ("test/ece", 100))
        nll, *others = [number(float(frame[metric].mean()) * factor, 4) for metric, factor in metrics]
        rows.append([arm, nll, difference, *others, contrast.finding if contrast else DASH])
    header = ["arm", "test nll", "minus cross_entropy (95 % interval)", "bits/byte", "accuracy, %", "ece, %", "finding"]
    return Table(f"{part}-overview", header, rows)


def differences(part: str) -> Table:
    """Return the contrasts of the test nll with cross-entropy."""
    rows: list[Row] = [
        [
            contrast.arm,
            Cell(signed(contrast.difference.effect, DECIMALS), contrast.difference.effect),
            interval_cell(contrast.difference.low, contrast.difference.high),
            number(contrast.difference.p_value, 2),
            number(contrast.corrected_p, 2),
            contrast.finding,
        ]
        for contrast in of_part(part)
    ]
    header = ["arm", "minus cross_entropy", "95 % interval", "p", "corrected p", "finding"]
    return Table(f"{part}-differences", header, rows)


def interval_cell(low: float, high: float) -> Cell:
    """Return a confidence interval as a cell."""
    return Cell(f"{signed(low, DECIMALS)} to {signed(high, DECIMALS)}")


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
