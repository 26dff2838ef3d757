"""Figures of a grid: its scores as heat maps or points, and the learning rates of its trials over the steps."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import figures, labels
from analysis.axes import fit_scale, span
from analysis.lines import thinned
from analysis.recorded_run import RecordedRun
from analysis.report.grid_trials import GridTrial, best_trial, describe, find, label, short, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PERPLEXITY = "Validation perplexity"
HATCHES = {"diverged": "xxx", "missing": "", "pruned": "\\\\\\"}  # by state; other states have slanted lines
STEPS = "train.max_steps"
CELL = 0.68, 0.52  # inches
SHORT_TICK, CHARACTER = 7, 0.08  # characters of a label that fits under a cell; width of one more in inches
SLANTED: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}  # long labels, as of the functions of a user
LOG_RATIO = 2.5  # colors are logarithmic if the highest value is more than this many times the lowest
COLORS = "cividis_r"  # the best cell is the lightest, so that a black frame and text stand out
BOX: Any = {"fc": figures.PAPER, "ec": "none", "pad": 1}
CENTER: Any = {"ha": "center", "va": "center"}


@figures.style()
def heat_maps(
    grid: Sequence[GridTrial], x: str, y: str | None, panel: str | None, fixed: Mapping[str, str | None]
) -> figures.Figure:
    """Draw the perplexity of the trials of a grid.

    Args:
        grid: Trials of the grid.
        x: Setting of the columns.
        y: Setting of the rows; None for a single row.
        panel: Setting of the panels; None for a single panel.
        fixed: Values of the other settings that the grid varies.
    """
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    columns, rows, depths = (values(grid, key) if key else [None] for key in (x, y, panel))
    ticks_x, ticks_y = [short(value) for value in columns], [short(value) for value in rows] if y else [""]
    long_x, long_y = (max(0, max(map(len, ticks)) - SHORT_TICK) * CHARACTER for ticks in (ticks_x, ticks_y))
    width = min(figures.PANEL[0], max(2.6, CELL[0] * len(columns) + 1 + max(long_x, long_y)))
    is_narrow = CELL[0] * len(columns) + 1 > width  # the texts of the cells are turned
    height = (CELL[0] if is_narrow else CELL[1]) * len(rows) + 1 + long_x / 2
    means = [trial.mean() for trial in grid if not math.isnan(trial.mean())] or [1.0]
    low, high = min(means), max(means)
    norm = (LogNorm if high > LOG_RATIO * low else Normalize)(low, high if high > low else low + 1)
    colors = ScalarMappable(norm, matplotlib.colormaps[COLORS].resampled(64))  # few steps keep the page small
    best = best_trial(grid)
    drawing, panels = figures.panels(len(depths), size=(width, max(2.4, height)))
    for axes, depth in zip(panels, depths, strict=True):
        for column, row in np.ndindex(len(columns), len(rows)):
            wanted = {x: columns[column], y: rows[row], panel: depth}
            trial = find(grid, {**fixed, **{key: value for key, value in wanted.items() if key}})
            _cell(axes, column, row, trial, colors, is_best=trial is not None and trial is best)
        for text in axes.texts if is_narrow else ():
            text.set_rotation(90)
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5), xlabel=label(x))
        axes.set_xticks(range(len(columns)), ticks_x, **(SLANTED if long_x else {}))
        axes.set_yticks(range(len(rows)), ticks_y)
        axes.set_ylabel(label(y) if y else "")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        if panel:
            axes.set_title(f"{label(panel)}: {short(depth)}")
    steps = [int(run.params[STEPS]) for trial in grid for run in trial.runs if STEPS in run.params]
    after = f" after {span(steps)} training steps" if steps else ""
    scale = " on a logarithmic scale" if isinstance(norm, LogNorm) else ""
    caption = (
        f"{PERPLEXITY} of the trials{after}: the number in each cell, and its color{scale}. Lower and lighter is "
        "better; the best trial has a frame."
    )
    return figures.finish(drawing, "grid_values", caption)


@figures.style()
def schedules(grid: Sequence[GridTrial], keys: Sequence[str]) -> figures.Figure | None:
    """Draw the learning rate over the steps, for the longest run of each schedule; return None if no run has a curve.

    Args:
        grid: Trials of the grid.
        keys: Settings of the schedule that the grid varies.
    """
    by_schedule: dict[str, RecordedRun] = {}
    runs = [run for trial in grid for run in trial.runs if run.curve("train/lr").steps]
    for run in sorted(runs, key=lambda run: (nominal_rate(run), len(run.curve("train/lr").steps))):
        by_schedule[describe(run.params, keys) or "all trials"] = run
    if not runs:
        return None
    drawing, (axes,) = figures.panels()
    rates = sorted({rate for run in runs if (rate := nominal_rate(run)) > 0})
    for rate in rates:
        axes.axhline(rate, color=figures.INK, linestyle=":", linewidth=1)
    for number, (text, run) in enumerate(by_schedule.items()):
        steps, values = np.array(run.curve("train/lr").steps), np.array(run.curve("train/lr").values)
        kept = thinned(values)
        look = figures.series(number) | {"markevery": max(1, len(kept) // 8)}
        axes.plot(steps[kept], values[kept], label=text, **look)
    shown = [run.curve("train/lr") for run in by_schedule.values()]
    fit_scale(axes, "y", [*rates, *(value for curve in shown for value in curve.values)], is_log=True)
    fit_scale(axes, "x", [0, *(curve.steps[-1] for curve in shown)], is_log=False)
    axes.set(title="Learning rate during training", xlabel="Step", ylabel="Learning rate", xlim=(0, None))
    axes.margins(y=0.12)
    labels.name_ends(axes)
    caption = "Learning rate at the logged steps. Dotted: the nominal learning rate, which the grid lists."
    return figures.finish(drawing, "grid_learning_rate", caption)


def nominal_rate(run: RecordedRun) -> float:
    """Return the configured learning rate of a run; 0 if its optimizer has none."""
    try:
        return float(run.params.get("optimizer.lr", "0"))
    except ValueError:
        return 0.0


def _cell(axes: "Axes", column: int, row: int, trial: GridTrial | None, colors: Any, *, is_best: bool) -> None:
    from matplotlib.patches import Rectangle

    mean = trial.mean() if trial else math.nan
    corner = column - 0.48, row - 0.48
    if math.isnan(mean):
        state = _state(trial)
        look: Any = {"facecolor": "none", "edgecolor": figures.FAINT, "linewidth": 0.6}
        axes.add_patch(Rectangle(corner, 0.96, 0.96, hatch=HATCHES.get(state, "///"), **look))
        axes.text(column, row, state, **CENTER, bbox=BOX)
        return
    color = colors.to_rgba(mean)
    ink = "#000000" if _luminance(color) > 0.179 else "#ffffff"  # black and white have equal contrast at 0.179
    axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=color, linewidth=0))
    if is_best:
        frame: Any = {"facecolor": "none", "edgecolor": "#000000", "linewidth": 2}
        axes.add_patch(Rectangle((column - 0.42, row - 0.42), 0.84, 0.84, **frame))
    text, weight = _brief(mean) + ("\nbest" if is_best else ""), "bold" if is_best else "normal"
    axes.text(column, row, text, **CENTER, color=ink, fontweight=weight)


def _luminance(color: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB color, as in the Web Content Accessibility Guidelines 2."""
    red, green, blue, *_ = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _brief(value: float) -> str:
    """Return a number that fits into a cell."""
    if value < 1e6:
        return f"{value:.4g}" if value < 1e4 else f"{value / 1e3:.4g}k"
    return f"{value:.1e}".replace("e+", "e")


def _state(trial: GridTrial | None) -> str:
    if trial is None:
        return "missing"
    return "no value" if trial.state == "finished" else trial.state
