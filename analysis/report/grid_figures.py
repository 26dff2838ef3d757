"""Figures of a grid: its values as heat maps or points, and the learning rates of its trials."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import figures
from analysis.axes import SPAN, plain_log, plain_ticks, thinned
from analysis.recorded_run import Curve, RecordedRun
from analysis.report.grid_trials import GridTrial, at, best, label, shown, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PERPLEXITY = "Validation perplexity"
HATCH = {"diverged": "xxx", "missing": "", "pruned": "\\\\\\"}  # others: slanted lines
N_COLUMNS, WIDTH = 3, 9.0  # of panels at most, in inches
COLOURS = "cividis_r"  # the best cell is the lightest, so that a black frame and text stand out on it


def heat_maps(given: Sequence[GridTrial], x: str, y: str, panel: str | None, fixed: Mapping[str, str | None]) -> Any:
    """Return a figure with a panel for each value of `panel`. `fixed` are the values of further axes."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    columns, rows = values(given, x), values(given, y)
    depths = values(given, panel) if panel else [None]
    size = (max(2.4, 0.62 * len(columns) + 0.8), max(2.4, 0.5 * len(rows) + 1.0))
    n_columns = min(N_COLUMNS, len(depths), max(1, int(WIDTH / size[0])))
    n_rows = math.ceil(len(depths) / n_columns)
    means = [trial.mean() for trial in given if not math.isnan(trial.mean())]
    low, high = (min(means), max(means)) if means else (1.0, 1.0)
    norm = (LogNorm if high / low > SPAN / 2 else Normalize)(low, high if high > low else low + 1)
    colours = ScalarMappable(norm, matplotlib.colormaps[COLOURS].resampled(64))  # steps of a colour bar in the page
    champion = best(given)
    with figures.style():
        drawing, panels = figures.panels(n_columns, n_rows, size=size)
        for axes, depth in zip(panels, depths, strict=False):
            for column, row in np.ndindex(len(columns), len(rows)):
                wanted = {**fixed, x: columns[column], y: rows[row], **({panel: depth} if panel else {})}
                trial = at(given, wanted)
                _cell(axes, column, row, trial, colours, trial is not None and trial is champion)
            axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5))
            axes.set_xticks(range(len(columns)), [shown(value) for value in columns])
            axes.set_yticks(range(len(rows)), [shown(value) for value in rows])
            axes.set(xlabel=label(x), ylabel=label(y))
            axes.grid(visible=False)
            axes.tick_params(length=0)
            if panel:
                axes.set_title(f"{label(panel)}: {shown(depth)}")
        for axes in panels[len(depths) :]:
            axes.set_axis_off()
        if means:
            bar = drawing.colorbar(
                colours, ax=panels, label=PERPLEXITY, pad=0.02, aspect=25, shrink=1 / n_rows, anchor=(0, 1)
            )
            bar.outline.set_visible(False)
            if isinstance(norm, LogNorm):
                plain_ticks(bar.ax.yaxis, high / low)
        scale = "logarithmic colours" if isinstance(norm, LogNorm) else "colours"
        caption = f"{PERPLEXITY} of the trials, with {scale}; the best one is framed and marked. Less is better."
        return figures.finish(drawing, "grid_values", caption)


def points(given: Sequence[GridTrial], x: str) -> figures.Figure:
    """Return a figure of the trials along the only setting that they vary."""
    at_x, champion = values(given, x), best(given)
    with figures.style():
        drawing, (axes,) = figures.panels(size=(max(4.2, 0.6 * len(at_x) + 0.8), 3.0))
        trials = [at(given, {x: value}) for value in at_x]
        means = np.array([trial.mean() if trial else math.nan for trial in trials])
        axes.errorbar(
            range(len(at_x)),
            means,
            yerr=[trial.standard_error() if trial else math.nan for trial in trials],
            capsize=3,
            **figures.series(0),
        )
        if np.isfinite(means).any():
            plain_log(axes, "y", means[np.isfinite(means)])
        axes.set(xlim=(-0.5, len(at_x) - 0.5), xlabel=label(x), ylabel=PERPLEXITY)
        axes.set_xticks(range(len(at_x)), [shown(value) for value in at_x])
        for column, trial in enumerate(trials):
            if trial is None or math.isnan(trial.mean()):
                state = _state(trial)
                edges: Any = {"facecolor": "none", "edgecolor": figures.FAINT, "linewidth": 0}
                axes.axvspan(column - 0.4, column + 0.4, hatch=HATCH.get(state, "///"), **edges)
                axes.annotate(state, (column, 0.5), xycoords=("data", "axes fraction"), rotation=90, **_BESIDE)
            elif trial is champion:
                error = trial.standard_error() if len(trial.runs) > 1 else 0.0
                axes.annotate("best", (column, means[column] + error), (0, 10), textcoords="offset points", **_BESIDE)
        axes.margins(y=0.2)
        bars = "; bars: standard error over the seeds" if any(t and len(t.runs) > 1 for t in trials) else ""
        return figures.finish(drawing, "grid_values", f"{PERPLEXITY} of the trials{bars}. Less is better.")


_BESIDE: Any = {
    "ha": "center",
    "va": "center",
    "fontweight": "bold",
    "bbox": {"fc": figures.PAPER, "ec": "none", "pad": 1},
}


def schedules(given: Sequence[GridTrial], keys: Sequence[str]) -> figures.Figure | None:
    """Return a figure with a line for each distinct learning-rate schedule, or None if no run has logged one.

    keys: the settings that tell schedules apart.
    """
    distinct = _distinct([run for trial in given for run in trial.runs])
    if not distinct:
        return None
    with figures.style():
        drawing, (axes,) = figures.panels(size=(4.8, 3.4))
        nominal = sorted({rate for run, _ in distinct if not math.isnan(rate := nominal_rate(run))})
        for rate in nominal:
            axes.axhline(
                rate, color=figures.INK, linestyle=":", linewidth=1, label="nominal" if rate == nominal[0] else ""
            )
        for number, (run, curve) in enumerate(distinct):
            rates = np.array(curve.values)
            kept = thinned(rates)
            text = ", ".join(f"{label(key).lower()} {shown(run.params.get(key))}" for key in keys) or "all trials"
            steps = np.array(curve.steps)[kept]
            axes.plot(steps, rates[kept], label=text, markevery=max(1, len(kept) // 8), **figures.series(number))
        axes.set_yscale("log", nonpositive="mask")
        axes.set(xlabel="Step", ylabel="Learning rate", xlim=(0, None))
        axes.margins(y=0.12)
        columns = 2 if max(len(text) for text in axes.get_legend_handles_labels()[1]) < 28 else 1
        drawing.legend(loc="outside lower center", ncols=columns)
        caption = "The learning rate at the logged steps, and the nominal one that a trial is named after (dotted)."
        return figures.finish(drawing, "grid_learning_rate", caption)


def nominal_rate(run: RecordedRun) -> float:
    """Return the configured learning rate of a run; nan if its optimizer has none."""
    try:
        return float(run.params.get("optimizer.lr", "nan"))
    except ValueError:
        return math.nan


def _cell(axes: "Axes", column: int, row: int, trial: GridTrial | None, colours: Any, is_best: bool) -> None:
    from matplotlib.patches import Rectangle

    mean = trial.mean() if trial else math.nan
    corner = column - 0.48, row - 0.48
    if math.isnan(mean):
        state = _state(trial)
        look: Any = {"facecolor": "none", "edgecolor": figures.FAINT, "linewidth": 0.6}
        axes.add_patch(Rectangle(corner, 0.96, 0.96, hatch=HATCH.get(state, "///"), **look))
        box = {"fc": figures.PAPER, "ec": "none", "pad": 1}
        axes.text(column, row, state, ha="center", va="center", fontsize=8, bbox=box)
        return
    colour = colours.to_rgba(mean)
    ink = "#000000" if _luminance(colour) > 0.179 else "#ffffff"  # where black and white contrast equally
    axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=colour, linewidth=0))
    if is_best:
        frame: Any = {"facecolor": "none", "edgecolor": "#000000", "linewidth": 2}
        axes.add_patch(Rectangle((column - 0.42, row - 0.42), 0.84, 0.84, **frame))
    text = _brief(mean) + ("\nbest" if is_best else "")
    weight = "bold" if is_best else "normal"
    axes.text(column, row, text, ha="center", va="center", color=ink, fontweight=weight, fontsize=9)


def _luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB color, as in the Web Content Accessibility Guidelines 2."""
    red, green, blue, *_ = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _brief(value: float) -> str:
    """Return a number with as few characters as fit into a cell."""
    return (
        f"{value:.4g}" if value < 1e4 else f"{value / 1e3:.4g}k" if value < 1e6 else f"{value:.1e}".replace("e+", "e")
    )


def _state(trial: GridTrial | None) -> str:
    if trial is None:
        return "missing"
    return "no value" if trial.state == "finished" else trial.state


def _distinct(given: Sequence[RecordedRun]) -> list[tuple[RecordedRun, Curve]]:
    """Return one run for each distinct schedule. A run that ended early counts as a longer one that begins alike."""
    curves = sorted(((run, run.curve("train/lr")) for run in given), key=lambda each: -len(each[1].steps))
    kept: list[tuple[RecordedRun, Curve]] = []
    for run, curve in curves:
        points = dict(zip(curve.steps, curve.values, strict=True))
        if points and not any(_covers(longer, points) for _, longer in kept):
            kept.append((run, curve))
    return sorted(kept, key=lambda each: nominal_rate(each[0]))


def _covers(curve: Curve, points: Mapping[int, float]) -> bool:
    known = dict(zip(curve.steps, curve.values, strict=True))
    return all(step in known and math.isclose(known[step], rate, rel_tol=1e-6) for step, rate in points.items())
